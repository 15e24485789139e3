//! Images in EC2: stored and restored by the program against the local AWS of the tests.

mod credentials;
mod edits;
mod encryption;
mod foreign;
mod metadata;
mod names;
pub mod partitions;
mod plans;
mod proof;
mod resume;
mod retire;
mod round_trip;
mod round_trips;
mod via_aws;
