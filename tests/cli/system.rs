//! The system misbehaves: named pipes, dangling links, names that are not UTF-8, limits of the
//! system, and processes that were killed between two names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::cli::{DATA, Outcome, ROOT, Sandbox, sample_archive, sample_json};

fn make_pipe(sandbox: &Sandbox, name: &str) {
    let made = Command::new("mkfifo").arg(sandbox.path(name)).status().expect("mkfifo");
    assert!(made.success());
}

/// The program with arguments that need not be UTF-8.
fn run(sandbox: &Sandbox, args: &[&OsStr]) -> Outcome {
    let mut command = sandbox.command(&[]);
    Outcome::from(command.args(args).output().expect("the program to run"))
}

fn not_utf8(name: &str) -> OsString {
    OsStr::from_bytes(&[name.as_bytes(), b"\xff"].concat()).to_owned()
}

#[test]
fn a_named_pipe_is_no_archive_no_metadata_and_no_disk() {
    let sandbox = Sandbox::with_image();
    make_pipe(&sandbox, "pipe.bin");
    for args in [
        &["inspect", "pipe.bin"][..],
        &["verify", "pipe.bin"],
        &["restore", "pipe.bin", "back"],
        &["copy", "pipe.bin", "copy.bin"],
        &["store", "--disk", "/dev/xvda=pipe.bin", "--name", "pipe", "disk.bin"],
    ] {
        sandbox.run(args).failed(2, &["pipe"]);
    }
    sandbox.remove(&format!("image/{DATA}.raw"));
    make_pipe(&sandbox, &format!("image/{DATA}.raw"));
    sandbox.run(&["store", "image", "a.bin"]).failed(2, &["regular file", "named pipe"]);
    sandbox.remove("image/image.json");
    make_pipe(&sandbox, "image/image.json");
    sandbox.run(&["store", "image", "a.bin"]).failed(2, &["image.json", "regular file"]);
    assert_eq!(sandbox.run(&["ls", "."]).succeeded().text(), "");
    assert_eq!(sandbox.left(&["image", "pipe.bin"]), [""; 0]);
}

#[test]
fn a_name_that_leads_nowhere_does_not_end_a_list_and_an_error_comes_last() {
    let sandbox = Sandbox::with_archive().and("z.bin", sample_archive());
    symlink("nowhere", sandbox.path("b.bin")).expect("links");
    symlink("c.bin", sandbox.path("c.bin")).expect("links");
    let listed = sandbox.run(&["ls", "."]).succeeded().text();
    assert_eq!(listed.lines().count(), 1 + 2, "a title and two archives: {listed}");
    // The name that the link leads to is longer than a name may be.
    symlink("x".repeat(300), sandbox.path("d.bin")).expect("links");
    let ended = sandbox.run(&["ls", "."]);
    assert_eq!((ended.code, ended.text()), (6, listed), "{}", ended.stderr);
    ended.says(&["cannot list the directory", "d.bin"]);
}

#[test]
fn a_file_gets_the_name_that_was_given_although_it_is_not_utf8() {
    let sandbox = Sandbox::with_image();
    let (archive, copy, back) = (not_utf8("a"), not_utf8("copy"), not_utf8("back"));
    let text = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    for (words, names) in [
        (text(&["store", "image"]), vec![&archive]),
        (text(&["verify"]), vec![&archive]),
        (text(&["copy"]), vec![&archive, &copy]),
        (text(&["restore"]), vec![&copy, &back]),
    ] {
        let args: Vec<&OsStr> = words
            .iter()
            .map(OsString::as_os_str)
            .chain(names.iter().map(|n| n.as_os_str()))
            .collect();
        run(&sandbox, &args).succeeded();
    }
    for (name, is_there) in [(&archive, true), (&copy, true), (&back, true)] {
        let path = sandbox.path(".").join(name);
        assert_eq!(path.exists(), is_there, "{}", path.display());
    }
    // The name below a directory is that of the file.
    sandbox.make_directory("archives");
    run(&sandbox, &["copy".as_ref(), &archive, "archives".as_ref()]).succeeded();
    assert!(sandbox.path("archives").join(&archive).exists());
    // An archive does not replace its source under such a name either.
    let disk = not_utf8("disk");
    sandbox.disk("disk", 1 << 20, &[]);
    std::fs::rename(sandbox.path("disk"), sandbox.path(".").join(&disk)).expect("renames");
    let mut source = OsString::from("/dev/xvda=");
    source.push(&disk);
    let store = |to: &OsStr| {
        [
            OsStr::new("store"),
            "--disk".as_ref(),
            &source,
            "--name".as_ref(),
            "disk".as_ref(),
            to,
            "--force".as_ref(),
        ]
        .map(ToOwned::to_owned)
    };
    let store_to = |to: &OsStr| {
        let args = store(to);
        run(&sandbox, &args.iter().map(OsString::as_os_str).collect::<Vec<_>>())
    };
    store_to(&disk).failed(2, &["the target is one of the sources"]);
    store_to(OsStr::new("disk.bin")).succeeded();
}

