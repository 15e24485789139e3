//! Reads an object front to back, some pieces ahead.

use std::collections::VecDeque;
use std::io::Read;

use super::ObjectReader;

/// A stream of an object's bytes. Holds at most `depth` pieces.
pub struct ReadAhead<'a> {
    reader: &'a dyn ObjectReader,
    piece: u64,
    depth: usize,
    /// Pieces that were asked for, and are not taken yet.
    ahead: VecDeque<(u64, u64)>,
    asked: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl<'a> ReadAhead<'a> {
    /// Reads `reader` in pieces of `piece` bytes, `depth` of them ahead.
    pub fn new(reader: &'a dyn ObjectReader, piece: u64, depth: usize) -> Self {
        Self { reader, piece: piece.max(1), depth: depth.max(1), ahead: VecDeque::new(), asked: 0, buffer: Vec::new(), at: 0 }
    }

    fn next_piece(&mut self) -> std::io::Result<()> {
        while self.ahead.len() < self.depth && self.asked < self.reader.len() {
            let len = self.piece.min(self.reader.len() - self.asked);
            self.reader.prefetch(self.asked, len);
            self.ahead.push_back((self.asked, len));
            self.asked += len;
        }
        self.buffer.clear();
        self.at = 0;
        if let Some((offset, len)) = self.ahead.pop_front() {
            self.buffer.resize(len as usize, 0);
            self.reader.read_at(offset, &mut self.buffer).map_err(std::io::Error::other)?;
        }
        Ok(())
    }
}

impl Read for ReadAhead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.buffer.len() {
            self.next_piece()?;
        }
        let rest = &self.buffer[self.at..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryReader;
    use super::*;

    #[test]
    fn all_bytes_come_in_order_whatever_the_pieces() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        let reader = MemoryReader::new("m", bytes.clone());
        for (piece, depth) in [(1, 1), (7, 3), (999, 2), (1000, 1), (4096, 4)] {
            let mut read = Vec::new();
            ReadAhead::new(&reader, piece, depth).read_to_end(&mut read).expect("reads");
            assert_eq!(read, bytes, "{piece} {depth}");
        }
    }
}
