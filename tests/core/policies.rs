//! The IAM policies in `docs/iam/` against their tables in `docs/iam.md` and against the requests
//! in the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

type Actions = BTreeSet<String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The actions of every policy file, by file name without suffix. Each file is checked for the
/// members that IAM requires.
fn policies() -> BTreeMap<String, Actions> {
    let mut policies = BTreeMap::new();
    for entry in fs::read_dir(root().join("docs/iam")).expect("docs/iam") {
        let path = entry.expect("entry").path();
        let policy: Value = serde_json::from_str(&read(&path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(policy["Version"], "2012-10-17", "{}", path.display());
        let statements = policy["Statement"].as_array().expect("Statement is an array");
        assert!(!statements.is_empty(), "{}", path.display());
        let mut actions = Actions::new();
        for statement in statements {
            assert_eq!(statement["Effect"], "Allow", "{}", path.display());
            let sid = statement["Sid"].as_str().expect("Sid");
            assert!(sid.chars().all(|sign| sign.is_ascii_alphanumeric()), "Sid {sid}");
            let resource = statement["Resource"].as_str().expect("Resource");
            for action in statement["Action"].as_array().expect("Action is an array") {
                let action = action.as_str().expect("an action is a string");
                let service = action.split(':').next().expect("a service");
                let fits = match service {
                    "s3" => resource.starts_with("arn:aws:s3:::BUCKET"),
                    "kms" => resource.starts_with("arn:aws:kms:"),
                    "ebs" => resource == "arn:aws:ec2:*::snapshot/*",
                    "ec2" => resource == "*" || resource == "arn:aws:ec2:*::snapshot/*",
                    _ => false,
                };
                assert!(fits, "{}: {action} on {resource}", path.display());
                assert!(actions.insert(action.to_owned()), "{}: {action} twice", path.display());
            }
        }
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        policies.insert(name, actions);
    }
    policies
}

/// The spans in backticks that name an action of a service, such as `s3:GetObject`.
fn actions_of(text: &str) -> Actions {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|span| {
            let (service, action) = span.split_once(':').unwrap_or_default();
            matches!(service, "ec2" | "ebs" | "s3" | "kms" | "sts")
                && action.starts_with(|sign: char| sign.is_ascii_uppercase())
        })
        .map(ToOwned::to_owned)
        .collect()
}

/// The policies that a text links to.
fn policies_of(text: &str) -> Vec<String> {
    text.split("](iam/")
        .skip(1)
        .filter_map(|rest| rest.split_once(".json)"))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The rows of the tables of a document below a heading, as cells.
fn rows<'a>(document: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = document.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap_or(section);
    section
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .skip(1)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// Permissions by request, for requests whose permission has another name. Empty: none is needed.
fn renamed(document: &str) -> BTreeMap<String, Actions> {
    let mut renamed = BTreeMap::new();
    for row in rows(document, "Requests whose permission has another name") {
        for request in actions_of(row[0]) {
            renamed.insert(request, actions_of(row[1]));
        }
    }
    renamed
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|suffix| suffix == "rs")
            && !path.ends_with("tests.rs")
        {
            found.push(path);
        }
    }
}

/// The operations of the SDK that a source calls: `client.list_parts()` is `ListParts`.
fn sdk_operations(source: &str) -> BTreeSet<String> {
    let dense: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.chars().filter(|sign| !sign.is_whitespace()))
        .collect();
    dense
        .split("client.")
        .skip(1)
        .filter_map(|rest| rest.split_once("()"))
        .map(|(name, _)| name)
        .filter(|name| name.contains('_'))
        .filter(|name| {
            name.chars().all(|sign| sign.is_ascii_lowercase() || "_0123456789".contains(sign))
        })
        .map(|name| name.split('_').map(capitalised).collect())
        .collect()
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1.min(word.len()));
    first.to_ascii_uppercase() + rest
}

/// Verbs with which the names of EC2's actions begin.
const VERBS: [&str; 24] = [
    "Allocate",
    "Associate",
    "Attach",
    "Authorize",
    "Cancel",
    "Copy",
    "Create",
    "Delete",
    "Deregister",
    "Describe",
    "Detach",
    "Disable",
    "Enable",
    "Export",
    "Get",
    "Import",
    "List",
    "Lock",
    "Modify",
    "Register",
    "Reset",
    "Restore",
    "Run",
    "Start",
];

/// Members and values of requests and answers whose names begin like those of actions.
const MEMBERS: [&str; 4] =
    ["CreateVolumePermissions", "DeleteOnTermination", "RestoreExpiryTime", "RunInstances"];

