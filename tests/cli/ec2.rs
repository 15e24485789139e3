//! Images in EC2, stored and restored by the program against the local AWS of the tests.

mod again;
mod edits;
mod plans;
mod retire;
mod round_trip;
mod sides;
mod via_aws;
mod world;
