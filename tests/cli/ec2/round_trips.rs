//! The number of round trips of a run: the longest chain of requests of which each begins after the
//! answer to the one before. `docs/performance.md` gives these numbers.

use std::time::{Duration, Instant};

use super::partitions::{Partition, Partitions};
use crate::support::ec2::rich_image;

/// Far longer than the work between an answer and the next request.
const LATENCY: Duration = Duration::from_millis(200);
const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];

/// The longest chain of requests to a partition, as names.
fn chain(partition: &Partition) -> Vec<String> {
    let of_aws =
        partition.aws.calls().into_iter().map(|call| (call.answered, call.started, call.operation));
    let of_s3 = partition
        .s3
        .calls()
        .into_iter()
        .map(|call| (call.answered, call.started, call.operation.to_owned()));
    let mut calls: Vec<(Option<Instant>, Instant, String)> = of_aws.chain(of_s3).collect();
    // The request that is answered first leaves most of them for the rest of the chain.
    calls.sort();
    let (mut chain, mut end) = (Vec::new(), None);
    for (answered, started, operation) in calls {
        if end.is_none_or(|end| started >= end) {
            end = answered;
            chain.push(operation);
        }
    }
    chain
}

/// Runs the program with latency, and returns its round trips.
fn round_trips(world: &Partitions, partition: &Partition, args: &[&str]) -> Vec<String> {
    partition.aws.reset_calls();
    partition.s3.reset_calls();
    partition.aws.set(|settings| settings.latency = LATENCY);
    partition.s3.set_latency(LATENCY);
    world.run(args).succeeded();
    partition.aws.set(|settings| settings.latency = Duration::ZERO);
    partition.s3.set_latency(Duration::ZERO);
    chain(partition)
}

#[test]
fn requests_that_do_not_depend_on_each_other_are_sent_in_parallel() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let url = format!("s3://images/{ami}.bin");
    let mut wrong = Vec::new();
    let mut check = |partition: &Partition, args: &[&str], expected: usize| {
        let found = round_trips(&world, partition, args);
        if found.len() > expected {
            wrong.push(format!("{args:?}: {} for {expected}: {found:?}", found.len()));
        }
    };
    let (com, gov) = (&world.com, &world.gov);
    check(com, &[&["store", &ami, "a.bin"][..], &COM].concat(), 4);
    check(com, &[&["store", &ami, "s3://images/"][..], &COM].concat(), 12);
    check(com, &["copy", "a.bin", "s3://images/copy.bin", "--target-profile", "com"], 8);
    check(com, &["copy", &url, "b.bin", "--source-profile", "com"], 4);
    let restore = ["restore", "a.bin", "ec2", "--target-profile", "gov"];
    check(gov, &[&restore[..], &["--snapshots-only"]].concat(), 10);
    check(gov, &[&restore[..], &["--name", "restored"]].concat(), 20);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
