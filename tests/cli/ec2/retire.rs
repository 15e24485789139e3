//! An image is retired only if an archive equals it block by block.

use std::collections::BTreeMap;

use amistore_aws_double::aws::{Call, Content, Fault, FaultKind, Image, Mapping};
use serde_json::json;

use super::partitions::Partitions;
use crate::support::cli::Outcome;

const COM: [&str; 2] = ["--source-profile", "com"];
/// Operations that change an image or a snapshot.
const CHANGES: [&str; 4] =
    ["DeregisterImage", "DisableImage", "EnableImageDeprecation", "DeleteSnapshot"];

/// Two partitions with an image of two volumes, which is stored as `a.bin`.
struct Retirement {
    world: Partitions,
    ami: String,
    snapshots: Vec<String>,
}

impl Retirement {
    fn new() -> Self {
        let world = Partitions::new();
        let snapshots: Vec<String> = (0..2)
            .map(|number| {
                world
                    .com
                    .aws
                    .snapshot_of(1, [(number, Content::bytes(b"data")), (9, Content::random(1))])
            })
            .collect();
        let mappings =
            vec![Mapping::of("/dev/xvda", &snapshots[0]), Mapping::of("/dev/sdb", &snapshots[1])];
        let ami = world.com.aws.add_image(Image { mappings, ..Image::new("old", &snapshots[0]) });
        world.run(&[&["store", &ami, "a.bin"][..], &COM].concat()).succeeded();
        world.com.aws.reset_calls();
        Self { world, ami, snapshots }
    }

    fn retire(&self, args: &[&str]) -> Outcome {
        self.world.run(&[&["retire", &self.ami, "--archive", "a.bin"][..], &COM, args].concat())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        // Dry runs of changes are allowed.
        let changes = |call: &Call| {
            CHANGES.contains(&call.operation.as_str())
                && call.parameters.get("DryRun").is_none_or(|dry| dry != "true")
        };
        assert!(!self.world.com.aws.calls().iter().any(changes));
        assert_eq!(
            (self.world.com.aws.images().len(), self.world.com.aws.snapshots().len()),
            (1, 2)
        );
        assert_eq!(self.world.com.aws.image(&self.ami).expect("there").state, "available");
    }
}

#[test]
fn retire_needs_a_confirmation_without_a_terminal() {
    let work = Retirement::new();
    work.retire(&["--deregister"]).failed(2, &["--yes", "--dry-run"]);
    assert!(work.world.com.aws.counts().is_empty());
}

#[test]
fn a_dry_run_of_retire_only_compares() {
    let work = Retirement::new();
    let outcome = work.retire(&["--deregister", "--delete-snapshots", "--dry-run"]).succeeded();
    assert!(
        outcome.text().contains("would deregister")
            && work.snapshots.iter().all(|id| outcome.text().contains(id)),
        "{}",
        outcome.text()
    );
    assert_eq!(work.world.com.aws.count("GetSnapshotBlock"), 4 + 2);
    work.assert_untouched();
}

#[test]
fn an_image_is_deprecated_disabled_or_deregistered() {
    let work = Retirement::new();
    let image = || work.world.com.aws.image(&work.ami).expect("there");
    work.retire(&["--deprecate", "--yes"]).succeeded();
    assert!(image().deprecation_time.is_some());
    work.retire(&["--deprecate", "2035-06-01T00:00:00Z", "--yes"]).succeeded();
    assert_eq!(image().deprecation_time.as_deref(), Some("2035-06-01T00:00:00.000Z"));
    work.retire(&["--disable", "--yes"]).succeeded();
    assert_eq!(image().state, "disabled");
    let outcome = work.retire(&["--deregister", "--yes", "--output", "json"]).succeeded().json();
    assert_eq!((&outcome["Action"], &outcome["DryRun"]), (&json!("deregister"), &json!(false)));
    assert_eq!((work.world.com.aws.images().len(), work.world.com.aws.snapshots().len()), (0, 2));
}

#[test]
fn snapshots_are_deleted_unless_another_image_uses_them() {
    let work = Retirement::new();
    let other = work.world.com.aws.add_image(Image::new("other", &work.snapshots[1]));
    let outcome = work
        .retire(&["--deregister", "--delete-snapshots", "--yes", "--output", "json"])
        .succeeded()
        .json();
    assert_eq!(
        outcome["Snapshots"],
        json!([
            {"SnapshotId": work.snapshots[0], "Deleted": true, "UsedBy": []},
            {"SnapshotId": work.snapshots[1], "Deleted": false, "UsedBy": [other]},
        ])
    );
    assert_eq!(
        work.world.com.aws.snapshots().iter().map(|snapshot| &snapshot.id).collect::<Vec<_>>(),
        [&work.snapshots[1]]
    );
}

#[test]
fn a_user_of_a_snapshot_on_a_later_page_is_found() {
    let work = Retirement::new();
    let others: Vec<String> = (0..3)
        .map(|number| {
            work.world.com.aws.add_image(Image::new(&format!("other {number}"), &work.snapshots[0]))
        })
        .collect();
    work.world.com.aws.set(|settings| settings.ec2_page_cap = Some(1));
    let outcome = work
        .retire(&["--deregister", "--delete-snapshots", "--dry-run", "--output", "json"])
        .succeeded()
        .json();
    assert_eq!(outcome["Snapshots"][0]["UsedBy"].as_array().expect("a list").len(), others.len());
}

