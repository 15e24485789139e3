//! Long forms: slow clients without a key, and callers with one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use amistore::internals::base::Clock;
use amistore::internals::server::{HttpSettings, Limits};

use super::super::caller::{Bench, Reply, Signer, keys, parse, read, refused, request};

const TASKS: &str = "Action=DescribeStoreImageTasks&Version=2016-11-15";

/// An endpoint with keys that waits long for bodies. Its clock stands still.
fn bench() -> Bench {
    let limits = Limits { body_timeout: Duration::from_secs(600), ..Limits::default() };
    let now = std::time::SystemTime::now();
    let clock = Clock::new(move || now);
    Bench::with(HttpSettings { keys: Some(keys()), limits, clock, ..HttpSettings::default() })
}

/// A form of 100 KiB. Its action is unknown: the refusal shows that the server read it.
fn long_form() -> String {
    format!("Action=Unknown&Version=2016-11-15&Text={}", "a".repeat(100 << 10))
}

fn is_read(reply: &Reply) {
    assert_eq!(reply.refusal(), refused(400, "InvalidAction"));
}

/// The head of a signed form on a connection that stays open, without the empty line at its end.
fn head(bench: &Bench, signer: &Signer, form: &str, length: &str) -> String {
    let address = bench.server.address();
    let headers: String = signer
        .headers(address, "/", form)
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("POST / HTTP/1.1\r\nhost: {address}\r\n{headers}{length}")
}

/// Begins a form on a connection, and returns when the server reads the body.
fn begin(stream: &mut TcpStream, head: &str) {
    let head = head.replacen("\r\n", "\r\nexpect: 100-continue\r\n", 1);
    stream.write_all(format!("{head}\r\n").as_bytes()).expect("writes");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Forms of clients with a key of which the server does not know: half of them state a length, half
/// are chunked. None of them sends its body.
fn strangers(bench: &Bench, count: usize) -> Vec<TcpStream> {
    let signer = Signer { key: "AKIAUNKNOWN", ..Signer::default() };
    (0..count)
        .map(|number| {
            let length = if number % 2 == 0 {
                "content-length: 100000\r\n"
            } else {
                "transfer-encoding: chunked\r\n"
            };
            let mut stream = bench.connect();
            begin(&mut stream, &head(bench, &signer, TASKS, length));
            stream
        })
        .collect()
}

/// The answer on a connection that stays open.
fn answer(stream: &mut TcpStream) -> Reply {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).expect("an answer");
        bytes.extend_from_slice(&piece[..count]);
        let reply = parse(&bytes).filter(|reply| {
            let length = reply.header("content-length").and_then(|length| length.parse().ok());
            length == Some(reply.body.len())
        });
        match reply {
            Some(reply) => return reply,
            None => assert!(count > 0, "{}", String::from_utf8_lossy(&bytes)),
        }
    }
}

fn chunked(form: &str) -> String {
    format!("{:x}\r\n{form}\r\n0\r\n\r\n", form.len())
}

#[test]
fn slow_strangers_do_not_keep_signed_long_and_chunked_forms_out() {
    let bench = bench();
    let mut slow = strangers(&bench, 40);
    let (signer, form) = (Signer::default(), long_form());
    is_read(&signer.call(&bench, &form));
    let length = "transfer-encoding: chunked\r\nconnection: close\r\n";
    let sent = head(
        &bench,
        &Signer { time: signer.time + Duration::from_secs(1), ..signer.clone() },
        &form,
        length,
    );
    let mut stream = bench.connect();
    stream.write_all(format!("{sent}\r\n{}", chunked(&form)).as_bytes()).expect("writes");
    is_read(&read(&mut stream));
    // The oldest had to go, and are told to try again; the newest is still waited for.
    assert_eq!(answer(&mut slow[0]).refusal(), refused(503, "RequestLimitExceeded"));
    let newest = slow.last_mut().expect("a connection");
    newest.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    assert!(newest.read(&mut [0]).is_err(), "it has no answer");
}

#[test]
fn no_number_of_strangers_ends_a_slow_form_of_a_caller_that_proved_a_key() {
    let bench = bench();
    let form = long_form();
    let length = format!("content-length: {}\r\n", form.len());
    let at = |seconds| Signer {
        time: Signer::default().time + Duration::from_secs(seconds),
        ..Signer::default()
    };
    // One proved it by a request before, on the same connection.
    let mut known = bench.connect();
    let first = head(&bench, &at(0), TASKS, &format!("content-length: {}\r\n", TASKS.len()));
    known.write_all(format!("{first}\r\n{TASKS}").as_bytes()).expect("writes");
    assert_eq!(answer(&mut known).status, 200);
    begin(&mut known, &head(&bench, &at(1), &form, &length));
    // The other one states the SHA-256 of the body, so that its head is proof enough.
    let mut stated = bench.connect();
    let signer = Signer { states_hash: true, ..at(2) };
    begin(&mut stated, &head(&bench, &signer, &form, &length));
    // A third one proves nothing before its body is there.
    let mut unproved = bench.connect();
    begin(&mut unproved, &head(&bench, &at(3), &form, &length));
    let _slow = strangers(&bench, 40);
    assert_eq!(answer(&mut unproved).refusal(), refused(503, "RequestLimitExceeded"));
    for stream in [&mut known, &mut stated] {
        stream.write_all(form.as_bytes()).expect("writes");
        is_read(&answer(stream));
    }
}

#[test]
fn a_long_form_whose_head_is_wrong_is_refused_before_its_body_is_read() {
    let bench = bench();
    let address = bench.server.address();
    let stated = Signer { states_hash: true, ..Signer::default() };
    let old = Duration::from_secs(1000);
    for (signer, expected) in [
        (Signer { secret: "other", ..stated.clone() }, refused(401, "AuthFailure")),
        (Signer { key: "AKIAUNKNOWN", ..stated.clone() }, refused(401, "AuthFailure")),
        (Signer { time: stated.time - old, ..stated.clone() }, refused(400, "RequestExpired")),
        (Signer { region: "eu-west-1", ..Signer::default() }, refused(401, "AuthFailure")),
    ] {
        let mut headers = signer.headers(address, "/", &long_form());
        headers.push(("content-length".to_owned(), long_form().len().to_string()));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut stream = bench.connect();
        stream.write_all(&request(address, "POST", "/", &headers, "")).expect("writes");
        assert_eq!(read(&mut stream).refusal(), expected);
    }
    // A stated hash is no permission to send another body.
    let mut headers = stated.headers(address, "/", TASKS);
    headers.push(("content-length".to_owned(), "4".to_owned()));
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(bench.post(&headers, "a=b&").refusal(), refused(400, "XAmzContentSHA256Mismatch"));
    assert_eq!(stated.call(&bench, TASKS).status, 200);
}
