//! The status page of servers of several accounts with one state directory.

use std::sync::Arc;

use amistore::internals::server::{Overview, Service, TaskService, TaskServiceSettings};

use super::task_service::{BUCKET, Site, completed, store_request, stored};
use crate::support::wait::wait_until;

fn overview(service: &TaskService) -> Overview {
    service.overview().expect("an overview")
}

fn of_account(site: &Site, account: &str) -> Arc<TaskService> {
    let account_id = Some(account.to_owned());
    TaskService::start(TaskServiceSettings { account_id, ..site.settings() }).expect("a service")
}

#[test]
fn the_status_page_shows_only_tasks_of_the_account_of_the_server() {
    let site = Site::new();
    site.hold_stores();
    let (ours, theirs) = (of_account(&site, "111111111111"), of_account(&site, "222222222222"));
    let image = site.image("web");
    ours.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    wait_until("it to run", || overview(&ours).running == 1);
    let shown = overview(&theirs);
    assert_eq!((shown.tasks.len(), shown.queued, shown.running), (0, 0, 0));
    let other = site.image("other");
    theirs.create_store(&store_request(&other, BUCKET), false).expect("taken on");
    for (service, image) in [(&ours, &image), (&theirs, &other)] {
        let tasks = overview(service).tasks;
        let images: Vec<_> = tasks.iter().map(|task| task.image_id.as_deref()).collect();
        assert_eq!(images, [Some(image.as_str())]);
    }
    site.s3.clear_faults();
}

#[test]
fn a_server_learns_its_account_for_the_tasks_of_earlier_servers() {
    let site = Site::new();
    let service = site.service();
    stored(&site, &service, "web");
    drop(service);
    let stranger = of_account(&site, "222222222222");
    let next = site.service();
    wait_until("its task to be shown", || overview(&next).tasks.len() == 1);
    assert_eq!(overview(&stranger).tasks.len(), 0);
    // Without a task for its endpoints a server asks STS for nothing.
    let empty = Site::new();
    let idle = empty.service();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!((empty.aws.calls().len(), overview(&idle).tasks.len()), (0, 0));
}

#[test]
fn a_shown_task_has_the_name_and_size_of_its_image_and_while_it_runs_the_time_left() {
    let site = Site::new();
    site.hold_stores();
    let service = site.service();
    let image = site.image("web 2026");
    service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    wait_until("a rate and the time left", || {
        let task = &overview(&service).tasks[0];
        task.rate.is_some() && task.time_left.is_some()
    });
    let task = overview(&service).tasks.remove(0);
    assert_eq!((task.name.as_deref(), task.size), (Some("web 2026"), Some(1 << 30)));
    // The next service does not wait for requests that are held up.
    drop(service);
    site.s3.clear_faults();
    let service = site.service();
    completed(&service, &image);
    let task = overview(&service).tasks.remove(0);
    assert_eq!((task.rate, task.time_left), (None, None), "it has ended");
}
