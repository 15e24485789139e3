//! RegisterImage is rehearsed with DryRun before blocks are sent, and its refusal ends the restore.

use amistore::internals::base::ErrorKind;
use amistore_aws_double::aws::{Fault, FaultKind};

use super::bench::{BLOCKS, Restoration, words};

#[test]
fn a_refusal_of_any_code_ends_the_restore_before_a_block_is_sent() {
    let work = Restoration::new();
    for (status, code, kind) in [
        (400, "InvalidBlockDeviceMapping", ErrorKind::Usage),
        (400, "MissingParameter", ErrorKind::Usage),
        (400, "InvalidAMIName.Duplicate", ErrorKind::Exists),
        (400, "UnsupportedOperation", ErrorKind::Unsupported),
        (400, "SomethingNew", ErrorKind::Io),
        (403, "UnauthorizedOperation", ErrorKind::Denied),
    ] {
        work.to.aws.fail(Fault::on("RegisterImage", FaultKind::error(status, code)).nth(1));
        let error = work.run().expect_err(code);
        assert_eq!(error.kind(), kind, "{}", words(&error));
        assert!(error.resume().is_none(), "{}", words(&error));
        assert_eq!(work.to.aws.count("PutSnapshotBlock"), 0, "{code}");
        assert!(work.to.aws.snapshots().is_empty(), "{code}: the snapshots are deleted");
        assert_eq!(work.to.tasks(), 0, "{code}");
        work.reset();
    }
    let restored = work.run().expect("restores");
    work.assert_restored(&restored);
}

#[test]
fn snapshots_that_are_pending_or_not_known_yet_are_no_refusal() {
    let work = Restoration::new();
    for code in ["IncorrectState", "InvalidSnapshot.NotFound"] {
        let fault = match code {
            // The server judges the snapshots itself.
            "IncorrectState" => None,
            code => Some(Fault::on("RegisterImage", FaultKind::error(400, code)).nth(1)),
        };
        if let Some(fault) = fault {
            work.to.aws.fail(fault);
        }
        let restored = work.run().unwrap_or_else(|error| panic!("{code}: {}", words(&error)));
        work.assert_restored(&restored);
        work.reset();
    }
}

#[test]
fn a_service_that_fails_to_judge_is_a_warning() {
    let work = Restoration::new();
    work.to.aws.fail(Fault::on("RegisterImage", FaultKind::error(500, "InternalError")).times(4));
    let restored = work.run().expect("restores");
    work.assert_restored(&restored);
    let text = work.to.recorded.take();
    assert!(text.contains("did not say whether it would register"), "{text}");
}

#[test]
fn a_missing_permission_is_found_in_either_order_of_judgement() {
    for before_snapshots in [true, false] {
        let work = Restoration::new();
        work.to.aws.set(|settings| settings.rights_before_snapshots = before_snapshots);
        work.to.aws.deny("RegisterImage");
        let error = work.run().expect_err("it is denied");
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", words(&error));
        // If EC2 looks at the snapshots first, only the registration itself shows the permission.
        let sent = if before_snapshots { 0 } else { BLOCKS };
        assert_eq!(work.to.aws.count("PutSnapshotBlock"), sent);
        assert_eq!(work.to.aws.snapshots().is_empty(), before_snapshots);
        assert_eq!(error.resume().is_some(), !before_snapshots, "{}", words(&error));
        work.to.aws.allow("RegisterImage");
        let restored = work.run().unwrap_or_else(|error| panic!("{}", words(&error)));
        work.assert_restored(&restored);
        assert_eq!(work.to.aws.count("PutSnapshotBlock"), BLOCKS);
    }
}
