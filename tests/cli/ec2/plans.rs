//! Plans: a run does exactly what its dry run prints.

use serde_json::{Value, json};

use super::partitions::{BUCKET, Partitions};
use crate::support::ec2::rich_image;

const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];

/// The requests of a service that a plan counts.
fn calls(plan: &Value, service: &str) -> Vec<(String, u64)> {
    let actions = plan["Calls"][service].as_object().expect("requests").iter();
    actions.map(|(action, count)| (action.clone(), count.as_u64().expect("a number"))).collect()
}

#[test]
fn a_store_sends_the_requests_that_its_dry_run_counts() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let args = [&["store", &ami, "s3://images/"][..], &COM].concat();
    let plan = world.json(&[&args[..], &["--dry-run"]].concat());
    assert_eq!(plan["Ebs"]["UsDollars"], Value::Null, "no price of this Region is known");
    assert!(world.com.s3.object(BUCKET, &format!("{ami}.bin")).is_none());
    world.com.aws.reset_calls();
    world.com.s3.reset_calls();
    world.run(&args).succeeded();
    for service in ["EBS", "EC2"] {
        for (action, count) in calls(&plan, service) {
            assert_eq!(world.com.aws.count(&action), count, "{action}");
        }
    }
    let planned = calls(&plan, "S3");
    for call in world.com.s3.calls() {
        let (operation, sent) = (call.operation, world.com.s3.count(call.operation) as u64);
        let count = planned.iter().find(|(action, _)| action == operation).map(|(_, count)| *count);
        assert!(count.is_some_and(|count| sent <= count), "{operation} {sent} {count:?}");
    }
    let archive = world.com.s3.object(BUCKET, &format!("{ami}.bin")).expect("an object");
    let at_most = plan["ArchiveBytesAtMost"].as_u64().expect("a number");
    assert!(archive.bytes.len() as u64 <= at_most);
    let again = world.json(&[&args[..], &["--dry-run"]].concat());
    assert_eq!(again["Outcome"], json!("present"), "the run would not refuse it either");
}

#[test]
fn a_restore_agrees_with_its_dry_run_on_requests_and_attributes() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.run(&[&["store", &ami, "a.bin"][..], &COM].concat()).succeeded();
    let edits = ["--name", "planned", "--launch-permissions", "--deregistration-protection"];
    for more in [&edits[..], &["--encrypted", "--no-tags"]] {
        let args = [&["restore", "a.bin", "ec2", "--target-profile", "gov"][..], more].concat();
        let plan = world.json(&[&args[..], &["--dry-run"]].concat());
        world.gov.aws.reset_calls();
        let restored = world.json(&args);
        assert_eq!(plan["Fidelity"], restored["Fidelity"], "{more:?}");
        for (action, count) in calls(&plan, "EBS") {
            assert_eq!(world.gov.aws.count(&action), count, "{action}");
        }
        for (action, count) in calls(&plan, "EC2") {
            let sent = world.gov.aws.count(&action);
            // Snapshots and image are polled until they are completed.
            let polled = action.starts_with("Describe");
            assert!(if polled { sent >= count } else { sent == count }, "{action} {sent} {count}");
        }
    }
}

#[test]
fn an_archive_in_a_bucket_is_read_with_at_most_the_requests_that_a_dry_run_counts() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.run(&[&["store", &ami, "s3://images/"][..], &COM].concat()).succeeded();
    let url = format!("s3://images/{ami}.bin");
    for target in [&["ec2", "--target-profile", "gov"][..], &["out"]] {
        let restore = [&["restore", &url, "--source-profile", "com"][..], target].concat();
        let copy = ["copy", &url, "s3://images/", "--source-profile", "com"];
        let copy = [&copy[..], &["--target-profile", "gov", "--force"]].concat();
        for args in [restore, copy] {
            let plan = world.json(&[&args[..], &["--dry-run"]].concat());
            world.com.s3.reset_calls();
            world.run(&args).succeeded();
            let planned = plan["Calls"]["S3"]["GetObject"].as_u64().expect("a number");
            let sent = world.com.s3.count("GetObject") as u64;
            assert!(sent <= planned && planned <= 4 * sent + 16, "{args:?} {sent} {planned}");
        }
    }
}

#[test]
fn a_price_that_is_not_known_is_said_to_be_so() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let args = [&["store", &ami, "s3://images/", "--dry-run"][..], &COM].concat();
    let text = world.run(&args).succeeded().text();
    for list in ["https://aws.amazon.com/ebs/pricing/", "https://aws.amazon.com/s3/pricing/"] {
        assert!(text.contains(&format!("price not known here; see {list}")), "{text}");
    }
}

#[test]
fn the_memory_that_an_error_names_suffices() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let store = |target: &str| {
        let args = ["store", &ami, target].map(ToOwned::to_owned).to_vec();
        [args, COM.map(ToOwned::to_owned).to_vec()].concat()
    };
    let restore = ["restore", "a.bin", "ec2", "--target-profile", "gov"].map(ToOwned::to_owned);
    for args in [store("a.bin"), store("s3://images/"), restore.to_vec()] {
        let with = |memory: &str| {
            let memory = ["--memory".to_owned(), memory.to_owned()];
            let args = [&args[..], &memory].concat();
            world.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let said = with("8MiB").failed(7, &["give: --memory "]).stderr;
        let line = said.lines().find_map(|line| line.trim().strip_prefix("give: --memory "));
        let given = line.expect("a size").to_owned();
        let needed: u64 = given.trim_end_matches("MiB").parse().expect("a number");
        with(&format!("{}MiB", needed - 1)).failed(7, &[&given]);
        with(&given).succeeded();
    }
}
