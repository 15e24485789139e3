//! Errors of answers that are refusals, damaged or endless. Without network: the connection is a
//! function.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::json;

use super::super::super::error::{Failure, classify};
use super::*;
use crate::base::{ErrorKind, Retry};

/// Gives every request one answer, and remembers when requests were signed.
#[derive(Debug)]
struct Service {
    status: u16,
    /// Seconds ahead of the local clock.
    clock: i64,
    /// `None` for an endless body.
    body: Option<&'static str>,
    dates: Mutex<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Connection(Arc<Service>);

impl HttpConnector for Connection {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0
            .dates
            .lock()
            .expect("no panic")
            .push(request.headers().get("x-amz-date").unwrap_or_default().to_owned());
        let body = self.0.body.map_or_else(|| SdkBody::from_body_1_x(Endless), SdkBody::from);
        let mut response = HttpResponse::new(self.0.status.try_into().expect("a status"), body);
        let clock = DateTime::from_secs(DateTime::from(SystemTime::now()).secs() + self.0.clock);
        response.headers_mut().insert("date", clock.fmt(Format::HttpDate).expect("a date"));
        response.headers_mut().insert("x-amzn-requestid", "in-the-head");
        HttpConnectorFuture::ready(Ok(response))
    }
}

struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 64 << 10])))))
    }
}

fn service(status: u16, body: Option<&'static str>) -> Service {
    Service { status, clock: 0, body, dates: Mutex::default() }
}

fn config(service: Service) -> (Connection, SdkConfig) {
    let connection = Connection(Arc::new(service));
    let ours = connection.clone();
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "AKID", "secret", None, None, "given",
        )))
        .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(ours.clone())))
        .build();
    (connection, config)
}

fn endpoint(config: &SdkConfig) -> Endpoint {
    Endpoint::resolve(config, "EC2", None, None).expect("an endpoint")
}

async fn ask(config: &SdkConfig) -> Result<Value, Failure> {
    let client = Ec2Client::new(config, &endpoint(config)).expect("a client");
    client
        .call("DescribeImages", Params::new())
        .await
        .map_err(|error| classify("cannot read the image", error))
}

async fn failure(service: Service) -> Failure {
    ask(&config(service).1).await.expect_err("it fails")
}

const REFUSED: &str = "<Response><Errors><Error><Code>InvalidAMIID.NotFound</Code>\
                       <Message>It is gone</Message></Error></Errors>\
                       <RequestID>in-the-body</RequestID></Response>";

#[tokio::test]
async fn a_refusal_keeps_its_words() {
    let error = failure(service(400, Some(REFUSED))).await.error;
    assert_eq!((error.kind(), error.retry()), (ErrorKind::NotFound, Retry::No));
    assert_eq!(
        error.context(),
        [
            ("code", "InvalidAMIID.NotFound".into()),
            ("status", "400".into()),
            ("request_id", "in-the-head".into())
        ]
    );
    assert_eq!(error.causes(), ["It is gone"]);
}

#[tokio::test]
async fn a_refusal_without_a_code_is_judged_by_its_status() {
    for (status, body, kind, retry) in [
        (503, "", ErrorKind::Limit, Retry::Throttle),
        (502, "<html><body>Bad gateway</body></html>", ErrorKind::Io, Retry::Transient),
        (403, "{}", ErrorKind::Denied, Retry::No),
        (307, "", ErrorKind::Io, Retry::No),
    ] {
        let error = failure(service(status, Some(body))).await.error;
        assert_eq!(
            (error.kind(), error.retry(), error.fact("code")),
            (kind, retry, Some(status.to_string().as_str())),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_request_with_an_unreadable_answer_is_repeated() {
    for body in
        ["", "busy", "<html/>", "<DescribeImagesResponse>", "<!DOCTYPE a><DescribeImagesResponse/>"]
    {
        let error = failure(service(200, Some(body))).await.error;
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Io, Retry::Transient), "{error:?}");
        assert!(
            error.causes().concat().contains("the answer cannot be read: the answer "),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_without_end_ends() {
    let error = failure(service(200, None)).await.error;
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Io, Retry::No));
    assert_eq!(error.causes(), ["the answer is too long"]);
    assert_eq!(failure(service(500, None)).await.error.fact("code"), Some("500"));
}

#[tokio::test]
async fn a_wrong_clock_is_put_right() {
    let refused = "<Response><Errors><Error><Code>AuthFailure</Code><Message>No</Message></Error>\
                   </Errors></Response>";
    let (connection, config) = config(Service { clock: 3600, ..service(401, Some(refused)) });
    let client = Ec2Client::new(&config, &endpoint(&config)).expect("a client");
    for _ in 0..2 {
        // A clone, as in a repeated request.
        let error =
            client.clone().call("DescribeImages", Params::new()).await.expect_err("it fails");
        assert!(classify("cannot read the image", error).skewed);
    }
    let dates = connection.0.dates.lock().expect("no panic").clone();
    let time = |date: &str| {
        let [year, month, day, hour, minute, second] =
            [0..4, 4..6, 6..8, 9..11, 11..13, 13..15].map(|part| date[part].to_owned());
        DateTime::from_str(
            &format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"),
            Format::DateTime,
        )
        .expect("a time")
        .secs()
    };
    let difference = time(&dates[1]) - time(&dates[0]);
    assert!((3590..3610).contains(&difference), "{dates:?}");
}

#[tokio::test]
async fn a_refusal_with_the_local_time_is_not_due_to_the_clock() {
    let refused = "<Response><Errors><Error><Code>AuthFailure</Code></Error></Errors></Response>";
    let failure = failure(service(401, Some(refused))).await;
    assert!(!failure.skewed && failure.region.is_none());
    assert_eq!((failure.error.kind(), failure.error.retry()), (ErrorKind::Denied, Retry::No));
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no source has any")))
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    let (connection, config) = config(service(200, Some("<DescribeImagesResponse/>")));
    let config = config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(NoCredentials))
        .build();
    let error = ask(&config).await.expect_err("it fails").error;
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Denied, Retry::No), "{error:?}");
    assert_eq!(connection.0.dates.lock().expect("no panic").len(), 0);
}

#[tokio::test]
async fn requests_without_a_provider_of_credentials_are_not_signed() {
    let (connection, config) =
        config(service(200, Some("<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>")));
    let mut builder = config.into_builder();
    builder.set_credentials_provider(None);
    assert_eq!(
        ask(&builder.build()).await.unwrap_or_else(|failure| panic!("{:?}", failure.error)),
        json!({"Images": []})
    );
    assert_eq!(*connection.0.dates.lock().expect("no panic"), [""]);
}

#[tokio::test]
async fn a_silent_service_ends_with_the_timeouts_of_the_configuration() {
    #[derive(Debug)]
    struct Silent;
    impl HttpConnector for Silent {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            HttpConnectorFuture::new(std::future::pending())
        }
    }
    let timeouts = aws_smithy_types::timeout::TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_millis(10))
        .build();
    let builder = config(service(200, None)).1.into_builder().timeout_config(timeouts);
    let config =
        builder.http_client(http_client_fn(|_, _| SharedHttpConnector::new(Silent))).build();
    let error = ask(&config).await.expect_err("it fails").error;
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Io, Retry::Transient));
}
