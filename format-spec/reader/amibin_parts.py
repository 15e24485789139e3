"""The single structures of an amibin archive: frames, records, tar headers, manifest, image.json,
and their rules.

Both readers in amibin.py use these. "Section n", or just a number, means section n of
format-spec/container.md.
"""
import array
import collections
import hashlib
import importlib
import io
import json
import re
import struct
import sys

ZSTD = None
for module in ("compression.zstd", "zstandard", "backports.zstd"):
    try:
        ZSTD = importlib.import_module(module)
        break
    except ImportError:
        continue
if ZSTD is None:
    sys.stderr.write("amibin: no zstd module; try: pip install zstandard\n")
    sys.exit(6)

# Section 1: the units. Section 6: the limits.
BLOCK, SLOT_BLOCKS, WINDOW_SLOTS = 524288, 8, 4096
WINDOW_BLOCKS = SLOT_BLOCKS * WINDOW_SLOTS
MIB = 1 << 20
MAX_VOLUMES, MAX_VOLUME = 256, 1 << 46
MAX_IMAGE_JSON, MAX_FORMAT_TXT = 8 * MIB, 64 << 10
MAX_META, MAX_DATA, MAX_ZSTD_WINDOW = MIB, 4 * MIB, 8 * MIB
MAX_C, MAX_S, MAX_R, MAX_MANIFEST = 328, 180296, 128 * MIB, 16 * MIB
MAX_EXTRA, MAX_FRAMES = MIB, 1 << 24
MAX_BLOCK = 128 << 10
MAX_VALUES = 65536
MAX_DEPTH = 64
MAX_NUMBER = (1 << 64) - 1
ZEROS = bytes(BLOCK)
ZERO_DIGEST = hashlib.sha256(ZEROS).digest()
FRAME_MAGIC, RECORD_MAGIC = b"\x28\xb5\x2f\xfd", b"\x5b\x2a\x4d\x18"
TABLE_MAGIC, TABLE_END = b"\x5e\x2a\x4d\x18", b"\xb1\xea\x92\x8f"

WindowEntry = struct.Struct("<HHIQQII32s32s")
SlotEntry = struct.Struct("<IHHHH32s")
CellHead = struct.Struct("<HHIIIHHHH32s")
Window = collections.namedtuple("Window", "volume reserved window off cells_len index_len n sha content")
Entry = collections.namedtuple("Entry", "cell_len slot present zero fill sha")
Cell = collections.namedtuple("Cell", "volume slot window frame_len raw_len present zero fill reserved sha")
Meta = collections.namedtuple("Meta", "off len raw sha256 role volume")


class Corrupt(Exception):
    code, outcome = 5, "corrupt"


class Unsupported(Exception):
    code, outcome = 8, "unsupported"


class Foreign(Corrupt):
    """A frame with a header that 3.1 does not allow: as the first frame it makes the object no
    archive (9).
    """


def allowed(condition, message, *args):
    if not condition:
        raise Foreign(message % args)


def need(condition, message, *args):
    if not condition:
        raise Corrupt(message % args)


def sha256(data):
    return hashlib.sha256(data).digest()


def popcount(n):
    return bin(n).count("1")


class Source:
    """Bytes in order, with the offset for messages. A short read is a truncated archive, never an
    empty value.
    """

    def __init__(self, file, pos=0):
        self.file, self.pos, self.held = file, pos, b""

    def read(self, n):
        parts, left = [self.held], n - len(self.held)
        self.pos, self.held = self.pos + len(self.held), b""
        while left:
            part = self.file.read(left)
            need(part, "byte %d: the archive ends here, %d more bytes were expected", self.pos, left)
            parts.append(part)
            left -= len(part)
            self.pos += len(part)
        return b"".join(parts)

    def peek(self, n):
        """The next bytes, without taking them; the following read must take at least as many."""
        self.held = self.read(n)
        self.pos -= n
        return self.held

    def chunks(self, n):
        while n:
            part = self.read(min(n, MIB))
            n -= len(part)
            yield part


# ---- Section 3: frames and records

def max_frame(raw):
    return raw + raw // 256 + 4096


