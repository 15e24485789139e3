//! Invalid sources and arguments: paths, disks, metadata, numbers.

use serde_json::{Value, json};

use crate::support::cli::{BLOCK, DATA, IMAGE, ROOT, Sandbox, noise, sample_json};

/// The start of a call that packs `disk.raw`.
const DISK: [&str; 5] = ["store", "--disk", "/dev/xvda=disk.raw", "--name", "sample"];

fn store_disk(sandbox: &Sandbox, more: &[&str]) -> crate::support::cli::Outcome {
    sandbox.run(&[&DISK, more].concat())
}

#[test]
fn a_missing_source_is_not_found() {
    let sandbox = Sandbox::new();
    sandbox.run(&["store", "nowhere", "a.bin"]).failed(
        3,
        &["nowhere/image.json", "No such file", "hint: an image directory has an image.json"],
    );
    assert!(sandbox.left(&[]).is_empty());
}

#[test]
fn a_missing_archive_is_not_found() {
    let sandbox = Sandbox::new();
    for args in [
        &["restore", "nowhere.bin", "out"][..],
        &["verify", "nowhere.bin"],
        &["inspect", "nowhere.bin"],
        &["extract", "nowhere.bin", "--image-json"],
    ] {
        sandbox.run(args).failed(3, &["cannot open the archive", "path: nowhere.bin"]);
    }
    assert!(sandbox.left(&[]).is_empty());
}

#[test]
fn a_missing_disk_is_not_found() {
    let sandbox = Sandbox::new();
    store_disk(&sandbox, &["a.bin"]).failed(3, &["cannot open the disk image", "path: disk.raw"]);
    assert!(sandbox.left(&[]).is_empty());
}

#[test]
fn a_directory_without_metadata_is_no_image_directory() {
    let sandbox = Sandbox::new();
    sandbox.make_directory("empty");
    sandbox.run(&["store", "empty", "a.bin"]).failed(
        3,
        &[
            "it has no image.json",
            "hint: an image directory has an image.json; plain disks are packed with --disk",
        ],
    );
    assert!(sandbox.left(&["empty/"]).is_empty());
}

#[test]
fn a_disk_named_as_source_is_answered_with_how_disks_are_packed() {
    let sandbox = Sandbox::new().and("disk.raw", noise(1, 1));
    sandbox
        .run(&["store", "disk.raw", "a.bin"])
        .failed(3, &["disk.raw", "plain disks are packed with --disk DEVICE=FILE"]);
    assert!(sandbox.left(&["disk.raw"]).is_empty());
}

#[test]
fn a_raw_file_in_the_metadata_must_exist() {
    let sandbox = Sandbox::with_image();
    sandbox.remove(&format!("image/{DATA}.raw"));
    sandbox.run(&["store", "image", "a.bin"]).failed(
        3,
        &[
            "cannot open the disk image",
            &format!("path: image/{DATA}.raw"),
            &format!("snapshot: {DATA}"),
        ],
    );
    assert!(sandbox.left(&["image"]).iter().all(|path| path == "image/"));
}

#[test]
fn an_unreadable_source_is_denied() {
    let sandbox = Sandbox::new().and("disk.raw", noise(1, 1));
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o0);
    std::fs::set_permissions(sandbox.path("disk.raw"), closed).expect("permissions to be set");
    // root can read the file nevertheless, and then the test has no case.
    if std::fs::File::open(sandbox.path("disk.raw")).is_err() {
        store_disk(&sandbox, &["a.bin"])
            .failed(4, &["cannot open the disk image", "path: disk.raw", "Permission denied"]);
        assert!(sandbox.left(&["disk.raw"]).is_empty());
    }
}

#[test]
fn an_unwritable_target_is_denied() {
    let sandbox = Sandbox::with_archive();
    // No user can make directories in sysfs, whether it is writable or not.
    sandbox
        .run(&["restore", "a.bin", "/sys/kernel/amistore-test"])
        .failed(4, &["cannot make the image directory", "path: /sys/kernel/amistore-test"]);
    assert!(sandbox.left(&["a.bin"]).is_empty());
}

#[test]
fn a_disk_must_be_a_file_or_a_block_device() {
    let sandbox = Sandbox::new();
    for argument in ["/dev/xvda=/dev/null", "/dev/xvda=."] {
        sandbox
            .run(&["store", "--disk", argument, "--name", "sample", "a.bin"])
            .failed(2, &["neither a regular file nor a block device"]);
    }
    assert!(sandbox.left(&[]).is_empty());
}

