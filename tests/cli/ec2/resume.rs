//! Stores to S3 that are interrupted or repeated, restores that are interrupted, and `clean`.

use std::collections::BTreeMap;

use amistore_aws_double::aws::{Content, Fault, FaultKind, Image, Mapping};
use amistore_aws_double::s3::{Fault as S3Fault, FaultKind as S3FaultKind, When};
use serde_json::json;

use super::partitions::Partitions;
use crate::support::cli::wait_until;
use crate::support::ec2::assert_same;
use crate::tasks::assert_dry_run_refuses;

const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];
const BLOCK: u64 = 512 << 10;

/// An image of 48 blocks that do not compress, and some others.
fn large_image(world: &Partitions) -> (String, String) {
    let blocks = (0..48)
        .map(|index| (index, Content::random(1)))
        .chain([(60, Content::Zero), (100, Content::bytes(b"x"))]);
    let snapshot = world.com.aws.snapshot_of(1, blocks);
    (world.com.aws.add_image(Image::new("large", &snapshot)), snapshot)
}

fn reads(world: &Partitions) -> BTreeMap<u32, usize> {
    let mut reads = BTreeMap::new();
    let calls = world.com.aws.calls();
    for block in calls
        .iter()
        .filter(|call| call.operation == "GetSnapshotBlock")
        .filter_map(|call| call.block)
    {
        *reads.entry(block).or_insert(0) += 1;
    }
    reads
}

#[test]
fn a_resumed_store_reads_no_uploaded_block_again() {
    let world = Partitions::new();
    let (ami, _) = large_image(&world);
    let args = [&["store", &ami, "s3://images/", "--part-size", "5MiB"][..], &COM].concat();
    world.com.s3.fail(S3Fault::new(S3FaultKind::AccessDenied, When::CallOf("UploadPart", 4)));
    world.run(&args).failed(4, &["continue with: amistore store"]);
    wait_until("connections to end", || world.com.s3.open_connections() == 0);
    world.com.s3.clear_faults();
    let upload = world.com.s3.open_uploads("images");
    let parts: BTreeMap<u32, u64> = upload
        .iter()
        .flat_map(|upload| upload.parts.iter())
        .map(|(number, part)| (*number, part.bytes.len() as u64))
        .collect();
    let up: u64 = parts.values().sum();
    assert!(up > 4 << 20, "some parts are up");
    // A cell has up to 8 blocks; one that lies across the end of a run of parts, or across its
    // beginning, is read again.
    let runs = parts.keys().filter(|number| !parts.contains_key(&(*number + 1))).count() as u64;
    world.com.aws.change_image(&ami, |image| {
        image.last_launched = Some("2026-06-01T00:00:00Z".into());
        image.tags.insert("new".into(), "1".into());
    });
    world.com.aws.reset_calls();
    let stored = world.json(&args);
    assert_eq!(stored["Outcome"], json!("stored"));
    let mut reads = reads(&world);
    // The preflight reads one block. It is read again if its part was not uploaded.
    let first = reads.insert(0, 1).unwrap_or(0);
    assert_eq!(first, 1 + usize::from(!parts.contains_key(&1)), "{reads:?}");
    assert!(
        (reads.len() as u64) <= 50 - up / BLOCK + 17 * runs - 8,
        "{} of 50, {up} bytes were up",
        reads.len()
    );
    assert!(reads.values().all(|times| *times == 1));
    let object = format!("s3://images/{ami}.bin");
    let restored = world.json(&[
        "restore",
        &object,
        "ec2",
        "--source-profile",
        "com",
        "--target-profile",
        "gov",
    ]);
    world.com.aws.change_image(&ami, |image| drop(image.tags.remove("new")));
    assert_same(
        &world.com.aws,
        &ami,
        &world.gov.aws,
        restored["RestoredImageId"].as_str().expect("an image"),
    );
}

#[test]
fn a_second_store_finds_the_first_without_reading_blocks() {
    let world = Partitions::new();
    let (ami, _) = large_image(&world);
    let args = [&["store", &ami, "s3://images/"][..], &COM].concat();
    assert_eq!(world.json(&args)["Outcome"], json!("stored"));
    world
        .com
        .aws
        .change_image(&ami, |image| image.last_launched = Some("2026-06-01T00:00:00Z".into()));
    world.com.aws.reset_calls();
    assert_eq!(world.json(&args)["Outcome"], json!("present"));
    assert_eq!(reads(&world).len(), 1, "one, to see whether it can be read");
    let other = world.com.aws.snapshot_of(1, [(0, Content::random(1))]);
    world
        .com
        .aws
        .change_image(&ami, |image| image.mappings = vec![Mapping::of("/dev/xvda", &other)]);
    world.run(&args).failed(9, &["another image"]);
}

