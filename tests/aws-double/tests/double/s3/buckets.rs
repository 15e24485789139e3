//! Buckets, keys and owners.

use amistore_aws_double::s3::{BucketOptions, Limits, ObjectOptions, Quirks, TestS3};
use aws_sdk_s3::config::{Credentials, Region};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Type};

use super::client::{Client, Failure, body, failure, raw};

fn with_key(server: &TestS3, id: &str, secret: &str, token: Option<&str>) -> Client {
    let credentials = Credentials::new(id, secret, token.map(str::to_owned), None, "test");
    Client::with(server, |config| config.credentials_provider(credentials))
}

fn head(client: &Client, bucket: &str) -> Result<Option<String>, Failure> {
    let answer = client.run(client.sdk.head_bucket().bucket(bucket).send())?;
    Ok(answer.bucket_region().map(str::to_owned))
}

#[test]
fn a_bucket_has_a_region() {
    let s3 = TestS3::start();
    let client = Client::new(&s3);
    s3.create_bucket("here");
    s3.create_bucket_with(
        "there",
        BucketOptions { region: "eu-central-1".to_owned(), ..BucketOptions::default() },
    );
    assert_eq!(head(&client, "here"), Ok(Some("us-east-1".to_owned())));
    assert_eq!(head(&client, "nowhere"), Err(failure(404, "NotFound")));
    assert_eq!(head(&client, "there").map_err(|failure| failure.0), Err(301));
    let location =
        client.run(client.sdk.get_bucket_location().bucket("there").send()).expect("answers");
    assert_eq!(location.location_constraint(), Some(&BucketLocationConstraint::EuCentral1));
    let location =
        client.run(client.sdk.get_bucket_location().bucket("here").send()).expect("answers");
    assert!(location.location_constraint().is_none_or(|region| region.as_str().is_empty()));

    let list = || client.run(client.sdk.list_objects_v2().bucket("there").send()).map(drop);
    assert_eq!(list(), Err(failure(301, "PermanentRedirect")));
    s3.set_quirks(Quirks { one_region: true, ..Quirks::default() });
    assert_eq!(list(), Err(failure(400, "AuthorizationHeaderMalformed")));
    let near = Client::with(&s3, |config| config.region(Region::new("eu-central-1")));
    assert_eq!(head(&near, "there"), Ok(Some("eu-central-1".to_owned())));

    let denied = client.sdk.head_bucket().bucket("here");
    s3.deny("HeadBucket");
    let error = client.wait(denied.send()).expect_err("denied");
    let answer = error.raw_response().expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.headers().get("x-amz-bucket-region")),
        (403, Some("us-east-1"))
    );
    assert!(answer.headers().get("x-amz-request-id").is_some_and(|id| !id.is_empty()));
    s3.allow("HeadBucket");
    assert!(head(&client, "here").is_ok());
}

#[test]
fn create_bucket_makes_buckets() {
    let s3 = TestS3::start();
    let client = Client::new(&s3);
    let configuration = CreateBucketConfiguration::builder()
        .location_constraint(BucketLocationConstraint::EuWest1)
        .build();
    let create = || {
        client
            .run(
                client
                    .sdk
                    .create_bucket()
                    .bucket("made")
                    .create_bucket_configuration(configuration.clone())
                    .send(),
            )
            .map(drop)
    };
    assert_eq!(create(), Ok(()));
    assert_eq!(create(), Err(failure(409, "BucketAlreadyOwnedByYou")));
    let near = Client::with(&s3, |config| config.region(Region::new("eu-west-1")));
    assert_eq!(head(&near, "made"), Ok(Some("eu-west-1".to_owned())));
}

#[test]
fn a_bucket_has_versioning_object_lock_and_encryption() {
    let s3 = TestS3::start();
    let client = Client::new(&s3);
    s3.create_bucket("plain");
    s3.create_bucket_with(
        "versioned",
        BucketOptions { versioning: true, ..BucketOptions::default() },
    );
    s3.create_bucket_with(
        "locked",
        BucketOptions { object_lock: true, ..BucketOptions::default() },
    );
    let versioning = |bucket| {
        let answer =
            client.run(client.sdk.get_bucket_versioning().bucket(bucket).send()).expect("answers");
        answer.status().map(|status| status.as_str().to_owned())
    };
    assert_eq!(versioning("plain"), None);
    assert_eq!(versioning("versioned").as_deref(), Some("Enabled"));
    assert_eq!(versioning("locked").as_deref(), Some("Enabled"));
    let lock = |bucket| {
        client.run(client.sdk.get_object_lock_configuration().bucket(bucket).send()).map(drop)
    };
    assert_eq!(lock("plain"), Err(failure(404, "ObjectLockConfigurationNotFoundError")));
    assert_eq!(lock("locked"), Ok(()));
}

