//! Text for people is harmless on every way out: names and values of archives, services and file
//! systems neither steer the terminal nor begin a line.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::json;

use crate::support::cli::{IMAGE, Outcome, ROOT, Sandbox, resealed, sample_archive, sample_json};

/// A name that clears the screen, turns the text around and forges a line of output.
const HOSTILE: &str = "a\u{1b}[2J\u{9b}31m\u{202e}\nFORGED";
/// A shorter name, for which a manifest has room.
const SHORT: &str = "\u{9b}\u{202e}\nFORGE";
/// A name without ESC, which XML cannot carry.
const HOSTILE_XML: &str = "a\u{9b}31m\u{202e}&#10;FORGED";

/// The name came out, and did nothing.
#[track_caller]
fn shows_harmlessly(outcome: &Outcome) {
    let mut shown = false;
    for text in [&outcome.text(), &outcome.stderr] {
        let steers = |char: char| {
            char != '\n' && (char.is_control() || ('\u{202a}'..='\u{202e}').contains(&char))
        };
        assert!(!text.contains(steers), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("FORGE")), "{text}");
        shown |= text.contains("\\u{202e}\\nFORGE");
    }
    assert!(shown, "{outcome:?}");
}

/// The sample archive with a library name in its manifest that was not written by us.
fn archive_of_a_hostile_library() -> Vec<u8> {
    resealed(sample_archive(), |manifest| manifest["codec"]["lib"] = json!(SHORT))
}

#[test]
fn inspect_shows_the_library_and_the_writer_of_an_archive_harmlessly() {
    let sandbox = Sandbox::new().and("a.bin", archive_of_a_hostile_library());
    shows_harmlessly(&sandbox.run(&["inspect", "a.bin"]).succeeded());
    let bytes = resealed(sample_archive(), |manifest| {
        (manifest["writer"], manifest["codec"]["lib"]) = (json!(SHORT), json!(""));
    });
    let sandbox = Sandbox::new().and("a.bin", bytes);
    shows_harmlessly(&sandbox.run(&["inspect", "a.bin"]).succeeded());
}

#[test]
fn inspect_in_json_is_exact() {
    let sandbox = Sandbox::new().and("a.bin", archive_of_a_hostile_library());
    let report = sandbox.run(&["inspect", "a.bin", "--output", "json"]).succeeded().json();
    assert!(report.to_string().contains(&json!(SHORT).to_string()), "{report}");
}

#[test]
fn an_attribute_of_an_image_is_shown_harmlessly() {
    let sandbox = Sandbox::new();
    sandbox.sample_image("image");
    let mut document = sample_json();
    document["Image"]["Description"] = json!(HOSTILE);
    sandbox.write("image/image.json", document.to_string());
    sandbox.run(&["store", "image", "a.bin"]).succeeded();
    shows_harmlessly(&sandbox.run(&["inspect", "a.bin"]).succeeded());
}

#[test]
fn facts_of_an_error_are_shown_harmlessly_and_in_json_exactly() {
    let sandbox = Sandbox::new();
    sandbox.sample_image("image");
    let mut document = sample_json();
    let args = ["store", "image", "a.bin"];
    document["Image"]["ImageId"] = json!(HOSTILE);
    sandbox.write("image/image.json", document.to_string());
    shows_harmlessly(&sandbox.run(&args).failed(2, &["is no image id"]));
    let error = sandbox.run(&[&args[..], &["--output", "json"]].concat()).json_error();
    assert_eq!(error["context"]["image_id"], HOSTILE);
}

#[test]
fn file_names_are_shown_harmlessly() {
    let archive = format!("{HOSTILE}.bin");
    let sandbox = Sandbox::with_image().and("other.bin", sample_archive());
    shows_harmlessly(&sandbox.run(&["inspect", &archive]).failed(3, &["path: a"]));
    let [dry, plain, verbose] = [&["--dry-run"][..], &[], &["--verbose"]];
    shows_harmlessly(&sandbox.run(&[&["store", "image", &archive], dry].concat()).succeeded());
    shows_harmlessly(&sandbox.run(&[&["store", "image", &archive], verbose].concat()).succeeded());
    for args in [
        &["ls", "."][..],
        &["verify", &archive],
        &["inspect", &archive],
        &["extract", &archive, "--image-json", "-o", &format!("{HOSTILE}.json")],
        &["extract", &archive, "--snapshot", ROOT, "-o", &format!("{HOSTILE}.raw")],
        &["restore", &archive, HOSTILE],
        &["copy", &archive, "copy.bin"],
        &["tasks"],
    ] {
        let args = [args, plain].concat();
        let outcome = sandbox.run(&args).succeeded();
        if args[0] != "verify" || outcome.text().contains("FORGED") {
            shows_harmlessly(&outcome);
        }
    }
    let listed = sandbox.run(&["ls", ".", "--output", "json"]).succeeded().json();
    let mut archives = listed["Archives"].as_array().expect("a list").iter();
    assert!(archives.any(|listed| listed["S3objectKey"] == archive), "{listed}");
}