/// An image of three volumes, some of whose blocks do not compress.
fn wide_image(world: &Partitions) -> String {
    let snapshots: Vec<String> = (0..3u64)
        .map(|volume| {
            world.com.aws.snapshot_of(
                1,
                (0..16 + volume as u32).map(|index| (3 * index, Content::random(10 + volume))),
            )
        })
        .collect();
    let mut image = Image::new("wide", &snapshots[0]);
    image
        .mappings
        .extend([Mapping::of("/dev/sdb", &snapshots[1]), Mapping::of("/dev/sdc", &snapshots[2])]);
    world.com.aws.add_image(image)
}

#[test]
fn a_parallel_upload_of_snapshots_makes_the_same_object() {
    let world = Partitions::new();
    let ami = wide_image(&world);
    world.run(&[&["store", &ami, "a.bin"][..], &COM].concat()).succeeded();
    let args = [
        &[
            "store",
            &ami,
            "s3://images/",
            "--part-size",
            "5MiB",
            "--memory",
            "512MiB",
            "--volumes-at-once",
            "3",
        ][..],
        &COM,
    ]
    .concat();
    world.com.s3.fail(S3Fault::new(S3FaultKind::AccessDenied, When::CallOf("UploadPart", 3)));
    world.run(&args).failed(4, &["continue with: amistore store"]);
    world.com.s3.clear_faults();
    assert_eq!(world.json(&args)["Outcome"], json!("stored"));
    let object = world.com.s3.object("images", &format!("{ami}.bin")).expect("an object");
    assert!(object.bytes[..] == world.sandbox.read("a.bin")[..], "another archive");
    assert!(world.com.s3.open_uploads("images").is_empty());
}

#[test]
fn a_dry_run_prints_the_number_of_parallel_snapshots() {
    let world = Partitions::new();
    let snapshots: Vec<String> = (0..3)
        .map(|_| world.com.aws.snapshot_of(1, (0..600).map(|index| (index, Content::Zero))))
        .collect();
    let snapshots = snapshots.join(",");
    let floor = |at_once| {
        let args = [
            "store",
            &snapshots,
            "s3://images/",
            "--memory",
            "512MiB",
            "--ebs-account-rate",
            "5000",
            "--dry-run",
            "--volumes-at-once",
            at_once,
        ];
        world.json(&[&args[..], &COM].concat())["Ebs"]["SecondsAtLeast"].as_f64().expect("a time")
    };
    assert_eq!((floor("1"), floor("3")), (1.8, 0.6));
}

#[test]
fn impossible_numbers_of_parallel_volumes_are_refused() {
    let world = Partitions::new();
    let ami = wide_image(&world);
    let with =
        |more: &[&str]| world.run(&[&["store", &ami, "s3://images/"][..], &COM, more].concat());
    with(&["--volumes-at-once", "0"]).failed(2, &["more than 0"]);
    with(&["--volumes-at-once", "2", "--checksum-algorithm", "SHA256"])
        .failed(2, &["MD5 only", "one volume at a time"]);
    with(&["--volumes-at-once", "2", "--memory", "64MiB"])
        .failed(7, &["in parallel", "missing bytes", "--memory"]);
    assert!(
        world.com.s3.open_uploads("images").is_empty()
            && world.com.s3.object("images", &format!("{ami}.bin")).is_none()
    );
    with(&["--volumes-at-once", "2", "--checksum-algorithm", "md5", "--memory", "512MiB"])
        .succeeded();
}

