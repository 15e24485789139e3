//! Writing: snapshots are started, filled with blocks, and completed.

use std::time::Duration;

use base64_simd::STANDARD as BASE64;
use hyper::Response;
use serde_json::{Map, Value, json};

use super::super::Shared;
use super::super::blocks::{BLOCK, Content, sha256};
use super::super::clock::epoch;
use super::super::model::{Snapshot, Tags};
use super::super::router::Body;
use super::super::world::World;
use super::{Error, Outcome, Request, checked_id, json_answer};

const MAX_GIB: u64 = 65_536;
const MAX_TAGS: usize = 50;

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("INVALID_PARAMETER_VALUE", message)
}

/// The checksum of a snapshot: that of the checksums of its blocks, in order.
pub fn linear<'a>(digests: impl Iterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    sha256(&digests.copied().collect::<Vec<_>>().concat())
}

/// Parameters of StartSnapshot.
struct StartParameters {
    volume_size: u64,
    parent: Option<String>,
    tags: Tags,
    description: String,
    client_token: Option<String>,
    encrypted: Option<bool>,
    kms_key: Option<String>,
    timeout: u64,
}

impl StartParameters {
    fn parse(body: &[u8]) -> Outcome<Self> {
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
            Error::new(400, "SerializationException", "", "The body is not a JSON object.")
        })?;
        let known = [
            "VolumeSize",
            "ParentSnapshotId",
            "Tags",
            "Description",
            "ClientToken",
            "Encrypted",
            "KmsKeyArn",
            "Timeout",
        ];
        if let Some(unknown) = body.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(invalid(format!("There is no parameter {unknown}.")));
        }
        let given = |name: &str| body.get(name).filter(|value| !value.is_null());
        let text = |name: &str| {
            let text = given(name).map(|value| value.as_str().map(str::to_owned));
            text.map(|text| text.ok_or_else(|| invalid(format!("{name} is not a text."))))
                .transpose()
        };
        let number = |name: &str| {
            let number = given(name).map(Value::as_u64);
            number
                .map(|number| number.ok_or_else(|| invalid(format!("{name} is not a number."))))
                .transpose()
        };
        let encrypted = given("Encrypted")
            .map(|value| value.as_bool().ok_or_else(|| invalid("Encrypted is not true or false.")));
        let tags = given("Tags").map(parse_tags).transpose()?.unwrap_or_default();
        Ok(Self {
            volume_size: number("VolumeSize")?.ok_or_else(|| invalid("VolumeSize is missing."))?,
            parent: text("ParentSnapshotId")?,
            tags,
            description: text("Description")?.unwrap_or_default(),
            client_token: text("ClientToken")?,
            encrypted: encrypted.transpose()?,
            kms_key: text("KmsKeyArn")?,
            timeout: number("Timeout")?.unwrap_or(60),
        })
    }

    /// Refuses parameters that are invalid by themselves.
    fn check(&self) -> Outcome<()> {
        if !(1..=MAX_GIB).contains(&self.volume_size) {
            return Err(Error::invalid(
                "INVALID_VOLUME_SIZE",
                format!("The volume size is not in the range of 1 to {MAX_GIB} GiB."),
            ));
        }
        if !(10..=4320).contains(&self.timeout) {
            return Err(invalid("The timeout is not in the range of 10 to 4320 minutes."));
        }
        if self.description.chars().count() > 255 {
            return Err(invalid("The description is longer than 255 characters."));
        }
        let wrong_token = |token: &String| {
            token.is_empty() || token.len() > 255 || token.contains(char::is_whitespace)
        };
        if self.client_token.as_ref().is_some_and(wrong_token) {
            return Err(invalid("The client token is not valid."));
        }
        let parts: Option<Vec<&str>> = self.kms_key.as_deref().map(|key| key.split(':').collect());
        let wrong_key = |parts: Vec<&str>| {
            parts.len() != 6
                || parts[0] != "arn"
                || parts[2] != "kms"
                || !parts[5].starts_with("key/")
        };
        if parts.is_some_and(wrong_key) {
            return Err(Error::invalid(
                "INVALID_CUSTOMER_KEY",
                "KmsKeyArn is not the ARN of a KMS key.",
            ));
        }
        if self.parent.is_some() && self.encrypted.is_some() {
            return Err(invalid("Encrypted cannot be used together with ParentSnapshotId."));
        }
        if self.encrypted == Some(false) && self.kms_key.is_some() {
            return Err(invalid("KmsKeyArn cannot be used when Encrypted is false."));
        }
        self.parent.as_deref().map_or(Ok(()), checked_id)
    }

    /// Text of all parameters that a retry with the same client token must repeat.
    fn fingerprint(&self) -> String {
        let Self { volume_size, parent, tags, description, encrypted, kms_key, timeout, .. } = self;
        format!(
            "{volume_size} {parent:?} {tags:?} {description:?} {encrypted:?} {kms_key:?} {timeout}"
        )
    }
}