#[test]
fn an_argument_that_is_not_utf8_is_no_panic() {
    let sandbox = Sandbox::new();
    let argument = not_utf8("x");
    for args in [
        &["inspect".as_ref(), "--bogus".as_ref(), argument.as_os_str()][..],
        &["inspect".as_ref(), "--memory".as_ref(), argument.as_os_str()],
        &["--output".as_ref(), argument.as_os_str()],
        &[argument.as_os_str()],
    ] {
        let mut command = sandbox.command(&[]);
        let outcome = Outcome::from(command.args(args).output().expect("the program to run"));
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
    let url = not_utf8("s3://bucket/a");
    run(&sandbox, &["inspect".as_ref(), &url]).failed(8, &["s3://"]);
}

#[test]
fn the_largest_size_of_a_file_is_an_error_with_a_message() {
    let sandbox = Sandbox::with_image();
    let script = "ulimit -f 64; exec \"$AMISTORE\" store image a.bin";
    sandbox.shell(script).failed(6, &["cannot write the archive", "hint: "]);
    assert_eq!(sandbox.left(&["image"]), [""; 0]);
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error() {
    let sandbox = Sandbox::with_archive();
    // The limit counts the processes of a user, and does not hold for administrators.
    let as_other = "exec setpriv --reuid 54321 --clear-groups --bounding-set=-all --inh-caps=-all";
    if sandbox.shell(&format!("{as_other} \"$AMISTORE\" --version")).code != 0 {
        // Only an administrator becomes another user, who may not be able to reach the program.
        return;
    }
    for threads in [1, 2, 4] {
        let limited = format!("{as_other} prlimit --nproc={threads} \"$AMISTORE\" --threads 4");
        sandbox
            .shell(&format!("{limited} verify - < a.bin"))
            .failed(6, &["Resource temporarily unavailable"]);
    }
}

/// A directory as a restore of the sample image leaves it that is killed behind its first rename.
fn half_named(sandbox: &Sandbox, name: &str) {
    sandbox.make_directory(name);
    sandbox.disk(&format!("{name}/{ROOT}.raw"), 1 << 30, &[]);
    let inode =
        std::fs::metadata(sandbox.path(&format!("{name}/{ROOT}.raw"))).expect("a file").ino();
    let record = json!({"tag": null, "volumes": [
        {"snapshot": ROOT, "inode": inode},
        {"snapshot": DATA, "inode": inode + 1},
    ]});
    sandbox.write(&format!("{name}/.image.json.partial"), record.to_string());
    sandbox.write(&format!("{name}/.image.json.document.partial"), sample_json().to_string());
    sandbox.write(&format!("{name}/.{DATA}.raw.partial"), b"half");
}

#[test]
fn a_restore_that_was_killed_between_two_names_is_taken_over_by_file_and_pipe() {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    for source in ["file", "pipe"] {
        half_named(&sandbox, source);
        match source {
            "file" => sandbox.run(&["restore", "a.bin", source]),
            _ => sandbox.run_with_input(&["restore", "-", source], sample_archive()),
        }
        .succeeded();
        let names = sandbox.left(&["image", "a.bin", "file.done"]);
        assert_eq!(names.iter().filter(|name| name.contains(".partial")).count(), 0, "{names:?}");
        // Every block of the volumes, and their lengths, are those of the archive.
        sandbox.run(&["verify", "--against", source, "a.bin"]).succeeded();
    }
}

#[test]
fn a_volume_that_no_restore_made_is_not_taken_over() {
    let sandbox = Sandbox::with_archive();
    half_named(&sandbox, "back");
    let volume = format!("back/{ROOT}.raw");
    sandbox.write("theirs", b"theirs");
    std::fs::rename(sandbox.path("theirs"), sandbox.path(&volume)).expect("renames");
    sandbox.run(&["restore", "a.bin", "back"]).failed(9, &["exists"]);
    assert_eq!(sandbox.read(&volume), b"theirs");
}

#[test]
fn clean_sees_and_removes_what_a_killed_restore_from_a_pipe_left() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["restore", "-", "back"]);
    let mut running = sandbox.start(command.stdin(Stdio::piped()));
    let archive = sample_archive();
    crate::support::cli::feed(running.child(), &archive[..archive.len() / 2]);
    crate::support::cli::wait_until("the volume to be begun", || {
        sandbox.path(&format!("back/.{ROOT}.raw.partial")).exists()
    });
    // A restore that runs is none of its business.
    assert_eq!(sandbox.run(&["clean", "--abort"]).succeeded().text(), "nothing was left behind\n");
    running.signal("KILL");
    assert_eq!(running.wait().code, -9);
    let found = sandbox.run(&["clean"]).succeeded().text();
    assert!(found.contains("partial volumes") && found.contains("back"), "{found}");
    assert!(sandbox.path("back").exists());
    sandbox.run(&["clean", "--abort"]).succeeded();
    assert_eq!(sandbox.left(&[]), [""; 0]);
}

