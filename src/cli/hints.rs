//! What a person can do about an error, made from its kind and facts.

use std::io;

use crate::base::{Error, ErrorKind};

/// One sentence of advice, if there is any.
pub(super) fn hint(error: &Error) -> Option<String> {
    if let Some(command) = error.fact("resume_with") {
        if error.kind() == ErrorKind::Usage && error.fact("action") == Some("RegisterImage") {
            return Some(format!(
                "the blocks are kept, and are not sent again: mend it by options, such as --volume-type or --boot-mode, added to: {command}"
            ));
        }
        if error.kind() == ErrorKind::Denied {
            let why = denied(error).unwrap_or("see to the permissions");
            return Some(format!("{why}; what was done is kept; then continue with: {command}"));
        }
        let or = if error.fact("snapshots_kept").is_some() {
            "; or delete the snapshots with: amistore clean --abort"
        } else {
            ""
        };
        return Some(format!("what was done is kept; continue with: {command}{or}"));
    }
    let message = error.message();
    if error.fact("begun_with").is_some()
        || message.contains("not what it was when this store began")
    {
        return Some(
            "begin anew with --restart, or repeat the command as it was: `amistore tasks` shows it"
                .to_owned(),
        );
    }
    let says = |text: &str| message.contains(text);
    let advice = match error.kind() {
        ErrorKind::Denied if denied(error).is_some() => {
            return denied(error).map(ToOwned::to_owned);
        }
        ErrorKind::NotFound if says("not shared with this account") => {
            "check the id, the Region and the account; have image and snapshots shared with this account by its number"
        }
        ErrorKind::Io if error.fact("storage_tier").is_some() => {
            "aws ec2 restore-snapshot-tier --snapshot-id SNAP --temporary-restore-days 7"
        }
        ErrorKind::Exists if error.fact("image_id").is_some() && error.fact("name").is_some() => {
            "give the new image another --name"
        }
        ErrorKind::Unsupported if error.fact("instead").is_some() => {
            return error.fact("instead").map(ToOwned::to_owned);
        }
        ErrorKind::Corrupt if says("is not what EBS says") => {
            "repeat the command; if it stays so, the snapshot itself is damaged, and AWS support has to look at it"
        }
        ErrorKind::Corrupt if says("is not what the image is") => {
            "store the image anew, with --force, and compare again"
        }
        ErrorKind::NotFound if says("no such bucket") => {
            "check the name, the Region and the endpoint; amistore does not make buckets"
        }
        ErrorKind::NotFound if says("no such object") => "`amistore ls` lists what is there",
        ErrorKind::Io if error.fact("endpoint").is_some() || error.fact("region").is_some() => {
            "check the endpoint, the network, and HTTPS_PROXY if there is a proxy"
        }
        ErrorKind::Io if error.fact("frozen").is_some() => {
            "ask for a readable copy with --thaw standard, and --wait for it"
        }
        ErrorKind::Io if says("asked for, and is not there yet") => {
            "repeat the command later, or add --wait"
        }
        ErrorKind::Io if says("was replaced while it was read") => {
            "repeat the command: it then reads the object that is there now"
        }
        ErrorKind::Limit if error.fact("part_size").is_some() => "give more with --memory",
        ErrorKind::Io | ErrorKind::Denied
            if error.fact("state_directory").is_some() || error.fact("state_file").is_some() =>
        {
            "choose another place with --state"
        }
        ErrorKind::Exists if error.fact("state_file").is_some() => {
            "wait for it to end; `amistore tasks` shows it"
        }
        ErrorKind::Exists if error.fact("content").is_some() => {
            "choose another key, or replace it with --force"
        }
        ErrorKind::Usage if says("not an archive in it") => "`amistore ls` lists what is there",
        ErrorKind::Exists if says("another process") => {
            "wait for it to end, or choose another name"
        }
        ErrorKind::Exists if error.fact("partial_file").is_some() => {
            "remove the partial file if nobody is writing it, or choose another name"
        }
        ErrorKind::Exists if says("not a directory") => {
            "choose another name: an archive is restored to a directory"
        }
        ErrorKind::Exists if error.fact("image_id").is_some() && error.fact("region").is_some() => {
            "images in EC2 are not replaced: give the new one another --name"
        }
        ErrorKind::Exists if error.fact("image_id").is_some() => {
            "give the image another --name or an --image-id, or name another file; --force replaces what is there"
        }
        ErrorKind::Exists => "choose another name, or replace it with --force",
        ErrorKind::Unsupported
            if error.fact("looks_like").is_some_and(|what| what.contains("AWS")) =>
        {
            "an object made by AWS is restored by AWS: amistore restore --via-aws s3://BUCKET/KEY ec2"
        }
        ErrorKind::Unsupported
            if error.fact("looks_like").is_some_and(|what| what.contains("disk image")) =>
        {
            "to pack a disk image: amistore store --disk /dev/xvda=FILE --name NAME ARCHIVE"
        }
        ErrorKind::Unsupported if says("not raw") => {
            "convert it first: qemu-img convert -O raw FILE disk.raw"
        }
        ErrorKind::Unsupported
            if error.fact("version").is_some() || error.fact("feature").is_some() =>
        {
            "use a newer amistore"
        }
        ErrorKind::Limit if error.fact("missing_bytes").is_some() => {
            "give more with --memory, or use fewer --threads"
        }
        ErrorKind::Limit if error.fact("memory").is_some() => {
            "give more with --memory, or use a lower --level"
        }
        ErrorKind::Corrupt
            if says("truncated") || says("no footer") || says("index cannot be read") =>
        {
            "fetch it again, and compare its size with that of the original"
        }
        ErrorKind::Corrupt if says("differ") => "one of the two changed since the archive was made",
        ErrorKind::Corrupt
            if error.fact("snapshot").is_some() || error.fact("findings").is_some() =>
        {
            "fetch it again if it is a copy; volumes without damage can still be taken out with `amistore extract`"
        }
        ErrorKind::Corrupt => "fetch it again if it is a copy",
        ErrorKind::NotFound if says("image.json") || says("read the image directory") => {
            "an image directory has an image.json; plain disks are packed with --disk DEVICE=FILE"
        }
        ErrorKind::NotFound if says("cannot create the file") => "its directory has to exist",
        ErrorKind::NotFound if says("make the image directory") => {
            "the directory above it has to exist"
        }
        ErrorKind::Usage if says("describe-images") => {
            "take one image out of it: jq '{Image: .Images[0]}' described.json > image.json"
        }
        ErrorKind::Usage if says("size that image.json says") => {
            "check that the file is whole; correct VolumeSize if the metadata is wrong"
        }
        ErrorKind::Usage if says("multiple of 512") => {
            "a disk image is a whole number of 512-byte sectors: check that the file is whole"
        }
        ErrorKind::Io => return io_hint(error),
        _ => return None,
    };
    Some(advice.to_owned())
}

