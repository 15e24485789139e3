//! TLS: reads a certificate chain and its key from two PEM files.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::{Error, ErrorKind, Result};
use crate::localfs::read_short;

/// The longest file that is read. A chain of certificates takes a few thousand bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads both files; refuses a key that does not belong to the certificate.
pub(in super::super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let read =
        |path: &Path, what: &str| read_short(path, &format!("{what} for TLS"), MAX_FILE_BYTES);
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&read(certificate, "certificate")?)
            .collect::<Result<_, _>>()
            .map_err(|cause| {
                Error::usage("the file of --tls-cert is not PEM")
                    .at("path", certificate.display())
                    .because(cause)
            })?;
    if chain.is_empty() {
        return Err(Error::usage(
            "the file of --tls-cert holds no certificate: give PEM, the server's own first",
        )
        .at("path", certificate.display()));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key, "key")?).map_err(|cause| {
        Error::usage("the file of --tls-key holds no private key in PEM")
            .at("path", key.display())
            .because(cause)
    })?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| Error::new(ErrorKind::Internal, "cannot set up TLS").because(cause))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|cause| {
            Error::usage("certificate and key cannot be used together")
                .at("path", certificate.display())
                .because(cause)
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
