"""amistore, the AWS CLI and boto3 against the servers of `servers.py`: each opens the objects of
the other.

    python3 interop.py [SERVER ...]        # without names: all that are at hand

Needs boto3, `aws` (PyPI awscli), zstd and GNU tar. Tests of features that a server lacks are
skipped, with a note.
"""

import contextlib
import email.header
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import boto3.s3.transfer

import program
import servers
from program import CORRUPT, DENIED, EXISTS, NOT_FOUND, PART, assert_same_file, assert_same_image, make_disk

NAME = "interop 2026-11"
DESCRIPTION = "Größe & Gewicht, naïve ☃ image"
BUCKET = "archives"


class Rig:
    """One server, a bucket in it, and a directory to work in."""

    def __init__(self, server, directory, sources):
        self.server, self.directory, self.sources = server, directory, sources
        self.environment, self.state = server.environment(), directory / "state"
        self.client = server.client()
        self.fresh = 0

    def run(self, *arguments, **options):
        return program.run(self.environment, self.state, *arguments, **options)

    def aws(self, *arguments):
        done = subprocess.run(
            ["aws", "--endpoint-url", self.server.endpoint, *map(str, arguments)],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"aws {arguments}: {done.stderr[-2000:]}"
        return done.stdout

    def path(self, name):
        """The path of a new file or directory."""
        self.fresh += 1
        return self.directory / f"{self.fresh}-{name}"

    def head(self, key):
        return self.client.head_object(Bucket=BUCKET, Key=key)

    def bytes_of(self, key):
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def note(self, text):
        print(f"  {self.server.name}: {text}", flush=True)


class Sources:
    """An image of two volumes and a tiny one, and archives of them in files: the expected bytes of
    an upload.
    """

    def __init__(self, directory):
        self.directory = directory
        self.root, self.data, self.tiny = (directory / name for name in ("root.raw", "data.raw", "tiny.raw"))
        make_disk(self.root, 256 << 20, 60 << 20, seed=1)
        make_disk(self.data, 64 << 20, 12 << 20, seed=2)
        make_disk(self.tiny, 1 << 20, 512 << 10, seed=3, zeros=0)
        self.archive, self.tiny_archive = directory / "image.bin", directory / "tiny.bin"
        self.large = ["--disk", f"/dev/xvda={self.root}", "--disk", f"/dev/sdb={self.data}", "--name", NAME, "--description", DESCRIPTION]
        self.small = ["--disk", f"/dev/xvda={self.tiny}", "--name", "tiny one"]
        program.run({}, directory / "state", "store", *self.large, self.archive)
        program.run({}, directory / "state", "store", *self.small, self.tiny_archive)
        assert self.archive.stat().st_size > 8 * PART, "too few parts for a test"
        assert self.tiny_archive.stat().st_size < PART, "too large for one request"

    def of(self, tiny):
        return (self.small, self.tiny_archive, [self.tiny]) if tiny else (self.large, self.archive, [self.root, self.data])


def stored_objects_open_with_stock_tools(rig):
    for key, tiny in (("large.bin", False), ("tiny.bin", True)):
        options, archive, disks = rig.sources.of(tiny)
        stored = rig.run("store", *options, "--s3-object-tag", "team=storage + more", f"s3://{BUCKET}/{key}").json
        assert (stored["Outcome"], stored["S3objectKey"]) == ("stored", key), stored

        by_cli, by_boto = rig.path("by-cli.bin"), rig.path("by-boto.bin")
        rig.aws("s3", "cp", "--only-show-errors", f"s3://{BUCKET}/{key}", by_cli)
        rig.client.download_file(BUCKET, key, str(by_boto))
        for fetched in (by_cli, by_boto):
            assert_same_file(fetched, archive)

        unpacked = rig.path("unpacked")
        unpacked.mkdir()
        subprocess.run(f"zstd -dc '{by_cli}' | tar -C '{unpacked}' -xSf -", shell=True, check=True, timeout=120)
        assert (unpacked / "image.json").is_file()
        raws = {raw.stat().st_size: raw for raw in unpacked.glob("*.raw")}
        for disk in disks:
            assert_same_file(raws.pop(disk.stat().st_size), disk)
        assert not raws, raws
    large, tiny = (rig.head(key) for key in ("large.bin", "tiny.bin"))
    parts = int(large["ETag"].strip('"').split("-")[1]) if "-" in large["ETag"] else None
    assert parts is None or parts > 8, large["ETag"]
    assert "-" not in tiny["ETag"], tiny["ETag"]
    rig.note(f"stored, fetched and opened with stock tools: {parts or 'an unknown number of'} parts, and one request")


def objects_say_what_they_are(rig):
    large, tiny = (rig.head(key) for key in ("large.bin", "tiny.bin"))
    for head in (large, tiny):
        assert head["ContentType"] == "application/octet-stream", head
    assert large["Metadata"]["ami-name"] == NAME
    sent = large["Metadata"]["ami-description"]
    assert sent.isascii() and sent.lower().startswith("=?utf-8?"), sent
    # Encoded words are joined without the blanks between them.
    words = email.header.decode_header(sent)
    assert "".join(word.decode(charset or "ascii") for word, charset in words) == DESCRIPTION, sent
    assert large["Metadata"]["amistore-format"] and large["Metadata"]["ami-store-date"], large["Metadata"]
    inspected = rig.run("inspect", rig.sources.tiny_archive).json
    assert tiny["Metadata"]["amistore-content-sha256"] == inspected["ContentSha256"], tiny["Metadata"]

    listed = {found["S3objectKey"]: found for found in rig.run("ls", f"s3://{BUCKET}/").json["Archives"]}
    assert listed["large.bin"]["AmiDescription"] == DESCRIPTION, listed
    assert listed["large.bin"]["ArchiveBytes"] == rig.sources.archive.stat().st_size

    if servers.NO_TAGS in rig.server.quirks:
        rig.note("keeps no tags: not compared")
    else:
        for key in ("large.bin", "tiny.bin"):
            tags = rig.client.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
            assert tags == [{"Key": "team", "Value": "storage + more"}], tags


def volumes_are_stored_in_parallel(rig):
    """Part numbers have gaps then. A store that refuses gaps does so before an object exists, and
    nothing is lost.
    """
    store = ["store", *rig.sources.large, "--memory", "512MiB", "--part-size", str(PART), f"s3://{BUCKET}/wide.bin"]
    stored = rig.run(*store, "--volumes-at-once", "2", expect=None)
    if stored.code == program.OK:
        assert rig.bytes_of("wide.bin") == rig.sources.archive.read_bytes()
        parts = rig.head("wide.bin")["ETag"].strip('"').partition("-")[2]
        rig.note(f"volumes in parallel: {parts or 'an unknown number of'} parts, whose numbers have gaps")
        return
    assert stored.code == 8, stored.err.decode()
    rig.run(*store, "--volumes-at-once", "1", "--restart")
    assert rig.bytes_of("wide.bin") == rig.sources.archive.read_bytes()
    rig.note("takes no gaps between the numbers of parts: volumes one after the other")


def uploads_of_others_are_read(rig):
    archive = rig.sources.archive
    rig.aws("s3", "cp", "--only-show-errors", archive, f"s3://{BUCKET}/others/cli.bin")
    transfer = boto3.s3.transfer.TransferConfig(multipart_threshold=PART, multipart_chunksize=PART + (1 << 20))
    rig.client.upload_file(str(archive), BUCKET, "others/boto.bin", Config=transfer)
    expected = rig.path("expected")
    rig.run("restore", archive, expected)
    for name in ("cli", "boto"):
        url = f"s3://{BUCKET}/others/{name}.bin"
        restored = rig.path("restored")
        rig.run("restore", url, restored)
        assert_same_image(restored, expected)
        assert rig.run("verify", url).json["Outcome"] == "ok"
        assert rig.run("verify", "--against", restored, url).json["Outcome"] == "ok"
        inspected = rig.run("inspect", url).json
        assert inspected["Image"]["Name"] == NAME and len(inspected["Volumes"]) == 2, inspected
        volume = rig.path("data.raw")
        extracted = rig.run("extract", url, "--device", "/dev/sdb", "-o", volume).json
        assert_same_file(volume, rig.sources.data)
        whole = archive.stat().st_size
        assert inspected["BytesRead"] < whole // 50, inspected["BytesRead"]
        assert extracted["BytesRead"] < extracted["StoredBytes"] * 5 // 4 + (1 << 20) < whole // 2, extracted
        rig.note(f"of {whole} bytes by {name}, inspect read {inspected['BytesRead']}, extract of one volume {extracted['BytesRead']}")
    listed = rig.run("ls", f"s3://{BUCKET}/others/").json["Archives"]
    assert sorted(found["S3objectKey"] for found in listed) == ["others/boto.bin", "others/cli.bin"], listed


def files_streams_and_objects_are_copied(rig):
    archive = rig.sources.archive
    rig.run("copy", archive, f"s3://{BUCKET}/copies/from-file.bin")
    rig.run("copy", "-", f"s3://{BUCKET}/copies/from-stream.bin", stdin=archive.read_bytes())
    rig.run("copy", f"s3://{BUCKET}/copies/from-file.bin", f"s3://{BUCKET}/copies/by-server.bin")
    rig.run("copy", "--no-server-copy", f"s3://{BUCKET}/large.bin", f"s3://{BUCKET}/copies/through.bin")
    for name in ("from-file", "from-stream", "by-server", "through"):
        assert rig.bytes_of(f"copies/{name}.bin") == archive.read_bytes(), name
    for name in ("from-file", "by-server", "through"):
        assert rig.head(f"copies/{name}.bin")["Metadata"]["ami-name"] == NAME, name
    rig.run("copy", f"s3://{BUCKET}/copies/by-server.bin", rig.path("copy.bin"))
    assert_same_file(rig.directory / f"{rig.fresh}-copy.bin", archive)
    assert rig.run("copy", f"s3://{BUCKET}/copies/by-server.bin", "-").out == archive.read_bytes()
    assert rig.run("copy", archive, f"s3://{BUCKET}/copies/from-file.bin").json["Outcome"] == "present"
    rig.note("copied from file and stream, by the server and through here, to file and stream")


def what_is_there_is_kept(rig):
    url = f"s3://{BUCKET}/kept.bin"
    options, archive, _ = rig.sources.of(tiny=True)
    for outcome in ("stored", "present"):
        assert rig.run("store", *options, url).json["Outcome"] == outcome
    other = rig.path("other.raw")
    make_disk(other, 1 << 20, 512 << 10, seed=4, zeros=0)
    otherwise = [f"/dev/xvda={other}" if option.startswith("/dev/xvda=") else option for option in options]
    rig.run("store", *otherwise, url, expect=EXISTS)
    assert rig.bytes_of("kept.bin") == archive.read_bytes()
    rig.run("store", *otherwise, "--force", url)
    assert rig.bytes_of("kept.bin") != archive.read_bytes()
    rig.run("copy", archive, url, expect=EXISTS)
    rig.run("copy", "--force", archive, url)
    assert rig.bytes_of("kept.bin") == archive.read_bytes()
    rig.note("the same again is no error, other content is, --force replaces")


def errors_are_told_apart(rig):
    small = rig.sources.small
    # Another error than NoSuchKey: the bucket itself does not exist.
    rig.run("store", *small, "s3://no-such-bucket-here/x.bin", expect=NOT_FOUND)
    rig.run("verify", "s3://no-such-bucket-here/x.bin", expect=NOT_FOUND)
    rig.run("verify", f"s3://{BUCKET}/no-such-key.bin", expect=NOT_FOUND)
    rig.run("copy", f"s3://{BUCKET}/large.bin", "s3://no-such-bucket-here/", expect=NOT_FOUND)

    damaged = bytearray(rig.bytes_of("large.bin"))
    damaged[len(damaged) // 2] ^= 0x10
    rig.client.put_object(Bucket=BUCKET, Key="damaged.bin", Body=bytes(damaged))
    found = rig.run("verify", f"s3://{BUCKET}/damaged.bin", expect=CORRUPT).json
    assert found["Outcome"] == "corrupt" and found["Findings"], found
    rig.run("restore", f"s3://{BUCKET}/damaged.bin", rig.path("damaged"), expect=CORRUPT)
    rig.run("copy", "--no-server-copy", f"s3://{BUCKET}/damaged.bin", f"s3://{BUCKET}/damaged-copy.bin", expect=CORRUPT)
    assert "damaged-copy.bin" not in json.dumps(rig.client.list_objects_v2(Bucket=BUCKET), default=str)
    rig.client.delete_object(Bucket=BUCKET, Key="damaged.bin")

    if servers.NO_SIGNATURES in rig.server.quirks:
        rig.note("does not check signatures: wrong credentials are not tried")
        return
    known, unknown = dict(rig.environment), dict(rig.environment)
    known["AWS_SECRET_ACCESS_KEY"] = "0" * len(rig.server.secret_key)
    unknown["AWS_ACCESS_KEY_ID"] = "GK" + "0" * 24
    for environment in (known, unknown):
        for arguments in (["store", *small, f"s3://{BUCKET}/denied.bin"], ["verify", f"s3://{BUCKET}/large.bin"]):
            refused = program.run(environment, rig.state, *arguments, expect=DENIED)
            error = refused.events[-1]
            assert error.get("context", {}).get("code"), f"the message does not name the service's code: {error}"
    rig.note(f"wrong credentials are told: {error['context']['code']}")


def nothing_is_left(rig):
    """After all of the above: no open upload, no task. Failed copies and stores that could be
    continued are given up.
    """
    rig.run("clean", "--abort")
    assert not program.open_uploads(rig.server, BUCKET), program.open_uploads(rig.server, BUCKET)
    assert not program.unfinished(rig.environment, rig.state)


SCENES = [
    stored_objects_open_with_stock_tools,
    objects_say_what_they_are,
    volumes_are_stored_in_parallel,
    uploads_of_others_are_read,
    files_streams_and_objects_are_copied,
    what_is_there_is_kept,
    errors_are_told_apart,
    nothing_is_left,
]


def between_two_services(one, other, directory, sources):
    """Two endpoints and two credentials, from a configuration file: by options, and by the profiles
    themselves.
    """
    directory.mkdir()
    config, credentials = directory / "config", directory / "credentials"
    with open(config, "w") as file:
        for server in (one, other):
            file.write(f"[profile {server.name}]\nregion = {server.region}\n\n")
            file.write(f"[profile {server.name}-whole]\nregion = {server.region}\nendpoint_url = {server.endpoint}\n\n")
    with open(credentials, "w") as file:
        for server in (one, other):
            for name in (server.name, f"{server.name}-whole"):
                file.write(f"[{name}]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n\n")
    environment = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_EC2_METADATA_DISABLED": "true"}
    for server in (one, other):
        server.make_bucket("two")
    program.run(one.environment(), directory / "state", "store", *sources.large, "s3://two/start.bin")
    hops = [
        (one, other, "start.bin", "there.bin", True),
        (other, one, "there.bin", "back.bin", False),
    ]
    for source, target, key, new_key, by_options in hops:
        suffix = "" if by_options else "-whole"
        endpoints = ["--source-endpoint-url", source.endpoint, "--target-endpoint-url", target.endpoint] if by_options else []
        profiles = ["--source-profile", source.name + suffix, "--target-profile", target.name + suffix]
        program.run(environment, directory / "state", "copy", *profiles, *endpoints, f"s3://two/{key}", f"s3://two/{new_key}")
        copy = target.client().get_object(Bucket="two", Key=new_key)
        assert copy["Body"].read() == sources.archive.read_bytes()
        assert copy["Metadata"]["ami-name"] == NAME, copy["Metadata"]
        assert not program.open_uploads(target, "two")
    print(f"  from {one.name} to {other.name} and back, with two profiles", flush=True)


def main(names):
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interop-")))
        sources = Sources(directory)
        started = [stack.enter_context(servers.start(name)) for name in names]
        for server in started:
            here = directory / server.name
            here.mkdir()
            server.make_bucket(BUCKET)
            rig = Rig(server, here, sources)
            for scene in SCENES:
                scene(rig)
        if len(started) > 1:
            between_two_services(started[0], started[1], directory / "two", sources)
    print(f"interop: {', '.join(names)}: all good, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or servers.at_hand())
