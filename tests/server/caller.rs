//! A client over a bare socket: it sends exactly what a test says, signed by the library of AWS if
//! the test wants that.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use amistore::internals::aws::ec2_query::{ServiceError, answer};
use amistore::internals::base::Clock;
use amistore::internals::server::{AccessKeys, HttpServer, HttpSettings};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use serde_json::Value;

use super::memory::Memory;

pub const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// A server that answers at all answers in this time, whatever else the machine does.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
pub const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// An endpoint with a service in memory.
pub struct Bench {
    pub server: HttpServer,
    pub memory: Arc<Memory>,
}

impl Bench {
    pub fn start() -> Self {
        Self::with(HttpSettings::default())
    }

    /// An endpoint that requires signatures. Its clock stands still: no test is too slow for it.
    pub fn signed() -> Self {
        let now = SystemTime::now();
        let clock = Clock::new(move || now);
        Self::with(HttpSettings { keys: Some(keys()), clock, ..HttpSettings::default() })
    }

    pub fn with(settings: HttpSettings) -> Self {
        let memory = Arc::new(Memory::with_clock(settings.clock.clone()));
        Self { server: HttpServer::start(settings, memory.clone()).expect("starts"), memory }
    }

    pub fn call(&self, form: &str) -> Reply {
        self.post(&[("content-type", FORM)], form)
    }

    pub fn post(&self, headers: &[(&str, &str)], body: &str) -> Reply {
        send(self.server.address(), &request(self.server.address(), "POST", "/", headers, body))
    }

    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        send(self.server.address(), &request(self.server.address(), "GET", path, headers, ""))
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address()).expect("connects");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
        stream
    }
}

pub fn keys() -> AccessKeys {
    AccessKeys::parse(&format!(
        "[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    ))
    .expect("keys")
}

/// How a request is signed.
#[derive(Clone)]
pub struct Signer {
    pub key: &'static str,
    pub secret: &'static str,
    pub region: &'static str,
    pub service: &'static str,
    pub time: SystemTime,
    /// The text of the header `Date`, which is signed instead of `x-amz-date`.
    pub date: Option<String>,
    /// Whether the head states the SHA-256 of the body.
    pub states_hash: bool,
}

impl Default for Signer {
    fn default() -> Self {
        Self {
            key: KEY,
            secret: SECRET,
            region: "us-east-1",
            service: "ec2",
            time: SystemTime::now(),
            date: None,
            states_hash: false,
        }
    }
}

impl Signer {
    /// The headers of a signed form, content type included.
    pub fn headers(&self, address: SocketAddr, path: &str, body: &str) -> Vec<(String, String)> {
        let credentials = Credentials::new(self.key, self.secret, None, None, "test").into();
        let parameters = v4::SigningParams::builder()
            .identity(&credentials)
            .region(self.region)
            .name(self.service)
            .time(self.time);
        let mut settings = SigningSettings::default();
        if self.states_hash {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let (host, url) = (address.to_string(), format!("http://{address}{path}"));
        let mut headers = vec![("content-type", FORM), ("host", host.as_str())];
        if let Some(date) = &self.date {
            headers.push(("date", date));
            settings.excluded_headers = Some(vec!["x-amz-date".into()]);
        }
        let parameters = parameters.settings(settings).build().expect("complete");
        let request = SignableRequest::new(
            "POST",
            &url,
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        )
        .expect("a request");
        let (signed, _) = sign(request, &parameters.into()).expect("signs").into_parts();
        let signed = signed.into_parts().0;
        let mut all = vec![("content-type".to_owned(), FORM.to_owned())];
        all.extend(
            signed.iter().map(|header| (header.name().to_owned(), header.value().to_owned())),
        );
        if let Some(date) = &self.date {
            all.retain(|(name, _)| name != "x-amz-date");
            all.push(("date".to_owned(), date.clone()));
        }
        all
    }

    /// Signs a form and sends it.
    pub fn call(&self, bench: &Bench, form: &str) -> Reply {
        let headers = self.headers(bench.server.address(), "/", form);
        bench.post(&borrowed(&headers), form)
    }
}

pub fn borrowed(headers: &[(String, String)]) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A reply of the server.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Status and code of a refusal.
    pub fn refusal(&self) -> (u16, String) {
        let error = ServiceError::read(self.status, self.body.as_bytes());
        assert_eq!(error.request_id.as_deref(), self.header("x-amzn-requestid"), "{self:?}");
        (self.status, error.code)
    }

    pub fn value(&self, action: &str) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        answer(action, self.body.as_bytes()).expect("an answer")
    }
}

pub fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        write!(head, "host: {address}\r\n").expect("a string");
    }
    if !headers.iter().any(|(name, _)| *name == "content-length") {
        write!(head, "content-length: {}\r\n", body.len()).expect("a string");
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a string");
    }
    format!("{head}\r\n{body}").into_bytes()
}

pub fn send(address: SocketAddr, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
    // A server that refuses early does not read the rest.
    let _ = stream.write_all(request);
    read(&mut stream)
}

/// Reads until the connection ends.
pub fn read(stream: &mut impl Read) -> Reply {
    let mut bytes = Vec::new();
    // A connection may be reset behind an answer to a request that was not read to its end.
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes).unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&bytes)))
}

pub fn parse(bytes: &[u8]) -> Option<Reply> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut reply = Reply { status, headers, body: body.to_owned() };
    if reply.header("transfer-encoding") == Some("chunked") {
        reply.body = dechunked(body)?;
    }
    Some(reply)
}

fn dechunked(body: &str) -> Option<String> {
    let (mut text, mut rest) = (String::new(), body);
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(text);
        }
        text.push_str(after.get(..length)?);
        rest = after.get(length + 2..)?;
    }
}
