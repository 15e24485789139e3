//! The store in S3, driven against a server in this process: what it promises, what goes wrong,
//! what is continued.

mod again;
mod behaviour;
mod conformance;
mod faults;
mod resume;
mod setup;
mod stretches;
