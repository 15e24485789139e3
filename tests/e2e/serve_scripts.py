"""Scripts as others write them, run against the endpoint unchanged: two Regions and two accounts
with one endpoint variable, a watch of the snapshots of a pending image, a restore that is
idempotent by name, an object that AWS stored, and the waiters of two SDKs.

    cargo build --release && cargo build -p amistore-aws-double && python3 tests/e2e/serve_scripts.py
    python3 tests/e2e/serve_scripts.py two_regions_through_one_endpoint    # some scenes

The AWS of the tests (`tests/aws-double --together`) has two Regions of one account and one of
another partition and account, all at one endpoint. The programs are $AMISTORE and $AWS_DOUBLE, else
those of the target directory. Needs boto3; with $CLIENT_EC2, the directory of the npm package
@aws-sdk/client-ec2, and node, the scene of the JavaScript SDK runs as well.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import boto3
import botocore.config

import check_aws
import program
from check_aws import failure
from endpoint import image, serving

HOME, ABROAD, GOV = "us-east-1", "ap-south-1", "us-gov-west-1"
GOV_ACCOUNT, GOV_KEY, GOV_SECRET = "444455556666", "AKIAGOVGOVGOVGOVGOV1", "government/secret+secret"
WAIT = {"Delay": 1, "MaxAttempts": 120}
ROOT = pathlib.Path(__file__).resolve().parent


class Rig:
    """Three Regions behind one endpoint, and the environment of a server for them."""

    def __init__(self, servers, directory):
        self.home, self.abroad, self.gov = servers
        self.directory, self.seed = directory, 0
        config, credentials = directory / "config", directory / "credentials"
        config.write_text(f"[profile gov]\nregion = {GOV}\n")
        credentials.write_text(f"[gov]\naws_access_key_id = {GOV_KEY}\naws_secret_access_key = {GOV_SECRET}\n")
        credentials.chmod(0o600)
        self.environment = {
            **self.home.environment, "AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        }
        for server, bucket in ((self.home, "archives"), (self.abroad, "archives-abroad"), (self.gov, "archives-gov")):
            server.order("/bucket", {"name": bucket})
            # Before the first poll of a client a task of AWS itself is not done.
            server.order("/settings", {"store_polls": 1, "restore_polls": 2})

    def image(self, aws, name, blocks=8):
        self.seed += 1
        return image(aws, name, blocks, self.seed)

    def images(self, aws, name):
        return [found for found in aws.order("/state")["images"] if found["name"] == name]

    def serving(self, *arguments):
        return serving(self.environment, self.directory / f"state-{time.monotonic_ns()}", "--forward", *arguments)

    def slowly(self, aws, milliseconds=300):
        """From now on each block that is sent takes this long, until `freed`."""
        aws.order("/fault", {"operation": "PutSnapshotBlock", "kind": "Delay", "ms": milliseconds, "every": 1})

    def freed(self, aws):
        aws.order("/fault", method="DELETE")


def session(server, **changes):
    """What a script has: an environment with one endpoint variable, and boto3."""
    variables = server.variables(**changes)
    return boto3.Session(
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"], aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    ), server.url


def client(server, region, key=None):
    """EC2 of a Region as a script asks for it; its endpoint is that of the environment."""
    changes = {} if key is None else {"AWS_ACCESS_KEY_ID": key[0], "AWS_SECRET_ACCESS_KEY": key[1]}
    made, url = session(server, **changes)
    # boto3 reads AWS_ENDPOINT_URL in the same way; a process has one environment, and tests have many.
    return made.client("ec2", region_name=region, endpoint_url=url, config=botocore.config.Config(retries={"max_attempts": 2}))


def store(ec2, id, bucket):
    key = ec2.create_store_image_task(ImageId=id, Bucket=bucket)["ObjectKey"]
    ec2.get_waiter("store_image_task_complete").wait(ImageIds=[id], WaiterConfig=WAIT)
    return key


def restore(ec2, bucket, key, name):
    made = ec2.create_restore_image_task(Bucket=bucket, ObjectKey=key, Name=name)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig=WAIT)
    return made


def checksum(aws, image):
    [mapping] = image["mappings"]
    snapshots = {found["id"]: found for found in aws.order("/state")["snapshots"]}
    return snapshots[mapping["ebs"]["snapshot_id"]]["checksum"]


REGIONS_SCRIPT = '''
import os, sys, boto3
image, bucket, name = sys.argv[1:]
there, here = os.environ["THERE"], os.environ["HERE"]
source, target = boto3.client("ec2", region_name=here), boto3.client("ec2", region_name=there)
wait = {"Delay": 1, "MaxAttempts": 120}
key = source.create_store_image_task(ImageId=image, Bucket=bucket)["ObjectKey"]
source.get_waiter("store_image_task_complete").wait(ImageIds=[image], WaiterConfig=wait)
s3 = boto3.client("s3", region_name=there)
body = boto3.client("s3", region_name=here).get_object(Bucket=bucket, Key=key)["Body"].read()
s3.put_object(Bucket=bucket + "-abroad", Key=key, Body=body)
made = target.create_restore_image_task(Bucket=bucket + "-abroad", ObjectKey=key, Name=name)["ImageId"]
target.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig=wait)
print(made)
'''


def two_regions_through_one_endpoint(rig):
    """A script stores in one Region and restores in another; its only setting is AWS_ENDPOINT_URL
    (or that of EC2). Images, tasks and ids are those of their Region.
    """
    for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2"):
        with rig.serving("--serve-region", f"{HOME},{ABROAD}") as server:
            name = f"abroad by {variable}"
            id, _ = rig.image(rig.home, f"at home by {variable}")
            environment = {**os.environ, **rig.environment, "HERE": HOME, "THERE": ABROAD, variable: server.url}
            done = subprocess.run(
                [sys.executable, "-c", REGIONS_SCRIPT, id, "archives", name],
                env=environment, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
            assert done.returncode == 0, f"{done.stderr}\n{server.errors()}"
            made = done.stdout.strip()
            [restored] = rig.images(rig.abroad, name)
            [original] = rig.images(rig.home, f"at home by {variable}")
            assert not rig.images(rig.home, name), "it landed at home"
            assert checksum(rig.abroad, restored) == checksum(rig.home, original)
            home, abroad = client(server, HOME), client(server, ABROAD)
            tasks = lambda ec2: [task["AmiId"] for task in ec2.describe_store_image_tasks()["StoreImageTaskResults"]]
            assert (tasks(home), tasks(abroad)) == ([id], [])
            assert abroad.describe_images(ImageIds=[made])["Images"][0]["Name"] == name
            assert failure(home.describe_images, ImageIds=[made])[1].startswith("InvalidAMIID"), "an id of another Region"
            assert server.stop() == 0


def another_region_is_refused_and_nothing_is_begun(rig):
    """With and without keys of its own."""
    keys = rig.directory / "refusing"
    keys.write_text("[clients]\naws_access_key_id = CLIENT\naws_secret_access_key = secret\n")
    keys.chmod(0o600)
    id, _ = rig.image(rig.home, "refused")
    for arguments, key in (([], None), (["--access-keys", keys], ("CLIENT", "secret"))):
        with rig.serving(*arguments) as server:
            before = (len(rig.home.order("/log")), len(rig.abroad.order("/log")))
            stranger = client(server, ABROAD, key)
            for call, parameters in (
                (stranger.create_store_image_task, {"ImageId": id, "Bucket": "archives"}),
                (stranger.create_restore_image_task, {"Bucket": "archives", "ObjectKey": "a.bin", "Name": "refused there"}),
                (stranger.describe_images, {}),
            ):
                assert failure(call, **parameters)[:2] == (401, "AuthFailure"), parameters
            assert (len(rig.home.order("/log")), len(rig.abroad.order("/log"))) == before, "AWS was called"
            home = client(server, HOME, key)
            assert home.describe_store_image_tasks()["StoreImageTaskResults"] == []
            assert server.stop() == 0


def two_key_pairs_of_two_partitions_in_one_script(rig):
    """Commercial and GovCloud keys with one endpoint variable: each acts with its own account."""
    keys = rig.directory / "partitions"
    keys.write_text(
        "[commercial]\naws_access_key_id = COMMERCIAL\naws_secret_access_key = one\n"
        f"[government]\naws_access_key_id = GOVERNMENT\naws_secret_access_key = two\nprofile = gov\nregion = {GOV}\n")
    keys.chmod(0o600)
    with rig.serving("--access-keys", keys) as server:
        commercial, government = client(server, HOME, ("COMMERCIAL", "one")), client(server, GOV, ("GOVERNMENT", "two"))
        id, _ = rig.image(rig.home, "of the public cloud")
        key = store(commercial, id, "archives")
        s3 = rig.home.client("s3")
        body = s3.get_object(Bucket="archives", Key=key)["Body"].read()
        rig.gov.client("s3", endpoint_url=rig.environment["AWS_ENDPOINT_URL_S3"]).put_object(Bucket="archives-gov", Key=key, Body=body)
        made = restore(government, "archives-gov", key, "of the government")
        [restored] = rig.images(rig.gov, "of the government")
        [original] = rig.images(rig.home, "of the public cloud")
        assert restored["owner"] == GOV_ACCOUNT and checksum(rig.gov, restored) == checksum(rig.home, original)
        [described] = government.describe_images(ImageIds=[made])["Images"]
        assert (described["ImageId"], described["OwnerId"]) == (made, GOV_ACCOUNT), described
        # Neither pair reaches the other partition.
        for ec2 in (client(server, GOV, ("COMMERCIAL", "one")), client(server, HOME, ("GOVERNMENT", "two"))):
            assert failure(ec2.create_store_image_task, ImageId=id, Bucket="archives")[:2] == (401, "AuthFailure")
        assert government.describe_store_image_tasks()["StoreImageTaskResults"] == []
        used = {call["access_key"] for call in rig.gov.order("/log")}
        assert used == {GOV_KEY}, used
        assert server.stop() == 0


def the_snapshots_of_a_pending_image_are_watched(rig):
    """As there is no DescribeRestoreImageTasks, scripts follow the snapshots of the image."""
    with rig.serving() as server:
        ec2 = client(server, HOME)
        id, _ = rig.image(rig.home, "to be watched", blocks=400)
        key = store(ec2, id, "archives")
        rig.slowly(rig.home)
        made = ec2.create_restore_image_task(Bucket="archives", ObjectKey=key, Name="watched")["ImageId"]
        [first] = ec2.describe_images(ImageIds=[made])["Images"]
        [mapping] = first["BlockDeviceMappings"]
        assert (first["State"], mapping["DeviceName"], mapping["Ebs"]["VolumeSize"], mapping["Ebs"]["VolumeType"]) == ("pending", "/dev/xvda", 1, "gp3"), first
        seen, snapshot = [], None
        while True:
            [found] = ec2.describe_images(ImageIds=[made])["Images"]
            begun = found["BlockDeviceMappings"][0]["Ebs"].get("SnapshotId")
            assert snapshot in (None, begun), "the snapshot of the image changed"
            snapshot = begun
            if snapshot:
                [described] = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
                percent = int(described["Progress"].rstrip("%"))
                if percent not in seen:
                    seen.append(percent)
            if found["State"] != "pending":
                break
            time.sleep(0.2)
        rig.freed(rig.home)
        assert found["State"] == "available" and len(seen) >= 3 and seen == sorted(seen) and seen[-1] == 100, (found, seen)
        ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig=WAIT)
        assert server.stop() == 0
        return f"progress {seen}"


def ensured(ec2, bucket, key, name):
    """The image of a name, made if there is none: what a script that may run again does."""
    found = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])["Images"]
    if found:
        return found[0]["ImageId"]
    return ec2.create_restore_image_task(Bucket=bucket, ObjectKey=key, Name=name)["ImageId"]


def a_restore_is_idempotent_by_name(rig):
    """Twice while pending and once after: one id, one image."""
    with rig.serving() as server:
        ec2 = client(server, HOME)
        id, _ = rig.image(rig.home, "once", blocks=20)
        key = store(ec2, id, "archives")
        rig.slowly(rig.home)
        name = "made once"
        made = ensured(ec2, "archives", key, name)
        assert ensured(ec2, "archives", key, name) == made, "while it is pending"
        assert failure(ec2.create_restore_image_task, Bucket="archives", ObjectKey=key, Name=name)[:2] == (400, "InvalidAMIName.Duplicate")
        rig.freed(rig.home)
        ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig=WAIT)
        assert ensured(ec2, "archives", key, name) == made, "after it is done"
        # All at once, with another name.
        results, threads = [], []
        for _ in range(4):
            def ensure(ec2=client(server, HOME)):
                try:
                    results.append(ec2.create_restore_image_task(Bucket="archives", ObjectKey=key, Name="made at once")["ImageId"])
                except ec2.exceptions.ClientError as error:
                    assert error.response["Error"]["Code"] == "InvalidAMIName.Duplicate", error
            threads.append(threading.Thread(target=ensure))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(results) == 1, results
        ec2.get_waiter("image_available").wait(ImageIds=results, WaiterConfig=WAIT)
        for found in (name, "made at once"):
            assert len(rig.images(rig.home, found)) == 1, found
        assert server.stop() == 0


def an_object_that_aws_stored_is_restored_by_ec2(rig):
    """The same script as for archives; the ids are those of EC2."""
    behind = rig.home.client("ec2")
    id, _ = rig.image(rig.home, "stored by AWS")
    key = behind.create_store_image_task(ImageId=id, Bucket="archives/by-aws")["ObjectKey"]
    behind.get_waiter("store_image_task_complete").wait(ImageIds=[id], WaiterConfig=WAIT)
    with rig.serving() as server:
        ec2 = client(server, HOME)
        made = restore(ec2, "archives", key, "restored by EC2")
        [restored] = rig.images(rig.home, "restored by EC2")
        assert restored["id"] == made, "EC2's own id"
        assert failure(ec2.create_restore_image_task, Bucket="archives", ObjectKey=key, Name="restored by EC2")[1] == "InvalidAMIName.Duplicate"
        assert server.stop() == 0
    # Carried to another partition by amistore, which cannot look inside.
    object = f"s3://archives-gov/{key}"
    arguments = ("copy", f"s3://archives/{key}", object, "--source-region", HOME, "--target-profile", "gov")
    copied = program.run(rig.environment, rig.directory / "copies", *arguments).json
    assert (copied["IsArchive"], copied["Outcome"]) == (False, "copied"), copied
    refused = program.run(rig.environment, rig.directory / "copies", "verify", object, "--profile", "gov", expect=8)
    assert "not an amistore archive" in refused.err.decode()


def the_waiters_of_the_javascript_sdk(rig):
    package = os.environ.get("CLIENT_EC2")
    if not package:
        return "not run: CLIENT_EC2 is not set"
    with rig.serving() as server:
        id, _ = rig.image(rig.home, "for JavaScript")
        done = subprocess.run(
            ["node", ROOT / "serve_waiters.mjs", id, "archives", "of JavaScript"],
            env={**os.environ, **server.variables(), "CLIENT_EC2": package}, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{server.errors()}"
        [made] = rig.images(rig.home, "of JavaScript")
        [original] = rig.images(rig.home, "for JavaScript")
        assert checksum(rig.home, made) == checksum(rig.home, original)
        assert server.stop() == 0
        return done.stdout.strip()


SCENES = [
    two_regions_through_one_endpoint,
    another_region_is_refused_and_nothing_is_begun,
    two_key_pairs_of_two_partitions_in_one_script,
    the_snapshots_of_a_pending_image_are_watched,
    a_restore_is_idempotent_by_name,
    an_object_that_aws_stored_is_restored_by_ec2,
    the_waiters_of_the_javascript_sdk,
]


def main(*wanted):
    began = time.monotonic()
    regions = ("--server", HOME, "--server", ABROAD, "--server", f"{GOV},{GOV_ACCOUNT},{GOV_KEY},{GOV_SECRET}")
    with tempfile.TemporaryDirectory(prefix="scripts-") as directory, check_aws.running("--s3", "--together", *regions) as servers:
        rig = Rig(servers, pathlib.Path(directory))
        for scene in SCENES:
            if wanted and scene.__name__ not in wanted:
                continue
            start = time.monotonic()
            result = scene(rig)
            said = f": {result}" if result else ""
            print(f"  {scene.__name__.replace('_', ' ')}{said} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"scripts: all good, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
