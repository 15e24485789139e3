"""The commands of docs/ec2.md from one partition to another, compared with boto3 and the AWS CLI,
and the refusals on the way.

    cargo build --release && cargo build -p amistore-aws-double && python3 tests/e2e/ec2.py

Two AWSs of the tests (`tests/aws-double`) stand for two partitions: accounts, keys, Regions and
endpoints of their own, named by one configuration file, as that of a user would. boto3 and the AWS
CLI make and inspect the images, so each side reads what the other wrote. With $COLDSNAP, or
coldsnap on PATH, it reads what amistore restored, and amistore stores what it wrote.

The programs are $AMISTORE and $AWS_DOUBLE, else those of the target directory. Needs boto3, `aws`
(PyPI awscli), moto[server,ec2], zstd and GNU tar.
"""

import datetime
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import boto3

import check_aws
import program
import servers
from check_aws import BLOCK
from program import CORRUPT, DENIED, EXISTS, IO, NOT_FOUND, make_disk

USAGE, UNSUPPORTED = 2, 8
GIB = 1 << 30
NAME = "web 2026-11"
TAGS = {"team": "storage + more", "größe": "☃"}


class Side:
    """One of the two partitions: a profile, a bucket, and the clients of AWS that use the
    profile.
    """

    def __init__(self, name, aws, configuration):
        self.name, self.aws, self.bucket = name, aws, f"{name}-bucket"
        self.environment = configuration
        aws.order("/bucket", {"name": self.bucket})

    def client(self, service):
        return self.aws.client(service)

    def cli(self, *arguments):
        """Output of the AWS CLI, which gets nothing but the profile."""
        done = subprocess.run(
            ["aws", "--profile", self.name, "--output", "json", *map(str, arguments)],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"aws {arguments}: {done.stderr[-2000:]}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def image(self, image):
        [described] = self.client("ec2").describe_images(ImageIds=[image], IncludeDisabled=True)["Images"]
        return described

    def keys(self):
        return [stored["Key"] for stored in self.client("s3").list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def dump(self, snapshot, path):
        """The bytes of a snapshot, without EBS and its clients."""
        self.aws.order(f"/snapshot/{snapshot}/raw?path={path}")
        return path

    def made(self):
        """Ids of all images and snapshots, which a test must not change."""
        state = self.aws.order("/state")
        return [found["id"] for kind in ("images", "snapshots") for found in state[kind]]


class Rig:
    def __init__(self, com, gov, directory):
        self.sides = self.com, self.gov = com, gov
        self.directory, self.state = directory, directory / "state"
        self.environment = com.environment
        # Snapshots that have no image on purpose.
        self.loose = set()
        self.fresh = 0

    def run(self, *arguments, **options):
        return program.run(self.environment, self.state, *arguments, **options)

    def path(self, name):
        self.fresh += 1
        return self.directory / f"{self.fresh}-{name}"

    def refused(self, code, kind, *arguments):
        """An error as JSON that agrees with the exit code, after which nothing was made."""
        before = [(side.made(), side.keys()) for side in self.sides]
        error = self.run(*arguments, expect=code).events[-1]
        assert (error["exit_code"], error["kind"]) == (code, kind) and error["message"], error
        assert before == [(side.made(), side.keys()) for side in self.sides], f"{arguments}: something was made"
        return error


def configuration(places, directory):
    """A configuration file with a profile and a `services` section for each, as docs/ec2.md has it
    for two partitions.
    """
    config, credentials = directory / "config", directory / "credentials"
    with open(config, "w") as settings, open(credentials, "w") as keys:
        for name, aws in places.items():
            variables = aws.environment
            settings.write(f"[profile {name}]\nregion = {aws.region}\nservices = {name}-services\n\n[services {name}-services]\n")
            for service, variable in (("ec2", "AWS_ENDPOINT_URL"), ("ebs", "AWS_ENDPOINT_URL"), ("s3", "AWS_ENDPOINT_URL_S3")):
                settings.write(f"{service} =\n  endpoint_url = {variables[variable]}\n")
            settings.write("\n")
            keys.write(f"[{name}]\naws_access_key_id = {variables['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {variables['AWS_SECRET_ACCESS_KEY']}\n\n")
    return {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials), "AWS_EC2_METADATA_DISABLED": "true"}


def digest(path):
    """SHA-256 of the length and of all blocks that are not zeros, with their offsets: holes are not
    read.
    """
    found = hashlib.sha256(str(os.stat(path).st_size).encode())
    with open(path, "rb") as file:
        for at, data in blocks_of(file):
            if data.count(0) != len(data):
                found.update(b"%d " % at + data)
    return found.hexdigest()


def blocks_of(file):
    """The present blocks of a sparse file, with their indexes."""
    at = 0
    while True:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError:
            return
        yield at, os.pread(file.fileno(), BLOCK, at)
        at += BLOCK


def texts(value):
    """A time of boto3 as the text that AWS sent."""
    match value:
        case datetime.datetime():
            utc = value.astimezone(datetime.timezone.utc)
            return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03}Z"
        case dict():
            return {name: texts(inner) for name, inner in value.items()}
        case list():
            return [texts(inner) for inner in value]
    return value


