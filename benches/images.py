#!/usr/bin/env python3
"""Make the disk images that compare.py packs. Needs no root; `os` needs mke2fs and debugfs
(e2fsprogs).

vol     4 GiB: 1 GiB of random bytes and 1 GiB of logs, JSON, CSV and database pages, as extents
        with holes between them
sparse  64 GiB: 300 scattered writes of 4 to 64 KiB
os      8 GiB: an ext4 file system with 2 GiB of this machine's /usr and a file of 256 MiB of
        written zeros

big     12 GiB: an ext4 file system with up to 6 GiB of this machine's /usr, and logs, JSON, CSV,
        text and database pages in files of 64 MiB, so many that all files make up 6.5 GiB

vol and sparse have the same bytes on every machine; their SHA-256 is printed. os and big depend on
the machine.

usage: images.py [--only vol,sparse,os,big] [--force] [DIR]      default DIR: bench-work/data
"""
import argparse
import hashlib
import itertools
import multiprocessing
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4 * KIB
CHUNK = 4 * MIB  # what one generator makes at a time


class Source:
    """Random choices that depend on the seed alone. Only random() and randbytes(): their sequences
    are fixed from Python 3.9 on.
    """

    def __init__(self, seed):
        self.random = random.Random(seed).random
        self.bytes = random.Random(~seed).randbytes

    def below(self, limit):
        return int(self.random() * limit)

    def skewed(self, limit):
        """Below `limit`, small numbers far more often."""
        return int(self.random() ** 3 * limit)

    def some(self, pool, count):
        draw, size = self.random, len(pool)
        return [pool[int(draw() * size)] for _ in range(count)]


def pools():
    """Pools of words for lines. A skewed pool repeats its common members, so that drawing from it
    stays cheap.
    """
    source = Source(2026)
    syllables = "al ba con der es fi gra hol in jor ka lum men nor os pre qui res sto ter un ver wit xen yor zip".split()
    words = ["".join(source.some(syllables, 1 + source.below(4))) for _ in range(6000)]
    skewed = lambda items, size=1 << 15: [items[source.skewed(len(items))] for _ in range(size)]
    addresses = ["%d.%d.%d.%d" % (1 + source.below(223), source.below(256), source.below(256), source.below(256)) for _ in range(4000)]
    agents = ["Mozilla/5.0 (X11; Linux x86_64; rv:%d.0) Gecko/20100101 %s/%d.%d" % (90 + source.below(40), words[source.below(50)], source.below(100), source.below(10)) for _ in range(40)]
    return {
        "words": skewed(words),
        "spaced": skewed([word + " " for word in words]),
        "addresses": skewed([address + " - - [" for address in addresses]),
        "paths": ['] "GET /%s/%s?id=' % (a, b) for a, b in zip(skewed(words[:300]), skewed(words))],
        "status": skewed([" HTTP/1.1\" %d " % code for code in (200, 200, 200, 304, 404, 500, 301)]),
        "lengths": ["%d" % source.skewed(60000) for _ in range(1 << 15)],
        "agents": [' "https://example.org/%s" "%s"\n' % (word, agent) for word, agent in zip(skewed(words[:300]), skewed(agents))],
        "numbers": ["%d" % source.below(100000) for _ in range(1 << 16)],
        "levels": ['","level":"%s","svc":"%s","trace":"' % (level, word) for level, word in zip(skewed("INFO INFO DEBUG WARN ERROR".split()), skewed(words[:25]))],
        "timings": ['","ms":%d.%02d,"user":' % (source.skewed(900), source.below(100)) for _ in range(1 << 15)],
        "messages": [',"msg":"%s %s %s ' % three for three in zip(skewed(words), skewed(words), skewed(words))],
        "ends": ['%s"}\n' % word for word in skewed(words)],
        "hosts": [",host-%03d,cpu%d," % (host, cpu) for host in range(64) for cpu in range(8)],
        "loads": ["%d.%03d,%d.%03d," % (source.below(100), source.below(1000), source.skewed(100), source.below(1000)) for _ in range(1 << 16)],
        "counts": ["%d\n" % source.skewed(1 << 30) for _ in range(1 << 16)],
        "rows": [("%s@%s.example" % two).encode() for two in zip(skewed(words), skewed(words[:200]))],
    }


