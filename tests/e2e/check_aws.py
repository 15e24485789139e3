"""The AWS of the tests, used by the Python libraries of AWS, and compared with moto where moto
agrees with AWS.

    cargo build -p amistore-aws-double && python3 tests/e2e/check_aws.py

The program is $AWS_DOUBLE, else target/debug/aws-double. Needs boto3 and moto[server,ec2].
"""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.request

import boto3
import botocore.config
import botocore.exceptions

import servers

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = os.environ.get("AWS_DOUBLE") or str(TARGET / "debug/aws-double")
BLOCK = 512 << 10


class TestAws:
    """One of the servers of the program."""

    def __init__(self, admin, number, described, pid):
        self.admin, self.number, self.environment, self.pid = admin, number, described["environment"], pid
        self.account, self.region = described["account"], described["region"]

    def order(self, path, order=None, method=None):
        """The answer of the admin interface: JSON, unless it is an error."""
        separator = "&" if "?" in path else "?"
        url = f"{self.admin}{path}{separator}server={self.number}"
        data = None if order is None else json.dumps(order).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as answer:
            return json.load(answer)

    def client(self, service, **changes):
        environment = self.environment
        endpoint = environment.get(f"AWS_ENDPOINT_URL_{service.upper()}", environment["AWS_ENDPOINT_URL"])
        options = {
            "endpoint_url": endpoint,
            "region_name": self.region,
            "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
            "config": botocore.config.Config(s3={"addressing_style": "path"}, read_timeout=10, retries={"max_attempts": 0}),
        }
        return boto3.client(service, **{**options, **changes})


@contextlib.contextmanager
def running(*arguments):
    """The program, and its servers."""
    process = subprocess.Popen([PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        said = json.loads(process.stdout.readline())
        yield [TestAws(said["admin"], number, described, process.pid) for number, described in enumerate(said["servers"])]
    finally:
        process.stdin.close()
        assert process.wait(10) == 0
        process.stdout.close()


def checksum(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def failure(call, **parameters):
    """Status, code and reason of an error."""
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as error:
        answer = error.response
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer.get("Reason")
    raise AssertionError("there is no error")


def put(ebs, snapshot, index, data, **changes):
    parameters = {"BlockData": data, "DataLength": len(data), "Checksum": checksum(data), "ChecksumAlgorithm": "SHA256"}
    return ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, **{**parameters, **changes})


def check_snapshots(aws):
    """A snapshot is written and read as a client of EBS direct does it."""
    ebs, ec2 = aws.client("ebs"), aws.client("ec2")
    started = ebs.start_snapshot(VolumeSize=1, Description="prüfung", Tags=[{"Key": "ключ", "Value": ""}], Timeout=60, ClientToken="a")
    assert (started["Status"], started["BlockSize"], started["OwnerId"]) == ("pending", BLOCK, aws.account), started
    assert abs(started["StartTime"].timestamp() - time.time()) < 60
    snapshot = started["SnapshotId"]
    written = {3: bytes(BLOCK), 0: b"\x01" * BLOCK, 7: b"\x02" * BLOCK}
    for index, data in written.items():
        assert put(ebs, snapshot, index, data)["Checksum"] == checksum(data)
    assert failure(put, ebs=ebs, snapshot=snapshot, index=1, data=written[0], Checksum=checksum(b"")) == (
        400, "ValidationException", "INVALID_PARAMETER_VALUE")
    linear = "4I/ae0Alk5AgZesnP3iVEqrbZbMrbA5NxGKsx37qIjI="
    completed = ebs.complete_snapshot(
        SnapshotId=snapshot, ChangedBlocksCount=3, Checksum=linear, ChecksumAlgorithm="SHA256", ChecksumAggregationMethod="LINEAR")
    assert completed["Status"] == "pending"
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
    [described] = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    assert (described["Progress"], described["StorageTier"], described["Encrypted"]) == ("100%", "standard", False)
    assert described["Tags"] == [{"Key": "ключ", "Value": ""}] and described["FullSnapshotSizeInBytes"] == 3 * BLOCK

    aws.order("/settings", {"page_cap": 2, "empty_pages": 1})
    blocks = listed(ebs, snapshot)
    aws.order("/settings", {"page_cap": None, "empty_pages": 0})
    assert [block["BlockIndex"] for block in blocks] == [0, 3, 7]
    for block in blocks:
        answer = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])
        data = answer["BlockData"].read()
        assert data == written[block["BlockIndex"]] and answer["Checksum"] == checksum(data) and answer["DataLength"] == BLOCK
    page = ebs.list_snapshot_blocks(SnapshotId=snapshot)
    assert (page["VolumeSize"], page["BlockSize"]) == (1, BLOCK) and page["ExpiryTime"].timestamp() > time.time() + 6 * 86_400
    stale = {"SnapshotId": snapshot, "BlockIndex": 0, "BlockToken": blocks[0]["BlockToken"]}
    assert failure(ebs.get_snapshot_block, **stale) == (400, "ValidationException", "INVALID_BLOCK_TOKEN")
    assert failure(ebs.list_snapshot_blocks, SnapshotId="snap-0123456789abcdef0")[:2] == (404, "ResourceNotFoundException")
    assert failure(ebs.start_snapshot, VolumeSize=2, ClientToken="a")[:2] == (409, "ConflictException")

    parent = ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=snapshot)
    put(ebs, parent["SnapshotId"], 7, bytes(BLOCK))
    ebs.complete_snapshot(SnapshotId=parent["SnapshotId"], ChangedBlocksCount=1)
    changed = ebs.list_changed_blocks(FirstSnapshotId=snapshot, SecondSnapshotId=parent["SnapshotId"])["ChangedBlocks"]
    assert [block["BlockIndex"] for block in changed] == [7]
    return snapshot


