//! Lists of blocks, and blocks.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use amistore_aws_double::aws::{BLOCK, Content, Pattern, Snapshot, TestAws};

use super::client::{Client, block, blocks, checksum, encoded, outcome};

/// A snapshot with blocks 0, 3, 7 and 2047, which is the last one.
fn start() -> (TestAws, Client, String) {
    let aws = TestAws::start();
    let blocks = [
        (0, Content::bytes(block(1))),
        (3, Content::Zero),
        (7, Content::random(5)),
        (2047, Content::bytes(b"end")),
    ];
    let id = aws.snapshot_of(1, blocks);
    let client = Client::new(&aws);
    (aws, client, id)
}

#[test]
fn blocks_are_listed_and_read() {
    let (aws, client, id) = start();
    let page = client.list(&id, "");
    assert_eq!(
        (page.status, page.json()["VolumeSize"].as_u64(), page.json()["BlockSize"].as_u64()),
        (200, Some(1), Some(BLOCK as u64))
    );
    assert!(page.json()["ExpiryTime"].as_f64().is_some_and(|time| time > 1.7e9));
    assert!(page.json()["NextToken"].is_null());
    let snapshot = aws.snapshot(&id).expect("a snapshot");
    let tokens = blocks(&page);
    assert_eq!(tokens.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 3, 7, 2047]);
    for (index, token) in tokens {
        let answer = client.get(&id, index, &token);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-amz-data-length"), Some("524288"));
        assert_eq!(answer.header("x-amz-checksum-algorithm"), Some("SHA256"));
        assert_eq!(answer.header("x-amz-checksum"), Some(checksum(&answer.body).as_str()));
        assert_eq!(answer.body, snapshot.block(index as u32));
    }
    assert_eq!(
        client.get(&id, 7, "AAAA").outcome(),
        outcome(400, "ValidationException INVALID_BLOCK_TOKEN")
    );
    assert_eq!(aws.count("GetSnapshotBlock"), 5);
    let calls = aws.calls();
    assert_eq!(
        (calls[1].operation.as_str(), calls[1].snapshot.as_ref(), calls[1].block),
        ("GetSnapshotBlock", Some(&id), Some(0))
    );
    assert_eq!(aws.counts()["GetSnapshotBlock"].bytes_out / BLOCK as u64, 4);
    assert_eq!(aws.counts()["GetSnapshotBlock"].failed, 1);
}

#[test]
fn pages_have_the_size_of_max_results() {
    let (aws, client, id) = start();
    let large = aws.snapshot_of(1, (0..250).map(|index| (index, Content::random(1))));
    for (query, status) in [
        ("maxResults=99", 400),
        ("maxResults=100", 200),
        ("maxResults=10000", 200),
        ("maxResults=10001", 400),
    ] {
        assert_eq!(client.list(&large, query).status, status, "{query}");
    }
    assert_eq!(
        client.list(&large, "maxResults=x").outcome(),
        outcome(400, "ValidationException INVALID_PARAMETER_VALUE")
    );
    assert_eq!(blocks(&client.list(&large, "maxResults=100")).len(), 100);
    let indexes: Vec<u64> =
        blocks(&client.list(&id, "startingBlockIndex=4")).iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [7, 2047]);
    aws.set(|settings| settings.page_cap = Some(3));
    let page = client.list(&id, "startingBlockIndex=1");
    let token = page.json()["NextToken"].as_str().map(encoded);
    assert!(token.is_none());
    let page = client.list(&id, "");
    let token = page.json()["NextToken"].as_str().map(encoded).expect("more");
    // The start of the token wins over `startingBlockIndex`.
    assert_eq!(
        blocks(&client.list(&id, &format!("pageToken={token}&startingBlockIndex=0")))[0].0,
        2047
    );
    assert_eq!(
        client.list(&large, &format!("pageToken={token}")).outcome(),
        outcome(400, "ValidationException INVALID_PAGE_TOKEN")
    );
    aws.set(|settings| settings.empty_pages = 2);
    aws.reset_calls();
    assert_eq!(client.tokens(&id).len(), 4);
    assert_eq!(aws.count("ListSnapshotBlocks"), 6);
}

#[test]
fn block_tokens_and_page_tokens_expire() {
    let (aws, client, id) = start();
    aws.set(|settings| settings.page_cap = Some(3));
    let first = client.list(&id, "");
    let page = first.json()["NextToken"].as_str().map(encoded).expect("more");
    let (index, old) = blocks(&first)[0].clone();
    assert_eq!(client.list(&id, &format!("pageToken={page}")).status, 200);
    assert_eq!(client.get(&id, index, &old).status, 200);
    let (_, new) = blocks(&client.list(&id, ""))[0].clone();
    let refused = outcome(400, "ValidationException INVALID_BLOCK_TOKEN");
    assert_eq!(client.get(&id, index, &old).outcome(), refused);
    assert_eq!(client.get(&id, 3, &new).outcome(), refused);
    assert_eq!(client.get(&id, index, &new).status, 200);
    aws.set(|settings| settings.relist_replaces_tokens = false);
    assert_eq!(client.list(&id, "").status, 200);
    assert_eq!(client.get(&id, index, &new).status, 200);
    aws.expire_block_tokens(&id);
    assert_eq!(client.get(&id, index, &new).outcome(), refused);
    let (_, newest) = blocks(&client.list(&id, ""))[0].clone();
    aws.expire_page_tokens(&id);
    let expired = outcome(400, "ValidationException INVALID_PAGE_TOKEN");
    assert_eq!(client.list(&id, &format!("pageToken={page}")).outcome(), expired);
    let page = client.list(&id, "").json()["NextToken"].as_str().map(encoded).expect("more");
    aws.advance(Duration::from_secs(3601));
    assert_eq!(client.list(&id, &format!("pageToken={page}")).outcome(), expired);
    assert_eq!(client.get(&id, index, &newest).status, 200);
    aws.advance(Duration::from_secs(7 * 86_400));
    assert_eq!(client.get(&id, index, &newest).outcome(), refused);
}

