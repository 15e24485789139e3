//! The three actions on the wire.

use amistore::internals::server::{
    Refusal, RestoreProgress, RestoreRequest, StoreQuery, StoreRequest,
};
use serde_json::json;

use super::super::caller::{Bench, refused};
use super::super::memory::{Heard, RESERVED, id, lock, restored, task};

const STORE: &str =
    "Action=CreateStoreImageTask&Version=2016-11-15&ImageId=ami-0abcdef1234567890&Bucket=my-bucket";
const TASKS: &str = "Action=DescribeStoreImageTasks&Version=2016-11-15";
const RESTORE: &str =
    "Action=CreateRestoreImageTask&Version=2016-11-15&Bucket=my-bucket&ObjectKey=a%2Fb.bin";

fn heard(bench: &Bench) -> Vec<Heard> {
    std::mem::take(&mut *lock(&bench.memory.heard))
}

#[test]
fn a_store_reaches_the_service_as_the_client_sent_it() {
    let bench = Bench::start();
    let form = STORE.replace("my-bucket", "my-bucket%2Fp1%2Fp2%2F")
        + "&S3ObjectTag.1.Key=env&S3ObjectTag.1.Value=prod\
           &S3ObjectTag.3.Key=a+b&S3ObjectTag.3.Value=";
    let reply = bench.call(&form);
    assert_eq!(
        reply.value("CreateStoreImageTask"),
        json!({"ObjectKey": "p1/p2/ami-0abcdef1234567890.bin"})
    );
    let request = StoreRequest {
        image_id: id("ami-0abcdef1234567890"),
        bucket: "my-bucket".into(),
        prefix: "p1/p2/".into(),
        tags: vec![("env".into(), "prod".into()), ("a b".into(), String::new())],
    };
    assert_eq!(heard(&bench), [Heard::Store(request, false)]);
    assert_eq!(reply.header("content-type"), Some("text/xml;charset=UTF-8"));
    assert_eq!((reply.header("cache-control"), reply.header("server")), (Some("no-store"), None));
    let id = reply.header("x-amzn-requestid").expect("an id");
    assert!(
        id.len() == 36 && reply.body.contains(&format!("<requestId>{id}</requestId>")),
        "{reply:?}"
    );
}

#[test]
fn a_restore_reaches_the_service_as_the_client_sent_it() {
    let bench = Bench::start();
    let form = RESTORE.to_owned()
        + "&Name=restored+ami&TagSpecification.1.ResourceType=image\
           &TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=1\
           &TagSpecification.2.ResourceType=snapshot\
           &TagSpecification.2.Tag.1.Key=b&TagSpecification.2.Tag.1.Value=2";
    assert_eq!(bench.call(&form).value("CreateRestoreImageTask"), json!({"ImageId": RESERVED}));
    let request = RestoreRequest {
        bucket: "my-bucket".into(),
        object_key: "a/b.bin".into(),
        name: Some("restored ami".into()),
        image_tags: vec![("a".into(), "1".into())],
        snapshot_tags: vec![("b".into(), "2".into())],
    };
    assert_eq!(heard(&bench), [Heard::Restore(request, false)]);
}

#[test]
fn tasks_are_listed_as_ec2_lists_them() {
    let bench = Bench::start();
    assert!(bench.call(TASKS).body.contains("<storeImageTaskResultSet/>"));
    lock(&bench.memory.tasks).extend([
        task("ami-0abcdef1234567890", "InProgress", 1_759_887_105),
        task("ami-0123456789abcdef0", "Failed", 0),
    ]);
    let listed = bench.call(TASKS).value("DescribeStoreImageTasks");
    let results = listed["StoreImageTaskResults"].as_array().expect("a list").clone();
    assert_eq!(
        results[0],
        json!({
            "AmiId": "ami-0abcdef1234567890",
            "TaskStartTime": "2025-10-08T01:31:45.001Z",
            "Bucket": "my-bucket",
            "S3objectKey": "a&b/ami-0abcdef1234567890.bin",
            "ProgressPercentage": 17,
            "StoreTaskState": "InProgress",
        })
    );
    assert_eq!(results[1]["StoreTaskFailureReason"], "the <bucket> is full");
}

