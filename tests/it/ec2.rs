//! Images in EC2: stored and restored against the local AWS of the tests, by the program and by the
//! library.

mod again;
mod bench;
mod edits;
mod faults;
mod preflight;
mod resume;
mod retire;
mod round_trip;
mod setup;
mod sides;
mod tokens;
mod via_aws;
