#!/usr/bin/env python3
"""An independent reader of amibin archives, written from format-spec/ alone.

It reads an archive in two ways that share only the parsers of single structures (amibin_parts.py):
Ranged follows the index (F, R, S, cells), Stream goes forward only and derives everything itself.
"Section n", or just a number, means section n of format-spec/container.md.
"""
import argparse
import array
import collections
import hashlib
import json
import os
import struct
import sys

import amibin_vectors
from amibin_parts import (  # noqa: F401 (ZSTD is for the tests)
    ZSTD, WINDOW_SLOTS, WINDOW_BLOCKS, BLOCK, FRAME_MAGIC, RECORD_MAGIC, TABLE_END, MAX_VOLUMES, MAX_VOLUME,
    MAX_IMAGE_JSON, MAX_FORMAT_TXT, MAX_META, MAX_C, MAX_S, MAX_R, MAX_MANIFEST, MAX_FRAMES, Corrupt, Unsupported,
    Entry, Foreign, Meta, Window, SlotEntry, WindowEntry, FrameLog, ImageJson, Manifest, Source, Volume, cell_content,
    check_bits, check_cell, check_cut, check_version, content_root, differ, ends_with_table, inflate, is_foreign,
    max_frame, need, open_frame, open_prologue, parse_cell, popcount, prologue_sizes, read_extras, read_footer,
    read_frame, read_place, sha256, tar_value, whole_record)


# ---- reader 1: by ranges

