//! Authentication.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use amistore::internals::base::{Clock, ErrorKind};
use amistore::internals::server::{AccessKeys, HttpServer, HttpSettings, Refusal, TlsFiles};

use super::super::caller::{
    Bench, FORM, KEY, SECRET, Signer, borrowed, keys, refused, request, send,
};
use super::super::memory::{Heard, Memory, lock};
use crate::support::tools::has;

const TASKS: &str = "Action=DescribeStoreImageTasks&Version=2016-11-15";
const STORE: &str =
    "Action=CreateStoreImageTask&Version=2016-11-15&ImageId=ami-0abcdef1234567890&Bucket=my-bucket";

#[test]
fn a_signature_of_the_library_of_aws_is_right() {
    let bench = Bench::signed();
    let signer = Signer::default();
    assert_eq!(signer.call(&bench, TASKS).status, 200);
    // Queries, escapes and spaces, in the order and form that signatures have.
    for path in ["/?b=2&a=1", "/?a=%2f%20x&a=1", "/?x"] {
        let headers = signer.headers(bench.server.address(), path, TASKS);
        let sent = request(bench.server.address(), "POST", path, &borrowed(&headers), TASKS);
        assert_eq!(send(bench.server.address(), &sent).status, 200, "{path}");
    }
}

#[test]
fn every_wrong_signature_is_refused() {
    let bench = Bench::signed();
    let good = Signer::default;
    let now = SystemTime::now();
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    for (signer, expected) in [
        (Signer { key: "AKIAUNKNOWN", ..good() }, refused(401, "AuthFailure")),
        (Signer { secret: "other", ..good() }, refused(401, "AuthFailure")),
        (Signer { secret: "", ..good() }, refused(401, "AuthFailure")),
        (Signer { region: "eu-west-1", ..good() }, refused(401, "AuthFailure")),
        (Signer { service: "s3", ..good() }, refused(403, "SignatureDoesNotMatch")),
        (Signer { time: now - minutes(16), ..good() }, refused(400, "RequestExpired")),
        (Signer { time: now + minutes(16), ..good() }, refused(400, "RequestExpired")),
    ] {
        assert_eq!(signer.call(&bench, TASKS).refusal(), expected);
    }
    assert_eq!(Signer { time: now - minutes(14), ..good() }.call(&bench, TASKS).status, 200);
    assert_eq!(lock(&bench.memory.heard).len(), 1);
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let bench = Bench::signed();
    let address = bench.server.address();
    let headers = Signer::default().headers(address, "/", TASKS);
    let changed = |name: &str, change: &dyn Fn(&str) -> String| {
        let headers: Vec<(String, String)> = headers
            .iter()
            .map(|(known, value)| {
                (known.clone(), if known == name { change(value) } else { value.clone() })
            })
            .collect();
        bench.post(&borrowed(&headers), TASKS)
    };
    for body in [&TASKS[..TASKS.len() - 1], "", &format!("{TASKS}&MaxResults=1")] {
        assert_eq!(
            bench.post(&borrowed(&headers), body).refusal(),
            refused(401, "AuthFailure"),
            "{body}"
        );
    }
    let sent = request(address, "POST", "/?a=b", &borrowed(&headers), TASKS);
    assert_eq!(send(address, &sent).refusal(), refused(401, "AuthFailure"));
    assert_eq!(
        changed("content-type", &|_| "application/x-www-form-urlencoded".into()).refusal(),
        refused(401, "AuthFailure")
    );
    assert_eq!(
        changed("x-amz-date", &|_| "yesterday".into()).refusal(),
        refused(400, "IncompleteSignature")
    );
    for (from, to) in [
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA512 "),
        ("SignedHeaders=content-type;host;", "SignedHeaders=content-type;"),
        ("Signature=", "Signature=0"),
        ("Signature=", "Signature"),
        ("Signature=", "Other="),
        ("/aws4_request", "/aws4"),
        ("/ec2/", "/"),
        (";x-amz-date", ""),
        ("host;x-amz-date", "x-amz-date;host"),
    ] {
        let reply = changed("authorization", &|value| {
            assert!(value.contains(from), "{value}");
            value.replacen(from, to, 1)
        });
        assert_eq!(reply.refusal(), refused(400, "IncompleteSignature"), "{from}");
    }
    // The content type was signed, and the signature is another one without it.
    let without = |value: &str| value.replacen("SignedHeaders=content-type;", "SignedHeaders=", 1);
    assert_eq!(changed("authorization", &without).refusal(), refused(401, "AuthFailure"));
    // A header that is not signed.
    let more = [borrowed(&headers), vec![("x-amz-more", "1")]].concat();
    assert_eq!(bench.post(&more, TASKS).refusal(), refused(400, "IncompleteSignature"));
    let more = [borrowed(&headers), vec![("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]].concat();
    assert_eq!(bench.post(&more, TASKS).refusal(), refused(400, "IncompleteSignature"));
    assert_eq!(lock(&bench.memory.heard).len(), 0);
    assert_eq!(bench.post(&borrowed(&headers), TASKS).status, 200);
}

#[test]
fn the_header_date_of_either_form_stands_for_x_amz_date() {
    let bench = Bench::signed();
    // 2025-10-08T01:31:45Z
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_759_887_105);
    let dated = |date: &str| Signer { time, date: Some(date.to_owned()), ..Signer::default() };
    let then = Bench::with(HttpSettings {
        keys: Some(keys()),
        clock: Clock::new(move || time),
        ..HttpSettings::default()
    });
    for date in ["Wed, 08 Oct 2025 01:31:45 GMT", "20251008T013145Z"] {
        let signer = dated(date);
        assert_eq!(signer.call(&then, TASKS).status, 200, "{date}");
        assert_eq!(signer.call(&bench, TASKS).refusal(), refused(400, "RequestExpired"), "{date}");
    }
    // The signature is that of the time which the header says.
    let other = dated("Wed, 08 Oct 2025 01:31:46 GMT");
    assert_eq!(other.call(&then, TASKS).refusal(), refused(401, "AuthFailure"));
    for date in ["Tue, 08 Oct 2025 01:31:45 GMT", "yesterday", "Thu, 09 Oct 2025 01:31:45 GMT"] {
        let reply = dated(date).call(&then, TASKS).refusal();
        assert_eq!(reply, refused(400, "IncompleteSignature"), "{date}");
    }
    // Date counts only without x-amz-date, and both only once.
    let headers = dated("Wed, 08 Oct 2025 01:31:45 GMT").headers(then.server.address(), "/", TASKS);
    for more in [("x-amz-date", "20251008T013145Z"), ("date", "Wed, 08 Oct 2025 01:31:45 GMT")] {
        let sent = [borrowed(&headers), vec![more]].concat();
        let reply = then.post(&sent, TASKS).refusal();
        assert_eq!(reply, refused(400, "IncompleteSignature"), "{more:?}");
    }
    let unsigned = |(name, value): &(String, String)| {
        (
            name.clone(),
            value.replacen("SignedHeaders=content-type;date;", "SignedHeaders=content-type;", 1),
        )
    };
    let headers: Vec<(String, String)> = headers.iter().map(unsigned).collect();
    let reply = then.post(&borrowed(&headers), TASKS).refusal();
    assert_eq!(reply, refused(400, "IncompleteSignature"));
}

#[test]
fn curl_signs_host_and_date_alone_and_is_let_in() {
    if !has("curl") {
        return;
    }
    let bench = Bench::signed();
    let curl = |user: &str, more: &[&str]| {
        let ran = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--aws-sigv4", "aws:amz:us-east-1:ec2", "--user", user])
            .args(["-d", TASKS, "-w", "%{http_code}", &format!("{}/", bench.server.url())])
            .args(more)
            .output()
            .expect("curl is there");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let right = format!("{KEY}:{SECRET}");
    let answer = curl(&right, &[]);
    assert!(answer.ends_with("200") && answer.contains("storeImageTaskResultSet"), "{answer}");
    let answer = curl(&right, &["-H", &format!("content-type: {FORM}")]);
    assert!(answer.ends_with("200"), "{answer}");
    let answer = curl(&format!("{KEY}:other"), &[]);
    assert!(answer.ends_with("401") && answer.contains("AuthFailure"), "{answer}");
}

#[test]
fn a_request_without_a_signature_is_refused() {
    let bench = Bench::signed();
    assert_eq!(bench.call(TASKS).refusal(), refused(403, "MissingAuthenticationToken"));
    let sent = request(
        bench.server.address(),
        "POST",
        "/?X-Amz-Signature=00&X-Amz-Credential=x",
        &[("content-type", FORM)],
        TASKS,
    );
    assert_eq!(send(bench.server.address(), &sent).refusal(), refused(403, "AuthFailure"));
    assert_eq!(
        bench.get("/?Action=DescribeStoreImageTasks&X-Amz-Signature=00", &[]).refusal(),
        refused(405, "InvalidHttpMethod")
    );
}

/// Signatures were used a minute ago.
fn make_older(bench: &Bench) {
    lock(&bench.memory.used).values_mut().for_each(|used| *used -= Duration::from_secs(60));
}

#[test]
fn a_change_is_made_once_and_a_question_is_answered_again() {
    let bench = Bench::signed();
    let signer = Signer::default();
    for _ in 0..2 {
        assert_eq!(signer.call(&bench, TASKS).status, 200);
    }
    assert_eq!(signer.call(&bench, STORE).status, 200);
    // Its client, most likely, which has not heard the answer: it is to wait and to sign anew.
    assert_eq!(signer.call(&bench, STORE).refusal(), refused(503, "RequestLimitExceeded"));
    assert_eq!(
        Signer { time: signer.time + Duration::from_secs(1), ..signer.clone() }
            .call(&bench, STORE)
            .status,
        200
    );
    make_older(&bench);
    assert_eq!(signer.call(&bench, STORE).refusal(), refused(401, "AuthFailure"));
    let changes =
        lock(&bench.memory.heard).iter().filter(|heard| matches!(heard, Heard::Store(..))).count();
    assert_eq!(changes, 2);
}

#[test]
fn a_change_that_one_server_made_is_not_made_by_another() {
    let bench = Bench::signed();
    let signer = Signer::default();
    let address = bench.server.address();
    assert_eq!(signer.call(&bench, STORE).status, 200);
    // The next one is what comes after a restart: it has nothing but what is behind it.
    let settings = HttpSettings { keys: Some(keys()), listen: address, ..HttpSettings::default() };
    let Bench { server, memory } = bench;
    server.stop();
    let server = HttpServer::start(settings, memory.clone()).expect("starts");
    let bench = Bench { server, memory };
    make_older(&bench);
    assert_eq!(signer.call(&bench, STORE).refusal(), refused(401, "AuthFailure"));
    assert_eq!(signer.call(&bench, TASKS).status, 200);
}

#[test]
fn a_request_that_failed_in_the_server_may_be_repeated() {
    let bench = Bench::signed();
    let signer = Signer::default();
    *lock(&bench.memory.refusal) = Some(Refusal::busy("later"));
    assert_eq!(signer.call(&bench, STORE).refusal(), refused(503, "RequestLimitExceeded"));
    *lock(&bench.memory.refusal) = None;
    assert_eq!(signer.call(&bench, STORE).status, 200);
}

#[test]
fn without_keys_only_programs_of_this_machine_get_in() {
    let bench = Bench::start();
    for host in ["evil.example", "evil.example:80", "10.0.0.1"] {
        assert_eq!(
            bench.post(&[("host", host), ("content-type", FORM)], TASKS).refusal(),
            refused(403, "InvalidHost"),
            "{host}"
        );
        assert_eq!(
            bench.get("/tasks.json", &[("host", host)]).refusal(),
            refused(403, "InvalidHost"),
            "{host}"
        );
    }
    for header in
        [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        assert_eq!(
            bench.post(&[header, ("content-type", FORM)], STORE).refusal(),
            refused(403, "UnauthorizedOperation"),
            "{header:?}"
        );
    }
    assert_eq!(
        bench.post(&[("content-type", "text/plain")], STORE).refusal(),
        refused(400, "UnsupportedProtocol")
    );
    assert_eq!(lock(&bench.memory.heard).len(), 0);
    assert_eq!(bench.post(&[("host", "localhost:1"), ("content-type", FORM)], TASKS).status, 200);
}

#[test]
fn an_address_that_others_reach_takes_keys_and_tls() {
    let tls = TlsFiles { certificate: "cert.pem".into(), key: "key.pem".into() };
    let open = HttpSettings {
        listen: "0.0.0.0:0".parse().expect("an address"),
        ..HttpSettings::default()
    };
    for (settings, missing) in [
        (open.clone(), "--access-keys, --tls-cert and --tls-key"),
        (HttpSettings { keys: Some(keys()), ..open.clone() }, "--tls-cert and --tls-key"),
        (HttpSettings { tls: Some(tls), ..open }, "--access-keys"),
    ] {
        let error = HttpServer::start(settings, std::sync::Arc::new(Memory::default()))
            .err()
            .expect("refused");
        assert!(error.kind() == ErrorKind::Usage && error.message().contains(missing), "{error:?}");
    }
}

#[test]
fn a_file_of_keys_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("keys");
    fs::write(&path, format!("[a]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n"))
        .expect("writes");
    for (mode, kind) in [
        (0o644, Some(ErrorKind::Denied)),
        (0o660, Some(ErrorKind::Denied)),
        (0o600, None),
        (0o400, None),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        assert_eq!(AccessKeys::load(&path).err().map(|error| error.kind()), kind, "{mode:o}");
    }
}
