//! What a person can do about an error, made from its kind and facts.

use std::io;

use crate::base::{Error, ErrorKind};

/// One sentence of advice, if there is any.
pub(super) fn hint(error: &Error) -> Option<String> {
    let message = error.message();
    let says = |text: &str| message.contains(text);
    let advice = match error.kind() {
        ErrorKind::Exists if says("another process") => "wait for it to end, or choose another name",
        ErrorKind::Exists if error.fact("partial_file").is_some() => {
            "remove the partial file if nobody is writing it, or choose another name"
        }
        ErrorKind::Exists if says("not a directory") => "choose another name: an archive is restored to a directory",
        ErrorKind::Exists if error.fact("image_id").is_some() => {
            "give the image another --name or an --image-id, or name another file; --force replaces what is there"
        }
        ErrorKind::Exists => "choose another name, or replace it with --force",
        ErrorKind::Unsupported if error.fact("looks_like").is_some_and(|what| what.contains("AWS")) => {
            "an object made by AWS is restored by AWS: aws ec2 create-restore-image-task --bucket BUCKET --object-key KEY"
        }
        ErrorKind::Unsupported if error.fact("looks_like").is_some_and(|what| what.contains("disk image")) => {
            "to pack a disk image: amistore store --disk /dev/xvda=FILE --name NAME ARCHIVE"
        }
        ErrorKind::Unsupported if says("not raw") => "convert it first: qemu-img convert -O raw FILE disk.raw",
        ErrorKind::Unsupported if error.fact("version").is_some() || error.fact("feature").is_some() => "use a newer amistore",
        ErrorKind::Limit if error.fact("missing_bytes").is_some() => "give more with --memory, or use fewer --threads",
        ErrorKind::Limit if error.fact("memory").is_some() => "give more with --memory, or use a lower --level",
        ErrorKind::Corrupt if says("truncated") || says("no footer") || says("index cannot be read") => {
            "fetch it again, and compare its size with that of the original"
        }
        ErrorKind::Corrupt if says("differ") => "one of the two changed since the archive was made",
        ErrorKind::Corrupt if error.fact("snapshot").is_some() || error.fact("findings").is_some() => {
            "fetch it again if it is a copy; volumes without damage can still be taken out with `amistore extract`"
        }
        ErrorKind::Corrupt => "fetch it again if it is a copy",
        ErrorKind::NotFound if says("image.json") || says("read the image directory") => {
            "an image directory has an image.json; plain disks are packed with --disk DEVICE=FILE"
        }
        ErrorKind::NotFound if says("cannot create the file") => "its directory has to exist",
        ErrorKind::NotFound if says("make the image directory") => "the directory above it has to exist",
        ErrorKind::Usage if says("describe-images") => "take one image out of it: jq '{Image: .Images[0]}' described.json > image.json",
        ErrorKind::Usage if says("size that image.json says") => {
            "check that the file is whole; correct VolumeSize if the metadata is wrong"
        }
        ErrorKind::Usage if says("multiple of 512") => "a disk image is a whole number of 512-byte sectors: check that the file is whole",
        ErrorKind::Io => return io_hint(error),
        _ => return None,
    };
    Some(advice.to_owned())
}

fn io_hint(error: &Error) -> Option<String> {
    let cause = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    let archive_on_stdout = error.fact("path") == Some("standard output");
    let stdout = archive_on_stdout || error.message().contains("standard output");
    let advice = match cause.kind() {
        io::ErrorKind::StorageFull if stdout => "free some space where the output goes; what is there is not whole",
        io::ErrorKind::BrokenPipe if !archive_on_stdout => "whoever read the output stopped",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another place; what was half written has been removed"
        }
        io::ErrorKind::BrokenPipe => "whoever read the output stopped; what it got is not a whole archive",
        io::ErrorKind::FileTooLarge => "choose a file system that holds larger files, such as XFS",
        io::ErrorKind::UnexpectedEof => "it changed while it was read: store from a snapshot, or from a disk that nobody writes",
        _ => return None,
    };
    Some(advice.to_owned())
}
