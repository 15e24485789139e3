//! The EC2 and the EBS of the tests behave like those of AWS: driven by hand, with requests that
//! the library of AWS signs.

mod client;
mod ebs_read;
mod ebs_write;
mod faults;
mod images;
mod lifecycle;
mod register;
mod tags;
mod tasks;
