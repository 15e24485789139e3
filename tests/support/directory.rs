//! An image directory with some of everything.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::image::{BLOCK, Random};

const IMAGE: &str = r#"{
  "Image": {"ImageId": "ami-0123456789abcdef0", "Name": "test image", "NotKnown": [1, {"a": null}],
    "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-root"}},
                            {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": "snap-data"}},
                            {"DeviceName": "/dev/sdc", "Ebs": {"SnapshotId": "snap-data"}},
                            {"DeviceName": "/dev/sdd", "VirtualName": "ephemeral0"}]},
  "Snapshots": [{"SnapshotId": "snap-root", "VolumeSize": 1}]
}"#;

/// An image directory with some of everything: data, written zeros, holes, extents that are
/// allocated and were never written.
pub fn make_image(directory: &Path) {
    fs::create_dir(directory).expect("makes");
    fs::write(directory.join("image.json"), IMAGE).expect("writes");
    let mut random = Random(11);
    let root = sparse(&directory.join("snap-root.raw"), 1 << 30);
    for block in [0, 1, 2, 700, 2047] {
        root.write_all_at(&random.text(BLOCK), block * BLOCK as u64).expect("writes");
    }
    root.write_all_at(&random.noise(BLOCK * 9), 100 * BLOCK as u64).expect("writes");
    root.write_all_at(&vec![0; 2 * BLOCK], 300 * BLOCK as u64).expect("writes");
    // Blocks 400 to 420 are allocated and unwritten, where the file system can tell.
    let _ = rustix::fs::fallocate(
        &root,
        rustix::fs::FallocateFlags::KEEP_SIZE,
        400 * BLOCK as u64,
        20 * BLOCK as u64,
    );
    let data = sparse(&directory.join("snap-data.raw"), 5 * BLOCK as u64 + 512);
    data.write_all_at(b"the last sector", 5 * BLOCK as u64).expect("writes");
    data.write_all_at(b"a sector in the middle", BLOCK as u64 + 1024).expect("writes");
}

/// A sparse file of `len` bytes.
pub fn sparse(path: &Path, len: u64) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("makes");
    file.set_len(len).expect("a length");
    file
}
