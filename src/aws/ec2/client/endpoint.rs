//! Where EC2 is: the endpoint that was configured, or AWS's own for a Region.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use super::super::super::partition::partition_of;
use crate::base::{Error, Result};

/// How a request finds EC2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// What signatures name.
    pub(super) region: String,
    pub(super) url: String,
    /// Whether somebody asked for this URL.
    pub(super) is_custom: bool,
}

/// The place for `region` and `endpoint` where they are given, and otherwise for what `config`
/// found.
///
/// An endpoint comes, in this order, from `endpoint`, from code that made `config`, from
/// `AWS_ENDPOINT_URL_EC2`, from `AWS_ENDPOINT_URL`, from the `ec2` part of the profile's `services`
/// section, from the profile. `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` switches the last four off.
pub(super) fn place(
    config: &SdkConfig,
    region: Option<&str>,
    endpoint: Option<&str>,
) -> Result<Place> {
    let region = region.or_else(|| config.region().map(AsRef::as_ref));
    let (fips, dual_stack) =
        (config.use_fips().unwrap_or_default(), config.use_dual_stack().unwrap_or_default());
    let Some(url) = endpoint.map(ToOwned::to_owned).or_else(|| configured(config)) else {
        let Some(region) = region else {
            return Err(Error::usage(
                "no Region is known: give --region, set AWS_REGION, or name a profile that has one",
            ));
        };
        return Ok(Place {
            region: region.to_owned(),
            url: of_region(region, fips, dual_stack)?,
            is_custom: false,
        });
    };
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if !rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Err(Error::usage(
            "an endpoint is a URL, such as https://ec2.example.com or http://127.0.0.1:4566",
        )
        .at("endpoint", url));
    }
    // As AWS's tools have it: nobody can say whether a URL is what was asked for.
    for (asked, what) in [(fips, "FIPS"), (dual_stack, "dual-stack")] {
        if asked {
            return Err(Error::usage(format!(
                "a {what} endpoint is asked for, and an endpoint is given"
            ))
            .at("endpoint", url));
        }
    }
    // A compatible service rarely cares, but a signature names a Region.
    Ok(Place { region: region.unwrap_or("us-east-1").to_owned(), url, is_custom: true })
}

fn configured(config: &SdkConfig) -> Option<String> {
    let general = || config.endpoint_url().map(ToOwned::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return general();
    }
    let key = ServiceConfigKey::builder()
        .service_id("EC2")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config
        .service_config()
        .and_then(|service| service.load_config(key))
        .or_else(general)
        .filter(|url| !url.is_empty())
}