#[test]
fn a_directory_is_no_archive() {
    Sandbox::new()
        .run(&["verify", "/dev/null"])
        .failed(2, &["an archive is a regular file", "a pipe is read from `-`", "path: /dev/null"]);
}

#[test]
fn a_disk_without_whole_sectors_is_refused() {
    let sandbox = Sandbox::new().and("disk.raw", vec![1; 1000]);
    store_disk(&sandbox, &["a.bin"]).failed(
        2,
        &[
            "not a multiple of 512 bytes",
            "size: 1000",
            "path: disk.raw",
            "hint: a disk image is a whole number",
        ],
    );
    assert!(sandbox.left(&["disk.raw"]).is_empty());
}

#[test]
fn an_empty_disk_is_refused() {
    let sandbox = Sandbox::new().and("disk.raw", "");
    store_disk(&sandbox, &["a.bin"]).failed(2, &["the disk is empty", "path: disk.raw"]);
    assert!(sandbox.left(&["disk.raw"]).is_empty());
}

#[test]
fn a_disk_that_ends_within_a_block_is_restored_unchanged() {
    let disk = noise(1, 3)[..(2 * BLOCK + 512) as usize].to_vec();
    let sandbox = Sandbox::new().and("disk.raw", &disk);
    store_disk(&sandbox, &["a.bin"]).succeeded().says(&["warning: ", "not whole GiB"]);
    sandbox.run(&["extract", "a.bin", "--device", "/dev/xvda", "-o", "back.raw"]).succeeded();
    assert!(sandbox.read("back.raw") == disk);
}

#[test]
fn a_disk_of_whole_gib_gives_no_warning() {
    let sandbox = Sandbox::new();
    sandbox.disk("disk.raw", 1 << 30, &[]);
    assert_eq!(store_disk(&sandbox, &["a.bin"]).succeeded().stderr, "");
}

#[test]
fn a_raw_file_has_to_have_the_size_that_the_metadata_says() {
    let sandbox = Sandbox::with_image();
    let mut document = sample_json();
    document["Snapshots"][0]["VolumeSize"] = json!(2);
    sandbox.write("image/image.json", document.to_string());
    let words = [
        "the size of the raw disk is not the one in image.json",
        &format!("snapshot: {ROOT}"),
        "volume size gib: 2",
        "hint: check that the file is whole",
    ];
    sandbox.run(&["store", "image", "a.bin"]).failed(2, &words);
    assert!(!sandbox.path("a.bin").exists());
}

/// Metadata with this invalid change is refused with these words, before a byte is written.
#[track_caller]
fn refused(change: impl FnOnce(&mut Value), words: &[&str]) {
    let sandbox = Sandbox::with_image();
    let mut document = sample_json();
    change(&mut document);
    sandbox.write("image/image.json", document.to_string());
    sandbox.run(&["store", "image", "a.bin"]).failed(2, words).says(&["path: image/image.json"]);
    assert_eq!(sandbox.left(&[]).len(), 4, "{:?}", sandbox.left(&[]));
}

#[test]
fn two_mappings_with_one_device_are_refused() {
    refused(
        |document| document["Image"]["BlockDeviceMappings"][1]["DeviceName"] = json!("/dev/xvda"),
        &["two block device mappings have one device name", "device: /dev/xvda"],
    );
}

#[test]
fn two_snapshots_with_one_id_are_refused() {
    refused(
        |document| document["Snapshots"][1]["SnapshotId"] = json!(ROOT),
        &["two snapshots have one id", ROOT],
    );
}

#[test]
fn an_invalid_ami_name_is_refused_in_metadata() {
    refused(
        |document| document["Image"]["Name"] = json!("a|b"),
        &["not an AMI name", "character: |"],
    );
}

#[test]
fn an_invalid_image_id_is_refused() {
    refused(
        |document| document["Image"]["ImageId"] = json!("ami-XYZ"),
        &["`Image.ImageId` is no image id", "ami-XYZ", "not an image id"],
    );
}

#[test]
fn metadata_that_is_not_json_is_refused() {
    let sandbox = Sandbox::with_image();
    sandbox.write("image/image.json", "{");
    sandbox.run(&["store", "image", "a.bin"]).failed(
        2,
        &["image.json cannot be used: it is not JSON", "path: image/image.json", "caused by: EOF"],
    );
}

#[test]
fn an_invalid_ami_name_is_refused_on_the_command_line() {
    let sandbox = Sandbox::new().and("disk.raw", noise(1, 1));
    for (name, words) in [("ab", "3 to 128 characters"), ("what?", "character: ?")] {
        sandbox
            .run(&["store", "--disk", "/dev/xvda=disk.raw", "--name", name, "a.bin"])
            .failed(2, &["not an AMI name", words]);
    }
    assert!(sandbox.left(&["disk.raw"]).is_empty());
}

