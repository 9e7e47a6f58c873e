//! The real sidecar against the scripted API server, the test playing the kubelet: what it stores, what it never does, and what
//! becomes of it under faults. One question everywhere: are the right Secrets there, once, and is nothing said that is not so.

mod crowd;
mod hostile;
mod kills;
mod logs;
mod matrix;
mod memory;
mod outputs;
mod plan;
mod requests;
mod scene;
mod stops;
mod trouble;
mod writers;
