"""The endpoint, driven by boto3 and the AWS CLI as they come from PyPI, and by the scripts of
docs/serve.md, word for word.

    cargo build --release && cargo build -p amistore-aws-double && python3 tests/e2e/serve.py
    python3 tests/e2e/serve.py it_is_killed_in_a_store    # some scenes

The AWS of the tests (`tests/aws-double`) stands behind the server. Clients get nothing but an
environment in which `AWS_ENDPOINT_URL_EC2` is the server. Then servers are killed in the middle of
a store and of a restore and started again, and two of them share their tasks. The results are read
from the AWS of the tests itself.

The programs are $AMISTORE and $AWS_DOUBLE, else those of the target directory. Needs boto3, `aws`
(PyPI awscli), curl and openssl.
"""

import collections
import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import botocore
import botocore.config
import botocore.exceptions

import check_aws
import program
import servers
from check_aws import failure
from endpoint import image, serving
from program import ROOT

BUCKET = "archives"
USAGE = 2
# Blocks of images whose store is killed: enough for some parts.
LARGE = 96
WAIT = {"Delay": 1, "MaxAttempts": 90}


class Rig:
    """The AWS behind the server, the server, and its clients."""

    def __init__(self, aws, directory):
        self.aws, self.directory, self.state = aws, directory, directory / "state"
        self.environment = aws.environment
        for bucket in (BUCKET, "others"):
            aws.order("/bucket", {"name": bucket})
        self.s3, self.behind = aws.client("s3"), aws.client("ec2")
        self.seed = 0

    def image(self, name, blocks=12):
        self.seed += 1
        return image(self.aws, name, blocks, self.seed)

    def run(self, *arguments, state=None, **options):
        return program.run(self.environment, state or self.state, *arguments, **options)

    def cli(self, server, *arguments, expect=0, **changes):
        """Output of the AWS CLI; or its error, if that is expected."""
        done = subprocess.run(
            ["aws", "--output", "json", *map(str, arguments)],
            env={**os.environ, **server.variables(**changes)}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )
        assert (done.returncode == 0) == (expect == 0), f"aws {arguments}: {done.returncode}: {done.stderr[-2000:]}"
        if expect:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def body(self, key):
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def calls(self, operation, snapshot=None):
        return [call for call in self.aws.order("/log") if call["operation"] == operation and (snapshot is None or call["snapshot"] == snapshot)]

    def images(self, name):
        """By the account of the test's AWS."""
        return [found for found in self.aws.order("/state")["images"] if found["name"] == name]

    def held(self, snapshot=None, operation="GetSnapshotBlock"):
        """Until `freed`, no request for the last quarter of the blocks of a large image is answered:
        work on it stays in the middle, however slow this machine is.
        """
        for block in range(2 * LARGE * 3 // 4, 2 * LARGE, 2):
            fault = {"operation": operation, "kind": "Hang", "ms": 5000, "block": block, "every": 1}
            self.aws.order("/fault", {**fault, **({"snapshot": snapshot} if snapshot else {})})

    def freed(self):
        self.aws.order("/fault", method="DELETE")

    def answered(self, operation, snapshot=None):
        """The calls that were executed."""
        return [call for call in self.calls(operation, snapshot) if call["status"] in (200, 201)]

    def snapshot(self, id):
        return next(found for found in self.aws.order("/state")["snapshots"] if found["id"] == id)

    def restored_of(self, image):
        [mapping] = image["mappings"]
        return self.snapshot(mapping["ebs"]["snapshot_id"])


def tags(found):
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}


def code(call, **parameters):
    return failure(call, **parameters)[1]


def stored(ec2, image, wait=WAIT):
    """The one task of an image, when it is done."""
    ec2.get_waiter("store_image_task_complete").wait(ImageIds=[image], WaiterConfig=wait)
    [task] = ec2.describe_store_image_tasks(ImageIds=[image])["StoreImageTaskResults"]
    assert (task["StoreTaskState"], task["ProgressPercentage"]) == ("Completed", 100) and "StoreTaskFailureReason" not in task, task
    return task


def available(ec2, image):
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=WAIT)
    [described] = ec2.describe_images(ImageIds=[image])["Images"]
    assert (described["ImageId"], described["State"]) == (image, "available"), described
    return described


def boto3_stores_an_image(rig, server):
    ec2 = server.client()
    assert ec2.describe_store_image_tasks()["StoreImageTaskResults"] == []
    rig.image_id, rig.snapshot_id = rig.image("web 2026-11")
    rig.key = ec2.create_store_image_task(ImageId=rig.image_id, Bucket=f"{BUCKET}/a/b", S3ObjectTags=[{"Key": "team", "Value": "größe + more"}])["ObjectKey"]
    assert rig.key == f"a/b/{rig.image_id}.bin", rig.key
    task = stored(ec2, rig.image_id)
    assert (task["AmiId"], task["Bucket"], task["S3objectKey"]) == (rig.image_id, BUCKET, rig.key), task
    assert abs(task["TaskStartTime"] - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=2), task
    head = rig.s3.head_object(Bucket=BUCKET, Key=rig.key)
    assert head["Metadata"]["ami-name"] == "web 2026-11" and head["Metadata"]["ami-owner-account"] == rig.aws.account, head
    assert tags({"Tags": rig.s3.get_object_tagging(Bucket=BUCKET, Key=rig.key)["TagSet"]}) == {"team": "größe + more"}
    assert rig.run("verify", f"s3://{BUCKET}/{rig.key}").json["Outcome"] == "ok"
    undisturbed = rig.directory / "undisturbed.bin"
    rig.run("store", rig.image_id, undisturbed, state=rig.directory / "other")
    assert rig.body(rig.key) == undisturbed.read_bytes()


