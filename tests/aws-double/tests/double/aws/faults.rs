//! Faults, throttling, latency and signatures.

use std::time::{Duration, Instant};

use amistore_aws_double::aws::{BLOCK, Content, Fault, FaultKind, Rate, TestAws};

use super::client::{Client, block, checksum, outcome};

/// A snapshot with 8 blocks, and the tokens of all.
fn start() -> (TestAws, Client, String, Vec<String>) {
    let aws = TestAws::start();
    let id = aws.snapshot_of(1, (0..8).map(|index| (index, Content::random(1))));
    let client = Client::new(&aws);
    let tokens = client.tokens(&id).into_iter().map(|(_, token)| token).collect();
    aws.reset_calls();
    (aws, client, id, tokens)
}

#[test]
fn faults_match_requests_by_operation_snapshot_and_block() {
    let (aws, client, id, tokens) = start();
    let other = aws.snapshot_of(1, []);
    let gets = |count: u64| -> String {
        let ok = |index: u64| client.get(&id, index, &tokens[index as usize]).status == 200;
        (0..count).map(|index| if ok(index) { '.' } else { 'x' }).collect()
    };
    let kind = || FaultKind::error(500, "InternalServerException");
    let with = |fault: Fault| {
        aws.clear_faults();
        aws.fail(fault);
        gets(5)
    };
    assert_eq!(with(Fault::on("GetSnapshotBlock", kind())), "x....");
    assert_eq!(with(Fault::on("GetSnapshotBlock", kind()).nth(3)), "..x..");
    assert_eq!(with(Fault::on("GetSnapshotBlock", kind()).times(2)), "xx...");
    assert_eq!(with(Fault::on("GetSnapshotBlock", kind()).every(2)), ".x.x.");
    assert_eq!(with(Fault::on("*", kind()).always()), "xxxxx");
    assert_eq!(with(Fault::on("GetSnapshotBlock", kind()).block(4)), "....x");
    assert_eq!(with(Fault::on("*", kind()).snapshot(&id).block(2).always()), "..x..");
    assert_eq!(with(Fault::on("*", kind()).snapshot(&other).always()), ".....");
    assert_eq!(with(Fault::on("RegisterImage", kind()).always()), ".....");
    aws.reset_calls();
    with(Fault::on("GetSnapshotBlock", kind()).nth(2));
    let log: Vec<_> = aws
        .calls()
        .iter()
        .map(|call| (call.number, call.block, call.status, call.fault.is_some()))
        .collect();
    assert_eq!(
        log[..3],
        [(1, Some(0), 200, false), (2, Some(1), 500, true), (3, Some(2), 200, false)]
    );
}

#[test]
fn the_log_has_all_calls() {
    let (aws, client, id, tokens) = start();
    assert_eq!(client.get(&id, 3, &tokens[3]).status, 200);
    assert_eq!(client.ec2("DescribeImages", &[("ImageId.1", "ami-x")]).status, 400);
    let calls = aws.calls();
    let shown = |number: usize| {
        (calls[number].service, calls[number].operation.as_str(), calls[number].error.as_deref())
    };
    assert_eq!(
        [shown(0), shown(1)],
        [
            ("ebs", "GetSnapshotBlock", None),
            ("ec2", "DescribeImages", Some("InvalidAMIID.Malformed"))
        ]
    );
    assert_eq!(
        (calls[0].parameters["blockToken"].as_str(), calls[1].parameters["ImageId.1"].as_str()),
        (tokens[3].as_str(), "ami-x")
    );
    assert_eq!(calls[1].access_key.as_deref(), Some(TestAws::ACCESS_KEY));
    assert!(
        calls[0].connection < calls[1].connection
            && calls[0].answered.is_some_and(|answered| answered >= calls[0].started)
    );
    aws.keep_calls(false);
    assert_eq!(client.get(&id, 3, &tokens[3]).status, 200);
    assert_eq!((aws.calls().len(), aws.count("GetSnapshotBlock")), (2, 2));
}

