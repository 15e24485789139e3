"""amistore for tests: a program with arguments, exit codes and JSON, and images as its input.

The program is $AMISTORE, else target/release/amistore. Every run is bounded in time.
"""

import concurrent.futures
import contextlib
import filecmp
import json
import os
import pathlib
import random
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
AMISTORE = os.environ.get("AMISTORE") or str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/amistore")
PART = 5 << 20
SECONDS = 120

# Exit codes are an interface; these are the ones that the tests ask for.
OK, NOT_FOUND, DENIED, CORRUPT, IO, EXISTS = 0, 3, 4, 5, 6, 9


class Ran:
    """The result of a run."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def events(self):
        """Progress, warnings and errors, in order. A process that was killed may leave half a
        line.
        """
        found = []
        for line in self.err.decode(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def total(self, counter):
        """A counter of `--progress json`, summed up over the stages that ended."""
        return sum(event.get(counter) or 0 for event in self.events if event.get("event") == "finished")


def command(*arguments):
    return [AMISTORE, "--output", "json", "--progress", "json", *map(str, arguments)]


def variables(environment, state):
    return {**os.environ, "XDG_CONFIG_HOME": os.devnull, **environment, "AMISTORE_STATE": str(state), "AMISTORE_PART_SIZE": str(PART)}


def run(environment, state, *arguments, expect=OK, stdin=None):
    """Runs amistore to its end; another exit code than `expect` fails the test. None accepts
    any.
    """
    done = subprocess.run(
        command(*arguments),
        env=variables(environment, state),
        capture_output=True,
        timeout=SECONDS,
        **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
    )
    ran = Ran(done.returncode, done.stdout, done.stderr)
    if expect is not None and ran.code != expect:
        shown = " ".join(map(str, arguments))
        raise AssertionError(f"exit code {ran.code}, expected {expect}: amistore {shown}\n{ran.err.decode(errors='replace')[-3000:]}")
    return ran


def make_disk(path, size, data, seed, zeros=2 << 20):
    """A sparse disk: `data` bytes in runs here and there, an eighth of them text that compresses,
    and a run of written zeros.
    """
    chance = random.Random(seed)
    block = 512 << 10
    places = chance.sample(range(size // block), data // block + zeros // block)
    with open(path, "wb") as file:
        file.truncate(size)
        for at, place in enumerate(places):
            file.seek(place * block)
            if at < zeros // block:
                file.write(bytes(block))
            elif at % 8 == 7:
                file.write((b"block %012d of a disk image\n" % place * (block // 16))[:block])
            else:
                file.write(chance.randbytes(block))


def assert_same_file(one, other):
    assert filecmp.cmp(one, other, shallow=False), f"{one} and {other} differ"


def allocated(path):
    """Bytes on disk: holes take none."""
    return os.stat(path).st_blocks * 512


def assert_same_image(one, other):
    """Compares names, bytes, and bytes on disk, with a tolerance for metadata of the file
    system.
    """
    names = sorted(os.listdir(one))
    assert names == sorted(os.listdir(other)), f"{names} and {sorted(os.listdir(other))}"
    for name in names:
        left, right = os.path.join(one, name), os.path.join(other, name)
        assert_same_file(left, right)
        assert abs(allocated(left) - allocated(right)) <= 64 << 10, f"{left} takes {allocated(left)} bytes, {right} {allocated(right)}"


def unfinished(environment, state):
    """Tasks in `amistore tasks` that can be continued: those with a task file."""
    listed = run(environment, state, "tasks").json
    kinds = ("StoreImageTaskResults", "RestoreImageTaskResults", "CopyTaskResults")
    return [task for kind in kinds for task in listed[kind] if task["StateFile"]]


def open_uploads(server, bucket):
    return server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])


def in_parallel(workers, points, work, enough=lambda: False):
    """Calls `work` with the members of each point, or until `enough` holds; the first failure ends
    it.
    """
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(lambda point=point: enough() or work(*point)) for point in points]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