def boto3_restores_it(rig, server):
    ec2 = server.client()
    mine = [{"ResourceType": kind, "Tags": [{"Key": "kind", "Value": kind}, {"Key": "größe", "Value": ""}]} for kind in ("image", "snapshot")]
    rig.restored = ec2.create_restore_image_task(Bucket=BUCKET, ObjectKey=rig.key, Name="web (restored)", TagSpecifications=mine)["ImageId"]
    assert re.fullmatch("ami-[0-9a-f]{17}", rig.restored) and rig.restored != rig.image_id
    described = available(ec2, rig.restored)
    assert described["Name"] == "web (restored)" and tags(described)["kind"] == "image" and tags(described)["größe"] == "", described
    [by_name] = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": ["web (restored)"]}])["Images"]
    [made] = rig.images("web (restored)")
    assert by_name["ImageId"] == rig.restored != made["id"], (by_name, made)
    assert ec2.describe_images(ImageIds=[made["id"]])["Images"][0]["ImageId"] == made["id"]
    [mapping] = described["BlockDeviceMappings"]
    [snapshot] = ec2.describe_snapshots(SnapshotIds=[mapping["Ebs"]["SnapshotId"]])["Snapshots"]
    assert snapshot["State"] == "completed" and tags(snapshot)["kind"] == "snapshot", snapshot
    assert rig.restored_of(made)["checksum"] == rig.snapshot(rig.snapshot_id)["checksum"]
    # Other actions of a script: EC2 gets its own id.
    assert code(ec2.create_restore_image_task, Bucket=BUCKET, ObjectKey=rig.key, Name="web (restored)") == "InvalidAMIName.Duplicate"
    ec2.create_tags(Resources=[rig.restored], Tags=[{"Key": "later", "Value": "1"}])
    assert tags(ec2.describe_images(ImageIds=[rig.restored])["Images"][0])["later"] == "1"
    assert rig.images("web (restored)")[0]["tags"]["later"] == "1"
    ec2.modify_image_attribute(ImageId=rig.restored, Description={"Value": "by its reserved id"})
    assert ec2.describe_image_attribute(ImageId=rig.restored, Attribute="description")["Description"]["Value"] == "by its reserved id"
    again = ec2.create_store_image_task(ImageId=rig.restored, Bucket=f"{BUCKET}/again")["ObjectKey"]
    assert stored(ec2, rig.restored)["S3objectKey"] == again
    ec2.deregister_image(ImageId=rig.restored)
    assert rig.images("web (restored)") == []
    assert code(ec2.describe_images, ImageIds=[rig.restored]).startswith("InvalidAMIID.")


