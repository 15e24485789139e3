//! Ctrl-C and `kill`: exit code 130, soon, and no file is left.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::cli::{Running, Sandbox, feed, sample_archive, text, wait_until};

/// Waits for the first line of progress: from then on signals are handled.
fn wait_for_start(running: &mut Running) {
    // No other code reads the pipe before the program has ended; its last messages stay in the
    // pipe.
    let stderr = running.child().stderr.as_mut().expect("its messages");
    let mut line = String::new();
    BufReader::with_capacity(1, stderr).read_line(&mut line).expect("a line");
    assert!(line.contains("\"started\""), "{line}");
}

#[track_caller]
fn is_interrupted(running: Running) {
    let outcome = running.wait();
    assert_eq!(outcome.code, 130, "{}", outcome.stderr);
    assert!(outcome.stderr.ends_with("error: interrupted\n"), "{}", outcome.stderr);
}

/// Starts the program, writes half an archive to its open pipe, and sends the signal after its
/// first progress.
#[track_caller]
fn interrupted_while_reading(args: &[&str], signal: &str, at_work: Option<&str>) -> Sandbox {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&[args, &["--progress", "json"]].concat());
    let mut running = sandbox.start(command.stdin(Stdio::piped()));
    wait_for_start(&mut running);
    feed(running.child(), &sample_archive()[..sample_archive().len() / 2]);
    if let Some(file) = at_work {
        wait_until(file, || sandbox.path(file).exists());
    }
    running.signal(signal);
    is_interrupted(running);
    sandbox
}

#[test]
fn an_interrupted_restore_leaves_nothing() {
    for signal in ["INT", "TERM"] {
        for args in [&["restore", "-", "out"][..], &["restore", "-", "out", "--salvage"]] {
            let sandbox = interrupted_while_reading(args, signal, Some("out"));
            assert_eq!(sandbox.left(&[]), [""; 0]);
        }
    }
}

#[test]
fn an_interrupted_restore_leaves_a_directory_as_it_was() {
    let sandbox = Sandbox::new();
    sandbox.make_directory("out");
    sandbox.write("out/note.txt", "mine");
    let mut running =
        sandbox.start(sandbox.command(&["restore", "-", "out"]).stdin(Stdio::piped()));
    feed(running.child(), &sample_archive()[..sample_archive().len() / 2]);
    wait_until("a partial file", || sandbox.left(&[]).len() > 2);
    running.signal("INT");
    is_interrupted(running);
    assert_eq!(sandbox.left(&[]), ["out/", "out/note.txt"]);
}

#[test]
fn an_interrupted_verification_ends() {
    for signal in ["INT", "TERM"] {
        interrupted_while_reading(&["verify", "-"], signal, None);
    }
}

/// Starts a slow store of a large disk.
fn slow_store(sandbox: &Sandbox, target: &str) -> Running {
    sandbox.disk("disk.raw", 1 << 30, &[(0, text(1, 16))]);
    let args = [
        "store",
        "--disk",
        "/dev/xvda=disk.raw",
        "--name",
        "sample",
        "--level",
        "9",
        "--progress",
        "json",
        target,
    ];
    let mut running = sandbox.start(&mut sandbox.command(&args));
    wait_for_start(&mut running);
    running
}

#[test]
fn an_interrupted_store_leaves_nothing() {
    for signal in ["INT", "TERM"] {
        let sandbox = Sandbox::new();
        let mut running = slow_store(&sandbox, "a.bin");
        running.signal(signal);
        is_interrupted(running);
        assert_eq!(sandbox.left(&["disk.raw"]), [""; 0]);
    }
}

#[test]
fn an_interrupted_store_keeps_the_archive_to_replace() {
    let sandbox = Sandbox::new().and("a.bin", "old");
    sandbox.disk("disk.raw", 1 << 30, &[(0, text(1, 16))]);
    let args = [
        "store",
        "--disk",
        "/dev/xvda=disk.raw",
        "--name",
        "sample",
        "--level",
        "9",
        "--force",
        "a.bin",
    ];
    let mut running = sandbox.start(&mut sandbox.command(&args));
    wait_until("the partial file", || sandbox.path(".a.bin.partial").exists());
    running.signal("INT");
    is_interrupted(running);
    assert_eq!(sandbox.left(&["disk.raw"]), ["a.bin"]);
    assert_eq!(sandbox.read("a.bin"), b"old");
}

#[test]
fn a_store_to_a_blocked_pipe_can_be_interrupted() {
    let sandbox = Sandbox::new();
    let mut running = slow_store(&sandbox, "-");
    // Much more than a pipe holds, so the store cannot end by itself. It is blocked in a write when
    // the pipe is full.
    wait_until("the pipe is full", || {
        let pipe = running.child().stdout.as_ref().expect("a pipe");
        rustix::io::ioctl_fionread(pipe).expect("a number") >= 56 << 10
    });
    running.signal("TERM");
    is_interrupted(running);
    assert_eq!(sandbox.left(&["disk.raw"]), [""; 0]);
}