#[test]
fn errors_have_the_form_of_their_service() {
    let (aws, client, id, tokens) = start();
    let with = |kind: FaultKind| {
        aws.fail(Fault::on("*", kind.clone()).times(2));
        let outcomes =
            (client.get(&id, 0, &tokens[0]).outcome(), client.ec2("DescribeImages", &[]).outcome());
        aws.clear_faults();
        outcomes
    };
    let error = |code: &str| FaultKind::Error {
        status: 400,
        code: code.to_owned(),
        reason: "WHY".to_owned(),
    };
    assert_eq!(with(error("Code")), (outcome(400, "Code WHY"), outcome(400, "Code")));
    let throttled = "RequestThrottledException ACCOUNT_THROTTLED";
    assert_eq!(
        with(FaultKind::Throttle),
        (outcome(400, throttled), outcome(503, "RequestLimitExceeded"))
    );
    assert_eq!(with(FaultKind::Unavailable), (outcome(503, ""), outcome(503, "")));
    assert_eq!(with(FaultKind::BadGateway), (outcome(502, ""), outcome(502, "")));
    assert_eq!(
        with(FaultKind::ExpiredToken),
        (outcome(403, "ExpiredTokenException"), outcome(400, "RequestExpired"))
    );
    aws.set(|settings| (settings.plain_throttling, settings.long_error_types) = (true, true));
    assert_eq!(with(FaultKind::Throttle).0, outcome(400, "ThrottlingException"));
    assert_eq!(with(FaultKind::Garbage), (outcome(200, ""), outcome(200, "")));
}

#[test]
fn blocks_are_corrupted_by_faults() {
    let (aws, client, id, tokens) = start();
    let with = |kind: FaultKind| {
        aws.fail(Fault::on("GetSnapshotBlock", kind));
        client.get(&id, 1, &tokens[1])
    };
    let right = client.get(&id, 1, &tokens[1]);
    let sum = right.header("x-amz-checksum");
    let flipped = with(FaultKind::FlipBit);
    assert_eq!((flipped.body.len(), flipped.header("x-amz-checksum")), (BLOCK, sum));
    assert_ne!(Some(checksum(&flipped.body).as_str()), sum);
    let wrong = with(FaultKind::WrongChecksum);
    assert!(wrong.body == right.body && wrong.header("x-amz-checksum") != sum);
    let short = with(FaultKind::ShortBlock);
    assert_eq!((short.body.len(), short.header("x-amz-data-length")), (BLOCK / 2, Some("524288")));
    assert_eq!(with(FaultKind::WrongLength).header("x-amz-data-length"), Some("262144"));
    assert_eq!(with(FaultKind::Garbage).status, 200);
    aws.fail(Fault::on("GetSnapshotBlock", FaultKind::Vanish).nth(2));
    assert_eq!(client.get(&id, 1, &tokens[1]).status, 200);
    assert_eq!(client.get(&id, 1, &tokens[1]).status, 404);
    assert!(aws.snapshot(&id).is_none());
}

#[test]
fn connections_are_broken_by_faults() {
    let (aws, client, id, tokens) = start();
    let with = |kind: FaultKind| {
        aws.fail(Fault::on("GetSnapshotBlock", kind));
        let start = Instant::now();
        (client.try_get(&id, 1, &tokens[1]).is_ok(), start.elapsed())
    };
    let time = Duration::from_millis(150);
    for kind in [FaultKind::Reset, FaultKind::ResetAfter, FaultKind::Truncated] {
        assert!(!with(kind).0);
    }
    for (kind, succeeds) in [
        (FaultKind::Hang(time), false),
        (FaultKind::Stall(time), false),
        (FaultKind::Delay(time), true),
    ] {
        let (succeeded, took) = with(kind);
        assert!(succeeded == succeeds && took >= time, "{took:?}");
    }
    let started = client.start(&serde_json::json!({ "VolumeSize": 1 })).json()["SnapshotId"]
        .as_str()
        .map(str::to_owned)
        .expect("an id");
    aws.fail(Fault::on("PutSnapshotBlock", FaultKind::BlockNotRead));
    let late = client.put(&started, 0, &block(1));
    assert_eq!(
        (late.outcome(), &late.json()["Message"]),
        (
            outcome(400, "ValidationException WRITE_REQUEST_TIMEOUT"),
            &"Failed to read block data".into()
        )
    );
    aws.fail(Fault::on("PutSnapshotBlock", FaultKind::CorruptUpload));
    aws.fail(
        Fault::on(
            "PutSnapshotBlock",
            FaultKind::ErrorAfter { status: 500, code: "InternalServerException".to_owned() },
        )
        .nth(2),
    );
    assert_eq!(client.put(&started, 0, &block(1)).status, 400);
    assert_eq!(client.put(&started, 0, &block(1)).status, 500);
    assert_eq!(aws.snapshot(&started).map(|snapshot| snapshot.put.len()), Some(1));
    aws.stop_accepting();
    assert!(client.try_get(&id, 1, &tokens[1]).is_err());
    assert_eq!(aws.open_connections(), 0);
    aws.resume();
    assert!(client.try_get(&id, 1, &tokens[1]).is_ok());
}

