//! Formats of files that hold a disk without being its bytes: recognised by content, in this file
//! only.

use std::path::Path;

use crate::base::{Error, ErrorCode, Result};

/// The disk images that are accepted for storing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskFormats {
    /// Raw ones. A file in another format would be stored as a disk that boots nowhere.
    #[default]
    RawOnly,
    /// Every one: its bytes are the disk, whatever they are.
    AsRaw,
}

/// Bytes from the start of a file that recognition looks at.
pub const HEAD_LEN: usize = 512;
/// Bytes before the end of a file that recognition looks at: a fixed VHD and a DMG have a footer
/// and no header.
pub const TAIL_LEN: usize = 512;

/// The format of a file that holds a disk and is not raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
    /// bzip2.
    Bzip2,
    /// LZ4 frames.
    Lz4,
    /// 7-Zip.
    SevenZip,
    /// ZIP.
    Zip,
    /// An OVA: a tar file with disks, of which the first member describes the machine.
    Ova,
    /// Another tar file.
    Tar,
    /// The first version of QEMU's format.
    Qcow,
    /// QEMU's format.
    Qcow2,
    /// QEMU's enhanced disk.
    Qed,
    /// VirtualBox.
    Vdi,
    /// VMware: extents with their description.
    Vmdk,
    /// VMware: the description alone, a text that names the files with the disk's bytes.
    VmdkDescriptor,
    /// Virtual PC and Azure.
    Vhd,
    /// Virtual PC and Azure, with a fixed size: a raw disk and a footer of 512 bytes.
    FixedVhd,
    /// Hyper-V.
    Vhdx,
    /// Parallels.
    Parallels,
    /// macOS.
    Dmg,
}

