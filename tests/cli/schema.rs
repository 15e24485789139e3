//! Every result of every verb, every error and every line of progress meets its JSON Schema.

use std::process::{Command, Stdio};

use amistore_aws_double::aws::{Content, Image};
use amistore_aws_double::s3::{Fault, FaultKind, When};
use serde_json::Value;

use crate::ec2::partitions::Partitions;
use crate::support::cli::{DATA, IMAGE, Outcome, Running, Sandbox, feed, sample_archive};
use crate::support::ec2::rich_image;
use crate::support::schema::Schema;

const COM: [&str; 4] = ["--source-profile", "com", "--target-profile", "com"];

/// The sample archive without its end.
fn damaged() -> &'static [u8] {
    let archive = sample_archive();
    &archive[..archive.len() * 2 / 3]
}

/// The only line of stdout, which has to meet the definition `name`.
#[track_caller]
fn result(name: &str, outcome: &Outcome) -> Value {
    let text = outcome.text();
    assert_eq!(text.lines().count(), 1, "one line: {text} {}", outcome.stderr);
    let value = serde_json::from_str(&text).expect("JSON");
    Schema::of_results().assert_met_by(name, &value);
    value
}

fn json(args: &[&str]) -> Vec<String> {
    let args = args.iter().map(ToString::to_string);
    args.chain(["--output", "json", "--progress", "json"].map(String::from)).collect()
}

fn local(sandbox: &Sandbox, name: &str, args: &[&str]) -> Value {
    let args = json(args);
    result(name, &sandbox.run(&args.iter().map(String::as_str).collect::<Vec<_>>()))
}

#[test]
fn results_of_local_archives_have_the_same_members_for_the_same_things() {
    let sandbox = Sandbox::with_image().and("broken.bin", damaged());
    let planned = local(&sandbox, "store", &["store", "image", "a.bin", "--dry-run"]);
    let stored = local(&sandbox, "store", &["store", "image", "a.bin"]);
    let mut of_archive = vec![stored.clone()];
    let mut plans = vec![planned];
    for (name, args) in [
        ("restore", &["restore", "a.bin", "out"][..]),
        ("extract", &["extract", "a.bin", "--device", "/dev/sdb", "-o", "x.raw"]),
        (
            "extract",
            &["extract", "a.bin", "--device", "/dev/sdb", "-o", "y.raw", "--range", "1MiB+4KiB"],
        ),
        ("extractMetadata", &["extract", "a.bin", "--image-json", "-o", "x.json"]),
    ] {
        plans.push(local(&sandbox, name, &[args, &["--dry-run"]].concat()));
        of_archive.push(local(&sandbox, name, args));
    }
    of_archive.push(local(&sandbox, "verify", &["verify", "a.bin"]));
    of_archive.push(local(&sandbox, "inspect", &["inspect", "a.bin"]));
    for result in &of_archive {
        assert_eq!((&result["DryRun"], &result["ImageId"]), (&false.into(), &IMAGE.into()));
        assert_eq!(result["RootSha256"], stored["RootSha256"], "{result}");
        assert_eq!(result["ContentSha256"], stored["ContentSha256"], "{result}");
        let archive = result["Archive"].as_str().expect("an archive");
        assert_eq!(archive.trim_start_matches("./"), "a.bin", "{result}");
    }
    plans.push(local(&sandbox, "copy", &["copy", "a.bin", "c.bin", "--dry-run"]));
    for plan in &plans {
        assert_eq!((&plan["DryRun"], &plan["Outcome"]), (&true.into(), &"planned".into()));
    }
    let copied = local(&sandbox, "copy", &["copy", "a.bin", "c.bin"]);
    assert_eq!((&copied["Archive"], &copied["Source"]), (&"./c.bin".into(), &"a.bin".into()));
    let listed = local(&sandbox, "ls", &["ls", "."]);
    assert_eq!(listed["Archives"].as_array().map(Vec::len), Some(3), "{listed}");
    let mut archives = listed["Archives"].as_array().expect("a list").iter();
    assert!(archives.any(|listed| listed["Archive"] == "./c.bin"), "{listed}");
    local(&sandbox, "tasks", &["tasks"]);
    local(&sandbox, "clean", &["clean"]);
    local(&sandbox, "clean", &["clean", "--abort"]);
    let broken = local(&sandbox, "verify", &["verify", "broken.bin"]);
    assert_eq!(broken["Outcome"], "corrupt");
    sandbox.disk(&format!("out/{DATA}.raw"), 1 << 30, &[]);
    let different = local(&sandbox, "verify", &["verify", "a.bin", "--against", "out"]);
    assert_eq!(different["Outcome"], "different");
}

