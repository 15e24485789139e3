//! AMI names that `image.json` cannot have, and disks that become larger on their way.

use amistore_aws_double::aws::{Content, Image, Snapshot};

use super::partitions::Partitions;

/// An image of the commercial partition with this name, whose root disk has a GUID partition table.
fn image(world: &Partitions, name: &str) -> String {
    let mut head = vec![0; 4096];
    head[512..520].copy_from_slice(b"EFI PART");
    let snapshot = world.com.aws.snapshot_of(1, [(0, Content::bytes(head))]);
    world.com.aws.add_image(Image::new(name, &snapshot))
}

#[test]
fn an_ami_name_that_image_json_forbids_is_refused_with_the_rule_and_the_way_out() {
    let world = Partitions::new();
    let ami = image(&world, "web: server");
    for more in [&[][..], &["--dry-run"]] {
        let args = [&["store", &ami, "a.bin", "--profile", "com"], more].concat();
        world.run(&args).failed(
            2,
            &[
                "only letters, digits, space and ( ) [ ] . / - ' @ _ are allowed",
                "name: web: server",
                "character: :",
                "hint: an allowed --name takes its place",
            ],
        );
    }
    let read = |action: &str| world.com.aws.calls().iter().any(|call| call.operation == action);
    assert!(read("DescribeImages") && !read("ListSnapshotBlocks"), "the name is checked first");
}

#[test]
fn an_allowed_name_replaces_that_of_an_image_in_ec2() {
    let world = Partitions::new();
    let ami = image(&world, "web: server");
    let args = ["store", &ami, "a.bin", "--profile", "com"];
    world.run(&[&args[..], &["--name", "no & good"]].concat()).failed(2, &["character: &"]);
    world.run(&[&args[..], &["--name", "web server"]].concat()).succeeded();
    let text = world.run(&["inspect", "a.bin"]).succeeded().text();
    assert!(text.contains("web server"), "{text}");
    world.run(&["restore", "a.bin", "ec2", "--profile", "gov"]).succeeded();
    assert_eq!(world.gov.aws.images().remove(0).name, "web server");
}

#[test]
fn snapshots_have_no_name() {
    let world = Partitions::new();
    let snapshot = world.com.aws.add_snapshot(Snapshot::new(1).with([(0, Content::bytes(b"a"))]));
    world
        .run(&["store", &snapshot, "a.bin", "--profile", "com", "--name", "web server"])
        .failed(2, &["bare snapshots have no name"]);
}

#[test]
fn a_gpt_disk_on_a_larger_volume_is_worth_a_note_on_its_backup_header() {
    let world = Partitions::new();
    let ami = image(&world, "web");
    world.run(&["store", &ami, "a.bin", "--profile", "com"]).succeeded();
    let restore = ["restore", "a.bin", "ec2", "--profile", "gov"];
    let same = world.run(&restore).succeeded();
    assert!(!same.stderr.contains("sgdisk"), "{}", same.stderr);
    let larger = ["--name", "larger", "--volume-size", "/dev/xvda=2"];
    let device = world.com.aws.image(&ami).expect("the image").mappings.remove(0).device;
    let larger = larger.map(|word| word.replace("/dev/xvda", &device));
    let args: Vec<&str> = restore.into_iter().chain(larger.iter().map(String::as_str)).collect();
    world.run(&args).succeeded().says(&["warning: ", &device, "`sgdisk -e`"]);
    // A stream is not read twice: the note comes with the block that has the header.
    let name = larger[1].clone();
    let args: Vec<&str> = args
        .into_iter()
        .map(|word| match word {
            "a.bin" => "-",
            word if word == name => "third",
            word => word,
        })
        .collect();
    let input = std::fs::File::open(world.sandbox.path("a.bin")).expect("the archive");
    let streamed = world.sandbox.start(world.command(&args).stdin(input)).wait();
    streamed.succeeded().says(&["warning: ", "`sgdisk -e`"]);
}
