//! What the sidecar's threads say to each other: everything to the loop is an event, and the storer gets commands.

use crate::api::Pod;
use crate::contract::report::{OutputError, StoredSecret};

/// Everything that the loop hears of.
#[derive(Debug)]
pub enum LoopEvent {
    /// The pod's state, as it is now.
    Pod(Box<Pod>),
    /// The pod cannot be watched and this will not pass by itself; the text says why.
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

/// What the loop tells the store's thread. Its end of the channel closed means: stop.
#[derive(Debug)]
pub enum StoreCommand {
    /// Store the output of this container.
    Store(EndedContainer),
    /// Try everything once more, now, and then give up.
    Hurry,
}

/// Output of a container that has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedContainer {
    /// Name of the container.
    pub container: String,
    /// It failed: what is not there or not valid is no error.
    pub lenient: bool,
    /// Documents that a file may hold.
    pub documents: usize,
}
