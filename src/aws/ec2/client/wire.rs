//! The serializer and the deserializers that the SDK's runtime calls.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_runtime::user_agent::AwsUserAgent;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextMut, Error, Input, Output,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SerializeRequest};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::request_id::RequestId;
use bytes::Bytes;
use http_body::{Body, Frame};

use super::Ec2Error;
use crate::aws::ec2_query::{MAX_ANSWER_BYTES, ServiceError, answer};
use crate::base::ErrorKind;

/// The form of a request.
#[derive(Debug)]
pub(super) struct Call(pub(super) Bytes);

/// Makes a form of a [`Call`].
#[derive(Debug)]
pub(super) struct Serializer;

impl SerializeRequest for Serializer {
    fn serialize_input(&self, input: Input, _: &mut ConfigBag) -> Result<HttpRequest, BoxError> {
        let call = input.downcast::<Call>().map_err(|_| "not a call")?;
        let mut request = HttpRequest::new(SdkBody::from(call.0));
        request.set_method("POST")?;
        request.set_uri("/")?;
        request
            .headers_mut()
            .insert("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        Ok(request)
    }
}

/// Makes a value or an [`Ec2Error`] of an answer.
#[derive(Debug)]
pub(super) struct Deserializer {
    pub(super) action: &'static str,
}

impl DeserializeResponse for Deserializer {
    /// Limits the body before it is read: an endless one must not fill the memory.
    fn deserialize_streaming_with_config(
        &self,
        response: &mut HttpResponse,
        _: &ConfigBag,
    ) -> Option<Result<Output, OrchestratorError<Error>>> {
        let body = response.take_body();
        *response.body_mut() = SdkBody::from_body_1_x(Bounded { body, left: MAX_ANSWER_BYTES + 1 });
        None
    }

    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        _: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        let body = response
            .body()
            .bytes()
            .ok_or_else(|| OrchestratorError::other("the body was not read"))?;
        let refused = |error| OrchestratorError::operation(Error::erase(error));
        if !response.status().is_success() {
            return Err(refused(Ec2Error::refused(
                ServiceError::read(response.status().as_u16(), body),
                response.request_id(),
            )));
        }
        answer(self.action, body).map(Output::erase).map_err(|error| match error.kind() {
            ErrorKind::Limit => refused(Ec2Error::unreadable(error.to_string())),
            _ => OrchestratorError::response(error.into()),
        })
    }
}

/// An answer whose body is not read yet.
#[derive(Debug)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// The type of the body, if it has one.
    pub content_type: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The body.
    pub(in super::super) body: SdkBody,
}

/// Makes a [`RawAnswer`] of every answer, refusals included.
#[derive(Debug)]
pub(super) struct Unread;

impl DeserializeResponse for Unread {
    fn deserialize_streaming_with_config(
        &self,
        response: &mut HttpResponse,
        _: &ConfigBag,
    ) -> Option<Result<Output, OrchestratorError<Error>>> {
        let answer = RawAnswer {
            status: response.status().as_u16(),
            content_type: response.headers().get("content-type").map(ToOwned::to_owned),
            request_id: response.request_id().map(ToOwned::to_owned),
            body: response.take_body(),
        };
        Some(Ok(Output::erase(answer)))
    }

    fn deserialize_nonstreaming_with_config(
        &self,
        _: &HttpResponse,
        _: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        Err(OrchestratorError::other("the body was read"))
    }
}

/// A body that ends after `left` bytes.
struct Bounded {
    body: SdkBody,
    left: usize,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(mut data) => {
                    data.truncate(self.left);
                    self.left -= data.len();
                    Frame::data(data)
                }
                Err(frame) => frame,
            })
        }))
    }
}

/// Puts the name of this program before that of the SDK.
#[derive(Debug)]
pub(super) struct Product;

#[dyn_dispatch_hint]
impl Intercept for Product {
    fn name(&self) -> &'static str {
        "Product"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let sdk = settings.load::<AwsUserAgent>().map(AwsUserAgent::ua_header).unwrap_or_default();
        let agent = format!("amistore/{} {sdk}", env!("CARGO_PKG_VERSION"));
        context.request_mut().headers_mut().try_insert("user-agent", agent)?;
        Ok(())
    }
}
