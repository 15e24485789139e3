//! Slow, greedy and secret clients, and the end of the server.

use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use amistore::internals::base::ErrorKind;
use amistore::internals::server::{HttpServer, HttpSettings, Limits, TlsFiles};

use super::super::caller::{Bench, FORM, parse, read, refused, request};
use super::super::memory::{Memory, lock};
use crate::support::tools::has;
use crate::support::wait::wait_until;

const TASKS: &str = "Action=DescribeStoreImageTasks&Version=2016-11-15";
const STORE: &str = "Action=CreateStoreImageTask&Version=2016-11-15&Bucket=my-bucket&ImageId=";

fn limited(limits: Limits) -> Bench {
    Bench::with(HttpSettings { limits, ..HttpSettings::default() })
}

/// The head of a form, without its length.
fn head() -> String {
    format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: {FORM}\r\n")
}

/// A request that keeps its connection open.
fn request_of(form: &str) -> String {
    format!("{}content-length: {}\r\n\r\n{form}", head(), form.len())
}

fn brief() -> Limits {
    Limits {
        head_timeout: Duration::from_secs(2),
        body_timeout: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// Limits without a timeout for requests: what waits for a slow client waits for ever.
fn patient() -> Limits {
    let long = Duration::from_secs(600);
    Limits { head_timeout: long, body_timeout: long, ..Limits::default() }
}

/// The bytes up to the end of a connection. One that the server does not end fails the test.
fn until_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection stays open");
    }
    bytes
}

#[test]
fn slow_clients_do_not_delay_others() {
    let bench = limited(patient());
    let mut slow: Vec<_> = (0..50).map(|_| bench.connect()).collect();
    for (at, stream) in slow.iter_mut().enumerate() {
        let text = if at % 2 == 0 {
            "POST / HTTP/1.1\r\nhost:"
        } else {
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nAction="
        };
        stream.write_all(text.as_bytes()).expect("writes");
    }
    assert_eq!(bench.call(TASKS).status, 200);
}

#[test]
fn a_request_for_progress_does_not_wait_for_one_that_begins_a_task() {
    let bench = Bench::start();
    bench.memory.hold();
    thread::scope(|scope| {
        let begun: Vec<_> = (0..40)
            .map(|at| {
                scope.spawn({
                    let bench = &bench;
                    move || bench.call(&format!("{STORE}ami-000000{at:02}")).status
                })
            })
            .collect();
        while lock(&bench.memory.heard).is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        let status = bench.call(TASKS).status;
        bench.memory.let_go();
        assert_eq!(status, 200);
        assert!(begun.into_iter().all(|begun| begun.join().expect("no panic") == 200));
    });
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let bench = limited(brief());
    let mut stream = bench.connect();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: loc").expect("writes");
    // With or without an answer.
    until_end(&mut stream);
}

#[test]
fn a_connection_on_which_nothing_comes_ends() {
    let bench = limited(brief());
    let (mut silent, mut idle) = (bench.connect(), bench.connect());
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("writes");
    let answered = until_end(&mut idle);
    assert!(answered.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answered));
    until_end(&mut silent);
}

#[test]
fn a_client_that_does_not_take_its_answer_is_let_go() {
    let bench = limited(Limits { write_timeout: Duration::from_millis(300), ..Limits::default() });
    lock(&bench.memory.tasks).extend(
        (0..1000).map(|at| super::super::memory::task(&format!("ami-{at:08}"), "Failed", at)),
    );
    let mut greedy = bench.connect();
    let request = request_of(TASKS);
    // More than sockets of both sides hold, unless they are read.
    greedy.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let _ = greedy.write_all(request.repeat(200).as_bytes());
    // The one that asks is the only one then.
    wait_until("it to be let go", || {
        bench.get("/metrics", &[]).body.contains("\namistore_http_connections 1\n")
    });
}

