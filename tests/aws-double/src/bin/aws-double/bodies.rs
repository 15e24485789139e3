//! Request bodies of the admin interface in JSON: snapshots, images, faults and settings.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use amistore_aws_double::aws::{
    BLOCK, Content, Fault, FaultKind, Image, Pattern, Rate, Settings, Snapshot, TestAws,
};
use serde_json::Value;

/// The number in a field, if there is one.
fn number(body: &Value, name: &str) -> Result<Option<u64>, String> {
    match &body[name] {
        Value::Null => Ok(None),
        value => value.as_u64().map(Some).ok_or_else(|| format!("{name} is not a number.")),
    }
}

fn index(body: &Value, name: &str) -> Result<Option<u32>, String> {
    number(body, name)?
        .map(|number| u32::try_from(number).map_err(|_| format!("{name} is too large.")))
        .transpose()
}

fn text(body: &Value, name: &str) -> Option<String> {
    body[name].as_str().map(str::to_owned)
}

fn pattern(body: &Value) -> Result<Content, String> {
    let random = number(body, "random")?.unwrap_or(100).min(100) as u8;
    Ok(Content::Made(Pattern { seed: number(body, "seed")?.unwrap_or(0), random }))
}

pub fn snapshot(body: &Value) -> Result<Snapshot, String> {
    let size = number(body, "size_gib")?.ok_or("size_gib is missing.")?;
    let mut snapshot = Snapshot::new(size);
    let or_empty = |name: &str| text(body, name).unwrap_or_default();
    snapshot.id = or_empty("id");
    snapshot.owner = or_empty("owner");
    snapshot.description = or_empty("description");
    snapshot.extra_xml = or_empty("extra_xml");
    snapshot.state = text(body, "state").unwrap_or(snapshot.state);
    snapshot.tier = text(body, "tier").unwrap_or(snapshot.tier);
    snapshot.kms_key_id = text(body, "kms_key_id");
    snapshot.encrypted = body["encrypted"] == true || snapshot.kms_key_id.is_some();
    snapshot.parent = text(body, "parent");
    if body["tags"].is_object() {
        snapshot.tags = serde_json::from_value(body["tags"].clone())
            .map_err(|cause| format!("tags: {cause}"))?;
    }
    for block in body["blocks"].as_array().into_iter().flatten() {
        let content = match (block["text"].as_str(), &block["made"]) {
            (Some(text), _) => Content::bytes(text),
            (None, made) if made.is_object() => pattern(made)?,
            _ => Content::Zero,
        };
        snapshot.blocks.insert(index(block, "index")?.ok_or("A block has no index.")?, content);
    }
    if let Some(path) = text(body, "raw") {
        read_raw(&mut snapshot, &path, body["zeros"] == true)
            .map_err(|cause| format!("{path}: {cause}"))?;
    }
    if body["pattern"].is_object() {
        let body = &body["pattern"];
        let (first, step) = (
            index(body, "first")?.unwrap_or(0),
            number(body, "step")?.unwrap_or(1).max(1) as usize,
        );
        let count = number(body, "count")?.ok_or("The count of the pattern is missing.")? as usize;
        let content = pattern(body)?;
        snapshot
            .blocks
            .extend((first..).step_by(step).take(count).map(|index| (index, content.clone())));
    }
    match snapshot.blocks.keys().next_back() {
        Some(last) if u64::from(*last) >= snapshot.capacity() => {
            Err(format!("Block {last} is behind the end of the volume."))
        }
        _ => Ok(snapshot),
    }
}

fn read_raw(snapshot: &mut Snapshot, path: &str, zeros: bool) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    for index in 0.. {
        let mut bytes = Vec::with_capacity(BLOCK);
        file.by_ref().take(BLOCK as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            break;
        }
        let content = Content::bytes(bytes);
        if zeros || !matches!(content, Content::Zero) {
            snapshot.blocks.insert(index, content);
        }
    }
    Ok(())
}

pub fn image(mut body: Value) -> Result<Image, String> {
    match text(&body, "snapshot") {
        None => serde_json::from_value(body).map_err(|cause| cause.to_string()),
        Some(root) => {
            let plain = Image::new(&text(&body, "name").unwrap_or_default(), &root);
            body["mappings"] =
                serde_json::to_value(plain.mappings).map_err(|cause| cause.to_string())?;
            serde_json::from_value(body).map_err(|cause| cause.to_string())
        }
    }
}

