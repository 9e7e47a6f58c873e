//! The thread that does the store's work, so that a slow API server does not keep the loop from handling SIGTERM.

use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use crate::persist::messages::{LoopEvent, StoreCommand, StoreEvent};

use super::api::Api;
use super::tasks::Store;

/// Works until the commands end.
pub fn run_storer<A: Api>(mut store: Store<A>, commands: &Receiver<StoreCommand>, events: &Sender<LoopEvent>) {
    loop {
        let command = match store.next_due() {
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) if due <= Instant::now() => commands.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            }),
            Some(due) => commands.recv_deadline(due),
        };
        let done: Vec<StoreEvent> = match command {
            Ok(StoreCommand::Store(ended)) => store.accept(ended, Instant::now()),
            Ok(StoreCommand::Hurry) => {
                store.hurry(Instant::now());
                Vec::new()
            }
            Err(RecvTimeoutError::Timeout) => store.step(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for event in done {
            // The loop has ended: there is no more work.
            if events.send(LoopEvent::Store(event)).is_err() {
                return;
            }
        }
    }
}
