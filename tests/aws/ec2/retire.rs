//! The use case that takes an image out of service, without a process.

use std::sync::Arc;

use amistore::internals::aws::Compute;
use amistore::internals::aws::ebs::Quotas;
use amistore::internals::aws::ec2::RetireAction;
use amistore::internals::base::{ErrorCode, ImageId, Result};
use amistore::internals::object::MemoryReader;
use amistore::internals::ops::PermittedRetire;
use amistore_aws_double::aws::Content;

use super::bench::{Bench, small_image};

fn compute(bench: &Bench) -> Compute {
    let quotas = Quotas::new(&bench.aws.region(), Some(100_000));
    Compute { ec2: bench.ec2(), ebs: bench.ebs(), quotas }
}

/// Deregisters the image with its snapshots, if `archive` holds it. Returns the deleted snapshots.
fn retire(bench: &Bench, ami: &str, archive: Vec<u8>) -> Result<Vec<String>> {
    let compute = compute(bench);
    let action = RetireAction::Deregister { with_snapshots: true };
    let permitted = PermittedRetire::new(&compute, ImageId::parse(ami)?, action)?;
    let reader = Arc::new(MemoryReader::new("a.bin", archive));
    let planned = bench.with_context(|context| permitted.compare(reader, context))?;
    assert!(planned.plan().snapshots.iter().all(|snapshot| snapshot.deleted));
    let done = planned.run()?;
    let deleted = done.snapshots.into_iter().filter(|snapshot| snapshot.deleted);
    Ok(deleted.map(|snapshot| snapshot.snapshot_id).collect())
}

#[test]
fn an_image_is_compared_then_deregistered_and_its_snapshots_go_last() {
    let bench = Bench::new();
    let ami = small_image(&bench.aws);
    let archive = bench.store(&ami).expect("an archive");
    bench.aws.reset_calls();
    let deleted = retire(&bench, &ami, archive).expect("it is retired");
    assert!(!deleted.is_empty() && bench.aws.images().is_empty());
    assert!(bench.aws.snapshots().is_empty());
    let calls = bench.aws.calls();
    let first = |operation: &str| {
        calls
            .iter()
            .position(|call| {
                let dry = call.parameters.get("DryRun").is_some_and(|dry| dry == "true");
                call.operation == operation && !dry
            })
            .expect(operation)
    };
    let order = ["GetSnapshotBlock", "DeregisterImage", "DeleteSnapshot"].map(first);
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn an_archive_that_differs_leaves_the_image_alone() {
    let bench = Bench::new();
    let ami = small_image(&bench.aws);
    let archive = bench.store(&ami).expect("an archive");
    let id = bench.aws.snapshots()[0].id.clone();
    bench
        .aws
        .change_snapshot(&id, |snapshot| drop(snapshot.blocks.insert(0, Content::bytes(b"other"))));
    let error = retire(&bench, &ami, archive).expect_err("it differs");
    assert!(error.is(ErrorCode::ArchiveDiffersFromImage), "{error:?}");
    assert_eq!((bench.aws.images().len(), bench.aws.snapshots().len()), (1, 2));
}

#[test]
fn a_refusal_of_ec2_comes_before_the_comparison() {
    let bench = Bench::new();
    let ami = small_image(&bench.aws);
    bench.aws.deny("DeregisterImage");
    let action = RetireAction::Deregister { with_snapshots: false };
    let compute = compute(&bench);
    let id = ImageId::parse(&ami).expect("an id");
    let refused = PermittedRetire::new(&compute, id, action).err().expect("it is refused");
    assert!(refused.is(ErrorCode::UnauthorizedOperation), "{refused:?}");
    assert_eq!(bench.aws.count("GetSnapshotBlock"), 0);
}
