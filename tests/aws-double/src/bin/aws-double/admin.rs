//! The admin interface: JSON over HTTP, for programs that cannot call the servers' own functions.
//! `?server=1` is the second server.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /snapshot` | adds a snapshot, see below |
//! | `POST /image` | adds an image: the fields of `model::Image`, or `name` and `snapshot` |
//! | `POST /fault` | adds a fault, see below |
//! | `DELETE /fault` | removes all faults |
//! | `POST /settings` | any of the settings, see `bodies` |
//! | `POST /key` | `id`, `secret`, `token`, `account` |
//! | `POST /expire` | the key `id`; or the tokens of `snapshot` |
//! | `POST /deny`, `POST /allow` | `operation`; or `kms_key` |
//! | `POST /encrypt` | `encrypts`, `kms_key`, `account` |
//! | `POST /advance` | `seconds` |
//! | `POST /bucket` | `name`, in the S3 of the server |
//! | `POST /network` | `up`: whether the servers accept connections |
//! | `GET /state` | images, snapshots and tasks |
//! | `GET /calls` | requests and bytes of each operation; `GET /log`: each request |
//! | `DELETE /calls` | forgets them |
//! | `GET /snapshot/ID/raw?path=FILE` | writes the volume into a sparse file |
//!
//! A snapshot has `size_gib` and any of `blocks`
//! (`[{"index", "text" or "zero" or "made": {"seed", "random"}}]`), `raw` (a file; its zeros are
//! absent unless `zeros`), `pattern` (`{"seed", "random", "first", "count", "step"}`), `id`,
//! `owner`, `state`, `description`, `tags`, `encrypted`, `kms_key_id`, `parent`, `tier` and
//! `extra_xml`.
//!
//! A fault has `operation`, `kind` (`FlipBit`; `Error` with `status`, `code` and `reason`; `Delay`
//! with `ms`; ...), and any of `nth`, `times`, `every`, `snapshot` and `block`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use amistore_aws_double::aws::{BLOCK, Call, Content, Snapshot, TestAws, iso, linear};
use amistore_aws_double::s3::BucketOptions;
use amistore_aws_double::wire::{Answer, Connection, Server, percent_decoded};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use crate::Region;
use crate::bodies;

/// The answer to a request, or the message of an error.
type Outcome = Result<Value, String>;

pub fn start(regions: Arc<Vec<Region>>) -> Server {
    Server::start("aws-double-admin", move |_: Connection, request| {
        answer(Arc::clone(&regions), request)
    })
}

async fn answer(
    regions: Arc<Vec<Region>>,
    request: Request<Incoming>,
) -> io::Result<Response<Answer>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let pairs =
        parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let query: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_owned(), percent_decoded(value))).collect();
    let (status, body) = match dispatch(&regions, &parts.method, parts.uri.path(), &query, &body) {
        Ok(body) => (200, body),
        Err(message) => (400, json!({ "error": message })),
    };
    let mut answer = Response::new(Answer::new([Bytes::from(format!("{body}\n"))], |_| ()));
    *answer.status_mut() = status.try_into().expect("a status");
    answer
        .headers_mut()
        .insert("content-type", "application/json".parse().expect("a header value"));
    Ok(answer)
}

fn dispatch(
    regions: &[Region],
    method: &Method,
    path: &str,
    query: &BTreeMap<String, String>,
    body: &[u8],
) -> Outcome {
    let number = query
        .get("server")
        .map_or(Ok(0), |text| text.parse::<usize>().map_err(|cause| cause.to_string()))?;
    let region = regions.get(number).ok_or("There is no such server.")?;
    let body: Value = match body {
        [] => json!({}),
        body => serde_json::from_slice(body).map_err(|cause| cause.to_string())?,
    };
    let aws = &region.aws;
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method, path.as_slice()) {
        (&Method::POST, ["snapshot"]) => {
            Ok(json!({ "id": aws.add_snapshot(bodies::snapshot(&body)?) }))
        }
        (&Method::POST, ["image"]) => Ok(json!({ "id": aws.add_image(bodies::image(body)?) })),
        (&Method::GET, ["state"]) => Ok(state(aws)),
        (&Method::GET, ["calls"]) => Ok(calls(aws)),
        (&Method::GET, ["log"]) => Ok(aws.calls().iter().map(logged).collect()),
        (&Method::GET, ["snapshot", id, "raw"]) => {
            let snapshot = aws.snapshot(id).ok_or("There is no such snapshot.")?;
            let path = query.get("path").ok_or("path is missing.")?;
            write_raw(&snapshot, path).map_err(|cause| format!("{path}: {cause}"))?;
            Ok(json!({ "blocks": snapshot.blocks.len() }))
        }
        (&Method::POST, [name]) => execute(region, name, &body).map(|()| json!({})),
        (&Method::DELETE, ["fault"]) => {
            aws.clear_faults();
            Ok(json!({}))
        }
        (&Method::DELETE, ["calls"]) => {
            aws.reset_calls();
            Ok(json!({}))
        }
        _ => Err("There is no such request.".to_owned()),
    }
}

