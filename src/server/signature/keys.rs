//! The access keys of clients, from a credentials file of the AWS tools.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::base::{Error, ErrorKind, Result};

/// The longest file that is read. A key takes about 100 bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Access keys, each with its secret.
#[derive(Clone)]
pub struct AccessKeys(BTreeMap<String, String>);

impl fmt::Debug for AccessKeys {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl AccessKeys {
    /// Reads a credentials file. It is refused if others than its owner may read it, or if there is
    /// no key in it.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_private(path, "access keys")?;
        Self::parse(&text).map_err(|error| error.at("path", path.display()))
    }

    /// Reads profiles with `aws_access_key_id` and `aws_secret_access_key`; other lines of a
    /// profile say nothing here.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys = BTreeMap::new();
        let (mut id, mut secret, mut profile) = (None, None, String::new());
        for (number, line) in text.lines().chain(["[]"]).enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                match (id.take(), secret.take()) {
                    (Some(id), Some(secret)) => {
                        if keys.insert(id, secret).is_some() {
                            return Err(Error::usage("an access key stands in the file twice")
                                .at("profile", profile));
                        }
                    }
                    (None, None) => {}
                    _ => {
                        return Err(Error::usage(
                            "a profile needs aws_access_key_id and aws_secret_access_key",
                        )
                        .at("profile", profile));
                    }
                }
                name.trim().clone_into(&mut profile);
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(|| {
                Error::usage("not a credentials file: a line is neither [profile] nor name = value")
                    .at("line", number + 1)
            })?;
            let part = match name.trim() {
                "aws_access_key_id" => &mut id,
                "aws_secret_access_key" => &mut secret,
                _ => continue,
            };
            let value = value.trim();
            if value.is_empty() || part.replace(value.to_owned()).is_some() {
                return Err(Error::usage("a key of a profile is empty, or stands there twice")
                    .at("line", number + 1));
            }
        }
        if keys.is_empty() {
            return Err(Error::usage(
                "no access key is in the file: it needs [profile], aws_access_key_id = ... and \
                 aws_secret_access_key = ...",
            ));
        }
        Ok(Self(keys))
    }

    pub(super) fn secret(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

/// Reads a file of secrets; refuses a file that other users may read.
pub fn read_private(path: &Path, what: &str) -> Result<String> {
    let failed = |cause| {
        Error::io(format!("cannot read the file of {what}"), cause).at("path", path.display())
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    // A credential file of systemd belongs to root and its group, and an access list admits the
    // service.
    let of_root = metadata.uid() == 0 && metadata.gid() == 0 && metadata.mode() & 0o037 == 0;
    if metadata.mode() & 0o077 != 0 && !of_root {
        let error = Error::new(
            ErrorKind::Denied,
            format!("others may read the file of {what}: chmod 600 it"),
        );
        return Err(error
            .at("path", path.display())
            .at("mode", format!("{:o}", metadata.mode() & 0o777)));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(
            Error::usage(format!("the file of {what} is too long")).at("path", path.display())
        );
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read() {
        let text = "# ours\n[default]\naws_access_key_id = AKIA1\naws_secret_access_key=a/b+c=\n\
                    region = x\n\n[other]\naws_secret_access_key = s\n\
                    aws_access_key_id = AKIA2\n";
        let keys = AccessKeys::parse(text).expect("reads");
        assert_eq!(
            (keys.secret("AKIA1"), keys.secret("AKIA2"), keys.secret("AKIA3")),
            (Some("a/b+c="), Some("s"), None)
        );
        assert!(!format!("{keys:?}").contains("a/b"));
    }

    #[test]
    fn what_is_no_file_of_keys_is_refused() {
        let one = "[a]\naws_access_key_id=x\naws_secret_access_key=y\n";
        for text in [
            "",
            "[a]\n",
            "x",
            "[a]\naws_access_key_id=x\n",
            "[a]\naws_access_key_id=\n",
            &format!("{one}{one}"),
        ] {
            assert_eq!(AccessKeys::parse(text).expect_err(text).kind(), ErrorKind::Usage, "{text}");
        }
    }
}
