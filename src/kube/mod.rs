//! Talking to the API server: where it is, who we are, one request and its answer.
//!
//! And lists for once (`pages`). Not for lists that stay fresh (`watch`) and not for decisions. Only `transport.rs` names ureq, only it, `tls.rs` and `crypto.rs` name rustls.

pub(crate) mod answer;
pub mod client;
pub mod config;
mod crypto;
pub mod error;
pub(crate) mod frames;
pub(crate) mod headers;
pub(crate) mod items;
mod lines;
pub(crate) mod objects;
pub mod pages;
mod pause;
pub mod request;
#[cfg(test)]
pub(crate) mod scripted;
mod tls;
pub mod transport;

pub use answer::Answer;
pub use client::{Client, ClientOptions, Observer};
pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use request::{DeleteOptions, Method, Propagation, Request};
