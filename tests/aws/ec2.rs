//! Images in EC2: stored and restored against the local AWS of the tests, by the program and by the
//! library.

mod bench;
mod edits;
mod faults;
mod preflight;
mod resume;
mod tokens;
mod via_aws;