def listed(ebs, snapshot):
    blocks, more = [], {}
    while True:
        page = ebs.list_snapshot_blocks(SnapshotId=snapshot, **more)
        blocks += page["Blocks"]
        if "NextToken" not in page:
            return blocks
        more = {"NextToken": page["NextToken"]}


# Parameters of RegisterImage, and the answer of DescribeImages to them.
IMAGE = {
    "Name": "check (1) [a]/b_c", "Description": "a & <b> \"c\" é", "Architecture": "x86_64", "VirtualizationType": "hvm",
    "RootDeviceName": "/dev/xvda", "EnaSupport": True, "SriovNetSupport": "simple", "BootMode": "uefi", "TpmSupport": "v2.0",
    "ImdsSupport": "v2.0",
}


def check_images(aws, snapshot):
    """An image is registered and described with the same attributes; every attribute that can
    change is changed.
    """
    ec2 = aws.client("ec2")
    volume = {"SnapshotId": snapshot, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250, "DeleteOnTermination": False, "VolumeSize": 20}
    mappings = [{"DeviceName": "/dev/xvda", "Ebs": volume}, {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}]
    tags = [{"Key": "Größe", "Value": ""}]
    image = ec2.register_image(
        BlockDeviceMappings=mappings, UefiData="QU1aTlVFRkk=",
        TagSpecifications=[{"ResourceType": "image", "Tags": tags}], **IMAGE)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1})
    [described] = ec2.describe_images(ImageIds=[image])["Images"]
    assert {name: described[name] for name in IMAGE} == IMAGE and described["Tags"] == tags
    assert described["BlockDeviceMappings"][0]["Ebs"] == {**volume, "Encrypted": False}
    assert described["BlockDeviceMappings"][1] == mappings[1]

    def attribute(name):
        return ec2.describe_image_attribute(ImageId=image, Attribute=name)

    assert attribute("uefiData")["UefiData"]["Value"] == "QU1aTlVFRkk="
    assert attribute("productCodes")["ProductCodes"] == [] and attribute("launchPermission")["LaunchPermissions"] == []
    organization = f"arn:aws:organizations::{aws.account}:organization/o-abcdef"
    wanted = [{"UserId": "210987654321"}, {"OrganizationArn": organization}]
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": wanted})
    assert attribute("launchPermission")["LaunchPermissions"] == wanted
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": wanted[:1]})
    ec2.modify_image_attribute(ImageId=image, Description={"Value": "other"})
    assert attribute("launchPermission")["LaunchPermissions"] == wanted[1:] and attribute("description")["Description"]["Value"] == "other"
    ec2.enable_image_deprecation(ImageId=image, DeprecateAt="2030-01-01T00:00:31Z")
    assert ec2.enable_image_deregistration_protection(ImageId=image)["Return"] == "enabled-without-cooldown"
    [described] = ec2.describe_images(Owners=["self"], Filters=[{"Name": "tag:Größe", "Values": [""]}])["Images"]
    assert (described["DeprecationTime"], described["DeregistrationProtection"]) == ("2030-01-01T00:01:00.000Z", "enabled-without-cooldown")
    assert failure(ec2.deregister_image, ImageId=image)[1] == "OperationNotPermitted"
    ec2.disable_image_deregistration_protection(ImageId=image)
    ec2.disable_image_deprecation(ImageId=image)
    assert ec2.disable_image(ImageId=image)["Return"] is True
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    [described] = ec2.describe_images(Owners=["self"], IncludeDisabled=True)["Images"]
    assert described["State"] == "disabled"
    ec2.enable_image(ImageId=image)
    assert failure(ec2.register_image, BlockDeviceMappings=mappings, **IMAGE)[:2] == (400, "InvalidAMIName.Duplicate")
    assert failure(ec2.delete_snapshot, SnapshotId=snapshot)[1] == "InvalidSnapshot.InUse"
    assert failure(ec2.describe_images, ImageIds=["ami-x"])[1] == "InvalidAMIID.Malformed"
    assert failure(ec2.deregister_image, ImageId=image, DryRun=True)[:2] == (412, "DryRunOperation")

    ec2.modify_snapshot_attribute(SnapshotId=snapshot, CreateVolumePermission={"Add": [{"UserId": "210987654321"}]})
    permissions = ec2.describe_snapshot_attribute(SnapshotId=snapshot, Attribute="createVolumePermission")
    assert permissions["CreateVolumePermissions"] == [{"UserId": "210987654321"}]
    [tier] = ec2.describe_snapshot_tier_status(Filters=[{"Name": "snapshot-id", "Values": [snapshot]}])["SnapshotTierStatuses"]
    assert (tier["StorageTier"], tier["Status"]) == ("standard", "completed")
    assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"] is False
    assert ec2.get_ebs_default_kms_key_id()["KmsKeyId"] == "alias/aws/ebs"
    return image


