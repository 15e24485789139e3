//! The program as its users see it: exit codes, messages, results, and what is left on disk.

mod damage;
mod documents;
mod failures;
mod foreign;
mod interrupts;
mod output;
mod parts;
mod s3;
mod sources;
mod targets;
mod tasks;
