//! List prices in US dollars. A Region without a figure here has no price: none is guessed.

/// Prices of the EBS direct APIs, for 1,000 requests or blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EbsPrices {
    /// ListSnapshotBlocks.
    pub list: f64,
    /// GetSnapshotBlock.
    pub get: f64,
    /// PutSnapshotBlock.
    pub put: f64,
}

/// Prices of S3 Standard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct S3Prices {
    /// 1,000 PUT, COPY, POST or LIST requests.
    pub put: f64,
    /// 1,000 GET or HEAD requests.
    pub get: f64,
    /// A GiB for a month; the first 50 TB of an account.
    pub gib_month: f64,
}

/// The prices of EBS in a Region. Source: Amazon EBS pricing, "EBS direct APIs for snapshots", read
/// 2026-11.
pub fn ebs_prices(region: &str) -> Option<EbsPrices> {
    (region == "us-east-1").then_some(EbsPrices { list: 0.0006, get: 0.003, put: 0.006 })
}

/// The prices of S3 Standard in a Region. Source: AWS price list for AmazonS3 of 2025-10-28.
pub fn s3_prices(region: &str) -> Option<S3Prices> {
    (region == "us-east-1").then_some(S3Prices { put: 0.005, get: 0.0004, gib_month: 0.023 })
}
