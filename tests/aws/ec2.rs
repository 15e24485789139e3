//! Images in EC2: stored and restored by the library against the local AWS of the tests.

pub mod bench;
mod edits;
mod encryption;
mod faults;
mod preflight;
mod rehearsal;
mod resume;
mod retire;
mod tokens;
mod via_aws;