def upload(side, raw):
    """A snapshot, put block by block by boto3."""
    ebs = side.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=os.stat(raw).st_size // GIB, Description="by boto3", Tags=[{"Key": "by", "Value": "boto3"}])["SnapshotId"]
    count = 0
    with open(raw, "rb") as file:
        for at, data in blocks_of(file):
            check_aws.put(ebs, snapshot, at // BLOCK, data)
            count += 1
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=count)
    side.client("ec2").get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
    return snapshot


def image_of(rig):
    """An image with two volumes and many attributes, registered by the AWS CLI."""
    com = rig.com
    rig.disks = [rig.path("root.raw"), rig.path("data.raw")]
    make_disk(rig.disks[0], GIB, 24 << 20, seed=31)
    make_disk(rig.disks[1], 4 * GIB, 12 << 20, seed=32)
    rig.snapshots = [upload(com, disk) for disk in rig.disks]
    mappings = [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": rig.snapshots[0], "VolumeType": "gp3", "Iops": 3000, "Throughput": 250, "DeleteOnTermination": True}},
        {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": rig.snapshots[1], "VolumeType": "io2", "Iops": 500, "DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
    ]
    tags = [{"Key": key, "Value": value} for key, value in TAGS.items()]
    registered = com.cli(
        "ec2", "register-image", "--name", NAME, "--description", "Größe & <Gewicht>", "--architecture", "arm64", "--root-device-name", "/dev/xvda",
        "--virtualization-type", "hvm", "--ena-support", "--sriov-net-support", "simple", "--boot-mode", "uefi", "--imds-support", "v2.0", "--tpm-support", "v2.0",
        "--block-device-mappings", json.dumps(mappings), "--tag-specifications", json.dumps([{"ResourceType": "image", "Tags": tags}]),
    )
    rig.image = registered["ImageId"]
    com.client("ec2").modify_image_attribute(ImageId=rig.image, LaunchPermission={"Add": [{"UserId": "210987654321"}]})
    rig.described = com.image(rig.image)


def a_dry_run_writes_nothing(rig):
    com = rig.com
    before = com.made()
    plan = rig.run("store", rig.image, f"s3://{com.bucket}/", "--dry-run", "--source-profile", "com", "--target-profile", "com").json
    blocks = sum(snapshot["blocks"] for snapshot in com.aws.order("/state")["snapshots"])
    assert plan["DryRun"] is True and plan["ImageId"] == rig.image, plan
    # One block of each snapshot is read twice: first to see that the snapshot can be read at all.
    gets = blocks + len(rig.snapshots)
    assert (plan["Ebs"]["GetSnapshotBlock"], plan["Ebs"]["PutSnapshotBlock"], plan["Ebs"]["Region"]) == (gets, 0, "us-east-1"), plan
    assert [volume["SnapshotId"] for volume in plan["Volumes"]] == rig.snapshots
    assert com.keys() == [] and com.made() == before and not rig.run("tasks").json["StoreImageTaskResults"]


def an_image_is_stored(rig):
    """Step 1 of docs/ec2.md, and the archive as stock tools read it."""
    com = rig.com
    stored = rig.run("store", rig.image, f"s3://{com.bucket}/", "--source-profile", "com", "--target-profile", "com").json
    rig.key = f"{rig.image}.bin"
    assert (stored["Outcome"], stored["ImageId"], stored["S3objectKey"]) == ("stored", rig.image, rig.key), stored
    assert com.keys() == [rig.key]
    head = com.cli("s3api", "head-object", "--bucket", com.bucket, "--key", rig.key)
    assert head["Metadata"]["ami-name"] == NAME and head["Metadata"]["ami-owner-account"] == com.aws.account, head
    assert head["ContentLength"] == stored["ArchiveBytes"]

    rig.archive, unpacked = rig.path("stored.bin"), rig.path("unpacked")
    com.client("s3").download_file(com.bucket, rig.key, str(rig.archive))
    unpacked.mkdir()
    subprocess.run(f"zstd -dc '{rig.archive}' | tar -C '{unpacked}' -xSf -", shell=True, check=True, timeout=120)
    document = json.loads((unpacked / "image.json").read_text())
    assert document["Image"] == texts(rig.described), f"{document['Image']}\n{texts(rig.described)}"
    described = {found["SnapshotId"]: texts(found) for found in com.client("ec2").describe_snapshots(SnapshotIds=rig.snapshots)["Snapshots"]}
    recorded = {found["SnapshotId"]: found for found in document["Snapshots"]}
    assert sorted(recorded) == sorted(described), recorded
    for snapshot, found in recorded.items():
        common = [name for name in found if name in described[snapshot]]
        assert len(common) >= 5, found
        for name in common:
            assert found[name] == described[snapshot][name], (name, found, described[snapshot])
    for snapshot, disk in zip(rig.snapshots, rig.disks):
        assert digest(unpacked / f"{snapshot}.raw") == digest(disk), snapshot

    profiles = ["--source-profile", "com"]
    assert rig.run("inspect", f"s3://{com.bucket}/{rig.key}", "--profile", "com").json["Image"] == document["Image"]
    assert rig.run("verify", f"s3://{com.bucket}/{rig.key}", "--profile", "com").json["Outcome"] == "ok"
    again = rig.run("store", rig.image, f"s3://{com.bucket}/", *profiles, "--target-profile", "com").json
    assert again["Outcome"] == "present" and again["RootSha256"] == stored["RootSha256"], again
    # The same bytes by another way, and from the image directory.
    to_file, from_directory = rig.path("to-file.bin"), rig.path("from-directory.bin")
    rig.run("store", rig.image, to_file, *profiles)
    rig.run("store", unpacked, from_directory)
    assert digest(to_file) == digest(from_directory) == digest(rig.archive)
    [listed] = rig.run("ls", f"s3://{com.bucket}/", "--profile", "com").json["Archives"]
    assert (listed["S3objectKey"], listed["AmiName"], listed["AmiOwnerAccount"]) == (rig.key, NAME, com.aws.account), listed


def it_is_carried_across(rig):
    """Step 2: two sets of credentials, and no side sees those of the other."""
    com, gov = rig.sides
    source = f"s3://{com.bucket}/{rig.key}"
    copied = rig.run("copy", source, f"s3://{gov.bucket}/", "--source-profile", "com", "--target-profile", "gov").json
    assert (copied["Outcome"], copied["S3objectKey"]) == ("copied", rig.key), copied
    across = rig.path("across.bin")
    gov.client("s3").download_file(gov.bucket, rig.key, str(across))
    assert digest(across) == digest(rig.archive)
    assert gov.keys() == [rig.key]
    # In one step, to another name.
    rig.run("store", rig.image, f"s3://{gov.bucket}/direct.bin", "--source-profile", "com", "--target-profile", "gov")
    direct = gov.client("s3").get_object(Bucket=gov.bucket, Key="direct.bin")["Body"].read()
    assert direct == rig.archive.read_bytes()


def assert_restored(rig, side, restored, **expected):
    """Content by raw dumps and digests, attributes by boto3 and the AWS CLI, and the report on
    them.
    """
    image = side.image(restored["RestoredImageId"])
    [by_cli] = side.cli("ec2", "describe-images", "--image-ids", restored["RestoredImageId"])["Images"]
    assert by_cli == texts(image)
    same = {name: rig.described.get(name) for name in ("Architecture", "BootMode", "Description", "EnaSupport", "ImdsSupport", "RootDeviceName", "SriovNetSupport", "TpmSupport", "VirtualizationType")}
    for name, value in {**same, "Name": NAME, "State": "available", "OwnerId": side.aws.account, "Public": False, **expected}.items():
        if name not in ("Encrypted", "Snapshots"):
            assert image.get(name) == value, (name, image.get(name), value)
    assert {tag["Key"]: tag["Value"] for tag in image["Tags"]}.items() >= TAGS.items(), image["Tags"]
    snapshots = {found["ArchivedSnapshotId"]: found["SnapshotId"] for found in restored["Snapshots"]}
    assert sorted(snapshots) == sorted(rig.snapshots)
    by_device = {mapping["DeviceName"]: mapping for mapping in image["BlockDeviceMappings"]}
    for before in rig.described["BlockDeviceMappings"]:
        now = by_device.pop(before["DeviceName"])
        if "Ebs" not in before:
            assert now == before, now
            continue
        want = {**before["Ebs"], "SnapshotId": snapshots[before["Ebs"]["SnapshotId"]], "Encrypted": expected.get("Encrypted", False)}
        now["Ebs"].pop("KmsKeyId", None)
        assert now["Ebs"] == want, f"{now} and {want}"
    assert not by_device
    for archived, disk in zip(rig.snapshots, rig.disks):
        snapshot = snapshots[archived]
        dumped = side.dump(snapshot, rig.path("dumped.raw"))
        assert digest(dumped) == digest(disk), snapshot
        os.remove(dumped)
        # Blocks that were written, and no others; zeros that were written are written again.
        blocks = lambda there, id: next(found["blocks"] for found in there.aws.order("/state")["snapshots"] if found["id"] == id)
        assert blocks(side, snapshot) == blocks(rig.com, archived), snapshot
        [described] = side.client("ec2").describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
        assert (described["State"], described["Encrypted"]) == ("completed", expected.get("Encrypted", False)), described
    kinds = {item["Result"] for item in restored["Fidelity"]}
    assert {"set", "impossible", "left"} <= kinds <= {"set", "changed", "impossible", "left"}, kinds
    assert all(item["Reason"] for item in restored["Fidelity"] if item["Result"] in ("impossible", "left")), restored["Fidelity"]


def it_becomes_an_image_there(rig):
    """Step 3, and the same in one step with the copy."""
    com, gov = rig.sides
    url, sides = f"s3://{gov.bucket}/{rig.key}", ["--source-profile", "gov", "--target-profile", "gov"]
    before = gov.made()
    plan = rig.run("restore", url, "ec2", *sides, "--encrypted", "--dry-run").json
    assert plan["DryRun"] is True and plan["Ebs"]["Region"] == "us-gov-west-1" and plan["Fidelity"], plan
    assert gov.made() == before
    restored = rig.run("restore", url, "ec2", *sides, "--encrypted").json
    assert (restored["ImageId"], restored["Region"]) == (rig.image, "us-gov-west-1"), restored
    assert_restored(rig, gov, restored, Encrypted=True)
    assert len(gov.made()) == 3, gov.made()
    # The name is in use now; another one is free.
    rig.refused(EXISTS, "exists", "restore", url, "ec2", *sides)
    options = ["--source-profile", "com", "--target-profile", "gov", "--name", "web 2", "--description", "", "--volume-type", "/dev/sdb=gp3", "--iops", "/dev/sdb=3000"]
    across = rig.run("restore", f"s3://{com.bucket}/{rig.key}", "ec2", *options, "--volume-size", "/dev/sdb=5", "--no-tags", "--tag", "new=1").json
    image = gov.image(across["RestoredImageId"])
    assert image["Name"] == "web 2" and not image.get("Description") and image["Tags"] == [{"Key": "new", "Value": "1"}], image
    [data] = [mapping["Ebs"] for mapping in image["BlockDeviceMappings"] if mapping["DeviceName"] == "/dev/sdb"]
    assert (data["VolumeType"], data["VolumeSize"], data["Iops"]) == ("gp3", 5, 3000), data
    changed = {(item["Subject"], item["Attribute"]) for item in across["Fidelity"] if item["Result"] == "changed"}
    assert {("image", "Name"), ("/dev/sdb", "VolumeType"), ("/dev/sdb", "VolumeSize")} <= changed, changed
    # From a stream, by another program.
    with open(rig.archive, "rb") as file:
        streamed = program.run(rig.environment, rig.state, "restore", "-", "ec2", "--profile", "com", "--name", "streamed", stdin=file.read()).json
    assert_restored(rig, com, streamed, Name="streamed")
    assert program.unfinished(rig.environment, rig.state) == []


def bare_snapshots(rig):
    com = rig.com
    both = rig.path("snapshots.bin")
    rig.run("store", ",".join(rig.snapshots), both, "--profile", "com")
    restored = rig.path("restored")
    rig.run("restore", both, restored)
    for snapshot, disk in zip(rig.snapshots, rig.disks):
        assert digest(restored / f"{snapshot}.raw") == digest(disk), snapshot
    images = len(com.client("ec2").describe_images(Owners=["self"])["Images"])
    made = rig.run("restore", both, "ec2", "--profile", "com", "--snapshots-only").json
    assert made["RestoredImageId"] is None and len(made["Snapshots"]) == 2, made
    rig.loose |= {found["SnapshotId"] for found in made["Snapshots"]}
    assert len(com.client("ec2").describe_images(Owners=["self"])["Images"]) == images
    # The snapshot of amistore, read by boto3: each block, its checksum, and nothing between them.
    ebs, [snapshot, _] = com.client("ebs"), [found["SnapshotId"] for found in made["Snapshots"]]
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    with open(rig.disks[0], "rb") as disk:
        for block in listed:
            got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])
            data = got["BlockData"].read()
            assert data == os.pread(disk.fileno(), BLOCK, block["BlockIndex"] * BLOCK) and got["Checksum"] == check_aws.checksum(data)
    assert len(listed) == 52, len(listed)


