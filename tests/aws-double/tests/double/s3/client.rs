//! Clients of the server under test: the client of AWS, and a socket.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use amistore_aws_double::s3::TestS3;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use tokio::runtime::Runtime;

/// The client of AWS, and its runtime.
pub struct Client {
    pub sdk: aws_sdk_s3::Client,
    runtime: Runtime,
}

/// How an operation failed: status (0 without an answer) and code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub u16, pub String);

pub fn failure(status: u16, code: &str) -> Failure {
    Failure(status, code.to_owned())
}

impl Client {
    /// A client without retries and without default checksums.
    pub fn new(server: &TestS3) -> Self {
        Self::with(server, |config| config)
    }

    pub fn with(
        server: &TestS3,
        change: impl FnOnce(aws_sdk_s3::config::Builder) -> aws_sdk_s3::config::Builder,
    ) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(TestS3::REGION))
            .endpoint_url(server.endpoint())
            .credentials_provider(Credentials::new(
                TestS3::ACCESS_KEY,
                TestS3::SECRET_KEY,
                None,
                None,
                "test",
            ))
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .retry_config(RetryConfig::disabled());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        Self { sdk: aws_sdk_s3::Client::from_conf(change(config).build()), runtime }
    }

    /// Waits for an operation.
    pub fn run<T, E, R>(
        &self,
        operation: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: HasStatus + std::fmt::Debug,
    {
        self.runtime.block_on(operation).map_err(|error| {
            let status = error.raw_response().map_or(0, HasStatus::status);
            let code =
                error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default();
            Failure(status, code.to_owned())
        })
    }

    /// Waits for any other future.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        self.run(self.sdk.put_object().bucket(bucket).key(key).body(body(bytes)).send())
            .expect("puts");
    }

    /// The bytes of an object; none if the body broke off or its checksum does not match.
    pub fn get(&self, bucket: &str, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let answer = self.run(self.sdk.get_object().bucket(bucket).key(key).send())?;
        Ok(self.wait(answer.body.collect()).ok().map(|bytes| bytes.to_vec()))
    }
}

/// Status and code of an answer.
pub trait HasStatus {
    fn status(&self) -> u16;
}

impl HasStatus for aws_sdk_s3::config::http::HttpResponse {
    fn status(&self) -> u16 {
        self.status().as_u16()
    }
}

pub fn body(bytes: &[u8]) -> ByteStream {
    ByteStream::from(bytes.to_vec())
}

/// Sends an unsigned request, and returns the whole answer.
pub fn raw(
    server: &TestS3,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<String> {
    let address = server.endpoint().replace("http://", "");
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").expect("a string");
    }
    request += "\r\n";
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("an option");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
