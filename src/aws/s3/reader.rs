//! The reader of an object: ranges of one version.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};

use super::super::body::Progress;
use super::super::error::{Failure, classify};
use super::super::fetch::Fetch;
use super::S3Connection;
use super::attributes::decode_metadata;
use super::bucket::{S3Store, failed, no_length};
use crate::base::{Error, ErrorCode, ErrorKind, Result, Retry};
use crate::object::{Attributes, ObjectReader, ObjectService};

/// Bytes at the end of an object that the opening request reads with its length: footer and index
/// of most archives.
const TAIL: u64 = 128 << 10;
/// Bytes at its beginning that are requested at the same time: the metadata of most images.
const HEAD: u64 = 64 << 10;
/// Ranges up to this length stay in memory after they were read: indexes and tar headers are read
/// up to three times.
const RECENT_RANGE: usize = 256 << 10;
/// Bytes of all of them together.
const RECENT: usize = 4 << 20;

/// An object of a bucket, in the version that was opened: every later read carries its ETag.
pub struct S3Reader {
    fetcher: Fetcher,
    name: String,
    len: u64,
    head: Bytes,
    tail: Bytes,
    /// Short ranges that were read last, each with its offset.
    recent: Mutex<VecDeque<(u64, Bytes)>>,
    /// Set when cached bytes failed a digest: later reads fetch them again.
    cache_is_doubted: AtomicBool,
    metadata: BTreeMap<String, String>,
    store: S3Store,
    /// Ranges that are being fetched, or are fetched and not read yet.
    ahead: Mutex<Fetches>,
}

/// Fetches by offset and length.
type Fetches = HashMap<(u64, u64), Fetch<Bytes>>;

/// Reads ranges of one object.
#[derive(Clone)]
struct Fetcher {
    store: S3Store,
    key: String,
    etag: Option<String>,
    /// Recycled buffers: fresh memory costs more page faults than the copy into it.
    spare: Arc<Mutex<Vec<BytesMut>>>,
}

impl S3Reader {
    /// Opens the object: two requests in parallel, which read its end and its beginning.
    pub(super) fn open(store: &S3Store, key: &str) -> Result<Self> {
        let connection = store.connection.clone();
        let fetcher = Fetcher {
            store: store.clone(),
            key: key.to_owned(),
            etag: None,
            spare: Arc::default(),
        };
        let opening = async { Ok(tokio::join!(fetcher.open(), fetcher.first_bytes())) };
        let (opened, first) = connection.wait(opening)?;
        let opened = opened.map_err(store.located(key))?;
        let first = first.map_err(store.located(key))?;
        // The bytes of another version, which replaced this one meanwhile, are not used.
        let is_same = |(etag, bytes): &(Option<String>, Bytes)| {
            *etag == opened.etag && bytes.len() as u64 == opened.len.min(HEAD)
        };
        let head = first.filter(is_same).map(|(_, bytes)| bytes).unwrap_or_default();
        Ok(Self {
            fetcher: Fetcher { etag: opened.etag, ..fetcher },
            name: store.url(key),
            len: opened.len,
            head,
            tail: opened.tail,
            recent: Mutex::default(),
            cache_is_doubted: AtomicBool::new(false),
            metadata: opened.metadata,
            store: store.clone(),
            ahead: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Fetches> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> &S3Connection {
        &self.store.connection
    }

    /// Bytes that were read before.
    fn cached(&self, offset: u64, len: u64) -> Option<Bytes> {
        if self.cache_is_doubted.load(Ordering::Relaxed) {
            return None;
        }
        let within = |(start, bytes): (u64, &Bytes)| {
            let at = usize::try_from(offset.checked_sub(start)?).ok()?;
            let end = at.checked_add(usize::try_from(len).ok()?)?;
            (end <= bytes.len()).then(|| bytes.slice(at..end))
        };
        let ends = [(0, &self.head), (self.len - self.tail.len() as u64, &self.tail)];
        ends.into_iter().find_map(within).or_else(|| {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.iter().map(|(start, bytes)| (*start, bytes)).find_map(within)
        })
    }

    /// Retains a short range.
    fn retain(&self, offset: u64, bytes: &[u8]) {
        if bytes.len() > RECENT_RANGE || self.cache_is_doubted.load(Ordering::Relaxed) {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back((offset, Bytes::copy_from_slice(bytes)));
        while recent.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > RECENT {
            recent.pop_front();
        }
    }
}

impl ObjectReader for S3Reader {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let len = buffer.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Error::new(ErrorKind::Io, "the object ends before the bytes asked for")
                .at("offset", offset));
        }
        if len == 0 {
            return Ok(());
        }
        if let Some(bytes) = self.cached(offset, len) {
            buffer.copy_from_slice(&bytes);
            return Ok(());
        }
        let task = self.lock().remove(&(offset, len));
        let read = async {
            match task {
                Some(task) => task.outcome().await,
                None => self.fetcher.fetch(offset, len).await,
            }
        };
        let bytes = self
            .connection()
            .wait(read)
            .map_err(|error| error.at("object", &self.name).at("offset", offset))?;
        buffer.copy_from_slice(&bytes);
        self.retain(offset, buffer);
        self.fetcher.give_back(bytes);
        Ok(())
    }

    fn version(&self) -> Option<String> {
        self.fetcher.etag.clone()
    }

    fn prefetch(&self, offset: u64, len: u64) {
        let outside = offset.checked_add(len).is_none_or(|end| end > self.len);
        if len == 0 || outside || self.cached(offset, len).is_some() {
            return;
        }
        let fetcher = self.fetcher.clone();
        self.lock().entry((offset, len)).or_insert_with(|| {
            Fetch::begin(
                self.connection().runtime(),
                async move { fetcher.fetch(offset, len).await },
            )
        });
    }

    fn cancel_prefetch(&self, offset: u64, len: u64) {
        let fetch = self.lock().remove(&(offset, len));
        if fetch.is_some() {
            Fetch::abort_all(self.connection().runtime(), fetch);
        }
    }

    fn drop_cache(&self) {
        self.cache_is_doubted.store(true, Ordering::Relaxed);
    }

    fn service(&self) -> Option<ObjectService> {
        let connection = self.connection();
        let region = connection.endpoint().is_aws().then(|| connection.region());
        Some(ObjectService { region })
    }

    fn attributes(&self) -> Attributes {
        Attributes { metadata: self.metadata.clone(), ..Attributes::default() }
    }
}

impl Drop for S3Reader {
    /// No fetch outlives its reader.
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut *self.lock());
        Fetch::abort_all(self.connection().runtime(), tasks.into_values());
    }
}

