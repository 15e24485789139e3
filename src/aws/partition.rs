//! Partitions: the parts of AWS that share neither accounts nor snapshots nor host names.
//!
//! From botocore 1.44.5's `partitions.json`. By those data every partition has FIPS and dual-stack
//! endpoints, so none is refused here; a host that does not exist fails to resolve.

/// A part of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As in ARNs: `aws`, `aws-cn`.
    pub name: &'static str,
    /// The end of host names.
    pub dns_suffix: &'static str,
    /// The end of host names with IPv6 addresses.
    pub dual_stack_suffix: &'static str,
    /// The pseudo Region of the whole partition; empty if it has none.
    global: &'static str,
    /// The part of its Regions' names before the last two words.
    areas: &'static [&'static str],
}

/// The commercial partition first: an unknown Region is taken for one of its Regions.
const PARTITIONS: [Partition; 8] = [
    Partition {
        name: "aws",
        dns_suffix: "amazonaws.com",
        dual_stack_suffix: "api.aws",
        global: "aws-global",
        areas: &["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"],
    },
    Partition {
        name: "aws-cn",
        dns_suffix: "amazonaws.com.cn",
        dual_stack_suffix: "api.amazonwebservices.com.cn",
        global: "aws-cn-global",
        areas: &["cn"],
    },
    Partition {
        name: "aws-eusc",
        dns_suffix: "amazonaws.eu",
        dual_stack_suffix: "api.amazonwebservices.eu",
        global: "",
        areas: &["eusc-de"],
    },
    Partition {
        name: "aws-iso",
        dns_suffix: "c2s.ic.gov",
        dual_stack_suffix: "api.aws.ic.gov",
        global: "aws-iso-global",
        areas: &["us-iso"],
    },
    Partition {
        name: "aws-iso-b",
        dns_suffix: "sc2s.sgov.gov",
        dual_stack_suffix: "api.aws.scloud",
        global: "aws-iso-b-global",
        areas: &["us-isob"],
    },
    Partition {
        name: "aws-iso-e",
        dns_suffix: "cloud.adc-e.uk",
        dual_stack_suffix: "api.cloud-aws.adc-e.uk",
        global: "aws-iso-e-global",
        areas: &["eu-isoe"],
    },
    Partition {
        name: "aws-iso-f",
        dns_suffix: "csp.hci.ic.gov",
        dual_stack_suffix: "api.aws.hci.ic.gov",
        global: "aws-iso-f-global",
        areas: &["us-isof"],
    },
    Partition {
        name: "aws-us-gov",
        dns_suffix: "amazonaws.com",
        dual_stack_suffix: "api.aws",
        global: "aws-us-gov-global",
        areas: &["us-gov"],
    },
];

/// The partition of a Region, by the form of its name, so that a Region newer than this list is
/// found as well.
pub fn partition_of(region: &str) -> Partition {
    let [commercial, ..] = PARTITIONS;
    PARTITIONS.into_iter().find(|partition| partition.has(region)).unwrap_or(commercial)
}

impl Partition {
    fn has(&self, region: &str) -> bool {
        if region == self.global && !region.is_empty() {
            return true;
        }
        // us-gov-west-1: the area, a word, a number.
        let mut words = region.rsplitn(3, '-');
        let (number, word, area) = (words.next(), words.next(), words.next());
        number.is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        }) && word.is_some_and(|word| !word.is_empty())
            && area.is_some_and(|area| self.areas.contains(&area))
    }
}

/// Whether a host is one of AWS, in any partition, VPC endpoints included.
pub(super) fn is_aws_host(host: &str) -> bool {
    let ends_in = |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    PARTITIONS
        .iter()
        .any(|partition| ends_in(partition.dns_suffix) || ends_in(partition.dual_stack_suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_belong_to_a_partition_by_their_names() {
        for (region, name) in [
            ("us-east-1", "aws"),
            ("mx-central-1", "aws"),
            ("us-west-9", "aws"),
            ("aws-global", "aws"),
            ("cn-northwest-1", "aws-cn"),
            ("aws-cn-global", "aws-cn"),
            ("eusc-de-east-1", "aws-eusc"),
            ("us-iso-west-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-gov-north-12", "aws-us-gov"),
            // Unknown forms.
            ("cn-north", "aws"),
            ("us-gov--1", "aws"),
            ("us-gov-west-", "aws"),
            ("moon", "aws"),
            ("", "aws"),
        ] {
            assert_eq!(partition_of(region).name, name, "{region}");
        }
    }

    #[test]
    fn hosts_of_aws_are_recognised() {
        for host in [
            "ec2.us-east-1.amazonaws.com",
            "vpce-1-2.ec2.eu-west-1.vpce.amazonaws.com",
            "ec2.cn-north-1.amazonaws.com.cn",
            "ec2.eu-west-1.api.aws",
        ] {
            assert!(is_aws_host(host), "{host}");
        }
        for host in [
            "",
            "localhost",
            "127.0.0.1",
            "amazonaws.com",
            "evilamazonaws.com",
            "ec2.amazonaws.com.evil.example",
        ] {
            assert!(!is_aws_host(host), "{host}");
        }
    }
}
