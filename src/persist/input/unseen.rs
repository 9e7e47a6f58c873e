//! Logs when a mapped file appears. Not for what is stored: that counts once its container has ended.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, never, tick};

use crate::persist::environment::Environment;
use crate::persist::messages::LoopEvent;

use super::files;
use super::inotify::FileWatch;

/// Looking for new files where inotify is not to be had.
const POLL: Duration = Duration::from_secs(2);

/// Files that have not been seen yet, for the log only.
pub struct UnseenFiles {
    /// Kept for its drop, which ends the watch.
    watch: Option<FileWatch>,
    /// When to look, without inotify.
    pub ticks: Receiver<Instant>,
    unseen: BTreeSet<(String, String)>,
}

impl UnseenFiles {
    /// Hears of new files by inotify, or else by looking now and then.
    pub fn start(environment: &Environment, events: &Sender<LoopEvent>, panics: &Sender<&'static str>) -> Self {
        // Containers of which only the log is output have no folder.
        let containers = || environment.plan.containers.iter().filter(|(_, plan)| !plan.files.is_empty());
        let mut unseen = BTreeSet::new();
        unseen.extend(containers().flat_map(|(name, plan)| plan.files.keys().map(|file| (name.clone(), file.clone()))));
        let sender = events.clone();
        // With a full channel there is a look to come anyway.
        let look = move || !matches!(sender.try_send(LoopEvent::Look), Err(TrySendError::Disconnected(_)));
        match FileWatch::start(&environment.root, containers().map(|(name, _)| name), panics, look) {
            Ok(watch) => Self { watch: Some(watch), ticks: never(), unseen },
            Err(error) => {
                log::warn!(error:%; "inotify not available; checking for files every 2 s");
                Self { watch: None, ticks: tick(POLL), unseen }
            }
        }
    }

    /// Looks for those that have not been seen yet.
    pub fn look(&mut self, environment: &Environment) {
        self.unseen.retain(|(container, file)| {
            let is_there = files::is_there(&environment.root, container, file);
            if is_there {
                log::info!(container:%, file:%; "output file found");
            }
            !is_there
        });
        if self.unseen.is_empty() {
            self.watch = None;
            self.ticks = never();
        }
    }
}
