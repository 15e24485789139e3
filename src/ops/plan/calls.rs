//! Requests to AWS, counted before they are sent.

use std::collections::BTreeMap;

/// A service of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The EBS direct APIs.
    Ebs,
    /// EC2's control plane.
    Ec2,
    /// S3.
    S3,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 3] = [Self::Ebs, Self::Ec2, Self::S3];

    /// The name that AWS uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ebs => "EBS",
            Self::Ec2 => "EC2",
            Self::S3 => "S3",
        }
    }
}

/// The number of requests of each action, without those that are repeated after an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<Service, BTreeMap<&'static str, u64>>);

impl Calls {
    /// Adds `count` requests of an action.
    pub fn add(&mut self, service: Service, action: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(service).or_default().entry(action).or_default() += count;
        }
    }

    /// The requests of one action.
    pub fn count(&self, service: Service, action: &str) -> u64 {
        self.of(service).find(|(name, _)| *name == action).map_or(0, |(_, count)| count)
    }

    /// The actions of a service, by name, each with its number of requests.
    pub fn of(&self, service: Service) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.get(&service).into_iter().flatten().map(|(action, count)| (*action, *count))
    }

    /// All requests to a service.
    pub fn total(&self, service: Service) -> u64 {
        self.of(service).map(|(_, count)| count).sum()
    }
}
