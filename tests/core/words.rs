//! Plain words: documents, comments, messages and identifiers use the words of
//! `docs/glossary.md`, and none of those that its last table retires.

use std::fs;
use std::path::{Path, PathBuf};

/// Words with which no line of a doc comment begins.
const BEGINNINGS: [&str; 6] = ["What ", "The same", "Those ", "Who ", "Whose ", "Whether it "];

const COLUMNS: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    /// Prose, and parts of identifiers.
    Everywhere,
    /// Parts of identifiers in Rust code.
    Identifiers,
}

#[derive(Debug)]
struct Retired {
    /// One word in lower case, or several with single spaces.
    word: String,
    replacement: String,
    scope: Scope,
    exempt: Vec<String>,
}

/// The rows of the table of retired words.
fn retired(glossary: &str) -> Vec<Retired> {
    let (_, section) = glossary.split_once("\n## Retired words\n").expect("the section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [word, replacement, scope, exempt] = cells[..] else { panic!("four cells: {line}") };
        Retired {
            word: word.trim_matches('`').to_owned(),
            replacement: replacement.to_owned(),
            scope: match scope {
                "everywhere" => Scope::Everywhere,
                "identifiers" => Scope::Identifiers,
                _ => panic!("a scope: {line}"),
            },
            exempt: exempt.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect(),
        }
    })
    .collect()
}

/// The words of a text in lower case: `SnapshotId`, `snapshot_id` and "snapshot id" are two words
/// each.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut previous = ' ';
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        let next_is_small = signs.peek().is_some_and(char::is_ascii_lowercase);
        let begins = sign.is_ascii_uppercase()
            && (previous.is_ascii_lowercase() || previous.is_ascii_digit() || next_is_small);
        if (begins || !sign.is_ascii_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if sign.is_ascii_alphanumeric() {
            word.push(sign.to_ascii_lowercase());
        }
        previous = sign;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Whether `words` holds the words of `phrase` in a row, the last one in singular or plural.
fn holds(words: &[String], phrase: &str) -> bool {
    let phrase: Vec<_> = phrase.split(' ').collect();
    words.windows(phrase.len()).any(|found| {
        found.iter().zip(&phrase).enumerate().all(|(index, (found, word))| {
            found == word || (index + 1 == phrase.len() && found.strip_suffix('s') == Some(*word))
        })
    })
}

/// A line of Rust without its string literals and its comment.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut signs = line.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '\\' if in_string => _ = signs.next(),
            '"' => in_string = !in_string,
            '/' if !in_string && signs.peek() == Some(&'/') => break,
            _ if !in_string => code.push(sign),
            _ => {}
        }
    }
    code
}

/// Faults of a line, in words; `prose` says whether the limit of columns holds for it.
fn faults(line: &str, is_rust: bool, prose: bool, retired: &[Retired]) -> Vec<String> {
    let mut faults = Vec::new();
    // Most lines hold no word of the table, not even as a part of another word.
    let lower = line.to_ascii_lowercase();
    let possible =
        |entry: &&Retired| entry.word.split(' ').next().is_some_and(|first| lower.contains(first));
    let possible: Vec<&Retired> = retired.iter().filter(possible).collect();
    let code = if is_rust && !possible.is_empty() { code_of(line) } else { String::new() };
    let all_words = if possible.is_empty() { Vec::new() } else { words(line) };
    let code_words = words(&code);
    for entry in possible {
        let (text, words) = match entry.scope {
            Scope::Everywhere => (line, &all_words),
            Scope::Identifiers => (code.as_str(), &code_words),
        };
        if !holds(words, &entry.word) {
            continue;
        }
        let mut rest = text.to_owned();
        for exempt in &entry.exempt {
            rest = rest.replace(exempt, " ");
        }
        if entry.exempt.is_empty() || holds(&self::words(&rest), &entry.word) {
            faults.push(format!("\"{}\": say {}", entry.word, entry.replacement));
        }
    }
    let trimmed = line.trim_start();
    if let Some(doc) = trimmed.strip_prefix("///").or_else(|| trimmed.strip_prefix("//!")) {
        let doc = doc.trim_start();
        if let Some(beginning) = BEGINNINGS.iter().find(|beginning| doc.starts_with(**beginning)) {
            faults.push(format!("a line of documentation begins with \"{}\"", beginning.trim()));
        }
    }
    // A single long word, such as an address, cannot be broken.
    if prose && line.chars().count() > COLUMNS && trimmed.contains(' ') {
        faults.push(format!("{} columns", line.chars().count()));
    }
    faults
}

