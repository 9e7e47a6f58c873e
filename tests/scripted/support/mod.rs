//! Support for tests that run the real `quarks-job` binary against a scripted API server.
//!
//! In reading order: `http` (messages), `tls` (certificates, kubeconfig), `server` (listener, record, fault
//! points), `faults` (what can go wrong), `store`, `view`, `reads`, `writes` and `api` (the in-memory API server), `proxy` (the same
//! listener in front of a real API server), `play` (the test as Job controller and kubelet), `operator`
//! (the child process), `scene` (server and operator together), `probe` (the test as kubelet and Prometheus), `times` (which tests
//! take long). Not a validator: schemas, CEL, RBAC and admission belong to the real control plane.

// Every test crate that includes this module uses a different part of it.
#![allow(dead_code, unused_imports)]

pub mod api;
pub mod faults;
pub mod http;
pub mod operator;
pub mod play;
pub mod probe;
pub mod proxy;
mod reads;
pub mod scene;
pub mod server;
pub mod store;
mod times;
pub mod tls;
mod view;
mod writes;

pub use api::{Api, Expired};
pub use faults::{Fault, FrameFault, Gate, When};
pub use http::{Request, Response};
pub use operator::{Operator, wait_for, wait_for_within};
pub use server::{Command, Server};