/// Carries out a request that has no result.
fn execute(region: &Region, name: &str, body: &Value) -> Result<(), String> {
    let aws = &region.aws;
    let account = body["account"].as_str().map_or_else(|| aws.account(), str::to_owned);
    match name {
        "fault" => aws.fail(bodies::fault(body)?),
        "settings" => {
            let mut body = body.clone();
            let latency = body.as_object_mut().and_then(|fields| fields.remove("s3_latency_ms"));
            bodies::settings(aws, &body)?;
            if let Some(latency) = latency {
                let s3 = region.s3.as_ref().ok_or("There is no S3.")?;
                let millis = latency.as_u64().ok_or("s3_latency_ms is no number.")?;
                s3.set_latency(Duration::from_millis(millis));
            }
        }
        "advance" => {
            aws.advance(Duration::from_secs(body["seconds"].as_u64().ok_or("seconds is missing.")?))
        }
        "bucket" => {
            let s3 = region
                .s3
                .as_ref()
                .ok_or("There is no S3: the program was started without --s3.")?;
            s3.create_bucket_with(
                text(body, "name")?,
                BucketOptions { region: aws.region(), ..BucketOptions::default() },
            );
        }
        "network" if body["up"] == true => aws.resume(),
        "network" => aws.stop_accepting(),
        "key" => aws.add_key_of(
            &account,
            text(body, "id")?,
            text(body, "secret")?,
            body["token"].as_str(),
        ),
        "expire" => match body["snapshot"].as_str() {
            Some(snapshot) => {
                aws.snapshot(snapshot).ok_or("There is no such snapshot.")?;
                aws.expire_block_tokens(snapshot);
                aws.expire_page_tokens(snapshot);
            }
            None => aws.expire_key(text(body, "id")?),
        },
        "deny" => match body["kms_key"].as_str() {
            Some(key) => aws.deny_kms_key(key),
            None => aws.deny(text(body, "operation")?),
        },
        "allow" => match body["kms_key"].as_str() {
            Some(key) => aws.allow_kms_key(key),
            None => aws.allow(text(body, "operation")?),
        },
        "encrypt" => {
            aws.encrypt_by_default(&account, body["encrypts"] == true, body["kms_key"].as_str())
        }
        _ => return Err("There is no such request.".to_owned()),
    }
    Ok(())
}

fn text<'a>(body: &'a Value, name: &str) -> Result<&'a str, String> {
    body[name].as_str().ok_or_else(|| format!("{name} is missing, or no text."))
}

fn state(aws: &TestAws) -> Value {
    let snapshot = |snapshot: &Snapshot| {
        let digests = snapshot.digests();
        json!({
            "id": snapshot.id,
            "owner": snapshot.owner,
            "state": snapshot.state,
            "state_message": snapshot.state_message,
            "volume_size": snapshot.volume_size,
            "description": snapshot.description,
            "tags": snapshot.tags,
            "tier": snapshot.tier,
            "encrypted": snapshot.encrypted,
            "kms_key_id": snapshot.kms_key_id,
            "parent": snapshot.parent,
            "blocks": snapshot.blocks.len(),
            "put": snapshot.put.len(),
            "start_time": iso(snapshot.start_time),
            "checksum": base64_simd::STANDARD.encode_to_string(linear(digests.values())),
        })
    };
    let tasks: Vec<Value> = aws
        .store_tasks()
        .iter()
        .map(|task| {
            json!({
                "image": task.image,
                "bucket": task.bucket,
                "key": task.key,
                "state": task.state,
                "progress": task.progress,
            })
        })
        .collect();
    json!({
        "images": aws.images(),
        "snapshots": aws.snapshots().iter().map(snapshot).collect::<Vec<_>>(),
        "tasks": tasks,
    })
}

fn calls(aws: &TestAws) -> Value {
    let one = |(operation, count): (String, amistore_aws_double::aws::Count)| {
        let count = json!({
            "calls": count.calls,
            "failed": count.failed,
            "bytes_in": count.bytes_in,
            "bytes_out": count.bytes_out,
        });
        (operation, count)
    };
    Value::Object(aws.counts().into_iter().map(one).collect())
}

fn logged(call: &Call) -> Value {
    let took =
        call.answered.map(|answered| answered.duration_since(call.started).as_secs_f64() * 1000.0);
    json!({
        "number": call.number,
        "service": call.service,
        "operation": call.operation,
        "snapshot": call.snapshot,
        "block": call.block,
        "status": call.status,
        "error": call.error,
        "connection": call.connection,
        "access_key": call.access_key,
        "parameters": call.parameters,
        "fault": call.fault.as_ref().map(|fault| format!("{fault:?}")),
        "ms": took,
        "bytes_in": call.bytes_in, "bytes_out": call.bytes_out,
    })
}

fn write_raw(snapshot: &Snapshot, path: &str) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(snapshot.volume_size << 30)?;
    for (index, content) in
        snapshot.blocks.iter().filter(|(_, content)| !matches!(content, Content::Zero))
    {
        file.write_all_at(&content.to_vec(*index), u64::from(*index) * BLOCK as u64)?;
    }
    Ok(())
}
