//! EC2: any action of its Query protocol, signed.
//!
//! [`Ec2Client`] sends one request and reads one answer. It is made of the same parts as the SDK's
//! own clients (signing, credentials and their cache, correction of a wrong clock, timeouts,
//! connections), without the 1.2 million lines that know every parameter of every action: the forms
//! and answers are in [`crate::aws::ec2_query`]. It does not repeat requests: that is decided in
//! one place, [`Connection`](super::super::Connection).

mod error;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::invocation_id::InvocationIdInterceptor;
use aws_runtime::service_clock_skew::{DisableClockSkewCorrection, ServiceClockSkewInterceptor};
use aws_runtime::user_agent::{ApiMetadata, UserAgentInterceptor};
use aws_smithy_runtime::client::auth::no_auth::NoAuthRuntimePluginV2;
use aws_smithy_runtime::client::defaults::{DefaultPluginParams, default_plugins};
use aws_smithy_runtime::client::http::connection_poisoning::ConnectionPoisoningInterceptor;
use aws_smithy_runtime::client::orchestrator;
use aws_smithy_runtime::client::orchestrator::endpoints::StaticUriEndpointResolver;
use aws_smithy_runtime::client::retries::classifiers::HttpStatusCodeClassifier;
use aws_smithy_runtime::client::retries::strategy::NeverRetryStrategy;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::endpoint::{EndpointResolverParams, SharedEndpointResolver};
use aws_smithy_runtime_api::client::interceptors::context::{Input, Output};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::retries::SharedRetryStrategy;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::{RuntimePlugins, StaticRuntimePlugin};
use aws_smithy_runtime_api::client::ser_de::{SharedRequestSerializer, SharedResponseDeserializer};
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::retry::RetryConfig;
use aws_types::SigningName;
use aws_types::region::{Region, SigningRegion};
use bytes::Bytes;
use serde_json::Value;

use crate::aws::Endpoint;
use crate::aws::ec2_query::Params;
use crate::base::Result;

pub use error::Ec2Error;
pub(in super::super) use error::REQUEST_ID;
pub use wire::RawAnswer;

/// EC2 in one Region. Clones share connections, credentials and what is known about the clock.
#[derive(Clone, Debug)]
pub struct Ec2Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plugins: RuntimePlugins,
}

impl Ec2Client {
    /// A client for `endpoint` with the credentials, connections and timeouts of `config`. Sends no
    /// request.
    ///
    /// Without credentials in `config`, requests are not signed.
    pub fn new(config: &SdkConfig, endpoint: &Endpoint) -> Result<Self> {
        let url = endpoint.ec2_url()?;
        let params = DefaultPluginParams::new()
            .with_retry_partition_name(format!("ec2-{}", endpoint.region()))
            .with_behavior_version(
                config.behavior_version().unwrap_or_else(BehaviorVersion::latest),
            )
            .with_is_aws_sdk(true);
        let ours = StaticRuntimePlugin::new()
            .with_config(settings(config, endpoint).freeze())
            .with_runtime_components(components(config, &url));
        let mut plugins = RuntimePlugins::new()
            .with_client_plugins(default_plugins(params))
            .with_client_plugin(ours);
        if config.credentials_provider().is_none() {
            plugins = plugins.with_client_plugin(NoAuthRuntimePluginV2::new());
        }
        Ok(Self(Arc::new(Inner { plugins })))
    }

    /// Sends a request for `action` once, and reads the answer as
    /// [`crate::aws::ec2_query::answer()`] does.
    pub async fn call(
        &self,
        action: &'static str,
        params: Params,
    ) -> Result<Value, SdkError<Ec2Error, HttpResponse>> {
        let reader = SharedResponseDeserializer::new(wire::Deserializer { action });
        let output = self.invoke(action, params.request(action).into(), reader).await?;
        Ok(output.downcast::<Value>().unwrap_or_default())
    }

