//! The AWS of the tests behaves like AWS: driven by requests that AWS's own library signs, by the
//! S3 client of AWS, and by hand where neither can.

mod aws;
mod s3;