class Ranged:
    def __init__(self, file):
        self.file, self.size = file, file.seek(0, 2)
        try:
            self.find_footer()
        except Corrupt:
            file.seek(0)
            if is_foreign(file):
                raise Unsupported("byte 0: this is not an archive")
            raise
        self.read_root()
        self.check_tiling()
        buf = b"".join(self.open_meta(meta) for meta in self.groups[-1])
        self.image_json = open_prologue(buf)
        image = ImageJson(self.image_json)
        need(image.names == [v.name for v in self.volumes], "volume names of the manifest are not those of image.json")
        for volume in self.volumes:
            image.check_size(volume.name, volume.size)
        content = content_root(self.image_json, [(v[1], v[5]) for v in self.manifest.volumes])
        need(content == self.content_root == self.manifest.content_root, "content root does not match")

    def at(self, off, n):
        need(off + n <= self.size, "byte %d: %d bytes run past the end of the archive", off, n)
        self.file.seek(off)
        return Source(self.file, off).read(n)

    def find_footer(self):
        """3.7, last paragraph."""
        need(self.size >= 128, "byte 0: too short to be an archive")
        self.end = self.size
        if self.at(self.size - 4, 4) == TABLE_END:
            n = int.from_bytes(self.at(self.size - 9, 4), "little")
            self.end -= 17 + 8 * n
            need(n <= MAX_FRAMES and self.end >= 128, "byte %d: seek table of %d frames is not possible", self.size - 9, n)
        self.foot = self.end - 128
        self.root_off, self.root_len, self.root, self.content_root = read_footer(self.at(self.foot, 128), self.foot)
        need(self.root_off + self.root_len <= self.foot and 32 <= self.root_len <= MAX_R, "byte %d: R is not where F says", self.foot)

    def read_root(self):
        """3.5. The digest first: bytes under a wrong digest are not judged."""
        h, off = hashlib.sha256(), self.root_off
        self.file.seek(off)
        for part in Source(self.file, off).chunks(self.root_len):
            h.update(part)
        need(h.digest() == self.root, "byte %d: digest of R does not match", off)
        head = self.at(off, 32)
        prefix = read_place(head, off, "R")
        need(prefix.length == self.root_len, "byte %d: length of R is wrong", off)
        check_version(prefix, off)
        json_len, n_windows, n_meta, reserved = struct.unpack("<4I", head[16:])
        need(self.root_len == 32 + json_len + 96 * n_windows, "byte %d: length of R is wrong", off)
        need(reserved == 0 and json_len % 8 == 0, "byte %d: R is malformed", off)
        need(json_len <= MAX_MANIFEST, "byte %d: manifest of %d bytes", off, json_len)
        self.manifest = Manifest(self.at(off + 32, json_len))
        need(n_meta == len(self.manifest.metas), "byte %d: n_meta is wrong", off)
        self.volumes = [Volume(i, v[0], v[1]) for i, v in enumerate(self.manifest.volumes)]
        need(n_windows <= MAX_VOLUMES * 4096, "byte %d: %d windows", off, n_windows)
        self.table = self.at(off + 32 + json_len, 96 * n_windows)

    def check_tiling(self):
        """3.5: meta frames and windows stand in the order of section 2, without gap. Sorts them by
        volume.
        """
        self.groups, self.windows = collections.defaultdict(list), collections.defaultdict(list)
        order = []
        for meta in self.manifest.metas:
            order.append({"prologue": -1, "end": len(self.volumes)}.get(meta.role, meta.volume))
            need(order[-1] in range(-1, len(self.volumes) + (meta.role == "end")), "manifest: meta frame of unknown volume")
            self.groups[order[-1]].append(meta)
        need(sorted(order) == order and set(order) == set(range(-1, len(self.volumes) + 1)) and order.count(len(self.volumes)) == 1,
             "manifest: meta frames are not in the order of the format")
        last = (-1, -1)
        for fields in WindowEntry.iter_unpack(self.table):
            w = Window(*fields)
            where = "window %d of volume %d" % (w.window, w.volume)
            need(w.volume < len(self.volumes) and w.window * WINDOW_BLOCKS * BLOCK < self.volumes[w.volume].size, "%s: out of range", where)
            need((w.volume, w.window) > last, "%s: out of order", where)
            need(w.reserved == 0 and 1 <= w.n <= WINDOW_SLOTS and w.index_len == 72 + 44 * w.n, "%s: bad entry", where)
            self.windows[w.volume].append(w)
            last = (w.volume, w.window)
        pos = 0
        for group in range(-1, len(self.volumes) + 1):
            for meta in self.groups[group]:
                need(meta.off == pos, "byte %d: manifest has the next meta frame at %d", pos, meta.off)
                pos += meta.len
            for w in self.windows[group]:
                need(w.off == pos, "byte %d: R has the next window at %d", pos, w.off)
                pos += w.cells_len + w.index_len
            check_cut([meta.raw for meta in self.groups[group]], "meta group %d" % group)
        need(pos == self.root_off, "byte %d: R does not follow here, but at %d", pos, self.root_off)
        need(sum(m.raw for m in self.groups[-1]) <= MAX_IMAGE_JSON + MAX_FORMAT_TXT + 1024, "prologue is longer than allowed")

    def open_meta(self, meta):
        frame, where = self.at(meta.off, meta.len), "byte %d: meta frame" % meta.off
        need(sha256(frame) == meta.sha256, "%s: digest does not match", where)
        return open_frame(frame, meta.raw, where)

    def read_index(self, w):
        """3.4: the S record of a window, as (offset of the cell, its inflated length, entry)."""
        at, volume = w.off + w.cells_len, self.volumes[w.volume]
        where = "byte %d: index of window %d of volume %d" % (at, w.window, w.volume)
        s = self.at(at, w.index_len)
        need(sha256(s) == w.sha, "%s: digest does not match", where)
        whole_record(s, "S", at)
        fields = struct.unpack("<HHIIIQ32s", s[16:72])
        out, pos, last, blocks = [], w.off, -1, 0
        for values in SlotEntry.iter_unpack(s[72:]):
            e = Entry(*values)
            need(e.slot > last, "%s: slots are not ascending", where)
            raw = check_bits(volume, w.window, e.slot, e.present, e.zero, e.fill, where)
            head = 72 + 32 * popcount(e.present & ~e.zero)
            need(head < e.cell_len <= head + max_frame(raw), "%s: cell_len of slot %d is not possible", where, e.slot)
            out.append((pos, raw, e))
            pos, last, blocks = pos + e.cell_len, e.slot, blocks + popcount(e.present)
        need(pos == at, "%s: cells do not add up to cells_len", where)
        need(fields == (w.volume, 0, w.window, w.n, blocks, w.cells_len, w.content), "%s: fields do not match", where)
        return out

    def check_header(self, volume):
        """All S records of the volume, then the implied tar header against the stored one (5.3)."""
        volume.reset()
        for w in self.windows[volume.index]:
            data = 0
            for _, raw, e in self.read_index(w):
                volume.add(w.window, e.slot, e.present, e.zero, e.fill, raw)
                data |= e.present & ~e.zero
            need(data or w.content == sha256(b""), "window %d of volume %d: content digest does not match", w.window, volume.index)
            volume.add_window(w.window, w.content, data)
        counted = (volume.name, volume.size, volume.blocks, volume.zero, volume.fill, volume.hash.digest())
        need(counted == self.manifest.volumes[volume.index], "manifest: volume %d is not what its windows say", volume.index)
        header = volume.header()
        for meta in self.groups[volume.index]:
            raw = self.open_meta(meta)
            for pos in range(0, len(raw), 512):
                need(raw[pos:pos + 512] == next(header, None),
                     "byte %d: tar header of volume %d does not match the index, at %d of the frame", meta.off, volume.index, pos)
        need(next(header, None) is None, "tar header of volume %d is shorter than the index says", volume.index)

    def read_volume(self, volume, sink=None, log=None):
        """Header, windows and cells of one volume, everything checked."""
        self.check_header(volume)
        if sink:
            sink.begin(volume)
        for meta in self.groups[volume.index] if log else ():
            log.add(meta.len, meta.raw)
        for w in self.windows[volume.index]:
            content = hashlib.sha256()
            for at, raw, e in self.read_index(w):
                cell = self.at(at, e.cell_len)
                head = 72 + 32 * popcount(e.present & ~e.zero)
                need(sha256(cell[:head]) == e.sha, "byte %d: digest of the C record does not match", at)
                c, digests = parse_cell(cell[:head], volume, at)
                need((c.window, c.slot, c.present, c.zero, c.fill, c.frame_len)
                     == (w.window, e.slot, e.present, e.zero, e.fill, e.cell_len - head), "byte %d: C record is not what S says", at)
                check_cell(c, digests, cell[head:], volume, at, sink)
                content.update(cell_content(c, digests))
                if log:
                    log.add(head)
                    log.add(c.frame_len, raw)
            need(content.digest() == w.content, "window %d of volume %d: content digest does not match", w.window, volume.index)
            if log:
                log.add(w.index_len)
        if sink:
            sink.end(volume)

    def read_all(self, sink=None):
        log = FrameLog()
        for meta in self.groups[-1]:
            log.add(meta.len, meta.raw)
        for volume in self.volumes:
            self.read_volume(volume, sink, log)
        end = self.groups[len(self.volumes)][0]
        need(end.raw == 1024 and self.open_meta(end) == bytes(1024), "byte %d: tar trailer is wrong", end.off)
        log.add(end.len, end.raw)
        log.add(self.root_len)
        self.file.seek(self.root_off + self.root_len)
        src = Source(self.file, self.root_off + self.root_len)
        _, critical = read_extras(src, log)
        need(src.pos == self.foot + 16, "byte %d: a footer stands before the last one", src.pos - 16)
        if critical:
            raise critical
        log.add(128)
        need((log.count <= MAX_FRAMES) == (self.end < self.size), "byte %d: seek table is missing or too many", self.end)
        if self.end < self.size:
            self.file.seek(self.end)
            src = Source(self.file, self.end)
            log.check(src)
            need(src.pos == self.size, "byte %d: bytes behind the seek table", src.pos)
        return self