fn parse_tags(tags: &Value) -> Outcome<Tags> {
    let wrong = |message: &str| Error::invalid("INVALID_TAG", message);
    let tags = tags.as_array().ok_or_else(|| wrong("Tags is not a list."))?;
    if tags.len() > MAX_TAGS {
        return Err(wrong("There are more than 50 tags."));
    }
    let mut found = Tags::new();
    for tag in tags {
        let text =
            |name: &str| tag.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (key, value) = (text("Key"), text("Value"));
        if key.is_empty() || key.chars().count() > 127 || value.chars().count() > 255 {
            return Err(wrong("A tag is too long, or has no key."));
        }
        if key.to_lowercase().starts_with("aws:") {
            return Err(wrong("Keys of tags do not begin with aws:"));
        }
        if found.insert(key, value).is_some() {
            return Err(wrong("A key is there twice."));
        }
    }
    Ok(found)
}

pub fn start_snapshot(world: &mut World, request: &Request) -> Outcome<Response<Body>> {
    let start = StartParameters::parse(request.body)?;
    start.check()?;
    let account = request.account;
    let identity = start.client_token.clone().map(|token| (account.to_owned(), token));
    if let Some((fingerprint, id)) =
        identity.as_ref().and_then(|identity| world.client_tokens.get(identity))
    {
        if *fingerprint != start.fingerprint() {
            return Err(Error::new(
                409,
                "ConflictException",
                "",
                "The client token was used for other parameters.",
            ));
        }
        let snapshot = world.snapshots.get(id).ok_or_else(|| Error::no_snapshot(id))?;
        return Ok(started(snapshot));
    }
    let mut snapshot = prepared(world, &start, account)?;
    let pending = world
        .snapshots
        .values()
        .filter(|snapshot| snapshot.owner == account && snapshot.state == "pending")
        .count();
    if pending >= world.settings.pending_limit {
        let message = format!("There are {pending} pending snapshots already.");
        return Err(Error::new(
            402,
            "ServiceQuotaExceededException",
            "DEPENDENCY_SERVICE_QUOTA_EXCEEDED",
            message,
        ));
    }
    snapshot.id = world.unique("snap");
    account.clone_into(&mut snapshot.owner);
    "pending".clone_into(&mut snapshot.state);
    snapshot.progress = 0;
    snapshot.start_time = world.now();
    snapshot.deadline = Some(world.now() + Duration::from_secs(start.timeout * 60));
    snapshot.visible_after = world.settings.settle;
    snapshot.parent.clone_from(&start.parent);
    snapshot.description.clone_from(&start.description);
    snapshot.tags.clone_from(&start.tags);
    if let Some(identity) = identity {
        world.client_tokens.insert(identity, (start.fingerprint(), snapshot.id.clone()));
    }
    let answer = started(&snapshot);
    world.snapshots.insert(snapshot.id.clone(), snapshot);
    Ok(answer)
}