struct Opened {
    len: u64,
    etag: Option<String>,
    tail: Bytes,
    metadata: BTreeMap<String, String>,
}

impl Fetcher {
    /// A request for a range of the object.
    fn get(&self, client: &aws_sdk_s3::Client, range: String) -> GetObjectFluentBuilder {
        client
            .get_object()
            .bucket(&self.store.bucket)
            .key(&self.key)
            .range(range)
            .set_request_payer(self.store.options.payer())
            .set_expected_bucket_owner(self.store.options.owner())
    }

    async fn open(&self) -> Result<Opened> {
        let make = |client: aws_sdk_s3::Client, progress| {
            let request = self.get(&client, format!("bytes=-{TAIL}"));
            async move {
                let output = request
                    .send()
                    .await
                    .map_err(|error| classify("cannot open the object", error))?;
                let total = output
                    .content_range()
                    .and_then(|range| range.rsplit('/').next()?.parse::<u64>().ok());
                let answered = output.content_length().and_then(|len| u64::try_from(len).ok());
                // A store without suffix ranges answers with the whole object.
                let Some(len) = total.or(answered) else {
                    return Err(failed(no_length()));
                };
                let etag = output.e_tag().map(ToOwned::to_owned);
                let metadata = output
                    .metadata()
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                let expected = len.min(TAIL);
                let mut tail = BytesMut::with_capacity(expected as usize);
                if answered == Some(expected) {
                    self.receive(output.body, expected, &mut tail, &progress).await?;
                }
                Ok(Opened { len, etag, tail: tail.freeze(), metadata: decode_metadata(&metadata) })
            }
        };
        match self.store.connection.request(make).await {
            Err(error) => match error.code() {
                Some(ErrorCode::InvalidRange) => self.open_empty().await,
                Some(ErrorCode::ObjectFrozen) => Err(super::thaw::frozen(error)),
                Some(code @ ErrorCode::NoSuchObject) => {
                    Err(Error::new(ErrorKind::NotFound, "there is no such object").code_as(code))
                }
                Some(code @ ErrorCode::NoSuchBucket) => {
                    Err(Error::new(ErrorKind::NotFound, "there is no such bucket").code_as(code))
                }
                _ => Err(error),
            },
            result => result,
        }
    }

