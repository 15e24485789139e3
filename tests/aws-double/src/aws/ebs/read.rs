//! Reading: lists of blocks, and blocks.

use std::time::{Duration, SystemTime};

use base64_simd::STANDARD as BASE64;
use hyper::Response;
use serde_json::{Value, json};

use super::super::Shared;
use super::super::blocks::{BLOCK, sha256};
use super::super::clock::epoch;
use super::super::router::Body;
use super::super::world::World;
use super::{Error, Outcome, Request, json_answer, readable};

const PAGE: u64 = 10_000;

/// A token that carries `words`, sealed with the secret of the server.
fn seal(world: &World, what: &str, words: &[u64]) -> String {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let mut text = world.secret.to_vec();
    text.extend(what.as_bytes());
    text.extend(&bytes);
    bytes.extend(&sha256(&text)[..12]);
    BASE64.encode_to_string(bytes)
}

/// The words of a token that was sealed for `what`.
fn unseal<const N: usize>(world: &World, what: &str, token: &str) -> Option<[u64; N]> {
    let bytes = BASE64.decode_to_vec(token).ok().filter(|bytes| bytes.len() == N * 8 + 12)?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        *word = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    (seal(world, what, &words) == token).then_some(words)
}

fn seconds(time: SystemTime) -> u64 {
    epoch(time) as u64
}

/// Position of a page in a list.
struct Page {
    start: u32,
    empty: bool,
    limit: usize,
    empty_left: u32,
}

impl Page {
    /// The requested page. `what` names the list, so that tokens of other lists are refused.
    fn request(
        world: &World,
        request: &Request,
        what: &str,
        pages_since: SystemTime,
    ) -> Outcome<Self> {
        let parameter = |name: &str| request.parameters.get(name).map(String::as_str);
        let max = Request::number("maxResults", parameter("maxResults"))?.unwrap_or(PAGE);
        if !(100..=PAGE).contains(&max) {
            return Err(Error::invalid(
                "INVALID_PARAMETER_VALUE",
                format!("maxResults {max} is not in the range of 100 to {PAGE}."),
            ));
        }
        let start =
            Request::number("startingBlockIndex", parameter("startingBlockIndex"))?.unwrap_or(0);
        let limit = world.settings.page_cap.unwrap_or(usize::MAX).min(max as usize);
        let Some(token) = parameter("pageToken") else {
            let start = u32::try_from(start).map_err(|_| {
                Error::invalid("INVALID_PARAMETER_VALUE", "startingBlockIndex is too large.")
            })?;
            let empty_left = world.settings.empty_pages;
            return Ok(Self { start, limit, empty: empty_left > 0, empty_left });
        };
        let refused = |message: &str| Error::invalid("INVALID_PAGE_TOKEN", message);
        let [start, empty_left, issued]: [u64; 3] = unseal(world, what, token)
            .ok_or_else(|| refused("The page token is not valid for this request."))?;
        let issued = SystemTime::UNIX_EPOCH + Duration::from_millis(issued);
        if issued + world.settings.page_token_life <= world.now() || issued <= pages_since {
            return Err(refused("The page token has expired."));
        }
        Ok(Self {
            start: start as u32,
            limit,
            empty: empty_left > 0,
            empty_left: empty_left as u32,
        })
    }

    /// The token of the next page, which begins at `next`, if there is one.
    fn token(&self, world: &World, what: &str, next: Option<u32>) -> Option<String> {
        let issued =
            world.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
                as u64;
        let token = |start: u32, empty_left: u32| {
            seal(world, what, &[start.into(), empty_left.into(), issued])
        };
        match next {
            _ if self.empty => Some(token(self.start, self.empty_left - 1)),
            Some(next) => Some(token(next, world.settings.empty_pages)),
            None => None,
        }
    }

    /// The entries of this page out of all `entries` from its start on, and the start of the next
    /// page.
    fn cut<T>(&self, entries: impl Iterator<Item = (u32, T)>) -> (Vec<(u32, T)>, Option<u32>) {
        if self.empty {
            return (Vec::new(), None);
        }
        let mut page: Vec<(u32, T)> = entries.take(self.limit + 1).collect();
        let next = if page.len() > self.limit { page.pop().map(|(index, _)| index) } else { None };
        (page, next)
    }
}

fn block_token(world: &World, snapshot: &str, index: u32, generation: u32) -> String {
    seal(world, snapshot, &[index.into(), generation.into(), seconds(world.now())])
}

/// A new list invalidates the block tokens of earlier lists.
fn begin_list(world: &mut World, id: &str, request: &Request) {
    let replaces =
        world.settings.relist_replaces_tokens && !request.parameters.contains_key("pageToken");
    if let Some(snapshot) = world.snapshots.get_mut(id).filter(|_| replaces) {
        snapshot.generation += 1;
    }
}

fn list(
    world: &World,
    volume_size: u64,
    name: &str,
    entries: Vec<Value>,
    token: Option<String>,
) -> Response<Body> {
    let expiry = world.now() + world.settings.block_token_life;
    let mut body =
        json!({ "BlockSize": BLOCK, "VolumeSize": volume_size, "ExpiryTime": epoch(expiry) });
    body[name] = entries.into();
    if let Some(token) = token {
        body["NextToken"] = token.into();
    }
    json_answer(200, &body)
}

