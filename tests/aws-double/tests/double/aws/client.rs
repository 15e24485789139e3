//! A client that signs and sends requests, and returns whole answers.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use amistore_aws_double::aws::{BLOCK, TestAws};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64_simd::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Endpoint and credentials for requests.
#[derive(Clone, Debug)]
pub struct Client {
    pub endpoint: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    pub session_token: Option<String>,
    /// Seconds that the client's clock is ahead.
    pub ahead: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The texts of all elements of this name.
    pub fn all(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        self.text()
            .split(&open)
            .skip(1)
            .map(|rest| rest.split(&close).next().unwrap_or_default().to_owned())
            .collect()
    }

    /// The text of the first element of this name.
    pub fn get(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    /// Status and code of an answer; the code is empty if it is no error. In EBS the reason stands
    /// behind the code.
    pub fn outcome(&self) -> (u16, String) {
        let of_ebs = self
            .header("x-amzn-errortype")
            .map(|kind| kind.split(':').next().unwrap_or_default().to_owned());
        let reason =
            self.json()["Reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
        let code = of_ebs.map(|kind| kind + &reason).or_else(|| self.get("Code"));
        (self.status, code.unwrap_or_default())
    }
}

/// An outcome as tests write it.
pub fn outcome(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

impl Client {
    pub fn new(server: &TestAws) -> Self {
        Self::with_key(server, TestAws::ACCESS_KEY, TestAws::SECRET_KEY)
    }

    pub fn with_key(server: &TestAws, access_key: &str, secret_key: &str) -> Self {
        Self {
            endpoint: server.endpoint(),
            region: server.region(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            session_token: None,
            ahead: 0,
        }
    }

    /// An action of EC2.
    pub fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> Answer {
        self.try_ec2(action, parameters).expect("an answer")
    }

    pub fn try_ec2(&self, action: &str, parameters: &[(&str, &str)]) -> io::Result<Answer> {
        let all = [("Action", action), ("Version", "2016-11-15")]
            .into_iter()
            .chain(parameters.iter().copied());
        let form: Vec<String> =
            all.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let headers =
            [("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
        self.send("ec2", "POST", "/", &headers, form.join("&").as_bytes())
    }

    /// A request of EBS direct.
    pub fn ebs(&self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
        self.send("ebs", method, path, headers, body).expect("an answer")
    }

    pub fn list(&self, snapshot: &str, query: &str) -> Answer {
        self.ebs("GET", &format!("/snapshots/{snapshot}/blocks?{query}"), &[], b"")
    }

    /// Indexes and tokens of all blocks.
    pub fn tokens(&self, snapshot: &str) -> Vec<(u64, String)> {
        let (mut found, mut query) = (Vec::new(), String::new());
        loop {
            let page = self.list(snapshot, &query);
            assert_eq!(page.status, 200, "{}", page.text());
            found.extend(blocks(&page));
            match page.json()["NextToken"].as_str() {
                Some(token) => query = format!("pageToken={}", encoded(token)),
                None => return found,
            }
        }
    }

    pub fn get(&self, snapshot: &str, index: u64, token: &str) -> Answer {
        self.try_get(snapshot, index, token).expect("an answer")
    }

    pub fn try_get(&self, snapshot: &str, index: u64, token: &str) -> io::Result<Answer> {
        let path = format!("/snapshots/{snapshot}/blocks/{index}?blockToken={}", encoded(token));
        self.send("ebs", "GET", &path, &[], b"")
    }

    pub fn start(&self, body: &Value) -> Answer {
        self.ebs(
            "POST",
            "/snapshots",
            &[("content-type", "application/json".to_owned())],
            body.to_string().as_bytes(),
        )
    }

    pub fn put(&self, snapshot: &str, index: u64, block: &[u8]) -> Answer {
        self.put_with(snapshot, index, block, &put_headers(block))
    }

    pub fn put_with(
        &self,
        snapshot: &str,
        index: u64,
        block: &[u8],
        headers: &[(&str, String)],
    ) -> Answer {
        self.ebs("PUT", &format!("/snapshots/{snapshot}/blocks/{index}"), headers, block)
    }

    pub fn complete(&self, snapshot: &str, count: u64, checksum: Option<&str>) -> Answer {
        let mut headers = vec![("x-amz-changedblockscount", count.to_string())];
        if let Some(checksum) = checksum {
            headers.push(("x-amz-checksum", checksum.to_owned()));
            headers.push(("x-amz-checksum-algorithm", "SHA256".to_owned()));
            headers.push(("x-amz-checksum-aggregation-method", "LINEAR".to_owned()));
        }
        self.ebs("POST", &format!("/snapshots/completion/{snapshot}"), &headers, b"")
    }

    /// Signs a request and sends it on a connection of its own.
    pub fn send(
        &self,
        service: &str,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let host = self.endpoint.replace("http://", "");
        let credentials = Credentials::new(
            &self.access_key,
            &self.secret_key,
            self.session_token.clone(),
            None,
            "test",
        )
        .into();
        let parameters = v4::SigningParams::builder()
            .identity(&credentials)
            .region(&self.region)
            .name(service)
            .time(SystemTime::now() + Duration::from_secs(self.ahead))
            .settings(SigningSettings::default())
            .build()
            .expect("complete");
        let unsigned = headers
            .iter()
            .any(|(name, value)| *name == "x-amz-content-sha256" && value == "UNSIGNED-PAYLOAD");
        let payload =
            if unsigned { SignableBody::UnsignedPayload } else { SignableBody::Bytes(body) };
        let to_sign = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain([("host", host.as_str())]);
        let url = format!("{}{path}", self.endpoint);
        let request = SignableRequest::new(method, &url, to_sign, payload).expect("a request");
        let (signed, _) = sign(request, &parameters.into()).expect("signs").into_parts();
        let (signing, _) = signed.into_parts();
        let mut all: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        all.extend(
            signing.iter().map(|header| (header.name().to_owned(), header.value().to_owned())),
        );
        send_raw(&host, method, path, &all, body)
    }
}

/// Sends a request without a change.
pub fn send_raw(
    host: &str,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a string");
    }
    head += "\r\n";
    let mut stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::other("the answer is cut"))
}

/// Parses an answer; none if it is incomplete.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let answer = Answer { status, headers, body: bytes[end + 4..].to_vec() };
    let length =
        answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    (answer.body.len() == length).then_some(answer)
}

/// The headers that a put of a block needs.
pub fn put_headers(block: &[u8]) -> Vec<(&'static str, String)> {
    vec![
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD".to_owned()),
        ("x-amz-data-length", block.len().to_string()),
        ("x-amz-checksum", checksum(block)),
        ("x-amz-checksum-algorithm", "SHA256".to_owned()),
    ]
}

pub fn checksum(bytes: &[u8]) -> String {
    BASE64.encode_to_string(Sha256::digest(bytes))
}

/// A block of one repeated byte.
pub fn block(byte: u8) -> Vec<u8> {
    vec![byte; BLOCK]
}

/// Indexes and tokens of a page.
pub fn blocks(page: &Answer) -> Vec<(u64, String)> {
    let page = page.json();
    let blocks = page["Blocks"].as_array().cloned().unwrap_or_default();
    let token = |block: &Value| block["BlockToken"].as_str().unwrap_or_default().to_owned();
    blocks
        .iter()
        .map(|block| (block["BlockIndex"].as_u64().unwrap_or_default(), token(block)))
        .collect()
}

pub fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}
