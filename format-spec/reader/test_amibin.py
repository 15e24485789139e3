"""Tests of the reader, with a tiny writer of its own (composed from format-spec/, sharing nothing
with the reader).

Run: python3 format-spec/reader/test_amibin.py
"""
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import amibin  # noqa: E402
import amibin_vectors  # noqa: E402

B = 524288
GIB = 1 << 30


def H(data):
    return hashlib.sha256(data).digest()


def pack(data):
    """One zstd frame by section 3.1: with content size and checksum."""
    if amibin.ZSTD.__name__ == "zstandard":
        return amibin.ZSTD.ZstdCompressor(level=1, write_checksum=True, write_content_size=True).compress(data)
    parameter = amibin.ZSTD.CompressionParameter
    return amibin.ZSTD.compress(data, options={parameter.checksum_flag: 1, parameter.content_size_flag: 1})


def raw_frame(declared, blocks, checksum=b"\0\0\0\0"):
    """A frame by hand: (type, size, bytes) blocks under a header with any declaration."""
    out = bytes.fromhex("28b52ffd") + b"\xa4" + struct.pack("<I", declared)
    for i, (kind, size, data) in enumerate(blocks):
        out += (size << 3 | kind << 1 | (i == len(blocks) - 1)).to_bytes(3, "little") + data
    return out + checksum


def record(kind, body, version=1, flags=0):
    return struct.pack("<II4sBBH", 0x184D2A5B, 8 + len(body), b"AMIB", ord(kind), version, flags) + body


def num(n):
    return ("%011o" % n).encode() + b"\0" if n < 8 ** 11 else b"\x80" + n.to_bytes(11, "big")


def tar_head(name, size, kind, patch=()):
    h = bytearray(512)
    for at, value in ((0, name.encode()), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0"), (124, num(size)),
                      (136, b"00000000000\0"), (148, b" " * 8), (156, kind), (257, b"ustar  \0")) + tuple(patch):
        h[at:at + len(value)] = value
    h[148:156] = ("%06o" % sum(h)).encode() + b"\0 "
    return bytes(h)


def sparse_head(name, size, stored, present):
    runs = []
    for i in sorted(present):
        if runs and runs[-1][1] == i:
            runs[-1][1] = i + 1
        else:
            runs.append([i, i + 1])
    spans = [(a * B, min(b * B, size) - a * B) for a, b in runs]
    if not spans or sum(spans[-1]) != size:
        spans.append((size, 0))
    entries = [num(a) + num(n) for a, n in spans]
    first, rest = entries[:4], entries[4:]
    out = tar_head(name, stored, b"S", ((386, b"".join(first)), (482, bytes([bool(rest)])), (483, num(size))))
    while rest:
        part, rest = rest[:21], rest[21:]
        out += b"".join(part).ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7)
    return out


