//! The endpoint of a service: a URL that was configured, or AWS's own for the Region.
//!
//! Resolved once for each [connection](super::Connection), for all services alike.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use super::partition::{is_aws_host, partition_of};
use crate::base::{Error, Result};

/// The endpoint of a service. Displayed as the configured URL; AWS's own endpoint is displayed as
/// an empty string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    region: String,
    url: Option<String>,
    fips: bool,
    dual_stack: bool,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.url.as_deref().unwrap_or_default())
    }
}

impl Endpoint {
    /// The endpoint of `service` (`EC2`, `EBS`, `S3` or `STS`). `region` and `url` come before
    /// those of `config`.
    ///
    /// The URL comes, in this order, from `url`, from code that made `config`, from
    /// `AWS_ENDPOINT_URL_<service>` or the service's part of the profile's `services` section, from
    /// `AWS_ENDPOINT_URL`, from the profile. `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` switches the
    /// last four off.
    ///
    /// Fails with `Usage` without a Region for AWS's own endpoint, for a URL that is not `http` or
    /// `https`, and for a URL together with FIPS or dual-stack.
    pub fn resolve(
        config: &SdkConfig,
        service: &'static str,
        region: Option<&str>,
        url: Option<&str>,
    ) -> Result<Self> {
        let region = region.or_else(|| config.region().map(AsRef::as_ref)).map(ToOwned::to_owned);
        let (fips, dual_stack) =
            (config.use_fips().unwrap_or_default(), config.use_dual_stack().unwrap_or_default());
        let url = url.map(ToOwned::to_owned).or_else(|| configured(config, service));
        let region = match (&url, region) {
            (_, Some(region)) => region,
            // A compatible service rarely checks it, but a signature names a Region.
            (Some(_), None) => "us-east-1".to_owned(),
            (None, None) => {
                return Err(Error::usage(
                    "no Region is known: give --region, set AWS_REGION, or name a profile that has \
                     one",
                ));
            }
        };
        if let Some(url) = &url {
            check_url(url)?;
            // As AWS's tools do: a URL does not show whether it is such an endpoint.
            for (requested, kind) in [(fips, "FIPS"), (dual_stack, "dual-stack")] {
                if requested {
                    return Err(Error::usage(format!(
                        "a {kind} endpoint is requested, and an endpoint URL is given"
                    ))
                    .at("endpoint", url));
                }
            }
        }
        Ok(Self { region, url, fips, dual_stack })
    }

    /// The Region that signatures name.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The URL that was configured; `None` for AWS's own endpoint.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Whether a URL was configured.
    pub fn is_custom(&self) -> bool {
        self.url.is_some()
    }

    /// Whether the host is one of AWS, in any partition.
    pub fn is_aws(&self) -> bool {
        self.url.as_deref().is_none_or(|url| is_aws_host(host_of(url)))
    }

    /// Whether requests leave this machine without TLS.
    pub(super) fn is_exposed(&self) -> bool {
        self.url.as_deref().is_some_and(|url| {
            let host = host_of(url);
            let is_local = host == "localhost" || host == "[" || host.starts_with("127.");
            url.starts_with("http://") && !is_local
        })
    }

    /// The URL of EC2: the configured one, or AWS's own.
    pub(super) fn ec2_url(&self) -> Result<String> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => ec2_of_region(&self.region, self.fips, self.dual_stack),
        }
    }
}

/// The URL that the environment or the configuration files have for a service.
fn configured(config: &SdkConfig, service: &'static str) -> Option<String> {
    let general = || config.endpoint_url().map(ToOwned::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return general();
    }
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config
        .service_config()
        .and_then(|configured| configured.load_config(key))
        .or_else(general)
        .filter(|url| !url.is_empty())
}

fn check_url(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(()),
        _ => Err(Error::usage(
            "an endpoint is a URL, such as https://s3.example.com or http://127.0.0.1:9000",
        )
        .at("endpoint", url)),
    }
}

/// The host of a URL. Of an IPv6 address it is the opening bracket.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or_default()
}

