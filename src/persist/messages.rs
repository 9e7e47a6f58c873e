//! What the sidecar's threads send each other: everything to the loop is an event, and the storer gets commands.

use crate::api::Pod;
use crate::contract::report::{OutputError, StoredSecret};

/// Everything that the loop hears of.
#[derive(Debug)]
pub enum LoopEvent {
    /// The pod's current state.
    Pod(Box<Pod>),
    /// The pod cannot be watched, and this is not temporary; the text says why.
    Blind(String),
    /// New files, perhaps.
    Look,
    /// The store did something.
    Store(StoreEvent),
    /// SIGTERM or SIGINT.
    Stop,
}

/// What the store did; sent to the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// A Secret holds the output.
    Stored(StoredSecret),
    /// An output is not stored and will not be.
    Failed(OutputError),
    /// Nothing is left to do for this container.
    Finished(String),
}

/// Commands from the loop to the store's thread. A closed channel means: stop.
#[derive(Debug)]
pub enum StoreCommand {
    /// Store the output of this container.
    Store(EndedContainer),
    /// Try everything once more, now, and then give up.
    Hurry,
}

/// Output of a container that has ended permanently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedContainer {
    /// Name of the container.
    pub container: String,
    /// It failed: missing or invalid output is not an error.
    pub lenient: bool,
    /// Documents that a file may hold.
    pub documents: usize,
}
