"""Stores from EC2 and restores to it, killed at any time: the repeated command completes the work,
and EC2 has each result once.

    python3 ec2_kills.py
    KILLS_SEED=7 python3 ec2_kills.py    # other moments

The AWS of the tests answers with some latency. Runs are killed at random moments of the duration of
an undisturbed run, mostly by SIGKILL, sometimes by SIGINT, and exactly while a request hangs that
makes something: StartSnapshot, CompleteSnapshot, RegisterImage. At the end the server has to have
the same bytes; one image of each name with just its snapshots; no open upload; nothing registered
twice; and few blocks put twice: those that were in flight.
"""

import collections
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import check_aws
import kills
import program
import servers
from program import EXISTS

SEED = int(os.environ.get("KILLS_SEED", "20261121"))
BUCKET = "archives"
INTERRUPTED = 130
SLOWLY = ["--limit-rate", "60MiB", "--memory"]
STORES, RESTORES, HANGS = 30, 30, 8
# Blocks of each volume. They compress to a fifth: a store has some parts, and a restore has more
# blocks than parts.
VOLUMES = {"/dev/xvda": (1, 150), "/dev/sdb": (2, 100), "/dev/sdc": (1, 50)}
BLOCKS = sum(count for _, count in VOLUMES.values())
# Blocks in flight, or confirmed and not yet noted, when a run is killed: at most, and on average.
ON_THEIR_WAY, ON_AVERAGE = 64, 24


class Rig:
    """The server, an image, and the archive that an undisturbed run makes of it."""

    def __init__(self, aws, directory):
        self.aws, self.directory, self.environment = aws, directory, aws.environment
        aws.order("/settings", {"latency_ms": 5})
        aws.order("/bucket", {"name": BUCKET})
        self.s3 = aws.client("s3")
        mappings, self.contents = [], []
        for number, (device, (size, count)) in enumerate(VOLUMES.items()):
            order = {"size_gib": size, "pattern": {"seed": number, "random": 20, "count": count, "step": 3}, "blocks": [{"index": 1, "zero": True}]}
            snapshot = aws.order("/snapshot", order)["id"]
            mappings.append({"DeviceName": device, "Ebs": {"SnapshotId": snapshot, "VolumeSize": size, "VolumeType": "gp3"}})
            self.contents.append(self.snapshot(snapshot)["checksum"])
        register = {"Name": "to be killed", "RootDeviceName": "/dev/xvda", "VirtualizationType": "hvm", "Architecture": "x86_64"}
        self.image = aws.client("ec2").register_image(BlockDeviceMappings=mappings, **register)["ImageId"]
        self.archive = directory / "image.bin"
        self.run(directory / "undisturbed", "store", self.image, self.archive)
        self.bytes = self.archive.read_bytes()
        self.s3.put_object(Bucket=BUCKET, Key="source.bin", Body=self.bytes)
        # The time of the others is not measured.
        aws.order("/calls", method="DELETE")

    def run(self, state, *arguments, **options):
        return program.run(self.environment, state, *arguments, **options)

    def snapshot(self, id):
        return next(found for found in self.aws.order("/state")["snapshots"] if found["id"] == id)

    def uploads(self, key):
        return [upload for upload in self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) if upload["Key"] == key]

    def bytes_up(self, key):
        listed = [self.s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload["UploadId"]) for upload in self.uploads(key)]
        return sum(part["Size"] for parts in listed for part in parts.get("Parts", []))

    def restore(self, name, source=f"s3://{BUCKET}/source.bin"):
        """Snapshots carry the tag as well: it identifies the restore that made them."""
        return ["restore", source, "ec2", "--name", name, "--tag", f"run={name}"]

    def made(self, name):
        """Images and snapshots of a restore."""
        state = self.aws.order("/state")
        return tuple([found for found in state[kind] if found["tags"].get("run") == name] for kind in ("images", "snapshots"))

    def assert_restored(self, state, name):
        """One image, just its snapshots, the same bytes; nothing unfinished."""
        images, snapshots = self.made(name)
        assert [image["name"] for image in images] == [name], images
        mapped = [mapping["ebs"]["snapshot_id"] for mapping in images[0]["mappings"]]
        assert sorted(mapped) == sorted(snapshot["id"] for snapshot in snapshots), f"{name}: {mapped} of {snapshots}"
        by_id = {snapshot["id"]: snapshot for snapshot in snapshots}
        assert [by_id[id]["checksum"] for id in mapped] == self.contents, f"{name} has other bytes"
        assert all(snapshot["state"] == "completed" for snapshot in snapshots), snapshots
        assert not program.unfinished(self.environment, state), program.unfinished(self.environment, state)
        assert self.run(state, "clean").json["Leftovers"] == []
        return set(mapped)

    def calls(self, operation, snapshots=None):
        """Calls of an operation that succeeded, or whose client was gone before the answer."""
        return [call for call in self.aws.order("/log") if call["operation"] == operation and (snapshots is None or call["snapshot"] in snapshots)]


