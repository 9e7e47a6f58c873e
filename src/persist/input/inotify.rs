//! Notices new files without polling: the edge to the operating system.
//!
//! An event of any kind means "check again". Output is read only after its container has ended, so this is for the log (a file that
//! appears, or never does) and never for what is stored.

use std::io;
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use inotify::{Inotify, WatchDescriptor, WatchMask, Watches};

use crate::threads::Thread;

/// Pause after each bundle of events, so that a container that writes all the time costs next to nothing here.
const PAUSE: Duration = Duration::from_millis(200);
/// Room for a bundle of events, in bytes. What does not fit is read next time or lost, which does not matter.
const BUFFER: usize = 4096;

/// A watch on the output folders; ends when dropped.
#[derive(Debug)]
pub struct FileWatch {
    watches: Watches,
    descriptors: Vec<WatchDescriptor>,
    stop: Option<Sender<()>>,
    thread: Option<Thread>,
}

impl FileWatch {
    /// Watches `<root>/<container>` for each container. `look` is called from a thread after each bundle of events, and once
    /// at the start, after the watches are in; it must not block, and returns false when the receiver is gone.
    pub fn start<'a>(
        root: &Path,
        containers: impl Iterator<Item = &'a String>,
        panics: &Sender<&'static str>,
        look: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let mut inotify = Inotify::init()?;
        let mut watches = inotify.watches();
        let mask = WatchMask::CREATE | WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::ONLYDIR | WatchMask::DONT_FOLLOW;
        let descriptors = containers.map(|container| watches.add(root.join(container), mask)).collect::<io::Result<Vec<_>>>()?;
        let mut open = descriptors.len();
        let (stop, stopped) = bounded::<()>(0);
        let run = move || {
            let mut buffer = [0; BUFFER];
            while look() && open > 0 {
                match inotify.read_events_blocking(&mut buffer) {
                    Ok(events) => open -= events.filter(|event| event.mask.contains(inotify::EventMask::IGNORED)).count().min(open),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        log::warn!(error:%; "file watch stopped");
                        return;
                    }
                }
                if !matches!(stopped.recv_timeout(PAUSE), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        let thread = Thread::spawn("watch-files", panics, run)?;
        Ok(Self { watches, descriptors, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        // Closing the channel ends a pause; removing a watch is an event, which ends a read.
        self.stop = None;
        for descriptor in self.descriptors.drain(..) {
            if self.watches.remove(descriptor).is_err() {
                // The folder is deleted, and with it the watch: the thread has been notified already.
                continue;
            }
        }
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn every_change_means_look_again_and_dropping_ends_the_thread() {
        let root = std::env::temp_dir().join(format!("quarks-inotify-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("main")).unwrap();
        let (sender, receiver) = unbounded();
        let watch = FileWatch::start(&root, [&"main".to_owned()].into_iter(), &unbounded().0, move || sender.send(()).is_ok()).unwrap();
        let limit = Duration::from_secs(20);
        // The first event comes without a change, after the watch is in place.
        receiver.recv_timeout(limit).unwrap();
        fs::write(root.join("main/f"), "x").unwrap();
        receiver.recv_timeout(limit).unwrap();
        drop(watch);
        // The thread has ended, so the channel is closed once it is empty.
        assert_eq!(receiver.iter().take(10).count() % 10, receiver.len());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let missing = Path::new("/nonexistent");
        assert!(FileWatch::start(missing, [&"main".to_owned()].into_iter(), &unbounded().0, || true).is_err());
    }
}
