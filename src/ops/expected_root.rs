//! Roots that were noted elsewhere, to compare archives with.

use crate::base::{Error, ErrorKind, Result};
use crate::format::Digest;

/// A root, or a list of roots by the names of archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedRoot {
    /// The root of the archive.
    One(Digest),
    /// Names and roots, in the order of the list.
    List(Vec<(String, Digest)>),
}

impl ExpectedRoot {
    /// The root that is written as 64 hex digits; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        digest(text).map(Self::One)
    }

    /// Reads a list: a line for each archive, with its name and its root in either order, as
    /// `sha256sum` prints them. Empty lines and lines that begin with `#` are skipped. A list may
    /// consist of one root without a name.
    pub fn parse_list(text: &str) -> Result<Self> {
        let mut list = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = entry(line).ok_or_else(|| {
                Error::usage("a line of the list of roots has no name and root of 64 hex digits")
                    .at("line", number)
            })?;
            list.push(entry);
        }
        let is_only_root = |list: &[(String, Digest)]| list.len() == 1 && list[0].0.is_empty();
        if is_only_root(&list) {
            return Ok(Self::One(list[0].1));
        }
        if list.is_empty() || list.iter().any(|(name, _)| name.is_empty()) {
            return Err(Error::usage("a list of roots needs the name of an archive in every line"));
        }
        Ok(Self::List(list))
    }

    /// The root of this archive: that of its whole name, or else of its file name.
    pub fn of(&self, archive: &str) -> Result<Digest> {
        let list = match self {
            Self::One(root) => return Ok(*root),
            Self::List(list) => list,
        };
        let roots = |is_it: &dyn Fn(&str) -> bool| -> Vec<Digest> {
            let found = list.iter().filter(|(name, _)| is_it(name));
            found.map(|(_, root)| *root).collect()
        };
        let mut found = roots(&|name| name == archive);
        if found.is_empty() {
            found = roots(&|name| file_name(name) == file_name(archive));
        }
        match found.split_first() {
            None => {
                Err(Error::new(ErrorKind::NotFound, "the list of roots has none of this archive")
                    .at("archive", archive)
                    .at("roots", list.len()))
            }
            Some((root, others)) if others.iter().all(|other| other == root) => Ok(*root),
            Some(_) => Err(Error::usage(
                "the list has several roots of this file name: list the archive by its whole name",
            )
            .at("archive", archive)),
        }
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The name and the root of a line; the name is empty if there is none.
fn entry(line: &str) -> Option<(String, Digest)> {
    let split = |(one, other): (&str, &str)| {
        let name = |text: &str| text.trim().trim_start_matches('*').to_owned();
        digest(one)
            .map(|root| (name(other), root))
            .or_else(|| digest(other).map(|root| (name(one), root)))
    };
    let blank = |char: char| char.is_whitespace();
    digest(line)
        .map(|root| (String::new(), root))
        .or_else(|| line.split_once(blank).and_then(split))
        .or_else(|| line.rsplit_once(blank).and_then(split))
}

fn digest(text: &str) -> Option<Digest> {
    let text = text.trim();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;

    #[test]
    fn a_list_has_a_name_and_a_root_in_every_line_in_either_order() {
        let [one, two] = [[1; 32], [0xAB; 32]].map(|digest: Digest| hex(&digest));
        let text = format!(
            "# roots of 2026\n\n  {one}  *p/a.bin\ns3://b/b c.bin {}\n",
            two.to_uppercase()
        );
        let list = ExpectedRoot::parse_list(&text).expect("a list");
        for (archive, root) in [
            ("p/a.bin", Ok([1; 32])),
            ("/mnt/shelf/a.bin", Ok([1; 32])),
            ("s3://b/b c.bin", Ok([0xAB; 32])),
            ("c.bin", Err(ErrorKind::NotFound)),
        ] {
            assert_eq!(list.of(archive).map_err(|error| error.kind()), root, "{archive}");
        }
        assert_eq!(ExpectedRoot::parse(&one), Some(ExpectedRoot::One([1; 32])));
        assert_eq!(ExpectedRoot::parse("roots.txt"), None);
        let single = ExpectedRoot::parse_list(&format!("# one\n{two}\n")).expect("a root");
        assert_eq!(single.of("any.bin").expect("a root"), [0xAB; 32]);
    }

    #[test]
    fn a_list_that_is_none_or_ambiguous_is_refused() {
        let [one, two] = [[1; 32], [2; 32]].map(|digest: Digest| hex(&digest));
        for text in ["", "# only\n", "a.bin 12\n", &one[1..], &format!("{one}\n{two}\n")] {
            let error = ExpectedRoot::parse_list(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
        let text = format!("x/a.bin {one}\ny/a.bin {two}\nz/b.bin {one}\nb.bin {one}\n");
        let list = ExpectedRoot::parse_list(&text).expect("a list");
        assert_eq!(list.of("a.bin").expect_err("two").kind(), ErrorKind::Usage);
        assert_eq!(list.of("y/a.bin").expect("its whole name"), [2; 32]);
        assert_eq!(list.of("q/b.bin").expect("equal roots"), [1; 32]);
    }
}