def pages_filters_and_order(rig, server):
    ec2 = server.client()
    made = []
    for number in range(5):
        id, _ = rig.image(f"page {number}", blocks=1)
        ec2.create_store_image_task(ImageId=id, Bucket="others" if number % 2 else BUCKET)
        made.append(id)
        stored(ec2, id)
    ours = lambda tasks: [task["AmiId"] for task in tasks if task["AmiId"] in made]
    listed = ec2.describe_store_image_tasks()["StoreImageTaskResults"]
    assert ours(listed) == made[::-1], "newest first"
    times = [task["TaskStartTime"] for task in listed]
    assert times == sorted(times, reverse=True), times
    pages = list(ec2.get_paginator("describe_store_image_tasks").paginate(PaginationConfig={"PageSize": 2}))
    assert len(pages) == -(-len(listed) // 2) and [task for page in pages for task in page["StoreImageTaskResults"]] == listed
    first = ec2.describe_store_image_tasks(MaxResults=1)
    assert code(ec2.describe_store_image_tasks, NextToken="no token") == "InvalidPaginationToken"
    assert code(ec2.describe_store_image_tasks, NextToken=first["NextToken"], Filters=[{"Name": "bucket", "Values": ["others"]}]) == "InvalidPaginationToken"
    found = lambda **filters: ours(ec2.describe_store_image_tasks(Filters=[{"Name": name.replace("_", "-"), "Values": values} for name, values in filters.items()])["StoreImageTaskResults"])
    assert found(bucket=["others"]) == [made[3], made[1]]
    assert found(bucket=["others", BUCKET], task_state=["Completed"]) == made[::-1]
    assert found(task_state=["Failed", "InProgress"]) == [] and found(bucket=["Others"]) == [] and found(task_state=["completed"]) == []
    assert ours(ec2.describe_store_image_tasks(ImageIds=[made[0], made[4]])["StoreImageTaskResults"]) == [made[4], made[0]]
    assert ec2.describe_store_image_tasks(ImageIds=["ami-0123456789abcdef0"])["StoreImageTaskResults"] == []


def refusals_have_the_codes_of_ec2(rig, server):
    ec2 = server.client()
    before = (len(rig.aws.order("/state")["images"]), len(ec2.describe_store_image_tasks()["StoreImageTaskResults"]))
    store, restore, describe = ec2.create_store_image_task, ec2.create_restore_image_task, ec2.describe_store_image_tasks
    unknown = "ami-0123456789abcdef0"
    loose = server.client(config=botocore.config.Config(parameter_validation=False))
    for call, parameters, status, expected in (
        (store, {"ImageId": unknown, "Bucket": BUCKET}, 400, "InvalidAMIID.NotFound"),
        (store, {"ImageId": unknown, "Bucket": BUCKET, "DryRun": True}, 400, "InvalidAMIID.NotFound"),
        (store, {"ImageId": "ami-xyz", "Bucket": BUCKET}, 400, "InvalidAMIID.Malformed"),
        (store, {"ImageId": rig.image_id, "Bucket": f"{BUCKET}/a/b"}, 400, "InvalidRequest"),
        (store, {"ImageId": rig.image_id, "Bucket": BUCKET, "DryRun": True}, 412, "DryRunOperation"),
        # A dry run is about permissions, and not about what stands in the bucket.
        (store, {"ImageId": rig.image_id, "Bucket": f"{BUCKET}/a/b", "DryRun": True}, 412, "DryRunOperation"),
        (restore, {"Bucket": BUCKET, "ObjectKey": "no/such.bin", "Name": "none", "DryRun": True}, 412, "DryRunOperation"),
        (store, {"ImageId": rig.image_id, "Bucket": "no"}, 400, "InvalidParameterValue"),
        (store, {"ImageId": rig.image_id, "Bucket": BUCKET, "S3ObjectTags": [{"Key": str(number), "Value": ""} for number in range(11)]}, 400, None),
        (loose.create_store_image_task, {"Bucket": BUCKET}, 400, "MissingParameter"),
        (loose.create_store_image_task, {"ImageId": rig.image_id}, 400, "MissingParameter"),
        (loose.create_restore_image_task, {"Bucket": BUCKET}, 400, "MissingParameter"),
        (restore, {"Bucket": BUCKET, "ObjectKey": rig.key, "Name": "dry", "DryRun": True}, 412, "DryRunOperation"),
        (restore, {"Bucket": BUCKET, "ObjectKey": rig.key, "Name": "web 2026-11"}, 400, "InvalidAMIName.Duplicate"),
        (restore, {"Bucket": BUCKET, "ObjectKey": rig.key}, 400, "InvalidAMIName.Duplicate"),
        (restore, {"Bucket": BUCKET, "ObjectKey": rig.key, "Name": "a<b"}, 400, "InvalidAMIName.Malformed"),
        (restore, {"Bucket": BUCKET, "ObjectKey": "no/such.bin", "Name": "none"}, 400, None),
        (restore, {"Bucket": "no-such-bucket", "ObjectKey": rig.key, "Name": "none"}, 400, None),
        (restore, {"Bucket": BUCKET, "ObjectKey": rig.key, "Name": "x y z", "TagSpecifications": [{"ResourceType": "volume", "Tags": []}]}, 400, "InvalidParameterValue"),
        (describe, {"ImageIds": ["ami-xyz"]}, 400, "InvalidAMIID.Malformed"),
        (describe, {"ImageIds": [rig.image_id], "MaxResults": 5}, 400, "InvalidParameterCombination"),
        (describe, {"MaxResults": 201}, 400, "InvalidParameterValue"),
        (describe, {"Filters": [{"Name": "state", "Values": ["x"]}]}, 400, "InvalidParameterValue"),
        (describe, {"DryRun": True}, 412, "DryRunOperation"),
    ):
        got = failure(call, **parameters)
        assert got[0] == status and expected in (None, got[1]), f"{parameters}: {got}, expected {status} {expected}"
    assert code(ec2.deregister_image, ImageId=unknown) == "InvalidAMIID.NotFound", "what EC2 says is passed on"
    rig.aws.order("/deny", {"operation": "ec2:DescribeImages"})
    assert code(store, ImageId=rig.image_id, Bucket=BUCKET) == "UnauthorizedOperation"
    rig.aws.order("/allow", {"operation": "ec2:DescribeImages"})
    after = (len(rig.aws.order("/state")["images"]), len(ec2.describe_store_image_tasks()["StoreImageTaskResults"]))
    assert before == after, "a refusal left something behind"


def what_fails_says_why(rig, _):
    """A waiter ends with the failure, the reason can be read, and the same request may be made
    again.
    """
    with serving(rig.environment, rig.directory / "failing", "--forward", "--max-attempts", "2") as server:
        fails(rig, server.client())
        assert server.stop() == 0


def fails(rig, ec2):
    id, snapshot = rig.image("cannot be read", blocks=4)
    rig.aws.order("/fault", {"operation": "GetSnapshotBlock", "kind": "WrongChecksum", "snapshot": snapshot, "block": 4, "every": 1})
    ec2.create_store_image_task(ImageId=id, Bucket=BUCKET)
    ended(ec2.get_waiter("store_image_task_complete"), id)
    [task] = ec2.describe_store_image_tasks(ImageIds=[id])["StoreImageTaskResults"]
    assert task["StoreTaskState"] == "Failed" and snapshot in task["StoreTaskFailureReason"], task
    assert not rig.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []), "a failed store leaves no parts that are paid for"
    rig.aws.order("/fault", method="DELETE")
    ec2.create_store_image_task(ImageId=id, Bucket=BUCKET)
    stored(ec2, id)

    damaged = bytearray(rig.body(rig.key))
    damaged[len(damaged) // 2] ^= 0x10
    rig.s3.put_object(Bucket=BUCKET, Key="damaged.bin", Body=bytes(damaged))
    before = {found["id"] for found in rig.aws.order("/state")["snapshots"]}
    restored = ec2.create_restore_image_task(Bucket=BUCKET, ObjectKey="damaged.bin", Name="of damaged")["ImageId"]
    ended(ec2.get_waiter("image_available"), restored)
    [described] = ec2.describe_images(ImageIds=[restored])["Images"]
    assert (described["ImageId"], described["State"]) == (restored, "failed") and described["StateReason"]["Message"], described
    assert code(ec2.deregister_image, ImageId=restored) == "InvalidAMIID.Unavailable"
    assert not rig.images("of damaged")
    left = {found["id"] for found in rig.aws.order("/state")["snapshots"]} - before
    assert not left, f"a failed restore left {left}"
    # The name is free again.
    again = ec2.create_restore_image_task(Bucket=BUCKET, ObjectKey=rig.key, Name="of damaged")["ImageId"]
    available(ec2, again)


def ended(waiter, image):
    try:
        waiter.wait(ImageIds=[image], WaiterConfig=WAIT)
        raise AssertionError(f"{image} did not fail")
    except botocore.exceptions.WaiterError as error:
        assert "terminal failure" in str(error), error


def more_than_may_wait_is_refused(rig, _):
    with serving(rig.environment, rig.directory / "full", "--max-tasks", "1", "--max-queued", "1") as server:
        ec2 = server.client()
        (first, snapshot), *others = [rig.image(f"one too many {number}", LARGE) for number in range(3)]
        images = [first, *(id for id, _ in others)]
        rig.held(snapshot)
        state = lambda id: [task["StoreTaskState"] for task in ec2.describe_store_image_tasks(ImageIds=[id])["StoreImageTaskResults"]]
        ec2.create_store_image_task(ImageId=images[0], Bucket="others")
        until(lambda: len(rig.s3.list_multipart_uploads(Bucket="others").get("Uploads", [])) == 1)
        ec2.create_store_image_task(ImageId=images[1], Bucket="others")
        assert code(ec2.create_store_image_task, ImageId=images[2], Bucket="others") == "ResourceLimitExceeded"
        assert [state(id) for id in images] == [["InProgress"], ["InProgress"], []]
        rig.freed()
        for id in images[:2]:
            stored(ec2, id)
        assert server.stop() == 0


def without_forward_other_actions_are_refused(rig, _):
    with serving(rig.environment, rig.directory / "alone") as server:
        ec2 = server.client()
        for call in (ec2.describe_instances, ec2.describe_regions):
            assert failure(call)[:2] == (400, "InvalidAction")
        assert code(ec2.deregister_image, ImageId=rig.image_id) == "InvalidAction" and rig.images("web 2026-11")
        assert ec2.describe_store_image_tasks()["StoreImageTaskResults"] == []
        assert server.stop() == 0


def the_aws_cli_does_it(rig, server):
    """With its own waiters, as they are."""
    id, _ = rig.image("by the CLI", blocks=2)
    made = rig.cli(server, "ec2", "create-store-image-task", "--image-id", id, "--bucket", BUCKET, "--s3-object-tags", "Key=by,Value=cli")
    assert made == {"ObjectKey": f"{id}.bin"}, made
    assert rig.cli(server, "ec2", "wait", "store-image-task-complete", "--image-ids", id) is None
    query = "StoreImageTaskResults[].[AmiId,StoreTaskState,ProgressPercentage]"
    assert rig.cli(server, "ec2", "describe-store-image-tasks", "--image-ids", id, "--query", query) == [[id, "Completed", 100]]
    listed = rig.cli(server, "ec2", "describe-store-image-tasks", "--filters", "Name=task-state,Values=Completed", "--page-size", "2")
    assert id in [task["AmiId"] for task in listed["StoreImageTaskResults"]]
    specification = "ResourceType=image,Tags=[{Key=by,Value=cli}]"
    restored = rig.cli(server, "ec2", "create-restore-image-task", "--bucket", BUCKET, "--object-key", made["ObjectKey"], "--name", "restored by the CLI", "--tag-specifications", specification)["ImageId"]
    assert rig.cli(server, "ec2", "wait", "image-available", "--image-ids", restored) is None
    shown = rig.cli(server, "ec2", "describe-images", "--image-ids", restored, "--query", "Images[].[ImageId,Name,State,Tags[0].Value]")
    assert shown == [[restored, "restored by the CLI", "available", "cli"]], shown
    assert "(InvalidAMIID.NotFound)" in rig.cli(server, "ec2", "create-store-image-task", "--image-id", "ami-0123456789abcdef0", "--bucket", BUCKET, expect=1)
    assert "(DryRunOperation)" in rig.cli(server, "ec2", "create-store-image-task", "--image-id", id, "--bucket", f"{BUCKET}/dry", "--dry-run", expect=1)
    assert "already exists in the bucket" in rig.cli(server, "ec2", "create-store-image-task", "--image-id", id, "--bucket", BUCKET, expect=1)


def documented_scripts():
    """The scripts in the section "Scripts" of docs/serve.md."""
    section = (ROOT / "docs/serve.md").read_text().split("\n## Scripts\n")[1].split("\n## ")[0]
    found = re.findall(r"```\w+\n(#!.*?)```", section, re.DOTALL)
    assert len(found) == 3, f"{len(found)} scripts"
    return found


def the_documented_scripts(rig, server):
    documented_scripts_run(rig, server, "without keys")


def the_documented_scripts_with_keys(rig, _):
    with serving(rig.environment, rig.directory / "scripts", "--forward", "--access-keys", client_keys(rig)) as server:
        documented_scripts_run(rig, server, "with keys", **RIGHT)
        assert server.stop() == 0


# The key of clients. Its secret has the characters that forms and URLs escape.
RIGHT = {"AWS_ACCESS_KEY_ID": "CLIENT", "AWS_SECRET_ACCESS_KEY": "their/own+secret"}


def client_keys(rig):
    """The file of --access-keys."""
    keys = rig.directory / "keys"
    keys.write_text("[clients]\naws_access_key_id = {AWS_ACCESS_KEY_ID}\naws_secret_access_key = {AWS_SECRET_ACCESS_KEY}\n".format(**RIGHT))
    keys.chmod(0o600)
    return keys


def documented_scripts_run(rig, server, how, **keys):
    """All at the same time, each with an image of its own."""
    def ran(number, text):
        id, snapshot = rig.image(f"of script {number} {how}", blocks=3)
        script = rig.directory / f"script-{number}-{how.replace(' ', '-')}"
        script.write_text(text)
        script.chmod(0o755)
        name = f"documented script {number} {how}"
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [script, id, BUCKET, name], env={**os.environ, **server.variables(**keys), "PATH": path},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0, f"{text}\n{done.returncode}: {done.stdout}{done.stderr}"
        [made] = rig.images(name)
        assert rig.restored_of(made)["checksum"] == rig.snapshot(snapshot)["checksum"]
        assert rig.run("verify", f"s3://{BUCKET}/{id}.bin").json["Outcome"] == "ok"
        # The last word of the output is the new image.
        restored = done.stdout.split()[-1]
        assert server.client(**keys).describe_images(ImageIds=[restored])["Images"][0]["Name"] == name, done.stdout

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(ran, *zip(*enumerate(documented_scripts()))))