def image_for(volumes):
    return json.dumps({"Image": {"ImageId": "ami-0123456789abcdef0", "Name": "test image", "BlockDeviceMappings": [
        {"DeviceName": "/dev/sd" + chr(97 + i), "Ebs": {"SnapshotId": v[0]}} for i, v in enumerate(volumes)]},
        "Snapshots": [{"SnapshotId": v[0], "VolumeSize": -(-v[1] // GIB)} for v in volumes]}, indent=2).encode() + b"\n"


def compose(volumes, image=None, extra=b"", patch=lambda what, value, *where: value):
    """An archive of [(name, size, {block: data, or "zero", or "fill"})]. patch may change any part
    before it is sealed.
    """
    image = image_for(volumes) if image is None else image
    image = patch("image", image)
    out, frames, metas, windows, vols = bytearray(), [], [], b"", []

    def put(data, inflated=0):
        frames.append((len(data), inflated))
        out.extend(data)

    def meta(piece, role, index=None):
        for i in range(0, len(piece), 1 << 20):
            part = piece[i:i + (1 << 20)]
            frame = patch("metaframe", pack(part), role, index)
            metas.append({"off": len(out), "len": len(frame), "raw": len(part), "sha256": H(frame).hex(), "role": role})
            if index is not None:
                metas[-1]["volume"] = index
            put(frame, len(part))

    text = b"This is an amibin archive.\n"
    piece = b""
    for name, body in (("image.json", image), ("FORMAT.txt", text)):
        piece += tar_head(name, len(body), b"0") + body + bytes(-len(body) % 512)
    meta(patch("prologue", piece), "prologue")
    n_windows = 0
    for v, (name, size, blocks) in enumerate(volumes):
        def length(i):
            return max(0, min(B, size - i * B)) or B
        meta(patch("header", sparse_head(name + ".raw", size, sum(map(length, blocks)), blocks), v), "volume", v)
        content = b""
        for window in sorted({i // 32768 for i in blocks}):
            start, entries, cells, count = len(out), b"", b"", 0
            slots = sorted({i // 8 for i in blocks if i // 32768 == window})
            for slot in slots:
                present = zero = fill = 0
                raw, digests = b"", []
                for bit in range(8):
                    block = blocks.get(slot * 8 + bit)
                    if block is None:
                        continue
                    present |= 1 << bit
                    if isinstance(block, str):
                        zero |= 1 << bit
                        fill |= (block == "fill") << bit
                        raw += bytes(length(slot * 8 + bit))
                    else:
                        raw += block
                        digests.append(H(block + bytes(B - len(block))))
                frame = patch("frame", pack(raw), v, slot)
                s = slot % 4096
                c = patch("C", record("C", struct.pack("<HHIIIHHHH", v, s, window, len(frame), len(raw), present, zero, fill, 0)
                                      + H(frame) + b"".join(digests)), v, slot)
                put(c)
                put(frame, len(raw))
                entries += struct.pack("<IHHHH", len(c) + len(frame), s, present, zero, fill) + H(c)
                count += bin(present).count("1")
                if digests:
                    cells += struct.pack("<HH", s, present & ~zero) + H(b"".join(digests))
            digest = H(cells)
            if cells:
                content += struct.pack("<I", window) + digest
            body = struct.pack("<HHIIIQ", v, 0, window, len(slots), count, len(out) - start) + digest + entries
            cells_len = len(out) - start
            s_record = patch("S", record("S", body), v, window)
            put(s_record)
            windows += struct.pack("<HHIQQII", v, 0, window, start, cells_len, len(s_record), len(slots)) + H(s_record) + digest
            n_windows += 1
        states = list(blocks.values())
        vols.append({"name": name, "size": size, "blocks": len(blocks), "zero": sum(isinstance(b, str) for b in states),
                     "fill": states.count("fill"), "content": H(content).hex()})
    meta(patch("end", bytes(1024)), "end")
    root = H(b"AMIB content v1\0" + H(image) + b"".join(
        struct.pack("<HQ", i, x["size"]) + bytes.fromhex(x["content"]) for i, x in enumerate(vols)))
    manifest = {"format": "amibin", "version": 1, "features": [], "block_size": B, "cell_blocks": 8, "window_blocks": 32768,
                "codec": {"name": "zstd", "level": 1, "lib": "1.5.7"}, "writer": "test", "volumes": vols, "meta": metas,
                "content_root": root.hex()}
    blob = patch("manifest", json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    blob += b" " * (-len(blob) % 8)
    r = patch("R", record("R", struct.pack("<4I", len(blob), n_windows, len(metas), 0) + blob + windows))
    r_off = len(out)
    put(r)
    for part in [extra] if isinstance(extra, bytes) and extra else extra or []:
        put(part)
    put(patch("F", record("F", struct.pack("<QQ32s32sQ", r_off, len(r), H(r), root, len(out)) + bytes(16) + b"AMIBEND1")))
    table = b"".join(struct.pack("<II", *f) for f in frames)
    out += patch("T", struct.pack("<II", 0x184D2A5E, len(table) + 9) + table + struct.pack("<IBI", len(frames), 0, 0x8F92EAB1))
    return bytes(out)


def noise(n, seed):
    return random.Random(seed).getrandbits(8 * n).to_bytes(n, "little")


def text(n, seed):
    return (hashlib.sha256(str(seed).encode()).hexdigest().encode() * (n // 64 + 1))[:n]


RICH = [
    ("snap-aaaa0001", 20 * B + 1536, {0: text(B, 1), 1: "zero", 2: text(B, 2), 4: text(B, 3), 5: "fill", 6: text(B, 4), 8: text(B, 5),
                                      10: noise(B, 6), 12: "fill", 13: "zero", 15: text(B, 7), 17: text(B, 8), 20: text(1536, 9)}),
    ("snap-aaaa0002", 4 * GIB, {}),
    ("snap-aaaa0003", 17 * GIB, {i: text(B, i) for i in list(range(0, 160, 3)) + [32767, 32768, 32769, 34000]}),
    ("snap-aaaa0004", 3 * B, {1: "zero"}),
]
SMALL = [("snap-01", 2048, {0: text(2048, 1)}), ("snap-02", B + 512, {0: "zero", 1: b"x" * 512}), ("snap-03", 512, {}),
         ("snap-04", 9 * B, {0: "fill", 8: text(B, 4)})]


def outcome(data, reader):
    try:
        reader(io.BytesIO(data)).read_all()
    except (amibin.Corrupt, amibin.Unsupported) as error:
        return error.outcome, str(error)
    return "ok", ""


def both(data):
    return outcome(data, amibin.Ranged), outcome(data, amibin.Stream)


class OnlyForward:
    """A pipe: short reads, no seeking."""

    def __init__(self, data):
        self.file, self.random = io.BytesIO(data), random.Random(1)

    def read(self, n):
        return self.file.read(min(n, self.random.randint(1, 70000)))


class Good(unittest.TestCase):
    def lists(self, volumes, data, reader):
        sink = amibin_vectors.Collector()
        done = reader(data).read_all(sink)
        self.assertEqual(len(sink.volumes), len(volumes))
        for (name, size, blocks), got in zip(volumes, sink.volumes):
            self.assertEqual((got["name"], got["size"]), (name, size))
            for kind in ("data", "zero", "fill"):
                want = [i for i in sorted(blocks) if (blocks[i] if isinstance(blocks[i], str) else "data") == kind]
                self.assertEqual([i for first, n in got[kind] for i in range(first, first + n)], want)
            if size <= GIB:
                raw = bytearray(size)
                for i, block in blocks.items():
                    if not isinstance(block, str):
                        raw[i * B:i * B + len(block)] = block
                self.assertEqual(got["sha256"], hashlib.sha256(raw).hexdigest())
        return done

    def test_both_readers(self):
        for volumes in (RICH, SMALL, []):
            data = compose(volumes)
            a = self.lists(volumes, io.BytesIO(data), amibin.Ranged)
            b = self.lists(volumes, OnlyForward(data), amibin.Stream)
            self.assertEqual((a.root, a.content_root, a.image_json), (b.root, b.content_root, b.image_json))

    def test_long_prologue(self):
        for size in (3 << 20, (1 << 20) - 2048):
            image = json.dumps({"Snapshots": [], "more": "x" * size}).encode()
            self.assertEqual([o for o, _ in both(compose([], image))], ["ok", "ok"])

    def test_long_map(self):
        volumes = [("snap-1", 48000 * B, {i: "zero" for i in range(0, 1400, 2)})]  # 700 extents, then the closing entry
        self.assertEqual([o for o, _ in both(compose(volumes))], ["ok", "ok"])

    def test_unknown_record_is_skipped(self):
        extra = [record("X", noise(100, 1), 7, 3), record("Z", b"")]
        self.assertEqual([o for o, _ in both(compose(SMALL, extra=extra))], ["ok", "ok"])

    def test_stock_tools(self):
        """The archive of our own writer opens with zstd and tar, so this reading of section 5
        agrees with GNU tar.
        """
        if not (shutil.which("zstd") and shutil.which("tar")):
            self.skipTest("needs zstd and GNU tar")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run("zstd -dc - | tar -xSf - -C " + folder, shell=True, input=compose(RICH), check=True)
            self.assertEqual(sorted(os.listdir(folder)), sorted(["FORMAT.txt", "image.json"] + [v[0] + ".raw" for v in RICH]))
            for name, size, blocks in RICH:
                with open(os.path.join(folder, name + ".raw"), "rb") as file:
                    self.assertEqual(file.seek(0, 2), size)
                    for i in list(blocks)[::7]:
                        file.seek(i * B)
                        block = blocks[i]
                        want = block if not isinstance(block, str) else bytes(B)
                        self.assertEqual(file.read(len(want)), want)


class Commands(unittest.TestCase):
    def run_main(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = amibin.main(list(args))
            except SystemExit as stop:
                code = stop.code
        return code, out.getvalue(), err.getvalue()

    def test_commands(self):
        with tempfile.TemporaryDirectory() as folder:
            path, out = os.path.join(folder, "a.bin"), os.path.join(folder, "out")
            data = compose(RICH)
            with open(path, "wb") as file:
                file.write(data)
            self.assertEqual(json.loads(self.run_main("inspect", path)[1])["windows"], 4)
            self.assertEqual(self.run_main("verify", path)[0], 0)
            self.assertEqual(self.run_main("verify", "--stream", path)[0], 0)
            piped = subprocess.run([sys.executable, os.path.join(HERE, "amibin.py"), "verify", "-"], input=data, stdout=subprocess.PIPE)
            self.assertEqual(piped.returncode, 0)
            self.assertEqual(self.run_main("unpack", path, out)[0], 0)
            self.assertEqual(self.run_main("unpack", path, out)[0], 6)
            self.assertEqual(len(os.listdir(out)), 5)
            with open(os.path.join(out, "snap-aaaa0001.raw"), "rb") as file:
                raw = file.read()
            self.assertEqual(len(raw), 20 * B + 1536)
            self.assertEqual(raw[20 * B:], text(1536, 9))
            self.assertLess(os.stat(os.path.join(out, "snap-aaaa0003.raw")).st_blocks * 512, 60 * B)
            one = os.path.join(folder, "one")
            self.assertEqual(self.run_main("extract", path, "snap-aaaa0001", one)[0], 0)
            with open(one, "rb") as file:
                self.assertEqual(file.read(), raw)
            self.assertEqual(self.run_main("extract", path, "snap-none", one + "x")[0], 2)
            self.assertEqual(self.run_main("verify", path + "x")[0], 6)
            self.assertEqual(self.run_main("bogus")[0], 2)
            with open(path, "r+b") as file:
                file.seek(5000)
                file.write(bytes(64))
            self.assertEqual(self.run_main("verify", path)[0], 5)
            self.assertEqual(self.run_main("unpack", path, out + "2")[0], 5)
            self.assertEqual(os.listdir(out + "2") if os.path.isdir(out + "2") else [], [])

    def test_vectors(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertNotEqual(self.run_main("vectors", folder)[0], 0)
            data = compose(SMALL)
            sink = amibin_vectors.Collector()
            done = amibin.Ranged(io.BytesIO(data)).read_all(sink)
            want = {"outcome": "ok", "root": done.root.hex(), "content_root": done.content_root.hex(),
                    "image_json_sha256": H(done.image_json).hex(), "volumes": sink.volumes}
            cases = {"good": (data, want), "short": (data[:-1], {"outcome": "corrupt", "why": "cut"})}
            for name, (blob, expected) in cases.items():
                with open(os.path.join(folder, name + ".bin"), "wb") as file:
                    file.write(blob)
                with open(os.path.join(folder, name + ".json"), "w") as file:
                    json.dump(expected, file)
            self.assertEqual(self.run_main("vectors", folder)[0], 0)
            want["volumes"][0]["data"] = [[0, 2]]
            with open(os.path.join(folder, "good.json"), "w") as file:
                json.dump(want, file)
            code, out, _ = self.run_main("vectors", folder)
            self.assertTrue(code != 0 and "FAIL good" in out and "ok   short" in out)


class Damaged(unittest.TestCase):
    def test_every_byte(self):
        data, rng = compose(SMALL), random.Random(20)
        for i in range(len(data)):
            bad = bytearray(data)
            bad[i] ^= 1 << rng.randrange(8)
            for found, _ in both(bytes(bad)):
                self.assertNotEqual(found, "ok", "byte %d" % i)

    def test_truncation(self):
        data, rng = compose(SMALL), random.Random(21)
        for n in sorted(rng.sample(range(len(data)), 300)) + [0, 1, len(data) - 1]:
            for found, _ in both(data[:n]):
                self.assertEqual(found, "corrupt", "cut at %d" % n)

    def test_seek_table_removed(self):
        data = compose(SMALL)
        self.assertEqual({o for o, _ in both(data[:data.rindex(b"AMIBEND1") + 8])}, {"corrupt"})

    def test_junk(self):
        data = compose(SMALL)
        for bad in (data + b"\0", b"\0" + data, data + data, data[:100] + data):
            self.assertLessEqual({o for o, _ in both(bad)}, {"corrupt", "unsupported"})

    def test_garbage(self):
        rng = random.Random(22)
        data = compose(SMALL)
        for _ in range(300):
            at = rng.randrange(len(data))
            n = rng.choice((1, 2, 4, 8, 40))
            bad = data[:at] + rng.choice((noise(n, at), b"\xff" * n, bytes(n))) + data[at + n:]
            if bad != data:
                self.assertNotIn("ok", [o for o, _ in both(bad)])


class Hostile(unittest.TestCase):
    """Archives with correct digests and a false value elsewhere."""

    def check(self, want, what, change, volumes=SMALL, **more):
        seen = []

        def patch(name, value, *where):
            if name == what and not (seen and name in ("C", "S", "frame", "metaframe")):
                new = change(value, *where)
                if new is not None:
                    seen.append(name)
                    return new
            return value
        data = compose(volumes, patch=patch, **more)
        self.assertTrue(seen)
        for found, why in both(data):
            self.assertEqual(found, want, why)

    def manifest(self, want, change, **more):
        def edit(blob):
            value = json.loads(blob)
            blob = change(value)
            return blob if isinstance(blob, bytes) else json.dumps(value, sort_keys=True).encode()
        self.check(want, "manifest", edit, **more)

    def put(self, at, form, *values):
        def change(blob, *_):
            blob = bytearray(blob)
            struct.pack_into(form, blob, at, *values)
            return bytes(blob)
        return change

    def test_frames(self):
        one = text(2048, 1)
        for frame in (
                raw_frame(2048, [(1, 100000, b"z"), (1, 100000, b"z")]),        # inflates to more than its header says
                raw_frame(4 << 20, [(1, 131072, b"z")] * 32),                   # header says more than raw_len
                raw_frame(2048, [(0, 2048, one)]),                              # wrong checksum
                raw_frame(2048, [(0, 1024, one[:1024])]),                       # less than declared
                raw_frame(2048, [(3, 2048, one)]),                              # reserved block type
                raw_frame(2048, [(0, 0, b"")] * 5000),                          # longer than a frame may be
                raw_frame(2048, [(1, 2049, b"z")]),                             # a block above the window
                raw_frame(2048, [(2, 50, bytes(50))]) + b"x",                   # bytes behind the frame
                pack(one[:1024]) + pack(one[1024:]),                            # two frames
                pack(one) + record("X", b""),                                   # a skippable frame behind it
                b"\x28\xb5\x2f\xfd\x00" + pack(one)[5:], b"", noise(300, 1)):
            self.check("corrupt", "frame", lambda f, *_: frame)

    def test_block_sizes(self):
        """A block is at most 128 KiB and the window size, whatever its type; libzstd does not
        look.
        """
        volumes = [("snap-1", B, {0: b"z" * B})]
        checksum = pack(b"z" * B)[-4:]
        for want, sizes in (("ok", [131072] * 4), ("corrupt", [B]), ("corrupt", [131073] + [131072] * 2 + [131071])):
            frame = raw_frame(B, [(1, size, b"z") for size in sizes], checksum)
            self.check(want, "frame", lambda f, *_: frame, volumes)

    def test_window_too_large(self):
        # The block content does not matter: a window above 8 MiB is refused from the header.
        frame = bytes.fromhex("28b52ffd") + b"\x84" + bytes([14 << 3]) + struct.pack("<I", 2048) + pack(text(2048, 1))[9:]
        self.check("corrupt", "frame", lambda f, *_: frame)

    def test_cells(self):
        for at, form, value in ((16, "<H", 1), (18, "<H", 4096), (20, "<I", 1), (20, "<I", 1 << 31), (24, "<I", 0xFFFFFFFF), (24, "<I", 0),
                                (28, "<I", 0xFFFFFFFF), (28, "<I", B), (32, "<H", 0), (32, "<H", 3), (32, "<H", 0x101), (34, "<H", 1),
                                (34, "<H", 2), (36, "<H", 1), (38, "<H", 1), (14, "<H", 1), (4, "<I", 0xFFFFFFF8), (4, "<I", 0)):
            self.check("corrupt", "C", self.put(at, form, value))

    def test_block_beyond_the_volume(self):
        for blocks in ({0: text(B, 1), 2: text(B, 2)}, {0: text(B, 1), 32768: text(B, 1)}, {9: "zero"}):
            data = compose([("snap-1", 2 * B, blocks)])
            self.assertEqual({o for o, _ in both(data)}, {"corrupt"})

    def test_zero_rules(self):
        self.assertEqual({o for o, _ in both(compose([("snap-1", B, {0: bytes(B)})]))}, {"corrupt"})
        self.assertEqual({o for o, _ in both(compose([("snap-1", 512, {0: bytes(512)})]))}, {"corrupt"})
        volumes = [("snap-1", 512, {0: "zero"})]
        self.check("corrupt", "frame", lambda f, *_: pack(b"\1" + bytes(511)), volumes)

    def test_index(self):
        for at, form, value in ((16, "<H", 1), (18, "<H", 1), (20, "<I", 7), (24, "<I", 0xFFFFFFFF), (24, "<I", 0), (28, "<I", 2),
                                (32, "<Q", 1 << 63), (40, "<I", 0), (72, "<I", 0xFFFFFFFF), (72, "<I", 0), (76, "<H", 5), (78, "<H", 3),
                                (80, "<H", 1), (14, "<H", 0x8000)):
            self.check("corrupt", "S", self.put(at, form, value))

    def test_root_record(self):
        for at, form, value in ((16, "<I", 0xFFFFFFF8), (16, "<I", 0), (20, "<I", 0xFFFFFFFF), (24, "<I", 0xFFFFFFFF), (28, "<I", 1),
                                (4, "<I", 0xFFFFFFFF), (14, "<H", 1)):
            self.check("corrupt", "R", self.put(at, form, value))
        self.check("corrupt", "R", lambda r: r[:-96] + r[-192:-96])                    # a window listed twice
        self.check("corrupt", "R", lambda r: r[:-192] + r[-96:] + r[-192:-96])         # out of order

    def test_footer_and_table(self):
        for at, value in ((16, 1 << 63), (24, 1 << 63), (24, 0), (96, 0), (104, 1)):
            self.check("corrupt", "F", self.put(at, "<Q", value))
        self.check("corrupt", "T", lambda t: t[:-9] + struct.pack("<IBI", 0xFFFFFFFF, 0, 0x8F92EAB1))
        self.check("corrupt", "T", lambda t: t[:8] + struct.pack("<I", 1) + t[12:])
        self.check("corrupt", "T", lambda t: b"")

    def test_two_views(self):
        """The tar differs from the index: name, size, mode, map, an entry too many, a member
        more.
        """
        size = SMALL[0][1]
        for header in (sparse_head("snap-0X.raw", size, 2048, [0]), sparse_head("snap-01.raw", size + 512, 2048, [0]),
                       sparse_head("snap-01.raw", size, 512, [0]), sparse_head("snap-01.raw", size, 2048, []),
                       tar_head("snap-01.raw", 2048, b"0"), sparse_head("../../x.raw", size, 2048, [0]),
                       sparse_head("snap-01.raw", size, 2048, [0]) + bytes(512), sparse_head("snap-01.raw", size, 2048, [0])[:500],
                       sparse_head("snap-01.raw", 1 << 47, 2048, range(0, 4000, 2))):
            self.check("corrupt", "header", lambda h, v: header if v == 0 else None)
        for at, value in ((100, b"0000755\0"), (345, b"1"), (149, b"7"), (500, b"x")):
            self.check("corrupt", "header", lambda h, v: h[:at] + value + h[at + len(value):])
        self.check("corrupt", "prologue", lambda p: p[:-1] + b"x")
        self.check("corrupt", "prologue", lambda p: p + bytes(512))
        self.check("corrupt", "prologue", lambda p: p[:1000])
        self.check("corrupt", "prologue", lambda p: p.replace(b"FORMAT.txt", b"FORMAT.TXT"))
        self.check("corrupt", "end", lambda e: bytes(1536))
        self.check("corrupt", "end", lambda e: b"x" + e[1:])

    def test_image_json(self):
        good = json.loads(image_for(SMALL))
        edits = [lambda i: i["Image"].update(ImageId="ami-X"), lambda i: i["Image"].update(Name="a\n"), lambda i: i.update(version=True),
                 lambda i: i["Snapshots"][0].update(VolumeSize=2), lambda i: i["Snapshots"][0].update(VolumeSize="1"),
                 lambda i: i["Snapshots"].reverse() or i["Image"].pop("BlockDeviceMappings"), lambda i: i.update(Snapshots={}),
                 lambda i: i["Image"]["BlockDeviceMappings"][0].update(DeviceName="/dev/sdb"), lambda i: i.update(format="x"),
                 lambda i: i["Image"]["BlockDeviceMappings"].pop(), lambda i: i["Snapshots"].append({"SnapshotId": "snap-9"})]
        for edit in edits[:9] + edits[10:]:
            image = json.loads(json.dumps(good))
            edit(image)
            self.assertEqual({o for o, _ in both(compose(SMALL, json.dumps(image).encode()))}, {"corrupt"})
        for image in (b"[]", b"{}", b"\xff{}", b"{", b'{"Snapshots":[],"a":NaN}', b'{"Snapshots":[],"a":1e999}', b'{"Snapshots":[],"a":"\\ud800"}', b'{"Snapshots":[],"Snapshots":[]}', b"[" * 100000,
                      b'{"Snapshots":[],"a":' + b"[" * 64 + b"]" * 64 + b"}", b'\xef\xbb\xbf{"Snapshots":[]}'):
            self.assertEqual({o for o, _ in both(compose([], image))}, {"corrupt"})
        for version in (b'"1"', b"1.0", b"-0", b"-1", b"[]", b"18446744073709551616"):
            self.assertEqual({o for o, _ in both(compose([], b'{"Snapshots":[],"version":' + version + b"}"))}, {"corrupt"})
        ids = b'{"Image":{"ImageId":"ami-01234567","BlockDeviceMappings":%s}}'
        for mappings in (b"{}", b"[1]", b'[{"DeviceName":"a","Ebs":"x"}]', b'[{"DeviceName":"a","Ebs":[]}]'):
            self.assertEqual({o for o, _ in both(compose([], ids % mappings))}, {"corrupt"})
        for image in (b'{"Snapshots":[],"a":' + b"[" * 63 + b"]" * 63 + b"}", b'{"Snapshots":[],"a":' + b"9" * 300 + b"}",
                      b'{"Snapshots":[],"version":null,"format":null}'):
            self.assertEqual([o for o, _ in both(compose([], image))], ["ok", "ok"])
        self.assertEqual({o for o, _ in both(compose([], b'{"Snapshots":[],"version":2}'))}, {"unsupported"})

    def test_names(self):
        for names in (("snap-a", "snap-A"), ("a/b", "c"), ("..", "c"), ("a" * 92, "c"), ("\u00e4", "c")):
            volumes = [(name, 512, {}) for name in names]
            self.assertEqual({o for o, _ in both(compose(volumes))}, {"corrupt"})

    def test_manifest(self):
        for change in (lambda m: m.update(features=["enc"]), lambda m: m.update(version=2), lambda m: m.update(block_size=4096),
                       lambda m: m["codec"].update(name="lz4")):
            self.manifest("unsupported", change)
        v = "volumes"
        for change in (lambda m: m.update(version=True), lambda m: m.update(version=1.0), lambda m: m.update(format="x"),
                       lambda m: m.pop("writer"), lambda m: m[v][0].update(size=10 ** 400), lambda m: m[v][0].update(size=-512),
                       lambda m: m[v][0].update(size=1 << 47), lambda m: m[v][0].update(size=513), lambda m: m[v][0].update(blocks=2),
                       lambda m: m[v][0].update(content="AB" * 32), lambda m: m[v][1].update(name="SNAP-01"), lambda m: m[v].pop(),
                       lambda m: m.update(volumes=m[v] * 65), lambda m: m["meta"][1].update(volume=1), lambda m: m["meta"].reverse(),
                       lambda m: m["meta"][1].update(off=1), lambda m: m["meta"][1].update(len=1 << 40), lambda m: m["meta"][0].update(raw=1 << 30),
                       lambda m: m["meta"][0].update(role="x"), lambda m: m["meta"].pop(), lambda m: m["meta"][1].update(volume=None),
                       lambda m: m.update(content_root="00" * 32), lambda m: b"[" * 100000, lambda m: b"\xff", lambda m: b'{"a":1e5,"a":2}'):
            self.manifest("corrupt", change)
        self.manifest("ok", lambda m: m.update(news={"a": [1.5, None, "\ud83d\ude00"]}))
        self.manifest("ok", lambda m: m["codec"].update(level=-7))

    def test_text_of_the_manifest(self):
        """The rules of the text hold for members that a reader does not know, too."""
        def member(text):
            return lambda m: json.dumps(m).encode()[:-1] + b"," + text + b"}"
        for text in (b'"z":"\xff"', b'"z":"\\ud800"', b'"\\udc00":1', b'"z":1e999', b'"z":' + b"[" * 64 + b"]" * 64,
                     b'"writer":"x"'):
            self.manifest("corrupt", member(text))
        for text in (b'"z":1,"z":2', b'"z":' + b"[" * 63 + b"]" * 63):
            self.manifest("ok", member(text))
        self.manifest("ok", lambda m: b"\n " + json.dumps(dict(reversed(m.items())), indent=3).encode() + b"\r\n\t")
        self.manifest("corrupt", lambda m: m["meta"][0].update(volume=None))
        self.manifest("corrupt", lambda m: json.dumps(m).encode().replace(b'"fill": 0', b'"fill": -0', 1))
        self.manifest("corrupt", lambda m: m["codec"].update(level=1 << 63))

    def test_order_of_judgement(self):
        """Of a manifest of another version nothing else is known."""
        for change in (lambda m: m.update(version=2, features={}, volumes=7), lambda m: m.update(features=["x"], codec=1),
                       lambda m: m.update(codec={"name": "lz4"}, block_size="x"), lambda m: m.update(window_blocks=1, volumes=7)):
            self.manifest("unsupported", change)
        for change in (lambda m: m.update(format="x", version=2), lambda m: m.update(version="2"), lambda m: m.update(version=1 << 64),
                       lambda m: m.update(features=["x", 1]), lambda m: m.update(codec="lz4")):
            self.manifest("corrupt", change)

    def test_versions(self):
        for kind in "CSRF":
            self.check("unsupported", kind, self.put(13, "<B", 2))
        for kind in "CSR":
            self.check("corrupt", kind, lambda r, *_: r[:12] + b"X\1\0\x80" + r[16:])
        self.check("corrupt", "F", lambda f: f[:4] + b"\x80" + f[5:13] + b"\2" + f[14:] + bytes(8))
        self.check("corrupt", "F", lambda f: f[:13] + b"\2" + f[14:127] + b"2")

    def test_version_of_root_is_judged_after_its_digest(self):
        data = bytearray(compose(SMALL))
        data[data.rindex(b"AMIBR") + 5] = 2
        self.assertEqual({o for o, _ in both(bytes(data))}, {"corrupt"})

    def test_first_frame(self):
        for want, data in (("corrupt", pack(bytes(2 << 20))), ("corrupt", raw_frame(1 << 20, [(1, 131072, b"z")] * 9)),
                           ("corrupt", raw_frame(1 << 20, [(1, 1 << 20, b"z")])), ("unsupported", pack(b"hello")), ("unsupported", pack(b"")),
                           ("unsupported", b"\x28\xb5\x2f\xfd\xa0" + pack(b"hello")[5:]), ("unsupported", b"hello" * 40)):
            self.assertEqual({o for o, _ in both(data)}, {want})

    def test_records_behind_root(self):
        for want, extra in (("unsupported", record("Z", b"abc", 1, 0x8000)), ("corrupt", record("C", b"")), ("corrupt", record("S", b"")),
                            ("corrupt", record("R", b"")), ("corrupt", record("X", bytes(1 << 20))), ("corrupt", b"\x50" + record("X", b"")[1:]),
                            ("corrupt", pack(b"more tar")), ("corrupt", record("F", bytes(112))),
                            ("corrupt", record("C", b"", 2)), ("corrupt", record("S", b"", 2)), ("corrupt", record("R", b"", 2)),
                            ("corrupt", record("F", bytes(104) + b"AMIBEND1", 2)),
                            ("corrupt", struct.pack("<II", 0x184D2A5B, 300) + record("Z", b"abc", 1, 0x8000)[8:])):
            for found, why in both(compose(SMALL, extra=extra)):
                self.assertEqual(found, want, why)


if __name__ == "__main__":
    unittest.main()
