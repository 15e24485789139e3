//! Base64 as AWS writes it, with padding.

/// The text of these bytes.
pub fn encode(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(bytes)
}

/// The bytes of this text; `None` if it is none.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    aws_smithy_types::base64::decode(text).ok()
}
