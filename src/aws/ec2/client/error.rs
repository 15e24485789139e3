//! The refusals of EC2, as errors of the SDK.

use std::fmt;

use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::aws::ec2_query::ServiceError;

/// The name under which the SDK keeps the id of a request.
pub(in super::super::super) const REQUEST_ID: &str = "aws_request_id";

/// A refusal by EC2, or an answer beyond a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Ec2Error(ErrorMetadata);

impl Ec2Error {
    pub(super) fn refused(said: ServiceError, request_id: Option<&str>) -> Self {
        let mut meta = ErrorMetadata::builder().code(said.code).message(said.message);
        if let Some(id) = said.request_id.as_deref().or(request_id) {
            meta = meta.custom(REQUEST_ID, id.to_owned());
        }
        Self(meta.build())
    }

    /// An answer beyond a limit; a repeated request would get it again.
    pub(super) fn unreadable(message: String) -> Self {
        Self(ErrorMetadata::builder().message(message).build())
    }

    /// The id of the request, for AWS's support.
    #[cfg(feature = "internals")]
    pub fn request_id(&self) -> Option<&str> {
        self.0.extra(REQUEST_ID)
    }
}

impl ProvideErrorMetadata for Ec2Error {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

impl fmt::Display for Ec2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.message().filter(|message| !message.is_empty()), self.0.code()) {
            (Some(message), Some(code)) => write!(f, "{message} ({code})"),
            (Some(text), None) | (None, Some(text)) => f.write_str(text),
            (None, None) => f.write_str("refused"),
        }
    }
}

impl std::error::Error for Ec2Error {}