#[test]
fn a_long_answer_is_not_cut_off_for_a_newcomer() {
    let bench = limited(Limits { max_connections: 1, ..Limits::default() });
    lock(&bench.memory.tasks).extend(
        (0..1000).map(|at| super::super::memory::task(&format!("ami-{at:08}"), "Failed", at)),
    );
    let mut asking = bench.connect();
    let many: Vec<_> = (0..60).map(|_| request_of(TASKS)).collect();
    // More than sockets of both sides hold, one answer after the other.
    asking.write_all(many.concat().as_bytes()).expect("writes");
    let answered = || lock(&bench.memory.heard).len();
    wait_until("the server to wait for its client", || {
        let before = answered();
        thread::sleep(Duration::from_millis(500));
        before > 0 && before == answered()
    });
    assert!(answered() < many.len(), "sockets hold more than was asked for");
    assert_eq!(read(&mut bench.connect()).status, 503, "the first client is still being answered");
    let mut text = vec![0; 10 << 20];
    asking.read_exact(&mut text).expect("all of it");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let bench = limited(brief());
    let mut stream = bench.connect();
    let part = format!("{}content-length: 100\r\n\r\nAction=", head());
    stream.write_all(part.as_bytes()).expect("writes");
    assert_eq!(read(&mut stream).refusal(), refused(408, "RequestTimeout"));
}

