//! DryRun: whether the caller may, and nothing about the objects of the bucket.

use amistore::internals::server::Service;

use super::task_service::{BUCKET, Site, refused, restore_request, store_request, stored};

#[test]
fn a_dry_run_of_a_store_does_not_look_at_what_stands_in_the_bucket() {
    let site = Site::new();
    let service = site.service();
    let (image, key) = stored(&site, &service, "web");
    let again = store_request(&image, BUCKET);
    assert_eq!(service.create_store(&again, true), Ok(key));
    refused(service.create_store(&again, false), 400, "InvalidRequest", "already exists");
    site.s3.deny("CreateMultipartUpload");
    refused(service.create_store(&again, true), 403, "UnauthorizedOperation", "AccessDenied");
}

#[test]
fn a_dry_run_of_a_restore_does_not_look_at_what_stands_in_the_bucket() {
    let site = Site::new();
    let service = site.service();
    let (_, key) = stored(&site, &service, "web");
    site.s3.put_object(BUCKET, "foreign.bin", vec![0x91; 4000], Default::default());
    let restore =
        |key: &str, dry_run| service.create_restore(&restore_request(key, "web again"), dry_run);
    let read = site.s3.count("GetObject");
    for key in [key.as_str(), "none.bin", "foreign.bin"] {
        restore(key, true).expect("the caller may");
    }
    assert_eq!(site.s3.count("GetObject"), read, "no byte of an object is read");
    refused(restore("none.bin", false), 400, "InvalidRequest", "none.bin");
    refused(restore("foreign.bin", false), 400, "InvalidRequest", "not an archive");
    // What the caller may not do, and what is wrong with the request itself, is refused.
    let taken = service.create_restore(&restore_request(&key, "web"), true);
    refused(taken, 400, "InvalidAMIName.Duplicate", "already in use");
    site.aws.deny("DescribeSnapshots");
    refused(restore(&key, true), 403, "UnauthorizedOperation", "DescribeSnapshots");
    site.aws.allow("DescribeSnapshots");
    site.s3.deny("HeadObject");
    refused(restore(&key, true), 403, "UnauthorizedOperation", "");
}