def the_old_one_retires(rig):
    """Step 4; an archive of another image retires nothing."""
    com = rig.com
    ec2, sides = com.client("ec2"), ["--source-profile", "com", "--target-profile", "com"]
    arguments = ["retire", rig.image, "--archive", f"s3://{com.bucket}/", *sides]
    plan = rig.run(*arguments, "--deregister", "--delete-snapshots", "--dry-run").json
    assert plan["DryRun"] is True and com.image(rig.image)["State"] == "available", plan
    retired = rig.run(*arguments, "--deprecate", "--yes").json
    assert (retired["Action"], retired["ImageId"]) == ("deprecate", rig.image)
    assert com.image(rig.image)["DeprecationTime"] > datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M"), com.image(rig.image)

    holding = lambda text: com.aws.order("/snapshot", {"size_gib": 1, "blocks": [{"index": 7, "text": text}, {"index": 9, "zero": True}]})["id"]
    first = holding("what it holds")
    image = com.aws.order("/image", {"name": "to be retired", "snapshot": first})["id"]
    rig.run("store", image, f"s3://{com.bucket}/retired.bin", *sides)
    unlike = com.aws.order("/image", {"name": "unlike it", "snapshot": holding("what it hides")})["id"]
    for wrong in (["retire", unlike], ["retire", rig.image]):
        error = rig.run(*wrong, "--archive", f"s3://{com.bucket}/retired.bin", *sides, "--deregister", "--delete-snapshots", "--yes", expect=None)
        assert error.code == CORRUPT, (error.code, error.err)
        assert com.image(wrong[1])["State"] == "available"
    disabled = ["retire", image, "--archive", f"s3://{com.bucket}/retired.bin", *sides, "--disable", "--yes"]
    rig.run(*disabled)
    assert com.image(image)["State"] == "disabled"
    rig.run(*disabled[:-2], "--deregister", "--delete-snapshots", "--yes")
    assert image not in com.made() and first not in com.made()
    assert ec2.describe_images(Filters=[{"Name": "name", "Values": ["to be retired"]}])["Images"] == []


