//! Restores an archive to EC2, so that it can be continued.

use crate::aws::ec2::{Ec2Destination, Ec2Options, Ec2Restored};
use crate::base::{Error, Result, hex};
use crate::engine::{Archive, Context};
use crate::ops::{self, Restored, Resumption};

/// What the task of a restore is known by: one archive may be restored twice, under two names.
pub fn restore_target(options: &Ec2Options, archive: &Archive) -> String {
    let (region, endpoint) = (options.ec2.region(), options.ec2.endpoint());
    let at = if endpoint.is_custom() { format!(" at {endpoint}") } else { String::new() };
    let profile = options.ec2.profile().map(|profile| format!(" as {profile}")).unwrap_or_default();
    let name = options
        .edits
        .name
        .clone()
        .or_else(|| archive.document().name().map(ToOwned::to_owned))
        .unwrap_or_default();
    format!("ec2 {region}{profile}{at}: {name} from {}", hex(&archive.footer().root))
}

/// Restores an archive to EC2, or goes on with that. `about_snapshots` is what was asked for of
/// them: with other wishes it cannot be continued.
pub fn restore_to_ec2(
    archive: &Archive,
    place: &Ec2Destination,
    about_snapshots: &str,
    resumption: &Resumption,
    context: Context<'_>,
) -> Result<(Restored, Ec2Restored)> {
    let report = ops::restore_resumable(archive, place, &[about_snapshots], resumption, context)?;
    let restored =
        place.restored().ok_or_else(|| Error::internal("a restore ended and made nothing"))?;
    Ok((report, restored))
}
