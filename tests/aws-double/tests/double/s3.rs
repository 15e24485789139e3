//! The S3 of the tests behaves like that of AWS: driven by the client of AWS, and by hand where
//! that client cannot.

mod buckets;
mod client;
mod faults;
mod objects;
mod uploads;