#[test]
fn one_device_cannot_be_two_disks() {
    let sandbox = Sandbox::new().and("disk.raw", noise(1, 1));
    store_disk(&sandbox, &["--disk", "/dev/xvda=disk.raw", "a.bin"])
        .failed(2, &["one device name", "device: /dev/xvda"]);
    assert!(sandbox.left(&["disk.raw"]).is_empty());
}

#[test]
fn a_disk_needs_a_name_for_the_image() {
    let sandbox = Sandbox::new().and("disk.raw", noise(1, 1));
    sandbox.run(&["store", "--disk", "/dev/xvda=disk.raw", "a.bin"]).failed(2, &["needs a --name"]);
}

#[test]
fn a_disk_needs_a_device() {
    Sandbox::new()
        .run(&["store", "--disk", "disk.raw", "--name", "sample", "a.bin"])
        .failed(2, &["--disk has to be DEVICE=FILE", "given: disk.raw"]);
}

#[test]
fn disks_and_a_source_exclude_each_other() {
    let sandbox = Sandbox::with_image().and("disk.raw", noise(1, 1));
    store_disk(&sandbox, &["image", "a.bin"]).failed(2, &["with --disk there is no SOURCE"]);
}

#[test]
fn a_disk_image_that_is_not_raw_is_refused_with_a_hint_to_convert_it() {
    // Such files need not have whole sectors.
    for len in [1 << 16, 1000] {
        let mut qcow2 = b"QFI\xFB\0\0\0\x03".to_vec();
        qcow2.resize(len, 0);
        let sandbox = Sandbox::new().and("disk.raw", qcow2);
        store_disk(&sandbox, &["a.bin"]).failed(
            8,
            &[
                "not raw",
                "path: disk.raw",
                "format: qcow2",
                "hint: convert it first: qemu-img convert",
            ],
        );
        assert!(sandbox.left(&["disk.raw"]).is_empty());
    }
}

#[test]
fn an_image_directory_is_stored_under_an_allowed_name() {
    let sandbox = Sandbox::with_image();
    let json = String::from_utf8(sandbox.read("image/image.json")).expect("text");
    sandbox.write("image/image.json", json.replace("\"sample\"", "\"a: b\""));
    sandbox
        .run(&["store", "image", "a.bin"])
        .failed(2, &["name: a: b", "hint: an allowed --name takes its place"]);
    sandbox.run(&["store", "image", "a.bin", "--name", "other"]).succeeded();
    sandbox.run(&["extract", "a.bin", "--image-json", "-o", "b.json"]).succeeded();
    let renamed = String::from_utf8(sandbox.read("b.json")).expect("text");
    assert_eq!(renamed, json.replace("\"sample\"", "\"other\""), "all other bytes stay");
}

#[test]
fn names_in_aws_are_not_taken_for_files() {
    let sandbox = Sandbox::with_archive();
    sandbox.sample_image("image");
    let set_up = ["a.bin", "image", "image/"];
    for args in [
        ["store", "image", "gs://bucket/"],
        ["restore", "gs://bucket/a.bin", "out"],
        ["restore", "a.bin", "s3://bucket/"],
    ] {
        sandbox
            .run(&args)
            .failed(8, &["only local files, pipes, s3:// and file:// are known", "://bucket/"]);
    }
    sandbox
        .run(&["store", "s3://bucket/a.bin", "b.bin"])
        .failed(8, &["`amistore copy` copies", "source: s3://bucket/a.bin"]);
    // These names are in AWS, for which no credentials exist here.
    sandbox.run(&["store", IMAGE, "b.bin"]).failed(2, &["no Region is known"]);
    sandbox.run(&["restore", "a.bin", "ec2"]).failed(2, &["no Region is known"]);
    assert!(sandbox.left(&set_up).is_empty(), "{:?}", sandbox.left(&set_up));
}

#[test]
fn a_directory_named_like_an_image_is_a_source() {
    let sandbox = Sandbox::new();
    sandbox.sample_image(IMAGE);
    sandbox.run(&["store", &format!("./{IMAGE}"), "a.bin"]).succeeded();
    // Without the dot the name is an image of EC2, although the directory exists.
    sandbox.run(&["store", IMAGE, "b.bin"]).failed(2, &["no Region is known"]);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let sandbox = Sandbox::with_archive().and("disk.raw", noise(1, 1));
    for level in ["0", "20", "-1"] {
        store_disk(&sandbox, &["--level", level, "b.bin"])
            .failed(2, &["from 1 to 19", &format!("level: {level}")]);
    }
    for share in ["0", "101", "x"] {
        sandbox
            .run(&["verify", "--sample", share, "a.bin"])
            .failed(2, &["--sample has to be", &format!("given: {share}")]);
    }
    sandbox
        .run(&["verify", "--threads", "0", "a.bin"])
        .failed(2, &["--threads has to be at least 1"]);
    sandbox.run(&["verify", "--memory", "much", "a.bin"]).failed(2, &["not a size", "given: much"]);
    assert!(sandbox.left(&["a.bin", "disk.raw"]).is_empty());
}