/// The actions of EC2's Query protocol that a source names in string literals.
fn query_actions(source: &str) -> BTreeSet<String> {
    source
        .split('"')
        .filter(|literal| literal.len() < 60)
        .filter(|literal| literal.chars().all(|sign| sign.is_ascii_alphanumeric()))
        .filter(|literal| {
            VERBS.iter().any(|verb| {
                literal
                    .strip_prefix(verb)
                    .is_some_and(|rest| rest.starts_with(|sign: char| sign.is_ascii_uppercase()))
            })
        })
        .filter(|literal| !MEMBERS.contains(literal))
        .map(ToOwned::to_owned)
        .collect()
}

/// Every request that the crate sends: `s3:ListParts`, with the file that sends it.
fn requests() -> BTreeMap<String, PathBuf> {
    let mut files = Vec::new();
    sources(&root().join("src/aws"), &mut files);
    let mut requests = BTreeMap::new();
    for path in files {
        let source = read(&path);
        let file = path.strip_prefix(root()).expect("below the root").to_owned();
        let operations = sdk_operations(&source);
        assert!(
            !operations.is_empty() || !source.contains(".send()\n"),
            "{}: sends a request, and the operation is not recognised",
            file.display()
        );
        let service = if file.starts_with("src/aws/ebs") {
            "ebs"
        } else if file.starts_with("src/aws/s3") {
            "s3"
        } else {
            "sts"
        };
        for operation in operations {
            requests.insert(format!("{service}:{operation}"), file.clone());
        }
        if file.starts_with("src/aws/ec2") {
            for action in query_actions(&source) {
                requests.insert(format!("ec2:{action}"), file.clone());
            }
        }
    }
    requests
}

#[test]
fn each_policy_allows_exactly_the_actions_of_its_row() {
    let document = read(&root().join("docs/iam.md"));
    let mut policies = policies();
    for heading in ["S3", "EC2 and EBS", "The endpoint"] {
        for row in rows(&document, heading) {
            let names = policies_of(row[0]);
            let [name] = &names[..] else { panic!("one link in {row:?}") };
            let documented = actions_of(&row[1..].join(" "));
            assert_eq!(policies.remove(name), Some(documented), "docs/iam/{name}.json");
        }
    }
    assert!(policies.is_empty(), "policies without a row in docs/iam.md: {:?}", policies.keys());
}

#[test]
fn each_command_has_policies_that_exist() {
    let document = read(&root().join("docs/iam.md"));
    let policies = policies();
    let mut linked = BTreeSet::new();
    for name in policies_of(&document) {
        assert!(policies.contains_key(&name), "docs/iam/{name}.json is linked and does not exist");
        linked.insert(name);
    }
    assert_eq!(linked, policies.keys().cloned().collect());
    let commands = rows(&document, "Which policy for which command");
    let text = commands.iter().map(|row| row[0]).collect::<Vec<_>>().join(" ");
    for verb in [
        "store", "restore", "verify", "extract", "inspect", "copy", "ls", "clean", "retire",
        "serve",
    ] {
        assert!(text.contains(verb), "no policy for the command {verb}");
    }
    for row in commands {
        assert!(row[1..].iter().any(|cell| !policies_of(cell).is_empty()), "{row:?}");
    }
}

#[test]
fn every_request_that_is_sent_is_allowed_by_a_policy() {
    let document = read(&root().join("docs/iam.md"));
    let allowed: Actions = policies().into_values().flatten().collect();
    let renamed = renamed(&document);
    let requests = requests();
    for known in ["ebs:GetSnapshotBlock", "ec2:RegisterImage", "s3:UploadPart"] {
        assert!(requests.contains_key(known), "{known} is not found in the source any more");
    }
    let mut used = Actions::new();
    for (request, file) in &requests {
        let own = Actions::from([request.clone()]);
        let needed = renamed.get(request).unwrap_or(&own);
        for action in needed {
            assert!(
                allowed.contains(action),
                "{} sends {request}, and no policy in docs/iam allows {action}",
                file.display()
            );
            used.insert(action.clone());
        }
    }
    for request in renamed.keys() {
        assert!(requests.contains_key(request), "docs/iam.md names {request}, which is not sent");
    }
    // AWS's own tasks use more than amistore asks for.
    let of_aws = &policies()["ec2-via-aws"];
    let idle: Vec<_> = allowed
        .iter()
        .filter(|action| !used.contains(*action) && !of_aws.contains(*action))
        .filter(|action| !action.starts_with("kms:"))
        .collect();
    assert!(idle.is_empty(), "policies allow actions that amistore never uses: {idle:?}");
}