#[test]
fn disks_without_a_whole_number_of_gib_become_an_image() {
    let world = Partitions::new();
    let size = 20 * BLOCK + 4096;
    world.sandbox.disk(
        "root.raw",
        size,
        &[(0, b"boot".to_vec()), (3, vec![0; BLOCK as usize]), (20, b"end".to_vec())],
    );
    world
        .run(&["store", "--disk", "/dev/xvda=root.raw", "--name", "from disk", "a.bin"])
        .succeeded()
        .says(&["not whole GiB"]);
    let restored = world.json(&["restore", "a.bin", "ec2", "--target-profile", "gov"]);
    let image = world
        .gov
        .aws
        .image(restored["RestoredImageId"].as_str().expect("an image"))
        .expect("there");
    let snapshot = world
        .gov
        .aws
        .snapshot(image.mappings[0].snapshot_id().expect("a snapshot"))
        .expect("there");
    assert_eq!(
        (snapshot.volume_size, snapshot.state.as_str(), image.architecture.as_str()),
        (1, "completed", "x86_64")
    );
    let disk = world.sandbox.read("root.raw");
    for index in 0..40 {
        let mut expected = disk.get(index * BLOCK as usize..).unwrap_or_default().to_vec();
        expected.resize(BLOCK as usize, 0);
        assert!(snapshot.block(index as u32) == expected, "block {index}");
    }
    // Zero blocks are sent; absent blocks are not.
    assert!(snapshot.blocks.keys().copied().eq([0, 3, 20]), "{:?}", snapshot.blocks.keys());
}

/// An archive of the large image, as `a.bin`.
fn archived() -> (Partitions, String) {
    let world = Partitions::new();
    let (ami, _) = large_image(&world);
    world.run(&[&["store", &ami, "a.bin"][..], &COM].concat()).succeeded();
    (world, ami)
}

#[test]
fn an_interrupted_restore_keeps_its_snapshot_and_prints_how_to_resume() {
    let (world, ami) = archived();
    for signal in ["INT", "TERM"] {
        let args = ["restore", "a.bin", "ec2", "--target-profile", "gov"];
        hang_at_block_40(&world);
        world.gov.aws.reset_calls();
        let mut running = world.start(&args);
        let there =
            || world.gov.aws.snapshots().first().map_or(0, |snapshot| snapshot.blocks.len());
        wait_until("the block, and most others", || {
            world.gov.aws.calls().iter().any(|call| call.block == Some(40)) && there() >= 40
        });
        // The program has to receive and record the confirmations; meanwhile it can do nothing
        // else.
        let recorded = || task_file_len(&world);
        wait_until("its records", || {
            let before = recorded();
            std::thread::sleep(std::time::Duration::from_millis(250));
            before > 0 && recorded() == before
        });
        running.signal(signal);
        let outcome = running.wait();
        assert_eq!(outcome.code, 130, "{}", outcome.stderr);
        outcome.says(&["interrupted", "amistore restore a.bin ec2 --target-profile gov"]);
        assert_eq!((world.gov.aws.images().len(), world.gov.aws.snapshots().len()), (0, 1));
        world.gov.aws.clear_faults();
    }
    world.gov.aws.reset_calls();
    let restored = world.json(&["restore", "a.bin", "ec2", "--target-profile", "gov"]);
    assert!(world.gov.aws.count("PutSnapshotBlock") < 30, "most of it was there");
    assert_eq!((world.gov.aws.count("StartSnapshot"), world.gov.aws.snapshots().len()), (0, 1));
    assert_same(
        &world.com.aws,
        &ami,
        &world.gov.aws,
        restored["RestoredImageId"].as_str().expect("an image"),
    );
}

/// Bytes of all task files.
fn task_file_len(world: &Partitions) -> u64 {
    let entries = std::fs::read_dir(world.sandbox.path("state")).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let tasks = paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "task"));
    tasks.map(|path| path.metadata().map_or(0, |file| file.len())).sum()
}

/// A restore to the second partition stays before its end: one block is not confirmed.
fn hang_at_block_40(world: &Partitions) {
    world.gov.aws.fail(
        Fault::on("PutSnapshotBlock", FaultKind::Hang(std::time::Duration::from_secs(20)))
            .block(40)
            .always(),
    );
}

/// Runs a restore to the second partition, and kills it after most of its blocks.
fn kill_in_the_middle(world: &Partitions, args: &[&str]) {
    hang_at_block_40(world);
    let mut running = world.start(args);
    wait_until("some blocks", || world.gov.aws.count("PutSnapshotBlock") > 35);
    running.signal("KILL");
    running.wait();
    world.gov.aws.clear_faults();
}

#[test]
fn a_killed_restore_resumes() {
    let (world, ami) = archived();
    let args = ["restore", "a.bin", "ec2", "--target-profile", "gov"];
    kill_in_the_middle(&world, &args);
    let restored = world.json(&args);
    assert_same(
        &world.com.aws,
        &ami,
        &world.gov.aws,
        restored["RestoredImageId"].as_str().expect("an image"),
    );
    assert_eq!((world.gov.aws.count("StartSnapshot"), world.gov.aws.snapshots().len()), (1, 1));
}

