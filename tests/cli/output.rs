//! Output for programs: JSON results, JSON errors, JSON progress, and clean streams.

use serde_json::Value;

use crate::support::cli::{DATA, IMAGE, ROOT, Sandbox, noise, sample_archive};
use crate::support::schema::Schema;

fn members(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

const VOLUME: [&str; 7] = [
    "AllocatedBytes",
    "ContentSha256",
    "Ratio",
    "SnapshotId",
    "StoredBytes",
    "VolumeBytes",
    "ZeroBytes",
];

#[test]
fn a_store_reports_in_json() {
    let sandbox = Sandbox::with_image();
    let report = sandbox.run(&["store", "image", "a.bin", "--output", "json"]).succeeded().json();
    assert_eq!(
        members(&report),
        [
            "Archive",
            "ArchiveBytes",
            "ContentSha256",
            "DryRun",
            "ImageId",
            "MetadataChanged",
            "Outcome",
            "RootSha256",
            "S3objectKey",
            "SentAsAWhole",
            "Volumes",
            "Warnings"
        ]
    );
    assert_eq!((&report["Archive"], &report["ImageId"]), (&"./a.bin".into(), &IMAGE.into()));
    assert_eq!(report["ArchiveBytes"], sandbox.read("a.bin").len());
    assert_eq!(members(&report["Volumes"][0]), VOLUME);
    assert_eq!(
        (&report["Volumes"][1]["SnapshotId"], &report["Volumes"][1]["AllocatedBytes"]),
        (&DATA.into(), &(3 << 19).into())
    );
}

#[test]
fn a_planned_store_reports_in_json() {
    let report = Sandbox::with_image()
        .run(&["store", "image", "a.bin", "--dry-run", "--output", "json"])
        .succeeded()
        .json();
    assert_eq!(
        members(&report),
        [
            "Archive",
            "ArchiveBytes",
            "ArchiveBytesAtMost",
            "ContentSha256",
            "DryRun",
            "ImageId",
            "Memory",
            "Outcome",
            "RootSha256",
            "S3objectKey",
            "Volumes",
            "Warnings"
        ]
    );
    assert_eq!(
        members(&report["Volumes"][0]),
        ["AllocatedBytes", "Extents", "SnapshotId", "VolumeBytes"]
    );
    assert_eq!((&report["DryRun"], &report["Volumes"][0]["Extents"]), (&true.into(), &4.into()));
}

#[test]
fn a_restore_reports_in_json() {
    let sandbox = Sandbox::with_archive();
    for (more, dry_run) in [(&["--dry-run"][..], true), (&[], false)] {
        let report = sandbox
            .run(&[&["restore", "a.bin", "out", "--output", "json"], more].concat())
            .succeeded()
            .json();
        let mut expected = vec![
            "Archive",
            "ArchiveBytes",
            "ContentSha256",
            "DryRun",
            "ImageId",
            "Outcome",
            "RestoredImageId",
            "RootSha256",
            "Target",
            "Volumes",
            "Warnings",
        ];
        if dry_run {
            expected.insert(5, "Memory");
        }
        assert_eq!(members(&report), expected);
        assert_eq!((&report["DryRun"], &report["Target"]), (&dry_run.into(), &"out".into()));
        assert_eq!(
            members(&report["Volumes"][0]),
            ["AllocatedBytes", "File", "SnapshotId", "VolumeBytes"]
        );
        assert_eq!(report["Volumes"][0]["File"], format!("{ROOT}.raw"));
    }
}

#[test]
fn a_verification_reports_in_json() {
    let report =
        Sandbox::with_archive().run(&["verify", "a.bin", "--output", "json"]).succeeded().json();
    let expected = [
        "Archive",
        "ArchiveBytes",
        "BlocksChecked",
        "CellsChecked",
        "Checked",
        "ContentSha256",
        "DryRun",
        "Findings",
        "FindingsNotListed",
        "ImageId",
        "MetadataChanged",
        "Outcome",
        "RootSha256",
        "Sampled",
        "Warnings",
    ];
    assert_eq!(members(&report), expected);
}

#[test]
fn an_extraction_reports_in_json() {
    let sandbox = Sandbox::with_archive();
    for more in [&["--dry-run"][..], &[]] {
        let report = sandbox
            .run(
                &[
                    &["extract", "a.bin", "--snapshot", ROOT, "-o", "x.raw", "--output", "json"],
                    more,
                ]
                .concat(),
            )
            .succeeded()
            .json();
        assert_eq!(
            members(&report),
            [
                "AllocatedBytes",
                "Archive",
                "BytesRead",
                "ContentSha256",
                "DryRun",
                "File",
                "ImageId",
                "Outcome",
                "RootSha256",
                "SnapshotId",
                "StoredBytes",
                "VolumeBytes",
                "Warnings"
            ]
        );
    }
}

#[test]
fn an_inspection_reports_in_json() {
    let report =
        Sandbox::with_archive().run(&["inspect", "a.bin", "--output", "json"]).succeeded().json();
    let expected = [
        "Archive",
        "ArchiveBytes",
        "BytesRead",
        "Codec",
        "ContentSha256",
        "DryRun",
        "Format",
        "FormatVersion",
        "Image",
        "ImageId",
        "Outcome",
        "RootSha256",
        "Snapshots",
        "Volumes",
        "Warnings",
        "Writer",
    ];
    assert_eq!(members(&report), expected);
    assert_eq!(members(&report["Codec"]), ["Level", "Library", "Name"]);
}

#[test]
fn the_output_format_can_come_from_the_environment() {
    let sandbox = Sandbox::with_archive();
    let output = sandbox
        .command(&["verify", "a.bin"])
        .env("AMISTORE_OUTPUT", "json")
        .output()
        .expect("the program to run");
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok());
}