# ---- reader 2: from a stream

class Stream:
    """Forward only. No value is taken from R, F or T: all are derived on the way and then compared
    with them (8).
    """

    def __init__(self, file):
        self.src, self.log, self.metas = Source(file), FrameLog(), []
        self.table, self.n_windows, self.volumes = hashlib.sha256(), 0, []

    def meta(self, role, volume=None):
        """One meta frame. Its digest is known only from R, at the end; until then only its size
        bounds it.
        """
        off = self.src.pos
        where = "byte %d: meta frame (%s)" % (off, role)
        frame, raw = read_frame(self.src, MAX_META, where)
        need(raw or not self.metas, "%s: it is empty", where)
        self.metas.append(Meta(off, len(frame), raw, sha256(frame), role, volume))
        self.log.add(len(frame), raw)
        return inflate(frame, raw, where)

    def read_all(self, sink=None):
        if self.src.peek(4) != FRAME_MAGIC:
            raise Unsupported("byte 0: this is not an archive")
        try:
            buf = self.meta("prologue")
        except Foreign as error:
            raise Unsupported("byte 0: this is not an archive: %s" % error)
        if not buf.startswith(b"image.json\0"):
            raise Unsupported("byte 0: this is not an archive")
        while len(buf) < prologue_sizes(buf)[1]:
            need(len(buf) % MAX_META == 0, "byte %d: metadata is not cut into frames of 1 MiB", self.src.pos)
            buf += self.meta("prologue")
        self.image_json = open_prologue(buf)
        self.image = ImageJson(self.image_json)
        for index, name in enumerate(self.image.names):
            volume, digest = self.volume_header(index, name)
            if sink:
                sink.begin(volume)
            self.volume_data(volume, sink)
            h = hashlib.sha256()
            for block in volume.header():
                h.update(block)
            need(h.digest() == digest, "volume %d: tar header is not what its cells say", index)
            self.volumes.append((name, volume.size, volume.blocks, volume.zero, volume.fill, volume.hash.digest()))
            volume.slots, volume.masks = array.array("L"), bytearray()
            if sink:
                sink.end(volume)
        need(self.meta("end") == bytes(1024), "byte %d: tar trailer is wrong", self.metas[-1].off)
        self.root_and_footer()
        return self

    def volume_header(self, index, name):
        """5.2: follow the chain of extension blocks; keep only the digest, for comparison when the
        cells are known.
        """
        where, more, blocks, limit, h = "tar header of volume %d" % index, 1, 0, 1, hashlib.sha256()
        while more:
            raw = self.meta("volume", index)
            h.update(raw)
            need(len(raw) % 512 == 0, "%s: not made of 512 bytes", where)
            for pos in range(0, len(raw), 512):
                need(more, "%s: bytes behind its end", where)
                if blocks == 0:
                    size = tar_value(raw[483:495], where)
                    need(512 <= size <= MAX_VOLUME and size % 512 == 0, "%s: volume of %d bytes", where, size)
                    limit = 1 + (-(-size // BLOCK) // 2 + 2) // 21 + 1
                    need(raw[:100] == (name + ".raw").encode().ljust(100, b"\0"), "%s: name is not %s.raw", where, name)
                more, blocks = raw[pos + (504 if blocks else 482)], blocks + 1
                need(more <= 1 and blocks <= limit, "%s: map is longer than the volume can need", where)
            need(not more or len(raw) == MAX_META, "%s: metadata is not cut into frames of 1 MiB", where)
        self.image.check_size(name, size)
        return Volume(index, name, size), h.digest()

    def volume_data(self, volume, sink):
        """Windows of one volume: cells, then the S record they imply. The next meta frame ends the
        volume.
        """
        last_window = -1
        while self.src.peek(4) != FRAME_MAGIC:
            at = self.src.pos
            window, entries, content, start, blocks, data = None, [], hashlib.sha256(), at, 0, 0
            while True:
                head = self.src.read(16)
                prefix = read_place(head, at, "CS")
                check_version(prefix, at)
                kind, length = prefix.kind, prefix.length
                need(length <= (MAX_C if kind == "C" else MAX_S), "byte %d: %s record of %d bytes", at, kind, length)
                record = head + self.src.read(length - 16)
                if kind == "S":
                    break
                c, digests = parse_cell(record, volume, at)
                need(c.window == window or window is None and c.window > last_window, "byte %d: window %d is out of order", at, c.window)
                need(not entries or c.slot > entries[-1].slot, "byte %d: slot %d is out of order", at, c.slot)
                check_cell(c, digests, self.src.read(c.frame_len), volume, at, sink)
                window = c.window
                entries.append(Entry(length + c.frame_len, c.slot, c.present, c.zero, c.fill, sha256(record)))
                volume.add(window, c.slot, c.present, c.zero, c.fill, c.raw_len)
                content.update(cell_content(c, digests))
                blocks, data = blocks + popcount(c.present), data | c.present & ~c.zero
                self.log.add(length)
                self.log.add(c.frame_len, c.raw_len)
                at = self.src.pos
            need(entries, "byte %d: window without cells in volume %d", at, volume.index)
            want = struct.pack("<4sI4scBHHHIIIQ32s", RECORD_MAGIC, 64 + 44 * len(entries), b"AMIB", b"S", 1, 0, volume.index, 0, window,
                               len(entries), blocks, at - start, content.digest()) + b"".join(SlotEntry.pack(*e) for e in entries)
            need(record == want, "byte %d: S record of window %d of volume %d is not what the cells say", at + differ(record, want),
                 window, volume.index)
            volume.add_window(window, content.digest(), data)
            self.table.update(WindowEntry.pack(volume.index, 0, window, start, at - start, len(record), len(entries),
                                               sha256(record), content.digest()))
            self.n_windows, last_window = self.n_windows + 1, window
            self.log.add(len(record))

    def root_and_footer(self):
        src, at = self.src, self.src.pos
        head = src.read(16)
        prefix = read_place(head, at, "R")
        root_len = prefix.length
        need(32 <= root_len <= MAX_R, "byte %d: no R record", at)
        if prefix.version != 1:
            self.newer_root(prefix, head, at)
        head += src.read(16)
        json_len, n_windows, n_meta, reserved = struct.unpack("<4I", head[16:])
        need(json_len <= MAX_MANIFEST and json_len % 8 == 0 and reserved == 0, "byte %d: R is malformed", at)
        need(root_len == 32 + json_len + 96 * n_windows, "byte %d: length of R is wrong", at)
        blob = src.read(json_len)
        h, table = hashlib.sha256(head + blob), hashlib.sha256()
        need(n_windows <= MAX_VOLUMES * 4096, "byte %d: %d windows", at, n_windows)
        for part in src.chunks(96 * n_windows):
            h.update(part)
            table.update(part)
        self.root = h.digest()
        self.log.add(root_len)
        # R is judged only when F has confirmed its digest; so a flipped bit in it is corrupt, never
        # "unsupported".
        footer, critical = self.footer(at, root_len)
        check_version(prefix, at)
        manifest = Manifest(blob)
        if critical:
            raise critical
        need(n_windows == self.n_windows and table.digest() == self.table.digest(),
             "byte %d: table of %d windows is not what the stream says", at, n_windows)
        need(manifest.metas == self.metas and n_meta == len(self.metas), "manifest: meta frames are not those of the stream")
        need(manifest.volumes == self.volumes, "manifest: volumes are not those of the stream")
        self.content_root = content_root(self.image_json, [(v[1], v[5]) for v in self.volumes])
        need(footer[3] == manifest.content_root == self.content_root, "content root does not match")
        self.log.add(128)
        if self.log.count <= MAX_FRAMES:
            self.log.check(src)
        need(not src.file.read(1), "byte %d: bytes behind the end", src.pos)

    def footer(self, at, root_len):
        """9: what stands behind R. A footer of another version is one only at the end of the
        archive.
        """
        src = self.src
        head, critical = read_extras(src, self.log)
        foot = src.pos - 16
        need(int.from_bytes(head[4:8], "little") == 120, "byte %d: footer of another length", foot)
        try:
            footer = read_footer(head + src.read(112), foot)
        except Unsupported:
            need(ends_with_table(src), "byte %d: a footer before the end of the archive", foot)
            raise
        need(footer[:3] == (at, root_len, self.root), "byte %d: footer is not that of R at %d", foot, at)
        return footer, critical

    def newer_root(self, prefix, head, at):
        """R of another version: F confirms its digest, then it is unsupported."""
        h = hashlib.sha256(head)
        for part in self.src.chunks(prefix.length - 16):
            h.update(part)
        self.root = h.digest()
        self.footer(at, prefix.length)
        check_version(prefix, at)


# ---- sinks for blocks

class Writer:
    """Sparse raw files: data and zero blocks are written, fill and absent blocks stay holes."""

    def __init__(self, path_of):
        self.path_of, self.made, self.file = path_of, [], None

    def create(self, path):
        file = open(path, "xb")  # exclusive: an existing file or link is never followed or overwritten
        self.made.append(path)
        return file

    def begin(self, volume):
        self.file = self.create(self.path_of(volume))
        self.file.truncate(volume.size)

    def block(self, volume, index, kind, data):
        if kind != "fill":
            self.file.seek(index * BLOCK)
            self.file.write(data)

    def end(self, volume):
        self.file.close()

    def undo(self):
        if self.file:
            self.file.close()
        for path in self.made:
            os.unlink(path)


def restore(writer, work):
    try:
        work()
    except BaseException:
        writer.undo()
        raise


def run(args):
    if args.command == "vectors":
        return amibin_vectors.run(args.dir, (Ranged, Stream))
    if args.file == "-":
        done = Stream(sys.stdin.buffer).read_all()
        print("ok root=%s content_root=%s" % (done.root.hex(), done.content_root.hex()))
        return 0
    with open(args.file, "rb") as file:
        if args.command == "verify":
            done = (Stream if args.stream else Ranged)(file).read_all()
            print("ok root=%s content_root=%s" % (done.root.hex(), done.content_root.hex()))
            return 0
        archive = Ranged(file)
        if args.command == "inspect":
            json.dump({"size": archive.size, "root": archive.root.hex(), "content_root": archive.content_root.hex(),
                       "image_json_sha256": sha256(archive.image_json).hex(), "seek_table": archive.end < archive.size,
                       "windows": len(archive.table) // 96, "manifest": archive.manifest.json}, sys.stdout, indent=2)
            print()
        elif args.command == "unpack":
            os.makedirs(args.dir, exist_ok=True)
            writer = Writer(lambda volume: os.path.join(args.dir, volume.name + ".raw"))

            def work():
                with writer.create(os.path.join(args.dir, "image.json")) as out:
                    out.write(archive.image_json)
                archive.read_all(writer)
            restore(writer, work)
        else:
            found = [v for v in archive.volumes if args.name in (v.name, v.name + ".raw")]
            if not found:
                sys.stderr.write("amibin: no volume %s; there are: %s\n" % (args.name, ", ".join(v.name for v in archive.volumes)))
                return 2
            writer = Writer(lambda volume: args.out)
            restore(writer, lambda: archive.read_volume(found[0], writer))
    return 0


def main(argv=None):
    parser = argparse.ArgumentParser(prog="amibin.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command, names in (("inspect", ["file"]), ("verify", ["file"]), ("unpack", ["file", "dir"]),
                           ("extract", ["file", "name", "out"]), ("vectors", ["dir"])):
        sub = commands.add_parser(command)
        for name in names:
            sub.add_argument(name)
        if command == "verify":
            sub.add_argument("--stream", action="store_true", help="read forward only; implied by FILE -")
    args = parser.parse_args(argv)
    if getattr(args, "file", "") == "-" and args.command != "verify":
        parser.error("only verify reads from a pipe")
    try:
        return run(args)
    except (Corrupt, Unsupported) as error:
        sys.stderr.write("amibin: %s: %s\n" % (error.outcome, error))
        return error.code
    except OSError as error:
        sys.stderr.write("amibin: %s\n" % error)
        return 6


if __name__ == "__main__":
    sys.exit(main())
