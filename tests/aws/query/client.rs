//! The client against a server: its requests, and that it sends each once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use amistore::internals::aws::Endpoint;
use amistore::internals::aws::ec2::Ec2Client;
use amistore::internals::aws::ec2_query::Params;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "tok/en+1==";

/// A received request.
#[derive(Clone, Debug, Default)]
struct Received {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

#[derive(Clone)]
struct Server {
    address: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Answers every request with the same status and body.
    async fn start(status: u16, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("bound").to_string(),
            received: Arc::default(),
        };
        let received = Arc::clone(&server.received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = Arc::clone(&received);
                let service = service_fn(move |request: Request<Incoming>| {
                    let received = Arc::clone(&received);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("a body").to_bytes();
                        let text = |value: &hyper::header::HeaderValue| {
                            value.to_str().expect("ASCII").to_owned()
                        };
                        received.lock().expect("no panic").push(Received {
                            line: format!("{} {}", head.method, head.uri),
                            headers: head
                                .headers
                                .iter()
                                .map(|(name, value)| (name.to_string(), text(value)))
                                .collect(),
                            body: String::from_utf8(body.to_vec()).expect("UTF-8"),
                        });
                        Ok::<_, Infallible>(
                            Response::builder()
                                .status(status)
                                .body(Full::new(Bytes::from_static(answer.as_bytes())))
                                .expect("a response"),
                        )
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        server
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    fn client(&self) -> Ec2Client {
        let credentials =
            Credentials::new("AKIDEXAMPLE", SECRET, Some(TOKEN.into()), None, "given");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        Ec2Client::new(&config, &self.endpoint(&config)).expect("a client")
    }

    fn endpoint(&self, config: &SdkConfig) -> Endpoint {
        let url = format!("http://{}", self.address);
        Endpoint::resolve(config, "EC2", Some("eu-central-1"), Some(&url)).expect("an endpoint")
    }
}

fn sha256(data: &[u8]) -> Vec<u8> {
    Sha256::digest(data).to_vec()
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = sha256(&[&block.map(|byte| byte ^ 0x36)[..], data].concat());
    sha256(&[&block.map(|byte| byte ^ 0x5c)[..], &inner].concat())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The expected `Authorization` of a request, by the specification of Signature Version 4.
fn authorization(request: &Received, signed: &str, region: &str) -> String {
    let date = &request.headers["x-amz-date"];
    let scope = format!("{}/{region}/ec2/aws4_request", &date[..8]);
    let headers: String =
        signed.split(';').map(|name| format!("{name}:{}\n", request.headers[name])).collect();
    let canonical =
        format!("POST\n/\n\n{headers}\n{signed}\n{}", hex(&sha256(request.body.as_bytes())));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let key = scope
        .split('/')
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| hmac(&key, part.as_bytes()));
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={signed}, Signature={}",
        hex(&hmac(&key, text.as_bytes()))
    )
}

/// Signed by botocore 1.44.5.
#[test]
fn the_expected_signature_is_that_of_botocore() {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "127.0.0.1:1"),
        ("x-amz-date", "20260102T030405Z"),
        ("x-amz-security-token", TOKEN),
    ];
    let request = Received {
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: "Action=DescribeImages&Version=2016-11-15&ImageId.1=ami-1&\
               Filter.1.Name=name&Filter.1.Value.1=a+b%2A~"
            .into(),
        ..Received::default()
    };
    let made = authorization(
        &request,
        "content-type;host;x-amz-date;x-amz-security-token",
        "eu-central-1",
    );
    assert!(
        made.ends_with(
            "Signature=7988972b275ff33a02559b609aa16d41681218f1a8f959a95266ec2319e43154"
        ),
        "{made}"
    );
}

#[tokio::test]
async fn a_request_is_a_signed_form() {
    let server = Server::start(
        200,
        "<DescribeImagesResponse><imagesSet><item><isPublic>false</isPublic></item></imagesSet></DescribeImagesResponse>",
    )
    .await;
    let params = Params::new()
        .list("ImageId", ["ami-1"])
        .structures("Filter", [Params::new().set("Name", "name").list("Value", ["a b*~"])]);
    let client = server.client();
    let endpoint = server.endpoint(&SdkConfig::builder().build());
    assert_eq!((endpoint.region(), endpoint.is_custom()), ("eu-central-1", true));
    let value = client.clone().call("DescribeImages", params).await.expect("an answer");
    assert_eq!(value, json!({"Images": [{"Public": false}]}));

    let [request] = &server.received()[..] else { panic!("one request") };
    assert_eq!(request.line, "POST /");
    assert_eq!(
        request.body,
        "Action=DescribeImages&Version=2016-11-15&ImageId.1=ami-1&Filter.1.Name=name&Filter.1.Value.1=a+b%2A~"
    );
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded; charset=utf-8");
    assert_eq!(request.headers["content-length"], request.body.len().to_string());
    assert_eq!(request.headers["x-amz-security-token"], TOKEN);
    let agent = &request.headers["user-agent"];
    assert!(
        agent.starts_with(concat!("amistore/", env!("CARGO_PKG_VERSION"), " aws-sdk-rust/"))
            && agent.contains(" api/ec2"),
        "{agent}"
    );

    let given = &request.headers["authorization"];
    let signed = given
        .split_once("SignedHeaders=")
        .and_then(|(_, rest)| rest.split_once(','))
        .expect("signed headers")
        .0;
    for name in ["content-type", "host", "x-amz-date", "x-amz-security-token"] {
        assert!(signed.split(';').any(|signed| signed == name), "{signed}");
    }
    assert_eq!(*given, authorization(request, signed, "eu-central-1"));
}

#[tokio::test]
async fn a_failed_request_is_not_retried_by_the_client() {
    for (status, answer) in [
        (
            503,
            "<Response><Errors><Error><Code>RequestLimitExceeded</Code></Error></Errors></Response>",
        ),
        (500, ""),
        (200, "not XML"),
        (
            400,
            "<Response><Errors><Error><Code>InvalidAMIID.NotFound</Code><Message>It is \
             gone</Message></Error></Errors><RequestID>1</RequestID></Response>",
        ),
    ] {
        let server = Server::start(status, answer).await;
        let error = server.client().call("DescribeImages", Params::new()).await.expect_err(answer);
        assert_eq!(server.received().len(), 1, "{error:?}");
        if status == 400 {
            let error = error.as_service_error().expect("the service answered");
            assert_eq!(
                (error.to_string().as_str(), error.request_id()),
                ("It is gone (InvalidAMIID.NotFound)", Some("1"))
            );
        }
    }
}
