//! The only place that starts threads: named, joined, and never dead without notice.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::Sender;

/// Stack of a thread in bytes. Only what is touched costs memory; decoding JSON is the deepest that we go.
const STACK: usize = 512 * 1024;

/// A running thread.
#[derive(Debug)]
pub struct Thread {
    name: &'static str,
    handle: JoinHandle<()>,
}

impl Thread {
    /// Starts `work`. If it panics, its name goes to `panics`: a thread that is gone makes the process useless.
    pub fn spawn(name: &'static str, panics: &Sender<&'static str>, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Self::spawn_boxed(name, panics, Box::new(work))
    }

    /// Compiled once for all threads.
    fn spawn_boxed(name: &'static str, panics: &Sender<&'static str>, work: Box<dyn FnOnce() + Send>) -> io::Result<Self> {
        let panics = panics.clone();
        let guarded = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                // The receiver is gone only if the process ends anyway.
                let _ = panics.try_send(name);
            }
        };
        let handle = Builder::new().name(name.to_owned()).stack_size(STACK).spawn(guarded)?;
        Ok(Self { name, handle })
    }

    /// Waits for its end.
    pub fn join(self) {
        let Self { name, handle } = self;
        if handle.join().is_err() {
            log::error!(thread:% = name; "thread could not be joined");
        }
    }

    /// True once it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}
