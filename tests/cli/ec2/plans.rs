//! Plans: a run does exactly what its dry run prints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::partitions::{BUCKET, Partitions};
use crate::support::ec2::rich_image;

const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];

/// Actions that poll a state until it is reached: the plan counts the least number.
const POLLS: [&str; 2] = ["DescribeImages", "DescribeSnapshots"];

/// Requests by service and action.
type Requests = BTreeMap<(&'static str, String), u64>;

/// The requests that a plan counts.
fn planned(plan: &Value) -> Requests {
    let mut requests = Requests::new();
    for service in ["EBS", "EC2", "S3"] {
        for (action, count) in plan["Calls"][service].as_object().into_iter().flatten() {
            requests.insert((service, action.clone()), count.as_u64().expect("a number"));
        }
    }
    requests
}

/// The requests that both partitions got since their last reset.
fn sent(world: &Partitions) -> Requests {
    let mut requests = Requests::new();
    for side in [&world.com, &world.gov] {
        for call in side.aws.calls() {
            let service = if call.service == "ebs" { "EBS" } else { "EC2" };
            *requests.entry((service, call.operation)).or_default() += 1;
        }
        for call in side.s3.calls() {
            *requests.entry(("S3", call.operation.to_owned())).or_default() += 1;
        }
    }
    requests
}

/// Runs a command, and compares its requests with those that its dry run counted. None may be
/// sent that is not planned, and none more often. EBS and EC2 get exactly the planned number, S3 at
/// most that, because the plan does not know how long the archive will be. Returns the plan and
/// the result.
fn run_as_planned(world: &Partitions, args: &[&str]) -> (Value, Value) {
    let plan = world.json(&[args, &["--dry-run"]].concat());
    for side in [&world.com, &world.gov] {
        side.aws.reset_calls();
        side.s3.reset_calls();
    }
    let result = world.json(args);
    let (planned, sent) = (planned(&plan), sent(world));
    for ((service, action), count) in &sent {
        let planned = planned.get(&(*service, action.clone())).copied().unwrap_or(0);
        let polled = POLLS.contains(&action.as_str()) && planned > 0;
        assert!(*count <= planned || polled, "{args:?}: {service} {action} {count} > {planned}");
    }
    for ((service, action), count) in planned.iter().filter(|((service, _), _)| *service != "S3") {
        let sent = sent.get(&(*service, action.clone())).copied().unwrap_or(0);
        assert!(sent >= *count, "{args:?}: {service} {action} {sent} < {count}");
    }
    (plan, result)
}

#[test]
fn a_store_sends_the_requests_that_its_dry_run_counts() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let args = [&["store", &ami, "s3://images/"][..], &COM].concat();
    let plan = world.json(&[&args[..], &["--dry-run"]].concat());
    assert_eq!(plan["Ebs"]["UsDollars"], Value::Null, "no price of this Region is known");
    assert!(world.com.s3.object(BUCKET, &format!("{ami}.bin")).is_none());
    let (plan, _) = run_as_planned(&world, &args);
    let archive = world.com.s3.object(BUCKET, &format!("{ami}.bin")).expect("an object");
    let at_most = plan["ArchiveBytesAtMost"].as_u64().expect("a number");
    assert!(archive.bytes.len() as u64 <= at_most);
    let again = world.json(&[&args[..], &["--dry-run"]].concat());
    assert_eq!(again["Outcome"], json!("present"), "the run would not refuse it either");
}

#[test]
fn a_store_to_a_file_and_one_in_parts_send_the_planned_requests() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    run_as_planned(&world, &["store", &ami, "a.bin", "--source-profile", "com"]);
    for more in [&["--part-size", "256KiB"][..], &["--force", "--part-size", "256KiB"]] {
        let (plan, _) =
            run_as_planned(&world, &[&["store", &ami, "s3://images/"][..], &COM, more].concat());
        assert!(plan["Upload"]["PartsAtMost"].as_u64() > Some(1), "{plan}");
    }
}

#[test]
fn the_probe_of_a_store_that_hides_objects_is_planned() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.com.s3.deny("HeadObject");
    // The dry run sends the probe, too: its own requests are not those of the run.
    run_as_planned(&world, &[&["store", &ami, "s3://images/"][..], &COM].concat());
    assert!(world.com.s3.count("DeleteObject") >= 1, "the probe object is deleted");
}

#[test]
fn a_restore_agrees_with_its_dry_run_on_requests_and_attributes() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.run(&[&["store", &ami, "a.bin"][..], &COM].concat()).succeeded();
    let edits = ["--name", "planned", "--launch-permissions", "--deregistration-protection"];
    for more in [&edits[..], &["--encrypted", "--no-tags"]] {
        let args = [&["restore", "a.bin", "ec2", "--target-profile", "gov"][..], more].concat();
        let (plan, restored) = run_as_planned(&world, &args);
        assert_eq!(plan["Fidelity"], restored["Fidelity"], "{more:?}");
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
            let (plan, _) = run_as_planned(&world, &args);
            let planned = plan["Calls"]["S3"]["GetObject"].as_u64().expect("a number");
            let sent = world.com.s3.count("GetObject") as u64;
            assert!(sent <= planned && planned <= 4 * sent + 16, "{args:?} {sent} {planned}");
            assert_eq!(plan["S3Reads"]["UsDollars"], Value::Null, "the endpoint is not AWS's");
        }
    }
}

#[test]
fn a_copy_by_the_service_sends_the_planned_requests() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    world.run(&[&["store", &ami, "s3://images/"][..], &COM].concat()).succeeded();
    let url = format!("s3://images/{ami}.bin");
    for more in [&[][..], &["--no-server-copy", "--force"]] {
        run_as_planned(&world, &[&["copy", &url, "s3://images/b/"][..], &COM, more].concat());
    }
}

#[test]
fn a_price_that_is_not_known_is_said_to_be_so() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let args = [&["store", &ami, "s3://images/", "--dry-run"][..], &COM].concat();
    let text = world.run(&args).succeeded().text();
    for (region, list) in [
        ("eu-central-1", "https://aws.amazon.com/ebs/pricing/"),
        ("an endpoint that is not AWS's", "https://aws.amazon.com/s3/pricing/"),
    ] {
        assert!(text.contains(&format!("no price known for {region}; see {list}")), "{text}");
    }
    assert!(text.contains("data transfer: "), "{text}");
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