def inflate(frame, raw_len, where):
    """At most raw_len bytes come out of any frame; its header was checked to declare raw_len."""
    try:
        if ZSTD.__name__ == "zstandard":
            decoder = ZSTD.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj()
        else:
            decoder = ZSTD.ZstdDecompressor(options={ZSTD.DecompressionParameter.window_log_max: 23})
        # In two pieces, and so block by block: in one call libzstd does not compare the inflated
        # size of a compressed block with Block_Maximum_Size.
        out = decoder.decompress(frame[:-1]) + decoder.decompress(frame[-1:])
        need(decoder.eof and not decoder.unused_data, "%s: frame is not complete at its declared size", where)
    except ZSTD.ZstdError as error:
        raise Corrupt("%s: zstd: %s" % (where, error))
    need(len(out) == raw_len, "%s: frame inflates to %d bytes, not %d", where, len(out), raw_len)
    return out


def read_frame(src, max_raw, where):
    """Walk one standard zstd frame (RFC 8878) and return its bytes and content size, without
    inflating (3.1), and check the sizes of its blocks: libzstd does not look at them when it
    decodes a frame in one call.

    A frame does not say how long it is, so its block headers have to be followed; that also shows
    that a data frame is one frame, and not several or one with something behind it.
    """
    head = src.read(5)
    need(head[:4] == FRAME_MAGIC, "%s: no zstd frame", where)
    flags = head[4]
    single = flags >> 5 & 1
    size_len = (single, 2, 4, 8)[flags >> 6]
    allowed(not flags & 0x08, "%s: reserved bit in the frame header", where)
    allowed(flags & 0x04, "%s: frame has no content checksum", where)
    allowed(not flags & 0x03, "%s: frame wants a dictionary", where)
    allowed(size_len, "%s: frame has no content size", where)
    rest = src.read(1 - single + size_len)
    raw = int.from_bytes(rest[-size_len:], "little") + (256 if size_len == 2 else 0)
    need(raw <= max_raw, "%s: frame declares %d bytes, limit is %d", where, raw, max_raw)
    window = raw
    if not single:
        base = 1 << (10 + (rest[0] >> 3))
        window = base + base // 8 * (rest[0] & 7)
    allowed(window <= MAX_ZSTD_WINDOW, "%s: zstd window above 8 MiB", where)
    most, room = min(window, MAX_BLOCK), 0
    parts, total, last = [head, rest], len(head) + len(rest) + 4, 0
    while not last:
        header = src.read(3)
        value = int.from_bytes(header, "little")
        last, kind, size = value & 1, value >> 1 & 3, value >> 3
        need(kind != 3, "%s: reserved zstd block type", where)
        need(size <= most, "%s: zstd block of %d bytes, limit is %d", where, size, most)
        room += most if kind == 2 else size
        size = 1 if kind == 1 else size
        total += 3 + size
        need(total <= max_frame(raw), "%s: compressed frame is longer than allowed", where)
        parts += [header, src.read(size)]
    need(raw <= room, "%s: the blocks of the frame cannot hold its content", where)
    parts.append(src.read(4))
    return b"".join(parts), raw


def is_foreign(file):
    """Whether the first frame is foreign (9); False if it is cut short, damaged or too long."""
    src = Source(file)
    try:
        if src.peek(4) != FRAME_MAGIC:
            return True
        frame, raw = read_frame(src, MAX_META, "first frame")
        return not inflate(frame, raw, "first frame").startswith(b"image.json\0")
    except Foreign:
        return True
    except Corrupt:
        return False


def open_frame(blob, raw_len, where):
    """Check that blob is exactly one frame of raw_len bytes, and inflate it."""
    src = Source(io.BytesIO(blob))
    need(read_frame(src, raw_len, where)[1] == raw_len, "%s: frame declares another size than the index", where)
    need(src.pos == len(blob), "%s: %d bytes behind the frame", where, len(blob) - src.pos)
    return inflate(blob, raw_len, where)


Prefix = collections.namedtuple("Prefix", "kind length version flags")