#[test]
fn results_of_streams_meet_the_schema() {
    let sandbox = Sandbox::new();
    let run = |name: &str, args: &[&str]| {
        let args = json(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        result(name, &sandbox.run_with_input(&args, sample_archive()))
    };
    for more in [&["--dry-run"][..], &[]] {
        run("restore", &[&["restore", "-", "out"], more].concat());
        run("copy", &[&["copy", "-", "a.bin"], more].concat());
    }
    let verified = run("verify", &["verify", "-"]);
    assert_eq!(verified["Archive"], "standard input");
    run("inspect", &["inspect", "-"]);
}

#[test]
fn warnings_are_members_of_the_result() {
    let sandbox = Sandbox::new().and("disk.raw", vec![1; 512]);
    let disk = ["store", "--disk", "/dev/xvda=disk.raw", "--name", "odd", "odd.bin", "--quiet"];
    let stored = local(&sandbox, "store", &disk);
    let warning = stored["Warnings"][0].as_str().expect("a warning");
    let shown = sandbox.run(&["store", "--disk", "/dev/xvda=disk.raw", "--name", "odd", "b.bin"]);
    shown.succeeded().says(&[warning]);
}

/// A run against two partitions.
fn remote(world: &Partitions, name: &str, args: &[&str]) -> Value {
    let args = json(args);
    let outcome = world.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    for line in outcome.stderr.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        Schema::of_progress().assert_met(&line);
    }
    result(name, &outcome)
}

