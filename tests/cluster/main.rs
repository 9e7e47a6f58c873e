//! The operator in its pod on a real cluster, looked at from outside: through kubectl, and through the API server's
//! audit log, which tells what the operator and the sidecar really asked for.
//!
//! Run by `scripts/test`, which makes the cluster and installs the operator from `manifests/`. Not a default target:
//! `cargo test` alone does not need a cluster. Each case has a namespace of its own and runs alone by its name; a case
//! that fails leaves its namespace behind and prints what is in it.
#![forbid(unsafe_code)]

// The scripted tests' HTTP messages and certificates, of which a webhook needs a part, and their clock.
#[allow(dead_code)]
#[path = "../scripted/support/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "../scripted/support/tls.rs"]
mod tls;
#[path = "../scripted/support/times.rs"]
mod times;
#[path = "../scripted/support/tunnel.rs"]
mod tunnel;
// The tables of the docs, and their commands.
#[allow(dead_code)]
#[path = "../docs/pages.rs"]
mod pages;
#[path = "../docs/order.rs"]
mod order;

mod access;
mod admission;
mod arm64;
mod audit;
mod bad_input;
mod budgets;
mod canary;
mod case;
mod cli;
mod config;
mod constrained;
mod created;
mod crowd;
mod docs;
mod election;
mod examples;
mod exit_codes;
mod explain;
mod failures;
mod files;
mod fixed;
mod granted;
mod identity;
mod kustomize;
mod namespaces;
mod outputs;
mod player;
mod policies;
mod proxy;
mod quotas;
mod rights;
mod runs;
mod second;
mod sidecar_cost;
mod stops;
mod user_rights;
mod versions;
mod webhooks;

// Looks at what all cases have caused. `scripts/test` runs it after them, and `docs` after that.
mod report;