def read_place(head, at, kinds):
    """3.2: the 16 bytes that begin every record, and the rule of place (9): which kinds may stand
    here. "?" stands for the unknown ones.
    """
    tag, kind, version, flags = struct.unpack("<4sBBH", head[8:16])
    need(head[:4] == RECORD_MAGIC and tag == b"AMIB", "byte %d: no record where one must be", at)
    kind, length = chr(kind), int.from_bytes(head[4:8], "little") + 8
    need(length >= 16, "byte %d: record is shorter than its prefix", at)
    need((kind if kind in "CSRF" else "?") in kinds, "byte %d: a %s record must not stand here", at, ascii(kind))
    return Prefix(kind, length, version, flags)


def check_version(prefix, at):
    """9: a rule of version comes after the rules of place."""
    if prefix.version != 1:
        raise Unsupported("byte %d: %s record of version %d" % (at, prefix.kind, prefix.version))
    need(prefix.flags == 0, "byte %d: flags of %s record are not zero", at, prefix.kind)


def whole_record(record, kind, at):
    """The prefix of a record that is already in memory."""
    prefix = read_place(record[:16], at, kind)
    need(kind in "CS" or prefix.length == len(record), "byte %d: no %s record of %d bytes", at, kind, len(record))
    check_version(prefix, at)
    need(prefix.length == len(record), "byte %d: no %s record of %d bytes", at, kind, len(record))


def block_len(size, index):
    return min(BLOCK, size - index * BLOCK)


def check_bits(volume, window, slot, present, zero, fill, where):
    """3.3: bitmaps are subsets of each other and inside the volume (6). Returns the inflated length
    of the cell.
    """
    need(slot < WINDOW_SLOTS, "%s: slot %d is out of range", where, slot)
    need(0 < present < 256 and not zero & ~present and not fill & ~zero, "%s: bitmaps are impossible", where)
    last = (window * WINDOW_SLOTS + slot) * SLOT_BLOCKS + present.bit_length() - 1
    need(last * BLOCK < volume.size, "%s: block %d is beyond the volume", where, last)
    return (popcount(present) - 1) * BLOCK + block_len(volume.size, last)


def parse_cell(record, volume, at):
    """3.3: a C record. Returns its fields and the digests of its data blocks."""
    where = "byte %d: cell in volume %d" % (at, volume.index)
    whole_record(record, "C", at)
    need(72 <= len(record) <= MAX_C, "%s: C record of %d bytes", where, len(record))
    c = Cell(*CellHead.unpack_from(record, 16))
    need(c.volume == volume.index, "%s: C record is of volume %d", where, c.volume)
    need(c.reserved == 0, "%s: reserved field is not zero", where)
    raw = check_bits(volume, c.window, c.slot, c.present, c.zero, c.fill, where)
    need(c.raw_len == raw, "%s: raw_len %d, bitmaps say %d", where, c.raw_len, raw)
    need(0 < c.frame_len <= max_frame(raw), "%s: frame_len %d is not possible", where, c.frame_len)
    need(len(record) == 72 + 32 * popcount(c.present & ~c.zero), "%s: number of digests is wrong", where)
    digests = [record[i:i + 32] for i in range(72, len(record), 32)]
    need(ZERO_DIGEST not in digests, "%s: a zero block is not marked zero", where)
    return c, digests


def check_cell(c, digests, frame, volume, at, sink):
    """The data of one cell: frame digest before inflating (8), then every block."""
    first = (c.window * WINDOW_SLOTS + c.slot) * SLOT_BLOCKS
    where = "byte %d: volume %d block %d.." % (at, volume.index, first)
    need(sha256(frame) == c.sha, "%s: digest of the data frame does not match", where)
    raw, pos, digests = open_frame(frame, c.raw_len, where), 0, iter(digests)
    for bit in range(SLOT_BLOCKS):
        if not c.present >> bit & 1:
            continue
        index = first + bit
        data = raw[pos:pos + block_len(volume.size, index)]
        pos += len(data)
        if c.zero >> bit & 1:
            need(data == ZEROS[:len(data)], "byte %d: volume %d block %d is marked zero but is not", at, volume.index, index)
        else:
            need(sha256(data + ZEROS[len(data):]) == next(digests),
                 "byte %d: volume %d block %d: digest does not match", at, volume.index, index)
        if sink:
            sink.block(volume, index, "fill" if c.fill >> bit & 1 else "zero" if c.zero >> bit & 1 else "data", data)


