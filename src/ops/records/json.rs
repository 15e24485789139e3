//! The JSON of records: its members, and their conversion from and to the types of the ports, which
//! do not know that they are written down.
//!
//! Members keep their names, because a task file may be of an earlier version.

use serde::{Deserialize, Serialize};

use crate::image::SnapshotBegun;
use crate::object::{PartPiece, UploadBegun, UploadIntent, UploadPart};

/// A type of a port and the JSON that stands for it.
macro_rules! record {
    ($name:ident of $port:ident { $($(#[$serde:meta])* $member:ident: $type:ty,)* }) => {
        #[derive(Serialize, Deserialize)]
        pub(super) struct $name {
            $($(#[$serde])* $member: $type,)*
        }

        impl From<&$port> for $name {
            fn from($port { $($member,)* }: &$port) -> Self {
                Self { $($member: $member.to_record(),)* }
            }
        }

        impl From<$name> for $port {
            fn from($name { $($member,)* }: $name) -> Self {
                Self { $($member: FromRecord::from_record($member),)* }
            }
        }
    };
}

/// A member of a port's type that is written down as `T`.
trait ToRecord<T> {
    fn to_record(&self) -> T;
}

/// A member of a port's type that is made of a `T`.
trait FromRecord<T> {
    fn from_record(record: T) -> Self;
}

impl<T: Clone> ToRecord<T> for T {
    fn to_record(&self) -> T {
        self.clone()
    }
}

impl<T> FromRecord<T> for T {
    fn from_record(record: T) -> Self {
        record
    }
}

impl ToRecord<Vec<PieceRecord>> for Vec<PartPiece> {
    fn to_record(&self) -> Vec<PieceRecord> {
        self.iter().map(PieceRecord::from).collect()
    }
}

impl FromRecord<Vec<PieceRecord>> for Vec<PartPiece> {
    fn from_record(record: Vec<PieceRecord>) -> Self {
        record.into_iter().map(PartPiece::from).collect()
    }
}

record!(IntentRecord of UploadIntent {
    endpoint: String,
    region: String,
    bucket: String,
    key: String,
    profile: Option<String>,
    started: String,
});

record!(UploadRecord of UploadBegun {
    endpoint: String,
    region: String,
    bucket: String,
    key: String,
    upload_id: String,
    part_size: u64,
    checksum: String,
    options: String,
    profile: Option<String>,
    #[serde(default, rename = "stretches", skip_serializing_if = "Vec::is_empty")]
    segments: Vec<u32>,
});

record!(PieceRecord of PartPiece {
    #[serde(rename = "stretch")]
    segment: u16,
    offset: u64,
    len: u64,
});

record!(PartRecord of UploadPart {
    number: u32,
    len: u64,
    checksum: String,
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<PieceRecord>,
});

record!(SnapshotRecord of SnapshotBegun {
    volume: u16,
    snapshot_id: String,
    attempt: u32,
    ebs_endpoint: String,
    ec2_endpoint: String,
    region: String,
    profile: Option<String>,
});