def lines(count_of, columns):
    """Joins columns to text. `columns` gives for a number of lines one list for each column."""
    text, size = [], 0
    while size < CHUNK:
        part = "".join(itertools.chain.from_iterable(zip(*columns(count_of))))
        text.append(part)
        size += len(part)
    return "".join(text).encode()[:CHUNK]


def times(source, start, form):
    """A clock for the lines of a chunk: a function that gives the next `count` time stamps."""
    clock = [start]

    def next_times(count):
        steps = source.some(range(40), count)
        steps[0] += clock[0]
        stamps = list(itertools.accumulate(steps))
        clock[0] = stamps[-1]
        return form(stamps)

    return next_times


def http_date(stamps):
    seconds = {}
    for stamp in stamps:
        second = stamp // 1000
        if second not in seconds:
            seconds[second] = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))
    return [seconds[stamp // 1000] for stamp in stamps]


def access(source, pool, start):
    clock = times(source, start, http_date)
    some = source.some
    return lines(4096, lambda n: (some(pool["addresses"], n), clock(n), some(pool["paths"], n), some(pool["numbers"], n), some(pool["status"], n), some(pool["lengths"], n), some(pool["agents"], n)))


def json_log(source, pool, start):
    clock = times(source, start, lambda stamps: ['{"ts":"%d.%03d' % divmod(stamp, 1000) for stamp in stamps])
    some = source.some

    def traces(count):
        digits = source.bytes(8 * count).hex()
        return [digits[at : at + 16] for at in range(0, 16 * count, 16)]

    return lines(4096, lambda n: (clock(n), some(pool["levels"], n), traces(n), some(pool["timings"], n), some(pool["numbers"], n), some(pool["messages"], n), some(pool["ends"], n)))


def csv(source, pool, start):
    clock = times(source, start, lambda stamps: list(map(str, stamps)))
    some = source.some
    return lines(4096, lambda n: (clock(n), some(pool["hosts"], n), some(pool["loads"], n), some(pool["counts"], n)))


def text(source, pool, _start):
    return lines(512, lambda n: tuple(source.some(pool["spaced"], n) for _ in range(12)) + (["\n"] * n,))


def pages(source, pool, start):
    """Database pages of 8 KiB: header, row pointers, a gap of zeros, rows packed at the end."""
    made, row_id = [], start % (1 << 31)
    for number in range(CHUNK // 8192):
        limit = 5200 + source.below(2400)
        rows, pointers, used = [], [], 0
        for name, noise in zip(source.some(pool["rows"], 200), source.some(range(1 << 32), 200)):
            row = row_id.to_bytes(4, "little") + b"\0\0\0\0\3\0\2\x08\x18\0" + noise.to_bytes(4, "little") + b"\0\0\0\0" + name
            row += b"\0" * (-len(row) % 8)
            if used + len(row) > limit or used + len(row) + 24 + 4 * (len(rows) + 1) > 8192:
                break
            used += len(row)
            row_id += 1
            rows.append(row)
            pointers.append((8192 - used).to_bytes(2, "little") + (2 * len(row)).to_bytes(2, "little"))
        head = (start + number << 20).to_bytes(12, "big") + len(rows).to_bytes(12, "big") + b"".join(pointers)
        rows.reverse()
        made.append(head + b"\0" * (8192 - used - len(head)) + b"".join(rows))
    return b"".join(made)


KINDS = {"access": access, "json": json_log, "csv": csv, "text": text, "pages": pages, "random": lambda source, _pool, _start: source.bytes(CHUNK)}
POOL = None


def chunk(task):
    """One chunk of content; runs in a worker, which makes the pools once."""
    global POOL
    kind, seed = task
    POOL = POOL or pools()
    # A chunk is what a log writes in a few minutes; the next one of the kind goes on later.
    data = KINDS[kind](Source(seed), POOL, 1_760_000_000_000 + seed * 900_000)
    assert len(data) == CHUNK, (kind, len(data))
    return data


class Image:
    """A sparse file under a temporary name, with a digest of the written ranges."""

    def __init__(self, path, size):
        self.path, self.partial = path, path + ".part"
        self.file = open(self.partial, "wb", buffering=0)
        self.file.truncate(size)
        self.digest = hashlib.sha256(b"%d" % size)

    def write(self, offset, data):
        self.digest.update(b"%d:%d:" % (offset, len(data)))
        self.digest.update(data)
        view = memoryview(data)
        while view:
            done = os.pwrite(self.file.fileno(), view, offset)
            view, offset = view[done:], offset + done

    def close(self):
        os.fsync(self.file.fileno())
        self.file.close()
        os.rename(self.partial, self.path)
        return "SHA-256 of what is written: " + self.digest.hexdigest()


def make_vol(path):
    # Files as (kind, MiB, how many); a file is a run of chunks, a chunk is one or more extents.
    files = [("random", 128, 8), ("access", 40, 8), ("json", 40, 8), ("csv", 20, 8), ("text", 8, 8), ("pages", 20, 8)]
    chunks = []
    for kind, size, count in files:
        for number in range(count):
            chunks.append([(kind, number * 1000 + part + 100_000 * list(KINDS).index(kind)) for part in range(size * MIB // CHUNK)])
    source = Source(4)
    # Files lie in mixed order, as on a volume that has lived.
    order = sorted(range(len(chunks)), key=lambda _: source.random())
    tasks = [task for number in order for task in chunks[number]]
    image = Image(path, 4 * GIB)
    spare = 4 * GIB - 64 * MIB - len(tasks) * CHUNK - len(chunks) * 16 * KIB
    at = 0
    with multiprocessing.Pool() as workers:
        contents = workers.imap(chunk, tasks, chunksize=4)
        for number in order:
            # Before a file some inodes and directory entries, after it a gap: most are short, some
            # wide.
            image.write(at, b"".join(b"\xa4\x81\0\0" + source.bytes(12) + b"\0" * 240 for _ in range(64)))
            at += 16 * KIB
            for _ in chunks[number]:
                data, done = next(contents), 0
                while done < len(data):
                    extent = min(len(data) - done, PAGE * (16 + source.below(1024)))
                    image.write(at, data[done : done + extent])
                    done += extent
                    at += extent
                    if source.random() < 0.2:
                        gap = min(spare // 8, PAGE * (1 + source.skewed(8192)))
                        at, spare = at + gap, spare - gap
    return image.close()


def make_sparse(path):
    source, pool = Source(64), pools()
    image = Image(path, 64 * GIB)
    content = json_log(source, pool, 1_760_000_000_000)
    for _ in range(300):
        length = PAGE * (1 + source.below(16))
        start = source.below(len(content) - length)
        image.write(PAGE * source.below(64 * GIB // PAGE - 16), content[start : start + length])
    return image.close()


ZEROS = 256 * MIB
BUDGET = 2 * GIB


def sample(root, budget):
    """Files and links of `root` that make up at most about `budget` bytes: all of them, or a share
    of them chosen by name.
    """
    found = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names) + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISLNK(status.st_mode) or (stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK)):
                found.append((path, -(-status.st_size // PAGE) * PAGE))
    total = sum(size for _, size in found)
    share = min(1.0, budget / max(total, 1))
    chosen = lambda path: int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8], "big") < share * 2**64
    return [path for path, size in found if size <= budget // 16 and chosen(path)]


def generated(tree, size):
    """Writes files of generated content to `tree` that make up `size` bytes."""
    kinds = [kind for kind in KINDS if kind != "random"]
    tasks = [(kinds[number // 16 % len(kinds)], 500_000 + number) for number in range(size // CHUNK)]
    with multiprocessing.Pool() as workers:
        for number, content in enumerate(workers.imap(chunk, tasks, chunksize=4)):
            with open("%s/%03d.%s" % (tree, number // 16, tasks[number][0]), "ab") as file:
                file.write(content)


def make_big(path):
    return make_ext4(path, "12G", 6 * GIB, 6 * GIB + 512 * MIB)


def make_os(path):
    return make_ext4(path, "8G", BUDGET, 0)


def make_ext4(path, size, budget, least):
    """A file system with `budget` bytes of /usr, generated files up to `least` bytes together, and
    a file of written zeros.
    """
    environment = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin", E2FSPROGS_FAKE_TIME="1760000000")
    for tool in ("mke2fs", "debugfs"):
        if not shutil.which(tool, path=environment["PATH"]):
            raise SystemExit("images.py: os.raw needs %s, of e2fsprogs" % tool)
    partial = path + ".part"
    # mke2fs fills a file system from one folder, so the chosen files are copied to one.
    with tempfile.TemporaryDirectory(prefix="os-tree-", dir=os.path.dirname(path)) as tree:
        used = 0
        for name in sample("/usr", budget):
            target = tree + name
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                shutil.copy2(name, target, follow_symlinks=False)
                used += os.lstat(target).st_blocks * 512
            except OSError as error:
                print("left out: %s" % error, file=sys.stderr)
        if used < least:
            generated(tree, least - used)
        # mke2fs leaves holes for zeros. So the file gets its blocks with other bytes, and the zeros
        # are written to these afterwards.
        with open(tree + "/swapfile", "wb") as swap:
            for _ in range(ZEROS // MIB):
                swap.write(b"swap" * (MIB // 4))
        for folder, _, names in os.walk(tree):
            os.utime(folder, (1_760_000_000, 1_760_000_000))
        os.utime(tree + "/swapfile", (1_760_000_000, 1_760_000_000))
        if os.path.exists(partial):
            os.remove(partial)
        uuid = "6f2b7c1e-0d7e-4a59-9a30-5a1f5c0f2a11"
        command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "root", "-U", uuid, "-E", "hash_seed=" + uuid, "-d", tree, partial, size]
        subprocess.run(command, check=True, env=environment)
    listing = subprocess.run(["debugfs", "-R", "stat /swapfile", partial], check=True, env=environment, capture_output=True, text=True).stdout
    extents = [(int(first), int(last or first)) for first, last in re.findall(r"\(\d+(?:-\d+)?\):(\d+)(?:-(\d+))?", listing)]
    written = 0
    with open(partial, "r+b", buffering=0) as image:
        for first, last in extents:
            for block in range(first, last + 1, 256):
                count = min(256, last + 1 - block)
                if os.pread(image.fileno(), 4, block * PAGE) != b"swap":
                    raise SystemExit("images.py: the blocks of the swap file are not where debugfs says")
                os.pwrite(image.fileno(), b"\0" * (count * PAGE), block * PAGE)
                written += count * PAGE
        if written != ZEROS:
            raise SystemExit("images.py: %d bytes of zeros were written instead of %d" % (written, ZEROS))
        os.fsync(image.fileno())
    os.rename(partial, path)
    return "depends on this machine's /usr"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", default="bench-work/data", metavar="DIR")
    parser.add_argument("--only", default="vol,sparse,os,big", help="which images")
    parser.add_argument("--force", action="store_true", help="make them again when they are there")
    options = parser.parse_args()
    makers = {"vol": make_vol, "sparse": make_sparse, "os": make_os, "big": make_big}
    wanted = options.only.split(",")
    for name in wanted:
        if name not in makers:
            parser.error("no such image: %s" % name)
    os.makedirs(options.directory, exist_ok=True)
    for name in wanted:
        path = os.path.abspath(os.path.join(options.directory, name + ".raw"))
        if os.path.exists(path) and not options.force:
            print("%-7s is there" % name)
            continue
        start = time.monotonic()
        note = makers[name](path)
        allocated = os.stat(path).st_blocks * 512
        print("%-7s %6.1f s, %5.0f MiB allocated, %s" % (name, time.monotonic() - start, allocated / MIB, note), flush=True)


if __name__ == "__main__":
    main()
