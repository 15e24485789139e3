//! An archive with the disks of an image and other metadata: kept, refused or updated.

use serde_json::{Value, json};

use crate::support::cli::{BLOCK, ROOT, Sandbox, sample_json, text};

/// The sample image with this description, and its archive `a.bin` of the image without one.
fn sandbox(description: &str) -> Sandbox {
    let sandbox = Sandbox::with_image();
    sandbox.run(&["store", "image", "a.bin", "--level", "3"]).succeeded();
    describe(&sandbox, description);
    sandbox
}

fn describe(sandbox: &Sandbox, description: &str) {
    let mut document = sample_json();
    document["Image"]["Description"] = json!(description);
    sandbox.write("image/image.json", document.to_string());
}

fn store(policy: &str) -> Vec<String> {
    let policy = format!("--on-metadata-change={policy}");
    ["store", "image", "a.bin", "--level", "3", &policy].map(ToOwned::to_owned).to_vec()
}

fn run_json(sandbox: &Sandbox, args: &[String], more: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    sandbox.run(&[&args[..], &["--output", "json"]].concat()).succeeded().json()
}

#[test]
fn a_file_gets_other_metadata_and_is_what_a_store_makes() {
    for description in ["short", &"long ".repeat(20_000)] {
        let sandbox = sandbox(description);
        let before = sandbox.read("a.bin");
        let plan = run_json(&sandbox, &store("update"), &["--dry-run"]);
        assert_eq!(plan["Outcome"], json!("metadata_updated"));
        assert_eq!(plan["MetadataChanged"], json!(["Image.Description"]));
        assert!(sandbox.read("a.bin") == before, "a dry run writes nothing");
        let report = run_json(&sandbox, &store("update"), &[]);
        assert_eq!(report["Outcome"], json!("metadata_updated"));
        assert_eq!(report["MetadataChanged"], json!(["Image.Description"]));
        assert_eq!(report["SentAsAWhole"], Value::Null);
        sandbox.run(&["store", "image", "b.bin", "--level", "3"]).succeeded();
        assert!(sandbox.read("a.bin") == sandbox.read("b.bin"), "byte for byte");
        sandbox.run(&["verify", "a.bin", "--against", "image"]).succeeded();
        assert_eq!(run_json(&sandbox, &store("update"), &[])["Outcome"], json!("present"));
        assert_eq!(sandbox.left(&["image", "a.bin", "b.bin"]), [""; 0]);
    }
}

#[test]
fn the_option_or_its_variable_keeps_or_refuses_metadata() {
    let sandbox = sandbox("new");
    let before = sandbox.read("a.bin");
    let report = run_json(&sandbox, &store("keep"), &[]);
    assert_eq!(report["Outcome"], json!("metadata_changed"));
    assert_eq!(report["MetadataChanged"], json!(["Image.Description"]));
    sandbox.run(&["store", "image", "a.bin", "--on-metadata-change", "keep"]).succeeded().says(&[
        "warning",
        "Image.Description",
        "--on-metadata-change=update",
    ]);
    let refused = sandbox.run(&["store", "image", "a.bin", "--on-metadata-change", "fail"]);
    refused.failed(9, &["the file exists", "Image.Description", "--on-metadata-change=keep"]);
    let mut command = sandbox.command(&["store", "image", "a.bin", "--dry-run"]);
    command.env("AMISTORE_ON_METADATA_CHANGE", "fail");
    assert_eq!(command.status().expect("it runs").code(), Some(9));
    sandbox.run(&["store", "image", "a.bin"]).failed(9, &["the file exists"]);
    assert!(sandbox.read("a.bin") == before);
}

#[test]
fn other_disks_are_another_image_and_nothing_is_updated() {
    let sandbox = sandbox("new");
    let before = sandbox.read("a.bin");
    sandbox.disk(&format!("image/{ROOT}.raw"), 1 << 30, &[(0, text(9, 1))]);
    let args = store("update");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    sandbox.run(&args).failed(9, &["another image"]);
    sandbox.disk(&format!("image/{ROOT}.raw"), (1 << 30) - BLOCK, &[(0, text(1, 1))]);
    let code = sandbox.run(&args).code;
    assert!([2, 9].contains(&code), "{code}");
    assert!(sandbox.read("a.bin") == before);
}

#[test]
fn a_comparison_tells_metadata_from_disks() {
    let sandbox = sandbox("new");
    let verify = ["verify", "a.bin", "--against", "image", "--output", "json"];
    let report = sandbox.run(&verify);
    assert_eq!(report.code, 5);
    let report = report.json();
    assert_eq!(report["Outcome"], json!("metadata_changed"));
    assert_eq!(report["MetadataChanged"], json!(["Image.Description"]));
    sandbox.disk(&format!("image/{ROOT}.raw"), 1 << 30, &[(0, text(9, 1))]);
    assert_eq!(sandbox.run(&verify).json()["Outcome"], json!("different"));
}
