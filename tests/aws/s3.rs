//! The store in S3 against a server in this process: conformance, faults, resumption.

mod behaviour;
mod conformance;
mod fail_closed;
mod faults;
mod interrupted_runs;
mod resume;
mod segments;
pub mod setup;
mod splice;