def the_record_has_all_of_them(rig, server):
    """Tasks of the server and runs of the program are one list, on both sides."""
    id, _ = rig.image("by hand", blocks=1)
    rig.run("store", id, f"s3://{BUCKET}/by-hand/")
    listed = rig.run("tasks").json
    images = [task["AmiId"] for task in listed["StoreImageTaskResults"]]
    assert {id, rig.image_id} <= set(images), images
    by_boto3 = [task["AmiId"] for task in server.client().describe_store_image_tasks()["StoreImageTaskResults"]]
    assert sorted(by_boto3) == sorted(images), (by_boto3, images)
    assert "web (restored)" in json.dumps(listed) and rig.restored in json.dumps(listed), listed
    for name in ("healthz", "metrics", "tasks.json", ""):
        with urllib.request.urlopen(f"{server.url}/{name}", timeout=10) as answer:
            text = answer.read().decode()
            assert answer.status == 200 and text, name
            if name == "metrics":
                assert re.search(r"^amistore_tasks\{.*\} \d+$", text, re.MULTILINE), text


def only_clients_with_a_key(rig, _):
    keys, certificate, key = client_keys(rig), rig.directory / "certificate.pem", rig.directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    right = RIGHT
    for arguments, more in (([], {}), (["--tls-cert", certificate, "--tls-key", key], {"AWS_CA_BUNDLE": str(certificate)})):
        with serving(rig.environment, rig.directory / "locked", "--forward", "--access-keys", keys, *arguments) as server:
            assert server.url.startswith("https:" if arguments else "http:")
            ec2 = server.client(**right, **more)
            assert ec2.describe_store_image_tasks()["StoreImageTaskResults"] == []
            assert ec2.describe_images(ImageIds=[rig.image_id])["Images"][0]["Name"] == "web 2026-11", "EC2 gets the server's own key"
            assert code(ec2.create_store_image_task, ImageId=rig.image_id, Bucket=BUCKET, DryRun=True) == "DryRunOperation"
            assert rig.cli(server, "ec2", "describe-store-image-tasks", **right, **more) == {"StoreImageTaskResults": []}
            for wrong in ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "OTHER"}, rig.environment, {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-west-1"}):
                stranger = server.client(**{**right, **more, **{name: value for name, value in wrong.items() if name.startswith("AWS_") and "ENDPOINT" not in name}})
                for call in (stranger.describe_store_image_tasks, stranger.describe_images):
                    status, refused, _ = failure(call)
                    assert (status, refused) == (401, "AuthFailure"), (wrong, status, refused)
            a_signature_is_good_once(rig, server.client(**right, **more), certificate if arguments else None)
            unsigned = server.client(config=botocore.config.Config(signature_version=botocore.UNSIGNED), **more)
            assert failure(unsigned.describe_store_image_tasks)[0] in (401, 403)
            if arguments:
                # A client that does not know the certificate does not connect.
                untrusting = server.client(config=botocore.config.Config(retries={"max_attempts": 0}), **right)
                try:
                    untrusting.describe_store_image_tasks()
                    raise AssertionError("any certificate will do")
                except botocore.exceptions.SSLError:
                    pass
            assert server.stop() == 0


def a_signature_is_good_once(rig, ec2, certificate):
    """A recorded request is useless to an attacker, unchanged and changed."""
    caught = []
    ec2.meta.events.register("before-send.ec2", lambda request, **_: caught.append(request))
    ec2.create_tags(Resources=[rig.image_id], Tags=[{"Key": "once", "Value": "1"}])
    ec2.delete_tags(Resources=[rig.image_id], Tags=[{"Key": "once"}])
    request = caught[0]
    body = request.body if isinstance(request.body, bytes) else request.body.encode()
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items() if name.lower() != "content-length"}
    trust = ssl.create_default_context(cafile=certificate) if certificate else None
    for sent in (body, body.replace(b"once", b"more"), body[:-1], body + b"&DryRun=true", b""):
        try:
            urllib.request.urlopen(urllib.request.Request(request.url, sent, headers, method="POST"), timeout=10, context=trust)
            raise AssertionError(f"{sent} was accepted")
        except urllib.error.HTTPError as refused:
            # Unchanged, within five seconds: its client may be that of the first one, so the answer
            # is to sign again.
            expected = (503, 401) if sent == body else (400, 401, 403)
            assert refused.code in expected, (refused.code, refused.read())
    assert not {"once", "more"} & set(tags(ec2.describe_images(ImageIds=[rig.image_id])["Images"][0])), "it was done"