#[test]
fn results_of_images_in_ec2_and_of_buckets_meet_the_schema() {
    let world = Partitions::new();
    let ami = rich_image(&world.com.aws);
    let url = format!("s3://images/{ami}.bin");
    let with = |args: &[&str]| -> Vec<String> {
        args.iter().chain(&COM).map(ToString::to_string).collect()
    };
    let run = |name: &str, args: &[&str]| {
        let args = with(args);
        remote(&world, name, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for more in [&["--dry-run"][..], &[], &["--dry-run"], &[]] {
        run("store", &[&["store", &ami, "s3://images/"], more].concat());
    }
    for more in [&["--dry-run"][..], &[]] {
        run("copy", &[&["copy", &url, "s3://images/copy.bin"], more].concat());
        let restored = run("restore", &[&["restore", &url, "ec2", "--name", "new"], more].concat());
        assert_eq!(restored["ImageId"], ami.as_str(), "{restored}");
        let made = restored["RestoredImageId"].as_str().map(|id| world.com.aws.image(id).is_some());
        assert_eq!(made, more.is_empty().then_some(true), "{restored}");
    }
    let listed = remote(&world, "ls", &["ls", "s3://images/", "--profile", "com"]);
    let mut archives = listed["Archives"].as_array().expect("a list").iter();
    assert!(archives.any(|listed| listed["Archive"] == "s3://images/copy.bin"), "{listed}");
    let retire = ["retire", &ami, "--archive", &url, "--disable"];
    run("retire", &[&retire[..], &["--dry-run"]].concat());
    let retired = run("retire", &[&retire[..], &["--yes"]].concat());
    assert_eq!(retired["Outcome"], "disabled");
    assert!(retired["RootSha256"].is_string(), "{retired}");
}

#[test]
fn results_of_aws_and_of_interrupted_work_meet_the_schema() {
    let world = Partitions::new();
    let snapshot = world.com.aws.snapshot_of(1, (0..20).map(|at| (at, Content::random(1))));
    let ami = world.com.aws.add_image(Image::new("small", &snapshot));
    world.com.aws.set(|settings| (settings.store_polls, settings.restore_polls) = (0, 0));
    let run = |name: &str, args: &[&str]| remote(&world, name, &[args, &COM].concat());
    let object = format!("s3://images/{ami}.bin");
    for more in [&["--dry-run"][..], &[]] {
        run("storeByAws", &[&["store", "--via-aws", &ami, "s3://images/"], more].concat());
        let restore = ["restore", "--via-aws", &object, "ec2", "--name", "again"];
        run("restoreByAws", &[&restore[..], more].concat());
    }
    world.com.s3.fail(Fault::new(FaultKind::AccessDenied, When::CallOf("UploadPart", 2)));
    let store = [&["store", &ami, "s3://images/p/", "--part-size", "5MiB"][..], &COM].concat();
    world.run(&store).failed(4, &["continue with"]);
    world.com.s3.clear_faults();
    let tasks = remote(&world, "tasks", &["tasks"]);
    let task = &tasks["StoreImageTaskResults"][0];
    assert!(task["ResumeCommand"].is_string(), "{tasks}");
    assert_eq!(task["Archive"], format!("s3://images/p/{ami}.bin").as_str());
    let cleaned = remote(&world, "clean", &["clean", "--abort", "--profile", "com"]);
    assert_eq!(cleaned["Leftovers"][0]["Removed"], true, "{cleaned}");
}

#[test]
fn the_line_of_an_endpoint_meets_the_schema() {
    let sandbox = Sandbox::new();
    let args = ["serve", "--listen", "127.0.0.1:0", "--region", "us-east-1", "--output", "json"];
    let mut command: Command = sandbox.command(&args);
    command.env("AWS_EC2_METADATA_DISABLED", "true").stdout(Stdio::piped());
    let mut running: Running = sandbox.start(&mut command);
    let mut line = String::new();
    let stdout = running.child().stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    running.signal("TERM");
    running.wait();
    let value = serde_json::from_str(&line).expect("JSON");
    Schema::of_results().assert_met_by("serve", &value);
}

#[test]
fn errors_and_damage_meet_their_schemas() {
    let sandbox = Sandbox::new().and("a.bin", damaged());
    for args in [&["verify", "nowhere"][..], &["verify"], &["verify", "a.bin", "--threads", "0"]] {
        let outcome = sandbox.run(&[args, &["--output", "json"]].concat());
        Schema::of_errors().assert_met(&outcome.json_error());
    }
    let outcome = sandbox.run(&["verify", "a.bin", "--progress", "json"]);
    let lines: Vec<Value> =
        outcome.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().any(|line| line["event"] == "damage"), "{}", outcome.stderr);
    for line in &lines {
        Schema::of_progress().assert_met(line);
    }
}

#[test]
fn a_member_that_is_not_described_is_refused() {
    let schema = Schema::of_results();
    let good: Value =
        serde_json::json!({"Url": "http://[::1]:1", "Address": "::1", "Port": 1, "Pid": 2});
    schema.assert_met_by("serve", &good);
    for (member, value) in [
        ("Port", Value::from("1")),
        ("Port", Value::from(-1)),
        ("Port", Value::from(1.5)),
        ("Extra", Value::Null),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        let checked = std::panic::catch_unwind(|| schema.assert_met_by("serve", &bad));
        assert!(checked.is_err(), "{bad}");
    }
    let mut short = good.clone();
    short.as_object_mut().expect("an object").remove("Pid");
    assert!(std::panic::catch_unwind(|| schema.assert_met_by("serve", &short)).is_err());
}

#[test]
fn every_verb_and_every_member_is_described() {
    let schema = Schema::of_results().value();
    let help = Sandbox::new().run(&["--help"]).text();
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        // They print files, and no result.
        (!name.is_empty() && !["completions", "man"].contains(&name)).then_some(name)
    });
    let mut count = 0;
    for verb in verbs {
        assert!(schema["$defs"][verb].is_object(), "{verb} has no schema");
        count += 1;
    }
    assert!(count >= 11, "{count} verbs");
    let mut members = 0;
    for schema in [Schema::of_results(), Schema::of_errors(), Schema::of_progress()] {
        assert_described(schema.value(), &mut members);
    }
    assert!(members > 150, "{members} members");
}

/// Asserts that each member of each object has a description, its own or that of a definition.
fn assert_described(schema: &Value, members: &mut usize) {
    for (name, value) in schema.as_object().into_iter().flatten() {
        if name == "properties" {
            for (member, rule) in value.as_object().expect("members") {
                let described = rule["description"].is_string() || rule["$ref"].is_string();
                assert!(described, "{member} has no description");
                *members += 1;
            }
        }
        assert_described(value, members);
    }
}

#[test]
fn a_stream_that_ends_early_has_an_error_that_meets_the_schema() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["restore", "-", "out", "--output", "json"]);
    let mut running = sandbox.start(command.stdin(Stdio::piped()));
    feed(running.child(), &sample_archive()[..1000]);
    drop(running.child().stdin.take());
    let outcome = running.wait();
    assert_eq!(outcome.code, 5);
    Schema::of_errors().assert_met(&outcome.json_error());
}
