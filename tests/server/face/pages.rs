//! The status page and the metrics.

use amistore::internals::server::HttpSettings;
use serde_json::Value;

use super::super::caller::{Bench, FORM, refused, request, send};

#[test]
fn the_page_comes_from_here_and_from_nowhere_else() {
    let bench = Bench::start();
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/tasks.json", "application/json"),
    ] {
        let reply = bench.get(path, &[]);
        assert!(
            reply.status == 200
                && reply.header("content-type").is_some_and(|said| said.starts_with(kind)),
            "{reply:?}"
        );
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(
            policy.contains("default-src 'none'")
                && policy.contains("frame-ancestors 'none'")
                && !policy.contains("unsafe"),
            "{policy}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        assert!(
            !reply.body.contains("http://") && !reply.body.contains("https://"),
            "{path} names another place"
        );
    }
    let page = bench.get("/", &[]).body;
    assert!(page.contains("name=\"viewport\""), "{page}");
    // What the policy would stop.
    for inline in ["<style", "style=", "<script>", "onclick", "onload"] {
        assert!(!page.contains(inline), "{inline}");
    }
    let script = bench.get("/page.js", &[]).body;
    assert!(!script.contains("innerHTML") && script.contains("progressbar"));
}

#[test]
fn the_data_of_the_page_is_what_goes_on() {
    let reply = Bench::start().get("/tasks.json", &[]);
    let value: Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!((&value["queued"], &value["tasks"][0]["percent"]), (&3.into(), &42.into()));
    assert_eq!(value["tasks"][0]["source"], "<script>alert(1)</script>");
}

#[test]
fn a_task_on_the_page_has_the_name_of_its_image_its_size_its_rate_and_the_time_left() {
    let bench = Bench::start();
    let value: Value = serde_json::from_str(&bench.get("/tasks.json", &[]).body).expect("JSON");
    let task = &value["tasks"][0];
    assert_eq!(task["name"], "web <b>2026</b>");
    assert_eq!(
        (&task["size"], &task["rate"], &task["secondsLeft"]),
        (&(8_u64 << 30).into(), &(1 << 20).into(), &75.into())
    );
    let script = bench.get("/page.js", &[]).body;
    for shown in ["task.name", "task.size", "task.rate", "task.secondsLeft"] {
        assert!(script.contains(shown), "{shown}");
    }
}

#[test]
fn monitoring_reads_what_was_counted() {
    let bench = Bench::start();
    bench.call("Action=DescribeStoreImageTasks&Version=2016-11-15");
    bench.call("Action=DescribeStoreImageTasks&Version=2016-11-15&MaxResults=0");
    bench.call("Action=Evil%22%0a&Version=2016-11-15");
    let reply = bench.get("/metrics", &[]);
    for line in [
        "amistore_tasks{state=\"queued\"} 3",
        "amistore_volume_bytes_total 7",
        "amistore_http_requests_total{action=\"DescribeStoreImageTasks\",code=\"ok\"} 1",
        "amistore_http_requests_total\
         {action=\"DescribeStoreImageTasks\",code=\"InvalidParameterValue\"} 1",
        "amistore_http_requests_total{action=\"other\",code=\"InvalidAction\"} 1",
        "amistore_http_request_duration_seconds_count{action=\"DescribeStoreImageTasks\"} 2",
    ] {
        assert!(reply.body.lines().any(|found| found == line), "{line} is not in\n{}", reply.body);
    }
}

#[test]
fn the_page_takes_the_password_if_there_is_one() {
    let bench = Bench::with(HttpSettings {
        status_password: Some("word".to_owned()),
        ..HttpSettings::default()
    });
    for path in ["/", "/page.js", "/tasks.json", "/metrics"] {
        let reply = bench.get(path, &[]);
        assert_eq!(
            (reply.status, reply.header("www-authenticate").is_some()),
            (401, true),
            "{path}"
        );
        // Of `x:wort` and `x:word`.
        assert_eq!(bench.get(path, &[("authorization", "Basic eDp3b3J0")]).status, 401);
        assert_eq!(bench.get(path, &[("authorization", "Basic eDp3b3Jk")]).status, 200);
    }
    assert_eq!(bench.get("/healthz", &[]).body, "ok\n");
    assert_eq!(
        bench
            .post(&[("content-type", FORM)], "Action=DescribeStoreImageTasks&Version=2016-11-15")
            .status,
        200
    );
}

#[test]
fn there_is_nothing_else() {
    let bench = Bench::start();
    for path in ["/x", "/page.html", "/../Cargo.toml", "//"] {
        assert_eq!(bench.get(path, &[]).refusal(), refused(404, "NotFound"), "{path}");
    }
    for method in ["PUT", "DELETE", "OPTIONS", "TRACE"] {
        let sent = request(bench.server.address(), method, "/", &[], "");
        assert_eq!(
            send(bench.server.address(), &sent).refusal(),
            refused(405, "InvalidHttpMethod"),
            "{method}"
        );
    }
}