def cell_content(c, digests):
    """Section 7: the share of a cell in the content digest of its window."""
    return struct.pack("<HH", c.slot, c.present & ~c.zero) + sha256(b"".join(digests)) if digests else b""


class Volume:
    """Totals of the bitmaps of one volume; enough to rebuild its tar header and its manifest
    entry.
    """

    def __init__(self, index, name, size):
        self.index, self.name, self.size = index, name, size
        self.reset()

    def reset(self):
        self.slots, self.masks = array.array("L"), bytearray()
        self.stored = self.blocks = self.zero = self.fill = 0
        self.hash = hashlib.sha256()

    def add(self, window, slot, present, zero, fill, raw_len):
        self.slots.append(window * WINDOW_SLOTS + slot)
        self.masks.append(present)
        self.stored += raw_len
        self.blocks += popcount(present)
        self.zero += popcount(zero)
        self.fill += popcount(fill)

    def add_window(self, window, content, has_data):
        if has_data:
            self.hash.update(struct.pack("<I", window) + content)

    def extents(self):
        """5.3: the map, with the closing entry."""
        start = end = 0
        for slot, mask in zip(self.slots, self.masks):
            for bit in range(SLOT_BLOCKS):
                if mask >> bit & 1:
                    index = slot * SLOT_BLOCKS + bit
                    if index != end and end > start:
                        yield start * BLOCK, (end - start) * BLOCK
                    if index != end or end == start:
                        start = index
                    end = index + 1
        stop = min(end * BLOCK, self.size)
        if end > start:
            yield start * BLOCK, stop - start * BLOCK
        if stop != self.size:
            yield self.size, 0

    def header(self):
        """5.2: the tar header and its extension blocks, 512 bytes at a time."""
        entries = self.extents()
        ahead = [next(entries, None)]

        def take(count):
            out = bytearray()
            while count and ahead[0]:
                out += tar_number(ahead[0][0]) + tar_number(ahead[0][1])
                ahead[0] = next(entries, None)
                count -= 1
            return bytes(out)

        first = take(4).ljust(96, b"\0") + bytes([ahead[0] is not None]) + tar_number(self.size)
        yield tar_header(self.name + ".raw", self.stored, b"S", first)
        while ahead[0]:
            yield take(21).ljust(504, b"\0") + bytes([ahead[0] is not None]) + bytes(7)


# ---- Section 5: tar

def tar_number(n):
    return b"%011o\0" % n if n < 8 ** 11 else b"\x80" + n.to_bytes(11, "big")


def tar_value(field, where):
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    need(re.match(rb"[0-7]{11}\0\Z", field), "%s: bad number in tar header", where)
    return int(field[:11], 8)


def tar_header(name, size, kind, tail=b""):
    def block(checksum):
        return (name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + tar_number(size) + b"00000000000\0"
                + checksum + kind + bytes(100) + b"ustar  \0" + bytes(121) + tail).ljust(512, b"\0")
    return block(b"%06o\0 " % sum(block(b" " * 8)))


