//! The AWS of the tests behaves like AWS: tested with requests that AWS's own library signs, with
//! the S3 client of AWS, and with raw requests.

mod aws;
mod s3;