pub fn fault(body: &Value) -> Result<Fault, String> {
    let time = Duration::from_millis(number(body, "ms")?.unwrap_or(1000));
    let status = number(body, "status")?.unwrap_or(500) as u16;
    let code = text(body, "code").unwrap_or_else(|| "InternalServerException".to_owned());
    let name = text(body, "kind").ok_or("kind is missing.")?;
    let kind = match name.as_str() {
        "Error" => {
            FaultKind::Error { status, code, reason: text(body, "reason").unwrap_or_default() }
        }
        "ErrorAfter" => FaultKind::ErrorAfter { status, code },
        "BlockNotRead" => FaultKind::BlockNotRead,
        "Throttle" => FaultKind::Throttle,
        "Unavailable" => FaultKind::Unavailable,
        "BadGateway" => FaultKind::BadGateway,
        "ExpiredToken" => FaultKind::ExpiredToken,
        "Garbage" => FaultKind::Garbage,
        "Delay" => FaultKind::Delay(time),
        "Hang" => FaultKind::Hang(time),
        "Stall" => FaultKind::Stall(time),
        "Reset" => FaultKind::Reset,
        "ResetAfter" => FaultKind::ResetAfter,
        "Truncated" => FaultKind::Truncated,
        "FlipBit" => FaultKind::FlipBit,
        "WrongChecksum" => FaultKind::WrongChecksum,
        "ShortBlock" => FaultKind::ShortBlock,
        "WrongLength" => FaultKind::WrongLength,
        "CorruptUpload" => FaultKind::CorruptUpload,
        "Vanish" => FaultKind::Vanish,
        other => return Err(format!("There is no kind {other}.")),
    };
    let mut fault = Fault::on(body["operation"].as_str().unwrap_or("*"), kind);
    for (name, with) in [
        ("nth", Fault::nth as fn(Fault, u64) -> Fault),
        ("times", Fault::times),
        ("every", Fault::every),
    ] {
        if let Some(count) = number(body, name)?.filter(|count| *count > 0) {
            fault = with(fault, count);
        }
    }
    if body["always"] == true {
        fault = fault.always();
    }
    if let Some(id) = body["snapshot"].as_str() {
        fault = fault.snapshot(id);
    }
    Ok(match index(body, "block")? {
        Some(index) => fault.block(index),
        None => fault,
    })
}

/// Changes all named settings, or none if one of them is wrong.
pub fn settings(aws: &TestAws, body: &Value) -> Result<(), String> {
    let fields = body.as_object().ok_or("Settings are an object.")?;
    let mut keep_calls = None;
    let mut outcome = Ok(());
    aws.set(|settings| {
        let mut changed = settings.clone();
        for (name, value) in fields {
            let done = if name == "keep_calls" {
                keep_calls = value.as_bool();
                keep_calls.is_some()
            } else {
                change(&mut changed, name, value).is_some()
            };
            if !done {
                outcome = Err(format!("There is no setting {name} that could be {value}."));
                return;
            }
        }
        *settings = changed;
    });
    keep_calls.into_iter().filter(|_| outcome.is_ok()).for_each(|keep| aws.keep_calls(keep));
    outcome
}

/// Changes one setting; none if there is no such setting, or the value does not fit.
fn change(settings: &mut Settings, name: &str, value: &Value) -> Option<()> {
    let count = || value.as_u64().and_then(|count| u32::try_from(count).ok());
    let limit = || {
        if value.is_null() { Some(None) } else { value.as_u64().map(|limit| Some(limit as usize)) }
    };
    let time = || {
        value
            .as_f64()
            .filter(|millis| *millis >= 0.0)
            .map(|millis| Duration::from_secs_f64(millis / 1000.0))
    };
    match name {
        "latency_ms" => settings.latency = time()?,
        "block_latency_ms" => settings.block_latency = time()?,
        "page_cap" => settings.page_cap = limit()?,
        "empty_pages" => settings.empty_pages = count()?,
        "relist_replaces_tokens" => settings.relist_replaces_tokens = value.as_bool()?,
        "block_token_life_ms" => settings.block_token_life = time()?,
        "page_token_life_ms" => settings.page_token_life = time()?,
        "pending_limit" => settings.pending_limit = limit()??,
        "settle_puts" => settings.settle.puts = count()?,
        "settle_lists" => settings.settle.lists = count()?,
        "settle_describes" => settings.settle.describes = count()?,
        "completion_polls" => settings.completion_polls = count()?,
        "not_listable" => settings.not_listable = count()?,
        "discard" => settings.discard = value.as_bool()?,
        "ignores_encryption" => settings.ignores_encryption = value.as_bool()?,
        "snapshot_rate" => settings.snapshot_rate = rate(value)?,
        "account_rate" => settings.account_rate = rate(value)?,
        "rates" => {
            for (operation, value) in value.as_object()? {
                match rate(value)? {
                    Some(rate) => settings.rates.insert(operation.clone(), rate),
                    None => settings.rates.remove(operation),
                };
            }
        }
        "plain_throttling" => settings.plain_throttling = value.as_bool()?,
        "long_error_types" => settings.long_error_types = value.as_bool()?,
        "ec2_page_cap" => settings.ec2_page_cap = limit()?,
        "store_polls" => settings.store_polls = count()?,
        "restore_polls" => settings.restore_polls = count()?,
        "restore_fails_late" => settings.restore_fails_late = value.as_bool()?,
        "store_quota_gb" => settings.store_quota_gb = value.as_u64()?,
        "restore_quota_gb" => settings.restore_quota_gb = value.as_u64()?,
        _ => return None,
    }
    Some(())
}

/// Requests a second, `{"burst", "per_second"}`, or null for no limit.
fn rate(value: &Value) -> Option<Option<Rate>> {
    match value {
        Value::Null => Some(None),
        Value::Object(fields) => Some(Some(Rate {
            burst: fields.get("burst")?.as_f64()?,
            per_second: fields.get("per_second")?.as_f64()?,
        })),
        value => Some(Some(Rate::per_second(value.as_f64()?))),
    }
}