#[test]
fn a_bucket_has_a_public_access_status() {
    let s3 = TestS3::start();
    let client = Client::new(&s3);
    s3.create_bucket("plain");
    let public = BucketOptions {
        policy_is_public: Some(true),
        acl_is_public: true,
        public_access_block: Some(false),
        ..BucketOptions::default()
    };
    s3.create_bucket_with("public", public);
    let policy = |bucket| {
        let answer = client.run(client.sdk.get_bucket_policy_status().bucket(bucket).send())?;
        Ok(answer.policy_status().and_then(|status| status.is_public()))
    };
    assert_eq!(policy("plain"), Err(failure(404, "NoSuchBucketPolicy")));
    assert_eq!(policy("public"), Ok(Some(true)));
    let block = |bucket| {
        let answer = client.run(client.sdk.get_public_access_block().bucket(bucket).send())?;
        Ok(answer.public_access_block_configuration().and_then(|block| block.ignore_public_acls()))
    };
    assert_eq!(block("plain"), Err(failure(404, "NoSuchPublicAccessBlockConfiguration")));
    assert_eq!(block("public"), Ok(Some(false)));
    let grants = |bucket| {
        let answer =
            client.run(client.sdk.get_bucket_acl().bucket(bucket).send()).expect("answers");
        answer
            .grants()
            .iter()
            .filter_map(|grant| grant.grantee())
            .map(|grantee| grantee.r#type().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(grants("plain"), [Type::CanonicalUser]);
    assert_eq!(grants("public"), [Type::CanonicalUser, Type::Group]);
    s3.deny("GetBucketPolicyStatus");
    assert_eq!(policy("public"), Err(failure(403, "AccessDenied")));
}

#[test]
fn signatures_are_checked() {
    let s3 = TestS3::start();
    s3.create_bucket("images");
    s3.put_object("images", "a", "hello", ObjectOptions::default());
    assert!(
        raw(&s3, "GET", "/images/a", &[]).is_ok_and(|answer| answer.starts_with("HTTP/1.1 403 "))
    );
    let get = |client: Client| client.get("images", "a");
    assert_eq!(get(Client::new(&s3)), Ok(Some(b"hello".to_vec())));
    assert_eq!(
        get(with_key(&s3, TestS3::ACCESS_KEY, "wrong", None)),
        Err(failure(403, "SignatureDoesNotMatch"))
    );
    assert_eq!(
        get(with_key(&s3, "AKIAUNKNOWN", "wrong", None)),
        Err(failure(403, "InvalidAccessKeyId"))
    );

    s3.add_key("ASIATEMPORARY", "temporary", Some("token"));
    let temporary = |token| get(with_key(&s3, "ASIATEMPORARY", "temporary", token));
    assert!(temporary(Some("token")).is_ok());
    assert_eq!(temporary(Some("other")), Err(failure(400, "InvalidToken")));
    assert_eq!(temporary(None), Err(failure(400, "InvalidToken")));
    s3.expire_key("ASIATEMPORARY");
    assert_eq!(temporary(Some("token")), Err(failure(400, "ExpiredToken")));
    assert_eq!(
        s3.calls().last().and_then(|call| call.access_key.clone()).as_deref(),
        Some("ASIATEMPORARY")
    );
}

#[test]
fn the_expected_bucket_owner_is_enforced() {
    let s3 = TestS3::start();
    s3.create_bucket_with(
        "theirs",
        BucketOptions { owner: "999999999999".to_owned(), ..BucketOptions::default() },
    );
    let client = Client::new(&s3);
    let put = |owner| {
        client
            .run(
                client
                    .sdk
                    .put_object()
                    .bucket("theirs")
                    .key("a")
                    .expected_bucket_owner(owner)
                    .body(body(b""))
                    .send(),
            )
            .map(drop)
    };
    assert_eq!(put("123456789012"), Err(failure(403, "AccessDenied")));
    assert_eq!(put("999999999999"), Ok(()));
}

#[test]
fn list_objects_v2_has_pages() {
    let s3 = TestS3::start();
    s3.create_bucket("images");
    s3.set_limits(Limits { page_size: 2, ..s3.limits() });
    for key in ["a/1", "a/2", "b", "c/1", "c/2", "c/3", "d"] {
        s3.put_object("images", key, key, ObjectOptions::default());
    }
    let client = Client::new(&s3);
    let list = |prefix: &str, delimiter: Option<&str>| {
        let (mut found, mut token, mut pages) = (Vec::new(), None, 0);
        loop {
            let request = client
                .sdk
                .list_objects_v2()
                .bucket("images")
                .prefix(prefix)
                .set_delimiter(delimiter.map(str::to_owned));
            let page = client.run(request.set_continuation_token(token).send()).expect("lists");
            let names = page.contents().iter().filter_map(|object| object.key()).map(str::to_owned);
            let groups =
                page.common_prefixes().iter().filter_map(|group| group.prefix()).map(str::to_owned);
            assert!(page.key_count().is_some_and(|count| count <= 2));
            found.extend(names.chain(groups));
            pages += 1;
            if page.is_truncated() != Some(true) {
                found.sort();
                return (found.join(" "), pages);
            }
            token = page.next_continuation_token().map(str::to_owned);
        }
    };
    assert_eq!(list("", None), ("a/1 a/2 b c/1 c/2 c/3 d".to_owned(), 4));
    assert_eq!(list("c/", None), ("c/1 c/2 c/3".to_owned(), 2));
    assert_eq!(list("", Some("/")), ("a/ b c/ d".to_owned(), 2));
    let one = client
        .run(client.sdk.list_objects_v2().bucket("images").max_keys(1).start_after("b").send())
        .expect("lists");
    assert_eq!(
        one.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(),
        ["c/1"]
    );
    assert_eq!(s3.keys("images").len(), 7);
}