def aws_does_it_itself(rig):
    com = rig.com
    for side in rig.sides:
        # The next request answers.
        side.aws.order("/settings", {"store_polls": 0, "restore_polls": 0})
    profile = ["--profile", "com"]
    assert rig.run("store", rig.image, f"s3://{com.bucket}/via/", *profile, "--via-aws", "--dry-run").json["DryRun"] is True
    assert not [key for key in com.keys() if key.startswith("via/")]
    stored = rig.run("store", rig.image, f"s3://{com.bucket}/via/", *profile, "--via-aws").json
    assert (stored["By"], stored["S3objectKey"]) == ("AWS", f"via/{rig.key}"), stored
    [task] = com.cli("ec2", "describe-store-image-tasks", "--image-ids", rig.image)["StoreImageTaskResults"]
    assert (task["S3objectKey"], task["StoreTaskState"]) == (stored["S3objectKey"], "Completed"), task
    url = f"s3://{com.bucket}/{stored['S3objectKey']}"
    for arguments in (["inspect", url], ["restore", url, "ec2"], ["restore", url, rig.path("nothing")]):
        error = rig.refused(UNSUPPORTED, "unsupported", *arguments, *profile)
        assert "AWS" in error["message"] + str(error["hint"]), error
    restored = rig.run("restore", url, "ec2", *profile, "--via-aws", "--name", "by AWS").json
    image = com.image(restored["RestoredImageId"])
    assert (image["Name"], image["State"], image["SourceImageId"]) == ("by AWS", "available", rig.image), image
    for snapshot, disk in zip([mapping["Ebs"]["SnapshotId"] for mapping in image["BlockDeviceMappings"] if "Ebs" in mapping], rig.disks):
        dumped = com.dump(snapshot, rig.path("dumped.raw"))
        assert digest(dumped) == digest(disk)
        os.remove(dumped)


