//! The task service in several Regions, and with several accounts.

use std::sync::Arc;

use amistore::internals::aws::{Access, Credentials, StaticCredentials};
use amistore::internals::base::ImageId;
use amistore::internals::server::{
    RestoreProgress, Service, SiteSettings, StoreQuery, TaskService, TaskServiceSettings,
};
use amistore_aws_double::aws::{Content, Image, TestAws};
use amistore_aws_double::s3::BucketOptions;

use super::task_service::{BUCKET, Site, refused, restore_request, store_request};
use crate::support::wait::wait_until;

const EUROPE: &str = "eu-west-1";

/// A bucket of the S3 of a site, in another Region.
fn bucket_in_europe(site: &Site) {
    let options = BucketOptions { region: EUROPE.to_owned(), ..BucketOptions::default() };
    site.s3.create_bucket_with("europe", options);
}

/// The settings of one more Region at the endpoints of a site, with an access key for EC2.
fn there(site: &Site, profile: Option<&str>, key: (&str, &str)) -> SiteSettings {
    let settings = site.settings();
    let credentials = Credentials::Static(StaticCredentials {
        access_key_id: key.0.to_owned(),
        secret_access_key: key.1.to_owned(),
        session_token: None,
    });
    let region = Some(EUROPE.to_owned());
    SiteSettings {
        profile: profile.map(ToOwned::to_owned),
        compute: Access { region: region.clone(), credentials, ..settings.compute },
        account_id: None,
        archive: Access { region, ..settings.archive },
        edits: settings.edits,
    }
}

fn serving(site: &Site, others: Vec<SiteSettings>) -> Arc<TaskService> {
    TaskService::start(TaskServiceSettings { others, ..site.settings() }).expect("a service")
}

fn image(aws: &TestAws, name: &str) -> ImageId {
    let snapshot = aws.snapshot_of(1, (0..24).map(|index| (index * 9, Content::random(1))));
    ImageId::parse(&aws.add_image(Image::new(name, &snapshot))).expect("an id")
}

fn tasks(service: &dyn Service) -> Vec<(String, &'static str)> {
    let query = StoreQuery { limit: 100, ..StoreQuery::default() };
    let tasks = service.store_tasks(&query).expect("tasks").tasks;
    tasks.into_iter().map(|task| (task.image_id, task.state)).collect()
}

#[test]
fn each_region_has_its_own_images_tasks_and_reserved_ids() {
    let site = Site::new();
    bucket_in_europe(&site);
    let europe = TestAws::builder().region(EUROPE).start();
    TestAws::together(&[&site.aws, &europe]);
    let key = (TestAws::ACCESS_KEY, TestAws::SECRET_KEY);
    let service = serving(&site, vec![there(&site, None, key)]);
    let (region, in_europe) = service.others().remove(0);
    assert_eq!(region, EUROPE);
    let (here, other) = (image(&site.aws, "web"), image(&europe, "web"));
    // An image of one Region is unknown in the other, with one endpoint for both.
    let of_other = store_request(&other, BUCKET);
    refused(service.create_store(&of_other, false), 400, "InvalidAMIID.NotFound", "");
    service.create_store(&store_request(&here, BUCKET), false).expect("taken on");
    in_europe.create_store(&store_request(&other, "europe"), false).expect("taken on");
    wait_until("both stores", || {
        let ended =
            |tasks: Vec<(String, &str)>| tasks.iter().all(|(_, state)| *state == "Completed");
        ended(tasks(&*service)) && ended(tasks(&*in_europe))
    });
    assert_eq!(tasks(&*service), [(here.to_string(), "Completed")]);
    assert_eq!(tasks(&*in_europe), [(other.to_string(), "Completed")]);
    // A name is taken in its own Region only.
    let request = |bucket: &str, image: &ImageId| {
        let mut request = restore_request(&format!("a/b/{image}.bin"), "restored");
        bucket.clone_into(&mut request.bucket);
        request
    };
    let first = service.create_restore(&request(BUCKET, &here), false).expect("taken on");
    let second = in_europe.create_restore(&request("europe", &other), false).expect("taken on");
    assert_eq!(service.restored(&second).expect("no error"), None);
    assert_eq!(in_europe.restored(&first).expect("no error"), None);
    let made = |service: &dyn Service, id: &ImageId| {
        let find = || service.restored(id).expect("no error").expect("reserved here");
        wait_until("the restore", || find().progress != RestoreProgress::Pending);
        assert_eq!(find().reason, None);
        find().image_id.expect("an image").to_string()
    };
    let (one, two) = (made(&*service, &first), made(&*in_europe, &second));
    assert!(site.aws.image(&one).is_some() && site.aws.image(&two).is_none());
    assert!(europe.image(&two).is_some() && europe.image(&one).is_none());
    let overview = service.overview().expect("an overview");
    assert_eq!((overview.tasks.len(), overview.completed), (4, 4), "the page has all Regions");
    drop(in_europe);
}