#[test]
fn an_error_is_one_json_object() {
    let sandbox = Sandbox::with_image()
        .and("a.bin", "precious")
        .and("broken.raw", [1; 1000])
        .and("text", "text");
    for (args, kind, code) in [
        (&["store", "nowhere", "b.bin"][..], "not_found", 3),
        (&["store", "image", "a.bin"], "exists", 9),
        (&["verify", "text"], "unsupported", 8),
        (&["verify", "nowhere"], "not_found", 3),
        (&["inspect", "text", "--memory", "1"], "limit", 7),
        (&["restore", "text", "out", "--threads", "0"], "usage", 2),
        (&["store", "--disk", "/dev/xvda=broken.raw", "--name", "sample", "b.bin"], "usage", 2),
    ] {
        let outcome = sandbox.run(&[args, &["--output", "json"]].concat());
        assert_eq!((outcome.code, outcome.stdout.len()), (code, 0), "{args:?}: {}", outcome.stderr);
        let error = outcome.json_error();
        assert_eq!(error["kind"], kind, "{args:?}");
    }
}

#[test]
fn an_error_in_json_has_facts_causes_and_a_hint() {
    let sandbox = Sandbox::with_image().and("broken.raw", [1; 1000]);
    let error = sandbox
        .run(&[
            "store",
            "--disk",
            "/dev/xvda=broken.raw",
            "--name",
            "sample",
            "b.bin",
            "--output",
            "json",
        ])
        .json_error();
    assert_eq!(error["context"]["size"], 1000);
    assert_eq!(error["context"]["path"], "broken.raw");
    assert!(error["hint"].is_string());
    let error = sandbox.run(&["verify", "nowhere", "--output", "json"]).json_error();
    assert_eq!(error["causes"][0], "No such file or directory (os error 2)");
    assert!(error["hint"].is_null());
}

#[test]
fn wrong_arguments_are_an_error_in_json_too() {
    let sandbox = Sandbox::new();
    for (args, says) in [
        (
            &["verify", "--output", "json"][..],
            "the following required arguments were not provided: <ARCHIVE>",
        ),
        (
            &["--output=json", "verify"],
            "the following required arguments were not provided: <ARCHIVE>",
        ),
        (
            &["--output", "json", "verify", "a", "--nonsense"],
            "unexpected argument '--nonsense' found",
        ),
        (&["--output", "json", "nonsense"], "unrecognized subcommand 'nonsense'"),
        (
            &["store", "a", "b", "--output", "json", "--level", "x"],
            "invalid value 'x' for '--level",
        ),
    ] {
        let outcome = sandbox.run(args);
        assert_eq!((outcome.code, outcome.stdout.len()), (2, 0), "{args:?}");
        let error = outcome.json_error();
        assert_eq!(error["kind"], "usage");
        assert!(
            error["message"].as_str().is_some_and(|message| message.starts_with(says)),
            "{error}"
        );
    }
}

#[test]
fn wrong_arguments_are_answered_with_the_valid_ones() {
    Sandbox::new()
        .run(&["verify"])
        .failed(2, &["required arguments", "<ARCHIVE>", "Usage: amistore verify <ARCHIVE>"]);
}

/// stderr as lines of JSON.
#[track_caller]
fn events(stderr: &str) -> Vec<Value> {
    stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .inspect(|line: &Value| {
            let is_error = line["event"].is_null();
            let schema = if is_error { Schema::of_errors() } else { Schema::of_progress() };
            schema.assert_met(line);
        })
        .collect()
}

