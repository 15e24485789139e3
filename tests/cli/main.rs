//! The program as its users see it: exit codes, messages, results, and files on disk.

mod config;
mod damage;
mod devices;
mod disk_formats;
mod documents;
mod ec2;
mod endpoints;
mod failures;
mod foreign;
mod interrupts;
mod lost_uploads;
mod metadata;
mod output;
mod parts;
mod ranges;
mod roots;
mod s3;
mod salvage;
mod schema;
mod serve;
mod sources;
#[path = "../support"]
mod support {
    pub mod cli;
    pub mod directory;
    pub mod ec2;
    #[expect(dead_code, reason = "the tests of the engine use the rest")]
    pub mod image;
    pub mod listing;
    pub mod program;
    pub mod schema;
    #[expect(dead_code, reason = "the tests of the format use the rest")]
    pub mod tools;
    pub mod wait;
}
mod system;
mod targets;
mod tasks;
mod terminal;
mod volumes;
