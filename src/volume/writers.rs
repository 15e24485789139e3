//! Uses of a disk image or block device during which its content may change, by the files of
//! `/proc` and `/sys`. Where these cannot be read, no use is found.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};

/// Mounts of the device or of its partitions that are not read-only, and other processes that have
/// the file open for writing: one phrase for each, such as "mounted at /data".
pub fn writers_of(file: &File) -> Vec<String> {
    let Ok(metadata) = file.metadata() else { return Vec::new() };
    let mut found = Vec::new();
    let mut devices = HashSet::new();
    if metadata.file_type().is_block_device() {
        devices = with_partitions(metadata.rdev());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        found = mounts_of(&mounts, &devices);
    }
    let is_it = |other: &Metadata| {
        if devices.is_empty() {
            (other.dev(), other.ino()) == (metadata.dev(), metadata.ino())
        } else {
            other.file_type().is_block_device() && devices.contains(&number(other.rdev()))
        }
    };
    found.extend(processes(&is_it));
    found
}

/// A device number as `major:minor`.
fn number(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

/// The device and its partitions.
fn with_partitions(device: u64) -> HashSet<String> {
    let whole = number(device);
    let directory = Path::new("/sys/dev/block").join(&whole);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let partitions = entries
        .filter(|entry| entry.path().join("partition").exists())
        .filter_map(|entry| fs::read_to_string(entry.path().join("dev")).ok())
        .map(|text| text.trim().to_owned());
    partitions.chain([whole]).collect()
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

/// Other processes that have a file for which `is_it` holds open for writing.
fn processes(is_it: &dyn Fn(&Metadata) -> bool) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let writes = |descriptor: fs::DirEntry| {
            fs::metadata(descriptor.path()).is_ok_and(|metadata| is_it(&metadata)) && {
                let info = process.path().join("fdinfo").join(descriptor.file_name());
                fs::read_to_string(info).is_ok_and(|info| may_write(&info))
            }
        };
        if descriptors.into_iter().any(writes) {
            found.push(format!("open for writing in process {name}"));
        }
    }
    found
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
    fn the_access_mode_of_a_descriptor_is_read() {
        assert!(may_write("pos:\t0\nflags:\t0100002\nmnt_id:\t29\n"));
        assert!(may_write("pos:\t0\nflags:\t02000001\n"));
        assert!(!may_write("pos:\t0\nflags:\t0100000\n"));
        assert!(!may_write(""));
    }
}