/// What can be done about a refusal.
fn denied(error: &Error) -> Option<&'static str> {
    let says = |text: &str| error.message().contains(text);
    let code = error.fact("code");
    let advice = match error.kind() {
        ErrorKind::Denied if says("no credentials") => {
            "name a --profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; `aws sts get-caller-identity` shows what is found"
        }
        ErrorKind::Denied if says("bucket is public") => {
            "block public access: aws s3api put-public-access-block --bucket BUCKET --public-access-block-configuration BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true; or say --allow-public-bucket"
        }
        ErrorKind::Denied if says("its key may not be used") => {
            "allow kms:Decrypt, kms:DescribeKey and, for shared keys, kms:CreateGrant in the policy of the key and of the credentials"
        }
        ErrorKind::Denied if says("shared with everybody") => {
            "aws ec2 modify-snapshot-attribute --snapshot-id SNAP --attribute createVolumePermission --operation-type add --user-ids ACCOUNT, or aws ec2 copy-image"
        }
        ErrorKind::Denied if says("protected against deregistration") => {
            "aws ec2 disable-image-deregistration-protection --image-id AMI"
        }
        ErrorKind::Denied
            if matches!(
                code,
                Some("ExpiredToken" | "RequestExpired" | "ExpiredTokenException")
            ) =>
        {
            "log in again, or fetch new credentials, and repeat the command"
        }
        ErrorKind::Denied
            if matches!(
                code,
                Some(
                    "SignatureDoesNotMatch"
                        | "InvalidAccessKeyId"
                        | "AuthFailure"
                        | "InvalidClientTokenId"
                        | "InvalidSignatureException"
                        | "UnrecognizedClientException"
                )
            ) =>
        {
            "check the secret key, the endpoint and the Region; each partition has credentials of its own"
        }
        ErrorKind::Denied if error.fact("action").is_some() || error.fact("reason").is_some() => {
            "the policy of the credentials has to allow this action; the README lists what each command needs"
        }
        ErrorKind::Denied if error.fact("status").is_some() => {
            "the policy of the credentials, of the bucket or of its key has to allow this; the README lists what each command needs"
        }
        _ => return None,
    };
    Some(advice)
}

fn io_hint(error: &Error) -> Option<String> {
    let cause = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    let archive_on_stdout = error.fact("path") == Some("standard output");
    let stdout = archive_on_stdout || error.message().contains("standard output");
    let advice = match cause.kind() {
        io::ErrorKind::StorageFull if stdout => {
            "free some space where the output goes; what is there is not whole"
        }
        io::ErrorKind::BrokenPipe if !archive_on_stdout => "whoever read the output stopped",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another place; what was half written has been removed"
        }
        io::ErrorKind::BrokenPipe => {
            "whoever read the output stopped; what it got is not a whole archive"
        }
        io::ErrorKind::FileTooLarge => "choose a file system that holds larger files, such as XFS",
        io::ErrorKind::UnexpectedEof => {
            "it changed while it was read: store from a snapshot, or from a disk that nobody writes"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}
