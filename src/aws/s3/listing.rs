//! Lists the archives of a bucket.

use aws_sdk_s3::Client;

use super::super::error::classify;
use super::attributes::decode_metadata;
use super::bucket::{Head, S3Store, system_time};
use crate::base::{ErrorKind, Result, rfc3339};
use crate::object::Listed;

/// Lists the archives below a prefix, a page at a time, each with its metadata.
pub(super) fn list(
    store: &S3Store,
    prefix: &str,
    found: &mut dyn FnMut(Listed) -> Result<()>,
) -> Result<()> {
    let mut token: Option<String> = None;
    loop {
        let make = |client: Client, _| {
            let request = client
                .list_objects_v2()
                .bucket(&store.bucket)
                .prefix(prefix)
                .set_continuation_token(token.clone())
                .set_request_payer(store.options.payer())
                .set_expected_bucket_owner(store.options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot list the bucket", error))
            }
        };
        let page = store
            .connection
            .wait(store.connection.request(make))
            .map_err(|error| error.at("bucket", &store.bucket))?;
        let archives: Vec<_> = page
            .contents()
            .iter()
            .filter(|object| object.key().is_some_and(|key| key.ends_with(".bin")))
            .collect();
        // A page has at most 1,000 keys; the concurrency limit bounds the requests in flight.
        let heads = store.connection.wait(async {
            let mut tasks = tokio::task::JoinSet::new();
            for (index, object) in archives.iter().enumerate() {
                let (store, key) = (store.clone(), object.key().unwrap_or_default().to_owned());
                tasks.spawn(async move { (index, store.head(&key).await) });
            }
            let mut heads = vec![None; archives.len()];
            while let Some(done) = tasks.join_next().await {
                if let Ok((index, head)) = done {
                    heads[index] = known(head)?;
                }
            }
            Ok(heads)
        })?;
        for (object, head) in archives.into_iter().zip(heads) {
            let head = head.unwrap_or_default();
            found(Listed {
                key: object.key().unwrap_or_default().to_owned(),
                len: object.size().and_then(|len| u64::try_from(len).ok()).unwrap_or(0),
                modified: object
                    .last_modified()
                    .map(|time| rfc3339(system_time(time)))
                    .unwrap_or_default(),
                storage_class: object
                    .storage_class()
                    .map(|class| class.as_str().to_owned())
                    .or(head.storage_class),
                metadata: decode_metadata(&head.metadata),
            })?;
        }
        let next = page.next_continuation_token().map(ToOwned::to_owned);
        if page.is_truncated() != Some(true) || next.is_none() || next == token {
            return Ok(());
        }
        token = next;
    }
}

/// An object that was deleted since the listing, or may not be read, is listed without metadata.
fn known(head: Result<Head>) -> Result<Option<Head>> {
    match head {
        Ok(head) => Ok(Some(head)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}
