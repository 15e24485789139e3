"""A system call fails, or is the last one of the process: store, restore, extract, copy and serve,
with files, and with S3 and EC2 as the tests have them.

    python3 faults.py [--seconds 60] [--seed N] [VERB...]
    python3 faults.py --seconds 3600 --seed 7       # more of them, others first

`strace` lists the system calls of an undisturbed run that concern the working directory, those that
start threads, and, where S3 or EC2 is used, those on sockets. One of them is then answered with an error (EIO, ENOSPC, EINTR, EMFILE, EAGAIN),
or the process gets SIGKILL or SIGTERM when it makes the call. Python, because only a tool beside the
program can stop it at a chosen call, and that tool is strace: it runs on every Debian, as any user
who may trace his own processes, and needs nothing in the program.

After each fault: the exit code is one that the fault explains, with one error and no panic; a final
name has the whole result or nothing; no partial file stays, except of a process that was killed; the
same command then completes, with the result of an undisturbed run and no leftovers, in the service
neither.

The program is $AMISTORE, the services are those of $AWS_DOUBLE, else target/debug/aws-double.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import fault_services
import program
from fault_verbs import Serve, Verb


class Rig:
    """An image, and the results of undisturbed runs."""

    def __init__(self, directory, services):
        self.directory, self.services = directory, services
        program.make_disk(directory / "root.raw", 16 << 20, 3 << 20, seed=31, zeros=1 << 20)
        program.make_disk(directory / "data.raw", 8 << 20, 2 << 20, seed=32, zeros=0)
        root, data = (str(directory / name) for name in ("root.raw", "data.raw"))
        archive = str(directory / "image.bin")
        store = ["store", "--disk", f"/dev/xvda={root}", "--disk", f"/dev/sdb={data}", "--name", "faults"]
        self.verbs = [
            Verb("store", [*store, "made.bin"], [("made.bin", "image.bin")]),
            Verb("restore", ["restore", archive, "made"], [("made", "image")]),
            Verb("restore from a pipe", ["restore", "-", "made"], [("made", "image")], stdin="image.bin"),
            Verb("extract", ["extract", archive, "--device", "/dev/sdb", "-o", "made.raw"], [("made.raw", "extracted.raw")]),
            Verb("copy", ["copy", archive, "made.bin"], [("made.bin", "image.bin")]),
            Serve(),
        ]
        self.verbs += fault_services.verbs(self, store)
        for arguments in ([*store, archive], ["restore", archive, "image"], ["extract", archive, "--device", "/dev/sdb", "-o", "extracted.raw"]):
            subprocess.run([program.AMISTORE, "--quiet", *arguments], cwd=directory, env=self.variables(directory), check=True, capture_output=True)
        fault_services.prepare(self)

    def sandbox(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.directory, prefix="run-"))

    def variables(self, directory):
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        return {**kept, **self.services.environment, "AMISTORE_STATE": str(directory / "state"), "AMISTORE_PART_SIZE": "5MiB"}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=20261130)
    arguments.add_argument("--keep-going", action="store_true", help="report every failure, and not the first alone")
    arguments.add_argument("verbs", nargs="*")
    options = arguments.parse_args()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="amistore-faults-"))
        rig = Rig(pathlib.Path(directory), stack.enter_context(fault_services.running()))
        verbs = [verb for verb in rig.verbs if not options.verbs or verb.name in options.verbs]
        points = {verb.name: verb.points(rig) for verb in verbs}
        total = sum(map(len, points.values()))
        chance = random.Random(options.seed)
        for of_verb in points.values():
            chance.shuffle(of_verb)
        # One of each verb in turn, so that a short sample has all of them.
        rows = [row for row in zip(*(cycle(of_verb, max(map(len, points.values()))) for of_verb in points.values()))]
        order = [point for row in rows for point in row if point is not None]
        results, failures = collections.Counter(), []
        began = time.monotonic()

        def work(point):
            if time.monotonic() - began > options.seconds:
                return
            sandbox = rig.sandbox()
            try:
                results[point.verb.name, point.verb.check(rig, sandbox, point)] += 1
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures.append(str(error))
                if not options.keep_going:
                    raise
            finally:
                shutil.rmtree(sandbox, ignore_errors=True)

        program.in_parallel(os.cpu_count() or 1, [(point,) for point in order], work)
    done = sum(count for (_, outcome), count in results.items() if outcome != "elsewhere")
    for verb in verbs:
        of_verb = ", ".join(f"{results[verb.name, outcome]} {outcome}" for outcome in ("refused", "tolerated", "killed"))
        print(f"{verb.name}: {of_verb}, of {len(points[verb.name])} faults")
    for failure in failures:
        print(f"\n{failure}")
    print(f"{done} of {total} faults with seed {options.seed}, {len(failures)} failures")
    print(f"Ran {done} tests in {time.monotonic() - began:.1f}s")
    sys.exit(1 if failures else 0)


def cycle(points, length):
    """The points, and nothing up to a length."""
    return [*points, *[None] * (length - len(points))]


if __name__ == "__main__":
    main()
