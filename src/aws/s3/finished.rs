//! Checks of an object after its upload or copy, and the removal of one that differs.

use super::super::error::classify;
use super::absence::is_refusal;
use super::bucket::{Head, S3Store};
use super::upload::Written;
use crate::base::{Error, ErrorCode, Result};

impl S3Store {
    /// Length, ETag and checksums of an object that was just made: by HeadObject, or, where that is
    /// refused or has no length, by GetObject or ListObjectsV2. `None` if none of them tells.
    pub(super) async fn look_at_finished(&self, key: &str) -> Result<Option<Head>> {
        match self.head(key).await {
            Ok(head) if head.len.is_some() => return Ok(Some(head)),
            Err(error) if !is_refusal(&error) => return Err(error),
            _ => {}
        }
        match self.first_byte(key).await {
            Ok(head) if head.len.is_some() => return Ok(Some(head)),
            Err(error) if !is_refusal(&error) && !error.is(ErrorCode::InvalidRange) => {
                return Err(error);
            }
            _ => {}
        }
        match self.listed(key).await {
            Err(error) if is_refusal(&error) => Ok(None),
            head => Ok(head?.filter(|head| head.len.is_some())),
        }
    }

    /// Length and ETag from the answer to a request for the first byte.
    async fn first_byte(&self, key: &str) -> Result<Head> {
        let make = |client: aws_sdk_s3::Client, _| {
            let request = client
                .get_object()
                .bucket(&self.bucket)
                .key(key)
                .range("bytes=0-0")
                .set_request_payer(self.options.payer())
                .set_expected_bucket_owner(self.options.owner());
            async move {
                let sent = request.send().await;
                sent.map_err(|error| classify("cannot read the finished object", error))
            }
        };
        let output = self.connection.request(make).await.map_err(self.located(key))?;
        let len = output.content_range().and_then(|range| range.rsplit('/').next()?.parse().ok());
        let etag = output.e_tag().map(ToOwned::to_owned);
        Ok(Head { len, etag, has_opaque_etag: true, ..Head::default() })
    }

    /// Length and ETag from a listing; `None` if the object is not listed.
    async fn listed(&self, key: &str) -> Result<Option<Head>> {
        let make = |client: aws_sdk_s3::Client, _| {
            let request = client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(key)
                .max_keys(1)
                .set_request_payer(self.options.payer())
                .set_expected_bucket_owner(self.options.owner());
            async move {
                request.send().await.map_err(|error| classify("cannot list the bucket", error))
            }
        };
        let page = self.connection.request(make).await.map_err(self.located(key))?;
        // The key itself precedes all longer keys that begin with it.
        let found = page.contents().first().filter(|object| object.key() == Some(key));
        Ok(found.map(|object| Head {
            len: object.size().and_then(|len| u64::try_from(len).ok()),
            etag: object.e_tag().map(ToOwned::to_owned),
            has_opaque_etag: true,
            ..Head::default()
        }))
    }

    /// Removes a finished object that differs from the bytes that were sent, and adds the outcome
    /// to `error`: by its version, or by a delete that is bound to its ETag. A delete by key alone
    /// could remove a newer object, so without the two the object stays.
    pub(super) async fn remove_finished(
        &self,
        key: &str,
        written: Option<&Written>,
        error: Error,
    ) -> Error {
        let store = Self { connection: self.connection.for_cleaning_up(), ..self.clone() };
        let removed = match written {
            Some(Written { version_id: Some(id), .. }) if id != "null" => {
                store.delete(key, Some(id), None).await
            }
            Some(Written { etag: Some(etag), .. }) => {
                match store.honours_conditional_delete(key).await {
                    Ok(true) => store.delete(key, None, Some(etag)).await,
                    Ok(false) => {
                        Err(Error::unsupported("the store does not honour If-Match of a delete"))
                    }
                    Err(error) => Err(error),
                }
            }
            _ => Err(Error::unsupported("neither its version nor its ETag is known")),
        };
        match removed {
            Ok(()) => error.at("removed", "the finished object"),
            Err(cause) => {
                let causes = std::iter::once(cause.to_string()).chain(cause.causes());
                let reason = causes.collect::<Vec<_>>().join(": ");
                error.at("kept", format!("the object stays, and has to be deleted: {reason}"))
            }
        }
    }
}
