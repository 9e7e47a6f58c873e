//! The real program against a scripted API server (`support`): the operator with all that can happen to it, the commands, the sidecar.
//!
//! One binary, so that the support is compiled and linked once. `cargo test --test scripted NAME` runs the tests whose names contain
//! NAME: a module (`operator_faults::`), or a test.
#![forbid(unsafe_code)]

mod support;

#[allow(dead_code)]
#[path = "../docs/pages.rs"]
mod pages;

mod cli;
mod election;
mod metrics;
mod operator_answers;
mod operator_bounds;
mod operator_config;
mod operator_crowd;
mod operator_faults;
mod operator_identity;
mod operator_output;
mod operator_restores;
mod operator_templates;
mod rights;
mod sidecar;
mod support_selftest;
mod versions;
