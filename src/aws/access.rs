//! Credentials, Region and endpoint of one side of a transfer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{SharedCredentialsProvider, StalledStreamProtectionConfig};
use aws_types::os_shim_internal::{Env, Fs};

use super::http_client::http_client;
use crate::base::{Error, ErrorCode, ErrorKind, Result};
use crate::localfs::check_open;

/// The position of the bucket in URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the path with an endpoint URL, in the host name otherwise.
    #[default]
    Auto,
    /// `https://host/bucket/key`
    Path,
    /// `https://bucket.host/key`
    Virtual,
}

/// The source of credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// The chain of the AWS tools: environment, profile, web identity, container, instance.
    #[default]
    Chain,
    /// None: requests are not signed.
    Anonymous,
    /// Given ones.
    Static(StaticCredentials),
}

/// Credentials that the embedding program has.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticCredentials {
    /// The id of the key.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: String,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for StaticCredentials {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// One side of a transfer. Absent members come from the environment and the configuration files, as
/// with the AWS CLI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A profile of the AWS configuration files. It precedes credentials in the environment.
    pub profile: Option<String>,
    /// Whether the profile's Region precedes that of the environment: two sides of one transfer
    /// share an environment, not a Region.
    pub profile_region_first: bool,
    /// The Region.
    pub region: Option<String>,
    /// The URL of the endpoint; of all services of this side.
    pub endpoint_url: Option<String>,
    /// The position of the bucket in URLs.
    pub addressing: Addressing,
    /// The source of credentials.
    pub credentials: Credentials,
    /// The longest time for making a TCP and TLS connection. Default: 10 s.
    pub connect_timeout: Option<Duration>,
}

impl Access {
    /// Reads environment and configuration files. Credentials are resolved by the first request.
    pub(super) async fn load(&self) -> Result<SdkConfig> {
        check_files()?;
        let http = http_client(std::env::var_os("AWS_CA_BUNDLE").as_deref().map(Path::new))?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(self.connect_timeout.unwrap_or(Duration::from_secs(10)))
                    .build(),
            )
            // The idle timeout of the connection covers both directions and the bandwidth limit.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        self.check_profile().await?;
        if let Some(profile) = &self.profile {
            // A role is assumed at an endpoint of this Region.
            let region = match self.region().await {
                Some(region) => Some(region),
                None => {
                    aws_config::meta::region::RegionProviderChain::first_try(
                        aws_config::environment::EnvironmentVariableRegionProvider::new(),
                    )
                    .or_else(profile_region(profile))
                    .region()
                    .await
                }
            };
            let provider_config =
                ProviderConfig::default().with_http_client(http).with_region(region);
            let provider = ProfileFileCredentialsProvider::builder()
                .configure(&provider_config)
                .profile_name(profile)
                .build();
            loader = loader
                .profile_name(profile)
                .credentials_provider(SharedCredentialsProvider::new(provider));
        }
        match &self.credentials {
            Credentials::Chain => {}
            Credentials::Anonymous => loader = loader.no_credentials(),
            Credentials::Static(StaticCredentials {
                access_key_id,
                secret_access_key,
                session_token,
            }) => {
                let (id, secret, token) =
                    (access_key_id.clone(), secret_access_key.clone(), session_token.clone());
                loader = loader.credentials_provider(aws_sdk_s3::config::Credentials::new(
                    id, secret, token, None, "given",
                ));
            }
        }
        if let Some(region) = self.region().await {
            loader = loader.region(region);
        }
        if let Some(url) = &self.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        Ok(loader.load().await)
    }

    /// Fails if the profile that is named does not exist. Files that cannot be read are an error of
    /// the SDK, when it needs them.
    async fn check_profile(&self) -> Result<()> {
        let variable = || std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
        let Some(name) = self.profile.clone().or_else(variable) else { return Ok(()) };
        let (files, shim) = (EnvConfigFiles::default(), (Fs::real(), Env::real()));
        let Ok(profiles) = aws_config::profile::load(&shim.0, &shim.1, &files, None).await else {
            return Ok(());
        };
        if profiles.get_profile(&name).is_some() {
            return Ok(());
        }
        let mut known: Vec<&str> = profiles.profiles().collect();
        known.sort_unstable();
        Err(Error::new(ErrorKind::NotFound, "the configuration files of AWS have no such profile")
            .code_as(ErrorCode::NoSuchProfile)
            .at("profile", name)
            .at("profiles", known.join(", ")))
    }

    /// The Region, if it differs from that of the SDK's order.
    async fn region(&self) -> Option<Region> {
        if let Some(region) = &self.region {
            return Some(Region::new(region.clone()));
        }
        if !self.profile_region_first {
            return None;
        }
        let profile = self.profile.as_ref()?;
        aws_config::meta::region::ProvideRegion::region(&profile_region(profile)).await
    }
}

/// Refuses files of the SDK whose open would wait: it reads them by itself, and a cancellation does
/// not end an open of a named pipe.
fn check_files() -> Result<()> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let in_home = |name: &str| home.as_ref().map(|home| home.join(".aws").join(name));
    for (variable, what, standard) in [
        ("AWS_CONFIG_FILE", "configuration file of AWS", in_home("config")),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials file of AWS", in_home("credentials")),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "file of the web identity token", None),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "file of the container's token", None),
    ] {
        let given = std::env::var_os(variable).map(PathBuf::from);
        if let Some(path) = given.or(standard) {
            check_open(&path, what).map_err(|error| error.at("variable", variable))?;
        }
    }
    Ok(())
}

/// The Region that a profile names.
fn profile_region(profile: &str) -> aws_config::profile::ProfileFileRegionProvider {
    aws_config::profile::ProfileFileRegionProvider::builder().profile_name(profile).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let credentials = StaticCredentials {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: "hidden".to_owned(),
            session_token: Some("hidden".to_owned()),
        };
        let access = Access { credentials: Credentials::Static(credentials), ..Access::default() };
        let printed = format!("{access:?}");
        assert!(printed.contains("AKIA") && !printed.contains("hidden"), "{printed}");
    }
}
