//! What the sidecar's threads say to each other: everything to the loop is an event, and the storer gets orders.

use crate::api::Pod;
use crate::contract::report::{OutputError, StoredSecret};

/// Everything that the loop hears of.
#[derive(Debug)]
pub enum Event {
    /// The pod's state, as it is now.
    Pod(Box<Pod>),
    /// The pod cannot be watched and this will not pass by itself; the text says why.
    Blind(String),
    /// New files, perhaps.
    Look,
    /// The store did something.
    Outcome(Outcome),
    /// SIGTERM or SIGINT.
    Stop,
}

/// What came of it; sent to the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A Secret holds the output.
    Stored(StoredSecret),
    /// An output is not stored and will not be.
    Failed(OutputError),
    /// Nothing is left to do for this container.
    Finished(String),
}

/// What the loop tells the thread. Its end of the channel closed means: stop.
#[derive(Debug)]
pub enum Order {
    /// Store the output of this container.
    Store(Ended),
    /// Try everything once more, now, and then give up.
    Hurry,
}

/// Output of a container that has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Name of the container.
    pub container: String,
    /// It failed: what is not there or not valid is no error.
    pub lenient: bool,
    /// Documents that a file may hold.
    pub documents: usize,
}
