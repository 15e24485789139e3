//! The records that use cases write to a task file, and their encoding.
//!
//! Uploads, parts and snapshots are JSON, so that a later version may add members. A record of an
//! unknown kind, or one that cannot be decoded, is skipped.

mod json;

use serde::{Serialize, de::DeserializeOwned};

use crate::base::{Error, Result};
use crate::checkpoint::Record;
use crate::image::SnapshotBegun;
use crate::object::{UploadBegun, UploadIntent, UploadPart};
use json::{IntentRecord, PartRecord, SnapshotRecord, UploadRecord};

const INTENT: u8 = b'I';
const UPLOAD: u8 = b'U';
const PART: u8 = b'P';
const CELL: u8 = b'C';
const DOCUMENT: u8 = b'D';
const SNAPSHOT: u8 = b'S';
const FAILED: u8 = b'E';

/// A record of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TaskRecord {
    /// An upload will be begun.
    Intent(UploadIntent),
    /// An upload was begun. The parts that follow belong to it.
    Upload(UploadBegun),
    /// A part will be sent, or was confirmed.
    Part(UploadPart),
    /// A cell was packed or written: [`LoggedCell`](crate::engine::LoggedCell).
    Cell(Vec<u8>),
    /// The bytes of `image.json` at the start of the first run.
    Document(Vec<u8>),
    /// A snapshot was begun. The cells that follow may be in it.
    Snapshot(SnapshotBegun),
    /// A run ended with this error, and the task can be continued.
    Failed(String),
}

impl TaskRecord {
    pub(super) fn encode(&self) -> Result<Record> {
        let (kind, payload) = match self {
            Self::Intent(intent) => (INTENT, json(&IntentRecord::from(intent))?),
            Self::Upload(upload) => (UPLOAD, json(&UploadRecord::from(upload))?),
            Self::Part(part) => (PART, json(&PartRecord::from(part))?),
            Self::Cell(bytes) => (CELL, bytes.clone()),
            Self::Document(bytes) => (DOCUMENT, bytes.clone()),
            Self::Snapshot(snapshot) => (SNAPSHOT, json(&SnapshotRecord::from(snapshot))?),
            Self::Failed(reason) => (FAILED, reason.as_bytes().to_vec()),
        };
        Ok(Record { kind, payload })
    }

    /// `None` for a record of an unknown kind, or with a payload that cannot be decoded.
    pub(super) fn decode(record: Record) -> Option<Self> {
        let Record { kind, payload } = record;
        match kind {
            INTENT => parse::<IntentRecord>(&payload).map(|it| Self::Intent(it.into())),
            UPLOAD => parse::<UploadRecord>(&payload).map(|it| Self::Upload(it.into())),
            PART => parse::<PartRecord>(&payload).map(|it| Self::Part(it.into())),
            CELL => Some(Self::Cell(payload)),
            DOCUMENT => Some(Self::Document(payload)),
            SNAPSHOT => parse::<SnapshotRecord>(&payload).map(|it| Self::Snapshot(it.into())),
            FAILED => Some(Self::Failed(String::from_utf8_lossy(&payload).into_owned())),
            _ => None,
        }
    }
}

/// Decodes the records of a task file.
pub(super) fn decoded<I>(records: I) -> impl Iterator<Item = Result<TaskRecord>> + Send + use<I>
where
    I: Iterator<Item = Result<Record>> + Send,
{
    records.filter_map(|record| record.map(TaskRecord::decode).transpose())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| Error::io("cannot write the state file", cause))
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    serde_json::from_slice(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::PartPiece;

    #[test]
    fn records_are_read_as_they_were_written_and_unknown_ones_are_skipped() {
        let upload = UploadBegun {
            endpoint: String::new(),
            region: "r".into(),
            bucket: "b".into(),
            key: "k".into(),
            upload_id: "u".into(),
            part_size: 5,
            checksum: "MD5".into(),
            options: "- - - -".into(),
            profile: None,
            segments: vec![1, 4],
        };
        let part = UploadPart {
            number: 4,
            len: 3,
            checksum: "c".into(),
            etag: Some("e".into()),
            pieces: vec![PartPiece { segment: 1, offset: 2, len: 3 }],
        };
        let snapshot = SnapshotBegun {
            volume: 1,
            snapshot_id: "snap-1".into(),
            attempt: 2,
            ebs_endpoint: String::new(),
            ec2_endpoint: String::new(),
            region: "r".into(),
            profile: Some("p".into()),
        };
        let intent = UploadIntent {
            endpoint: String::new(),
            region: "r".into(),
            bucket: "b".into(),
            key: "k".into(),
            profile: None,
            started: "2026-11-30T00:00:00Z".into(),
        };
        let records = [
            TaskRecord::Intent(intent),
            TaskRecord::Upload(upload),
            TaskRecord::Part(part),
            TaskRecord::Cell(vec![1, 2]),
            TaskRecord::Document(b"{}".to_vec()),
            TaskRecord::Snapshot(snapshot),
            TaskRecord::Failed("no power".into()),
        ];
        let mut written: Vec<Record> =
            records.iter().map(|record| record.encode().expect("encodes")).collect();
        written.insert(2, Record { kind: b'?', payload: vec![9] });
        written.insert(4, Record { kind: PART, payload: b"{".to_vec() });
        let read: Vec<TaskRecord> =
            decoded(written.into_iter().map(Ok)).map(|record| record.expect("decodes")).collect();
        assert_eq!(read, records);
    }

    #[test]
    fn the_names_in_records_of_earlier_versions_are_read() {
        let json = br#"{"endpoint":"","region":"r","bucket":"b","key":"k","upload_id":"u",
            "part_size":5,"checksum":"MD5","options":"-","profile":null,"stretches":[1,4]}"#;
        let record = TaskRecord::decode(Record { kind: UPLOAD, payload: json.to_vec() });
        let Some(TaskRecord::Upload(upload)) = record else { panic!("an upload") };
        assert_eq!(upload.segments, [1, 4]);
        let json = br#"{"number":4,"len":3,"checksum":"c","etag":null,
            "pieces":[{"stretch":1,"offset":2,"len":3}]}"#;
        let record = TaskRecord::decode(Record { kind: PART, payload: json.to_vec() });
        let Some(TaskRecord::Part(part)) = record else { panic!("a part") };
        assert_eq!(part.pieces, [PartPiece { segment: 1, offset: 2, len: 3 }]);
    }
}
