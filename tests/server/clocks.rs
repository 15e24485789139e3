//! A wall clock that is wrong for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use amistore::internals::base::Clock;
use amistore::internals::server::{
    HttpServer, HttpSettings, Service, TaskService, TaskServiceSettings,
};
use amistore_aws_double::s3::{Fault, FaultKind, When};

use super::caller::{Signer, borrowed, keys, refused, request, send};
use super::task_service::{BUCKET, Site, completed, store_request};
use crate::support::wait::wait_until;

/// A clock that is ahead of now by the given seconds.
fn ahead() -> (Arc<AtomicU64>, SystemTime, Clock) {
    let (seconds, now) = (Arc::new(AtomicU64::new(0)), SystemTime::now());
    let shown = seconds.clone();
    let clock = Clock::new(move || now + Duration::from_secs(shown.load(Ordering::SeqCst)));
    (seconds, now, clock)
}

#[test]
fn an_old_signed_request_is_not_let_in_after_a_clock_was_two_days_ahead() {
    let site = Site::new();
    let (seconds, now, clock) = ahead();
    let settings = TaskServiceSettings { clock: clock.clone(), ..site.settings() };
    let service = TaskService::start(settings).expect("a service");
    let http = HttpSettings { keys: Some(keys()), clock, ..HttpSettings::default() };
    let server = HttpServer::start(http, service).expect("starts");
    // The action is unknown: its refusal shows that the request was let in.
    let form = "Action=CreateTags&Version=2016-11-15";
    let call = |signed: u64| {
        let time = now + Duration::from_secs(signed);
        let headers = Signer { time, ..Signer::default() }.headers(server.address(), "/", form);
        let sent = request(server.address(), "POST", "/", &borrowed(&headers), form);
        send(server.address(), &sent).refusal()
    };
    assert_eq!(call(0), refused(400, "InvalidAction"));
    let two_days = 2 * 86_400;
    seconds.store(two_days, Ordering::SeqCst);
    assert_eq!(call(two_days), refused(400, "InvalidAction"));
    seconds.store(300, Ordering::SeqCst);
    assert_eq!(call(0), refused(400, "RequestExpired"));
    assert_eq!(call(300), refused(400, "InvalidAction"), "a new signature is taken");
}

#[test]
fn a_task_that_is_postponed_while_a_clock_is_six_hours_ahead_goes_on_when_it_is_right_again() {
    let site = Site::new();
    let (seconds, _, clock) = ahead();
    seconds.store(6 * 3600, Ordering::SeqCst);
    let settings = TaskServiceSettings { clock, ..site.settings() };
    let service = TaskService::start(settings).expect("a service");
    let image = site.image("web");
    site.s3.fail(Fault::new(FaultKind::ExpiredToken, When::NextPart(7, 2)));
    service.create_store(&store_request(&image, BUCKET), false).expect("taken on");
    let waits = || service.overview().expect("an overview").tasks[0].reason.is_some();
    wait_until("it to wait for credentials", waits);
    seconds.store(0, Ordering::SeqCst);
    completed(&service, &image);
}
