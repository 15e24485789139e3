//! Options of the endpoint that decide which clients are accepted.

use std::path::PathBuf;

use clap::Args;

use crate::base::{Error, Result};
use crate::server::{AccessKeys, HttpSettings, Limits, TlsFiles, read_private};

/// Keys, TLS, the password of status page and metrics, and the limit of connections.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(in super::super) struct AccessArgs {
    /// Access keys whose signatures are required: a file in the form of ~/.aws/credentials that
    /// only its owner may read
    #[arg(long, value_name = "FILE")]
    access_keys: Option<PathBuf>,
    /// Certificate chain in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Password of status page and metrics: a file that only its owner may read. Without it, both
    /// are for this machine alone
    #[arg(long, value_name = "FILE")]
    status_password_file: Option<PathBuf>,
    /// Limit of open connections
    #[arg(
        long,
        value_name = "N",
        default_value = "512",
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    max_connections: u32,
}

impl AccessArgs {
    /// The settings of HTTP, without address, Region and upstream.
    pub(in super::super) fn http_settings(&self) -> Result<HttpSettings> {
        let keys = self.access_keys.as_deref().map(AccessKeys::load).transpose()?;
        let password = self.status_password_file.as_deref().map(|path| {
            let text = read_private(path, "the password")?;
            let password = text.trim_end_matches(['\r', '\n']).to_owned();
            if password.is_empty() {
                Err(Error::usage("the password is empty").at("path", path.display()))
            } else {
                Ok(password)
            }
        });
        let tls = self
            .tls_cert
            .clone()
            .zip(self.tls_key.clone())
            .map(|(certificate, key)| TlsFiles { certificate, key });
        let limits = Limits { max_connections: self.max_connections as usize, ..Limits::default() };
        Ok(HttpSettings {
            tls,
            keys,
            status_password: password.transpose()?,
            limits,
            ..HttpSettings::default()
        })
    }
}
