//! Takes an image of EC2 out of service: only after its archive was compared with it, block by
//! block.
//!
//! The order is the use case: EC2 is asked first whether it would permit the action, so that a
//! refusal does not come after hours of comparison; then archive and image are compared; then EC2
//! is asked again, because the image may have changed meanwhile, and the action is carried out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::existing::metadata_differs;
use super::verify::{Verified, verify_against};
use crate::aws::Compute;
use crate::aws::ec2::{Ec2Image, Ec2Source, RetireAction, RetirePlan, plan_retire, retire};
use crate::base::{Error, ErrorCode, ErrorKind, ImageId, Result, rfc3339};
use crate::engine::{Archive, Context};
use crate::format::Footer;
use crate::object::ObjectReader;

/// Begin of a deprecation without a time: EC2 takes no time that is past.
const SOON: Duration = Duration::from_secs(300);

/// A retirement that EC2 would permit. No archive was compared with the image yet.
pub struct PermittedRetire<'a> {
    compute: &'a Compute,
    image_id: ImageId,
    action: RetireAction,
    allows_metadata_changes: bool,
}

/// A retirement with its plan, after the archive was compared with the image.
pub struct PlannedRetire<'a> {
    compute: &'a Compute,
    plan: RetirePlan,
    footer: Option<Footer>,
    metadata_changed: Option<Vec<String>>,
}

impl<'a> PermittedRetire<'a> {
    /// Asks EC2 whether it would permit the action. [`RetireAction::Deprecate`] without a time
    /// stands for five minutes after the comparison.
    pub fn new(compute: &'a Compute, image_id: ImageId, action: RetireAction) -> Result<Self> {
        plan_retire(&compute.ec2, &image_id, action.clone())?;
        Ok(Self { compute, image_id, action, allows_metadata_changes: false })
    }

    /// Whether the retirement goes on where the metadata of archive and image differ.
    #[must_use]
    pub fn allow_metadata_changes(self, allows_metadata_changes: bool) -> Self {
        Self { allows_metadata_changes, ..self }
    }

    /// Compares the archive with the image, block by block, and plans the retirement. An archive
    /// with other disks is an error of kind `Corrupt`, one with other metadata an error of kind
    /// `Exists`, unless that is allowed; then nothing is done to the image.
    pub fn compare(
        self,
        archive: Arc<dyn ObjectReader>,
        context: Context<'_>,
    ) -> Result<PlannedRetire<'a>> {
        let Self { compute, image_id, action, allows_metadata_changes } = self;
        let source = Ec2Source::Image(image_id.clone());
        let Compute { ec2, ebs, quotas } = compute;
        let stored = stored_name(archive.clone())?;
        let image = Ec2Image::open(ec2, ebs, quotas, &source, stored.as_deref(), context.observer)?;
        let name = archive.name().to_owned();
        let verified = verify_against(archive, &image, context)?;
        let (footer, metadata_changed) =
            (verified.footer.clone(), verified.metadata_changed.clone());
        check_equal(verified, allows_metadata_changes, &image_id, &name)?;
        let action = match action {
            RetireAction::Deprecate(time) if time.is_empty() => {
                RetireAction::Deprecate(rfc3339(SystemTime::now() + SOON))
            }
            action => action,
        };
        let plan = plan_retire(&compute.ec2, &image_id, action)?;
        Ok(PlannedRetire { compute, plan, footer, metadata_changed })
    }
}

impl PlannedRetire<'_> {
    /// The plan: the action, and the snapshots that are deleted or stay.
    pub fn plan(&self) -> &RetirePlan {
        &self.plan
    }

    /// The digests of the archive that was compared.
    pub fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    /// The names of the members of the metadata in which archive and image differ; `None` if they
    /// are equal.
    pub fn metadata_changed(&self) -> Option<&[String]> {
        self.metadata_changed.as_deref()
    }

    /// Carries the plan out. Returns it with the snapshots that were deleted.
    pub fn run(&self) -> Result<RetirePlan> {
        retire(&self.compute.ec2, &self.plan)
    }
}

/// The AMI name in the archive. `store --name` gives an image whose own name `image.json` forbids
/// another one, and EC2 changes no name: image id and blocks tell whose archive it is. `None` of
/// an archive that is damaged, which the comparison reports.
fn stored_name(archive: Arc<dyn ObjectReader>) -> Result<Option<String>> {
    match Archive::open(archive) {
        Ok(archive) => Ok(archive.document().name().map(ToOwned::to_owned)),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses an archive with findings. The error has the facts of the first finding.
fn check_equal(
    verified: Verified,
    allows_metadata_changes: bool,
    image_id: &ImageId,
    archive: &str,
) -> Result<()> {
    if verified.is_ok() {
        return Ok(());
    }
    if verified.differs_in_metadata_only() {
        if allows_metadata_changes {
            return Ok(());
        }
        let differs = Error::new(
            ErrorKind::Exists,
            "the archive holds every block of the image, and other metadata: nothing was done to \
             the image",
        );
        let changed = verified.metadata_changed.unwrap_or_default();
        return Err(metadata_differs(differs, &changed)
            .at("image_id", image_id)
            .at("archive", archive));
    }
    let mut refused = Error::new(
        ErrorKind::Corrupt,
        "the archive is not what the image is: nothing was done to the image",
    )
    .code_as(ErrorCode::ArchiveDiffersFromImage)
    .at("image_id", image_id);
    if let Some(finding) = verified.findings.into_iter().next() {
        // Of a cause only the message is printed; its facts say where the difference is.
        refused = finding
            .context()
            .iter()
            .fold(refused, |refused, (key, value)| refused.at(key, value))
            .because(finding);
    }
    Err(refused.at("archive", archive))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Depth;

    fn verified(findings: Vec<Error>, more_findings: u64) -> Verified {
        Verified {
            footer: None,
            image_id: None,
            archive_len: 0,
            blocks: 0,
            cells: 0,
            sampled: false,
            depth: Depth::Blocks,
            differs: !findings.is_empty(),
            metadata_changed: None,
            has_other_root: false,
            findings,
            more_findings,
        }
    }

    #[test]
    fn an_archive_that_differs_is_refused_with_the_facts_of_the_first_finding() {
        let id = ImageId::parse("ami-0123456789abcdef0").expect("an id");
        assert!(check_equal(verified(Vec::new(), 0), false, &id, "a.bin").is_ok());
        assert!(check_equal(verified(Vec::new(), 1), true, &id, "a.bin").is_err());
        let findings = ["first", "second"].map(|text| Error::corrupt(text).at("block", text));
        let error = check_equal(verified(findings.into(), 0), true, &id, "a.bin")
            .expect_err("it is refused");
        assert!(error.is(ErrorCode::ArchiveDiffersFromImage));
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!((error.fact("block"), error.fact("archive")), (Some("first"), Some("a.bin")));
    }
}