def it_does_not_start_open_to_all(rig, _):
    keys = client_keys(rig)
    for arguments in ([], ["--access-keys", keys]):
        refused = rig.run("serve", "--listen", "0.0.0.0:0", *arguments, expect=None, state=rig.directory / "open")
        assert refused.code == USAGE and "--tls-cert" in refused.err.decode(), (refused.code, refused.err)
    keys.chmod(0o644)
    refused = rig.run("serve", "--listen", "127.0.0.1:0", "--access-keys", keys, expect=None, state=rig.directory / "open")
    assert refused.code != 0, refused.err
    keys.chmod(0o600)


def until(ready, seconds=60):
    servers.wait_for(ready, seconds)


def again(server, *arguments):
    """A server with the same address and state."""
    return serving(server.environment, server.state, *arguments, listen=f"127.0.0.1:{server.port}")


def it_is_killed_in_a_store(rig, _):
    id, snapshot = rig.image("killed in a store", LARGE)
    undisturbed, key, arguments = rig.directory / "large.bin", f"killed/{id}.bin", ["--forward"]
    rig.run("store", id, undisturbed, state=rig.directory / "other")
    rig.aws.order("/calls", method="DELETE")
    rig.held(snapshot)
    state = rig.directory / "killed-store"
    with serving(rig.environment, state, *arguments) as server:
        server.client().create_store_image_task(ImageId=id, Bucket=f"{BUCKET}/killed")
        until(lambda: parts_up(rig, key) >= 3)
        assert code(server.client().create_store_image_task, ImageId=id, Bucket="others") == "InvalidRequest"
        server.kill()
        read, up = len(rig.answered("GetSnapshotBlock", snapshot)), parts_up(rig, key)
        assert read < LARGE, "it was killed too late to show anything"
        [task] = [task for task in rig.run("tasks", state=state).json["StoreImageTaskResults"]]
        assert task["StoreTaskState"] != "Completed", task
        with again(server, *arguments) as second:
            ec2 = second.client()
            [task] = ec2.describe_store_image_tasks(ImageIds=[id])["StoreImageTaskResults"]
            assert task["StoreTaskState"] == "InProgress" and task["ProgressPercentage"] < 100, task
            began = task["TaskStartTime"]
            assert code(ec2.create_store_image_task, ImageId=id, Bucket=BUCKET) == "InvalidRequest"
            rig.freed()
            task = stored(ec2, id)
            assert (task["S3objectKey"], task["TaskStartTime"]) == (key, began), task
            assert rig.body(key) == undisturbed.read_bytes(), "another archive than an undisturbed run makes"
            total = len(rig.answered("GetSnapshotBlock", snapshot))
            assert total < read + LARGE - 2 * up, f"{total} blocks read of {LARGE}, {read} of them before, with {up} parts up"
            assert second.stop() == 0
    assert not rig.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return f"{up} parts were up, {total - LARGE} of {LARGE} blocks were read twice"


