//! The library against EC2, EBS and S3 in memory. These tests need the feature `aws`.

mod ec2;
mod embedder;

mod query;
mod s3;
#[path = "../support"]
mod support {
    pub mod ec2;
    #[expect(dead_code, reason = "the tests of the engine use the rest")]
    pub mod image;
    pub mod listing;
    pub mod wait;
}
