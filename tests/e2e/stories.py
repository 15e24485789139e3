"""Whole stories, as people tell them: the README word for word, a nightly job, an offline shelf, a
migration to another partition, a damaged archive, and progress in a narrow terminal.

    cargo build --release && cargo build -p amistore-aws-double && python3 tests/e2e/stories.py

Every result in JSON is compared with `docs/schema`. The programs are $AMISTORE and $AWS_DOUBLE,
else those of the target directory. Needs boto3, jsonschema, zstd, GNU tar and mke2fs.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import struct
import subprocess
import tempfile
import termios
import time
import unittest

import jsonschema

import check_aws
import ec2
import program
from program import CORRUPT, NOT_FOUND, ROOT, make_disk

GIB = 1 << 30
SECONDS = 120
# The image that README.md and docs/ name.
AMI = "ami-0123456789abcdef0"


def schema(name):
    """A schema whose objects have no members but those that it describes."""

    def closed(value):
        match value:
            case {"properties": _}:
                value = {"additionalProperties": False, **value}
                return {name: closed(inner) for name, inner in value.items()}
            case dict():
                return {name: closed(inner) for name, inner in value.items()}
            case list():
                return [closed(inner) for inner in value]
        return value

    def once(members):
        names = [name for name, _ in members]
        assert len(names) == len(set(names)), f"a name stands twice: {names}"
        return dict(members)

    text = json.loads((ROOT / "docs/schema" / name).read_text(), object_pairs_hook=once)
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(closed(text))


def assert_meets(validator, value):
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    assert error is None, f"{error.json_path}: {error.message[:1000]}"


RESULTS, ERRORS, PROGRESS = map(schema, ("result.json", "error.json", "progress.json"))


def assert_same_bytes(one, other):
    """Compares lengths and bytes; holes are not read."""
    assert ec2.digest(one) == ec2.digest(other), f"{one} and {other} differ"


def blocks_of_shell(document, heading):
    """The shell commands below a heading."""
    text = document.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


class Story(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="story-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.state = self.directory / "state"
        self.environment = {"XDG_CONFIG_HOME": str(self.directory / "config-home"), "AWS_EC2_METADATA_DISABLED": "true"}

    def run_program(self, *arguments, **options):
        """A run whose result, progress and error meet their schemas. A result is one line."""
        ran = program.run(self.environment, self.state, *arguments, **options)
        if ran.out:
            self.assertEqual(ran.out.count(b"\n"), 1)
            assert_meets(RESULTS, ran.json)
        for line in ran.events:
            assert_meets(PROGRESS if "event" in line else ERRORS, line)
        return ran

    def shell(self, script, cwd, **variables):
        """A script that finds the program as `amistore`; it ends at the first error."""
        tools = self.directory / "tools"
        tools.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (tools / "amistore").symlink_to(pathlib.Path(program.AMISTORE).resolve())
        path = f"{tools}:{os.environ['PATH']}:/usr/sbin:/sbin"
        environment = {**os.environ, **self.environment, "AMISTORE_STATE": str(self.state), "PATH": path, **variables}
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 0, f"{script}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def disk(self, name, size=GIB, data=12 << 20, seed=1):
        path = self.directory / name
        make_disk(path, size, data, seed=seed)
        return path

    def partitions(self, buckets=True):
        """Two AWSs of the tests behind the profiles `com` and `gov`, each with a bucket."""
        servers = self.enterContext(check_aws.running("--s3", "--server", "us-east-1", "--server", "us-gov-west-1,210987654321,AKIDGOV,secret"))
        self.environment |= ec2.configuration(dict(zip(("com", "gov"), servers)), self.directory)
        for name, server in zip(("com", "gov"), servers):
            if buckets:
                server.order("/bucket", {"name": f"{name}-bucket"})
        return servers

    def image(self, server, disk, **more):
        """An image of EC2 with one volume."""
        snapshot = server.order("/snapshot", {"size_gib": disk.stat().st_size // GIB, "raw": str(disk), "zeros": True})["id"]
        server.order("/image", {"name": "web", "snapshot": snapshot, **more})
        return snapshot


class Readme(Story):
    README = ROOT / "README.md"

    def test_install(self):
        """The first of the two commands for a fresh machine; the second one runs the tests. `cargo`
        stands for the program that cargo has built.
        """
        [script] = blocks_of_shell(self.README, "Install")
        first, second = script.rstrip().rsplit("\n", 1)
        self.assertEqual(second, "cargo test")
        tools = self.directory / "tools"
        tools.mkdir()
        cargo = tools / "cargo"
        cargo.write_text('#!/bin/sh\n[ "$1 $2 $3" = "run --release --" ] || exit 9\nshift 3\nexec amistore "$@"\n')
        cargo.chmod(0o755)
        work = self.directory / "work"
        work.mkdir()
        self.assertIn("stored ami-", self.shell(first, work))
        self.run_program("verify", work / "first.bin")

    def test_one_minute(self):
        [script] = blocks_of_shell(self.README, "One minute")
        work = self.directory / "work"
        work.mkdir()
        said = self.shell(script, work)
        self.assertIn("stored ami-", said)
        self.assertEqual(said.count("ok ami-"), 2, said)
        [restored] = (work / "restored").glob("*.raw")
        assert_same_bytes(restored, work / "demo.raw")
        assert_same_bytes(work / "unpacked" / restored.name, work / "demo.raw")
        assert_same_bytes(work / "unpacked" / "image.json", work / "restored" / "image.json")

    def test_from_one_partition_to_another(self):
        com, gov = self.partitions()
        disk = self.disk("root.raw")
        self.image(com, disk, id=AMI)
        [script] = blocks_of_shell(self.README, "From commercial AWS to GovCloud (or China, or any partition)")
        said = self.shell(script, self.directory)
        [made] = gov.order("/state")["images"]
        self.assertIn(made["id"], said)
        [snapshot] = gov.order("/state")["snapshots"]
        self.assertTrue(snapshot["encrypted"])
        gov.order(f"/snapshot/{snapshot['id']}/raw?path={self.directory}/back.raw")
        assert_same_bytes(self.directory / "back.raw", disk)


class Stories(Story):
    def test_a_nightly_job_is_one_line(self):
        com, _ = self.partitions()
        self.image(com, self.disk("root.raw"), id=AMI)
        config = self.directory / "amistore.conf"
        config.write_text("# nightly\n[profile nightly]\nprofile = com\nlevel = 2\nstorage_class = STANDARD_IA\ns3_object_tag = job=nightly\nmemory = 128MiB\n")
        self.environment["AMISTORE_CONFIG"] = str(config)
        job = ["store", AMI, "s3://com-bucket/", "--config-profile", "nightly"]
        stored = self.run_program(*job).json
        self.assertEqual((stored["Outcome"], stored["Archive"]), ("stored", f"s3://com-bucket/{AMI}.bin"))
        head = com.client("s3").head_object(Bucket="com-bucket", Key=f"{AMI}.bin")
        self.assertEqual(head["StorageClass"], "STANDARD_IA")
        com.order("/calls", method="DELETE")
        again = self.run_program(*job).json
        self.assertEqual((again["Outcome"], again["RootSha256"]), ("present", stored["RootSha256"]))
        self.assertNotIn("UploadPart", com.order("/calls"))
        inspected = self.run_program("inspect", stored["Archive"], "--config-profile", "nightly").json
        self.assertEqual((inspected["Codec"]["Level"], inspected["ContentSha256"]), (2, stored["ContentSha256"]))
        # The command line comes before the profile, and says so.
        told = self.shell(f"amistore {' '.join(job)} --level 3 --dry-run --verbose 2>&1", self.directory)
        self.assertRegex(told, r"line 4: level = 2: the command line has --level")
        [listed] = self.run_program("ls", "s3://com-bucket/", "--last", "1", "--config-profile", "nightly").json["Archives"]
        self.assertEqual((listed["Archive"], listed["AmiName"]), (stored["Archive"], "web"))
        tasks = self.run_program("tasks", "--last", "1", "--name", "web").json
        [task] = tasks["StoreImageTaskResults"]
        self.assertEqual((task["TaskState"], task["ImageId"]), ("Completed", AMI))
        wrong = self.run_program("ls", "s3://com-bucket/", "--config-profile", "weekly", expect=NOT_FOUND).events[-1]
        self.assertEqual(wrong["context"]["profiles"], "nightly")

    def test_an_offline_shelf(self):
        root, data = self.disk("root.raw"), self.disk("data.raw", 2 * GIB, 6 << 20, seed=2)
        [archives, shelf, back] = [self.directory / name for name in ("archives", "shelf", "back")]
        archives.mkdir(), shelf.mkdir()
        stored = self.run_program("store", "--disk", f"/dev/xvda={root}", "--disk", f"/dev/sdb={data}", "--name", "shelf", f"{archives}/").json
        archive = pathlib.Path(stored["Archive"])
        copied = self.run_program("copy", archive, f"{shelf}/").json
        self.assertEqual(copied["RootSha256"], stored["RootSha256"])
        archive.unlink()
        on_shelf = pathlib.Path(copied["Archive"])
        self.assertEqual(self.run_program("verify", on_shelf).json["Outcome"], "ok")
        restored = self.run_program("restore", on_shelf, back).json
        self.assertEqual((restored["Outcome"], restored["RestoredImageId"]), ("restored", None))
        for volume, disk in zip(restored["Volumes"], (root, data)):
            assert_same_bytes(back / volume["File"], disk)
        self.assertEqual(self.run_program("verify", on_shelf, "--against", back).json["Outcome"], "ok")
        # The image directory is a source again, and makes the same bytes.
        again = self.run_program("store", back, self.directory / "again.bin").json
        self.assertEqual(again["RootSha256"], stored["RootSha256"])
        assert_same_bytes(self.directory / "again.bin", on_shelf)
        unpacked = self.directory / "unpacked"
        unpacked.mkdir()
        self.shell(f"zstd -dc '{on_shelf}' | tar -C '{unpacked}' -xSf -", self.directory)
        assert_same_bytes(unpacked / restored["Volumes"][1]["File"], data)

    def test_a_migration_without_a_copy_in_between(self):
        com, gov = self.partitions()
        snapshot = self.image(com, self.disk("root.raw"), id=AMI)
        stored = self.run_program("store", AMI, "s3://gov-bucket/", "--source-profile", "com", "--target-profile", "gov").json
        restored = self.run_program("restore", stored["Archive"], "ec2", "--profile", "gov", "--name", "web there").json
        self.assertEqual((restored["ImageId"], restored["Archive"]), (AMI, stored["Archive"]))
        [made] = gov.order("/state")["images"]
        self.assertEqual((made["id"], made["name"]), (restored["RestoredImageId"], "web there"))
        [there] = restored["Snapshots"]
        self.assertEqual(there["ArchivedSnapshotId"], snapshot)
        for side, name, id in ((com, "here", snapshot), (gov, "there", there["SnapshotId"])):
            side.order(f"/snapshot/{id}/raw?path={self.directory}/{name}.raw")
        assert_same_bytes(self.directory / "here.raw", self.directory / "there.raw")
        retired = self.run_program("retire", AMI, "--archive", stored["Archive"], "--disable", "--yes", "--source-profile", "com", "--target-profile", "gov").json
        self.assertEqual((retired["Outcome"], retired["RootSha256"]), ("disabled", stored["RootSha256"]))

    def test_a_damaged_archive(self):
        root, data = self.disk("root.raw"), self.disk("data.raw", data=6 << 20, seed=3)
        archive = self.directory / "a.bin"
        stored = self.run_program("store", "--disk", f"/dev/xvda={root}", "--disk", f"/dev/sdb={data}", "--name", "damaged", archive).json
        with archive.open("r+b") as file:
            file.seek(archive.stat().st_size - (3 << 20))
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        ran = self.run_program("verify", archive, expect=CORRUPT)
        self.assertEqual((ran.json["Outcome"], ran.events[-1]["kind"]), ("corrupt", "corrupt"))
        [finding] = ran.json["Findings"]
        self.assertEqual(finding["context"]["snapshot"], stored["Volumes"][1]["SnapshotId"])
        self.run_program("restore", archive, self.directory / "back", expect=CORRUPT)
        self.assertFalse((self.directory / "back" / "image.json").exists())
        # The other volume is whole.
        self.run_program("extract", archive, "--device", "/dev/xvda", "-o", self.directory / "good.raw")
        assert_same_bytes(self.directory / "good.raw", root)
        self.run_program("extract", archive, "--device", "/dev/sdb", "-o", self.directory / "bad.raw", expect=CORRUPT)
        self.assertFalse((self.directory / "bad.raw").exists())

    def test_progress_fits_a_terminal_of_40_columns(self):
        com, _ = self.partitions()
        disks = [self.disk("root.raw", data=32 << 20), self.disk("data.raw", data=32 << 20, seed=2)]
        url = "s3://com-bucket/a.bin"
        self.run_program("store", "--disk", f"/dev/xvda={disks[0]}", "--disk", f"/dev/sdb={disks[1]}", "--name", "two", url, "--profile", "com")
        command = [program.AMISTORE, "verify", url, "--profile", "com", "--limit-rate", "16MiB"]
        # Little memory, so that few cells are fetched at a time.
        command += ["--memory", "48MiB"]
        lines = drawn(command, 40, {**os.environ, **self.environment, "AMISTORE_STATE": str(self.state)})
        progress = [line for line in lines if "verify" in line and " % " in line.replace(",", " ")]
        self.assertTrue(progress, lines)
        self.assertTrue(all(len(line) <= 40 for line in lines if not line.startswith(("ok ", "root ", "content "))), lines)
        # Rate and time left are there, and of both volumes: nothing begins at 0 % again.
        self.assertTrue(any("/s" in line and re.search(r"\d+ s", line) for line in progress), lines)
        percents = [int(re.search(r"(\d+) %", line).group(1)) for line in progress]
        self.assertEqual(percents, sorted(percents))
        self.assertGreater(len(set(percents)), 2, percents)


def drawn(command, columns, environment):
    """Lines that a program draws on a terminal of this width."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    output, deadline = b"", time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ready, _, _ = select.select([controller], [], [], 1)
        if not ready:
            continue
        try:
            piece = os.read(controller, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        output += piece
    os.close(controller)
    assert process.wait(10) == 0, output
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", output.decode())
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


if __name__ == "__main__":
    for tool in ("zstd", "tar", "mke2fs"):
        if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
            raise SystemExit(f"{tool} is needed")
    unittest.main()