def refusals_say_why(rig):
    com, gov = rig.sides
    profile, url = ["--profile", "com"], f"s3://{com.bucket}/refused.bin"
    rig.refused(NOT_FOUND, "not_found", "store", "ami-0123456789abcdef0", url, *profile)
    rig.refused(NOT_FOUND, "not_found", "store", "snap-0123456789abcdef0", url, *profile)
    rig.refused(NOT_FOUND, "not_found", "restore", f"s3://{com.bucket}/no-such-key.bin", "ec2", *profile)
    rig.refused(USAGE, "usage", "store", "ami-1", url, *profile)
    assert rig.run("store", rig.image, "--archive", expect=USAGE).code == USAGE
    # A private image of another account is reported like a missing one.
    rig.refused(NOT_FOUND, "not_found", "store", rig.image, url, "--profile", "gov")
    archived = com.aws.order("/snapshot", {"size_gib": 1, "tier": "archive"})["id"]
    assert "archive tier" in rig.refused(IO, "io", "store", archived, url, *profile)["message"]
    pending = com.aws.order("/snapshot", {"size_gib": 1, "state": "pending"})["id"]
    assert "still being made" in rig.refused(IO, "io", "store", pending, url, *profile)["message"]
    rig.loose |= {archived, pending}
    paravirtual = com.aws.order("/image", {"name": "old", "snapshot": rig.snapshots[0], "virtualization_type": "paravirtual"})["id"]
    assert "paravirtual" in rig.refused(UNSUPPORTED, "unsupported", "store", paravirtual, url, *profile)["message"]
    for operation, arguments in (
        ("ec2:DescribeImages", ["store", rig.image, url]),
        ("ebs:ListSnapshotBlocks", ["store", rig.image, url]),
        ("ebs:GetSnapshotBlock", ["store", rig.image, url]),
        ("ebs:StartSnapshot", ["restore", f"s3://{com.bucket}/{rig.key}", "ec2", "--name", "refused"]),
        ("ec2:DeregisterImage", ["retire", rig.image, "--archive", f"s3://{com.bucket}/", "--deregister", "--yes"]),
    ):
        com.aws.order("/deny", {"operation": operation})
        error = rig.refused(DENIED, "denied", *arguments, *profile)
        com.aws.order("/allow", {"operation": operation})
        assert operation.split(":")[1] in json.dumps(error), f"{operation}: {error}"
    # A damaged archive becomes no image, and no snapshot stays.
    damaged = bytearray(rig.archive.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    com.client("s3").put_object(Bucket=com.bucket, Key="damaged.bin", Body=bytes(damaged))
    before = com.made()
    rig.run("restore", f"s3://{com.bucket}/damaged.bin", "ec2", *profile, "--name", "damaged", expect=CORRUPT)
    rig.run("clean", "--abort")
    assert com.made() == before, "a damaged archive left something behind"


def beside_coldsnap(rig):
    """Both on the same server: each reads the snapshots of the other. Optional: it takes long to
    build.
    """
    coldsnap = os.environ.get("COLDSNAP") or shutil.which("coldsnap")
    if not coldsnap:
        print("  no coldsnap: what it reads and writes is not compared")
        return
    com = rig.com
    environment = {**os.environ, **com.aws.environment}

    def run(*arguments):
        done = subprocess.run([coldsnap, "--endpoint", com.aws.environment["AWS_ENDPOINT_URL"], *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"coldsnap {arguments}: {done.stderr[-2000:]}"
        return done.stdout.strip()

    restored = rig.run("restore", rig.archive, "ec2", "--profile", "com", "--name", "for coldsnap").json
    for found, disk in zip(restored["Snapshots"], rig.disks):
        downloaded = rig.path("coldsnap.raw")
        run("download", found["SnapshotId"], downloaded)
        assert digest(downloaded) == digest(disk)
        os.remove(downloaded)
    snapshot = run("upload", "--wait", "--omit-zero-blocks", rig.disks[0]).split()[-1]
    rig.loose.add(snapshot)
    stored, unpacked = rig.path("uploaded.bin"), rig.path("uploaded")
    rig.run("store", snapshot, stored, "--profile", "com")
    rig.run("restore", stored, unpacked)
    assert digest(unpacked / f"{snapshot}.raw") == digest(rig.disks[0])
    print("  coldsnap reads what amistore wrote, and the other way round")


def nothing_is_left(rig):
    """No task, no open upload, nothing to clean; no side ever got a request with the key of the
    other.
    """
    assert program.unfinished(rig.environment, rig.state) == []
    assert rig.run("clean").json["Leftovers"] == []
    for side in rig.sides:
        assert side.client("s3").list_multipart_uploads(Bucket=side.bucket).get("Uploads", []) == []
        key = side.aws.environment["AWS_ACCESS_KEY_ID"]
        strangers = {call["access_key"] for call in side.aws.order("/log")} - {key}
        assert not strangers, strangers
        state = side.aws.order("/state")
        used = {mapping["ebs"]["snapshot_id"] for image in state["images"] for mapping in image["mappings"] if mapping["ebs"]}
        orphans = {found["id"] for found in state["snapshots"]} - used - rig.loose
        assert not orphans, orphans


SCENES = [
    image_of,
    a_dry_run_writes_nothing,
    an_image_is_stored,
    it_is_carried_across,
    it_becomes_an_image_there,
    bare_snapshots,
    the_old_one_retires,
    aws_does_it_itself,
    refusals_say_why,
    beside_coldsnap,
    nothing_is_left,
]


def beside_moto(directory):
    """moto, an independent implementation: requests that it understands, and blocks in which it
    differs from EBS.

    moto 5.2 deviates from AWS in what matters here. Blocks have 512 bytes, and that number is text
    in the answer of ListSnapshotBlocks. DescribeImageAttribute of uefiData fails with status 500.
    RegisterImage keeps name and description alone and makes snapshots of its own. There are no
    tasks of images. So no image can be stored from it or restored to it, and it has to be said:
    images are not tried, because what is asked first is where moto breaks.
    """
    state, few = directory / "moto-state", ["--max-attempts", "2"]
    with servers.start("moto") as moto:
        moto.make_bucket("archives")
        s3, options = moto.client(), {"endpoint_url": moto.endpoint, "region_name": moto.region, "aws_access_key_id": "k", "aws_secret_access_key": "s"}
        ec2, ebs = boto3.client("ec2", **options), boto3.client("ebs", **options)
        run = lambda *arguments, **other: program.run(moto.environment(), state, *arguments, *few, **other)
        snapshot = ebs.start_snapshot(VolumeSize=1, Description="by boto3")["SnapshotId"]
        check_aws.put(ebs, snapshot, 0, b"\x05" * BLOCK)
        ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
        run("store", "ami-0123456789abcdef0", "s3://archives/", expect=NOT_FOUND)
        run("store", "snap-0123456789abcdef0", "s3://archives/x.bin", expect=NOT_FOUND)
        for dry in (["--dry-run"], []):
            refused = run("store", snapshot, "s3://archives/x.bin", *dry, expect=None)
            assert refused.code in (UNSUPPORTED, IO), refused.err
            assert "block" in refused.events[-1]["message"], refused.events[-1]
        assert not s3.list_objects_v2(Bucket="archives").get("Contents") and not state.exists() or not program.unfinished(moto.environment(), state)

        disk = directory / "moto.raw"
        make_disk(disk, GIB, 1 << 20, seed=33)
        run("store", "--disk", f"/dev/xvda={disk}", "--name", "for moto", "s3://archives/moto.bin")
        images = lambda: ec2.describe_images(Owners=["self"])["Images"]
        before = images()
        plan = run("restore", "s3://archives/moto.bin", "ec2", "--dry-run").json
        assert plan["Ebs"]["PutSnapshotBlock"] == 6, plan
        refused = run("restore", "s3://archives/moto.bin", "ec2", expect=UNSUPPORTED).events[-1]
        assert "blocks of another size" in refused["message"] and refused["context"]["block_size"] == 512, refused
        assert images() == before
        # A name in use is detected before anything is made.
        ec2.register_image(Name="for moto", RootDeviceName="/dev/xvda")
        assert run("restore", "s3://archives/moto.bin", "ec2", expect=EXISTS).events[-1]["kind"] == "exists"


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ec2-") as name:
        directory = pathlib.Path(name)
        with check_aws.running("--s3", "--server", "us-east-1", "--server", "us-gov-west-1,210987654321,AKIDGOV,secret") as [com, gov]:
            variables = configuration({"com": com, "gov": gov}, directory)
            rig = Rig(Side("com", com, variables), Side("gov", gov, variables), directory)
            for scene in SCENES:
                start = time.monotonic()
                scene(rig)
                print(f"  {scene.__name__.replace('_', ' ')} ({time.monotonic() - start:.1f} s)", flush=True)
        beside_moto(directory)
        print("  what moto cannot do is refused", flush=True)
    print(f"ec2: all good, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
