//! The thread that does the store's work, so that a slow API server does not keep the loop from hearing SIGTERM.

use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use crate::persist::messages::{Event, Order, Outcome};

use super::api::Api;
use super::tasks::Store;

/// Works until the orders end.
pub fn run_storer<A: Api>(mut store: Store<A>, orders: &Receiver<Order>, events: &Sender<Event>) {
    loop {
        let order = match store.next_due() {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) if due <= Instant::now() => orders.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            }),
            Some(due) => orders.recv_deadline(due),
        };
        let outcomes: Vec<Outcome> = match order {
            Ok(Order::Store(ended)) => store.accept(ended, Instant::now()),
            Ok(Order::Hurry) => {
                store.hurry(Instant::now());
                Vec::new()
            }
            Err(RecvTimeoutError::Timeout) => store.step(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        for outcome in outcomes {
            // The loop is gone: there is nobody left to work for.
            if events.send(Event::Outcome(outcome)).is_err() {
                return;
            }
        }
    }
}
