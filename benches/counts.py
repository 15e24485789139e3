#!/usr/bin/env python3
"""Count what the verbs do for a MiB of a volume's data: calls to the system, bytes that pass between
process and kernel, page faults, instructions. Counts, unlike times, are nearly the same on a busy
machine, so CI compares them with LIMITS below and fails if one is exceeded.

The image is made by the generators of images.py and has the same bytes everywhere: 64 MiB of data
in 160 MiB of address space. Every run has one thread and does not sync.

  calls          by strace, of IO below, for each MiB
  waits          calls of futex, for each MiB; they vary, and their limit is wide
  moved          bytes read and written, for each byte (rchar and wchar of /proc/PID/io)
  faults         page faults, for each MiB
  instructions   by valgrind, for each byte. It has no SHA instructions: SHA-256 is the portable
                 code of the crate sha2 there, about 14 instructions for each hashed byte

Without strace or valgrind their columns stay empty, unless --all.

usage: counts.py [--amistore PATH] [--all] [--only pack,restore,...]
"""
import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import images

MIB = 1 << 20
# Opening and listing is left out: a store looks for processes that write to its disk.
IO = "read,write,readv,writev,pread64,pwrite64,lseek,ioctl,fadvise64,fsync,fdatasync,ftruncate,copy_file_range,mmap,munmap,mremap,madvise,brk,futex"
COLUMNS = ("calls", "waits", "moved", "faults", "instructions")
# A figure may exceed its limit by this factor: queues are longer on some days.
MARGIN = {"calls": 1.2, "waits": 3, "moved": 1.05, "faults": 1.5, "instructions": 1.2}
# The figures of the last change that meant to change them.
LIMITS = {
    "pack": (3.6, 1.9, 1.43, 58, 87),
    "restore": (5.5, 1.1, 1.43, 43, 76),
    "verify": (1.3, 1.1, 0.43, 41, 76),
    "verify --stored": (1.2, 0.4, 0.43, 56, 23),
    "copy": (3.7, 0.6, 0.86, 65, 23),
}


def make_image(path):
    """Noise, text, JSON, database pages and written zeros, with holes between them."""
    image = images.Image(path, 160 * MIB)
    at = 0
    for number in range(16):
        kind = ("random", "json", "pages", "text")[number % 4]
        data = images.chunk((kind, 900_000 + number)) if number % 8 != 7 else bytes(images.CHUNK)
        image.write(at, data)
        at += images.CHUNK + (3 * MIB if number % 4 == 3 else 0)
    image.close()
    return 16 * images.CHUNK


def run(command, environment):
    """Runs a command. Bytes read and written by its process, and its page faults."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    # The process has ended and still has its counters.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with open("/proc/%d/io" % child.pid) as file:
        counters = dict(line.split(": ") for line in file.read().splitlines())
    if child.wait():
        raise SystemExit("failed: " + " ".join(command))
    faults = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before
    return int(counters["rchar"]) + int(counters["wchar"]), faults


def calls(command, environment):
    """Calls to the system, futex and all others."""
    with tempfile.NamedTemporaryFile("r") as report:
        strace = ["strace", "-f", "-qq", "-c", "-e", "trace=" + IO, "-o", report.name]
        subprocess.run(strace + command, env=environment, check=True, stdout=subprocess.DEVNULL)
        rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", report.read(), re.M)
    counts = {name: int(count) for count, name in rows if name != "total"}
    futex = counts.pop("futex", 0)
    return sum(counts.values()), futex


def instructions(command, environment):
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run(tool + command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return int(re.search(r"I +refs: +([\d,]+)", done.stderr).group(1).replace(",", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amistore", default=os.environ.get("AMISTORE", "target/release/amistore"))
    parser.add_argument("--all", action="store_true", help="fail without strace or valgrind")
    parser.add_argument("--only", help="these verbs")
    options = parser.parse_args()
    tools = {name: shutil.which(name) for name in ("strace", "valgrind")}
    if options.all and not all(tools.values()):
        parser.error("strace and valgrind are needed")
    with tempfile.TemporaryDirectory(prefix="counts-") as work:
        environment = {"PATH": os.environ["PATH"], "HOME": work, "LC_ALL": "C", "RUST_BACKTRACE": "0"}
        raw, archive = work + "/image.raw", work + "/image.bin"
        data = make_image(raw)
        program = [os.path.abspath(options.amistore), "--quiet", "--threads", "1"]
        store = program + ["store", "--disk", "/dev/xvda=" + raw, "--name", "counted", "--no-sync"]
        subprocess.run(store + [archive], env=environment, check=True, stdout=subprocess.DEVNULL)
        verbs = {
            "pack": store + ["--force", work + "/packed.bin"],
            "restore": program + ["restore", "--no-sync", "--force", archive, work + "/restored"],
            "verify": program + ["verify", archive],
            "verify --stored": program + ["verify", "--stored", archive],
            "copy": program + ["copy", "--no-sync", "--force", archive, work + "/copied.bin"],
        }
        print("| verb | calls / MiB | waits / MiB | moved | faults / MiB | instructions / byte |\n|---|--:|--:|--:|--:|--:|")
        exceeded = []
        for verb, command in verbs.items():
            if options.only and verb not in options.only.split(","):
                continue
            moved, faults = run(command, environment)
            found = [None, None, moved / data, faults * MIB / data, None]
            if tools["strace"]:
                found[0], found[1] = (count * MIB / data for count in calls(command, environment))
            if tools["valgrind"]:
                found[4] = instructions(command, environment) / data
            print("| `%s` | %s |" % (verb, " | ".join("" if value is None else "%.2f" % value for value in found)), flush=True)
            for name, value, limit in zip(COLUMNS, found, LIMITS[verb]):
                if value is not None and value > limit * MARGIN[name]:
                    exceeded.append("%s: %s is %.2f, and %.2f is expected" % (verb, name, value, limit))
    for line in exceeded:
        print("counts.py: " + line, file=sys.stderr)
    sys.exit(1 if exceeded else 0)


if __name__ == "__main__":
    main()
