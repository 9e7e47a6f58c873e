//! What both controllers share: a turn with a key, what is remembered about it, every write, and the texts of `Ready` and status.
//!
//! Pure: `burst`, `decision`, `note`, `outbox`, `pace`, `ready`, `status`, `stick`. Knows neither `errand` nor `job`.

pub mod action;
pub mod burst;
pub mod choices;
pub mod decision;
pub mod events;
pub mod lookup;
pub mod memory;
pub mod note;
mod outbox;
pub mod pace;
pub mod ready;
pub mod status;
pub mod stick;
pub mod trouble;
pub mod turn;
