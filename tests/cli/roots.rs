//! Roots that were noted elsewhere prove which archive this is.

use serde_json::{Value, json};

use crate::support::cli::{Sandbox, sample_archive};

fn root(sandbox: &Sandbox, archive: &str) -> String {
    let found = sandbox.run(&["inspect", archive, "--output", "json"]).succeeded().json();
    found["RootSha256"].as_str().expect("a root").to_owned()
}

/// A sandbox with the sample archive as `a.bin`, another archive as `b.bin`, and their roots.
fn shelf() -> (Sandbox, String, String) {
    let sandbox = Sandbox::with_image().and("a.bin", sample_archive());
    sandbox.run(&["store", "image", "b.bin", "--level", "2"]).succeeded();
    let (one, other) = (root(&sandbox, "a.bin"), root(&sandbox, "b.bin"));
    assert_ne!(one, other);
    (sandbox, one, other)
}

#[test]
fn an_archive_with_another_root_is_found_before_its_data_is_read() {
    let (sandbox, root, other) = shelf();
    sandbox.run(&["verify", "a.bin", "--root", &root]).succeeded();
    sandbox.run(&["verify", "a.bin", "--root", &root.to_uppercase(), "--stored"]).succeeded();
    let refused = sandbox.run(&["verify", "a.bin", "--root", &other]);
    assert_eq!(refused.code, 5);
    assert!(refused.text().starts_with("other root: "), "{}", refused.text());
    let refused = refused.says(&["not the expected one", "hint: it is another archive"]);
    assert!(refused.text().contains(&root) && refused.text().contains(&other));
    let report = sandbox.run(&["verify", "a.bin", "--root", &other, "--output", "json"]).json();
    assert_eq!(report["Outcome"], json!("other_root"));
    assert_eq!((&report["RootSha256"], &report["BlocksChecked"]), (&json!(root), &json!(0)));
    // The root is right, and a cell is damaged.
    let mut damaged = sandbox.read("a.bin");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    sandbox.write("c.bin", damaged);
    let report = sandbox.run(&["verify", "c.bin", "--root", &root, "--output", "json"]).json();
    assert_eq!(report["Outcome"], json!("corrupt"));
}

#[test]
fn a_list_names_the_root_of_each_archive() {
    let (sandbox, one, other) = shelf();
    sandbox.write("roots.txt", format!("# the shelf\n\n{one}  old/a.bin\ns3://b/b.bin {other}\n"));
    sandbox.run(&["verify", "a.bin", "--root", "roots.txt"]).succeeded();
    sandbox.run(&["verify", "b.bin", "--root", "roots.txt"]).succeeded();
    sandbox.write("swapped.txt", format!("b.bin {one}\n"));
    let refused = sandbox.run(&["verify", "b.bin", "--root", "swapped.txt"]);
    assert_eq!(refused.code, 5);
    for (list, code, says) in [
        ("swapped.txt", 3, "none of this archive"),
        ("none.txt", 3, "cannot read the list of roots"),
        ("bad.txt", 2, "line: 2"),
    ] {
        sandbox.write("bad.txt", "# a comment\na.bin 0123\n");
        sandbox.run(&["verify", "a.bin", "--root", list]).failed(code, &[says]);
    }
}

#[test]
fn the_root_of_a_stream_is_compared_at_its_end() {
    let (sandbox, root, other) = shelf();
    let verify = |root: &str| {
        let args = ["verify", "-", "--root", root, "--output", "json"];
        sandbox.run_with_input(&args, sample_archive())
    };
    assert_eq!(verify(&root).succeeded().json()["Outcome"], json!("ok"));
    let refused = verify(&other);
    assert_eq!((refused.code, &refused.json()["Outcome"]), (5, &json!("other_root")));
}

#[test]
fn a_list_of_archives_shows_their_roots() {
    let (sandbox, one, other) = shelf();
    sandbox.write("foreign.bin", "no archive");
    let listed = sandbox.run(&["ls", ".", "--output", "json"]).succeeded().json();
    let root_of = |key: &str| {
        let archives = listed["Archives"].as_array().expect("a list");
        let found = archives.iter().find(|archive| archive["S3objectKey"] == key);
        found.expect("listed")["RootSha256"].clone()
    };
    assert_eq!(root_of("a.bin"), json!(one));
    assert_eq!((root_of("b.bin"), root_of("foreign.bin")), (json!(other), Value::Null));
    let text = sandbox.run(&["ls", "."]).succeeded().text();
    assert!(text.contains(&one) && text.contains(&other), "{text}");
}