#[test]
fn requests_above_the_rate_are_throttled() {
    let (aws, client, id, tokens) = start();
    let rate = Rate { burst: 2.0, per_second: 0.001 };
    let gets = || {
        (0..3)
            .map(|index| client.get(&id, index, &tokens[index as usize]).outcome().1)
            .collect::<Vec<_>>()
    };
    aws.set(|settings| settings.snapshot_rate = Some(rate));
    assert_eq!(gets(), ["", "", "RequestThrottledException RESOURCE_LEVEL_THROTTLE"]);
    aws.set(|settings| (settings.snapshot_rate, settings.account_rate) = (None, Some(rate)));
    assert_eq!(gets(), ["", "", "RequestThrottledException ACCOUNT_THROTTLED"]);
    aws.set(|settings| {
        settings.account_rate = None;
        settings.rates.insert("DescribeImages".to_owned(), Rate::per_second(1.0));
        settings.rates.insert("ListSnapshotBlocks".to_owned(), Rate::per_second(1.0));
    });
    let describe = || client.ec2("DescribeImages", &[]).outcome();
    assert_eq!([describe(), describe()], [outcome(200, ""), outcome(503, "RequestLimitExceeded")]);
    assert_eq!([client.list(&id, "").status, client.list(&id, "").status], [200, 400]);
}

#[test]
fn latency_delays_each_request_on_its_own() {
    let (aws, client, id, tokens) = start();
    aws.set(|settings| settings.block_latency = Duration::from_millis(100));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (client, id, token) = (&client, &id, &tokens[index as usize]);
            scope.spawn(move || assert_eq!(client.get(id, index, token).status, 200));
        }
    });
    let elapsed = start.elapsed();
    assert!(
        elapsed >= Duration::from_millis(100) && elapsed < Duration::from_millis(500),
        "{elapsed:?}"
    );
}

#[test]
fn signatures_are_checked() {
    let (aws, client, id, _) = start();
    let both = |client: &Client| {
        (client.list(&id, "").outcome(), client.ec2("DescribeImages", &[]).outcome())
    };
    let failed = outcome(401, "AuthFailure");
    assert_eq!(both(&client), (outcome(200, ""), outcome(200, "")));
    let wrong = Client { secret_key: "wrong".to_owned(), ..client.clone() };
    assert_eq!(both(&wrong), (outcome(403, "InvalidSignatureException"), failed.clone()));
    let unknown = Client { access_key: "UNKNOWN".to_owned(), ..client.clone() };
    assert_eq!(both(&unknown), (outcome(403, "UnrecognizedClientException"), failed.clone()));
    let elsewhere = Client { region: "eu-west-1".to_owned(), ..client.clone() };
    assert_eq!(both(&elsewhere), (outcome(403, "InvalidSignatureException"), failed.clone()));
    let early = Client { ahead: 3600, ..client.clone() };
    assert_eq!(
        both(&early),
        (outcome(403, "InvalidSignatureException"), outcome(400, "RequestExpired"))
    );
    aws.set_clock_skew(3600);
    assert_eq!(both(&early), (outcome(200, ""), outcome(200, "")));
    aws.set_clock_skew(0);
    aws.add_key("SESSION", "secret", Some("token/+="));
    let session = Client {
        session_token: Some("token/+=".to_owned()),
        ..Client::with_key(&aws, "SESSION", "secret")
    };
    assert_eq!(both(&session), (outcome(200, ""), outcome(200, "")));
    let without = Client { session_token: None, ..session.clone() };
    assert_eq!(both(&without), (outcome(403, "UnrecognizedClientException"), failed));
    aws.deny_key("SESSION", "DescribeImages");
    assert_eq!(both(&session), (outcome(200, ""), outcome(403, "UnauthorizedOperation")));
    aws.expire_key("SESSION");
    assert_eq!(
        both(&session),
        (outcome(403, "ExpiredTokenException"), outcome(400, "RequestExpired"))
    );
    let host = aws.endpoint().replace("http://", "");
    let unsigned = |method: &str, path: &str| {
        super::client::send_raw(&host, method, path, &[], b"").expect("an answer").outcome()
    };
    assert_eq!(
        unsigned("GET", &format!("/snapshots/{id}/blocks")),
        outcome(403, "MissingAuthenticationTokenException")
    );
    assert_eq!(unsigned("POST", "/"), outcome(400, "MissingAuthenticationToken"));
    assert_eq!(unsigned("GET", "/elsewhere"), outcome(404, ""));
    // A payload that is not the one that was signed.
    aws.fail(Fault::on("StartSnapshot", FaultKind::CorruptUpload));
    assert_eq!(
        client.start(&serde_json::json!({ "VolumeSize": 1 })).outcome(),
        outcome(403, "InvalidSignatureException")
    );
}
