//! The configuration file: profiles of options, behind the command line and the environment.

use std::process::Command;

use crate::support::cli::{Outcome, Sandbox, sample_archive};

/// A sandbox with the sample image, and a configuration file of this text.
fn sandbox(config: &str) -> Sandbox {
    Sandbox::with_image().and("conf", config)
}

fn command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let mut command = sandbox.command(args);
    command.env("AMISTORE_CONFIG", sandbox.path("conf"));
    command
}

fn run(sandbox: &Sandbox, args: &[&str]) -> Outcome {
    sandbox.start(&mut command(sandbox, args)).wait()
}

/// The level of the archive `name`.
fn level(sandbox: &Sandbox, name: &str) -> u64 {
    let report = sandbox.run(&["inspect", name, "--output", "json"]).succeeded().json();
    report["Codec"]["Level"].as_u64().expect("a level")
}

#[test]
fn the_command_line_comes_before_the_environment_and_that_before_the_profile() {
    let sandbox = sandbox("[profile small]\nlevel = 2\nno_sync = true\n");
    let small = ["--config-profile", "small"];
    let plain = ["store", "image", "1.bin"];
    run(&sandbox, &plain).succeeded();
    run(&sandbox, &[&["store", "image", "2.bin"][..], &small].concat()).succeeded();
    let mut by_variable = command(&sandbox, &[&["store", "image", "3.bin"][..], &small].concat());
    sandbox.start(by_variable.env("AMISTORE_LEVEL", "3")).wait().succeeded();
    let args = [&["store", "--level", "4", "image", "4.bin"][..], &small].concat();
    let mut by_flag = command(&sandbox, &args);
    sandbox.start(by_flag.env("AMISTORE_LEVEL", "3")).wait().succeeded();
    for level_of_name in 1..=4 {
        assert_eq!(level(&sandbox, &format!("{level_of_name}.bin")), level_of_name);
    }
}

#[test]
fn a_profile_is_named_by_a_variable_and_the_default_one_needs_no_name() {
    let sandbox = sandbox("[default]\nlevel = 5\n\n[profile two]\nlevel = 2\n");
    run(&sandbox, &["store", "image", "default.bin"]).succeeded();
    let mut named = command(&sandbox, &["store", "image", "two.bin"]);
    sandbox.start(named.env("AMISTORE_CONFIG_PROFILE", "two")).wait().succeeded();
    assert_eq!((level(&sandbox, "default.bin"), level(&sandbox, "two.bin")), (5, 2));
    // The standard file, if no other one is named.
    sandbox.make_directory("home");
    sandbox.make_directory("home/amistore");
    sandbox.write("home/amistore/config", "[default]\nlevel = 3\n");
    let mut standard = sandbox.command(&["store", "image", "standard.bin"]);
    standard.env("XDG_CONFIG_HOME", sandbox.path("home"));
    sandbox.start(&mut standard).wait().succeeded();
    let mut other = sandbox.command(&["--config", "conf", "store", "image", "other.bin"]);
    other.env("XDG_CONFIG_HOME", sandbox.path("home"));
    sandbox.start(&mut other).wait().succeeded();
    assert_eq!((level(&sandbox, "standard.bin"), level(&sandbox, "other.bin")), (3, 5));
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    for (key, line) in [
        ("levle = 3", 4),
        ("config-profile = x", 4),
        ("help = true", 4),
        ("source = image", 4),
        ("level = 1\nlevel = 2", 5),
    ] {
        let sandbox = sandbox(&format!("# one\n[profile a]\nmemory = 1GiB\n{key}\n"));
        let number = format!("line: {line}");
        let args = ["store", "image", "a.bin"];
        run(&sandbox, &args).failed(2, &["path: ", "conf", &number, "key: "]);
        let error = run(&sandbox, &[&args[..], &["--output", "json"]].concat()).json_error();
        assert_eq!((&error["context"]["line"], &error["kind"]), (&line.into(), &"usage".into()));
        assert_eq!(sandbox.left(&["image", "image/", "conf"]), [""; 0]);
    }
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    let args = ["store", "image", "a.bin"];
    for (value, line) in [("\nlevel = fast", 3), ("no-sync = yes", 2)] {
        let sandbox = sandbox(&format!("[default]\n{value}\n"));
        run(&sandbox, &args).failed(2, &["conf", "line", &line.to_string()]);
        let error = run(&sandbox, &[&args[..], &["--output", "json"]].concat()).json_error();
        assert_eq!(error["context"]["line"], line, "{error}");
    }
    // A value that is checked later.
    let sandbox = sandbox("[default]\nmemory = much\n");
    run(&sandbox, &args).failed(2, &["given: much", "configuration: profile default of "]);
}

#[test]
fn a_file_or_profile_that_is_missing_is_an_error_if_it_was_named() {
    let sandbox = sandbox("[profile a]\n[profile b]\n");
    let ls = ["ls", "."];
    run(&sandbox, &ls).succeeded();
    run(&sandbox, &[&ls[..], &["--config-profile", "c"]].concat())
        .failed(3, &["no such profile", "profile: c", "profiles: a, b"]);
    sandbox.run(&["ls", ".", "--config", "none"]).failed(3, &["cannot read the configuration"]);
    sandbox.run(&["ls", ".", "--config", "image"]).failed(2, &["regular file", "a directory"]);
    sandbox
        .run(&["ls", ".", "--config-profile", "a"])
        .failed(3, &["cannot read the configuration file", "/dev/null/amistore/config"]);
    // Without a name, a missing standard file is none.
    sandbox.run(&ls).succeeded();
}

#[test]
fn options_of_other_commands_and_options_that_the_command_line_excludes_are_left_out() {
    let sandbox =
        sandbox("[default]\nquiet = true\nlevel = 2\ns3-object-tag = a=1\ntask-state = Failed\n");
    sandbox.write("a.bin", sample_archive());
    let shown = run(&sandbox, &["inspect", "a.bin", "--verbose"]).succeeded();
    shown.says(&[
        "profile default of ",
        "line 2: quiet = true: the command line has --verbose",
        "line 3: level = 2: not an option of this command",
    ]);
    // Warnings are silent, because the profile says so.
    let silent = run(&sandbox, &["store", "image", "b.bin"]).succeeded();
    assert_eq!((silent.stderr.as_str(), level(&sandbox, "b.bin")), ("", 2));
    let off =
        Sandbox::new().and("a.bin", sample_archive()).and("conf", "[default]\nquiet = false\n");
    run(&off, &["verify", "a.bin"]).succeeded();
}

#[test]
fn options_of_the_profile_come_before_the_end_of_options_and_may_be_repeated() {
    let sandbox = sandbox("[default]\ntag = a=1\ntag = b=2\nname = tagged\n");
    sandbox.disk("-d.raw", 1 << 20, &[]);
    run(&sandbox, &["store", "--disk", "/dev/xvda=-d.raw", "--", "-a.bin"]).succeeded();
    let report = sandbox.run(&["inspect", "./-a.bin", "--output", "json"]).succeeded().json();
    assert_eq!(report["Image"]["Name"], "tagged");
    assert_eq!(report["Image"]["Tags"].as_array().map(Vec::len), Some(2), "{report}");
}
