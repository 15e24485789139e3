//! Sites: the Region and the profile of each request.
//!
//! A request is answered by the task service and the EC2 of its Region, or refused before anything
//! is begun. Its Region is that of its signature; a request without one is for the server's own.

use std::sync::Arc;

use super::signature::{Verified, other_region};
use super::{Refusal, Service, Upstream};

/// EC2 of one Region, as seen by one profile, and the tasks there.
#[derive(Clone)]
pub struct ServedSite {
    /// The profile that access keys name; `None` for the server's own credentials.
    pub profile: Option<String>,
    /// The Region.
    pub region: String,
    /// Whether keys that name no Region may use it.
    pub is_default: bool,
    /// Its tasks.
    pub service: Arc<dyn Service>,
    /// EC2, for all other actions.
    pub upstream: Option<Arc<dyn Upstream>>,
}

/// All sites of a server, its own first.
pub(super) struct Sites(Vec<ServedSite>);

impl Sites {
    pub(super) fn new(own: ServedSite, others: Vec<ServedSite>) -> Self {
        Self(std::iter::once(own).chain(others).collect())
    }

    /// The site of the server itself.
    pub(super) fn own(&self) -> &ServedSite {
        &self.0[0]
    }

    /// The Regions of all sites, each once.
    pub(super) fn regions(&self) -> Vec<String> {
        names(self.0.iter())
    }

    /// The site of a request without keys: that of the stated Region.
    pub(super) fn of_region(&self, region: Option<&str>) -> Result<&ServedSite, Refusal> {
        let Some(region) = region else { return Ok(self.own()) };
        let ours = |site: &&ServedSite| site.profile.is_none();
        self.0
            .iter()
            .filter(ours)
            .find(|site| site.region == region)
            .ok_or_else(|| other_region(region, &names(self.0.iter().filter(ours))))
    }

    /// The site of a verified request: that of the Region of its signature, and of the profile of
    /// its key.
    pub(super) fn of_key(&self, verified: &Verified) -> Result<&ServedSite, Refusal> {
        let admits = |site: &&ServedSite| {
            site.profile == verified.profile
                && if verified.regions.is_empty() {
                    site.is_default
                } else {
                    verified.regions.contains(&site.region)
                }
        };
        self.0
            .iter()
            .filter(admits)
            .find(|site| site.region == verified.region)
            .ok_or_else(|| other_region(&verified.region, &names(self.0.iter().filter(admits))))
    }
}

fn names<'a>(sites: impl Iterator<Item = &'a ServedSite>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for site in sites {
        if !names.contains(&site.region) {
            names.push(site.region.clone());
        }
    }
    names
}
