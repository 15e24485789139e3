//! The HTTP client of all requests: proxies of the environment, certificate bundle, pooled
//! connections.
//!
//! The client of the SDK makes the connections with TLS, and those to a proxy. Connections without
//! TLS are made here, because the SDK has no setting for their read buffers: hyper doubles the
//! buffer of a connection while reads fill it, up to 400 KiB, and a socket fills any buffer. With
//! hundreds of connections that is as much memory as the blocks that they bring. TLS returns a
//! record of 16 KiB at a time, which bounds the buffer by itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{
    RuntimeComponents, RuntimeComponentsBuilder,
};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Client, connect};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::base::{Error, ErrorKind, Result};
use crate::localfs::read_short;

/// The longest certificate bundle that is read. That of Mozilla has 0.2 MiB.
const MAX_BUNDLE: u64 = 16 << 20;
/// The largest read buffer of a connection without TLS: a block of EBS is eight reads, whose bytes
/// are still in the cache of the core when they are copied.
const READ_BUFFER: usize = 64 << 10;

/// A client with the proxies of the environment and, if there is one, the certificate bundle.
pub(super) fn http_client(ca_bundle: Option<&Path>) -> Result<SharedHttpClient> {
    let sdk = sdk_client(ca_bundle)?;
    let proxies = Arc::new(Matcher::from_env());
    Ok(SharedHttpClient::new(Clients { sdk, proxies, plain: Mutex::default() }))
}

/// The client of the SDK.
fn sdk_client(ca_bundle: Option<&Path>) -> Result<SharedHttpClient> {
    let context = match ca_bundle.filter(|path| !path.as_os_str().is_empty()) {
        None => None,
        Some(path) => {
            let failed = |error: Error| error.at("variable", "AWS_CA_BUNDLE");
            let pem = read_short(path, "certificate bundle", MAX_BUNDLE).map_err(failed)?;
            let store = tls::TrustStore::empty().with_pem_certificate(pem);
            let context = tls::TlsContext::builder().with_trust_store(store).build();
            Some(context.map_err(|cause| {
                let error = Error::new(ErrorKind::Usage, "not a certificate bundle");
                failed(error.because(cause).at("path", path.display()))
            })?)
        }
    };
    Ok(Builder::new().build_with_connector_fn(move |settings, _components| {
        let mut builder = Connector::builder().proxy_config(ProxyConfig::from_env());
        if let Some(settings) = settings {
            builder = builder.connector_settings(settings.clone());
        }
        let mut builder =
            builder.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
        if let Some(context) = &context {
            builder = builder.tls_context(context.clone());
        }
        builder.build()
    }))
}

/// The clients with and without TLS.
#[derive(Debug)]
struct Clients {
    sdk: SharedHttpClient,
    proxies: Arc<Matcher>,
    /// By the longest time for making a connection.
    plain: Mutex<HashMap<Option<Duration>, PlainClient>>,
}

impl HttpClient for Clients {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let sdk = self.sdk.http_connector(settings, components);
        // Only requests for credentials of a container or an instance have a read timeout.
        if settings.read_timeout().is_some() {
            return sdk;
        }
        let mut clients = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        let timeout = settings.connect_timeout();
        let plain = clients.entry(timeout).or_insert_with(|| PlainClient::new(timeout)).clone();
        SharedHttpConnector::new(Connectors { sdk, proxies: self.proxies.clone(), plain })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.sdk.validate_base_client_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.sdk.connector_metadata()
    }
}

/// The connections of requests with the same timeouts.
#[derive(Debug)]
struct Connectors {
    sdk: SharedHttpConnector,
    proxies: Arc<Matcher>,
    plain: PlainClient,
}

impl HttpConnector for Connectors {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri = request.uri().parse::<hyper::Uri>();
        let is_plain = uri.is_ok_and(|uri| {
            uri.scheme_str() == Some("http") && self.proxies.intercept(&uri).is_none()
        });
        if is_plain { self.plain.call(request) } else { self.sdk.call(request) }
    }
}

/// Connections without TLS and without a proxy.
#[derive(Clone, Debug)]
struct PlainClient(Client<connect::HttpConnector, SdkBody>);

impl PlainClient {
    fn new(connect_timeout: Option<Duration>) -> Self {
        let mut connector = connect::HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(connect_timeout);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).http1_max_buf_size(READ_BUFFER);
        Self(builder.build(connector))
    }

    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => {
                return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
            }
        };
        // A connection whose request failed in a way that may pass is not used again.
        let captured = capture_connection(&mut request);
        if let Some(capture) = request.extensions().get::<CaptureSmithyConnection>() {
            capture.set_connection_retriever(move || {
                captured.connection_metadata().as_ref()?;
                let captured = captured.clone();
                let poison = move || {
                    if let Some(connection) = captured.connection_metadata().as_ref() {
                        connection.poison();
                    }
                };
                Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
            });
        }
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
