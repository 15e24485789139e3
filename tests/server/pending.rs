//! Images that are being restored, as clients of EC2 see them: through the endpoint, with the EC2
//! of the tests behind it.

use std::sync::Arc;
use std::time::Duration;

use amistore::internals::aws::ec2::Ec2Connection;
use amistore::internals::aws::{ConnectionOptions, RetryPolicy, Runtime};
use amistore::internals::base::{Cancel, ImageId, NullObserver};
use amistore::internals::server::{HttpServer, HttpSettings, Service, TaskService, Upstream};
use amistore_aws_double::aws::{Content, Fault, FaultKind, Image, Mapping, TestAws};
use serde_json::{Value, json};

use super::caller::{FORM, Reply, refused, request, send};
use super::task_service::{BUCKET, Site, completed, refused as is_refused, restore_request};
use crate::support::wait::wait_until;

/// A server that forwards to the EC2 of a site.
struct Rig {
    site: Site,
    service: Arc<TaskService>,
    server: HttpServer,
    /// Behind the connection of the server.
    _runtime: Runtime,
}

impl Rig {
    fn start() -> Self {
        let site = Site::new();
        let (settings, runtime) = (site.settings(), Runtime::new().expect("threads"));
        let options = ConnectionOptions {
            retry: RetryPolicy::default(),
            idle_timeout: Duration::from_secs(30),
            bandwidth: None,
            observer: Arc::new(NullObserver),
            cancel: Cancel::new(),
        };
        let ec2 = Ec2Connection::open(&runtime, settings.compute, options).expect("opens");
        let upstream = Some(Arc::new(ec2) as Arc<dyn Upstream>);
        let service = site.service();
        let http = HttpSettings { upstream, ..HttpSettings::default() };
        let server = HttpServer::start(http, service.clone()).expect("starts");
        Self { site, service, server, _runtime: runtime }
    }

    fn call(&self, form: &str) -> Reply {
        let headers = [("content-type", FORM)];
        let form = format!("Version=2016-11-15&{form}");
        let address = self.server.address();
        send(address, &request(address, "POST", "/", &headers, &form))
    }

    fn images(&self, conditions: &str) -> Vec<Value> {
        let answer = self.call(&format!("Action=DescribeImages&{conditions}"));
        answer.value("DescribeImages")["Images"].as_array().expect("a list").clone()
    }

    /// The ids of the selected images.
    fn ids(&self, conditions: &str) -> Vec<String> {
        let id = |image: &Value| image["ImageId"].as_str().expect("an id").to_owned();
        self.images(conditions).iter().map(id).collect()
    }

    /// The archive of an image with two volumes, and tags of its own.
    fn archive(&self) -> String {
        let blocks = |count: u32| (0..count).map(|index| (index * 80, Content::random(1)));
        let (root, data) =
            (self.site.aws.snapshot_of(1, blocks(24)), self.site.aws.snapshot_of(2, blocks(3)));
        let mut image = Image::new("web", &root);
        image.mappings.push(Mapping::of("/dev/sdb", &data));
        image.description = Some("of <pages>".to_owned());
        image.tags.insert("team".to_owned(), "blue".to_owned());
        let image = ImageId::parse(&self.site.aws.add_image(image)).expect("an id");
        let request = super::task_service::store_request(&image, BUCKET);
        let key = self.service.create_store(&request, false).expect("taken on");
        completed(&self.service, &image);
        key
    }
}

const BY_NAME: &str = "Owner.1=self&Filter.1.Name=name&Filter.1.Value.1=restored";

