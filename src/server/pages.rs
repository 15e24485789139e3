//! The status page and its data.
//!
//! The page is three files inside this program; it loads nothing from other servers. It changes
//! nothing, so it has no forms.

use serde_json::{Value, json};

use super::http::Reply;
use super::times::milliseconds;
use super::{Overview, Running};

/// Allows script, style and requests of this server, and no frames and forms.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// A file of the page.
pub(super) fn file(path: &str) -> Option<Reply> {
    let (kind, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page.html")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("page.js")),
        "/page.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        _ => return None,
    };
    Some(protected(Reply::new(200, kind, text)))
}

/// The data of the page.
pub(super) fn tasks(overview: &Overview) -> Reply {
    let tasks: Vec<Value> = overview.tasks.iter().map(task).collect();
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "queued": overview.queued,
        "running": overview.running,
        "completed": overview.completed,
        "failed": overview.failed,
        "bytes": overview.bytes,
        "transferred": overview.transferred,
        "retries": overview.retries,
        "tasks": tasks,
    });
    protected(Reply::new(200, "application/json", value.to_string()))
}

fn task(task: &Running) -> Value {
    json!({
        "kind": task.kind,
        "imageId": task.image_id,
        "name": task.name,
        "size": task.size,
        "restoredId": task.restored_id,
        "source": task.source,
        "target": task.target,
        "started": milliseconds(task.started),
        "ended": task.ended.map(milliseconds),
        "state": task.state,
        "queued": task.queued,
        "percent": task.percent,
        "rate": task.rate,
        "secondsLeft": task.time_left.map(|left| left.as_secs()),
        "reason": task.reason,
        "origin": task.origin,
    })
}

/// Adds headers that keep pages of other sites from framing and reading the page, and from learning
/// its address.
fn protected(reply: Reply) -> Reply {
    reply
        .with("content-security-policy", POLICY)
        .with("x-frame-options", "DENY")
        .with("referrer-policy", "no-referrer")
        .with("cross-origin-resource-policy", "same-origin")
        .with("cross-origin-opener-policy", "same-origin")
}
