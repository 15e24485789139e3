//! Writes of snapshots.

use std::time::Duration;

use amistore_aws_double::aws::{Content, Snapshot, TestAws, VisibleAfter, linear};
use serde_json::json;

use super::client::{Client, block, checksum, outcome, put_headers};

fn start() -> (TestAws, Client) {
    let aws = TestAws::start();
    let client = Client::new(&aws);
    (aws, client)
}

/// Starts a snapshot of 1 GiB.
fn begun(client: &Client) -> String {
    let answer = client.start(&json!({ "VolumeSize": 1 }));
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["SnapshotId"].as_str().expect("an id").to_owned()
}

const INVALID: &str = "ValidationException INVALID_PARAMETER_VALUE";

#[test]
fn a_snapshot_is_written_and_read_again() {
    let (aws, client) = start();
    let request = json!({
        "VolumeSize": 2,
        "Description": "täst",
        "Tags": [{ "Key": "é", "Value": "" }],
        "Timeout": 10,
        "ClientToken": "a",
    });
    let answer = client.start(&request).json();
    let id = answer["SnapshotId"].as_str().expect("an id");
    assert_eq!(
        (&answer["Status"], &answer["OwnerId"], &answer["BlockSize"]),
        (&json!("pending"), &json!(TestAws::ACCOUNT), &json!(524_288))
    );
    for (index, byte) in [(7, 2), (0, 9), (0, 1), (3, 0)] {
        let answer = client.put(id, index, &block(byte));
        assert_eq!(
            (answer.status, answer.header("x-amz-checksum")),
            (201, Some(checksum(&block(byte)).as_str()))
        );
    }
    let complete = client.complete(id, 3, Some("4I/ae0Alk5AgZesnP3iVEqrbZbMrbA5NxGKsx37qIjI="));
    assert_eq!((complete.status, complete.json()), (202, json!({ "Status": "pending" })));
    let snapshot = aws.snapshot(id).expect("a snapshot");
    assert!(snapshot.is_completed() && !snapshot.encrypted);
    assert_eq!((snapshot.description.as_str(), snapshot.tags["é"].as_str()), ("täst", ""));
    assert_eq!(checksum_of(&snapshot), "4I/ae0Alk5AgZesnP3iVEqrbZbMrbA5NxGKsx37qIjI=");
    let tokens = client.tokens(id);
    assert_eq!(client.get(id, 7, &tokens[2].1).body, block(2));
    assert_eq!(snapshot.block(5), block(0));
    assert_eq!(
        client.put(id, 1, &block(1)).outcome(),
        outcome(400, "ValidationException INVALID_SNAPSHOT_ID")
    );
}

fn checksum_of(snapshot: &Snapshot) -> String {
    base64_simd::STANDARD.encode_to_string(linear(snapshot.digests().values()))
}

