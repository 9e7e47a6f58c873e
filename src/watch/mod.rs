//! (to come)
/// x
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<T> {
    /// x
    Replaced(Vec<T>),
    /// x
    Applied(T),
    /// x
    Deleted(T),
}
