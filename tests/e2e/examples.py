"""The programs of examples/ do what their first lines say.

    cargo build --examples && cargo build -p amistore-aws-double && python3 tests/e2e/examples.py

The AWS of the tests is $AWS_DOUBLE, else target/debug/aws-double.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
DOUBLE = os.environ.get("AWS_DOUBLE") or str(TARGET / "aws-double")


def example(name, *arguments, code=0, environment=None):
    """Standard output of an example that ends with this exit code."""
    ended = subprocess.run(
        [TARGET / "examples" / name, *arguments], capture_output=True, env={**os.environ, **(environment or {})}
    )
    assert ended.returncode == code, (name, ended.returncode, ended.stderr)
    return ended.stdout


class Examples(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.disk, self.archives = self.directory / "disk.raw", self.directory / "archives"
        self.bytes = os.urandom(20 << 20)
        self.disk.write_bytes(self.bytes)
        self.archives.mkdir()

    def test_files(self):
        stored = example("store_a_disk", self.disk, f"{self.archives}/")
        self.assertIn(b"40 blocks are checked, 0 are damaged", stored)
        (archive,) = self.archives.iterdir()
        part = example("read_a_range", archive, "/dev/xvda", "1000000", "4096")
        self.assertEqual(part, self.bytes[1000000:1004096])
        watched = example("watch_progress", f"{self.archives}/", archive.name)
        self.assertIn(b"verify begins", watched)
        self.assertIn(b"verify has ended", watched)

    def test_damage(self):
        example("store_a_disk", self.disk, f"{self.archives}/")
        (archive,) = self.archives.iterdir()
        with archive.open("r+b") as file:
            file.seek(archive.stat().st_size // 2)
            file.write(bytes(64))
        self.assertIn(b"damage: ", example("watch_progress", f"{self.archives}/", archive.name, code=1))

    def test_s3(self):
        process = subprocess.Popen([DOUBLE, "--s3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            started = json.loads(process.stdout.readline())
            (server,) = started["servers"]
            request = urllib.request.Request(f"{started['admin']}/bucket", json.dumps({"name": "images"}).encode())
            urllib.request.urlopen(request, timeout=30).read()
            stored = example(
                "store_to_s3", self.disk, "s3://images/disks/", server["s3"], environment=server["environment"]
            )
            self.assertRegex(stored, rb"^ami-[0-9a-f]{17}\.bin is stored\nami-[0-9a-f]{17}\.bin has \d+ bytes\n$")
            again = example(
                "store_to_s3", self.disk, "s3://images/disks/", server["s3"], environment=server["environment"]
            )
            self.assertIn(b".bin existed\n", again)
        finally:
            process.stdin.close()
            self.assertEqual(process.wait(10), 0)
            process.stdout.close()

    def test_usage(self):
        for name in ["store_a_disk", "read_a_range", "store_to_s3", "watch_progress"]:
            self.assertEqual(example(name, code=2), b"")


if __name__ == "__main__":
    unittest.main()