#[test]
fn invalid_writes_are_refused() {
    let (aws, client) = start();
    let long = "x".repeat(256);
    let tags: Vec<_> =
        (0..51).map(|number| json!({ "Key": number.to_string(), "Value": "" })).collect();
    let parent = aws.snapshot_of(2, []);
    let refused = [
        (json!({}), INVALID),
        (json!({ "VolumeSize": 0 }), "ValidationException INVALID_VOLUME_SIZE"),
        (json!({ "VolumeSize": 65_537 }), "ValidationException INVALID_VOLUME_SIZE"),
        (json!({ "VolumeSize": "1" }), INVALID),
        (json!({ "VolumeSize": 1, "Timeout": 9 }), INVALID),
        (json!({ "VolumeSize": 1, "Timeout": 4321 }), INVALID),
        (json!({ "VolumeSize": 1, "Description": long }), INVALID),
        (json!({ "VolumeSize": 1, "Tags": tags }), "ValidationException INVALID_TAG"),
        (
            json!({ "VolumeSize": 1, "Tags": [{ "Key": "aws:a", "Value": "" }] }),
            "ValidationException INVALID_TAG",
        ),
        (json!({ "VolumeSize": 1, "Wrong": 1 }), INVALID),
        (
            json!({ "VolumeSize": 1, "KmsKeyArn": "key" }),
            "ValidationException INVALID_CUSTOMER_KEY",
        ),
        (
            json!({ "VolumeSize": 1, "ParentSnapshotId": parent }),
            "ValidationException INVALID_VOLUME_SIZE",
        ),
        (json!({ "VolumeSize": 2, "ParentSnapshotId": parent, "Encrypted": true }), INVALID),
        (
            json!({ "VolumeSize": 2, "ParentSnapshotId": "snap-0123456789abcdef0" }),
            "ResourceNotFoundException SNAPSHOT_NOT_FOUND",
        ),
    ];
    for (body, code) in refused {
        assert_eq!(client.start(&body).outcome().1, code, "{body}");
    }
    assert_eq!(aws.snapshots().len(), 1);
    let id = begun(&client);
    let whole = block(1);
    assert_eq!(
        client.put(&id, 2048, &whole).outcome(),
        outcome(400, "ValidationException INVALID_BLOCK")
    );
    assert_eq!(client.put(&id, 0, &whole[1..]).outcome(), outcome(400, INVALID));
    for missing in 1..4 {
        let mut headers = put_headers(&whole);
        headers.remove(missing);
        assert_eq!(client.put_with(&id, 0, &whole, &headers).outcome(), outcome(400, INVALID));
    }
    assert_eq!(
        client.put_with(&id, 0, &whole, &put_headers(&block(2))).outcome(),
        outcome(400, INVALID)
    );
    assert_eq!(client.put("snap-0123456789abcdef0", 0, &whole).outcome().0, 404);
    assert_eq!(client.put(&id, 0, &whole).status, 201);
    assert_eq!(client.complete(&id, 1, Some(&checksum(b""))).outcome(), outcome(400, INVALID));
    assert_eq!(aws.snapshot(&id).map(|snapshot| snapshot.state), Some("pending".to_owned()));
    assert_eq!(client.complete(&id, 2, None).status, 202);
    assert_eq!(aws.snapshot(&id).map(|snapshot| snapshot.state), Some("error".to_owned()));
}

#[test]
fn start_snapshot_is_idempotent_with_a_client_token() {
    let (aws, client) = start();
    let one = client.start(&json!({ "VolumeSize": 1, "ClientToken": "a" }));
    let again = client.start(&json!({ "VolumeSize": 1, "ClientToken": "a" }));
    assert_eq!(
        (one.status, again.status, one.json()["SnapshotId"].clone()),
        (201, 201, again.json()["SnapshotId"].clone())
    );
    assert_eq!(
        client.start(&json!({ "VolumeSize": 2, "ClientToken": "a" })).outcome(),
        outcome(409, "ConflictException")
    );
    assert_ne!(begun(&client), one.json()["SnapshotId"]);
    aws.set(|settings| settings.pending_limit = 2);
    let over = client.start(&json!({ "VolumeSize": 1 })).outcome();
    assert_eq!(
        over,
        outcome(402, "ServiceQuotaExceededException DEPENDENCY_SERVICE_QUOTA_EXCEEDED")
    );
    assert_eq!(client.start(&json!({ "VolumeSize": 1, "ClientToken": "a" })).status, 201);
}

