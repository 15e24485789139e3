//! Store tasks of AWS itself, polled by the library.

use std::time::Duration;

use amistore::internals::aws::ec2::{StoreTask, store_by_aws};
use amistore::internals::base::{ErrorKind, ImageId};
use amistore_aws_double::aws::TestAws;
use amistore_aws_double::s3::TestS3;

use super::bench::{Bench, small_image, words};
use crate::support::wait::wait_until;

#[test]
fn a_store_task_that_ec2_no_longer_lists_is_an_error() {
    let s3 = TestS3::start();
    s3.create_bucket("images");
    let bench = Bench { aws: TestAws::builder().buckets(s3.buckets()).start(), ..Bench::new() };
    let ami = small_image(&bench.aws);
    bench.aws.set(|settings| settings.store_polls = 1_000_000);
    let task = StoreTask {
        image_id: ImageId::parse(&ami).expect("an id"),
        bucket: "images".into(),
        prefix: String::new(),
        tags: Vec::new(),
        poll: Duration::from_millis(1),
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            store_by_aws(&bench.ec2(), &task, bench.recorded.as_ref()).expect_err("it is lost")
        });
        wait_until("the task", || bench.aws.count("DescribeStoreImageTasks") > 3);
        // EC2 describes tasks for a month, and only the newest one of an image.
        bench.aws.advance(Duration::from_secs(32 * 86_400));
        let error = running.join().expect("no panic");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", words(&error));
        assert!(
            words(&error).contains(&ami)
                && words(&error).contains("it succeeded if the object exists"),
            "{}",
            words(&error)
        );
    });
}