#[test]
fn a_dry_run_of_a_restore_refuses_an_interrupted_task_as_the_run_does() {
    let (world, _) = archived();
    let args = ["restore", "a.bin", "ec2", "--target-profile", "gov"];
    kill_in_the_middle(&world, &args);
    assert_dry_run_refuses(&world.sandbox, &|args| world.run(args), &args, &["--encrypted"]);
}

#[test]
fn an_interrupted_restore_of_a_stream_leaves_nothing() {
    let (world, _) = archived();
    let archive = world.sandbox.read("a.bin");
    let mut command = world.command(&["restore", "-", "ec2", "--target-profile", "gov"]);
    let mut running = world.sandbox.start(command.stdin(std::process::Stdio::piped()));
    std::thread::scope(|scope| {
        let stdin = running.child().stdin.take();
        let feeder = scope.spawn(move || {
            use std::io::Write;
            // Half of the archive, and then no more bytes.
            let mut stdin = stdin.expect("a pipe");
            let _ = stdin.write_all(&archive[..archive.len() / 2]);
            stdin
        });
        wait_until("some blocks", || world.gov.aws.count("PutSnapshotBlock") > 3);
        running.signal("INT");
        let outcome = running.wait();
        // The pipe is closed only now: an early end would be a truncated archive.
        drop(feeder.join());
        assert_eq!(outcome.code, 130, "{}", outcome.stderr);
    });
    assert_eq!((world.gov.aws.images().len(), world.gov.aws.snapshots().len()), (0, 0));
}

#[test]
fn resources_made_during_an_interruption_are_recorded() {
    for operation in ["StartSnapshot", "RegisterImage"] {
        let (world, _) = archived();
        let archive = world.sandbox.read("a.bin");
        world.gov.aws.fail(
            Fault::on(operation, FaultKind::Delay(std::time::Duration::from_millis(1500)))
                .nth(if operation == "StartSnapshot" { 1 } else { 2 }),
        );
        let mut command = world.command(&["restore", "-", "ec2", "--target-profile", "gov"]);
        let mut running = world.sandbox.start(command.stdin(std::process::Stdio::piped()));
        let made = || match operation {
            "StartSnapshot" => world.gov.aws.snapshots().len(),
            _ => world.gov.aws.images().len(),
        };
        let outcome = std::thread::scope(|scope| {
            let stdin = running.child().stdin.take();
            let archive = &archive;
            scope.spawn(move || std::io::Write::write_all(&mut stdin.expect("a pipe"), archive));
            wait_until("it to be made, before that is heard", || made() == 1);
            running.signal("INT");
            running.wait()
        });
        // A snapshot is deleted; a registered image is reported.
        let images = world.gov.aws.images().len();
        assert_eq!(
            (images, world.gov.aws.snapshots().len()),
            if operation == "StartSnapshot" { (0, 0) } else { (1, 1) },
            "{}",
            outcome.stderr
        );
        assert!(
            operation == "StartSnapshot"
                || outcome.stderr.contains(&world.gov.aws.images()[0].id)
                || outcome.text().contains(&world.gov.aws.images()[0].id),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn snapshots_of_unfinished_restores_are_listed_and_deleted() {
    let (world, _) = archived();
    // The first request is the dry run.
    world.gov.aws.fail(Fault::on("RegisterImage", FaultKind::error(400, "SomethingNew")).nth(2));
    world
        .run(&["restore", "a.bin", "ec2", "--target-profile", "gov"])
        .failed(6, &["RegisterImage", "continue with"]);
    let id = world.gov.aws.snapshots()[0].id.clone();
    let listed = world.run(&["clean"]).succeeded();
    assert!(
        listed.text().contains(&id) && listed.text().contains("nothing was removed"),
        "{}",
        listed.text()
    );
    assert_eq!(world.gov.aws.snapshots().len(), 1);
    world.gov.aws.deny("DeleteSnapshot");
    let refused = world.run(&["clean", "--abort"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused.text().contains(&id)
            && !refused.text().contains("removed snapshot")
            && !refused.text().contains("uses")
    );
    world.gov.aws.allow("DeleteSnapshot");
    let cleaned = world.run(&["clean", "--abort"]).succeeded();
    assert!(cleaned.text().contains(&format!("removed snapshot {id}")), "{}", cleaned.text());
    assert_eq!(world.gov.aws.snapshots().len(), 0);
    assert!(world.run(&["clean"]).succeeded().text().contains("nothing was left behind"));
}
