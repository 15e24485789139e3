//! The access keys of clients, from a credentials file of the AWS tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::aws::check_region;
use crate::base::{Error, ErrorKind, Result};
use crate::localfs::read_short;

/// The longest file that is read. A key takes about 100 bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Access keys, each with its secret, and the profile and Regions that it stands for.
#[derive(Clone)]
pub struct AccessKeys(BTreeMap<String, AccessKey>);

/// The secret of an access key, and the sites that it admits its clients to.
#[derive(Clone)]
pub(super) struct AccessKey {
    pub(super) secret: String,
    /// The profile with which the server acts for the key; `None` for its own credentials.
    pub(super) profile: Option<String>,
    /// The Regions; empty for those of the server.
    pub(super) regions: Vec<String>,
}

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

    /// Reads profiles with `aws_access_key_id` and `aws_secret_access_key`, and perhaps with
    /// `profile` and `region`; other lines of a profile say nothing here.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys = BTreeMap::new();
        let (mut entry, mut name) = (Entry::default(), String::new());
        for (number, line) in text.lines().chain(["[]"]).enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(next) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                let ended = std::mem::take(&mut entry);
                if let Some((id, key)) = ended.end().map_err(|error| error.at("profile", &name))?
                    && keys.insert(id, key).is_some()
                {
                    return Err(
                        Error::usage("an access key stands in the file twice").at("profile", name)
                    );
                }
                next.trim().clone_into(&mut name);
                continue;
            }
            let (member, value) = line.split_once('=').ok_or_else(|| {
                Error::usage("not a credentials file: a line is neither [profile] nor name = value")
                    .at("line", number + 1)
            })?;
            let part = match member.trim() {
                "aws_access_key_id" => &mut entry.id,
                "aws_secret_access_key" => &mut entry.secret,
                "profile" => &mut entry.profile,
                "region" => &mut entry.regions,
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

    /// The profiles that keys name, each with the Regions that its keys name. A key without a
    /// profile belongs to `None`; a key without a Region is one for the Regions of the server,
    /// which is `None` as well.
    pub fn sites(&self) -> BTreeSet<(Option<&str>, Option<&str>)> {
        let mut sites = BTreeSet::new();
        for key in self.0.values() {
            let profile = key.profile.as_deref();
            if key.regions.is_empty() {
                sites.insert((profile, None));
            }
            sites.extend(key.regions.iter().map(|region| (profile, Some(region.as_str()))));
        }
        sites
    }

    pub(super) fn find(&self, id: &str) -> Option<&AccessKey> {
        self.0.get(id)
    }
}

/// The lines of a profile of the file.
#[derive(Default)]
struct Entry {
    id: Option<String>,
    secret: Option<String>,
    profile: Option<String>,
    regions: Option<String>,
}

impl Entry {
    /// The key of the profile, if it has one.
    fn end(self) -> Result<Option<(String, AccessKey)>> {
        let (id, secret) = match (self.id, self.secret) {
            (Some(id), Some(secret)) => (id, secret),
            (None, None) if self.profile.is_none() => return Ok(None),
            _ => {
                return Err(Error::usage(
                    "a profile needs aws_access_key_id and aws_secret_access_key",
                ));
            }
        };
        let regions: Vec<String> = self
            .regions
            .iter()
            .flat_map(|regions| regions.split(','))
            .map(|region| region.trim().to_owned())
            .collect();
        regions.iter().try_for_each(|region| check_region(region))?;
        Ok(Some((id, AccessKey { secret, profile: self.profile, regions })))
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
    let bytes = read_short(path, &format!("file of {what}"), MAX_FILE_BYTES)?;
    String::from_utf8(bytes).map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))
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
        let secret = |id: &str| keys.find(id).map(|key| key.secret.as_str());
        assert_eq!(
            (secret("AKIA1"), secret("AKIA2"), secret("AKIA3")),
            (Some("a/b+c="), Some("s"), None)
        );
        assert!(!format!("{keys:?}").contains("a/b"));
    }

    #[test]
    fn a_key_stands_for_a_profile_and_for_regions() {
        let text = "[one]\naws_access_key_id = A\naws_secret_access_key = a\n\
                    [gov]\naws_access_key_id = B\naws_secret_access_key = b\nprofile = gov\n\
                    region = us-gov-west-1, us-gov-east-1\n\
                    [two]\naws_access_key_id = C\naws_secret_access_key = c\nprofile = other\n";
        let keys = AccessKeys::parse(text).expect("reads");
        assert_eq!(
            keys.sites().into_iter().collect::<Vec<_>>(),
            [
                (None, None),
                (Some("gov"), Some("us-gov-east-1")),
                (Some("gov"), Some("us-gov-west-1")),
                (Some("other"), None),
            ]
        );
        for wrong in ["us-east-1,", "us east 1", "us-east-1/x"] {
            let text = format!("[a]\naws_access_key_id=x\naws_secret_access_key=y\nregion={wrong}");
            let error = AccessKeys::parse(&text).expect_err(wrong);
            assert_eq!((error.kind(), error.fact("profile")), (ErrorKind::Usage, Some("a")));
        }
        assert!(AccessKeys::parse(&format!("{text}[b]\nprofile = x\n")).is_err(), "no key");
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