def check_tasks(here, there, image):
    """An image is stored, its object copied to another partition, and restored there."""
    for aws in (here, there):
        aws.order("/bucket", {"name": "images"})
    ec2 = here.client("ec2")
    key = ec2.create_store_image_task(ImageId=image, Bucket="images/a", S3ObjectTags=[{"Key": "k", "Value": "v"}])["ObjectKey"]
    assert key == f"a/{image}.bin"
    assert failure(ec2.create_store_image_task, ImageId=image, Bucket="images")[1] == "InvalidRequest"
    ec2.get_waiter("store_image_task_complete").wait(ImageIds=[image], WaiterConfig={"Delay": 0.01})
    [task] = ec2.describe_store_image_tasks()["StoreImageTaskResults"]
    assert (task["S3objectKey"], task["ProgressPercentage"], task["StoreTaskState"]) == (key, 100, "Completed")
    stored = here.client("s3").get_object(Bucket="images", Key=key)
    assert stored["Metadata"]["ami-owner-account"] == here.account and stored["TagCount"] == 1
    there.client("s3").put_object(Bucket="images", Key="b.bin", Body=stored["Body"].read())
    tags = [{"ResourceType": kind, "Tags": [{"Key": "restored", "Value": kind}]} for kind in ("image", "snapshot")]
    ec2 = there.client("ec2")
    restored = ec2.create_restore_image_task(Bucket="images", ObjectKey="b.bin", Name="restored", TagSpecifications=tags)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[restored], WaiterConfig={"Delay": 0.01})
    [described] = ec2.describe_images(ImageIds=[restored])["Images"]
    assert {"Key": "restored", "Value": "image"} in described["Tags"] and described["SourceImageId"] == image
    checksums = {snapshot["checksum"] for snapshot in here.order("/state")["snapshots"]}
    [other] = there.order("/state")["snapshots"]
    assert other["checksum"] in checksums and other["tags"]["restored"] == "snapshot"