class Victim(kills.Victim):
    """A run that is going to be killed, by SIGKILL or by SIGINT."""

    def end(self, how):
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.err.seek(0)
        text = self.err.read().decode(errors="replace")
        self.err.close()
        expected = (program.OK, EXISTS, -9) if how == signal.SIGKILL else (program.OK, EXISTS, INTERRUPTED)
        assert code in expected, f"a run that was to be ended by {how} ended with {code}:\n{text[-2000:]}"
        return code in (-9, INTERRUPTED)

    def end_after(self, seconds, how):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.end(how)


class Pace(kills.Pace):
    """Ends runs by the chosen signal."""

    def ended(self, rig, state, arguments, share, sums, how):
        ended = Victim(rig.environment, state, arguments).end_after(share * self.seconds, how)
        sums.add(**{"kills" if how == signal.SIGKILL else "interruptions": int(ended)})
        if not ended:
            self.seconds *= 0.95
        return ended


def moments(chance, count):
    for number, shares in kills.moments(chance, count):
        # Ctrl-C ends a run in order, with time to note its progress.
        yield number, [(share, signal.SIGINT if chance.random() < 0.2 else signal.SIGKILL) for share in shares]


def killed_stores(rig, chance):
    """As with any source: uploaded parts are not sent again, and their blocks are not read
    again.
    """
    # The parallel runs read the same snapshots, where each listing of one would replace the tokens
    # of the others.
    rig.aws.order("/settings", {"relist_replaces_tokens": False})
    sums = kills.Sums()
    key_of = lambda name: f"store-{name}.bin"
    # Every second one reads and sends two volumes at a time.
    options = lambda number: ["160MiB", "--part-size", "5MiB", "--volumes-at-once", "2"] if isinstance(number, int) and number % 2 else ["96MiB"]
    arguments = lambda name: ["store", rig.image, f"s3://{BUCKET}/{key_of(name)}", *SLOWLY, *options(name)]
    pace = Pace(rig, arguments)

    def point(number, shares):
        state, key = rig.directory / f"store-{number}", key_of(number)
        all(pace.ended(rig, state, arguments(number), share, sums, how) for share, how in shares)
        up = rig.bytes_up(key)
        ran = rig.run(state, *arguments(number))
        if ran.json["Outcome"] == "stored":
            sent, kept = ran.total("sent_bytes"), ran.total("kept_bytes")
            assert sent <= len(rig.bytes) - up, f"store {number}: {sent} bytes sent of {len(rig.bytes)}, although {up} were up"
            sums.add(runs_resumed=int(up > 0), bytes_up=up, bytes_sent=sent, bytes_not_read_again=kept, bytes_read=ran.total("received_bytes"))
        assert rig.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == rig.bytes, f"{key} is not the archive"
        assert not program.unfinished(rig.environment, state) and not rig.uploads(key), rig.uploads(key)
        rig.s3.delete_object(Bucket=BUCKET, Key=key)

    program.in_parallel(kills.PARALLEL_RUNS, moments(chance, STORES), point, enough=lambda: sums.kills + sums.interruptions >= STORES)
    rig.aws.order("/settings", {"relist_replaces_tokens": True})
    assert sums.bytes_up and sums.bytes_not_read_again, f"kills came too early to show anything: {sums}"
    return sums