#[test]
fn a_pending_image_is_found_by_id_name_owner_and_attributes_with_its_devices_and_snapshots() {
    let rig = Rig::start();
    let key = rig.archive();
    // No snapshot is begun before the test lets the restore go on.
    rig.site.aws.fail(Fault::on("StartSnapshot", FaultKind::Delay(Duration::from_secs(2))));
    let request = restore_request(&key, "restored");
    let id = rig.service.create_restore(&request, false).expect("taken on").to_string();
    let [image] = rig.images(&format!("ImageId.1={id}")).try_into().expect("one image");
    assert_eq!(rig.images(BY_NAME), std::slice::from_ref(&image), "the same by name");
    assert_eq!(
        (&image["State"], &image["Name"], &image["Architecture"], &image["OwnerId"]),
        (&json!("pending"), &json!("restored"), &json!("x86_64"), &json!(TestAws::ACCOUNT))
    );
    assert_eq!(
        (&image["RootDeviceName"], &image["Description"], &image["Public"]),
        (&json!("/dev/xvda"), &json!("of <pages>"), &json!(false))
    );
    let tags = [json!({"Key": "team", "Value": "blue"}), json!({"Key": "of", "Value": "image"})];
    assert_eq!(image["Tags"], json!(tags));
    let device = |mapping: &Value| {
        (
            mapping["DeviceName"].as_str().map(ToOwned::to_owned),
            mapping["Ebs"]["VolumeSize"].as_u64(),
            mapping["Ebs"]["VolumeType"].as_str().map(ToOwned::to_owned),
        )
    };
    let devices: Vec<_> =
        image["BlockDeviceMappings"].as_array().expect("devices").iter().map(device).collect();
    let gp3 = || Some("gp3".to_owned());
    assert_eq!(
        devices,
        [
            (Some("/dev/xvda".to_owned()), Some(1), gp3()),
            (Some("/dev/sdb".to_owned()), Some(2), gp3())
        ]
    );
    let of_self = rig.ids("Owner.1=self");
    assert!(of_self.contains(&id) && of_self.len() == 2, "{of_self:?}");
    let filter = |name: &str, value: &str| {
        format!("Owner.1=self&Filter.1.Name={name}&Filter.1.Value.1={value}")
    };
    for (name, value, is_found) in [
        ("state", "pending", true),
        ("state", "available", false),
        ("name", "rest*", true),
        ("tag:team", "blue", true),
        ("tag:team", "red", false),
        ("tag-key", "of", true),
        ("architecture", "x86_64", true),
        ("architecture", "arm64", false),
        ("root-device-type", "ebs", true),
        ("virtualization-type", "hvm", true),
        ("is-public", "true", false),
        ("owner-id", TestAws::ACCOUNT, true),
        ("block-device-mapping.device-name", "/dev/sdb", true),
        ("block-device-mapping.volume-size", "3", false),
        ("description", "*pages*", true),
        ("platform", "windows", false),
    ] {
        assert_eq!(rig.ids(&filter(name, value)).contains(&id), is_found, "{name} {value}");
    }
    assert!(rig.ids(&format!("Owner.1={}", TestAws::ACCOUNT)).contains(&id));
    for others in ["Owner.1=amazon", "Owner.1=999999999999", "ExecutableBy.1=self"] {
        assert!(!rig.ids(others).contains(&id), "{others}");
    }
    // The snapshots are known when they are begun, and the owner is the account.
    rig.site
        .aws
        .fail(Fault::on("PutSnapshotBlock", FaultKind::Delay(Duration::from_millis(50))).always());
    let snapshots = || -> Vec<String> {
        let mappings = rig.images(BY_NAME)[0]["BlockDeviceMappings"].clone();
        let id = |mapping: &Value| mapping["Ebs"]["SnapshotId"].as_str().map(ToOwned::to_owned);
        mappings.as_array().expect("devices").iter().filter_map(id).collect()
    };
    wait_until("both snapshots", || snapshots().len() == 2);
    let begun = snapshots();
    let filtered = filter("block-device-mapping.snapshot-id", &begun[0]);
    assert_eq!(rig.ids(&filtered), std::slice::from_ref(&id));
    wait_until("its end", || rig.images(BY_NAME)[0]["State"] == "available");
    assert_eq!((rig.ids(BY_NAME), snapshots()), (vec![id.clone()], begun), "the same id");
    assert_eq!(rig.ids("Owner.1=self").iter().filter(|found| **found == id).count(), 1);
}

#[test]
fn the_progress_of_a_snapshot_moves_while_it_is_written() {
    let rig = Rig::start();
    let key = rig.archive();
    rig.site
        .aws
        .fail(Fault::on("PutSnapshotBlock", FaultKind::Delay(Duration::from_millis(200))).always());
    rig.service.create_restore(&restore_request(&key, "restored"), false).expect("taken on");
    let mut seen = Vec::new();
    wait_until("its end", || {
        let image = rig.images(BY_NAME).remove(0);
        if let Some(id) = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"].as_str() {
            let answer = rig.call(&format!("Action=DescribeSnapshots&SnapshotId.1={id}"));
            let progress = answer.value("DescribeSnapshots")["Snapshots"][0]["Progress"].clone();
            if seen.last() != Some(&progress) {
                seen.push(progress);
            }
        }
        image["State"] == "available"
    });
    let numbers: Vec<u32> =
        seen.iter().filter_map(|text| text.as_str()?.trim_end_matches('%').parse().ok()).collect();
    assert!(numbers.len() >= 3 && numbers.last() == Some(&100), "{seen:?}");
}

#[test]
fn of_one_name_one_image_is_made_by_any_number_of_requests() {
    let rig = Rig::start();
    let key = rig.archive();
    rig.site.aws.fail(Fault::on("StartSnapshot", FaultKind::Delay(Duration::from_secs(2))));
    let request = restore_request(&key, "restored");
    let create = || {
        rig.call(&format!(
            "Action=CreateRestoreImageTask&Bucket={BUCKET}&ObjectKey={}&Name=restored",
            key.replace('/', "%2F")
        ))
    };
    // As a script that is idempotent by name.
    let ensure = || match rig.ids(BY_NAME).as_slice() {
        [] => create().value("CreateRestoreImageTask")["ImageId"].as_str().expect("id").to_owned(),
        [id] => id.clone(),
        several => panic!("{several:?}"),
    };
    let id = ensure();
    assert_eq!(ensure(), id, "pending");
    let taken = format!("AMI name restored is already in use by AMI {id}");
    let again = create();
    assert_eq!(again.refusal(), refused(400, "InvalidAMIName.Duplicate"));
    assert!(again.body.contains(&taken), "{again:?}");
    wait_until("its end", || rig.images(BY_NAME)[0]["State"] == "available");
    assert_eq!(ensure(), id, "restored");
    let again = create();
    assert_eq!(again.refusal(), refused(400, "InvalidAMIName.Duplicate"));
    assert!(again.body.contains(&taken), "{again:?}");
    is_refused(rig.service.create_restore(&request, true), 400, "InvalidAMIName.Duplicate", &taken);
    let images = rig.site.aws.images();
    let made: Vec<_> = images.iter().filter(|image| image.name == "restored").collect();
    assert_eq!(made.len(), 1);
    // A client that names the image by EC2's own id gets that.
    let real = &made[0].id;
    assert_eq!(rig.ids(&format!("ImageId.1={real}")), std::slice::from_ref(real));
    let by_filter = format!("Filter.1.Name=image-id&Filter.1.Value.1={real}");
    assert_eq!(rig.ids(&by_filter), std::slice::from_ref(real));
}
