//! AWS in memory, for tests: EC2 with the EBS direct APIs in [`aws`], S3 in [`s3`].
//!
//! A test starts as many servers as it needs, each on a port of 127.0.0.1 and on threads of its
//! own. The program `aws-double` starts them for scripts and benchmarks.

pub mod aws;
pub mod s3;
mod shared;
pub mod wire;
