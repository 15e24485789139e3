//! All integration tests in one binary, because linking is what takes the time.

mod architecture;
mod aws_server;
mod cli;
mod ec2;
mod faults;
mod format;
mod fuzz_smoke;
mod golden;
mod policies;
mod query;
mod s3;
mod s3_server;
mod server;
mod stock_tools;
mod support;
mod vectors;
mod volumes;
mod words;