fn is_read(path: &Path) -> bool {
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    matches!(suffix, "rs" | "py" | "md" | "mjs" | "js" | "service" | "toml")
        || path.ends_with(".ci/run")
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            let entry = entry.expect("an entry");
            // Archives that fuzzing begins with, and outputs of builds.
            if !["corpus", "fixtures", "seeds", "target"]
                .contains(&entry.file_name().to_str().unwrap_or_default())
            {
                files(&entry.path(), found);
            }
        }
    } else if is_read(path) {
        found.push(path.to_owned());
    }
}

/// Faults of a file, as `path:line: fault`.
fn check(path: &Path, name: &str, retired: &[Retired]) -> Vec<String> {
    let text = fs::read_to_string(path).expect("text");
    let (is_rust, is_markdown) = (name.ends_with(".rs"), name.ends_with(".md"));
    let mut in_block = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if is_markdown && line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        let is_table = is_markdown && line.starts_with('|');
        if is_table && name == "docs/glossary.md" {
            continue;
        }
        let is_indented = is_markdown && line.starts_with("    ");
        let prose = is_rust || (is_markdown && !in_block && !is_table && !is_indented);
        for fault in faults(line, is_rust, prose, retired) {
            found.push(format!("{name}:{}: {fault}", index + 1));
        }
    }
    found
}

#[test]
fn all_text_uses_the_words_of_the_glossary() {
    let glossary = fs::read_to_string(root().join("docs/glossary.md")).expect("the glossary");
    let retired = retired(&glossary);
    assert!(retired.len() > 20, "the table of retired words is read");
    let mut paths = Vec::new();
    for part in [
        "README.md",
        "Cargo.toml",
        "docs",
        "format-spec",
        "src",
        "tests",
        "benches",
        "examples",
        ".ci/run",
    ] {
        if root().join(part).exists() {
            files(&root().join(part), &mut paths);
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8");
        found.extend(check(&path, name, &retired));
    }
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

#[test]
fn retired_words_are_found_in_every_form() {
    let entry = |word: &str, scope, exempt: &[&str]| Retired {
        word: word.to_owned(),
        replacement: "another".to_owned(),
        scope,
        exempt: exempt.iter().map(|text| (*text).to_owned()).collect(),
    };
    let retired = [
        entry("zebra crossing", Scope::Everywhere, &[]),
        entry("zebra", Scope::Identifiers, &["hard_zebra"]),
    ];
    let faulty = [
        "let zebra = 1;",
        "struct ZebraCount;",
        "fn two_zebras() {}",
        "IOZebra::new()",
        "// A Zebra Crossing.",
        "let zebra = hard_zebra();",
        "/// What the reader knows.",
    ];
    for line in faulty {
        assert_ne!(faults(line, true, true, &retired), Vec::<String>::new(), "{line}");
    }
    let good = [
        "// A zebra, in prose.",
        "let text = \"a \\\" zebra\";",
        "hard_zebra()",
        "let zebraic = 1;",
        "/// Whatever the reader knows.",
    ];
    for line in good {
        assert_eq!(faults(line, true, true, &retired), Vec::<String>::new(), "{line}");
    }
    assert_ne!(faults(&"ab ".repeat(40), false, true, &retired), Vec::<String>::new());
    assert_eq!(faults(&"ab ".repeat(40), false, false, &retired), Vec::<String>::new());
    assert_eq!(faults(&"a".repeat(120), false, true, &retired), Vec::<String>::new());
}
