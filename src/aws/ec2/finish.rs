//! The last steps of a restore to EC2: snapshots are completed, the image is registered, its
//! permissions are set, and the report on attributes is made.

use std::time::Duration;

use serde_json::Value;

use super::super::ebs::{CompletedSnapshot, complete_snapshot};
use super::describe::{self, text};
use super::destination::{Ec2Options, Ec2Restored, RestoredSnapshot};
use super::fidelity::FidelityItem;
use super::permissions;
use super::registration::{self, Registration};
use crate::base::{Error, ErrorCode, ErrorKind, ImageId, Result, SnapshotId};
use crate::image::ImageDocument;

/// Poll intervals for a snapshot or image that is pending: short at first, doubled up to the
/// longest, which stays far below EC2's request rate limits.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Number of polls of a snapshot that EBS refuses to complete, because it may be completed
/// already: about one minute.
const LOOKS_FOR_COMPLETION: u32 = 12;
/// Number of polls for which EC2 may not know a new resource (EC2 developer guide, "Eventual
/// consistency").
const UNKNOWN_FOR: u32 = 60;

/// Completes a snapshot. EBS refuses to complete a snapshot twice; if an earlier run or a request
/// whose answer was lost did it, EC2 reports the snapshot as completed within a minute.
pub(super) fn complete(
    options: &Ec2Options,
    id: &SnapshotId,
    what: &CompletedSnapshot,
    continued: bool,
) -> Result<()> {
    let Err(error) = complete_snapshot(&options.ebs, id, what) else { return Ok(()) };
    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Denied) {
        return Err(error);
    }
    let mut looks = if continued || error.was_repeated() { LOOKS_FOR_COMPLETION } else { 1 };
    let mut pause = FIRST_PAUSE;
    loop {
        let described = describe::snapshots(&options.ec2, std::slice::from_ref(id))
            .ok()
            .and_then(|mut found| found.pop().flatten());
        match described.as_ref().and_then(|snapshot| text(snapshot, "State")) {
            Some("completed") => return Ok(()),
            Some("pending") | None if looks > 1 => looks -= 1,
            _ => return Err(error),
        }
        options.ec2.pause(pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits until all snapshots are completed. Returns EC2's descriptions, in the order of `ids`.
pub(super) fn wait_for_snapshots(options: &Ec2Options, ids: &[SnapshotId]) -> Result<Vec<Value>> {
    let mut pause = FIRST_PAUSE;
    let mut unknown = 0;
    loop {
        let described = describe::snapshots(&options.ec2, ids)?;
        let mut waiting = false;
        for (id, snapshot) in ids.iter().zip(&described) {
            match snapshot.as_ref().map(|snapshot| text(snapshot, "State").unwrap_or_default()) {
                Some("completed") => {}
                Some("error" | "recoverable" | "recovering") => {
                    let message = snapshot
                        .as_ref()
                        .and_then(|snapshot| text(snapshot, "StateMessage"))
                        .unwrap_or("no reason is given");
                    let failed = Error::new(ErrorKind::Io, "EC2 could not complete the snapshot")
                        .at("snapshot_id", id);
                    return Err(failed.at("reason", message));
                }
                Some(_) => waiting = true,
                None if unknown < UNKNOWN_FOR => {
                    unknown += 1;
                    waiting = true;
                }
                None => {
                    let gone = "the snapshot that was written does not exist any more";
                    return Err(Error::new(ErrorKind::NotFound, gone).at("snapshot_id", id));
                }
            }
        }
        if !waiting {
            return Ok(described.into_iter().flatten().collect());
        }
        options.ec2.pause(pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Registers the image. If the name is taken by an image of exactly these snapshots, an earlier
/// request registered it and its answer was lost: that image is returned.
pub(super) fn register(options: &Ec2Options, registration: &Registration) -> Result<ImageId> {
    let answer = match options.ec2.until_answered().call(
        "cannot register the image",
        "RegisterImage",
        registration.params.clone(),
    ) {
        Err(error) if error.is(ErrorCode::ImageNameTaken) => {
            let Some(image) = namesake(options, &registration.name, error.was_repeated())? else {
                return Err(error);
            };
            let expected: Vec<&str> = registration
                .params
                .pairs()
                .iter()
                .filter(|(name, _)| name.ends_with(".Ebs.SnapshotId"))
                .map(|(_, value)| value.as_str())
                .collect();
            let found: Vec<&str> = describe::snapshots_of(&image).collect();
            if expected.is_empty() || expected.iter().any(|id| !found.contains(id)) {
                return Err(error.at("name", &registration.name));
            }
            image
        }
        // The parameters come from the archive and from options, which can change them.
        Err(error) if error.kind() == ErrorKind::Usage => {
            return Err(error.code_as(ErrorCode::RegistrationRefused));
        }
        answer => answer?,
    };
    let missing = || {
        Error::new(ErrorKind::Io, "the answer of EC2 has no image id")
            .at("name", &registration.name)
    };
    ImageId::parse(text(&answer, "ImageId").ok_or_else(missing)?)
}

/// The image with this name. After a repeated request it may be `ours`, and unknown to EC2 for
/// seconds.
fn namesake(options: &Ec2Options, name: &str, may_be_ours: bool) -> Result<Option<Value>> {
    let mut left = if may_be_ours { UNKNOWN_FOR } else { 0 };
    loop {
        match describe::image_named(&options.ec2, name)? {
            None if left > 0 => left -= 1,
            found => return Ok(found),
        }
        options.ec2.pause(Duration::from_secs(1))?;
    }
}

/// Waits until the image is available, sets its permissions, and makes the report on
/// attributes.
pub(super) fn finish(
    options: &Ec2Options,
    document: &ImageDocument,
    id: ImageId,
    registration: Registration,
    mut items: Vec<FidelityItem>,
    snapshots: Vec<RestoredSnapshot>,
) -> Result<Ec2Restored> {
    let registered = |error: Error| error.at("registered", &id);
    let mut pause = FIRST_PAUSE;
    loop {
        let described = describe::new_image(&options.ec2, &id).map_err(registered)?;
        match text(&described, "State").unwrap_or("available") {
            "available" => break,
            "pending" => {}
            state => {
                let reason = described
                    .get("StateReason")
                    .and_then(|reason| text(reason, "Message"))
                    .unwrap_or("no reason is given");
                let failed =
                    Error::new(ErrorKind::Io, "EC2 could not make the image that was registered");
                return Err(registered(failed.at("state", state).at("reason", reason)));
            }
        }
        options.ec2.pause(pause)?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let mut report = registration.items;
    report.extend(
        permissions::apply(&options.ec2, &id, document, &options.edits).map_err(registered)?,
    );
    let described = describe::new_image(&options.ec2, &id).map_err(registered)?;
    let has_uefi_data = report.iter().any(|item| item.attribute == "UefiData");
    let attributes = if has_uefi_data {
        describe::attribute(
            &options.ec2,
            "DescribeImageAttribute",
            ("ImageId", id.as_str()),
            "uefiData",
        )
        .map_err(registered)?
        .answer()
    } else {
        None
    };
    registration::observe(&mut report, &described, attributes.as_ref());
    report.append(&mut items);
    Ok(Ec2Restored { image_id: Some(id), name: Some(registration.name), snapshots, items: report })
}