def check_rights(aws):
    """Signatures, sessions and rights."""
    aws.order("/key", {"id": "SESSION", "secret": "s/+", "token": "t/+=", "account": "210987654321"})
    keys = {"aws_access_key_id": "SESSION", "aws_secret_access_key": "s/+", "aws_session_token": "t/+="}
    ec2, ebs = aws.client("ec2", **keys), aws.client("ebs", **keys)
    assert ec2.describe_images()["Images"] == []
    assert failure(ebs.list_snapshot_blocks, SnapshotId="snap-0123456789abcdef0")[0] == 404
    wrong = {**keys, "aws_secret_access_key": "wrong"}
    assert failure(aws.client("ec2", **wrong).describe_images)[:2] == (401, "AuthFailure")
    missing = {"SnapshotId": "snap-0123456789abcdef0"}
    assert failure(aws.client("ebs", **wrong).list_snapshot_blocks, **missing)[:2] == (403, "InvalidSignatureException")
    aws.order("/deny", {"operation": "ec2:DescribeImages"})
    assert failure(ec2.describe_images)[:2] == (403, "UnauthorizedOperation")
    aws.order("/allow", {"operation": "ec2:DescribeImages"})
    aws.order("/expire", {"id": "SESSION"})
    assert failure(ec2.describe_images)[:2] == (400, "RequestExpired")
    assert failure(ebs.list_snapshot_blocks, **missing)[:2] == (403, "ExpiredTokenException")