#[test]
fn progress_is_lines_of_json() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    for (args, stage) in [
        (&["store", "image", "b.bin"][..], "store"),
        (&["restore", "a.bin", "out"], "restore"),
        (&["verify", "a.bin"], "verify"),
        (&["extract", "a.bin", "--device", "/dev/sdb", "-o", "x.raw"], "restore"),
    ] {
        // `--quiet` does not suppress events that `--progress json` requests.
        let outcome = sandbox.run(&[args, &["--progress", "json", "--quiet"]].concat()).succeeded();
        let events = events(&outcome.stderr);
        let of_stage: Vec<&Value> = events.iter().filter(|event| event["stage"] == stage).collect();
        assert_eq!(
            of_stage.first().map(|event| &event["event"]),
            Some(&"started".into()),
            "{args:?}: {}",
            outcome.stderr
        );
        let last = of_stage.last().expect("an end");
        assert_eq!(last["event"], "finished", "{args:?}");
        assert!(last["bytes"].as_u64().is_some_and(|bytes| bytes >= 3 << 19), "{args:?}: {last}");
        let mut expected = vec![
            "archive_bytes",
            "bytes",
            "bytes_per_second",
            "elapsed_seconds",
            "eta_seconds",
            "event",
            "stage",
            "total_bytes",
        ];
        expected.extend(["kept_bytes", "received_bytes", "retries", "sent_bytes"]);
        expected.sort_unstable();
        assert_eq!(members(last), expected);
    }
}

#[test]
fn a_stream_reports_progress_too() {
    let outcome = Sandbox::new()
        .run_with_input(&["restore", "-", "out", "--progress", "json"], sample_archive())
        .succeeded();
    let stages: Vec<_> = events(&outcome.stderr)
        .iter()
        .map(|event| (event["stage"].clone(), event["event"].clone()))
        .collect();
    let pair = |stage: &str, event: &str| (Value::from(stage), Value::from(event));
    for expected in
        [pair("restore", "started"), pair("restore", "finished"), pair("sync", "finished")]
    {
        assert!(stages.contains(&expected), "{stages:?}");
    }
}

#[test]
fn damage_is_an_event() {
    let mut bytes = sample_archive().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let sandbox = Sandbox::new().and("a.bin", bytes);
    let outcome = sandbox.run(&["verify", "a.bin", "--progress", "json", "--output", "json"]);
    let events = events(&outcome.stderr);
    assert!(
        events
            .iter()
            .any(|event| event["event"] == "damage" && event["context"]["snapshot"] == DATA),
        "{}",
        outcome.stderr
    );
    assert_eq!(events.last().map(|event| &event["kind"]), Some(&"corrupt".into()));
}

#[test]
fn a_quiet_success_prints_nothing_on_stderr() {
    // A disk that causes a warning.
    let sandbox = Sandbox::with_archive().and("disk.raw", noise(1, 1));
    for args in [
        &["store", "--disk", "/dev/xvda=disk.raw", "--name", "sample", "b.bin"][..],
        &["store", "--disk", "/dev/xvda=disk.raw", "--name", "sample", "-"],
        &["restore", "a.bin", "out"],
        &["verify", "a.bin"],
        &["extract", "a.bin", "--device", "/dev/sdb", "-o", "x.raw"],
        &["inspect", "a.bin"],
    ] {
        assert_eq!(sandbox.run(&[args, &["--quiet"]].concat()).succeeded().stderr, "", "{args:?}");
    }
}

#[test]
fn a_short_run_prints_only_its_result() {
    let sandbox = Sandbox::with_image();
    let outcome = sandbox.run(&["store", "image", "a.bin"]).succeeded();
    assert_eq!(outcome.stderr, "");
    assert!(
        outcome.text().starts_with(&format!("stored {IMAGE} as ./a.bin (")),
        "{}",
        outcome.text()
    );
}

#[test]
fn stdout_has_only_the_archive() {
    let sandbox = Sandbox::with_image();
    for form in ["text", "json"] {
        let outcome = sandbox.run(&["store", "image", "-", "--output", form]).succeeded();
        assert!(outcome.stdout == sample_archive());
        assert!(outcome.stderr.contains("standard output"), "{}", outcome.stderr);
    }
    assert_eq!(sandbox.left(&["image", "image/"]), [""; 0]);
}

#[test]
fn an_archive_goes_through_a_pipe_from_store_to_restore() {
    let sandbox = Sandbox::with_image();
    let outcome =
        sandbox.shell("\"$AMISTORE\" store -q image - | \"$AMISTORE\" restore - out").succeeded();
    assert!(
        outcome.text().starts_with(&format!("restored {IMAGE} to out\n")),
        "{}",
        outcome.text()
    );
    assert_eq!(sandbox.left(&["image", "image/"]).len(), 4);
}

#[test]
fn verbose_output_explains_decisions() {
    let outcome = Sandbox::with_archive()
        .run(&["inspect", "a.bin", "--verbose", "--threads", "2"])
        .succeeded();
    outcome.says(&["2 threads", "bytes of the archive read"]);
}

#[test]
fn messages_have_no_colours_without_a_terminal() {
    assert!(!Sandbox::new().run(&["verify", "nowhere"]).stderr.contains('\u{1B}'));
}