impl DiskFormat {
    /// Recognises a format by at most [`HEAD_LEN`] bytes from the start of a file and [`TAIL_LEN`]
    /// bytes before its end, as far as they are known. `None` for raw disks and all else.
    ///
    /// A raw disk may begin with any bytes, so a format that is recognised is a guess. The
    /// signatures are four bytes or longer, but for the three of gzip; a boot sector has code in
    /// their place.
    pub fn recognise(head: &[u8], tail: &[u8]) -> Option<Self> {
        let by_head = match head {
            [0x1F, 0x8B, 8, ..] => Self::Gzip,
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // Frames of data, and skippable frames.
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Self::Bzip2,
            [0x04, 0x22, 0x4D, 0x18, ..] => Self::Lz4,
            [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => Self::SevenZip,
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            [b'Q', b'F', b'I', 0xFB, 0, 0, 0, 1, ..] => Self::Qcow,
            [b'Q', b'F', b'I', 0xFB, ..] => Self::Qcow2,
            [b'Q', b'E', b'D', 0, ..] => Self::Qed,
            [b'K', b'D', b'M', b'V', ..] | [b'C', b'O', b'W', b'D', ..] => Self::Vmdk,
            _ if begins_with(head, b"# Disk DescriptorFile") => Self::VmdkDescriptor,
            _ if head.starts_with(b"conectix") => Self::Vhd,
            _ if head.starts_with(b"vhdxfile") => Self::Vhdx,
            _ if head.starts_with(b"WithoutFreeSpace") || head.starts_with(b"WithouFreSpacExt") => {
                Self::Parallels
            }
            // Before it is text that each writer words otherwise.
            _ if head.get(64..68) == Some(&[0x7F, 0x10, 0xDA, 0xBE]) => Self::Vdi,
            _ if head.get(257..262) == Some(b"ustar") => {
                let name = head.split(|byte| *byte == 0).next().unwrap_or_default();
                if name.ends_with(b".ovf") { Self::Ova } else { Self::Tar }
            }
            _ => return Self::by_tail(tail),
        };
        Some(by_head)
    }

    fn by_tail(tail: &[u8]) -> Option<Self> {
        let footer = tail.last_chunk::<TAIL_LEN>()?;
        // Cookie, any features, version 1.0 of the format.
        if footer.starts_with(b"conectix") && footer[12..16] == [0, 1, 0, 0] {
            return Some(Self::FixedVhd);
        }
        // Signature, version 4, length of the footer.
        let is_dmg = footer.starts_with(b"koly") && footer[4..12] == [0, 0, 0, 4, 0, 0, 2, 0];
        is_dmg.then_some(Self::Dmg)
    }

    /// The name in facts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
            Self::SevenZip => "7z",
            Self::Zip => "zip",
            Self::Ova => "ova",
            Self::Tar => "tar",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vdi => "vdi",
            Self::Vmdk => "vmdk",
            Self::VmdkDescriptor => "vmdk descriptor",
            Self::Vhd => "vhd",
            Self::FixedVhd => "vhd, fixed",
            Self::Vhdx => "vhdx",
            Self::Parallels => "parallels",
            Self::Dmg => "dmg",
        }
    }

    /// A noun phrase for a file of this format.
    pub fn described(self) -> &'static str {
        match self {
            Self::Gzip => "gzip data",
            Self::Xz => "xz data",
            Self::Zstd => "zstd data",
            Self::Bzip2 => "bzip2 data",
            Self::Lz4 => "lz4 data",
            Self::SevenZip => "a 7z file",
            Self::Zip => "a zip file",
            Self::Ova => "an OVA, a machine in a tar file",
            Self::Tar => "a tar file that is not compressed",
            Self::Qcow => "a qcow disk image",
            Self::Qcow2 => "a qcow2 disk image",
            Self::Qed => "a QED disk image",
            Self::Vdi => "a VDI disk image",
            Self::Vmdk => "a VMDK disk image",
            Self::VmdkDescriptor => "the description of a VMDK disk image",
            Self::Vhd => "a VHD disk image",
            Self::FixedVhd => "a fixed VHD disk image",
            Self::Vhdx => "a VHDX disk image",
            Self::Parallels => "a Parallels disk image",
            Self::Dmg => "a DMG disk image",
        }
    }

    /// A command that makes a raw disk of the file `FILE`. The format is named where QEMU itself
    /// would not recognise it: it takes a fixed VHD for raw.
    pub fn conversion(self) -> &'static str {
        match self {
            Self::Gzip => "gzip -dc FILE > disk.raw",
            Self::Xz => "xz -dc FILE > disk.raw",
            Self::Zstd => "zstd -dc FILE > disk.raw",
            Self::Bzip2 => "bzip2 -dc FILE > disk.raw",
            Self::Lz4 => "lz4 -dc FILE > disk.raw",
            Self::SevenZip => "7z x FILE",
            Self::Zip => "unzip FILE",
            Self::Ova => "tar -xf FILE && qemu-img convert -O raw -f vmdk DISK.vmdk disk.raw",
            Self::Tar => "tar -xSf FILE",
            Self::Qcow => "qemu-img convert -O raw -f qcow FILE disk.raw",
            Self::Qcow2 => "qemu-img convert -O raw -f qcow2 FILE disk.raw",
            Self::Qed => "qemu-img convert -O raw -f qed FILE disk.raw",
            Self::Vdi => "qemu-img convert -O raw -f vdi FILE disk.raw",
            Self::Vmdk | Self::VmdkDescriptor => "qemu-img convert -O raw -f vmdk FILE disk.raw",
            Self::Vhd | Self::FixedVhd => "qemu-img convert -O raw -f vpc FILE disk.raw",
            Self::Vhdx => "qemu-img convert -O raw -f vhdx FILE disk.raw",
            Self::Parallels => "qemu-img convert -O raw -f parallels FILE disk.raw",
            Self::Dmg => "qemu-img convert -O raw -f dmg FILE disk.raw",
        }
    }

    /// Whether the disk image itself has this format. Other formats wrap any kind of file.
    pub fn is_of_disks(self) -> bool {
        match self {
            Self::Gzip
            | Self::Xz
            | Self::Zstd
            | Self::Bzip2
            | Self::Lz4
            | Self::SevenZip
            | Self::Zip
            | Self::Tar => false,
            Self::Ova
            | Self::Qcow
            | Self::Qcow2
            | Self::Qed
            | Self::Vdi
            | Self::Vmdk
            | Self::VmdkDescriptor
            | Self::Vhd
            | Self::FixedVhd
            | Self::Vhdx
            | Self::Parallels
            | Self::Dmg => true,
        }
    }

    /// The error of a disk image `path` in this format, with the command that converts it as the
    /// fact `convert_with`.
    pub(super) fn refused(self, path: &Path) -> Error {
        Error::unsupported("the disk image is not raw")
            .code_as(ErrorCode::DiskImageNotRaw)
            .at("path", path.display())
            .at("format", self.name())
            .converted_by(self.conversion())
    }
}

/// Whether `bytes` begin with the ASCII text, in upper or lower case.
fn begins_with(bytes: &[u8], text: &[u8]) -> bool {
    bytes.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text))
}

