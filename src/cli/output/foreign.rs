//! Copies of objects that are no archives.

use serde_json::{Value, json};

use super::json::{Head, key_of, result};
use super::plan::{add_existing, add_use, with_plan};
use super::safe_text::SafeText;
use crate::base::human_bytes;
use crate::ops::{CopiedObject, Existing, ForeignCopyPlan};

pub(in super::super) fn copied_object_text(
    copied: &CopiedObject,
    from: &str,
    to: &str,
    dry_run: bool,
) -> SafeText {
    let len = human_bytes(copied.len);
    let mut text = SafeText::from(match (dry_run, copied.present) {
        (true, _) => format!("would copy {from} to {to} as it is ({len})"),
        (false, true) => format!("{to} is there already, with the same checksum ({len})"),
        (false, false) => format!("copied {from} to {to} as it is ({len})"),
    });
    text.line(format!(
        "  no archive of amistore, which cannot look inside; looks like: {}",
        copied.looks_like
    ));
    text.line(match copied.checksum {
        Some(name) => format!("  compared with the {name} that its store keeps"),
        None => "  its store keeps no checksum over the whole object".to_owned(),
    });
    text
}

pub(in super::super) fn copied_object(
    copied: &CopiedObject,
    from: &str,
    to: &str,
    dry_run: bool,
) -> Value {
    let outcome = match (copied.present, dry_run) {
        (true, _) => "present",
        (false, true) => "planned",
        (false, false) => "copied",
    };
    result(
        &Head { archive: to, image_id: None, outcome, dry_run, footer: None },
        json!({
            "Source": from,
            "S3objectKey": key_of(to),
            "ArchiveBytes": copied.len,
            "IsArchive": false,
            "LooksLike": copied.looks_like,
            "Checked": copied.checksum.map(|_| "checksum"),
            "ComparedChecksum": copied.checksum,
        }),
    )
}

pub(in super::super) fn foreign_copy_plan_text(
    plan: &ForeignCopyPlan,
    from: &str,
    to: &str,
    existing: &Existing,
) -> SafeText {
    let mut text = copied_object_text(&plan.object, from, to, true);
    add_existing(&mut text, existing);
    if plan.by_service {
        text.line("  the service copies it by itself");
    }
    add_use(&mut text, &plan.memory, plan.upload.as_ref(), &plan.aws);
    text
}

pub(in super::super) fn foreign_copy_plan(
    plan: &ForeignCopyPlan,
    from: &str,
    to: &str,
    existing: &Existing,
) -> Value {
    let mut object = plan.object.clone();
    object.present = *existing == Existing::Same;
    let report = copied_object(&object, from, to, true);
    with_plan(report, &plan.memory, plan.upload.as_ref(), &plan.aws, existing)
}