/// Begins a copy from a pipe that never ends, whose partial file exists.
fn begun_copy(sandbox: &Sandbox, target: &str, partial: &str) -> crate::support::cli::Running {
    let mut command = sandbox.command(&["copy", "-", target]);
    let mut running = sandbox.start(command.stdin(Stdio::piped()));
    let archive = sample_archive();
    crate::support::cli::feed(running.child(), &archive[..archive.len() / 2]);
    crate::support::cli::wait_until("the file to be begun", || sandbox.path(partial).exists());
    running
}

#[test]
fn clean_sees_and_removes_the_partial_archive_of_a_killed_run_and_never_a_live_one() {
    let sandbox = Sandbox::new();
    sandbox.make_directory("archives");
    let url = format!("file://{}/b.bin", sandbox.path("archives").display());
    for (target, partial) in
        [("archives/a.bin", "archives/.a.bin.partial"), (url.as_str(), "archives/.b.bin.partial")]
    {
        let mut running = begun_copy(&sandbox, target, partial);
        assert_eq!(
            sandbox.run(&["clean", "--abort"]).succeeded().text(),
            "nothing was left behind\n",
            "it is being written"
        );
        running.signal("KILL");
        assert_eq!(running.wait().code, -9);
        let found = sandbox.run(&["clean"]).succeeded().text();
        assert!(found.contains("partial file") && found.contains(partial), "{found}");
        // The record has an absolute path: the working directory does not matter.
        let script = "cd / && exec \"$AMISTORE\" clean --abort";
        assert!(sandbox.path(partial).exists());
        let removed = sandbox.shell(script).succeeded().text();
        assert!(removed.contains("removed partial file"), "{removed}");
        assert!(!sandbox.path(partial).exists());
        assert_eq!(sandbox.run(&["clean"]).succeeded().text(), "nothing was left behind\n");
    }
}

#[test]
fn clean_of_a_directory_lists_partial_files_without_a_record_and_removes_them_on_request() {
    let sandbox = Sandbox::new();
    sandbox.make_directory("archives");
    let live = begun_copy(&sandbox, "archives/live.bin", "archives/.live.bin.partial");
    sandbox.write("archives/.old.bin.partial", b"half");
    sandbox.write("archives/old.partial", b"another name");
    let listed = sandbox.run(&["clean", "archives"]).succeeded().text();
    assert!(listed.contains(".old.bin.partial") && listed.contains("not remembered"), "{listed}");
    assert!(!listed.contains("live") && listed.lines().count() == 2, "{listed}");
    sandbox.run(&["clean", "archives", "--abort"]).succeeded().says(&[]);
    assert!(sandbox.path("archives/.old.bin.partial").exists(), "--others was not given");
    let young = ["clean", "archives", "--abort", "--others", "--older-than", "1h"];
    sandbox.run(&young).succeeded();
    assert!(sandbox.path("archives/.old.bin.partial").exists(), "it is not old enough");
    sandbox.run(&["clean", "archives", "--abort", "--others"]).succeeded();
    let left = sandbox.left(&["state"]);
    assert!(!left.iter().any(|name| name.ends_with(".old.bin.partial")), "{left:?}");
    assert!(left.iter().any(|name| name.ends_with(".live.bin.partial")), "{left:?}");
    drop(live);
    sandbox.run(&["clean", "archives/old.partial"]).failed(2, &["buckets and directories"]);
}