#[test]
fn wrong_arguments_are_shown_harmlessly() {
    let sandbox = Sandbox::new();
    for args in [&["inspect", &format!("--{HOSTILE}")][..], &[HOSTILE], &["ls", ".", HOSTILE]] {
        shows_harmlessly(&sandbox.run(args).failed(2, &["Usage: amistore"]));
    }
    shows_harmlessly(&sandbox.run(&["store", "--threads", HOSTILE, "image", "a.bin"]));
}

#[test]
fn findings_of_a_verification_are_shown_harmlessly() {
    let bytes = resealed(sample_archive(), |manifest| manifest["codec"]["name"] = json!(SHORT));
    let sandbox = Sandbox::new().and("a.bin", bytes);
    shows_harmlessly(&sandbox.run(&["verify", "a.bin"]));
}

/// A store that answers all requests, with names that it was not given.
struct HostileStore(SocketAddr);

impl HostileStore {
    /// The server of the thread ends with the process of the test.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().take(64) {
                let Ok(mut stream) = stream else { return };
                let (mut request, mut piece) = (Vec::new(), [0; 4096]);
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(1..) => request.extend_from_slice(&piece),
                        _ => break,
                    }
                }
                let (status, body) = answer(&String::from_utf8_lossy(&request));
                let len = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n"
                );
                let body = if request.starts_with(b"HEAD") { "" } else { &body };
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self(address)
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let sandbox = Sandbox::with_image();
        let mut command: Command = sandbox.command(args);
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.0))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_CONFIG_FILE", sandbox.path("none"))
            .env("AWS_SHARED_CREDENTIALS_FILE", sandbox.path("none"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_MAX_ATTEMPTS", "1");
        sandbox.start(&mut command).wait()
    }
}

/// Status and body for a request: lists, and errors for anything else.
fn answer(request: &str) -> (&'static str, String) {
    let line = request.lines().next().unwrap_or_default();
    let name = HOSTILE_XML;
    if line.contains("list-type=2") {
        let object = format!(
            "<Contents><Key>{name}.bin</Key><Size>5</Size><StorageClass>{name}</StorageClass><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        );
        ("200 OK", format!("<ListBucketResult>{object}</ListBucketResult>"))
    } else if line.starts_with("GET") && line.contains("uploads") {
        let upload = format!(
            "<Upload><Key>{name}.bin</Key><UploadId>{name}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
        );
        ("200 OK", format!("<ListMultipartUploadsResult>{upload}</ListMultipartUploadsResult>"))
    } else if line.starts_with("HEAD /bucket HTTP") || line.starts_with("HEAD /bucket/ ") {
        ("200 OK", String::new())
    } else if line.starts_with("HEAD") {
        ("404 Not Found", String::new())
    } else {
        (
            "400 Bad Request",
            format!(
                "<Error><Code>{name}</Code><Message>{name}</Message><RequestId>{name}</RequestId></Error>"
            ),
        )
    }
}

#[test]
fn keys_and_storage_classes_of_a_bucket_are_listed_harmlessly() {
    let listed = HostileStore::start().run(&["ls", "s3://bucket/"]).succeeded();
    shows_harmlessly(&listed);
    assert!(listed.text().contains("  a\\u{9b}"), "the class is shown: {}", listed.text());
}

#[test]
fn ids_of_uploads_are_listed_harmlessly() {
    let found = HostileStore::start().run(&["clean", "s3://bucket/"]).succeeded();
    shows_harmlessly(&found);
    assert!(found.text().contains(", upload a\\u{9b}"), "the id is shown: {}", found.text());
}

#[test]
fn codes_and_messages_of_a_service_are_shown_harmlessly() {
    let args = ["store", "image", &format!("s3://bucket/{IMAGE}.bin")];
    let outcome = HostileStore::start().run(&args);
    shows_harmlessly(&outcome);
    assert!(outcome.stderr.contains("  code: a\\u{9b}"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("  caused by: a\\u{9b}"), "{}", outcome.stderr);
}