#[test]
fn a_task_is_performed_with_the_profile_of_its_request_and_seen_by_its_whole_account() {
    let site = Site::new();
    bucket_in_europe(&site);
    let europe = TestAws::builder().region(EUROPE).account("999988887777").start();
    TestAws::together(&[&site.aws, &europe]);
    for (id, secret) in [("AKIAREADER", "reader"), ("AKIAWRITER", "writer")] {
        europe.add_key(id, secret, None);
    }
    europe.deny_key("AKIAREADER", "ebs:*");
    let service = serving(
        &site,
        vec![
            there(&site, Some("reader"), ("AKIAREADER", "reader")),
            there(&site, Some("writer"), ("AKIAWRITER", "writer")),
        ],
    );
    let [(_, reader), (_, writer)] = service.others().try_into().ok().expect("two sites");
    let stored = image(&europe, "of another account");
    writer.create_store(&store_request(&stored, "europe"), false).expect("taken on");
    wait_until("the store", || tasks(&*writer).iter().all(|(_, state)| *state != "InProgress"));
    assert_eq!(tasks(&*writer), [(stored.to_string(), "Completed")]);
    // Profiles of one account and Region share its tasks; the server's own account has none.
    reader.create_store(&store_request(&stored, "europe"), true).expect_err("denied");
    assert_eq!(tasks(&*reader), tasks(&*writer));
    assert_eq!(tasks(&*service), []);
    let of = |key: &str, operation: &str| {
        let calls = europe.calls();
        let fits = |call: &&amistore_aws_double::aws::Call| {
            call.access_key.as_deref() == Some(key) && call.operation == operation
        };
        calls.iter().filter(fits).count()
    };
    assert!(of("AKIAWRITER", "GetSnapshotBlock") > 0);
    assert_eq!((of("AKIAREADER", "GetSnapshotBlock"), site.aws.count("GetSnapshotBlock")), (0, 0));
    drop((reader, writer));
}

#[test]
fn credentials_of_one_account_that_are_refused_do_not_stop_the_others() {
    let site = Site::new();
    bucket_in_europe(&site);
    let europe = TestAws::builder().region(EUROPE).account("999988887777").start();
    TestAws::together(&[&site.aws, &europe]);
    europe.add_key("AKIAOTHER", "other", None);
    let others = || vec![there(&site, Some("other"), ("AKIAOTHER", "other"))];
    let service = serving(&site, others());
    let (_, other) = service.others().remove(0);
    let stored = image(&europe, "waits");
    site.hold_stores();
    other.create_store(&store_request(&stored, "europe"), false).expect("taken on");
    drop(other);
    service.stop();
    drop(service);
    site.s3.clear_faults();
    europe.expire_key("AKIAOTHER");
    let service = serving(&site, others());
    let here = image(&site.aws, "here");
    service.create_store(&store_request(&here, BUCKET), false).expect("taken on");
    super::task_service::completed(&service, &here);
    let (_, other) = service.others().remove(0);
    assert_eq!(tasks(&*other), [(stored.to_string(), "InProgress")], "it waits for its account");
    drop(other);
}