#[test]
fn encryption_follows_from_the_request_and_the_account() {
    let (aws, client) = start();
    let key = "arn:aws:kms:us-east-1:123456789012:key/mine";
    let plain = aws.snapshot_of(1, [(1, Content::random(1))]);
    let secret = aws.add_snapshot(Snapshot {
        encrypted: true,
        kms_key_id: Some(key.to_owned()),
        ..Snapshot::new(1)
    });
    let managed = "arn:aws:kms:us-east-1:123456789012:key/00000000-aaaa-4bbb-8ccc-0123456789ab";
    // Request, outcome in an account without encryption by default, and in one with it.
    let cases = [
        (json!({}), Ok(None), Ok(Some(managed))),
        (json!({ "Encrypted": true }), Ok(Some(managed)), Ok(Some(managed))),
        (json!({ "KmsKeyArn": key }), Ok(Some(key)), Ok(Some(key))),
        (json!({ "Encrypted": true, "KmsKeyArn": key }), Ok(Some(key)), Ok(Some(key))),
        (json!({ "Encrypted": false }), Ok(None), Err(INVALID)),
        (json!({ "Encrypted": false, "KmsKeyArn": key }), Err(INVALID), Err(INVALID)),
        (json!({ "ParentSnapshotId": plain }), Ok(None), Err(INVALID)),
        (json!({ "ParentSnapshotId": plain, "KmsKeyArn": key }), Ok(Some(key)), Err(INVALID)),
        (json!({ "ParentSnapshotId": secret }), Ok(Some(key)), Ok(Some(key))),
        (json!({ "ParentSnapshotId": secret, "KmsKeyArn": key }), Err(INVALID), Err(INVALID)),
    ];
    for by_default in [false, true] {
        aws.encrypt_by_default(TestAws::ACCOUNT, by_default, None);
        for (body, without, with) in &cases {
            let mut body = body.clone();
            body["VolumeSize"] = 1.into();
            let answer = client.start(&body);
            let outcome = if answer.status == 201 {
                Ok(answer.json()["KmsKeyArn"].as_str().map(str::to_owned))
            } else {
                Err(answer.outcome().1)
            };
            let expected = if by_default { with } else { without };
            let expected = expected.map(|key| key.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(outcome, expected, "{body} {by_default}");
        }
    }
    aws.deny_kms_key(key);
    let denied = client.start(&json!({ "VolumeSize": 1, "KmsKeyArn": key })).outcome();
    assert_eq!(denied, outcome(403, "AccessDeniedException DEPENDENCY_ACCESS_DENIED"));
}

#[test]
fn a_child_has_the_blocks_of_its_parent() {
    let (aws, client) = start();
    let parent = aws.snapshot_of(1, [(1, Content::bytes(block(1))), (2, Content::bytes(block(2)))]);
    let answer = client.start(&json!({ "VolumeSize": 2, "ParentSnapshotId": parent }));
    let id = answer.json()["SnapshotId"].as_str().expect("an id").to_owned();
    assert_eq!(client.put(&id, 2, &block(0)).status, 201);
    assert_eq!(client.complete(&id, 1, None).status, 202);
    let child = aws.snapshot(&id).expect("a child");
    assert_eq!((child.block(1), child.block(2), child.parent), (block(1), block(0), Some(parent)));
}

#[test]
fn a_new_snapshot_is_visible_after_some_requests() {
    let (aws, client) = start();
    aws.set(|settings| {
        settings.settle = VisibleAfter { puts: 2, describes: 1, lists: 1 };
        settings.completion_polls = 2;
        settings.not_listable = 1;
    });
    let id = begun(&client);
    let described = || {
        let answer = client.ec2("DescribeSnapshots", &[("SnapshotId.1", &id)]);
        answer.get("status").unwrap_or_else(|| answer.outcome().1)
    };
    let put = || client.put(&id, 0, &block(1)).outcome();
    let none = outcome(404, "ResourceNotFoundException SNAPSHOT_NOT_FOUND");
    assert_eq!([put(), put(), put()], [none.clone(), none.clone(), outcome(201, "")]);
    assert_eq!([described(), described()], ["InvalidSnapshot.NotFound", "pending"]);
    assert_eq!(client.complete(&id, 1, None).status, 202);
    assert_eq!(put().1, "ValidationException INVALID_SNAPSHOT_ID");
    assert_eq!([described(), described(), described()], ["pending", "pending", "completed"]);
    let list = || client.list(&id, "").outcome();
    assert_eq!(
        [list(), list(), list()],
        [none, outcome(400, "ValidationException INVALID_SNAPSHOT_ID"), outcome(200, "")]
    );
}

#[test]
fn a_pending_snapshot_fails_at_its_deadline() {
    let (aws, client) = start();
    let id = begun(&client);
    aws.advance(Duration::from_secs(3599));
    assert_eq!(client.put(&id, 0, &block(1)).status, 201);
    aws.advance(Duration::from_secs(2));
    assert_eq!(client.put(&id, 0, &block(1)).outcome().0, 400);
    assert_eq!(aws.snapshot(&id).map(|snapshot| snapshot.state), Some("error".to_owned()));
}

#[test]
fn the_discard_setting_stores_no_bytes() {
    let (aws, client) = start();
    aws.set(|settings| settings.discard = true);
    let id = begun(&client);
    assert_eq!(client.put_with(&id, 4, &block(1), &put_headers(&block(2))).status, 201);
    assert_eq!(client.put(&id, 5, &block(1)[1..]).status, 400);
    assert_eq!(client.complete(&id, 1, None).status, 202);
    assert_eq!(
        aws.snapshot(&id).map(|snapshot| snapshot.digests()[&4].to_vec()),
        base64_simd::STANDARD.decode_to_vec(checksum(&block(2))).ok()
    );
}