/// Checks the form of a Region, which becomes a label of a host name.
pub fn check_region(region: &str) -> Result<()> {
    let is_label = (1..=63).contains(&region.len())
        && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !region.starts_with('-')
        && !region.ends_with('-');
    if is_label { Ok(()) } else { Err(Error::usage("not a Region").at("region", region)) }
}

/// AWS's own endpoint of EC2.
fn ec2_of_region(region: &str, fips: bool, dual_stack: bool) -> Result<String> {
    check_region(region)?;
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

    /// Hosts by the rules of botocore 1.44.5: plain, dual-stack, FIPS, both.
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
                    ec2_of_region(region, fips, dual_stack).expect(region),
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
            assert!(ec2_of_region(region, false, false).is_err(), "{region}");
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

    fn resolved(config: &SdkConfig, region: Option<&str>, url: Option<&str>) -> Result<Endpoint> {
        Endpoint::resolve(config, "EC2", region, url)
    }

    #[test]
    fn the_most_specific_endpoint_is_used() {
        let url = |config: &SdkConfig, given| {
            resolved(config, None, given).and_then(|endpoint| endpoint.ec2_url()).expect("a URL")
        };
        let config = SdkConfig::builder()
            .region(Region::new("eu-west-1"))
            .service_config(Configured(None))
            .build();
        assert_eq!(url(&config, None), "https://ec2.eu-west-1.amazonaws.com");
        assert_eq!(url(&config, Some("http://given")), "http://given");
        let config =
            SdkConfig::builder().service_config(Configured(Some("http://service"))).build();
        assert_eq!(url(&config, Some("http://given")), "http://given");
        let endpoint = resolved(&config, None, None).expect("an endpoint");
        assert_eq!(
            (endpoint.region(), endpoint.url(), endpoint.is_custom()),
            ("us-east-1", Some("http://service"), true)
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
            resolved(&config, Some("us-west-2"), None).expect("an endpoint").region(),
            "us-west-2"
        );
    }

    #[test]
    fn invalid_endpoints_are_refused() {
        let config = SdkConfig::builder().build();
        let error = resolved(&config, None, None).expect_err("no Region");
        assert!(error.message().contains("no Region"));
        for good in ["http://127.0.0.1:9000", "https://s3.example.com/path"] {
            assert!(resolved(&config, None, Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost:9000",
            "ec2.example.com",
            "s3://bucket",
            "ftp://x",
            "https://",
            "http:///x",
        ] {
            assert!(resolved(&config, None, Some(bad)).is_err(), "{bad}");
        }
        let fips = SdkConfig::builder().use_fips(true).build();
        let both = resolved(&fips, None, Some("http://x")).expect_err("both");
        assert!(both.message().contains("FIPS"));
        let dual_stack = SdkConfig::builder().use_dual_stack(true).build();
        let both = resolved(&dual_stack, None, Some("http://x")).expect_err("both");
        assert!(both.message().contains("dual-stack"));
        let own = resolved(&fips, Some("us-west-2"), None).expect("an endpoint");
        assert_eq!(own.ec2_url().expect("a URL"), "https://ec2-fips.us-west-2.amazonaws.com");
    }

    #[test]
    fn hosts_of_aws_and_of_this_machine_are_recognised() {
        let config = SdkConfig::builder().region(Region::new("us-east-1")).build();
        let of = |url| resolved(&config, None, Some(url)).expect("an endpoint");
        assert!(resolved(&config, None, None).expect("an endpoint").is_aws());
        for (url, is_aws, is_exposed) in [
            ("https://ec2.us-east-1.amazonaws.com", true, false),
            ("http://ec2.us-east-1.amazonaws.com:443/x", true, true),
            ("https://ec2.eu-west-1.api.aws", true, false),
            ("http://127.0.0.1:9000", false, false),
            ("http://[::1]:9000", false, false),
            ("http://localhost", false, false),
            ("http://s3.example.com", false, true),
            ("https://evilamazonaws.com", false, false),
        ] {
            assert_eq!((of(url).is_aws(), of(url).is_exposed()), (is_aws, is_exposed), "{url}");
        }
    }
}
