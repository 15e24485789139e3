//! Operations on buckets.

use base64_simd::STANDARD as BASE64;
use hyper::StatusCode;
use s3s::dto::*;
use s3s::{S3Result, s3_error};

use super::memory::{Memory, custom, etag};
use super::world::{Bucket, BucketOptions, StoredObject};

impl Memory {
    fn options(&self, bucket: &str) -> S3Result<BucketOptions> {
        Ok(self.0.world().bucket(bucket)?.options.clone())
    }

    pub(super) fn head_bucket(&self, bucket: &str) -> S3Result<HeadBucketOutput> {
        Ok(HeadBucketOutput {
            bucket_region: Some(self.options(bucket)?.region),
            ..Default::default()
        })
    }

    pub(super) fn create_bucket(&self, input: CreateBucketInput) -> S3Result<CreateBucketOutput> {
        let mut world = self.0.world();
        if world.buckets.contains_key(&input.bucket) {
            return Err(s3_error!(
                BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it."
            ));
        }
        let region = input
            .create_bucket_configuration
            .and_then(|configuration| configuration.location_constraint);
        let mut options = BucketOptions {
            object_lock: input.object_lock_enabled_for_bucket.unwrap_or_default(),
            ..BucketOptions::default()
        };
        region.into_iter().for_each(|region| options.region = region.as_str().to_owned());
        let location = Some(format!("/{}", input.bucket));
        world.buckets.insert(
            input.bucket,
            Bucket { options, objects: Default::default(), uploads: Default::default() },
        );
        Ok(CreateBucketOutput { location })
    }

    /// us-east-1 has no LocationConstraint.
    pub(super) fn get_bucket_location(&self, bucket: &str) -> S3Result<GetBucketLocationOutput> {
        let region = Some(self.options(bucket)?.region).filter(|region| region != "us-east-1");
        Ok(GetBucketLocationOutput {
            location_constraint: region.map(BucketLocationConstraint::from),
        })
    }

