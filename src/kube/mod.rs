//! Talking to the API server: its address, our credential, one request and its answer.
//!
//! Also one-time lists (`pages`). Not for lists that are kept up to date (`watch`) and not for decisions. Only `transport.rs` names
//! ureq, and `tls.rs` and `via.rs` for what they put between it and the network; `tls.rs`, `crypto.rs`, `trust.rs`, `identity.rs` and
//! `explain.rs` name rustls.

pub(crate) mod answer;
pub mod client;
pub mod config;
mod crypto;
pub mod error;
mod explain;
pub(crate) mod frames;
pub(crate) mod headers;
pub(crate) mod items;
mod identity;
mod lines;
pub(crate) mod objects;
pub mod pages;
mod pause;
pub mod request;
#[cfg(test)]
pub(crate) mod scripted;
mod tls;
pub mod transport;
mod trust;
mod via;

pub use answer::Answer;
pub use client::{Client, ClientOptions, Observer};
pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use request::{DeleteOptions, Method, Propagation, Request};