pub fn list_snapshot_blocks(world: &mut World, request: &Request) -> Outcome<Response<Body>> {
    let id = request.target.id()?;
    let pages_since = readable(world, id, request.account)?.pages_since;
    let page = Page::request(world, request, id, pages_since)?;
    begin_list(world, id, request);
    let snapshot = &world.snapshots[id];
    let (entries, next) =
        page.cut(snapshot.blocks.range(page.start..).map(|(index, _)| (*index, ())));
    let token = |index| block_token(world, id, index, snapshot.generation);
    let entries = entries
        .iter()
        .map(|(index, ())| json!({ "BlockIndex": index, "BlockToken": token(*index) }))
        .collect();
    Ok(list(world, snapshot.volume_size, "Blocks", entries, page.token(world, id, next)))
}

pub fn list_changed_blocks(world: &mut World, request: &Request) -> Outcome<Response<Body>> {
    let id = request.target.id()?;
    let first_id = request.parameters.get("firstSnapshotId").cloned();
    let pages_since = readable(world, id, request.account)?.pages_since;
    if let Some(first) = &first_id {
        super::checked_id(first)?;
        readable(world, first, request.account)?;
        if !related(world, first, id) {
            return Err(Error::invalid(
                "UNRELATED_SNAPSHOTS",
                "The snapshots are not of the same lineage.",
            ));
        }
    }
    let what = format!("{} {id}", first_id.as_deref().unwrap_or_default());
    let page = Page::request(world, request, &what, pages_since)?;
    begin_list(world, id, request);
    first_id.iter().for_each(|first| begin_list(world, first, request));
    let second = &world.snapshots[id];
    let none = std::collections::BTreeMap::new();
    let first = first_id.as_ref().map(|first| &world.snapshots[first]);
    let old = first.map_or(&none, |first| &first.blocks);
    let mut indexes: Vec<u32> = old.keys().chain(second.blocks.keys()).copied().collect();
    indexes.sort_unstable();
    indexes.dedup();
    let digest = |blocks: &std::collections::BTreeMap<u32, super::super::Content>, index| {
        blocks.get(&index).map(|content| content.digest(index))
    };
    let changed = |index: &u32| {
        let (before, after) = (digest(old, *index), digest(&second.blocks, *index));
        (before != after).then_some((*index, (before.is_some(), after.is_some())))
    };
    let (entries, next) =
        page.cut(indexes.iter().filter(|index| **index >= page.start).filter_map(changed));
    let entry = |(index, (before, after)): &(u32, (bool, bool))| {
        let mut entry = json!({ "BlockIndex": index });
        if let (true, Some(first)) = (before, first) {
            entry["FirstBlockToken"] =
                block_token(world, &first.id, *index, first.generation).into();
        }
        if *after {
            entry["SecondBlockToken"] = block_token(world, id, *index, second.generation).into();
        }
        entry
    };
    let entries = entries.iter().map(entry).collect();
    Ok(list(world, second.volume_size, "ChangedBlocks", entries, page.token(world, &what, next)))
}

/// Whether both have an ancestor in common, or are of one volume.
fn related(world: &World, one: &str, other: &str) -> bool {
    let root = |id: &str| {
        let mut id = id.to_owned();
        while let Some(parent) =
            world.snapshots.get(&id).and_then(|snapshot| snapshot.parent.clone())
        {
            id = parent;
        }
        id
    };
    let volume = |id: &str| {
        world
            .snapshots
            .get(id)
            .map(|snapshot| snapshot.volume_id.clone())
            .filter(|volume| volume != "vol-ffffffff")
    };
    root(one) == root(other) || volume(one).is_some() && volume(one) == volume(other)
}

pub fn get_snapshot_block(shared: &Shared, request: &Request) -> Outcome<Response<Body>> {
    let (id, index) = (request.target.id()?, request.target.index()?);
    let content = {
        let mut world = shared.world();
        let generation = readable(&mut world, id, request.account)?.generation;
        let refused = |message: &str| Error::invalid("INVALID_BLOCK_TOKEN", message);
        let token = request
            .parameters
            .get("blockToken")
            .ok_or_else(|| Error::invalid("INVALID_PARAMETER_VALUE", "blockToken is missing."))?;
        let [of, token_generation, issued]: [u64; 3] = unseal(&world, id, token)
            .ok_or_else(|| refused("The block token is not valid for this snapshot."))?;
        let age = seconds(world.now()).saturating_sub(issued);
        if token_generation != u64::from(generation)
            || age >= world.settings.block_token_life.as_secs()
        {
            return Err(refused("The block token has expired."));
        }
        if of != u64::from(index) {
            return Err(refused("The block token is that of another block."));
        }
        let content = world.snapshots[id].blocks.get(&index).cloned();
        content.ok_or_else(|| {
            Error::invalid("INVALID_BLOCK", "There is no such block in the snapshot.")
        })?
    };
    let (bytes, digest) = content.read(index);
    let mut answer = Response::new(bytes);
    let headers = answer.headers_mut();
    headers.insert("content-type", "application/octet-stream".parse().expect("a header value"));
    headers.insert("x-amz-data-length", BLOCK.into());
    headers.insert(
        "x-amz-checksum",
        BASE64.encode_to_string(digest).parse().expect("base64 is a header value"),
    );
    headers.insert("x-amz-checksum-algorithm", "SHA256".parse().expect("a header value"));
    Ok(answer)
}