#[test]
fn questions_about_tasks_reach_the_service() {
    let bench = Bench::start();
    bench.call(&format!("{TASKS}&ImageId.1=ami-01234567&ImageId.5=ami-01234567&Filter.1.Name=bucket&Filter.1.Value.1=ignored"));
    bench.call(&format!("{TASKS}&Filter.1.Name=task-state&Filter.1.Value.1=InProgress&Filter.1.Value.2=Failed&Filter.2.Name=bucket&Filter.2.Value.1=b&MaxResults=50"));
    bench.call(&format!(
        "{TASKS}&Filter.1.Name=bucket&Filter.1.Value.1=a&Filter.2.Name=bucket&Filter.2.Value.1=b"
    ));
    let strings = |filters: &[&[&str]]| -> Vec<Vec<String>> {
        filters.iter().map(|texts| texts.iter().map(ToString::to_string).collect()).collect()
    };
    let plain = StoreQuery { limit: 1000, ..StoreQuery::default() };
    assert_eq!(
        heard(&bench),
        [
            Heard::Tasks(StoreQuery { image_ids: vec![id("ami-01234567")], ..plain.clone() }),
            Heard::Tasks(StoreQuery {
                states: strings(&[&["Failed", "InProgress"]]),
                buckets: strings(&[&["b"]]),
                limit: 50,
                ..plain.clone()
            }),
            Heard::Tasks(StoreQuery { buckets: strings(&[&["a"], &["b"]]), ..plain }),
        ]
    );
}

#[test]
fn pages_follow_each_other_and_tokens_stay_with_their_question() {
    let bench = Bench::start();
    lock(&bench.memory.tasks)
        .extend((0..5).map(|at| task(&format!("ami-0000000{at}"), "Completed", at)));
    let (mut token, mut found) = (String::new(), Vec::new());
    loop {
        let page = bench
            .call(&format!("{TASKS}&MaxResults=2&NextToken={token}"))
            .value("DescribeStoreImageTasks");
        found.extend(
            page["StoreImageTaskResults"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|task| task["AmiId"].to_string()),
        );
        match page["NextToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((found.len(), found[4].as_str()), (5, "\"ami-00000004\""));
    let other = "&Filter.1.Name=bucket&Filter.1.Value.1=other";
    for form in [
        format!("{TASKS}{other}&NextToken={token}"),
        format!("{TASKS}&NextToken=x{token}"),
        format!("{TASKS}&NextToken={token}%00"),
    ] {
        assert_eq!(bench.call(&form).refusal(), refused(400, "InvalidPaginationToken"), "{form}");
    }
}

#[test]
fn a_dry_run_says_that_it_would_have_succeeded() {
    let bench = Bench::start();
    for form in [STORE, TASKS, RESTORE] {
        assert_eq!(
            bench.call(&format!("{form}&DryRun=true")).refusal(),
            refused(412, "DryRunOperation")
        );
    }
    assert!(
        heard(&bench)
            .iter()
            .all(|heard| matches!(heard, Heard::Store(_, true) | Heard::Restore(_, true)))
    );
    *lock(&bench.memory.refusal) = Some(Refusal::client("InvalidAMIID.NotFound", "it is gone"));
    assert_eq!(
        bench.call(&format!("{STORE}&DryRun=true")).refusal(),
        refused(400, "InvalidAMIID.NotFound")
    );
}