def parts_up(rig, key):
    uploads = [upload for upload in rig.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) if upload["Key"] == key]
    return sum(len(rig.s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload["UploadId"]).get("Parts", [])) for upload in uploads)


def it_is_killed_in_a_restore(rig, _):
    state, name, arguments = rig.directory / "killed-restore", "killed in a restore", ["--forward"]
    id, snapshot = rig.image("to be restored slowly", LARGE)
    rig.run("store", id, f"s3://{BUCKET}/slow.bin", state=rig.directory / "other")
    rig.aws.order("/calls", method="DELETE")
    rig.held(operation="PutSnapshotBlock")
    with serving(rig.environment, state, *arguments) as server:
        ec2 = server.client()
        reserved = ec2.create_restore_image_task(Bucket=BUCKET, ObjectKey="slow.bin", Name=name)["ImageId"]
        until(lambda: len(rig.answered("PutSnapshotBlock")) >= LARGE // 4)
        [pending] = ec2.describe_images(ImageIds=[reserved])["Images"]
        assert (pending["ImageId"], pending["State"]) == (reserved, "pending"), pending
        assert code(ec2.deregister_image, ImageId=reserved) == "InvalidAMIID.Unavailable"
        server.kill()
        put = len(rig.answered("PutSnapshotBlock"))
        assert put < LARGE and not rig.images(name), "it was killed too late to show anything"
        with again(server, *arguments) as second:
            ec2 = second.client()
            [pending] = ec2.describe_images(ImageIds=[reserved])["Images"]
            assert pending["State"] == "pending", pending
            assert code(ec2.create_restore_image_task, Bucket=BUCKET, ObjectKey="slow.bin", Name=name) == "InvalidAMIName.Duplicate"
            rig.freed()
            assert available(ec2, reserved)["Name"] == name
            [made] = rig.images(name)
            assert rig.restored_of(made)["checksum"] == rig.snapshot(snapshot)["checksum"]
            registered = [call for call in rig.calls("RegisterImage") if call["status"] == 200]
            assert len(registered) == 1, registered
            assert second.stop() == 0
    blocks = collections.Counter(call["block"] for call in rig.calls("PutSnapshotBlock") if call["status"] == 201)
    twice = sum(count - 1 for count in blocks.values())
    assert len(blocks) == LARGE and twice < put, f"{twice} of {put} blocks were put again"
    used = made["mappings"][0]["ebs"]["snapshot_id"]
    assert len(rig.calls("StartSnapshot")) == 1 and used in {call["snapshot"] for call in rig.calls("CompleteSnapshot")}
    return f"{put} blocks were there, {twice} were put twice"


def it_is_killed_while_ec2_registers(rig, _):
    """EC2 has the image already, and its answer never came."""
    state, name = rig.directory / "killed-registering", "killed while registering"
    rig.aws.order("/calls", method="DELETE")
    with serving(rig.environment, state, "--forward") as server:
        reserved = server.client().create_restore_image_task(Bucket=BUCKET, ObjectKey="slow.bin", Name=name)["ImageId"]
        until(lambda: rig.calls("PutSnapshotBlock"))
        rig.aws.order("/fault", {"operation": "RegisterImage", "kind": "Delay", "ms": 3000})
        until(lambda: rig.images(name))
        server.kill()
        rig.aws.order("/fault", method="DELETE")
        with again(server, "--forward") as second:
            ec2 = second.client()
            described = available(ec2, reserved)
            [made] = rig.images(name)
            assert described["Name"] == name and len(made["mappings"]) == 1
            [by_name] = ec2.describe_images(Filters=[{"Name": "name", "Values": [name]}])["Images"]
            assert by_name["ImageId"] == reserved
            assert second.stop() == 0


def two_servers_share_their_tasks(rig, _):
    """Each task runs once, on either server; the survivor completes the tasks of a killed one."""
    state, arguments = rig.directory / "shared", ["--forward", "--max-tasks", "2", "--limit-rate", "16MiB"]
    images = [rig.image(f"shared {number}", 32) for number in range(6)]
    rig.aws.order("/calls", method="DELETE")
    # None of them ends before the other server was asked for it.
    rig.aws.order("/fault", {"operation": "GetSnapshotBlock", "kind": "Hang", "ms": 3000, "block": 62, "every": 1})
    with serving(rig.environment, state, *arguments) as one, serving(rig.environment, state, *arguments) as other:
        clients = [one.client(), other.client()]
        for number, (id, _) in enumerate(images):
            clients[number % 2].create_store_image_task(ImageId=id, Bucket=f"{BUCKET}/shared")
            assert code(clients[1 - number % 2].create_store_image_task, ImageId=id, Bucket="others") == "InvalidRequest"
        rig.freed()
        for number, (id, _) in enumerate(images):
            stored(clients[1 - number % 2], id)
        for id, snapshot in images:
            read = collections.Counter(call["block"] for call in rig.answered("GetSnapshotBlock", snapshot))
            # One block is read to check that the snapshot can be read.
            assert len(read) == 32 and sum(read.values()) <= 33, f"{id} was read more than once: {read}"
            assert rig.run("verify", f"s3://{BUCKET}/shared/{id}.bin").json["Outcome"] == "ok"
        late, snapshot = rig.image("of the killed one", LARGE)
        clients[0].create_store_image_task(ImageId=late, Bucket=f"{BUCKET}/shared")
        until(lambda: len(rig.answered("GetSnapshotBlock", snapshot)) >= 8)
        one.kill()
        began = time.monotonic()
        stored(clients[1], late)
        took = time.monotonic() - began
        assert rig.run("verify", f"s3://{BUCKET}/shared/{late}.bin").json["Outcome"] == "ok"
        assert other.stop() == 0
    return f"the other ended it after {took:.0f} s"


def a_command_does_not_spoil_a_task(rig, _):
    """A store by hand of an image that the server is storing is refused, and the waiters of other
    clients wait on.
    """
    id, snapshot = rig.image("wanted by two", LARGE)
    state = rig.directory / "two"
    rig.held(snapshot)
    with serving(rig.environment, state) as server:
        ec2 = server.client()
        ec2.create_store_image_task(ImageId=id, Bucket=f"{BUCKET}/two")
        until(lambda: parts_up(rig, f"two/{id}.bin") >= 1)
        rig.run("store", id, f"s3://{BUCKET}/two/", state=state, expect=program.EXISTS)
        assert rig.run("clean", "--abort", state=state).json["Leftovers"] == []
        rig.freed()
        stored(ec2, id)
        assert server.stop() == 0


def memory_is_looked_at_before(rig, _):
    """Either the default memory suffices for that many tasks, or the server reports at once that it
    does not.
    """
    try:
        with serving(rig.environment, rig.directory / "four", "--max-tasks", "4") as server:
            id, _ = rig.image("one of four", 4)
            server.client().create_store_image_task(ImageId=id, Bucket=f"{BUCKET}/four")
            stored(server.client(), id)
    except AssertionError as error:
        assert "does not start" in str(error) and "memory" in str(error), error


def it_stops_in_time(rig, _):
    """Stopped with a running task, which continues at the next start."""
    id, snapshot = rig.image("stopped", LARGE)
    state = rig.directory / "stopped"
    rig.held(snapshot)
    with serving(rig.environment, state) as server:
        server.client().create_store_image_task(ImageId=id, Bucket=f"{BUCKET}/stopped")
        until(lambda: parts_up(rig, f"stopped/{id}.bin") >= 1)
        began = time.monotonic()
        assert server.stop() == 0, server.errors()
        took = time.monotonic() - began
        # Requests in progress have 10 seconds.
        assert took < 25, took
        rig.freed()
        with again(server) as second:
            stored(second.client(), id)
            assert second.stop() == 0
    return f"{took:.1f} s"


def nothing_is_left(rig, server):
    assert not rig.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert rig.run("clean").json["Leftovers"] == []
    strangers = {call["access_key"] for call in rig.aws.order("/log")} - {rig.environment["AWS_ACCESS_KEY_ID"]}
    assert not strangers, strangers
    began = time.monotonic()
    assert server.stop() == 0, server.errors()
    assert time.monotonic() - began < 12


SCENES = [
    boto3_stores_an_image,
    boto3_restores_it,
    pages_filters_and_order,
    refusals_have_the_codes_of_ec2,
    what_fails_says_why,
    more_than_may_wait_is_refused,
    without_forward_other_actions_are_refused,
    the_aws_cli_does_it,
    the_documented_scripts,
    the_documented_scripts_with_keys,
    the_record_has_all_of_them,
    only_clients_with_a_key,
    it_does_not_start_open_to_all,
    it_is_killed_in_a_store,
    it_is_killed_in_a_restore,
    it_is_killed_while_ec2_registers,
    two_servers_share_their_tasks,
    a_command_does_not_spoil_a_task,
    memory_is_looked_at_before,
    it_stops_in_time,
    nothing_is_left,
]


def main(*wanted):
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="serve-") as directory, check_aws.running("--s3", "--server", "us-east-1") as [aws]:
        rig = Rig(aws, pathlib.Path(directory))
        with serving(rig.environment, rig.state, "--forward") as server:
            for scene in SCENES:
                # The first scene makes the image that the others use.
                if wanted and scene is not SCENES[0] and scene.__name__ not in wanted:
                    continue
                start = time.monotonic()
                result = scene(rig, server)
                said = f": {result}" if result else ""
                print(f"  {scene.__name__.replace('_', ' ')}{said} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"serve: all good, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