#[test]
fn what_is_too_large_is_refused() {
    let bench = Bench::start();
    assert_eq!(
        bench.post(&[("content-type", FORM), ("content-length", "1048577")], "").refusal(),
        refused(413, "RequestEntityTooLarge")
    );
    let endless = format!("{}\r\n{}\r\n", "100001", "a".repeat(0x10_0001));
    let mut stream = bench.connect();
    let text = format!("{}transfer-encoding: chunked\r\n\r\n{endless}", head());
    let _ = stream.write_all(text.as_bytes());
    assert_eq!(read(&mut stream).refusal(), refused(413, "RequestEntityTooLarge"));
    let many: String = (0..10_001).map(|at| format!("a{at}&")).collect();
    assert_eq!(bench.call(&many).refusal(), refused(400, "MalformedQueryString"));
    let names: Vec<String> = (0..100).map(|at| format!("x-{at}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(bench.post(&headers, TASKS).status, 431);
    assert_eq!(bench.post(&[("x-long", &"x".repeat(64 << 10))], TASKS).status, 431);
    assert_eq!(bench.call(TASKS).status, 200);
}

#[test]
fn there_are_so_many_connections_and_not_more() {
    let bench = limited(Limits { max_connections: 3, ..Limits::default() });
    bench.memory.hold();
    let mut asking: Vec<_> = (0..3).map(|_| bench.connect()).collect();
    for stream in &mut asking {
        let sent = request(
            bench.server.address(),
            "POST",
            "/",
            &[("content-type", FORM)],
            &format!("{STORE}ami-01234567"),
        );
        stream.write_all(&sent).expect("writes");
    }
    wait_until("three to be answered", || lock(&bench.memory.heard).len() == 3);
    let rejected = read(&mut bench.connect());
    assert_eq!((rejected.status, rejected.header("retry-after")), (503, Some("1")));
    assert!(rejected.body.contains("RequestLimitExceeded"));
    bench.memory.let_go();
    assert!(asking.iter_mut().all(|stream| read(stream).status == 200));
    assert_eq!(bench.get("/healthz", &[]).status, 200);
}

#[test]
fn a_client_that_only_opens_connections_keeps_no_other_out() {
    let limits = Limits {
        max_connections: 4,
        head_timeout: Duration::from_secs(600),
        body_timeout: Duration::from_secs(600),
        ..Limits::default()
    };
    let bench = limited(limits);
    let begin = |text: &str| {
        let mut stream = bench.connect();
        stream.write_all(text.as_bytes()).expect("writes");
        stream
    };
    let silent: Vec<_> = [
        "",
        "POST / HTTP/1.1\r\nhost:",
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nAction=",
    ]
    .iter()
    .cycle()
    .take(40)
    .map(|text| begin(text))
    .collect();
    // While they connect, each of them evicts another connection, perhaps the one of this test.
    wait_until("all of them to have come", || {
        let mut stream = bench.connect();
        // An evicted connection takes no request.
        let _ = stream.write_all(&request(bench.server.address(), "GET", "/metrics", &[], ""));
        let bytes = until_end(&mut stream);
        let metrics = parse(&bytes).map(|reply| reply.body).unwrap_or_default();
        let evicted = metrics
            .lines()
            .find_map(|line| line.strip_prefix("amistore_http_connections_evicted_total "));
        evicted.is_some_and(|count| count.parse::<u64>().expect("a number") >= 36)
    });
    for _ in 0..10 {
        assert_eq!((bench.call(TASKS).status, bench.get("/healthz", &[]).status), (200, 200));
    }
    // Those that came first were the first to leave.
    let mut first = &silent[0];
    let mut bytes = [0; 1];
    assert!(matches!(first.read(&mut bytes), Ok(0) | Err(_)));
}

#[test]
fn a_request_under_way_is_finished_when_the_server_stops() {
    let bench = Bench::start();
    bench.memory.hold();
    let mut stream = bench.connect();
    stream
        .write_all(&request(
            bench.server.address(),
            "POST",
            "/",
            &[("content-type", FORM)],
            &format!("{STORE}ami-01234567"),
        ))
        .expect("writes");
    while lock(&bench.memory.heard).is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    let Bench { server, memory } = bench;
    let address = server.address();
    let stopping = thread::spawn(move || server.stop());
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        thread::sleep(Duration::from_millis(5));
    }
    memory.let_go();
    assert_eq!(read(&mut stream).status, 200);
    stopping.join().expect("it stops");
}

#[test]
fn a_request_that_does_not_end_does_not_keep_the_server() {
    let bench = limited(Limits { drain_timeout: Duration::from_millis(200), ..Limits::default() });
    let mut stream = bench.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n")
        .expect("writes");
    let began = Instant::now();
    bench.server.stop();
    assert!(began.elapsed() < Duration::from_secs(15));
}

/// Certificate and key of `localhost`, and a key of another certificate.
fn certificate(directory: &std::path::Path) -> TlsFiles {
    let make = |name: &str| {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "1",
                "-subj",
                "/CN=localhost",
            ])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .current_dir(directory)
            .output()
            .expect("openssl is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make("ours");
    make("other");
    TlsFiles { certificate: directory.join("ours.pem"), key: directory.join("ours.key") }
}

#[test]
fn tls_is_spoken_and_nothing_else_is() {
    if !has("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let files = certificate(directory.path());
    let bench = Bench::with(HttpSettings { tls: Some(files.clone()), ..HttpSettings::default() });
    assert!(bench.server.url().starts_with("https://127.0.0.1:"), "{}", bench.server.url());
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-CAfile"])
        .arg(&files.certificate)
        .args(["-connect", &bench.server.address().to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl is there");
    let sent = request(bench.server.address(), "POST", "/", &[("content-type", FORM)], TASKS);
    client.stdin.as_mut().expect("a pipe").write_all(&sent).expect("writes");
    let reply = read(client.stdout.as_mut().expect("a pipe"));
    assert_eq!(reply.status, 200);
    client.kill().expect("it ends");
    client.wait().expect("it ends");
    let mut plain = bench.connect();
    plain.write_all(&sent).expect("writes");
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&bytes));
}

#[test]
fn wrong_files_for_tls_are_named() {
    if !has("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let files = certificate(directory.path());
    let other = directory.path().join("other.key");
    let missing = directory.path().join("missing.pem");
    for (certificate, key, kind, word) in [
        (&missing, &files.key, ErrorKind::NotFound, "certificate"),
        (&files.key, &files.key, ErrorKind::Usage, "no certificate"),
        (&files.certificate, &files.certificate, ErrorKind::Usage, "no private key"),
        (&files.certificate, &other, ErrorKind::Usage, "together"),
    ] {
        let tls = Some(TlsFiles { certificate: certificate.clone(), key: key.clone() });
        let error = HttpServer::start(
            HttpSettings { tls, ..HttpSettings::default() },
            std::sync::Arc::new(Memory::default()),
        )
        .err();
        let error = error.expect("refused");
        assert!(error.kind() == kind && error.message().contains(word), "{error:?}");
    }
}