#[test]
fn what_ec2_refuses_is_refused() {
    let bench = Bench::start();
    let ids: String = (1..=21).map(|at| format!("&ImageId.{at}=ami-000000{at:02}")).collect();
    let tags: String = (1..=11).map(|at| format!("&S3ObjectTag.{at}.Key=k{at}")).collect();
    let long = "x".repeat(129);
    for (form, code) in [
        ("Version=2016-11-15".to_owned(), "MissingAction"),
        (STORE.replace("&Version=2016-11-15", ""), "MissingParameter"),
        (STORE.replace("2016-11-15", "2009-01-01"), "NoSuchVersion"),
        (STORE.replace("&ImageId=ami-0abcdef1234567890", ""), "MissingParameter"),
        (STORE.replace("&Bucket=my-bucket", "&Bucket="), "MissingParameter"),
        (STORE.replace("ami-0abcdef1234567890", "ami-xyz"), "InvalidAMIID.Malformed"),
        (STORE.replace("my-bucket", "a+b"), "InvalidParameterValue"),
        (format!("{STORE}/{}", "k".repeat(1024)), "InvalidParameterValue"),
        (format!("{STORE}&Description=x"), "UnknownParameter"),
        (format!("{STORE}&Bucket=other"), "InvalidParameterValue"),
        (format!("{STORE}&DryRun=True"), "InvalidParameterValue"),
        (format!("{STORE}{tags}"), "TagLimitExceeded"),
        (format!("{STORE}&S3ObjectTag.1.Value=x"), "MissingParameter"),
        (format!("{STORE}&S3ObjectTag.1.Key={long}"), "InvalidParameterValue"),
        (format!("{STORE}&S3ObjectTag.1.Key=aws:x"), "InvalidParameterValue"),
        (format!("{STORE}&S3ObjectTag.1.Key=k&S3ObjectTag.2.Key=k"), "InvalidParameterValue"),
        (format!("{STORE}&S3ObjectTag.1.Key=k&S3ObjectTag.1.Other=k"), "UnknownParameter"),
        (format!("{STORE}&S3ObjectTag.x.Key=k"), "UnknownParameter"),
        (format!("{TASKS}&MaxResults=0"), "InvalidParameterValue"),
        (format!("{TASKS}&MaxResults=201"), "InvalidParameterValue"),
        (format!("{TASKS}&MaxResults=%2B5"), "InvalidParameterValue"),
        (format!("{TASKS}&MaxResults=5&ImageId.1=ami-01234567"), "InvalidParameterCombination"),
        (format!("{TASKS}{ids}"), "InvalidParameterValue"),
        (format!("{TASKS}&ImageId.1=ami-1"), "InvalidAMIID.Malformed"),
        (format!("{TASKS}&Filter.1.Name=state&Filter.1.Value.1=x"), "InvalidParameterValue"),
        (format!("{TASKS}&Filter.1.Name=bucket"), "InvalidParameterValue"),
        (format!("{TASKS}&Filter.1.Value.1=x"), "MissingParameter"),
        (format!("{TASKS}&NextToken=abc"), "InvalidPaginationToken"),
        (RESTORE.replace("my-bucket", "my-bucket/path"), "InvalidParameterValue"),
        (format!("{RESTORE}&Name=ab"), "InvalidAMIName.Malformed"),
        (format!("{RESTORE}&TagSpecification.1.ResourceType=instance"), "InvalidParameterValue"),
        (format!("{RESTORE}&TagSpecification.1.Tag.1.Key=a"), "MissingParameter"),
        (
            format!(
                "{RESTORE}&TagSpecification.1.ResourceType=image&TagSpecification.2.ResourceType=image"
            ),
            "InvalidParameterValue",
        ),
        ("Action=%".to_owned(), "MalformedQueryString"),
        ("Action=%ff".to_owned(), "MalformedQueryString"),
        ("Action=DescribeRegions&Version=2016-11-15".to_owned(), "InvalidAction"),
    ] {
        assert_eq!(bench.call(&form).refusal(), refused(400, code), "{form}");
    }
    assert_eq!(heard(&bench), []);
}

#[test]
fn a_refusal_of_the_service_goes_out_as_it_is() {
    let bench = Bench::start();
    *lock(&bench.memory.refusal) =
        Some(Refusal::new(403, "UnauthorizedOperation", "not <you> & \0"));
    let reply = bench.call(STORE);
    assert_eq!(reply.refusal(), refused(403, "UnauthorizedOperation"));
    assert!(reply.body.contains("not &lt;you&gt; &amp; \u{FFFD}"), "{reply:?}");
}

#[test]
fn a_panic_fails_one_request_and_no_other() {
    let bench = Bench::start();
    bench.memory.panics.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bench.call(STORE).refusal(), refused(500, "InternalError"));
    bench.memory.panics.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bench.call(STORE).status, 200);
}

#[test]
fn a_request_by_a_reserved_id_is_answered_by_it() {
    let bench = Bench::start();
    let real = "ami-00000000000000bbb";
    bench.memory.add(restored(RESERVED, Some(real), RestoreProgress::Available));
    lock(&bench.memory.tasks).push(task(real, "Completed", 1));
    let listed =
        bench.call(&format!("{TASKS}&ImageId.1={RESERVED}")).value("DescribeStoreImageTasks");
    assert_eq!(listed["StoreImageTaskResults"][0]["AmiId"], RESERVED);
    assert_eq!(listed["StoreImageTaskResults"][0]["S3objectKey"], format!("a&b/{real}.bin"));
    assert_eq!(
        bench.call(TASKS).value("DescribeStoreImageTasks")["StoreImageTaskResults"][0]["AmiId"],
        real
    );
    bench.memory.add(restored(RESERVED, None, RestoreProgress::Pending));
    let reply = bench.call(&STORE.replace("ami-0abcdef1234567890", RESERVED));
    assert_eq!(reply.refusal(), refused(400, "InvalidAMIID.Unavailable"));
    assert!(reply.body.contains("40 % are done"), "{reply:?}");
}
