//! EC2's answer to DescribeImages, with reserved ids, and with the images that EC2 does not have
//! yet.
//!
//! The answer may be of any length, so it is rewritten item by item, as it arrives.

use std::collections::{BTreeSet, HashMap};
use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;

use super::RestoredImage;
use super::http::Body;
use super::pending_image::described;
use crate::aws::ec2_query::Xml;

const OPEN: &[u8] = b"<imagesSet>";
const EMPTY: &[u8] = b"<imagesSet/>";
const CLOSE: &[u8] = b"</imagesSet>";
/// The longest of the tags that are looked for.
const LONGEST_TAG: usize = EMPTY.len();
/// The longest item, in bytes. An image with all of its devices and tags has a few dozen KiB.
const MAX_ITEM_BYTES: usize = 4 << 20;

/// The changes to the list of images.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Reserved ids by the ids of EC2.
    pub(super) ids: HashMap<String, String>,
    /// Images that are being restored: EC2 may have registered one a moment ago.
    pub(super) pending: Vec<RestoredImage>,
    /// Images that the list gets, unless EC2 has them.
    pub(super) own: Vec<RestoredImage>,
}

impl Changes {
    pub(super) fn is_none(&self) -> bool {
        self.ids.is_empty() && self.pending.is_empty() && self.own.is_empty()
    }

    /// The items of the images that the list gets.
    fn own_items(&self) -> String {
        let mut seen = BTreeSet::new();
        let own = self.own.iter().filter(|image| seen.insert(image.reserved.as_str()));
        own.map(|image| Xml::new().inside("item", &described(image)).as_str().to_owned()).collect()
    }

    /// An item of EC2, under its reserved id if it was restored here.
    fn item(&mut self, item: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(item);
        let Some(id) = text.split_once("<imageId>").and_then(|(_, rest)| rest.split_once('<'))
        else {
            return item.to_vec();
        };
        let is_made_of = |image: &&RestoredImage| {
            let name = Xml::new().text_some("name", image.name.as_ref());
            let is_used =
                |snapshot: &String| text.contains(Xml::new().text("snapshotId", snapshot).as_str());
            !name.as_str().is_empty()
                && text.contains(name.as_str())
                && image.snapshots.iter().any(|(_, snapshot)| is_used(snapshot))
        };
        let registered = || self.pending.iter().find(is_made_of).map(|it| it.reserved.to_string());
        let Some(reserved) = self.ids.get(id.0).cloned().or_else(registered) else {
            return item.to_vec();
        };
        self.own.retain(|image| image.reserved.as_str() != reserved);
        let (old, new) = (format!("<imageId>{}<", id.0), format!("<imageId>{reserved}<"));
        text.replacen(&old, &new, 1).into_bytes()
    }
}

/// The position in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    /// In the list.
    List,
    Tail,
}

/// Rewrites the bytes of an answer.
#[derive(Debug)]
pub(super) struct ImagesSet {
    changes: Changes,
    at: At,
    /// Bytes that were not written yet.
    buffer: Vec<u8>,
    /// The bytes of `buffer` that were looked at, and the number of open items there.
    looked: usize,
    depth: usize,
    /// The start of the open item.
    begin: usize,
}

impl ImagesSet {
    pub(super) fn new(changes: Changes) -> Self {
        Self { changes, at: At::Head, buffer: Vec::new(), looked: 0, depth: 0, begin: 0 }
    }

    /// Takes bytes of the answer, and returns those that are complete. An item that is too long is
    /// an error.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, TooLong> {
        let mut written = Vec::new();
        self.buffer.extend_from_slice(bytes);
        if self.at == At::Head {
            self.head(&mut written);
        }
        if self.at == At::List {
            self.list(&mut written);
        }
        if self.at == At::Tail {
            written.append(&mut self.buffer);
        }
        if self.buffer.len() > MAX_ITEM_BYTES { Err(TooLong) } else { Ok(written) }
    }

    /// The bytes that are left at the end of the answer.
    pub(super) fn end(self) -> Vec<u8> {
        self.buffer
    }

    fn head(&mut self, written: &mut Vec<u8>) {
        if let Some(at) = find(&self.buffer, OPEN) {
            written.extend(self.buffer.drain(..at + OPEN.len()));
            self.at = At::List;
        } else if let Some(at) = find(&self.buffer, EMPTY) {
            written.extend(self.buffer.drain(..at));
            self.buffer.drain(..EMPTY.len());
            let items = self.changes.own_items();
            if items.is_empty() {
                written.extend_from_slice(EMPTY);
            } else {
                written.extend([OPEN, items.as_bytes(), CLOSE].concat());
            }
            self.at = At::Tail;
        } else {
            let complete = self.buffer.len().saturating_sub(LONGEST_TAG);
            written.extend(self.buffer.drain(..complete));
        }
    }

    fn list(&mut self, written: &mut Vec<u8>) {
        // The bytes of the buffer that were written.
        let mut done = 0;
        loop {
            let next = self.buffer[self.looked..].iter().position(|byte| *byte == b'<');
            let Some(at) = next.map(|at| self.looked + at) else {
                self.looked = self.buffer.len();
                break;
            };
            self.looked = at;
            let rest = &self.buffer[at..];
            if rest.len() < LONGEST_TAG {
                break;
            }
            if rest.starts_with(b"<item>") {
                if self.depth == 0 {
                    self.begin = at;
                }
                self.depth += 1;
            } else if rest.starts_with(b"</item>") {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    let (begin, end) = (self.begin.max(done), at + b"</item>".len());
                    written.extend_from_slice(&self.buffer[done..begin]);
                    written.extend(self.changes.item(&self.buffer[begin..end]));
                    done = end;
                }
            } else if self.depth == 0 && rest.starts_with(CLOSE) {
                written.extend_from_slice(&self.buffer[done..at]);
                written.extend(self.changes.own_items().into_bytes());
                done = at;
                self.at = At::Tail;
                break;
            }
            self.looked += 1;
        }
        self.buffer.drain(..done);
        self.looked = self.looked.saturating_sub(done);
        self.begin = self.begin.saturating_sub(done);
    }
}

