//! Reserved image ids: CreateRestoreImageTask returns them before EC2 has an id.
//!
//! A request by a reserved id is translated to EC2's id, and its answer back. An answer to other
//! requests has EC2's id.

use super::{Refusal, RestoreProgress, RestoredImage, Service};
use crate::base::ImageId;

/// The image ids of one request: reserved ids and those of EC2.
pub(super) struct ImageIds<'a> {
    service: &'a dyn Service,
    /// Pairs of reserved id and id of EC2.
    known: Vec<(String, String)>,
}

impl<'a> ImageIds<'a> {
    pub(super) fn new(service: &'a dyn Service) -> Self {
        Self { service, known: Vec::new() }
    }

    /// EC2's id of an image. Refuses a reserved id without an image, with the progress of the
    /// restore.
    pub(super) fn real(&mut self, id: &ImageId) -> Result<ImageId, Refusal> {
        let Some(image) = self.service.restored(id)? else { return Ok(id.clone()) };
        match registered(&image) {
            Some(real) => {
                self.known.push((id.to_string(), real.to_string()));
                Ok(real.clone())
            }
            None => Err(unavailable(&image)),
        }
    }

    /// The id by which the request named an image of EC2.
    pub(super) fn requested<'b>(&'b self, id: &'b str) -> &'b str {
        self.known.iter().find(|(_, real)| real == id).map_or(id, |(reserved, _)| reserved)
    }
}

/// Parses an image id.
pub(super) fn parse(text: &str) -> Option<ImageId> {
    ImageId::parse(text).ok()
}

/// EC2's id, once the image is registered.
pub(super) fn registered(image: &RestoredImage) -> Option<&ImageId> {
    image.image_id.as_ref().filter(|_| image.progress == RestoreProgress::Available)
}

/// `InvalidAMIID.Unavailable`, with the reason.
pub(super) fn unavailable(image: &RestoredImage) -> Refusal {
    let state = match (image.progress, &image.reason) {
        (RestoreProgress::Failed, Some(reason)) => format!("could not be restored: {reason}"),
        (RestoreProgress::Failed, None) => "could not be restored".to_owned(),
        _ => format!(
            "is being restored from {}, {} % are done: wait until it is available",
            image.location, image.percent
        ),
    };
    Refusal::client(
        "InvalidAMIID.Unavailable",
        format!("The image ID '{}' is not available. It {state}", image.reserved),
    )
}

/// Replaces each whole word `from` in `text` by `to`.
pub(super) fn renamed(text: &str, from: &str, to: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let is_word = !before.ends_with(|char: char| char.is_ascii_alphanumeric())
            && !after.starts_with(|char: char| char.is_ascii_alphanumeric());
        written.push_str(before);
        written.push_str(if is_word { to } else { from });
        rest = after;
    }
    written.push_str(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_ids_are_renamed() {
        let text = "<a>ami-1</a>/ami-1.bin ami-12 xami-1 ami-1";
        assert_eq!(renamed(text, "ami-1", "ami-2"), "<a>ami-2</a>/ami-2.bin ami-12 xami-1 ami-2");
    }
}
