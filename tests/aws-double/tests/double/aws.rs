//! The EC2 and the EBS of the tests behave like AWS. Requests are written by hand and signed by
//! AWS's library.

mod client;
mod ebs_read;
mod ebs_write;
mod faults;
mod images;
mod lifecycle;
mod register;
mod tags;
mod tasks;
mod together;