    /// The ETag and the first bytes of the object; `None` if it has no bytes, or the store knows no
    /// ranges.
    async fn first_bytes(&self) -> Result<Option<(Option<String>, Bytes)>> {
        let make = |client: aws_sdk_s3::Client, progress| {
            let request = self.get(&client, format!("bytes=0-{}", HEAD - 1));
            async move {
                let output = request
                    .send()
                    .await
                    .map_err(|error| classify("cannot open the object", error))?;
                let len = output.content_length().and_then(|len| u64::try_from(len).ok());
                // A store without ranges answers with the whole object.
                let Some(len) = len.filter(|len| *len <= HEAD) else { return Ok(None) };
                let etag = output.e_tag().map(ToOwned::to_owned);
                let mut head = BytesMut::with_capacity(len as usize);
                self.receive(output.body, len, &mut head, &progress).await?;
                Ok(Some((etag, head.freeze())))
            }
        };
        match self.store.connection.request(make).await {
            Err(error) if error.is(ErrorCode::InvalidRange) => Ok(None),
            first => first,
        }
    }

    /// An object without bytes has no last byte to ask for.
    async fn open_empty(&self) -> Result<Opened> {
        let head = self.store.head(&self.key).await?;
        Ok(Opened {
            len: head.len.ok_or_else(|| self.store.located(&self.key)(no_length()))?,
            etag: head.etag,
            tail: Bytes::new(),
            metadata: decode_metadata(&head.metadata),
        })
    }

    /// Recycles a buffer.
    fn give_back(&self, bytes: Bytes) {
        if let Ok(mut buffer) = bytes.try_into_mut() {
            buffer.clear();
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }

    /// Reads a range. Bytes that arrived before a connection broke are not requested again.
    async fn fetch(&self, offset: u64, len: u64) -> Result<Bytes> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let received = Mutex::new(spare.unwrap_or_default());
        let make = |client: aws_sdk_s3::Client, progress| {
            // Moved into the attempt, and put back with the bytes that arrived; if the attempt is
            // cancelled, the next one begins with an empty buffer.
            let mut buffer =
                std::mem::take(&mut *received.lock().unwrap_or_else(PoisonError::into_inner));
            let got = buffer.len() as u64;
            let range = format!("bytes={}-{}", offset + got, offset + len - 1);
            let request = self.get(&client, range).set_if_match(self.etag.clone());
            let received = &received;
            async move {
                let output = request
                    .send()
                    .await
                    .map_err(|error| self.explain(classify("cannot read the object", error)))?;
                if output.content_length().and_then(|len| u64::try_from(len).ok())
                    != Some(len - got)
                {
                    return Err(failed(Error::new(
                        ErrorKind::Io,
                        "the store answered with another range than was asked for",
                    )));
                }
                let outcome = self.receive(output.body, len, &mut buffer, &progress).await;
                *received.lock().unwrap_or_else(PoisonError::into_inner) = buffer;
                outcome
            }
        };
        self.store.connection.request(make).await?;
        Ok(received.into_inner().unwrap_or_else(PoisonError::into_inner).freeze())
    }

    /// Appends the body of an answer to `into`, which has to have `len` bytes then.
    async fn receive(
        &self,
        mut body: ByteStream,
        len: u64,
        into: &mut BytesMut,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let options = self.store.connection.options();
        let cut = || Error::new(ErrorKind::Io, "an answer was cut off").retry_as(Retry::Transient);
        loop {
            let chunk = match body.next().await {
                None if into.len() as u64 == len => return Ok(()),
                None => return Err(failed(cut())),
                Some(Err(cause)) => return Err(failed(cut().because(cause))),
                Some(Ok(chunk)) => chunk,
            };
            if (into.len() + chunk.len()) as u64 > len {
                return Err(failed(Error::new(
                    ErrorKind::Io,
                    "the store sent more than was asked for",
                )));
            }
            if into.capacity() < usize::try_from(len).unwrap_or(0) {
                into.reserve(usize::try_from(len).unwrap_or(0) - into.len());
            }
            into.extend_from_slice(&chunk);
            options.received(chunk.len(), progress).await;
        }
    }

    fn explain(&self, failure: Failure) -> Failure {
        if failure.error.is(ErrorCode::PreconditionFailed) {
            let error = Error::new(ErrorKind::Io, "the object was replaced while it was read")
                .code_as(ErrorCode::ObjectReplaced)
                .because(failure.error);
            return failed(error);
        }
        if failure.error.is(ErrorCode::ObjectFrozen) {
            return failed(super::thaw::frozen(failure.error));
        }
        failure
    }
}
