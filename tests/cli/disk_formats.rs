//! Only raw disks are stored as raw disks, wherever a disk enters.

use crate::support::cli::{BLOCK, ROOT, Sandbox};

/// A block that begins with a signature.
fn beginning_with(signature: &[u8], offset: usize) -> Vec<u8> {
    let mut block = vec![7; BLOCK as usize];
    block[offset..offset + signature.len()].copy_from_slice(signature);
    block
}

/// A block that ends with the footer of a fixed VHD.
fn fixed_vhd() -> Vec<u8> {
    let mut block = vec![7; BLOCK as usize];
    let footer = BLOCK as usize - 512;
    block[footer..footer + 16].copy_from_slice(b"conectix\0\0\0\x02\0\x01\0\0");
    block
}

fn ova() -> Vec<u8> {
    let mut block = beginning_with(b"machine.ovf\0", 0);
    block[257..263].copy_from_slice(b"ustar\0");
    block
}

/// Content, its format, and the command that helps.
fn cases() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    let at_start = |signature| beginning_with(signature, 0);
    vec![
        (at_start(b"\xFD7zXZ\0"), "xz", "xz -dc FILE"),
        (at_start(b"\x1F\x8B\x08"), "gzip", "gzip -dc FILE"),
        (at_start(b"\x28\xB5\x2F\xFD"), "zstd", "zstd -dc FILE"),
        (at_start(b"BZh91AY&SY"), "bzip2", "bzip2 -dc FILE"),
        (ova(), "ova", "tar -xf FILE && qemu-img convert -O raw -f vmdk"),
        (beginning_with(b"\x7F\x10\xDA\xBE", 64), "vdi", "qemu-img convert -O raw -f vdi"),
        (at_start(b"QFI\xFB\0\0\0\x03"), "qcow2", "qemu-img convert -O raw -f qcow2"),
        (at_start(b"KDMV\x01\0\0\0"), "vmdk", "qemu-img convert -O raw -f vmdk"),
        (
            at_start(b"# Disk DescriptorFile\n"),
            "vmdk descriptor",
            "qemu-img convert -O raw -f vmdk",
        ),
        (at_start(b"conectix"), "vhd", "qemu-img convert -O raw -f vpc"),
        (fixed_vhd(), "vhd, fixed", "qemu-img convert -O raw -f vpc"),
        (at_start(b"vhdxfile"), "vhdx", "qemu-img convert -O raw -f vhdx"),
    ]
}

#[test]
fn a_disk_that_is_not_raw_is_refused_with_the_command_that_helps() {
    for (content, format, command) in cases() {
        let sandbox = Sandbox::new().and("disk.raw", content);
        let hint = format!("hint: convert it first: {command}");
        sandbox
            .run(&["store", "--disk", "/dev/xvda=disk.raw", "--name", "sample", "a.bin"])
            .failed(8, &["not raw", "path: disk.raw", &format!("format: {format}"), &hint])
            .says(&["or store it as it is with --raw"]);
        assert!(sandbox.left(&["disk.raw"]).is_empty());
    }
}

#[test]
fn a_volume_of_an_image_directory_that_is_not_raw_is_refused() {
    for (content, format, command) in cases() {
        let sandbox = Sandbox::with_image();
        let raw = format!("image/{ROOT}.raw");
        let blocks = 1 << 11;
        // The block is the first and the last.
        sandbox.disk(&raw, blocks * BLOCK, &[(0, content.clone()), (blocks - 1, content)]);
        sandbox
            .run(&["store", "image", "a.bin"])
            .failed(8, &["not raw", ROOT, &format!("format: {format}"), command]);
        assert!(sandbox.left(&["image"]).is_empty());
    }
}

#[test]
fn raw_insists_and_the_bytes_come_back() {
    let sandbox = Sandbox::new().and("disk.raw", fixed_vhd());
    sandbox
        .run(&["store", "--raw", "--disk", "/dev/xvda=disk.raw", "--name", "sample", "a.bin"])
        .succeeded();
    sandbox.run(&["extract", "a.bin", "--device", "/dev/xvda", "-o", "b.raw"]).succeeded();
    assert!(sandbox.read("b.raw") == sandbox.read("disk.raw"));
    // The image directory of a restore is compared as it is, and stored again only by `--raw`.
    sandbox.run(&["restore", "a.bin", "out"]).succeeded();
    sandbox.run(&["verify", "a.bin", "--against", "out"]).succeeded();
    sandbox.run(&["store", "out", "b.bin"]).failed(8, &["vhd, fixed"]);
    sandbox.run(&["store", "--raw", "out", "b.bin"]).succeeded();
}

#[test]
fn a_disk_of_odd_length_is_no_raw_disk_even_by_raw() {
    let mut qcow2 = beginning_with(b"QFI\xFB\0\0\0\x03", 0);
    qcow2.truncate(1000);
    let sandbox = Sandbox::new().and("disk.raw", qcow2);
    sandbox
        .run(&["store", "--raw", "--disk", "/dev/xvda=disk.raw", "--name", "sample", "a.bin"])
        .failed(2, &["hint: a disk image is a whole number of 512-byte sectors"]);
}

#[test]
fn inspect_calls_a_disk_by_its_format() {
    for (content, looks_like) in [
        (beginning_with(b"\xFD7zXZ\0", 0), "xz data"),
        (ova(), "an OVA"),
        (beginning_with(b"vhdxfile", 0), "a VHDX disk image"),
        (beginning_with(b"# Disk DescriptorFile\n", 0), "the description of a VMDK disk image"),
        (fixed_vhd(), "a fixed VHD disk image"),
    ] {
        let sandbox = Sandbox::new().and("f", content);
        sandbox.run(&["inspect", "f"]).failed(8, &[&format!("looks like: {looks_like}")]);
    }
}