#[test]
fn too_little_memory_is_a_limit_that_can_be_raised() {
    let sandbox = Sandbox::with_archive();
    for args in [&["verify", "a.bin"][..], &["restore", "a.bin", "out"], &["inspect", "a.bin"]] {
        sandbox
            .run(&[args, &["--memory", "1MiB"]].concat())
            .failed(7, &["memory: 1048576", "needed: ", "hint: give more with --memory"]);
    }
    assert!(sandbox.left(&["a.bin"]).is_empty());
}

#[test]
fn a_pipe_is_refused_if_random_access_is_needed() {
    let sandbox = Sandbox::new();
    sandbox.run(&["extract", "-", "--image-json"]).failed(2, &["name a file"]);
    sandbox.run(&["verify", "-", "--sample", "5%"]).failed(2, &["name a file"]);
    assert!(sandbox.left(&[]).is_empty());
}

#[test]
fn a_disk_that_another_process_may_write_is_a_warning() {
    let sandbox = Sandbox::with_image();
    let quiet = sandbox.run(&["store", "image", "quiet.bin"]).succeeded();
    assert!(!quiet.stderr.contains("open for writing"), "{}", quiet.stderr);
    let path = sandbox.path("image/snap-0aaaaaaaaaaaaaaaa.raw");
    let disk = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
    let pid = std::process::id().to_string();
    sandbox.run(&["store", "image", "a.bin"]).succeeded().says(&[
        "warning",
        "open for writing in process",
        &pid,
    ]);
    drop(disk);
}

#[test]
fn a_root_device_without_a_volume_is_a_warning() {
    let sandbox = Sandbox::with_image();
    let warned = |document: &Value| {
        sandbox.write("image/image.json", document.to_string());
        let outcome = sandbox.run(&["store", "image", "a.bin", "--force"]).succeeded();
        outcome.stderr.contains("--root-device")
    };
    let mut document = sample_json();
    assert!(!warned(&document));
    document["Image"]["RootDeviceName"] = json!("/dev/sdz");
    assert!(warned(&document));
    document["Image"].as_object_mut().expect("an object").remove("RootDeviceName");
    assert!(warned(&document));
}

#[test]
fn arguments_in_the_wrong_order_are_answered_with_the_command_in_the_right_one() {
    let sandbox = Sandbox::with_archive();
    sandbox.sample_image("image");
    sandbox.make_directory("empty");
    for (args, command) in [
        (&["store", "out.bin", IMAGE][..], format!("store {IMAGE} out.bin")),
        (&["store", "s3://bucket/", "snap-0123456789abcdef0"], {
            "store snap-0123456789abcdef0 s3://bucket/".to_owned()
        }),
        (&["store", "a.bin", "image"], "store image a.bin".to_owned()),
        (&["store", "s3://bucket/", "image/"], "store image/ s3://bucket/".to_owned()),
        (&["restore", "empty", "a.bin"], "restore a.bin empty".to_owned()),
        (&["restore", "ec2", "s3://b/a.bin"], "restore s3://b/a.bin ec2".to_owned()),
        (&["retire", "a.bin", "--archive", IMAGE, "--disable"], {
            format!("retire {IMAGE} --archive a.bin")
        }),
    ] {
        let words = ["in the wrong order", &format!("amistore {command}")];
        sandbox.run(args).failed(2, &words);
    }
    // An image directory may be replaced as a target by nothing, and is a place for archives.
    sandbox.run(&["store", "image", "empty"]).succeeded();
    sandbox.run(&["store", "missing", "image"]).failed(3, &["image.json"]);
    for (broken, meant) in
        [("s3:/bucket/x.bin", "s3://bucket/x.bin"), ("file:/x.bin", "file:///x.bin")]
    {
        sandbox.run(&["verify", broken]).failed(2, &[meant]);
        sandbox.run(&["store", "image", broken]).failed(2, &[meant]);
    }
    assert!(
        !sandbox.left(&["image", "image/", "a.bin", "empty/"]).iter().any(|it| it.contains("s3"))
    );
}
