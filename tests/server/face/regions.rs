//! The Region and the profile of each request.

use std::sync::{Arc, Mutex};

use amistore::internals::server::{AccessKeys, HttpSettings, ServedSite};

use super::super::caller::{Bench, FORM, Signer, refused};
use super::super::memory::{Heard, Memory, RESERVED, lock};
use super::forward::Fake;

const TASKS: &str = "Action=DescribeStoreImageTasks&Version=2016-11-15";
const RESTORE: &str =
    "Action=CreateRestoreImageTask&Version=2016-11-15&Bucket=my-bucket&ObjectKey=a.bin&Name=web";

/// A site with a service in memory.
fn site(profile: Option<&str>, region: &str, is_default: bool) -> (ServedSite, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let site = ServedSite {
        profile: profile.map(ToOwned::to_owned),
        region: region.to_owned(),
        is_default,
        service: memory.clone(),
        upstream: None,
    };
    (site, memory)
}

fn heard(memory: &Memory) -> usize {
    lock(&memory.heard).len()
}

/// One key of the server itself, one with a profile and a Region, one with a Region alone.
fn keys() -> AccessKeys {
    AccessKeys::parse(
        "[a]\naws_access_key_id = OWN\naws_secret_access_key = one\n\
         [b]\naws_access_key_id = GOV\naws_secret_access_key = two\nprofile = gov\n\
         region = us-gov-west-1\n\
         [c]\naws_access_key_id = ONLY\naws_secret_access_key = three\nregion = ap-south-1\n",
    )
    .expect("keys")
}

fn own() -> Signer {
    Signer { key: "OWN", secret: "one", ..Signer::default() }
}

#[test]
fn a_request_is_answered_by_the_site_of_its_region_and_of_the_profile_of_its_key() {
    let (europe, in_europe) = site(None, "eu-west-1", true);
    let (asia, in_asia) = site(None, "ap-south-1", false);
    let (gov, in_gov) = site(Some("gov"), "us-gov-west-1", false);
    let others = vec![europe, asia, gov];
    let bench = Bench::with(HttpSettings { keys: Some(keys()), others, ..HttpSettings::default() });
    let all = || [&*bench.memory, &in_europe, &in_asia, &in_gov].map(heard);
    let gov = Signer { key: "GOV", secret: "two", region: "us-gov-west-1", ..own() };
    let only = Signer { key: "ONLY", secret: "three", region: "ap-south-1", ..own() };
    for (signer, expected) in [
        (own(), [1, 0, 0, 0]),
        (Signer { region: "eu-west-1", ..own() }, [1, 1, 0, 0]),
        (only.clone(), [1, 1, 1, 0]),
        (gov.clone(), [1, 1, 1, 1]),
    ] {
        assert_eq!(signer.call(&bench, TASKS).status, 200, "{}", signer.region);
        assert_eq!(all(), expected);
    }
    // Each key has its own Regions, and nothing is begun in others.
    for signer in [
        Signer { region: "us-west-2", ..own() },
        Signer { region: "", ..own() },
        Signer { region: "us-gov-west-1", ..own() },
        Signer { region: "ap-south-1", ..own() },
        Signer { region: "us-east-1", ..gov },
        Signer { region: "us-east-1", ..only },
    ] {
        let reply = signer.call(&bench, RESTORE);
        assert_eq!(
            reply.refusal(),
            refused(401, "AuthFailure"),
            "{} {}",
            signer.key,
            signer.region
        );
    }
    assert_eq!(all(), [1, 1, 1, 1]);
    let reply = Signer { region: "us-west-2", ..own() }.call(&bench, RESTORE);
    assert!(reply.body.contains("'us-west-2'") && reply.body.contains("eu-west-1"), "{reply:?}");
    // A wrong secret does not learn which Regions a key has.
    let wrong = Signer { secret: "wrong", region: "us-gov-west-1", ..own() };
    assert!(!wrong.call(&bench, RESTORE).body.contains("scoped"));
}

#[test]
fn without_keys_the_region_of_the_signature_counts() {
    let (europe, in_europe) = site(None, "eu-west-1", true);
    let bench = Bench::with(HttpSettings { others: vec![europe], ..HttpSettings::default() });
    let all = || [&*bench.memory, &in_europe].map(heard);
    assert_eq!(bench.call(TASKS).status, 200, "without a signature");
    assert_eq!(all(), [1, 0]);
    assert_eq!(own().call(&bench, TASKS).status, 200);
    assert_eq!(Signer { region: "eu-west-1", ..own() }.call(&bench, TASKS).status, 200);
    assert_eq!(all(), [2, 1]);
    let reply = Signer { region: "ap-south-1", ..own() }.call(&bench, RESTORE);
    assert_eq!(reply.refusal(), refused(401, "AuthFailure"));
    assert!(reply.body.contains("nothing was begun"), "{reply:?}");
    for (authorization, expected) in [
        ("AWS4-HMAC-SHA256 Credential=KEY/20260101/us-east-1", refused(400, "IncompleteSignature")),
        ("AWS4-ECDSA-P256-SHA256 Credential=KEY/1/ec2/x", refused(400, "IncompleteSignature")),
    ] {
        let reply =
            bench.post(&[("content-type", FORM), ("authorization", authorization)], RESTORE);
        assert_eq!(reply.refusal(), expected, "{authorization}");
    }
    assert_eq!(all(), [2, 1]);
    // Other schemes say nothing about a Region.
    let basic = [("content-type", FORM), ("authorization", "Basic YTpi")];
    assert_eq!(bench.post(&basic, TASKS).status, 200);
}

#[test]
fn other_actions_go_to_ec2_of_the_region_and_reserved_ids_are_those_of_the_region() {
    let of = |name: &str| {
        Arc::new(Fake { status: 200, body: format!("<{name}/>"), forms: Mutex::default() })
    };
    let (here, there) = (of("here"), of("there"));
    let (mut europe, in_europe) = site(None, "eu-west-1", true);
    europe.upstream = Some(there.clone());
    let settings = HttpSettings {
        upstream: Some(here.clone()),
        others: vec![europe],
        ..HttpSettings::default()
    };
    let bench = Bench::with(settings);
    let at = |region| Signer { region, ..own() };
    let regions = "Action=DescribeRegions&Version=2016-11-15";
    assert!(at("us-east-1").call(&bench, regions).body.contains("here"));
    assert!(at("eu-west-1").call(&bench, regions).body.contains("there"));
    let progress = amistore::internals::server::RestoreProgress::Pending;
    in_europe.add(super::super::memory::restored(RESERVED, None, progress));
    let by_id = format!("Action=DescribeImages&Version=2016-11-15&ImageId.1={RESERVED}");
    assert!(at("eu-west-1").call(&bench, &by_id).body.contains("pending"));
    // Another Region does not know the id, and asks its EC2.
    assert!(at("us-east-1").call(&bench, &by_id).body.contains("here"));
    assert!(!lock(&bench.memory.heard).iter().any(|heard| matches!(heard, Heard::Restore(..))));
    assert_eq!((lock(&here.forms).len(), lock(&there.forms).len()), (2, 1));
}
