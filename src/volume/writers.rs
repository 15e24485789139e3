//! Uses of a disk image or block device during which its content may change, by the files of
//! `/proc` and `/sys`. Where these cannot be read, a use is possible, and is named as such.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};

use crate::localfs::exists;

/// Mounts of the device or of its partitions that are not read-only, and other processes that have
/// the file open for writing: one phrase for each, such as "mounted at /data". A use that could not
/// be looked up is a phrase as well, such as "perhaps mounted: ...".
pub fn writers_of(file: &File) -> Vec<String> {
    writers_below(Path::new("/"), file)
}

/// [`writers_of`] with the `proc` and `sys` of the directory `root`.
fn writers_below(root: &Path, file: &File) -> Vec<String> {
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(cause) => return vec![format!("perhaps in use: it cannot be looked up ({cause})")],
    };
    let mut found = Vec::new();
    let mut devices = HashSet::new();
    if metadata.file_type().is_block_device() {
        devices = with_partitions(root, metadata.rdev(), &mut found);
        match fs::read_to_string(root.join("proc/self/mountinfo")) {
            Ok(mounts) => found.extend(mounts_of(&mounts, &devices)),
            Err(cause) => found.push(format!(
                "perhaps mounted: the mounts cannot be read from /proc/self/mountinfo ({cause})"
            )),
        }
    }
    let is_it = |other: &Metadata| {
        if devices.is_empty() {
            (other.dev(), other.ino()) == (metadata.dev(), metadata.ino())
        } else {
            other.file_type().is_block_device() && devices.contains(&number(other.rdev()))
        }
    };
    match processes(&root.join("proc"), &is_it) {
        Ok((writers, hidden)) => {
            found.extend(writers);
            // A disk image is seldom opened by other users; a block device is by the system.
            if hidden > 0 && !devices.is_empty() {
                found.push(format!(
                    "perhaps open for writing: this user may not look at {hidden} of the processes"
                ));
            }
        }
        Err(cause) => found.push(format!(
            "perhaps open for writing: the processes cannot be read from /proc ({cause})"
        )),
    }
    found
}

/// A device number as `major:minor`.
fn number(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

/// The device and its partitions.
fn with_partitions(root: &Path, device: u64, found: &mut Vec<String>) -> HashSet<String> {
    let whole = number(device);
    let read = || -> io::Result<Vec<String>> {
        let mut partitions = Vec::new();
        for entry in fs::read_dir(root.join("sys/dev/block").join(&whole))? {
            let path = entry?.path();
            // Beside partitions there are files of the device.
            if exists(&path.join("partition")).map_err(io::Error::other)? {
                partitions.push(fs::read_to_string(path.join("dev"))?.trim().to_owned());
            }
        }
        Ok(partitions)
    };
    let partitions = read().unwrap_or_else(|cause| {
        found.push(format!(
            "perhaps mounted: its partitions cannot be read from /sys/dev/block/{whole} ({cause})"
        ));
        Vec::new()
    });
    partitions.into_iter().chain([whole]).collect()
}

/// The mounts in the text of `/proc/self/mountinfo` that may write to one of the devices.
fn mounts_of(mountinfo: &str, devices: &HashSet<String>) -> Vec<String> {
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let mount = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let (device, point, options) = (*fields.get(2)?, *fields.get(4)?, *fields.get(5)?);
        let of_file_system = file_system.split(' ').nth(2).unwrap_or_default();
        let writes = !is_read_only(options) && !is_read_only(of_file_system);
        (writes && devices.contains(device)).then(|| format!("mounted at {point}"))
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// Other processes that have a file for which `is_it` holds open for writing, and the number of
/// processes whose open files this user may not see.
fn processes(proc: &Path, is_it: &dyn Fn(&Metadata) -> bool) -> io::Result<(Vec<String>, usize)> {
    let own = std::process::id().to_string();
    let (mut found, mut hidden) = (Vec::new(), 0);
    for process in fs::read_dir(proc)? {
        let process = process?;
        let name = process.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let writes = |descriptor: fs::DirEntry| {
            fs::metadata(descriptor.path()).is_ok_and(|metadata| is_it(&metadata)) && {
                let info = process.path().join("fdinfo").join(descriptor.file_name());
                fs::read_to_string(info).is_ok_and(|info| may_write(&info))
            }
        };
        match fs::read_dir(process.path().join("fd")) {
            Ok(descriptors) => {
                if descriptors.flatten().any(writes) {
                    found.push(format!("open for writing in process {name}"));
                }
            }
            // A process that has ended since has nothing open.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(_) => hidden += 1,
        }
    }
    Ok((found, hidden))
}

/// Whether the text of a file in `/proc/PID/fdinfo` has an access mode other than `O_RDONLY`.
fn may_write(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|it| it & 3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_may_write_are_found_by_the_number_of_the_device() {
        let mountinfo = "\
            22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            23 1 259:2 / /data rw,noatime - xfs /dev/nvme0n1p2 rw,attr2\n\
            24 1 259:2 / /copy ro,noatime - xfs /dev/nvme0n1p2 rw,attr2\n\
            25 1 259:3 / /boot rw - ext4 /dev/nvme0n1p3 ro\n\
            26 1 0:44 / /proc rw shared:2 master:1 - proc proc rw\n";
        let devices: HashSet<String> =
            ["259:0", "259:2", "259:3"].into_iter().map(ToOwned::to_owned).collect();
        assert_eq!(mounts_of(mountinfo, &devices), ["mounted at /data"]);
    }

    #[test]
    fn a_use_that_cannot_be_looked_up_is_named_as_possible() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("disk.raw");
        let file = File::create(&path).expect("a disk");
        let found = writers_below(root.path(), &file);
        assert!(found.len() == 1 && found[0].starts_with("perhaps open for writing"), "{found:?}");
        fs::create_dir_all(root.path().join("proc/4294967295/fd")).expect("a process");
        assert_eq!(writers_below(root.path(), &file), Vec::<String>::new());
        // A file instead of the directory of descriptors cannot be listed.
        fs::create_dir_all(root.path().join("proc/4294967294")).expect("a process");
        fs::write(root.path().join("proc/4294967294/fd"), b"").expect("writes");
        assert_eq!(processes(&root.path().join("proc"), &|_| true).expect("lists").1, 1);
        let mut unknown = Vec::new();
        let device = rustix::fs::makedev(7, 0);
        let block = root.path().join("sys/dev/block/7:0");
        fs::create_dir_all(block.join("loop0p1")).expect("a partition");
        for (name, text) in [("size", "8"), ("loop0p1/partition", "1"), ("loop0p1/dev", "259:1\n")]
        {
            fs::write(block.join(name), text).expect("writes");
        }
        let devices = with_partitions(root.path(), device, &mut unknown);
        assert!(devices == HashSet::from(["7:0".into(), "259:1".into()]), "{devices:?}");
        assert!(unknown.is_empty(), "{unknown:?}");
        fs::remove_dir_all(root.path().join("sys")).expect("removes");
        let devices = with_partitions(root.path(), device, &mut unknown);
        assert!(
            devices.contains("7:0") && unknown[0].starts_with("perhaps mounted"),
            "{unknown:?}"
        );
    }

    #[test]
    fn the_access_mode_of_a_descriptor_is_read() {
        assert!(may_write("pos:\t0\nflags:\t0100002\nmnt_id:\t29\n"));
        assert!(may_write("pos:\t0\nflags:\t02000001\n"));
        assert!(!may_write("pos:\t0\nflags:\t0100000\n"));
        assert!(!may_write(""));
    }
}
