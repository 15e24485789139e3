//! The S3 of the tests behaves like that of AWS: tested with the client of AWS, and with raw
//! requests that the client cannot send.

mod buckets;
mod client;
mod faults;
mod objects;
mod uploads;
