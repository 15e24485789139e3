//! A site: the services of one Region with the credentials of one profile, and the scope of the
//! tasks there.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::{Shared, SiteSettings, TaskServiceSettings, lock};
use crate::aws::s3::S3Connection;
use crate::aws::{Access, Compute, Credentials, RequestSettings, RetryPolicy, Session};
use crate::base::{Error, Result};
use crate::taskdb::{ScopeFilter, one_line_of};

/// The pause after a failed request for the account, and the longest time of each of its parts.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The account of credentials without any identity.
const ANY_ACCOUNT: &str = "unknown";

/// The connections of a site.
pub(super) struct Site {
    pub(super) settings: SiteSettings,
    pub(super) compute: Compute,
    pub(super) archive: S3Connection,
    /// Account, Region and endpoints, once the account is known: tasks of other scopes are left
    /// alone.
    scope: OnceLock<String>,
    /// The time and error of the last failed request for the account.
    failed_lookup: Mutex<Option<(Instant, Error)>>,
    /// Buckets and keys that were checked when their requests arrived, and the times.
    pub(super) checks: Mutex<HashMap<(String, String), Instant>>,
}

impl Site {
    /// Opens the connections; no request is sent.
    pub(super) fn open(
        session: &Session,
        service: &TaskServiceSettings,
        settings: SiteSettings,
    ) -> Result<Self> {
        let compute =
            session.compute(&settings.compute, &service.compute_requests, service.account_rate)?;
        let archive = session.s3(settings.archive.clone(), &service.archive_requests)?;
        Ok(Self {
            settings,
            compute,
            archive,
            scope: OnceLock::new(),
            failed_lookup: Mutex::default(),
            checks: Mutex::default(),
        })
    }

    /// The scope, if the account is known.
    pub(super) fn known_scope(&self) -> Option<&str> {
        self.scope.get().map(String::as_str)
    }

    /// Reads the tasks of this site. The account may be unknown: no request to AWS is made for
    /// reading.
    pub(super) fn with_scope<T>(&self, read: impl FnOnce(&ScopeFilter<'_>) -> T) -> T {
        match self.known_scope() {
            Some(scope) => read(&ScopeFilter::Scope(scope)),
            None => read(&ScopeFilter::Endpoints(&self.endpoints())),
        }
    }

    /// The part of the scope behind the account. Buckets that are reached with another profile than
    /// EC2 are other buckets; a profile that is used for both says no more than its account.
    pub(super) fn endpoints(&self) -> String {
        let (compute, archive) = (&self.settings.compute, &self.settings.archive);
        let archive_profile =
            archive.profile.as_deref().filter(|_| archive.profile != compute.profile);
        let (region, ec2, ebs) =
            (self.compute.ec2.region(), self.compute.ec2.endpoint(), self.compute.ebs.endpoint());
        let (s3, archive_profile) = (self.archive.endpoint(), archive_profile.unwrap_or_default());
        format!("{region} ec2={ec2} ebs={ebs} s3={s3} as={archive_profile}")
    }

    fn who(&self, session: &Session, requests: &RequestSettings) -> Result<String> {
        let access = &self.settings.compute;
        // Short timeouts: with valid credentials it is one short request.
        let retry =
            RetryPolicy { max_attempts: requests.retry.max_attempts.min(2), ..requests.retry };
        let settings = RequestSettings {
            retry,
            idle_timeout: requests.idle_timeout.min(ASK_AGAIN),
            ..requests.clone()
        };
        let access_to_sts = Access {
            connect_timeout: Some(access.connect_timeout.unwrap_or(ASK_AGAIN).min(ASK_AGAIN)),
            ..access.clone()
        };
        if let Some(account) = session.account(&access_to_sts, &settings)? {
            return Ok(account);
        }
        // A compatible service without accounts: profiles and long-lived keys distinguish users.
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Ok(match (&access.credentials, &access.profile) {
            (Credentials::Static(credentials), _) => credentials.access_key_id.clone(),
            (Credentials::Anonymous, _) => "anonymous".to_owned(),
            (Credentials::Chain, profile) => {
                let key = variable("AWS_ACCESS_KEY_ID").filter(|key| !key.starts_with("ASIA"));
                profile
                    .clone()
                    .or_else(|| variable("AWS_PROFILE"))
                    .or(key)
                    .unwrap_or_else(|| ANY_ACCOUNT.to_owned())
            }
        })
    }
}

impl Shared {
    /// The scope of a site: account, Region and endpoints. STS is asked for the account when it is
    /// needed for the first time. Access keys do not identify it: they are rotated, and their tasks
    /// would be orphaned.
    pub(super) fn scope<'a>(&self, site: &'a Site) -> Result<&'a str> {
        if let Some(scope) = site.known_scope() {
            return Ok(scope);
        }
        // Of concurrent callers one asks, and all get its result.
        let mut failed = lock(&site.failed_lookup);
        if let Some(scope) = site.known_scope() {
            return Ok(scope);
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| at.elapsed() < ASK_AGAIN) {
            return Err(unknown(error));
        }
        match site.who(&self.session, &self.settings.compute_requests) {
            Ok(who) => self.know(site, &who),
            Err(error) => {
                let unknown = unknown(&error);
                *failed = Some((Instant::now(), error));
                Err(unknown)
            }
        }
    }

    /// Notes the account of a site.
    pub(super) fn know<'a>(&self, site: &'a Site, who: &str) -> Result<&'a str> {
        let scope = format!("{who} {}", site.endpoints());
        // These may be other credentials than the ones for which tasks wait.
        self.task_db.rouse(&scope)?;
        Ok(site.scope.get_or_init(|| scope))
    }

    /// The scopes that are known, each once.
    pub(super) fn known_scopes(&self) -> Vec<&str> {
        let mut scopes: Vec<&str> = Vec::new();
        for scope in self.sites.iter().filter_map(|site| site.known_scope()) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes
    }

    /// The site that performs a task of `scope`: the one with the profile of its request, else one
    /// with the same account, Region and endpoints.
    pub(super) fn site_of(&self, scope: Option<&str>, profile: Option<&str>) -> Result<&Site> {
        let fitting = || self.sites.iter().filter(|site| site.known_scope() == scope);
        fitting()
            .find(|site| site.settings.profile.as_deref() == profile)
            .or_else(|| fitting().next())
            .map(AsRef::as_ref)
            .ok_or_else(|| Error::internal("a task of another scope was claimed"))
    }
}

fn unknown(cause: &Error) -> Error {
    Error::new(
        cause.kind(),
        "it is not known whose tasks these credentials are for: name the account with --account-id",
    )
    .because(one_line_of(cause))
}