def killed_restores(rig, chance):
    sums = kills.Sums()
    arguments = lambda name: [*rig.restore(str(name)), *SLOWLY, "64MiB"]
    pace = Pace(rig, lambda name: arguments(name))
    mine = {}

    def point(number, shares):
        state, name = rig.directory / f"restore-{number}", f"restore {number}"
        ended = [pace.ended(rig, state, arguments(name), share, sums, how) for share, how in shares]
        # EC2 may have had everything before the run was killed.
        ran = rig.run(state, *arguments(name), expect=None)
        assert ran.code == program.OK or (ran.code == EXISTS and rig.made(name)[0]), ran.err.decode()
        sums.add(found_done=int(ran.code == EXISTS), bytes_not_sent_again=ran.total("kept_bytes"))
        mine[name] = (rig.assert_restored(state, name), sum(ended))

    program.in_parallel(kills.PARALLEL_RUNS, moments(chance, RESTORES), point, enough=lambda: sums.kills + sums.interruptions >= RESTORES)
    puts, completed = collections.Counter(), collections.Counter()
    for call in rig.aws.order("/log"):
        if call["operation"] == "PutSnapshotBlock" and call["status"] == 201:
            puts[call["snapshot"], call["block"]] += 1
        if call["operation"] == "CompleteSnapshot" and call["status"] == 202:
            completed[call["snapshot"]] += 1
    registered = collections.Counter(call["parameters"].get("Name") for call in rig.calls("RegisterImage") if call["status"] == 200)
    most = 0
    for name, (snapshots, ended) in mine.items():
        again = sum(count - 1 for (snapshot, _), count in puts.items() if snapshot in snapshots)
        most = max(most, again // max(ended, 1))
        assert again <= ended * ON_THEIR_WAY, f"{name}: {again} blocks were put again after {ended} ends"
        assert all(completed[snapshot] == 1 for snapshot in snapshots) or ended, f"{name}: {completed}"
        assert registered[name] <= 1, f"{name} was registered {registered[name]} times"
        sums.add(blocks_put_again=again)
    assert sums.blocks_put_again <= ON_AVERAGE * (sums.kills + sums.interruptions), sums
    sums.add(most_put_again_in_one_run=most)
    assert sums.bytes_not_sent_again, f"kills came too early to show anything: {sums}"
    return sums


def killed_while_it_hangs(rig, chance):
    """The request that begins, completes or registers something is executed and its answer never
    arrives, or it hangs without being executed: the run is killed in that moment.
    """
    sums = kills.Sums()
    points = [(operation, kind, how) for operation in ("StartSnapshot", "CompleteSnapshot", "RegisterImage", "CreateTags", "DescribeSnapshots")
              for kind in ("Delay", "Hang") for how in (signal.SIGKILL, signal.SIGINT)]
    # Half of them, some of each kind.
    points = [point for number, point in enumerate(points) if number % 4 in (0, 3)]
    for number, (operation, kind, how) in enumerate(points):
        name, state = f"hangs {number}", rig.directory / f"hangs-{number}"
        rig.aws.order("/calls", method="DELETE")
        rig.aws.order("/fault", {"operation": operation, "kind": kind, "ms": 1500, "nth": chance.randint(1, 3) if operation != "RegisterImage" else 1})
        victim = Victim(rig.environment, state, rig.restore(name))
        deadline = time.monotonic() + 10
        while not any(call["fault"] for call in rig.aws.order("/log")) and victim.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        sums.add(kills=int(victim.end(how)))
        rig.aws.order("/fault", method="DELETE")
        ran = rig.run(state, *rig.restore(name), expect=None)
        try:
            assert ran.code == program.OK or (ran.code == EXISTS and rig.made(name)[0]), ran.err.decode()[-2000:]
            rig.assert_restored(state, name)
            registered = [call for call in rig.calls("RegisterImage") if call["status"] == 200 or (call["status"] is None and kind == "Delay")]
            assert len(registered) <= 1, registered
        except AssertionError as error:
            raise AssertionError(f"{operation}, {kind}, {how.name}: {error}") from error
        sums.add(found_done=int(ran.code == EXISTS))
    assert sums.kills >= HANGS, sums
    return sums


def given_up(rig, _):
    """Killed, and then given up: `clean` lists exactly the existing snapshots, and `clean --abort`
    deletes them.
    """
    state, name = rig.directory / "given-up", "given up"
    assert Victim(rig.environment, state, [*rig.restore(name), "--limit-rate", "20MiB"]).end_after(1.5, signal.SIGKILL)
    images, snapshots = rig.made(name)
    listed = rig.run(state, "clean").json["Leftovers"]
    assert not images and snapshots and len(listed) == len(snapshots), (listed, snapshots)
    assert all(any(snapshot["id"] in leftover["Place"] for leftover in listed) for snapshot in snapshots), listed
    [task] = program.unfinished(rig.environment, state)
    assert sorted(task["SnapshotIds"]) == sorted(snapshot["id"] for snapshot in snapshots), task
    assert rig.made(name)[1] == snapshots
    assert all(leftover["Removed"] for leftover in rig.run(state, "clean", "--abort").json["Leftovers"])
    assert rig.made(name) == ([], []) and not program.unfinished(rig.environment, state)
    return f"{len(snapshots)} snapshots"


def streams(rig, _):
    """A restore from a stream cannot be continued. Cut off or interrupted, it deletes its
    snapshots; killed, it leaves incomplete snapshots, which EBS discards by itself.
    """
    half = rig.bytes[: len(rig.bytes) * 2 // 3]
    left = []
    for how in ("cut off", signal.SIGINT, signal.SIGKILL):
        name = f"stream {how}"
        state = rig.directory / f"stream-{how}"
        arguments = [*rig.restore(name, "-"), "--limit-rate", "30MiB"]
        if how == "cut off":
            rig.run(state, *arguments, stdin=half, expect=program.CORRUPT)
        else:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(program.command(*arguments), env=program.variables(rig.environment, state), stdin=subprocess.PIPE, **quiet) as process:
                # It stays open after that, like the pipe of a sender that hangs.
                feeder = threading.Thread(target=feed, args=(process.stdin, half))
                feeder.start()
                servers.wait_for(lambda: any(snapshot["put"] for snapshot in rig.made(name)[1]), 20)
                process.send_signal(how)
                assert process.wait(30) in (INTERRUPTED, -9)
                feeder.join()
        images, snapshots = rig.made(name)
        assert not images and all(snapshot["state"] == "pending" for snapshot in snapshots), (images, snapshots)
        assert how == signal.SIGKILL or not snapshots, f"{name}: {snapshots}"
        left += snapshots
        rig.run(state, "clean", "--abort")
        assert not program.unfinished(rig.environment, state)
    return f"{len(left)} snapshots of the killed one are left to EBS"


def feed(pipe, data):
    with contextlib.suppress(BrokenPipeError):
        pipe.write(data)
        pipe.flush()


SCENES = [killed_stores, killed_restores, killed_while_it_hangs, given_up, streams]


def main(*wanted):
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ec2-kills-") as directory, check_aws.running("--s3", "--server", "us-east-1") as [aws]:
        rig = Rig(aws, pathlib.Path(directory))
        for scene in SCENES:
            if wanted and scene.__name__ not in wanted:
                continue
            start = time.monotonic()
            result = scene(rig, random.Random(f"{SEED} {scene.__name__}"))
            print(f"  {scene.__name__.replace('_', ' ')}: {result} ({time.monotonic() - start:.0f} s)", flush=True)
        assert not rig.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    print(f"ec2 kills: seed {SEED}: all good, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