#[test]
fn changed_blocks_of_two_snapshots_are_listed() {
    let (aws, client, id) = start();
    let child = Snapshot { parent: Some(id.clone()), ..Snapshot::new(1) };
    let child = aws.add_snapshot(child.with([
        (0, Content::bytes(block(1))),
        (3, Content::bytes(b"x")),
        (9, Content::Zero),
    ]));
    let changed = |query: &str| {
        client.ebs("GET", &format!("/snapshots/{child}/changedblocks?{query}"), &[], b"")
    };
    let answer = changed(&format!("firstSnapshotId={id}"));
    let entries = answer.json()["ChangedBlocks"].as_array().cloned().expect("a list");
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry["BlockIndex"].as_u64(),
                entry["FirstBlockToken"].is_string(),
                entry["SecondBlockToken"].is_string(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Some(3), true, true),
            (Some(7), true, false),
            (Some(9), false, true),
            (Some(2047), true, false)
        ]
    );
    let token =
        |index: usize, name: &str| entries[index][name].as_str().expect("a token").to_owned();
    assert_eq!(client.get(&id, 3, &token(0, "FirstBlockToken")).body, vec![0; BLOCK]);
    assert_eq!(client.get(&child, 3, &token(0, "SecondBlockToken")).body[..2], *b"x\0");
    assert_eq!(changed("").json()["ChangedBlocks"].as_array().map(Vec::len), Some(3));
    let other = aws.snapshot_of(1, []);
    assert_eq!(
        changed(&format!("firstSnapshotId={other}")).outcome(),
        outcome(400, "ValidationException UNRELATED_SNAPSHOTS")
    );
}

#[test]
fn a_snapshot_is_read_only_with_permission() {
    let (aws, client, id) = start();
    aws.add_key_of("999999999999", "OTHER", "other", None);
    let other = Client::with_key(&aws, "OTHER", "other");
    let listed = |client: &Client| client.list(&id, "").outcome();
    assert_eq!(listed(&client), outcome(200, ""));
    assert_eq!(
        client.list("snap-0123456789abcdef0", "").outcome(),
        outcome(404, "ResourceNotFoundException SNAPSHOT_NOT_FOUND")
    );
    assert_eq!(
        client.list("snap-xyz", "").outcome(),
        outcome(400, "ValidationException INVALID_SNAPSHOT_ID")
    );
    assert_eq!(listed(&other), outcome(404, "ResourceNotFoundException SNAPSHOT_NOT_FOUND"));
    aws.change_snapshot(&id, |snapshot| snapshot.permissions.all = true);
    assert_eq!(listed(&other), outcome(403, "AccessDeniedException UNAUTHORIZED_ACCOUNT"));
    aws.change_snapshot(&id, |snapshot| {
        snapshot.permissions.users.extend(["999999999999".to_owned()])
    });
    assert_eq!(listed(&other), outcome(200, ""));
    aws.revoke_snapshot(&id);
    assert_eq!(listed(&other).0, 404);
    for (state, tier) in [("pending", "standard"), ("error", "standard"), ("completed", "archive")]
    {
        aws.change_snapshot(&id, |snapshot| {
            (snapshot.state, snapshot.tier) = (state.to_owned(), tier.to_owned())
        });
        assert_eq!(
            listed(&client),
            outcome(400, "ValidationException INVALID_SNAPSHOT_ID"),
            "{state} {tier}"
        );
    }
    aws.change_snapshot(&id, |snapshot| {
        snapshot.restore_expiry = Some(SystemTime::now() + Duration::from_secs(86_400))
    });
    assert_eq!(listed(&client), outcome(200, ""));
    let encrypted = aws.add_snapshot(Snapshot { encrypted: true, ..Snapshot::new(1) });
    assert_eq!(client.list(&encrypted, "").status, 200);
    aws.deny_kms_key(
        &aws.snapshot(&encrypted).and_then(|snapshot| snapshot.kms_key_id).expect("a key"),
    );
    assert_eq!(
        client.list(&encrypted, "").outcome(),
        outcome(403, "AccessDeniedException DEPENDENCY_ACCESS_DENIED")
    );
    aws.deny("ebs:ListSnapshotBlocks");
    assert_eq!(listed(&client).1, "AccessDeniedException UNAUTHORIZED_ACCOUNT");
    aws.allow("ebs:ListSnapshotBlocks");
    aws.remove_snapshot(&id);
    assert_eq!(listed(&client).0, 404);
}

#[test]
fn a_large_volume_needs_little_memory() {
    let (aws, client, _) = start();
    let content = Content::Made(Pattern { seed: 9, random: 40 });
    let id = aws.snapshot_of(1000, (0..20_000).map(|index| (index, content.clone())));
    let tokens = client.tokens(&id);
    assert_eq!(aws.count("ListSnapshotBlocks"), 2);
    assert_eq!(tokens.iter().map(|(_, token)| token).collect::<BTreeSet<_>>().len(), 20_000);
    let answer = client.get(&id, 19_999, &tokens[19_999].1);
    assert_eq!(answer.header("x-amz-checksum"), Some(checksum(&answer.body).as_str()));
}
