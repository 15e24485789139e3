//! The error answers of a service.

use std::fmt;

use super::xml::{Element, parse};

/// An error answer: EC2's code, its message, and the id of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// Such as `InvalidAMIID.NotFound`; the HTTP status, such as `503`, if the body has no code.
    pub code: String,
    /// For people; the phrase of the HTTP status if the body has no code.
    pub message: String,
    /// The id of the request, if the body has it.
    pub request_id: Option<String>,
}

impl ServiceError {
    /// Reads the body of an answer with `status`. Never fails: a proxy or a load balancer may
    /// answer in any format.
    ///
    /// EC2 writes `Response/Errors/Error`, other services of the same protocol
    /// `ErrorResponse/Error`, and S3's gateways `Error` alone. The first of several errors counts.
    pub fn read(status: u16, body: &[u8]) -> Self {
        parse(body).ok().and_then(|root| Self::said(&root)).unwrap_or_else(|| Self {
            code: status.to_string(),
            message: phrase(status).to_owned(),
            request_id: None,
        })
    }

    fn said(root: &Element<'_>) -> Option<Self> {
        let error = match root.name {
            "Response" => root.child("Errors")?.child("Error")?,
            "ErrorResponse" => root.child("Error")?,
            "Error" => root,
            _ => return None,
        };
        let text = |element: &Element<'_>, name: &str| {
            element
                .child(name)
                .map(|child| child.text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let request_id =
            ["RequestID", "RequestId", "requestId"].iter().find_map(|name| text(root, name));
        Some(Self {
            code: text(error, "Code")?,
            message: text(error, "Message").unwrap_or_default(),
            request_id,
        })
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            f.write_str(&self.code)
        } else {
            write!(f, "{} ({})", self.message, self.code)
        }
    }
}

impl std::error::Error for ServiceError {}

/// The phrases of RFC 9110, 15, for the statuses that services, proxies and load balancers send.
fn phrase(status: u16) -> &'static str {
    match status {
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, message: &str, request_id: Option<&str>) -> ServiceError {
        ServiceError {
            code: code.to_owned(),
            message: message.to_owned(),
            request_id: request_id.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn every_form_of_refusal_is_read() {
        let inside = "<Code>InvalidAMIID.NotFound</Code>\
                      <Message>The image id &apos;[ami-1]&apos; does not exist</Message>";
        let read =
            error("InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", Some("ea96"));
        for body in [
            format!(
                "<?xml version=\"1.0\"?>\n<Response>\
                 <Errors><Error>{inside}</Error></Errors><RequestID>ea96</RequestID></Response>"
            ),
            format!(
                "<Response><Errors><Error>{inside}</Error>\
                 <Error><Code>Other</Code></Error></Errors><RequestID>ea96</RequestID></Response>"
            ),
            format!(
                "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type>{inside}</Error>\
                 <RequestId>ea96</RequestId></ErrorResponse>"
            ),
            format!("<Error>{inside}<RequestId>ea96</RequestId></Error>"),
        ] {
            assert_eq!(ServiceError::read(400, body.as_bytes()), read, "{body}");
        }
        assert_eq!(
            read.to_string(),
            "The image id '[ami-1]' does not exist (InvalidAMIID.NotFound)"
        );
    }

    #[test]
    fn without_words_of_the_service_the_status_speaks() {
        for body in [
            "",
            "busy",
            "<html><body><b>Http/1.1 Service Unavailable</b></body></html>",
            "<Response><Errors/></Response>",
            "<Response>",
            "<Error/>",
        ] {
            assert_eq!(
                ServiceError::read(503, body.as_bytes()),
                error("503", "Service Unavailable", None),
                "{body}"
            );
        }
        assert_eq!(ServiceError::read(599, b"").to_string(), "599");
    }
}