def padded(n):
    return -(-n // 512) * 512


def prologue_sizes(buf):
    """Sizes of image.json and FORMAT.txt as far as buf shows them, and how long the piece is at
    least.
    """
    sizes, pos = [], 0
    for name, limit in (("image.json", MAX_IMAGE_JSON), ("FORMAT.txt", MAX_FORMAT_TXT)):
        if len(buf) < pos + 512:
            return sizes, pos + 512
        sizes.append(tar_value(buf[pos + 124:pos + 136], "prologue, " + name))
        need(sizes[-1] <= limit, "prologue: %s of %d bytes, limit is %d", name, sizes[-1], limit)
        pos += 512 + padded(sizes[-1])
    return sizes, pos


def open_prologue(buf):
    """5.1: rebuild the prologue around the two contents and compare; returns image.json."""
    sizes, length = prologue_sizes(buf)
    need(len(buf) == length, "prologue: %d bytes of metadata, tar headers say %d", len(buf), length)
    want, pos, contents = b"", 0, []
    for name, size in zip(("image.json", "FORMAT.txt"), sizes):
        contents.append(buf[pos + 512:pos + 512 + size])
        want += tar_header(name, size, b"0") + contents[-1].ljust(padded(size), b"\0")
        pos = len(want)
    need(buf == want, "prologue: byte %d is not as the format says", differ(buf, want))
    return contents[0]


def differ(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def check_cut(raws, where):
    """3.1: a piece of metadata is cut into frames of exactly 1 MiB and one of the rest."""
    need(all(raw == MAX_META for raw in raws[:-1]), "%s: metadata is not cut into frames of 1 MiB", where)


# ---- JSON: the manifest (4) and image.json

class Other(str):
    """A value that is carried, but that no rule accepts: a number beyond 64 bits, -0, a member that
    occurs twice.
    """


def parse_json(blob, what, twice_anywhere):
    """Strict JSON: UTF-8 without lone surrogates, one object, no NaN, bounded depth. A member that
    occurs twice is refused anywhere, or when its turn comes.
    """
    def pairs(items):
        out = dict(items)
        if len(out) < len(items):
            need(not twice_anywhere, "%s: a member stands twice in an object", what)
            names = [name for name, _ in items]
            out.update((name, Other("twice")) for name in out if names.count(name) > 1)
        return out

    def constant(name):
        raise ValueError(name)

    def carried(text, longest, kind):
        """Long numbers are carried as text, but must be ones that every parser can take."""
        if abs(float(text)) == float("inf"):
            raise ValueError("number out of range")
        if len(text) > longest or kind is int and (text == "-0" or not -1 << 63 <= int(text) < 1 << 64):
            return Other(text)
        return kind(text)

    depth, quoted = 0, False
    for token in re.finditer(rb'\\.|["\[\]{}]', blob, re.DOTALL):
        char = token.group()
        if char == b'"':
            quoted = not quoted
        elif not quoted and len(char) == 1:
            depth += 1 if char in b"[{" else -1
            need(depth <= MAX_DEPTH, "%s: nested deeper than %d", what, MAX_DEPTH)
    try:
        value = json.loads(blob.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant,
                           parse_int=lambda s: carried(s, 20, int), parse_float=lambda s: carried(s, 40, float))
    except (ValueError, RecursionError) as error:
        raise Corrupt("%s: not JSON: %s" % (what, str(error)[:100]))
    need(type(value) is dict, "%s: not an object", what)
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Corrupt("%s: a lone surrogate" % what)
    return value


def get(obj, name, kind, what, optional=False):
    """A member of exactly this type; true is not 1, and 1.0 is not 1. null counts as absent, but
    not for the two main members.
    """
    if optional and (name not in obj or (obj[name] is None and name not in ("Image", "Snapshots"))):
        return None
    need(name in obj, "%s: %s is missing", what, name)
    need(type(obj[name]) is kind, "%s: %s has the wrong type", what, name)
    return obj[name]


def number(obj, name, low, high, what):
    value = get(obj, name, int, what)
    need(low <= value <= high, "%s: %s is %d, allowed is %d to %d", what, name, value, low, high)
    return value


def hexdigest(obj, name, what):
    value = get(obj, name, str, what)
    need(re.match(r"[0-9a-f]{64}\Z", value), "%s: %s is not a digest", what, name)
    return bytes.fromhex(value)


def objects(obj, name, what, optional=False):
    items = get(obj, name, list, what, optional) or []
    need(all(type(item) is dict for item in items), "%s: %s must hold objects", what, name)
    return items


def check_names(names, what):
    need(len(names) <= MAX_VOLUMES, "%s: %d volumes", what, len(names))
    for name in names:
        need(re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,90}\Z", name), "%s: volume name %s is not allowed", what, ascii(name))
    need(len({name.lower() for name in names}) == len(names), "%s: volume names differ only by case", what)


def count_values(value):
    """The value itself, and all values inside it."""
    inside = value.values() if type(value) is dict else value if type(value) is list else ()
    return 1 + sum(map(count_values, inside))


class ImageJson:
    """The rules of image-json.md, and the list of volumes that follows from them."""

    def __init__(self, blob):
        what, self.names, self.gib = "image.json", [], {}
        need(len(blob) <= MAX_IMAGE_JSON, "image.json: %d bytes", len(blob))
        top = parse_json(blob, what, True)
        need(count_values(top) <= MAX_VALUES, "image.json: more than %d values", MAX_VALUES)
        need(get(top, "format", str, what, True) in (None, "amibin"), "image.json: format is not amibin")
        if get(top, "version", int, what, True) not in (None, 1):
            number(top, "version", 0, MAX_NUMBER, what)
            raise Unsupported("image.json: version %d" % top["version"])
        image = get(top, "Image", dict, what, True)
        if image is not None:
            need(re.match(r"ami-([0-9a-f]{8}|[0-9a-f]{17})\Z", get(image, "ImageId", str, "Image")), "Image.ImageId is not an AMI id")
            name = get(image, "Name", str, "Image", True)
            need(name is None or re.match(r"[A-Za-z0-9 ()\[\]./\-'@_]{3,128}\Z", name), "Image.Name is not an AMI name")
            devices = set()
            for mapping in objects(image, "BlockDeviceMappings", "Image", True):
                device = get(mapping, "DeviceName", str, "BlockDeviceMappings")
                need(device not in devices, "image.json: device %s stands twice", ascii(device))
                devices.add(device)
                snapshot = get(get(mapping, "Ebs", dict, "BlockDeviceMappings", True) or {}, "SnapshotId", str, "Ebs", True)
                if snapshot is not None and snapshot not in self.names:
                    need(len(self.names) < MAX_VOLUMES, "image.json: more than %d volumes", MAX_VOLUMES)
                    self.names.append(snapshot)
        for snapshot in objects(top, "Snapshots", what, image is not None):
            name = get(snapshot, "SnapshotId", str, "Snapshots")
            need(name not in self.gib, "image.json: snapshot %s stands twice", ascii(name))
            self.gib[name] = get(snapshot, "VolumeSize", int, "Snapshots", True)
            if name not in self.names:
                need(len(self.names) < MAX_VOLUMES, "image.json: more than %d volumes", MAX_VOLUMES)
                self.names.append(name)
        check_names(self.names, what)

    def check_size(self, name, size):
        gib = self.gib.get(name)
        need(gib is None or gib == -(-size // (1 << 30)), "image.json: VolumeSize of %s is not that of the volume", name)


class Manifest:
    """Section 4. Members that make the archive unsupported come first, because then no other can be
    judged.
    """

    def __init__(self, blob):
        what = "manifest"
        self.json = m = parse_json(blob, what, False)
        need(get(m, "format", str, what) == "amibin", "manifest: format is not amibin")
        if number(m, "version", 0, MAX_NUMBER, what) != 1:
            raise Unsupported("manifest: version %d" % m["version"])
        features = get(m, "features", list, what)
        need(all(type(f) is str for f in features), "manifest: features must be strings")
        if features:
            raise Unsupported("manifest: features %s" % ascii(features)[:200])
        codec = get(m, "codec", dict, what)
        if get(codec, "name", str, "codec") != "zstd":
            raise Unsupported("manifest: codec %s" % ascii(codec["name"])[:80])
        for name, value in (("block_size", BLOCK), ("cell_blocks", SLOT_BLOCKS), ("window_blocks", WINDOW_BLOCKS)):
            if number(m, name, 0, MAX_NUMBER, what) != value:
                raise Unsupported("manifest: %s is not %d" % (name, value))
        number(codec, "level", -1 << 63, (1 << 63) - 1, "codec")
        get(codec, "lib", str, "codec"), get(m, "writer", str, what)
        self.content_root = hexdigest(m, "content_root", what)
        self.volumes, self.metas = [], []
        for i, v in enumerate(objects(m, "volumes", what)):
            what = "manifest, volume %d" % i
            size = number(v, "size", 512, MAX_VOLUME, what)
            need(size % 512 == 0, "%s: size is not a multiple of 512", what)
            counts = tuple(number(v, name, 0, 1 << 27, what) for name in ("blocks", "zero", "fill"))
            self.volumes.append((get(v, "name", str, what), size) + counts + (hexdigest(v, "content", what),))
        check_names([v[0] for v in self.volumes], "manifest")
        for i, x in enumerate(objects(m, "meta", "manifest")):
            what = "manifest, meta %d" % i
            raw = number(x, "raw", 1, MAX_META, what)
            role = get(x, "role", str, what)
            need(role in ("prologue", "volume", "end"), "%s: role is unknown", what)
            need(role == "volume" or "volume" not in x, "%s: a volume for role %s", what, role)
            index = number(x, "volume", 0, MAX_VOLUMES - 1, what) if role == "volume" else None
            self.metas.append(Meta(number(x, "off", 0, 1 << 63, what), number(x, "len", 1, max_frame(raw), what), raw,
                                   hexdigest(x, "sha256", what), role, index))


def content_root(image_json, volumes):
    """Section 7, over (size, content digest) of each volume."""
    h = hashlib.sha256(b"AMIB content v1\0" + sha256(image_json))
    for index, (size, content) in enumerate(volumes):
        h.update(struct.pack("<HQ", index, size) + content)
    return h.digest()


# ---- the end of the object: records between R and F (9), F (3.6), T (3.7)

class FrameLog:
    """The seek table that the index implies, as a running digest, so that it needs no memory."""

    def __init__(self):
        self.count, self.hash = 0, hashlib.sha256()

    def add(self, compressed, inflated=0):
        self.count += 1
        self.hash.update(struct.pack("<II", compressed, inflated))

    def check(self, src):
        """3.7: compare with T, byte for byte. src stands behind F."""
        at, size = src.pos, 8 * self.count
        need(src.read(8) == TABLE_MAGIC + struct.pack("<I", size + 9), "byte %d: head of the seek table is wrong", at)
        h = hashlib.sha256()
        for part in src.chunks(size):
            h.update(part)
        need(h.digest() == self.hash.digest(), "byte %d: seek table is not what the index says", at)
        need(src.read(9) == struct.pack("<IB", self.count, 0) + TABLE_END, "byte %d: end of the seek table is wrong", at)


def read_footer(f, at):
    """3.6. Returns root_off, root_len, root, content root. Kind, length and end magic come before
    the version: they are those of all versions.
    """
    need(read_place(f[:16], at, "F").length == 128 and f[120:] == b"AMIBEND1", "byte %d: no footer", at)
    whole_record(f, "F", at)
    off, length, root, content, own, reserved, magic = struct.unpack("<QQ32s32sQ16s8s", f[16:])
    need(own == at, "byte %d: footer says it is at %d", at, own)
    need(reserved == bytes(16) and magic == b"AMIBEND1", "byte %d: bad footer", at)
    return off, length, root, content


def read_extras(src, log):
    """9: skip records of unknown kind behind R. Returns the prefix of F, which ends them, and the
    error of a critical one: it counts only once F stands where it must.
    """
    total, critical = 0, None
    while True:
        at, head = src.pos, src.read(16)
        prefix = read_place(head, at, "F?")
        if prefix.kind == "F":
            return head, critical
        total += prefix.length
        need(total <= MAX_EXTRA, "byte %d: more than 1 MiB of records behind R", at)
        if prefix.flags & 0x8000 and not critical:
            critical = Unsupported("byte %d: critical record of unknown kind %s" % (at, ascii(prefix.kind)))
        src.read(prefix.length - 16)
        log.add(prefix.length)


def ends_with_table(src):
    """Whether nothing or a seek table is left of a stream, by its last 9 bytes (3.7)."""
    tail, length = b"", 0
    while length <= 17 + 8 * MAX_FRAMES:
        part = src.file.read(MIB)
        if not part:
            break
        tail, length = (tail + part)[-9:], length + len(part)
    is_table = tail[5:] == TABLE_END
    return length == (17 + 8 * int.from_bytes(tail[:4], "little") if is_table else 0)
