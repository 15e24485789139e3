//! Restores by the server keep encryption, and fail with the name of a key that KMS refuses.

use amistore::internals::base::ImageId;
use amistore::internals::server::{RestoreProgress, Service};
use amistore_aws_double::aws::{Content, Image, Snapshot, TestAws};

use super::task_service::{BUCKET, Site, completed, restore_request, restored, store_request};

const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/11111111-aaaa-4bbb-8ccc-0123456789ab";

#[test]
fn a_restored_image_is_encrypted_as_the_stored_one_was() {
    let site = Site::new();
    let service = site.service();
    let snapshot = site.aws.add_snapshot(
        Snapshot { encrypted: true, ..Snapshot::new(1) }.with([(0, Content::bytes(b"secret"))]),
    );
    let image = ImageId::parse(&site.aws.add_image(Image::new("web", &snapshot))).expect("an id");
    let key = service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    completed(&service, &image);
    site.aws.encrypt_by_default(TestAws::ACCOUNT, false, Some(KEY));
    let reserved =
        service.create_restore(&restore_request(&key, "again"), false).expect("taken on");
    let made = restored(&service, &reserved);
    assert_eq!(made.progress, RestoreProgress::Available);
    let new = site.aws.image(made.image_id.expect("an image").as_str()).expect("there");
    let new = site.aws.snapshot(new.mappings[0].snapshot_id().expect("a snapshot"));
    assert_eq!(new.expect("there").kms_key_id.as_deref(), Some(KEY));
    site.aws.deny_kms_key(KEY);
    let reserved =
        service.create_restore(&restore_request(&key, "denied"), false).expect("taken on");
    let failed = restored(&service, &reserved);
    assert_eq!(failed.progress, RestoreProgress::Failed);
    let reason = failed.reason.expect("a reason");
    assert!(["KMS", "kms:CreateGrant", KEY].iter().all(|it| reason.contains(it)), "{reason}");
    assert_eq!(site.aws.snapshots().len(), 2, "the archived one and the first restored one");
}
