//! Block devices of the kernel: loop devices, where this user may make them.
//!
//! A device that answers with an error is made by strace, or by a backing file on a file system
//! that is full.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::cli::{Sandbox, noise};

const MIB: u64 = 1 << 20;
const STORE: [&str; 3] = ["store", "--name", "device"];

/// A loop device, until it is dropped.
struct Loop(PathBuf);

impl Loop {
    /// Attaches a file; `None` without the permission, or in a system without loop devices.
    fn attach(file: &Path) -> Option<Self> {
        let losetup = ["/usr/sbin/losetup", "/sbin/losetup"]
            .into_iter()
            .find(|path| Path::new(path).exists())?;
        let made = Command::new(losetup).args(["-f", "--show"]).arg(file).output().ok()?;
        let path = String::from_utf8(made.stdout).ok()?;
        made.status.success().then(|| Self(path.trim().into()))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    fn disk(&self) -> String {
        format!("/dev/xvda={}", self.path())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let mut detach = Command::new("losetup");
        let _ = detach.arg("-d").arg(&self.0).env("PATH", "/usr/sbin:/sbin").status();
    }
}

/// A sandbox with `disk.raw` of 8 MiB with data, written zeros and a hole, and a device of it.
fn device() -> Option<(Sandbox, Loop)> {
    let sandbox = Sandbox::new();
    let pieces = [(0, noise(1, 2)), (6, vec![0; MIB as usize]), (12, noise(2, 1))];
    sandbox.disk("disk.raw", 8 * MIB, &pieces);
    let device = Loop::attach(&sandbox.path("disk.raw"))?;
    Some((sandbox, device))
}

#[test]
fn a_block_device_is_stored_and_comes_back_with_the_same_bytes() {
    let Some((sandbox, device)) = device() else { return };
    let stored =
        sandbox.run(&[&STORE[..], &["--disk", &device.disk(), "a.bin"]].concat()).succeeded();
    assert!(!stored.stderr.contains("mounted"), "it is not in use: {}", stored.stderr);
    sandbox.run(&["extract", "a.bin", "--device", "/dev/xvda", "-o", "back.raw"]).succeeded();
    assert!(sandbox.read("back.raw") == sandbox.read("disk.raw"));
    // To another device, which was full of other bytes: blocks that are absent are zeros there.
    sandbox.write("other.raw", noise(9, 20));
    let other = Loop::attach(&sandbox.path("other.raw")).expect("a second device");
    let extract = ["extract", "a.bin", "--device", "/dev/xvda", "-o", other.path()];
    sandbox.run(&extract).failed(9, &["--force"]);
    sandbox.run(&[&extract[..], &["--force"]].concat()).succeeded();
    drop(other);
    let written = sandbox.read("other.raw");
    assert!(written[..8 << 20] == sandbox.read("disk.raw"));
    assert!(written[8 << 20..] == noise(9, 20)[8 << 20..], "behind the volume nothing is written");
}

#[test]
fn a_device_that_holds_a_disk_image_of_another_format_is_refused() {
    let Some((sandbox, _)) = device() else { return };
    let mut image = vec![0; 1 << 20];
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    sandbox.write("image.qcow2", image);
    let device = Loop::attach(&sandbox.path("image.qcow2")).expect("a second device");
    let disk = device.disk();
    let store = [&STORE[..], &["--disk", &disk, "a.bin"]].concat();
    sandbox.run(&store).failed(8, &["qcow2", "hint: convert it first"]);
    sandbox.run(&[&store[..], &["--raw"]].concat()).succeeded();
}

#[test]
fn a_device_that_is_too_small_is_refused_before_the_first_byte() {
    let Some((sandbox, device)) = device() else { return };
    sandbox.run(&[&STORE[..], &["--disk", &device.disk(), "a.bin"]].concat()).succeeded();
    sandbox.write("small.raw", noise(9, 8));
    let small = Loop::attach(&sandbox.path("small.raw")).expect("a second device");
    let extract = ["extract", "a.bin", "--device", "/dev/xvda", "-o", small.path(), "--force"];
    sandbox.run(&extract).failed(2, &["smaller than the volume"]);
    drop(small);
    assert!(sandbox.read("small.raw") == noise(9, 8));
}

#[test]
fn a_device_in_use_is_not_overwritten_and_a_store_of_it_warns() {
    let Some((sandbox, device)) = device() else { return };
    sandbox.run(&[&STORE[..], &["--disk", &device.disk(), "a.bin"]].concat()).succeeded();
    sandbox.disk("other.raw", 16 * MIB, &[]);
    let script = "PATH=$PATH:/sbin:/usr/sbin; mkdir on && mkfs.ext4 -q $DEVICE && \
                  mount $DEVICE on || exit 77; \"$AMISTORE\" store --name device \
                  --disk /dev/xvda=$DEVICE b.bin; echo stored $? >&2; \"$AMISTORE\" extract a.bin \
                  --device /dev/xvda -o $DEVICE --force; echo extracted $? >&2; umount on";
    let other = Loop::attach(&sandbox.path("other.raw")).expect("a second device");
    sandbox.write("script", script.replace("$DEVICE", other.path()));
    let outcome = sandbox.shell("unshare -m sh ./script");
    if outcome.code == 77 {
        return;
    }
    outcome.says(&["mounted at", "/on", "stored 0", "cannot open the block device", "extracted 6"]);
}

#[test]
fn an_error_of_a_device_is_no_zero_block() {
    let Some((sandbox, _)) = device() else { return };
    sandbox.disk("large.raw", 20 * MIB, &[(0, noise(1, 40))]);
    let device = Loop::attach(&sandbox.path("large.raw")).expect("a second device");
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return;
    }
    // The first two reads look at the format, the third one is that of a cell.
    for read in 1..=3 {
        let script = format!(
            "strace -f -o trace -P {} -e inject=pread64:error=EIO:when={read} \"$AMISTORE\" \
             --threads 1 store --name device --disk {} a.bin",
            device.path(),
            device.disk()
        );
        let outcome = sandbox.shell(&script);
        if outcome.stderr.contains("ptrace") {
            return;
        }
        outcome.failed(6, &["cannot read the disk image", "Input/output error"]);
        assert_eq!(sandbox.left(&["disk.raw", "large.raw", "trace"]), [""; 0]);
    }
}

#[test]
fn a_device_without_room_behind_it_fails_the_extraction() {
    let Some((sandbox, device)) = device() else { return };
    sandbox.run(&[&STORE[..], &["--disk", &device.disk(), "a.bin"]].concat()).succeeded();
    // The backing file has holes, and its file system has no room for them.
    let script = "PATH=$PATH:/sbin:/usr/sbin; mkdir small && \
                  mount -t tmpfs -o size=2M none small || exit 77; truncate -s 16M small/disk; \
                  device=$(losetup -f --show small/disk) || exit 77; \"$AMISTORE\" extract a.bin \
                  --device /dev/xvda -o $device --force; code=$?; losetup -d $device; \
                  umount small; exit $code";
    sandbox.write("script", script);
    let outcome = sandbox.shell("unshare -m sh ./script");
    if outcome.code != 77 {
        outcome.failed(6, &["cannot write the block device"]);
    }
}