/// The new snapshot with the blocks of its parent and its encryption.
fn prepared(world: &mut World, start: &StartParameters, account: &str) -> Outcome<Snapshot> {
    let by_default = world.account_settings(account).encrypts;
    let mut snapshot = Snapshot::new(start.volume_size);
    if let Some(parent) = &start.parent {
        let parent = super::readable(world, parent, account)?;
        if parent.volume_size > start.volume_size {
            return Err(Error::invalid(
                "INVALID_VOLUME_SIZE",
                "The volume is smaller than that of the parent.",
            ));
        }
        if parent.owner != account {
            return Err(Error::denied(
                "UNAUTHORIZED_ACCOUNT",
                "The parent is a snapshot of another account.",
            ));
        }
        if parent.encrypted && start.kms_key.is_some() {
            return Err(invalid("KmsKeyArn cannot be used with a parent that is encrypted."));
        }
        if !parent.encrypted && by_default {
            return Err(invalid(
                "The parent is not encrypted, and the account encrypts by default.",
            ));
        }
        snapshot.blocks.clone_from(&parent.blocks);
        snapshot.encrypted = parent.encrypted;
        snapshot.kms_key_id.clone_from(&parent.kms_key_id);
    } else if start.encrypted == Some(false) && by_default {
        return Err(invalid("Encrypted is false, and the account encrypts by default."));
    }
    if start.parent.is_none() || start.kms_key.is_some() {
        snapshot.encrypted = start.encrypted == Some(true) || start.kms_key.is_some() || by_default;
        snapshot.kms_key_id = snapshot
            .encrypted
            .then(|| start.kms_key.clone().unwrap_or_else(|| world.default_kms_key(account)));
    }
    if world.settings.ignores_encryption {
        (snapshot.encrypted, snapshot.kms_key_id) = (false, None);
    }
    if snapshot.kms_key_id.as_ref().is_some_and(|key| world.denied_kms.contains(key)) {
        return Err(Error::denied(
            "DEPENDENCY_ACCESS_DENIED",
            "The request to KMS was denied: the key may not be used.",
        ));
    }
    Ok(snapshot)
}

fn started(snapshot: &Snapshot) -> Response<Body> {
    let tags: Vec<Value> =
        snapshot.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
    let mut body = json!({
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner,
        "Status": snapshot.state,
        "StartTime": epoch(snapshot.start_time),
        "VolumeSize": snapshot.volume_size,
        "BlockSize": BLOCK,
        "Description": snapshot.description,
    });
    if !tags.is_empty() {
        body["Tags"] = tags.into();
    }
    if let Some(parent) = &snapshot.parent {
        body["ParentSnapshotId"] = parent.clone().into();
    }
    if let Some(key) = &snapshot.kms_key_id {
        body["KmsKeyArn"] = key.clone().into();
    }
    json_answer(201, &body)
}

/// The snapshot, if the account may write into it.
fn writable<'a>(world: &'a mut World, id: &str, account: &str) -> Outcome<&'a mut Snapshot> {
    let snapshot = world
        .snapshots
        .get_mut(id)
        .filter(|snapshot| snapshot.owner == account)
        .ok_or_else(|| Error::no_snapshot(id))?;
    if snapshot.visible_after.puts > 0 {
        snapshot.visible_after.puts -= 1;
        return Err(Error::no_snapshot(id));
    }
    if snapshot.state != "pending" || snapshot.completing.is_some() {
        let message = format!(
            "The snapshot {id} is not one that blocks can be written to: its state is {}.",
            snapshot.state
        );
        return Err(Error::invalid("INVALID_SNAPSHOT_ID", message));
    }
    Ok(snapshot)
}