/// An item of the list is longer than 4 MiB.
#[derive(Debug)]
pub(super) struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an image in the answer of EC2 is longer than {MAX_ITEM_BYTES} bytes")
    }
}

impl StdError for TooLong {}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

/// A body that is rewritten as it arrives.
pub(super) struct Rewritten {
    body: Body,
    /// `None` behind the end.
    set: Option<ImagesSet>,
}

impl Rewritten {
    pub(super) fn new(body: Body, changes: Changes) -> Self {
        Self { body, set: Some(ImagesSet::new(changes)) }
    }
}

impl hyper::body::Body for Rewritten {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if self.set.is_none() {
                return Poll::Ready(None);
            }
            let bytes = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let Some(set) = self.set.as_mut() else { return Poll::Ready(None) };
                    match set.push(&data) {
                        Ok(bytes) => bytes,
                        Err(error) => {
                            self.set = None;
                            return Poll::Ready(Some(Err(error.into())));
                        }
                    }
                }
                Some(Err(error)) => {
                    self.set = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.set.take().map(ImagesSet::end).unwrap_or_default(),
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::aws::ec2_query::Params;
    use crate::base::ImageId;
    use crate::server::RestoreProgress;

    const RESERVED: &str = "ami-00000000000000aaa";
    const REAL: &str = "ami-00000000000000bbb";

    fn pending() -> RestoredImage {
        RestoredImage {
            reserved: ImageId::parse(RESERVED).expect("an id"),
            image_id: None,
            name: Some("a & b".to_owned()),
            location: "bucket/key".to_owned(),
            started: SystemTime::UNIX_EPOCH,
            progress: RestoreProgress::Pending,
            percent: 1,
            reason: None,
            owner: Some("123456789012".to_owned()),
            attributes: Params::new(),
            snapshots: vec![("snap-1".to_owned(), "snap-2".to_owned())],
        }
    }

    fn image(id: &str, name: &str, snapshot: &str) -> String {
        format!(
            "<item><imageId>{id}</imageId><name>{name}</name><blockDeviceMapping><item><ebs>\
             <snapshotId>{snapshot}</snapshotId></ebs></item><item/></blockDeviceMapping></item>"
        )
    }

    /// The answer in pieces of `len` bytes, rewritten.
    fn rewritten(inside: &str, changes: Changes, len: usize) -> String {
        let answer = format!("<?xml?><DescribeImagesResponse>{inside}</DescribeImagesResponse>");
        let mut set = ImagesSet::new(changes);
        let mut written = Vec::new();
        for piece in answer.as_bytes().chunks(len) {
            written.extend(set.push(piece).expect("short items"));
        }
        written.extend(set.end());
        String::from_utf8(written).expect("text")
    }

    #[test]
    fn an_answer_is_rewritten_however_it_is_cut() {
        let theirs = image("ami-1", "theirs", "snap-9");
        for (inside, expected) in [
            ("<imagesSet/>".to_owned(), vec![RESERVED]),
            ("<imagesSet></imagesSet>".to_owned(), vec![RESERVED]),
            (format!("<imagesSet>{theirs}</imagesSet>"), vec!["ami-1", RESERVED]),
            // EC2 has registered it, and the task has not recorded that yet.
            (
                format!("<imagesSet>{theirs}{}</imagesSet>", image(REAL, "a &amp; b", "snap-2")),
                vec!["ami-1", RESERVED],
            ),
            // Another image of that name is not the one that is restored here.
            (
                format!("<imagesSet>{}</imagesSet>", image(REAL, "a &amp; b", "snap-3")),
                vec![REAL, RESERVED],
            ),
        ] {
            for len in [1, 2, 7, 13, 1000] {
                let changes = Changes {
                    pending: vec![pending()],
                    own: vec![pending(), pending()],
                    ..Changes::default()
                };
                let text = rewritten(&inside, changes, len);
                let ids: Vec<&str> = text
                    .split("<imageId>")
                    .skip(1)
                    .map(|rest| rest.split('<').next().unwrap_or_default())
                    .collect();
                assert_eq!(ids, expected, "{len}: {text}");
                assert!(text.ends_with("</imagesSet></DescribeImagesResponse>"), "{text}");
                assert_eq!(text.matches("<item>").count(), text.matches("</item>").count());
            }
        }
    }

    #[test]
    fn an_image_that_was_restored_here_has_its_reserved_id_and_others_stay_as_they_are() {
        let ids = HashMap::from([(REAL.to_owned(), RESERVED.to_owned())]);
        let inside = format!(
            "<imagesSet>{} {}</imagesSet><nextToken>{REAL}</nextToken>",
            image("ami-1", REAL, "snap-9"),
            image(REAL, "a", "snap-8")
        );
        for len in [1, 5, 1000] {
            let changes = Changes { ids: ids.clone(), ..Changes::default() };
            let expected =
                inside.replacen(&format!("<imageId>{REAL}"), &format!("<imageId>{RESERVED}"), 1);
            let text = rewritten(&inside, changes, len);
            assert!(text.contains(&expected), "{text}");
        }
        // An answer of another form passes unchanged.
        let other = "<Errors><Error/></Errors>";
        assert!(rewritten(other, Changes { ids, ..Changes::default() }, 3).contains(other));
    }
}