#[test]
fn an_image_with_a_different_block_is_not_retired() {
    let work = Retirement::new();
    work.world.com.aws.change_snapshot(&work.snapshots[1], |snapshot| {
        drop(snapshot.blocks.insert(9, Content::bytes(b"other")));
    });
    let refused = work.retire(&["--deregister", "--delete-snapshots", "--yes"]);
    refused.failed(5, &["nothing was done", &work.snapshots[1], "blocks: 9"]);
    work.assert_untouched();
}

#[test]
fn an_image_with_a_block_more_or_less_is_not_retired() {
    type Change = fn(&mut BTreeMap<u32, Content>);
    let changes: [Change; 2] =
        [|blocks| drop(blocks.insert(77, Content::Zero)), |blocks| drop(blocks.remove(&9))];
    for change in changes {
        let work = Retirement::new();
        work.world
            .com
            .aws
            .change_snapshot(&work.snapshots[0], |snapshot| change(&mut snapshot.blocks));
        work.retire(&["--deregister", "--yes"])
            .failed(5, &["nothing was done", &work.snapshots[0]]);
        work.assert_untouched();
    }
}

#[test]
fn an_image_with_a_damaged_archive_is_not_retired() {
    let work = Retirement::new();
    let mut archive = work.world.sandbox.read("a.bin");
    let middle = archive.len() / 2;
    archive[middle] ^= 1;
    work.world.sandbox.write("a.bin", &archive);
    work.retire(&["--deregister", "--yes"]).failed(5, &["a.bin"]);
    work.world.sandbox.write("a.bin", &archive[..middle]);
    work.retire(&["--deregister", "--yes"]).failed(5, &["a.bin"]);
    work.world.sandbox.remove("a.bin");
    work.retire(&["--deregister", "--yes"]).failed(3, &["a.bin"]);
    work.assert_untouched();
}

#[test]
fn an_image_is_not_retired_by_the_archive_of_another() {
    let work = Retirement::new();
    let twin =
        Image { id: String::new(), ..work.world.com.aws.image(&work.ami).expect("an image") };
    let twin = work.world.com.aws.add_image(Image { name: "twin".into(), ..twin });
    let refused = work.world.run(
        &[&["retire", &twin, "--archive", "a.bin", "--deregister", "--yes"][..], &COM].concat(),
    );
    refused.failed(5, &["nothing was done"]);
    work.world.com.aws.remove_image(&twin);
    work.assert_untouched();
}

#[test]
fn an_image_that_was_stored_with_another_name_is_retired() {
    let work = Retirement::new();
    work.world.com.aws.change_image(&work.ami, |image| image.name = "web: server".into());
    let store = ["store", &work.ami, "a.bin", "--force"];
    work.world.run(&[&store[..], &COM].concat()).failed(2, &["--name"]);
    work.world.run(&[&store[..], &["--name", "good name"], &COM].concat()).succeeded();
    work.world.com.aws.reset_calls();
    work.retire(&["--deregister", "--dry-run"]).succeeded();
    work.assert_untouched();
    work.retire(&["--deregister", "--yes"]).succeeded();
    assert_eq!(work.world.com.aws.images().len(), 0);
}

#[test]
fn a_protected_image_is_refused_before_the_comparison() {
    let work = Retirement::new();
    work.world.com.aws.change_image(&work.ami, |image| {
        image.deregistration_protection = Some("enabled-with-cooldown".into());
    });
    work.retire(&["--deregister", "--yes"]).failed(4, &["protected", &work.ami]);
    work.world.com.aws.change_image(&work.ami, |image| {
        image.deregistration_protection = None;
        image.tags.insert("aws:backup:source-resource".into(), "x".into());
    });
    work.retire(&["--deregister", "--yes"]).failed(4, &["AWS Backup"]);
    assert_eq!(work.world.com.aws.count("GetSnapshotBlock"), 0);
    work.assert_untouched();
}

#[test]
fn a_lost_answer_of_deregister_image_does_not_keep_the_snapshots() {
    let work = Retirement::new();
    work.world.com.aws.fail(Fault::on("DeregisterImage", FaultKind::ResetAfter));
    work.retire(&["--deregister", "--delete-snapshots", "--yes"]).succeeded();
    assert_eq!((work.world.com.aws.images().len(), work.world.com.aws.snapshots().len()), (0, 0));
}

#[test]
fn an_image_stays_if_its_snapshots_may_not_be_deleted() {
    let work = Retirement::new();
    work.world.com.aws.deny("DeleteSnapshot");
    work.retire(&["--deregister", "--delete-snapshots", "--yes"])
        .failed(4, &[&work.snapshots[0], "DeleteSnapshot"]);
    assert_eq!(work.world.com.aws.count("GetSnapshotBlock"), 0);
    work.assert_untouched();
}

#[test]
fn snapshots_that_could_not_be_deleted_are_named() {
    let work = Retirement::new();
    // After two dry runs for each.
    for nth in [5, 6] {
        work.world
            .com
            .aws
            .fail(Fault::on("DeleteSnapshot", FaultKind::error(400, "SomethingNew")).nth(nth));
    }
    let refused = work.retire(&["--deregister", "--delete-snapshots", "--yes"]);
    refused.failed(6, &[&work.ami, &work.snapshots[0], &work.snapshots[1], "DeleteSnapshot"]);
    assert_eq!((work.world.com.aws.images().len(), work.world.com.aws.snapshots().len()), (0, 2));
}