def check_program(aws):
    """The admin interface: volumes in and out, faults, settings and the log."""
    ebs = aws.client("ebs")
    aws.order("/calls", method="DELETE")
    with tempfile.TemporaryDirectory() as directory:
        source, copy = os.path.join(directory, "a.raw"), os.path.join(directory, "b.raw")
        with open(source, "wb") as file:
            file.truncate(1 << 30)
            file.seek(5 * BLOCK)
            file.write(b"here")
        snapshot = aws.order("/snapshot", {"size_gib": 1, "raw": source, "tags": {"a": "b"}, "blocks": [{"index": 9, "zero": True}]})["id"]
        assert [block["BlockIndex"] for block in listed(ebs, snapshot)] == [5, 9]
        aws.order(f"/snapshot/{snapshot}/raw?path={copy}")
        with open(copy, "rb") as file:
            file.seek(5 * BLOCK)
            assert file.read(5) == b"here\0"
        status = os.stat(copy)
        assert status.st_size == 1 << 30 and status.st_blocks * 512 <= 2 * BLOCK
    large = aws.order("/snapshot", {"size_gib": 100, "pattern": {"seed": 3, "random": 50, "count": 20_000, "step": 2}})["id"]
    tokens = {block["BlockIndex"]: block["BlockToken"] for block in listed(ebs, large)}
    assert len(tokens) == 20_000
    get = {"SnapshotId": large, "BlockIndex": 38, "BlockToken": tokens[38]}
    answer = ebs.get_snapshot_block(**get)
    data = answer["BlockData"].read()
    assert answer["Checksum"] == checksum(data)
    aws.order("/fault", {"operation": "GetSnapshotBlock", "kind": "FlipBit", "block": 38, "times": 1})
    answer = ebs.get_snapshot_block(**get)
    assert answer["Checksum"] == checksum(data) != checksum(answer["BlockData"].read())
    aws.order("/fault", {"operation": "GetSnapshotBlock", "kind": "Throttle"})
    assert failure(ebs.get_snapshot_block, **get) == (400, "RequestThrottledException", "ACCOUNT_THROTTLED")
    aws.order("/settings", {"snapshot_rate": {"burst": 1, "per_second": 0.01}, "long_error_types": True})
    ebs.get_snapshot_block(**get)
    assert failure(ebs.get_snapshot_block, **get) == (400, "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE")
    aws.order("/settings", {"snapshot_rate": None, "long_error_types": False, "block_latency_ms": 50})
    began = time.monotonic()
    ebs.get_snapshot_block(**get)
    assert time.monotonic() - began >= 0.05
    image = aws.order("/image", {"name": "by hand", "snapshot": large, "boot_mode": "uefi", "extra_xml": "<newer>1</newer>"})["id"]
    [described] = aws.client("ec2").describe_images(ImageIds=[image])["Images"]
    assert described["BootMode"] == "uefi" and described["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 100
    assert aws.order("/calls")["GetSnapshotBlock"]["failed"] == 2
    assert aws.order("/log")[-1]["operation"] == "DescribeImages"


def same(one, other, *names):
    """Whether two answers agree in these fields."""
    for name in names:
        assert (name in one) == (name in other), f"{name}: {one.get(name)} and {other.get(name)}"
        assert one.get(name) == other.get(name), f"{name}: {one.get(name)} and {other.get(name)}"


def check_beside_moto(aws):
    """The same calls to moto: where it agrees with AWS, both answers are equal."""
    with servers.start("moto") as moto:
        clients = []
        for client in (aws.client, lambda service: boto3.client(service, endpoint_url=moto.endpoint, region_name="us-east-1",
                                                                  aws_access_key_id="k", aws_secret_access_key="s")):
            clients.append((client("ec2"), client("ebs")))
        answers = []
        for ec2, ebs in clients:
            started = ebs.start_snapshot(VolumeSize=1, Description="beside", Tags=[{"Key": "a", "Value": "b"}])
            snapshot = started["SnapshotId"]
            put(ebs, snapshot, 0, b"\x05" * BLOCK)
            completed = ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
            [block] = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
            got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=0, BlockToken=block["BlockToken"])
            data = got.pop("BlockData").read()
            [described] = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
            image = ec2.register_image(
                Name="beside", Description="d", RootDeviceName="/dev/sda1", VirtualizationType="hvm", Architecture="x86_64",
                BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}])["ImageId"]
            ec2.create_tags(Resources=[image, snapshot], Tags=[{"Key": "kéy", "Value": "välue"}, {"Key": "empty", "Value": ""}])
            ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "210987654321"}]})
            [shown] = ec2.describe_images(ImageIds=[image])["Images"]
            tagged = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [image]}])["Tags"]
            tags = sorted((tag["Key"], tag["Value"], tag["ResourceType"]) for tag in tagged)
            permissions = ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"]
            errors = [
                failure(ec2.describe_images, ImageIds=["ami-0123456789abcdef0"])[:2],
                failure(ec2.describe_snapshots, SnapshotIds=["snap-0123456789abcdef0"])[:2],
                failure(ec2.deregister_image, ImageId=image, DryRun=True)[:2],
            ]
            by_tag = len(ec2.describe_images(Filters=[{"Name": "tag:kéy", "Values": ["v?lu*"]}])["Images"])
            ec2.delete_tags(Resources=[image], Tags=[{"Key": "empty"}])
            left = [tag["Key"] for tag in ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"]]
            answers.append((started, completed, got, data, described, shown, tags, permissions, errors, by_tag, left))
        (started, completed, got, data, described, shown, *rest), other = answers[0], answers[1]
        same(started, other[0], "VolumeSize", "Description", "Tags", "Status")
        assert completed["Status"] in ("pending", other[1]["Status"]) and data == other[3]
        same(got, other[2], "Checksum", "ChecksumAlgorithm", "DataLength")
        same(described, other[4], "Description", "VolumeSize", "State", "Encrypted", "Progress")
        same(shown, other[5], "Name", "Description", "State", "ImageType", "Public", "OwnerId")
        assert sorted(tag["Key"] for tag in shown["Tags"]) == sorted(tag["Key"] for tag in other[5]["Tags"])
        assert rest == list(other[6:]), f"{rest} and {other[6:]}"


def main():
    with running("--s3", "--server", "us-east-1", "--server", "cn-north-1,210987654321,AKIDCHINA,secret") as [here, there]:
        snapshot = check_snapshots(here)
        image = check_images(here, snapshot)
        check_tasks(here, there, image)
        check_rights(here)
        check_program(here)
    with running() as [aws]:
        check_beside_moto(aws)
    print("the AWS of the tests: ok")


if __name__ == "__main__":
    main()
