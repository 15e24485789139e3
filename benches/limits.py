#!/usr/bin/env python3
"""Measure what one thread of this machine can do at most: copy memory, write to the page cache,
read from it, compress and inflate with zstd, hash with SHA-256. compare.py shows how far the verbs
are from that; run both at the same time of day.

The content is the first written MiB of the images. zstd and openssl measure themselves.

usage: limits.py [--mib 512] [--rounds 3] IMAGE.raw ...
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time

from compare import written

MIB = 1 << 20
PIECE = 256 << 10


def speed(work, size, rounds):
    """MiB a second of CPU time, the median of some rounds."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(size / MIB / max(time.process_time() - start, 1e-6))
    return statistics.median(found)


def copy_memory(rounds):
    source, target = bytearray(os.urandom(MIB) * 64), bytearray(64 * MIB)

    def work():
        for _ in range(8):
            target[:] = source

    work()
    return speed(work, 8 * 64 * MIB, rounds)


def page_cache(content, folder, rounds):
    """Writing to a new file, and reading it."""
    path, view, buffer = os.path.join(folder, "file"), memoryview(content), bytearray(PIECE)

    def write():
        if os.path.exists(path):
            os.remove(path)
        with open(path, "wb", buffering=0) as file:
            for at in range(0, len(view), PIECE):
                file.write(view[at : at + PIECE])

    def read():
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    writing = speed(write, len(content), rounds)
    return writing, speed(read, len(content), rounds)


def zstd(content, folder):
    """Frames of 4 MiB, level 1: compressed and inflated."""
    path = os.path.join(folder, "content")
    with open(path, "wb") as file:
        file.write(content)
    command = ["zstd", "-b1", "-i2", "-B4194304", "-T1", path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    compressed, inflated = re.findall(r"([\d.]+) MB/s", done.stdout + done.stderr)[-2:]
    return float(compressed) * 1e6 / MIB, float(inflated) * 1e6 / MIB


def sha256():
    command = ["openssl", "speed", "-seconds", "1", "-bytes", "524288", "-evp", "sha256"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(re.findall(r"([\d.]+)k\s*$", done.stdout.strip())[-1]) * 1000 / MIB


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default=".")
    options = parser.parse_args()
    print("One thread, MiB/s: copy memory %.0f; SHA-256 (openssl) %s\n" % (copy_memory(options.rounds), "%.0f" % sha256() if shutil.which("openssl") else "?"))
    print("| image | page cache, write | page cache, read | zstd -1, compress | inflate |\n|---|--:|--:|--:|--:|")
    for image in options.images:
        content = bytearray()
        with open(image, "rb", buffering=0) as file:
            for at, end in written(file.fileno(), os.path.getsize(image)):
                while at < end and len(content) < options.mib * MIB:
                    content += os.pread(file.fileno(), min(end - at, MIB), at)
                    at = min(end, at + MIB)
        with tempfile.TemporaryDirectory(prefix="limits-", dir=options.work) as folder:
            figures = (*page_cache(content, folder, options.rounds), *zstd(content, folder))
        print("| `%s` | %s |" % (os.path.basename(image).removesuffix(".raw"), " | ".join("%.0f" % figure for figure in figures)), flush=True)


if __name__ == "__main__":
    main()
