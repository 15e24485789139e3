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
/// 2026-11; the page shows one Region at a time, and this one was read.
pub fn ebs_prices(region: &str) -> Option<EbsPrices> {
    (region == "us-east-1").then_some(EbsPrices { list: 0.0006, get: 0.003, put: 0.006 })
}

/// Prices of S3 Standard by Region: PUT, GET, storage. Source: AWS price lists for AmazonS3, of
/// us-east-1 of 2025-10-28, the others as published in 2026-11. GovCloud and China are missing:
/// their lists were not at hand.
const S3: [(&str, [f64; 3]); 16] = [
    ("ap-northeast-1", [0.0047, 0.000_37, 0.025]),
    ("ap-northeast-2", [0.0045, 0.000_35, 0.025]),
    ("ap-south-1", [0.005, 0.0004, 0.025]),
    ("ap-southeast-1", [0.005, 0.0004, 0.025]),
    ("ap-southeast-2", [0.0055, 0.000_44, 0.025]),
    ("ca-central-1", [0.0055, 0.000_44, 0.025]),
    ("eu-central-1", [0.0054, 0.000_43, 0.0245]),
    ("eu-north-1", [0.005, 0.0004, 0.023]),
    ("eu-west-1", [0.005, 0.0004, 0.023]),
    ("eu-west-2", [0.0053, 0.000_42, 0.024]),
    ("eu-west-3", [0.0053, 0.000_42, 0.024]),
    ("sa-east-1", [0.007, 0.000_56, 0.0405]),
    ("us-east-1", [0.005, 0.0004, 0.023]),
    ("us-east-2", [0.005, 0.0004, 0.023]),
    ("us-west-1", [0.0055, 0.000_44, 0.026]),
    ("us-west-2", [0.005, 0.0004, 0.023]),
];

/// The prices of S3 Standard in a Region.
pub fn s3_prices(region: &str) -> Option<S3Prices> {
    let found = S3.iter().find(|(known, _)| *known == region);
    found.map(|(_, [put, get, gib_month])| S3Prices { put: *put, get: *get, gib_month: *gib_month })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_without_a_price_has_none_of_another_region() {
        for region in ["us-gov-west-1", "us-gov-east-1", "cn-north-1", "eu-west-9", ""] {
            assert_eq!((ebs_prices(region), s3_prices(region)), (None, None), "{region}");
        }
        let frankfurt = S3Prices { put: 0.0054, get: 0.000_43, gib_month: 0.0245 };
        assert_eq!(s3_prices("eu-central-1"), Some(frankfurt));
        assert_eq!(ebs_prices("eu-central-1"), None);
        assert!(S3.windows(2).all(|pair| pair[0].0 < pair[1].0), "each Region stands once");
    }
}
