//! Actions that EC2 answers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use amistore::internals::aws::ec2::Ec2Connection;
use amistore::internals::aws::ec2_query::Params;
use amistore::internals::aws::{
    Access, ConnectionOptions, Credentials, RetryPolicy, Runtime, StaticCredentials,
};
use amistore::internals::base::{Cancel, NullObserver};
use amistore::internals::server::{
    Answered, Answering, HttpSettings, Limits, RestoreProgress, Upstream,
};
use amistore_aws_double::aws::{Fault, FaultKind, Image, Mapping, TestAws};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::caller::{Bench, FORM, Signer, keys, read, refused, request};
use super::super::memory::{RESERVED, lock, restored};
use crate::support::wait::wait_until;

const REAL: &str = "ami-00000000000000bbb";
const OTHER: &str = "ami-00000000000000ccc";
const DESCRIBE: &str = "Action=DescribeImages&Version=2016-11-15";

/// Says one thing, and remembers what it was asked.
pub(super) struct Fake {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) forms: Mutex<Vec<String>>,
}

impl Upstream for Fake {
    fn ask(&self, action: &str, form: Bytes) -> Answering<'_> {
        assert!(String::from_utf8_lossy(&form).contains(&format!("Action={action}")));
        lock(&self.forms).push(String::from_utf8_lossy(&form).into_owned());
        let body = Full::new(Bytes::from(self.body.clone()))
            .map_err(|never| match never {})
            .boxed_unsync();
        let answered = Answered {
            status: self.status,
            content_type: Some("text/xml".into()),
            request_id: Some("of-ec2".into()),
            body,
        };
        Box::pin(async { Ok(answered) })
    }
}

fn forwarding(status: u16, body: &str) -> (Bench, Arc<Fake>) {
    let fake = Arc::new(Fake { status, body: body.to_owned(), forms: Mutex::default() });
    (Bench::with(HttpSettings { upstream: Some(fake.clone()), ..HttpSettings::default() }), fake)
}

/// Answers in pieces, as they come.
struct Piecewise(Mutex<Option<UnboundedReceiver<Bytes>>>);

struct Pieces(UnboundedReceiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Upstream for Piecewise {
    fn ask(&self, _action: &str, _form: Bytes) -> Answering<'_> {
        let body = Pieces(lock(&self.0).take().expect("asked once")).boxed_unsync();
        Box::pin(async {
            Ok(Answered {
                status: 200,
                content_type: Some("text/xml".into()),
                request_id: None,
                body,
            })
        })
    }
}

#[test]
fn a_connection_is_left_alone_until_its_answer_is_sent() {
    let (piece, pieces) = unbounded_channel();
    let upstream = Arc::new(Piecewise(Mutex::new(Some(pieces))));
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let bench =
        Bench::with(HttpSettings { upstream: Some(upstream), limits, ..HttpSettings::default() });
    let mut asking = bench.connect();
    asking
        .write_all(&request(
            bench.server.address(),
            "POST",
            "/",
            &[("content-type", FORM)],
            DESCRIBE,
        ))
        .expect("writes");
    piece.send(Bytes::from_static(b"<begun>")).expect("is read");
    let mut begun = Vec::new();
    while !String::from_utf8_lossy(&begun).contains("<begun>") {
        let mut bytes = [0; 1024];
        let count = asking.read(&mut bytes).expect("a piece");
        assert!(count > 0, "it is cut off");
        begun.extend_from_slice(&bytes[..count]);
    }
    assert_eq!(read(&mut bench.connect()).status, 503);
    piece.send(Bytes::from_static(b"<ended>")).expect("is read");
    drop(piece);
    let mut rest = Vec::new();
    asking.read_to_end(&mut rest).expect("the end");
    assert!(String::from_utf8_lossy(&rest).contains("<ended>") && rest.ends_with(b"0\r\n\r\n"));
    wait_until("its place", || bench.get("/healthz", &[]).status == 200);
}

fn images(inside: &str) -> String {
    format!(
        "<DescribeImagesResponse><requestId>of-ec2</requestId>{inside}</DescribeImagesResponse>"
    )
}