    /// Sends `form` once and unchanged, and returns the answer before its body is read. A refusal
    /// is an answer, too. `action` is the action of the form.
    pub async fn send(
        &self,
        action: &str,
        form: Bytes,
    ) -> Result<RawAnswer, SdkError<Ec2Error, HttpResponse>> {
        let output =
            self.invoke(action, form, SharedResponseDeserializer::new(wire::Unread)).await?;
        // `Unread` is the only deserializer, and its output is always a `RawAnswer`.
        output.downcast::<RawAnswer>().map_err(|_| SdkError::construction_failure("not an answer"))
    }

    async fn invoke(
        &self,
        action: &str,
        form: Bytes,
        reader: SharedResponseDeserializer,
    ) -> Result<Output, SdkError<Ec2Error, HttpResponse>> {
        let mut settings = Layer::new("action");
        settings.store_put(Metadata::new(action.to_owned(), "EC2"));
        settings.store_put(reader);
        let plugins = self
            .0
            .plugins
            .clone()
            .with_operation_plugin(StaticRuntimePlugin::new().with_config(settings.freeze()));
        orchestrator::invoke("EC2", action, Input::erase(wire::Call(form)), &plugins).await.map_err(
            |error| {
                error.map_service_error(|error| match error.downcast::<Ec2Error>() {
                    Ok(error) => error,
                    Err(other) => Ec2Error::unreadable(format!("{other:?}")),
                })
            },
        )
    }
}

fn settings(config: &SdkConfig, endpoint: &Endpoint) -> Layer {
    let region = Region::new(endpoint.region().to_owned());
    let mut settings = Layer::new("ec2");
    settings.store_put(SharedRequestSerializer::new(wire::Serializer));
    settings.store_put(ApiMetadata::new("ec2", env!("CARGO_PKG_VERSION")));
    settings.store_put(AuthSchemeOptionResolverParams::new(()));
    settings.store_put(EndpointResolverParams::new(()));
    settings.store_put(SigningName::from_static("ec2"));
    settings.store_put(SigningRegion::from(region.clone()));
    settings.store_put(region);
    settings.store_put(SigV4OperationSigningConfig::default());
    settings.store_put(RetryConfig::disabled());
    settings.store_put(DisableClockSkewCorrection::from(
        config.disable_clock_skew_correction().unwrap_or_default(),
    ));
    if let Some(timeouts) = config.timeout_config() {
        settings.store_put(timeouts.clone());
    }
    if let Some(protection) = config.stalled_stream_protection() {
        settings.store_put(protection);
    }
    if let Some(name) = config.app_name() {
        settings.store_put(name.clone());
    }
    settings
}

fn components(config: &SdkConfig, url: &str) -> RuntimeComponentsBuilder {
    let mut components = RuntimeComponentsBuilder::new("ec2");
    components.set_http_client(config.http_client());
    components.set_sleep_impl(config.sleep_impl());
    components.set_time_source(Some(config.time_source().unwrap_or_default()));
    if let Some(cache) = config.identity_cache() {
        components.set_identity_cache(Some(cache));
    }
    components.set_endpoint_resolver(Some(SharedEndpointResolver::new(
        StaticUriEndpointResolver::uri(url.to_owned()),
    )));
    components.set_retry_strategy(Some(SharedRetryStrategy::new(NeverRetryStrategy::new())));
    if let Some(provider) = config.credentials_provider() {
        let options = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
        components
            .set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(options)));
        components.push_auth_scheme(SigV4AuthScheme::new());
        components.set_identity_resolver(SCHEME_ID, provider);
    }
    // A connection on which a server failed is not used for the next attempt.
    components.push_retry_classifier(HttpStatusCodeClassifier::default());
    components.push_interceptor(ConnectionPoisoningInterceptor::new());
    components.push_interceptor(ServiceClockSkewInterceptor::new());
    components.push_interceptor(UserAgentInterceptor::new());
    components.push_interceptor(wire::Product);
    components.push_interceptor(InvocationIdInterceptor::new());
    components
}