#[test]
fn a_named_pipe_is_no_file_of_keys_certificates_passwords_or_settings() {
    let sandbox = Sandbox::new();
    make_pipe(&sandbox, "pipe");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(sandbox.path("pipe"), private).expect("a mode");
    for args in [
        &["serve", "--access-keys", "pipe"][..],
        &["serve", "--status-password-file", "pipe"],
        &["serve", "--tls-cert", "pipe", "--tls-key", "pipe"],
    ] {
        let mut command = sandbox.command(args);
        let refused = sandbox.start(command.env("AWS_REGION", "us-east-1")).wait();
        refused.failed(2, &["regular file", "named pipe"]);
    }
    for variable in [
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CA_BUNDLE",
    ] {
        let script = format!("AWS_REGION=r {variable}=pipe exec \"$AMISTORE\" ls s3://bucket/");
        sandbox.shell(&script).failed(2, &["regular file", "named pipe", variable]);
    }
    // A file in the home directory, and a pipe without a name.
    sandbox.make_directory("home");
    sandbox.make_directory("home/.aws");
    make_pipe(&sandbox, "home/.aws/config");
    let script = "AWS_REGION=r HOME=home exec \"$AMISTORE\" ls s3://bucket/";
    sandbox.shell(script).failed(2, &["regular file", "home/.aws/config"]);
    sandbox.write("password", "");
    let script = "printf secret | AWS_REGION=r \"$AMISTORE\" serve --listen 0.0.0.0:0 \
                  --status-password-file /dev/stdin";
    sandbox.shell(script).failed(2, &["others can reach this address"]);
}

#[test]
fn no_verb_is_ended_by_a_full_disk_below_the_state_directory() {
    let sandbox = Sandbox::new();
    // A block is smaller than a page: a page that SQLite has made may lack three of its blocks.
    let script = r#"
        mkdir state && truncate -s 1M disk &&
        mkfs.ext4 -q -b 1024 -O ^has_journal -m 0 disk && mount -o loop disk state || exit 77
        export AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b
        export AWS_EC2_METADATA_DISABLED=true AWS_ENDPOINT_URL=http://127.0.0.1:9
        for free in 0 8 24 40 56 64 72 96; do
            rm -rf state/*
            dd if=/dev/zero of=state/fill bs=1k 2>/dev/null; sync
            truncate -s $(($(stat -c %s state/fill) - free * 1024)) state/fill; sync
            for verb in "serve --listen 127.0.0.1:0 --account-id 123456789012" tasks clean; do
                timeout --preserve-status -s TERM 0.5 "$AMISTORE" $verb --state state \
                    >/dev/null 2>err
                echo "$free ${verb%% *} $?"
            done
        done
        umount state
    "#;
    sandbox.write("script", script);
    let outcome = sandbox.shell("unshare -m sh ./script");
    if outcome.code == 77 || outcome.text().is_empty() {
        // Only an administrator mounts, and a container may have no loop devices.
        return;
    }
    let text = outcome.succeeded().text();
    assert_eq!(text.lines().count(), 24, "{text}");
    for line in text.lines() {
        assert!(line.ends_with(" 0") || line.ends_with(" 6"), "{text}");
    }
    assert!(text.contains("\n96 serve 0\n"), "with room it serves: {text}");
}

#[test]
fn a_run_is_recorded_in_one_small_file_without_a_database() {
    let sandbox = Sandbox::with_image();
    sandbox.run(&["store", "image", "a.bin", "--state", "state"]).succeeded();
    let left = sandbox.left(&["image", "a.bin"]);
    assert_eq!(left[..2], ["state/", "state/runs/"]);
    assert!(left.len() == 3 && left[2].ends_with(".run"), "{left:?}");
    assert!(sandbox.read(&left[2]).len() < 4096);
}

#[test]
fn a_local_run_syncs_nothing_but_its_result() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let sandbox = Sandbox::with_image();
    let script = "strace -f -o trace -e trace=fsync,fdatasync,sync,syncfs,msync \
                  \"$AMISTORE\" store image a.bin --no-sync";
    let traced = sandbox.shell(script);
    if traced.stderr.contains("ptrace") {
        return;
    }
    traced.succeeded();
    let trace = String::from_utf8(sandbox.read("trace")).expect("text");
    assert!(!trace.contains("sync("), "{trace}");
}
