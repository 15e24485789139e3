//! The digests of an archive as user metadata of its object.

use std::collections::BTreeMap;

use crate::base::hex;
use crate::format::Footer;

/// The name of the root.
pub const ROOT_METADATA: &str = "amistore-root-sha256";
/// The name of the content root.
pub const CONTENT_METADATA: &str = "amistore-content-sha256";

/// Root and content root by name, in hex.
pub fn digest_metadata(footer: &Footer) -> BTreeMap<String, String> {
    let digests = [(ROOT_METADATA, footer.root), (CONTENT_METADATA, footer.content_root)];
    digests.into_iter().map(|(name, digest)| (name.to_owned(), hex(&digest))).collect()
}