/// AWS's own endpoint.
fn of_region(region: &str, fips: bool, dual_stack: bool) -> Result<String> {
    let is_label = (1..=63).contains(&region.len())
        && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !region.starts_with('-')
        && !region.ends_with('-');
    if !is_label {
        return Err(Error::usage("not a Region").at("region", region));
    }
    let partition = partition_of(region);
    let suffix = if dual_stack { partition.dual_stack_suffix } else { partition.dns_suffix };
    // In GovCloud the ordinary endpoint is validated.
    let host =
        if fips && (dual_stack || partition.name != "aws-us-gov") { "ec2-fips" } else { "ec2" };
    Ok(format!("https://{host}.{region}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use aws_config::Region;
    use aws_types::service_config::LoadServiceConfig;

    use super::*;

    /// What botocore 1.44.5 makes of its rules: plain, dual-stack, FIPS, both.
    const RULES: [(&str, [&str; 4]); 14] = [
        (
            "us-east-1",
            [
                "ec2.us-east-1.amazonaws.com",
                "ec2.us-east-1.api.aws",
                "ec2-fips.us-east-1.amazonaws.com",
                "ec2-fips.us-east-1.api.aws",
            ],
        ),
        (
            "eu-central-1",
            [
                "ec2.eu-central-1.amazonaws.com",
                "ec2.eu-central-1.api.aws",
                "ec2-fips.eu-central-1.amazonaws.com",
                "ec2-fips.eu-central-1.api.aws",
            ],
        ),
        (
            "us-west-9",
            [
                "ec2.us-west-9.amazonaws.com",
                "ec2.us-west-9.api.aws",
                "ec2-fips.us-west-9.amazonaws.com",
                "ec2-fips.us-west-9.api.aws",
            ],
        ),
        (
            "mx-central-1",
            [
                "ec2.mx-central-1.amazonaws.com",
                "ec2.mx-central-1.api.aws",
                "ec2-fips.mx-central-1.amazonaws.com",
                "ec2-fips.mx-central-1.api.aws",
            ],
        ),
        (
            "cn-north-1",
            [
                "ec2.cn-north-1.amazonaws.com.cn",
                "ec2.cn-north-1.api.amazonwebservices.com.cn",
                "ec2-fips.cn-north-1.amazonaws.com.cn",
                "ec2-fips.cn-north-1.api.amazonwebservices.com.cn",
            ],
        ),
        (
            "us-gov-west-1",
            [
                "ec2.us-gov-west-1.amazonaws.com",
                "ec2.us-gov-west-1.api.aws",
                "ec2.us-gov-west-1.amazonaws.com",
                "ec2-fips.us-gov-west-1.api.aws",
            ],
        ),
        (
            "us-gov-north-4",
            [
                "ec2.us-gov-north-4.amazonaws.com",
                "ec2.us-gov-north-4.api.aws",
                "ec2.us-gov-north-4.amazonaws.com",
                "ec2-fips.us-gov-north-4.api.aws",
            ],
        ),
        (
            "us-iso-west-7",
            [
                "ec2.us-iso-west-7.c2s.ic.gov",
                "ec2.us-iso-west-7.api.aws.ic.gov",
                "ec2-fips.us-iso-west-7.c2s.ic.gov",
                "ec2-fips.us-iso-west-7.api.aws.ic.gov",
            ],
        ),
        (
            "us-isob-east-1",
            [
                "ec2.us-isob-east-1.sc2s.sgov.gov",
                "ec2.us-isob-east-1.api.aws.scloud",
                "ec2-fips.us-isob-east-1.sc2s.sgov.gov",
                "ec2-fips.us-isob-east-1.api.aws.scloud",
            ],
        ),
        (
            "eu-isoe-west-1",
            [
                "ec2.eu-isoe-west-1.cloud.adc-e.uk",
                "ec2.eu-isoe-west-1.api.cloud-aws.adc-e.uk",
                "ec2-fips.eu-isoe-west-1.cloud.adc-e.uk",
                "ec2-fips.eu-isoe-west-1.api.cloud-aws.adc-e.uk",
            ],
        ),
        (
            "us-isof-south-1",
            [
                "ec2.us-isof-south-1.csp.hci.ic.gov",
                "ec2.us-isof-south-1.api.aws.hci.ic.gov",
                "ec2-fips.us-isof-south-1.csp.hci.ic.gov",
                "ec2-fips.us-isof-south-1.api.aws.hci.ic.gov",
            ],
        ),
        (
            "eusc-de-east-1",
            [
                "ec2.eusc-de-east-1.amazonaws.eu",
                "ec2.eusc-de-east-1.api.amazonwebservices.eu",
                "ec2-fips.eusc-de-east-1.amazonaws.eu",
                "ec2-fips.eusc-de-east-1.api.amazonwebservices.eu",
            ],
        ),
        (
            "aws-us-gov-global",
            [
                "ec2.aws-us-gov-global.amazonaws.com",
                "ec2.aws-us-gov-global.api.aws",
                "ec2.aws-us-gov-global.amazonaws.com",
                "ec2-fips.aws-us-gov-global.api.aws",
            ],
        ),
        (
            "moon",
            [
                "ec2.moon.amazonaws.com",
                "ec2.moon.api.aws",
                "ec2-fips.moon.amazonaws.com",
                "ec2-fips.moon.api.aws",
            ],
        ),
    ];

    #[test]
    fn hosts_are_those_of_botocore() {
        for (region, hosts) in RULES {
            for (index, host) in hosts.into_iter().enumerate() {
                let (fips, dual_stack) = (index & 2 != 0, index & 1 != 0);
                assert_eq!(
                    of_region(region, fips, dual_stack).expect(region),
                    format!("https://{host}"),
                    "{region} {fips} {dual_stack}"
                );
            }
        }
    }

    #[test]
    fn a_region_cannot_lead_elsewhere() {
        for region in [
            "",
            "us-east-1.evil.example",
            "a/b",
            "a@b",
            "-a",
            "a-",
            "us_east",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(of_region(region, false, false).is_err(), "{region}");
        }
    }

    #[derive(Debug)]
    struct Configured(Option<&'static str>);

    impl LoadServiceConfig for Configured {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            assert_eq!(
                (key.service_id(), key.env(), key.profile()),
                ("EC2", "AWS_ENDPOINT_URL", "endpoint_url")
            );
            self.0.map(ToOwned::to_owned)
        }
    }

    #[test]
    fn the_nearest_endpoint_wins() {
        let url =
            |config: &SdkConfig, endpoint| place(config, None, endpoint).expect("a place").url;
        let config = SdkConfig::builder()
            .region(Region::new("eu-west-1"))
            .service_config(Configured(None))
            .build();
        assert_eq!(url(&config, None), "https://ec2.eu-west-1.amazonaws.com");
        assert_eq!(url(&config, Some("http://given")), "http://given");
        let config =
            SdkConfig::builder().service_config(Configured(Some("http://service"))).build();
        assert_eq!(url(&config, Some("http://given")), "http://given");
        let place = super::place(&config, None, None).expect("a place");
        assert_eq!(
            place,
            Place { region: "us-east-1".into(), url: "http://service".into(), is_custom: true }
        );
        let config = config
            .into_builder()
            .region(Region::new("eu-west-1"))
            .endpoint_url("http://general")
            .build();
        assert_eq!(url(&config, None), "http://service");
        let config = config.into_builder().service_config(Configured(None)).build();
        assert_eq!(url(&config, None), "http://general");
        assert_eq!(
            super::place(&config, Some("us-west-2"), None).expect("a place").region,
            "us-west-2"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let config = SdkConfig::builder().build();
        assert!(place(&config, None, None).expect_err("no Region").message().contains("no Region"));
        for bad in ["", "ec2.example.com", "ftp://x", "https://", "http:///x"] {
            assert!(place(&config, None, Some(bad)).is_err(), "{bad}");
        }
        let fips = SdkConfig::builder().use_fips(true).build();
        assert!(place(&fips, None, Some("http://x")).expect_err("both").message().contains("FIPS"));
        let dual_stack = SdkConfig::builder().use_dual_stack(true).build();
        assert!(
            place(&dual_stack, None, Some("http://x"))
                .expect_err("both")
                .message()
                .contains("dual-stack")
        );
        assert_eq!(
            place(&fips, Some("us-west-2"), None).expect("a place").url,
            "https://ec2-fips.us-west-2.amazonaws.com"
        );
    }
}