fn ids(value: &Value) -> BTreeSet<String> {
    value["Images"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|image| image["ImageId"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn without_forwarding_other_actions_are_refused() {
    let reply = Bench::start().call("Action=DescribeRegions&Version=2016-11-15");
    assert_eq!(reply.refusal(), refused(400, "InvalidAction"));
    assert!(reply.body.contains("--forward"), "{reply:?}");
    let bench = Bench::start();
    bench.memory.add(restored(RESERVED, None, RestoreProgress::Pending));
    assert_eq!(
        bench.call(&format!("{DESCRIBE}&ImageId.1={RESERVED}&ImageId.2={OTHER}")).refusal(),
        refused(400, "InvalidAction")
    );
    assert_eq!(bench.call(DESCRIBE).refusal(), refused(400, "InvalidAction"));
}

#[test]
fn an_image_that_is_not_there_yet_is_described_here() {
    for bench in [Bench::start(), forwarding(500, "").0] {
        let mut seen = Vec::new();
        for progress in [RestoreProgress::Pending, RestoreProgress::Failed] {
            bench.memory.add(restored(RESERVED, None, progress));
            let value =
                bench.call(&format!("{DESCRIBE}&ImageId.1={RESERVED}")).value("DescribeImages");
            let image = &value["Images"][0];
            assert_eq!(
                (&image["ImageId"], &image["Name"]),
                (&json!(RESERVED), &json!("restored & named"))
            );
            assert_eq!(image["CreationDate"], "2025-10-08T01:31:45.000Z");
            seen.push((image["State"].clone(), image["StateReason"]["Message"].clone()));
        }
        assert_eq!(
            seen,
            [(json!("pending"), Value::Null), (json!("failed"), json!("no such object"))]
        );
        let filtered = |state: &str| {
            format!("{DESCRIBE}&ImageId.1={RESERVED}&Filter.1.Name=state&Filter.1.Value.1={state}")
        };
        assert_eq!(
            bench.call(&filtered("failed")).value("DescribeImages")["Images"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
        assert_eq!(
            bench.call(&filtered("available")).value("DescribeImages"),
            json!({"Images": []})
        );
    }
}

#[test]
fn filters_find_an_image_that_is_not_there_yet() {
    let (bench, fake) = forwarding(200, &images("<imagesSet/>"));
    bench.memory.add(restored(RESERVED, None, RestoreProgress::Pending));
    let filter = |number: u32, name: &str, values: &[&str]| {
        let values: String = values
            .iter()
            .enumerate()
            .map(|(at, value)| format!("&Filter.{number}.Value.{}={value}", at + 1))
            .collect();
        format!("&Filter.{number}.Name={name}{values}")
    };
    let finds = |parameters: &str| {
        !ids(&bench.call(&format!("{DESCRIBE}{parameters}")).value("DescribeImages")).is_empty()
    };
    let by_id = filter(1, "image-id", &[RESERVED]);
    assert!(finds(&by_id) && finds(&format!("{by_id}{}", filter(2, "state", &["pend*", "x"]))));
    assert!(
        finds(&format!("{by_id}&ImageId.1={RESERVED}{}", filter(2, "tag:a", &["b"]))),
        "its tags are not known yet"
    );
    for (name, value) in [
        ("state", "available"),
        ("name", "restored"),
        ("is-public", "true"),
        ("image-type", "kernel"),
    ] {
        assert!(!finds(&format!("{by_id}{}", filter(2, name, &[value]))), "{name}");
        assert!(!finds(&format!("&ImageId.1={RESERVED}{}", filter(2, name, &[value]))), "{name}");
    }
    assert!(!finds(&format!("&ImageId.1={RESERVED}{}", filter(1, "image-id", &[OTHER]))));
    assert!(lock(&fake.forms).is_empty(), "EC2 does not know it");
    // With others beside it EC2 is asked, and not for more than was asked for.
    let both = filter(1, "image-id", &[RESERVED, OTHER]);
    assert!(finds(&both) && !finds(&format!("{by_id}&ImageId.1={OTHER}")));
    assert_eq!(
        *lock(&fake.forms),
        [format!("{DESCRIBE}{both}"), format!("{DESCRIBE}{by_id}&ImageId.1={OTHER}")]
    );
    assert!(!finds(&format!("{by_id}&NextToken=x")), "it was on the first page");
    // Without EC2 it is found as well, and what only EC2 knows is not.
    let alone = Bench::start();
    alone.memory.add(restored(RESERVED, None, RestoreProgress::Pending));
    assert_eq!(
        ids(&alone.call(&format!("{DESCRIBE}{by_id}")).value("DescribeImages")),
        BTreeSet::from([RESERVED.to_owned()])
    );
    assert_eq!(alone.call(&format!("{DESCRIBE}{both}")).refusal(), refused(400, "InvalidAction"));
}

#[test]
fn a_registered_image_is_described_without_ec2_as_well() {
    let bench = Bench::start();
    bench.memory.add(restored(RESERVED, Some(REAL), RestoreProgress::Available));
    let value = bench.call(&format!("{DESCRIBE}&ImageId.1={RESERVED}")).value("DescribeImages");
    assert_eq!(
        (&value["Images"][0]["ImageId"], &value["Images"][0]["State"]),
        (&json!(RESERVED), &json!("available"))
    );
}

#[test]
fn ids_are_translated_there_and_back() {
    let (bench, fake) = forwarding(
        200,
        &images(&format!("<imagesSet><item><imageId>{REAL}</imageId></item></imagesSet>")),
    );
    bench.memory.add(restored(RESERVED, Some(REAL), RestoreProgress::Available));
    let reply = bench.call(&format!("{DESCRIBE}&ImageId.1={RESERVED}"));
    assert_eq!(ids(&reply.value("DescribeImages")), BTreeSet::from([RESERVED.to_owned()]));
    assert_eq!(
        (reply.header("x-amzn-requestid"), reply.header("content-type")),
        (Some("of-ec2"), Some("text/xml"))
    );
    assert_eq!(*lock(&fake.forms), [format!("{DESCRIBE}&ImageId.1={REAL}")]);
    // A request without the reserved id is sent unchanged, and gets EC2's answer.
    let form = format!("Version=2016-11-15&ImageId.1={REAL}&Action=DescribeImages&&x=%7e+");
    assert_eq!(ids(&bench.call(&form).value("DescribeImages")), BTreeSet::from([REAL.to_owned()]));
    assert_eq!(lock(&fake.forms)[1], form);
    bench
        .call(&format!("Action=CreateTags&Version=2016-11-15&ResourceId.1={RESERVED}&Tag.1.Key=x"));
    assert_eq!(
        Params::decode(lock(&fake.forms)[2].as_bytes()).expect("a form").get("ResourceId.1"),
        Some(REAL)
    );
}

#[test]
fn images_of_both_kinds_are_answered_together() {
    for (inside, theirs) in [
        (format!("<imagesSet><item><imageId>{OTHER}</imageId></item></imagesSet>"), vec![OTHER]),
        ("<imagesSet/>".into(), vec![]),
    ] {
        let (bench, fake) = forwarding(200, &images(&inside));
        bench.memory.add(restored(RESERVED, None, RestoreProgress::Pending));
        let value = bench
            .call(&format!("{DESCRIBE}&ImageId.1={RESERVED}&ImageId.2={OTHER}"))
            .value("DescribeImages");
        assert_eq!(
            ids(&value),
            theirs.into_iter().chain([RESERVED]).map(ToOwned::to_owned).collect()
        );
        assert_eq!(*lock(&fake.forms), [format!("{DESCRIBE}&ImageId.1={OTHER}")]);
    }
}

#[test]
fn nothing_is_done_to_an_image_that_is_not_there_yet() {
    let (bench, fake) = forwarding(200, "");
    bench.memory.add(restored(RESERVED, None, RestoreProgress::Failed));
    let reply =
        bench.call(&format!("Action=DeregisterImage&Version=2016-11-15&ImageId={RESERVED}"));
    assert_eq!(reply.refusal(), refused(400, "InvalidAMIID.Unavailable"));
    assert!(reply.body.contains("no such object"), "{reply:?}");
    assert!(lock(&fake.forms).is_empty());
}

fn connection(aws: &TestAws, runtime: &Runtime) -> Ec2Connection {
    let credentials = StaticCredentials {
        access_key_id: TestAws::ACCESS_KEY.to_owned(),
        secret_access_key: TestAws::SECRET_KEY.to_owned(),
        session_token: None,
    };
    let access = Access {
        region: Some(aws.region()),
        endpoint_url: Some(aws.endpoint()),
        credentials: Credentials::Static(credentials),
        ..Access::default()
    };
    let options = ConnectionOptions {
        retry: RetryPolicy::default(),
        idle_timeout: Duration::from_secs(5),
        bandwidth: None,
        observer: Arc::new(NullObserver),
        cancel: Cancel::new(),
    };
    Ec2Connection::open(runtime, access, options).expect("a configuration")
}

#[test]
fn ec2_answers_as_without_the_server_between() {
    let aws = TestAws::start();
    let snapshot = aws.snapshot_of(1, []);
    let image = aws.add_image(Image {
        name: "mine".into(),
        mappings: vec![Mapping::of("/dev/xvda", &snapshot)],
        ..Image::default()
    });
    let upstream: Arc<dyn Upstream> = Arc::new(connection(&aws, &Runtime::new().expect("threads")));
    // Ours are other keys than those of EC2.
    let settings =
        HttpSettings { keys: Some(keys()), upstream: Some(upstream), ..HttpSettings::default() };
    let bench = Bench::with(settings);
    let signer = Signer::default();
    let value =
        signer.call(&bench, &format!("{DESCRIBE}&ImageId.1={image}")).value("DescribeImages");
    assert_eq!(value["Images"][0]["Name"], "mine");
    let reply = signer.call(&bench, &format!("{DESCRIBE}&ImageId.1=ami-0badbadbadbadbad0"));
    assert_eq!(
        (reply.status, reply.body.contains("InvalidAMIID.NotFound")),
        (400, true),
        "{reply:?}"
    );
    // A throttle is the client's to wait for: it is asked once.
    aws.fail(Fault::on("DescribeImages", FaultKind::Throttle));
    let before = aws.counts().get("DescribeImages").map_or(0, |count| count.calls);
    let reply = signer.call(&bench, &format!("{DESCRIBE}&MaxResults=5"));
    assert_eq!(
        (reply.status, reply.body.contains("RequestLimitExceeded")),
        (503, true),
        "{reply:?}"
    );
    assert_eq!(aws.counts()["DescribeImages"].calls, before + 1);
    drop(bench);
}

#[test]
fn an_answer_that_ends_early_is_not_passed_on_as_a_whole_one() {
    let aws = TestAws::start();
    let upstream: Arc<dyn Upstream> = Arc::new(connection(&aws, &Runtime::new().expect("threads")));
    let bench = Bench::with(HttpSettings { upstream: Some(upstream), ..HttpSettings::default() });
    aws.fail(Fault::on("DescribeImages", FaultKind::Truncated));
    let mut stream = bench.connect();
    stream
        .write_all(&request(
            bench.server.address(),
            "POST",
            "/",
            &[("content-type", FORM)],
            DESCRIBE,
        ))
        .expect("writes");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(bench.call(DESCRIBE).status, 200);
    // One that is translated has to be there first.
    bench.memory.add(restored(RESERVED, None, RestoreProgress::Pending));
    let image = aws.add_image(Image { name: "mine".into(), ..Image::default() });
    aws.fail(Fault::on("DescribeImages", FaultKind::Truncated));
    let reply = bench.call(&format!("{DESCRIBE}&ImageId.1={RESERVED}&ImageId.2={image}"));
    assert_eq!(reply.refusal(), refused(502, "Unavailable"));
}

#[test]
fn an_ec2_that_does_not_answer_is_said_to() {
    let aws = TestAws::start();
    let upstream: Arc<dyn Upstream> = Arc::new(connection(&aws, &Runtime::new().expect("threads")));
    drop(aws);
    let bench = Bench::with(HttpSettings { upstream: Some(upstream), ..HttpSettings::default() });
    assert_eq!(bench.call(DESCRIBE).refusal(), refused(503, "Unavailable"));
}