/// Recognises the format of `len` bytes that `read` fills buffers from, by offset.
pub fn recognise_format(
    len: u64,
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
) -> Result<Option<DiskFormat>> {
    let (mut head, mut tail) = ([0; HEAD_LEN], [0; TAIL_LEN]);
    let head = &mut head[..len.min(HEAD_LEN as u64) as usize];
    read(0, head)?;
    let tail = &mut tail[..len.min(TAIL_LEN as u64) as usize];
    read(len - tail.len() as u64, tail)?;
    Ok(DiskFormat::recognise(head, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(name: &str) -> Vec<u8> {
        let mut header = vec![0; HEAD_LEN];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[257..262].copy_from_slice(b"ustar");
        header
    }

    fn vdi() -> Vec<u8> {
        let mut header = b"<<< Oracle VM VirtualBox Disk Image >>>\n".to_vec();
        header.resize(64, 0);
        header.extend_from_slice(&[0x7F, 0x10, 0xDA, 0xBE]);
        header
    }

    #[test]
    fn formats_are_recognised_by_their_signatures() {
        for (head, format) in [
            (b"\x1F\x8B\x08\0".to_vec(), DiskFormat::Gzip),
            (b"\xFD7zXZ\0\0\x04".to_vec(), DiskFormat::Xz),
            (b"\x28\xB5\x2F\xFD\x24".to_vec(), DiskFormat::Zstd),
            (b"\x5E\x2A\x4D\x18\0".to_vec(), DiskFormat::Zstd),
            (b"BZh91AY&SY".to_vec(), DiskFormat::Bzip2),
            (b"\x04\x22\x4D\x18\x64".to_vec(), DiskFormat::Lz4),
            (b"7z\xBC\xAF\x27\x1C\0\x04".to_vec(), DiskFormat::SevenZip),
            (b"PK\x03\x04\x14".to_vec(), DiskFormat::Zip),
            (tar_of("machine.ovf"), DiskFormat::Ova),
            (tar_of("disk.raw"), DiskFormat::Tar),
            (b"QFI\xFB\0\0\0\x01".to_vec(), DiskFormat::Qcow),
            (b"QFI\xFB\0\0\0\x02".to_vec(), DiskFormat::Qcow2),
            (b"QFI\xFB\0\0\0\x03".to_vec(), DiskFormat::Qcow2),
            (b"QED\0\0\0\x01\0".to_vec(), DiskFormat::Qed),
            (vdi(), DiskFormat::Vdi),
            (b"KDMV\x01\0\0\0".to_vec(), DiskFormat::Vmdk),
            (b"COWD\x01\0\0\0".to_vec(), DiskFormat::Vmdk),
            (b"# Disk DescriptorFile\nversion=1\n".to_vec(), DiskFormat::VmdkDescriptor),
            (b"# disk descriptorfile\r\n".to_vec(), DiskFormat::VmdkDescriptor),
            (b"conectix\0\0\0\x02".to_vec(), DiskFormat::Vhd),
            (b"vhdxfileQ\0E\0".to_vec(), DiskFormat::Vhdx),
            (b"WithoutFreeSpace".to_vec(), DiskFormat::Parallels),
            (b"WithouFreSpacExt".to_vec(), DiskFormat::Parallels),
        ] {
            assert_eq!(DiskFormat::recognise(&head, &[]), Some(format), "{head:?}");
        }
    }

    #[test]
    fn a_fixed_vhd_and_a_dmg_are_recognised_by_their_footers() {
        let mut footer = [0; TAIL_LEN];
        footer[..16].copy_from_slice(b"conectix\0\0\0\x02\0\x01\0\0");
        assert_eq!(DiskFormat::recognise(&[0; 512], &footer), Some(DiskFormat::FixedVhd));
        footer[12] = 9;
        assert_eq!(DiskFormat::recognise(&[0; 512], &footer), None, "another version");
        footer[..12].copy_from_slice(b"koly\0\0\0\x04\0\0\x02\0");
        assert_eq!(DiskFormat::recognise(&[], &footer), Some(DiskFormat::Dmg));
    }

    #[test]
    fn disks_that_are_raw_belong_to_no_format() {
        let mut boot_sector = [0; 512];
        boot_sector[..3].copy_from_slice(&[0xEB, 0x63, 0x90]);
        boot_sector[510..].copy_from_slice(&[0x55, 0xAA]);
        for head in [&[][..], &[0; 512], &boot_sector, b"BZh", b"QF", b"LUKS\xBA\xBE\0\x02"] {
            assert_eq!(DiskFormat::recognise(head, head), None, "{head:?}");
        }
    }

    #[test]
    fn every_format_has_the_command_that_helps() {
        assert!(DiskFormat::Xz.conversion().starts_with("xz -d"));
        for format in [DiskFormat::FixedVhd, DiskFormat::Vdi, DiskFormat::VmdkDescriptor] {
            assert!(format.conversion().starts_with("qemu-img convert -O raw -f"));
        }
    }
}