pub fn put_snapshot_block(shared: &Shared, request: &Request) -> Outcome<Response<Body>> {
    let (id, index) = (request.target.id()?, request.target.index()?);
    let header = |name: &str| {
        request.header(name).ok_or_else(|| invalid(format!("The header {name} is missing.")))
    };
    if header("x-amz-data-length")? != BLOCK.to_string() || request.body.len() != BLOCK {
        return Err(invalid(format!("The length of a block is {BLOCK}.")));
    }
    if header("x-amz-checksum-algorithm")? != "SHA256" {
        return Err(invalid("The algorithm of the checksum is SHA256."));
    }
    if Request::number("x-amz-Progress", request.header("x-amz-progress"))?
        .is_some_and(|progress| progress > 100)
    {
        return Err(invalid("Progress is more than 100."));
    }
    let announced = header("x-amz-checksum")?;
    let digest: Option<[u8; 32]> =
        BASE64.decode_to_vec(announced).ok().and_then(|digest| digest.try_into().ok());
    let digest = digest.ok_or_else(|| invalid("The checksum is not one."))?;
    let discard = {
        let mut world = shared.world();
        let snapshot = writable(&mut world, id, request.account)?;
        if u64::from(index) >= snapshot.capacity() {
            return Err(Error::invalid(
                "INVALID_BLOCK",
                format!("Block {index} is behind the end of the volume."),
            ));
        }
        world.settings.discard
    };
    let content = if discard {
        Content::Digest(digest)
    } else {
        // Hashed outside of the lock, so that blocks do not wait for each other.
        let content = Content::of(request.body.clone());
        if content.digest(index) != digest {
            return Err(invalid("The checksum is not that of the block."));
        }
        content
    };
    let mut world = shared.world();
    let snapshot = writable(&mut world, id, request.account)?;
    snapshot.blocks.insert(index, content);
    snapshot.put.insert(index);
    if let Some(progress) =
        request.header("x-amz-progress").and_then(|progress| progress.parse().ok())
    {
        snapshot.progress = progress;
    }
    let mut answer = json_answer(201, &json!({}));
    answer.headers_mut().insert("x-amz-checksum", announced.parse().expect("it came in a header"));
    answer
        .headers_mut()
        .insert("x-amz-checksum-algorithm", "SHA256".parse().expect("a header value"));
    Ok(answer)
}

pub fn complete_snapshot(world: &mut World, request: &Request) -> Outcome<Response<Body>> {
    let id = request.target.id()?;
    let count =
        Request::number("x-amz-ChangedBlocksCount", request.header("x-amz-changedblockscount"))?;
    let count = count.ok_or_else(|| invalid("ChangedBlocksCount is missing."))?;
    if request.header("x-amz-checksum-algorithm").is_some_and(|algorithm| algorithm != "SHA256") {
        return Err(invalid("The algorithm of the checksum is SHA256."));
    }
    if request.header("x-amz-checksum-aggregation-method").is_some_and(|method| method != "LINEAR")
    {
        return Err(invalid("Checksums are aggregated by LINEAR."));
    }
    let (polls, not_listable) = (world.settings.completion_polls, world.settings.not_listable);
    let now = world.now();
    let snapshot = writable(world, id, request.account)?;
    if let Some(announced) = request.header("x-amz-checksum") {
        let digests: Vec<[u8; 32]> =
            snapshot.put.iter().map(|index| snapshot.blocks[index].digest(*index)).collect();
        if BASE64.encode_to_string(linear(digests.iter())) != announced {
            return Err(invalid("The checksum is not that of the blocks that were written."));
        }
    }
    if count != snapshot.put.len() as u64 {
        "error".clone_into(&mut snapshot.state);
        snapshot.state_message =
            Some(format!("{count} blocks were announced, and {} written.", snapshot.put.len()));
    } else {
        snapshot.not_listable = not_listable;
        snapshot.completing = Some(polls);
        if polls == 0 {
            snapshot.complete(now);
        }
    }
    Ok(json_answer(202, &json!({ "Status": "pending" })))
}