    pub(super) fn get_bucket_versioning(
        &self,
        bucket: &str,
    ) -> S3Result<GetBucketVersioningOutput> {
        let versioned = self.0.world().bucket(bucket)?.is_versioned();
        let status =
            versioned.then(|| BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED));
        Ok(GetBucketVersioningOutput { status, ..Default::default() })
    }

    pub(super) fn get_object_lock_configuration(
        &self,
        bucket: &str,
    ) -> S3Result<GetObjectLockConfigurationOutput> {
        if !self.options(bucket)?.object_lock {
            return Err(s3_error!(
                ObjectLockConfigurationNotFoundError,
                "Object Lock configuration does not exist for this bucket"
            ));
        }
        let enabled = Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED));
        let configuration = ObjectLockConfiguration { object_lock_enabled: enabled, rule: None };
        Ok(GetObjectLockConfigurationOutput { object_lock_configuration: Some(configuration) })
    }

    pub(super) fn get_bucket_policy_status(
        &self,
        bucket: &str,
    ) -> S3Result<GetBucketPolicyStatusOutput> {
        let public = self.options(bucket)?.policy_is_public;
        let public = public
            .ok_or_else(|| s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist"))?;
        Ok(GetBucketPolicyStatusOutput {
            policy_status: Some(PolicyStatus { is_public: Some(public) }),
        })
    }

    pub(super) fn get_public_access_block(
        &self,
        bucket: &str,
    ) -> S3Result<GetPublicAccessBlockOutput> {
        let Some(block) = self.options(bucket)?.public_access_block else {
            let message = "The public access block configuration was not found";
            return Err(custom(
                "NoSuchPublicAccessBlockConfiguration",
                StatusCode::NOT_FOUND,
                message,
            ));
        };
        let block = Some(block);
        let configuration = PublicAccessBlockConfiguration {
            block_public_acls: block,
            block_public_policy: block,
            ignore_public_acls: block,
            restrict_public_buckets: block,
        };
        Ok(GetPublicAccessBlockOutput { public_access_block_configuration: Some(configuration) })
    }

    pub(super) fn get_bucket_acl(&self, bucket: &str) -> S3Result<GetBucketAclOutput> {
        let options = self.options(bucket)?;
        let grantee = |kind, id, uri| Grantee {
            display_name: None,
            email_address: None,
            id,
            type_: Type::from_static(kind),
            uri,
        };
        let grant = |grantee, permission| Grant {
            grantee: Some(grantee),
            permission: Some(Permission::from_static(permission)),
        };
        // The canonical id of an account has this shape.
        let owner = format!("{:0>64}", options.owner);
        let mut grants = vec![grant(
            grantee(Type::CANONICAL_USER, Some(owner.clone()), None),
            Permission::FULL_CONTROL,
        )];
        if options.acl_is_public {
            let everybody = "http://acs.amazonaws.com/groups/global/AllUsers".to_owned();
            grants.push(grant(grantee(Type::GROUP, None, Some(everybody)), Permission::READ));
        }
        Ok(GetBucketAclOutput {
            grants: Some(grants),
            owner: Some(Owner { display_name: None, id: Some(owner) }),
        })
    }

    pub(super) fn list_objects_v2(
        &self,
        input: ListObjectsV2Input,
    ) -> S3Result<ListObjectsV2Output> {
        let mut world = self.0.world();
        let page = world.limits.page_size;
        let requested = input.max_keys.unwrap_or(1000);
        let limit = usize::try_from(requested)
            .map_err(|_| s3_error!(InvalidArgument, "max-keys is negative"))?
            .min(page);
        let bucket = world.bucket(&input.bucket)?;
        let token = match &input.continuation_token {
            Some(token) => Some(token_text(token)?),
            None => None,
        };
        let after = token.or(input.start_after.clone()).unwrap_or_default();
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.clone().filter(|delimiter| !delimiter.is_empty());
        let (mut contents, mut prefixes, mut last, mut more) =
            (Vec::new(), Vec::<String>::new(), String::new(), false);
        for key in bucket.objects.keys().filter(|key| key.starts_with(&prefix) && **key > after) {
            let Some(object) = bucket.current(key) else { continue };
            let end = delimiter.as_ref().and_then(|delimiter| {
                key[prefix.len()..].find(delimiter.as_str()).map(|at| at + delimiter.len())
            });
            let group = end.map(|end| key[..prefix.len() + end].to_owned());
            // A common prefix on this page or at the end of the page before is not listed again.
            if group.as_ref().is_some_and(|group| prefixes.last() == Some(group) || *group == after)
            {
                continue;
            }
            if contents.len() + prefixes.len() == limit {
                more = limit > 0;
                break;
            }
            last = group.clone().unwrap_or_else(|| key.clone());
            match group {
                Some(group) => prefixes.push(group),
                None => contents.push(listed(key, object)),
            }
        }
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            delimiter,
            start_after: input.start_after,
            max_keys: Some(requested),
            key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(more),
            next_continuation_token: more.then(|| BASE64.encode_to_string(&last)),
            contents: Some(contents),
            common_prefixes: Some(
                prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect(),
            ),
            ..Default::default()
        })
    }
}

/// The key in a continuation token, which is opaque to clients.
fn token_text(token: &str) -> S3Result<String> {
    let text = BASE64.decode_to_vec(token).ok().and_then(|text| String::from_utf8(text).ok());
    text.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

fn listed(key: &str, object: &StoredObject) -> Object {
    let checksum = object.checksum.as_ref();
    Object {
        key: Some(key.to_owned()),
        size: i64::try_from(object.bytes.len()).ok(),
        e_tag: etag(&object.etag),
        last_modified: Some(object.modified.into()),
        storage_class: Some(ObjectStorageClass::from(
            object.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
        )),
        checksum_algorithm: checksum
            .map(|checksum| vec![ChecksumAlgorithm::from_static(checksum.algorithm.name())]),
        checksum_type: checksum.map(|checksum| ChecksumType::from_static(checksum.kind.name())),
        ..Default::default()
    }
}
