"""Commands of the fault campaign that use S3 and EC2: those of the tests, on 127.0.0.1."""

import contextlib
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import program
from fault_verbs import KILLED, NETWORK, SECONDS, Verb, expected
from program import CORRUPT, DENIED, IO, NOT_FOUND, OK, assert_same_file

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", program.ROOT / "target"))
DOUBLE = os.environ.get("AWS_DOUBLE") or str(TARGET / "debug/aws-double")
BUCKET = "archives"
SOURCE = f"s3://{BUCKET}/source.bin"


class Services:
    """EC2, EBS and S3, and the variables with which AWS tools reach them."""

    def __init__(self, admin, environment):
        self.admin, self.environment = admin, environment

    def order(self, path, order=None):
        """The answer of the admin interface."""
        data = None if order is None else json.dumps(order).encode()
        with urllib.request.urlopen(f"{self.admin}{path}?server=0", data, timeout=SECONDS) as answer:
            return json.load(answer)


@contextlib.contextmanager
def running():
    process = subprocess.Popen([DOUBLE, "--s3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        said = json.loads(process.stdout.readline())
        yield Services(said["admin"], said["servers"][0]["environment"])
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def prepare(rig):
    """The bucket, with the archive of an undisturbed store."""
    rig.services.order("/bucket", {"name": BUCKET})
    amistore(rig, rig.directory, "copy", "image.bin", SOURCE)


def verbs(rig, store):
    """Commands that write to S3 or read from it, and a server that stores and restores."""
    to = f"s3://{BUCKET}/{{run}}.bin"
    return [
        ToBucket("store to S3", [*store, to], []),
        ToBucket("copy to S3", ["copy", str(rig.directory / "image.bin"), to], []),
        ToBucket("copy by S3", ["copy", SOURCE, to], []),
        FromBucket("restore from S3", ["restore", SOURCE, "made"], [("made", "image")]),
        ServeTasks(),
    ]


def amistore(rig, directory, *arguments, codes=(OK,)):
    done = subprocess.run(
        [program.AMISTORE, "--quiet", *arguments], cwd=directory, env=rig.variables(directory), capture_output=True, timeout=SECONDS
    )
    assert done.returncode in codes, f"{arguments}: {done}"
    return done


class OverNetwork(Verb):
    network = NETWORK


class FromBucket(OverNetwork):
    """A restore that is continued: blocks that were received are not fetched again."""

    continues = True


class ToBucket(OverNetwork):
    """The result is the object whose key is the name of the run."""

    def object_is_there(self, rig, directory, what):
        """Whether it is there, and then it is whole."""
        url = f"s3://{BUCKET}/{directory.name}.bin"
        read = directory / "read.bin"
        done = amistore(rig, directory, "copy", url, str(read), codes=(OK, NOT_FOUND))
        if done.returncode == NOT_FOUND:
            return False
        try:
            assert_same_file(read, rig.directory / "image.bin")
        except AssertionError as error:
            raise AssertionError(f"WRONG BYTES: {error} after {what}") from error
        read.unlink()
        return True

    def assert_whole_or_nothing(self, rig, directory, killed, what):
        self.object_is_there(rig, directory, what)

    def assert_complete(self, rig, directory, what):
        assert self.object_is_there(rig, directory, what), f"no object after {what}"
        found = json.loads(amistore(rig, directory, "--output", "json", "clean", f"s3://{BUCKET}/{directory.name}.bin").stdout)
        assert found["Leftovers"] == [], f"{found} after {what}"


class ServeTasks(OverNetwork):
    """A server that stores an image of EC2 and restores the archive, until it is stopped."""

    def __init__(self):
        super().__init__("serve with EC2", [], [])
        self.images = {}

    def prepare(self, rig, directory):
        """An image and a bucket for this run."""
        name = name_of(directory)
        if name not in self.images:
            pattern = {"seed": 7, "random": 30, "count": 12, "step": 3}
            snapshot = rig.services.order("/snapshot", {"size_gib": 1, "pattern": pattern})["id"]
            self.images[name] = rig.services.order("/image", {"name": name, "snapshot": snapshot})["id"], snapshot
            rig.services.order("/bucket", {"name": bucket_of(name)})
        return (name, *self.images[name])

    def run(self, rig, directory, prefix=()):
        """Requests both tasks, and waits until they have ended, or the server has."""
        name, image, _ = self.prepare(rig, directory)
        process = subprocess.Popen(
            [*prefix, program.AMISTORE, "--output", "json", "serve", "--listen", "127.0.0.1:0", "--account-id", "123456789012"],
            cwd=directory, env=rig.variables(directory), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        try:
            line = process.stdout.readline()
            if line:
                said = json.loads(line)
                self.work(said["Url"], name, image)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(said["Pid"], signal.SIGTERM)
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return code, out, err.decode(errors="replace")

    def work(self, url, name, image):
        bucket = bucket_of(name)
        stored = self.until_done(url, {"Action": "CreateStoreImageTask", "ImageId": image, "Bucket": bucket}, "store")
        if stored:
            tags = {}
            for number, kind in enumerate(("image", "snapshot"), 1):
                tags |= {f"TagSpecification.{number}.ResourceType": kind, f"TagSpecification.{number}.Tag.1.Key": "run", f"TagSpecification.{number}.Tag.1.Value": name}
            restore = {"Action": "CreateRestoreImageTask", "Bucket": bucket, "ObjectKey": f"{image}.bin", "Name": f"{name} restored", **tags}
            self.until_done(url, restore, "restore")

    def until_done(self, url, form, kind):
        """Requests a task unless one is recorded that did not fail. Whether it was completed."""
        data = urllib.parse.urlencode({"Version": "2016-11-15", **form}).encode()
        deadline, requested = time.monotonic() + SECONDS / 2, False
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{url}/tasks.json", timeout=SECONDS) as answer:
                    of_kind = [task for task in json.load(answer)["tasks"] if task["kind"] == kind]
                if of_kind and of_kind[0]["state"] == "Completed":
                    return True
                if of_kind and of_kind[0]["state"] == "InProgress":
                    time.sleep(0.05)
                    continue
                if requested:
                    return False
                requested = True
                urllib.request.urlopen(url, data, timeout=SECONDS).close()
            except urllib.error.HTTPError as error:
                # An error that the fault explains; the next server is asked again.
                error.close()
                if requested:
                    return False
            except OSError:
                # The server has ended.
                return False
        return False

    def check(self, rig, directory, point):
        try:
            return self.checked(rig, directory, point)
        finally:
            self.images.pop(name_of(directory), None)

    def checked(self, rig, directory, point):
        code, err = self.injured(rig, directory, point)
        if code is None:
            return "elsewhere"
        what = f"{self.name}: {point.call} {point.number} {point.fault}: exit code {code}\n{err}"
        killed = code == KILLED
        assert killed == (point.fault == "KILL" and code != OK), what
        assert code in (*expected(point), IO, CORRUPT, DENIED), what
        assert "panicked" not in err, what
        # One server continues what the other began; the next one finds nothing to do.
        for _ in range(2):
            again, _, err = self.run(rig, directory)
            assert again == OK, f"the next server: {again} {err}\nafter {what}"
        self.assert_done(rig, directory, what)
        return "killed" if killed else "tolerated" if code == OK else "refused"

    def points(self, rig):
        found = super().points(rig)
        self.images.clear()
        return found

    def assert_done(self, rig, directory, what):
        """The object is whole, and the restored image has the bytes of the first, once."""
        name, image, snapshot = self.prepare(rig, directory)
        amistore(rig, directory, "verify", f"s3://{bucket_of(name)}/{image}.bin")
        found = json.loads(amistore(rig, directory, "--output", "json", "clean", f"s3://{bucket_of(name)}/").stdout)
        assert found["Leftovers"] == [], f"{found} after {what}"
        state = rig.services.order("/state")
        by_id = {one["id"]: one for one in state["snapshots"]}
        images = [one for one in state["images"] if one["name"] == f"{name} restored"]
        assert len(images) == 1, f"{len(images)} images after {what}"
        mapped = [mapping["ebs"]["snapshot_id"] for mapping in images[0]["mappings"]]
        made = [one["id"] for one in state["snapshots"] if one["tags"].get("run") == name]
        assert sorted(mapped) == sorted(made), f"snapshots {made} and not {mapped} after {what}"
        assert [by_id[id]["checksum"] for id in mapped] == [by_id[snapshot]["checksum"]], f"WRONG BYTES after {what}"


def name_of(directory):
    """The name of a run, as AMI names and buckets allow it."""
    return hashlib.sha256(directory.name.encode()).hexdigest()[:16]


def bucket_of(name):
    return f"of-{name}"
