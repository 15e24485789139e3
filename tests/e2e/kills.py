"""`kill -9` at any time, the network gone, the server hung: the repeated command completes the
work, and sends and fetches nothing twice.

    python3 kills.py [SERVER]        # garage, unless said otherwise
    KILLS_SEED=7 python3 kills.py    # other moments

Moments are chosen in two ways: at random in the duration of an undisturbed run, and, through a
proxy, just before and just after each request of a store. The result is then compared with that of
an undisturbed run, byte by byte and hole by hole, and nothing may be left: no task, no open upload,
no partial file.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import program
import servers
from program import EXISTS, IO, PART, allocated, assert_same_file, assert_same_image
from proxy import Proxy

# The exit code for what a store does not support.
UNSUPPORTED = 8

SEED = int(os.environ.get("KILLS_SEED", "20261121"))
BUCKET = "archives"
# Slow enough to have a middle, and with memory for two parts in flight, so the first arrives long
# before the last.
RATE = "50MiB"
SLOWLY = ["--limit-rate", RATE, "--memory", "52MiB"]
# Parallel runs: they spend most of their time waiting for the rate limit.
PARALLEL_RUNS = 3
STORES, RESTORES, COPIES = 50, 50, 12


class Rig:
    """A server, an image, and the results of undisturbed runs."""

    def __init__(self, server, directory):
        self.server, self.directory = server, directory
        self.environment = server.environment()
        self.disks = [directory / "root.raw", directory / "data.raw"]
        program.make_disk(self.disks[0], 192 << 20, 26 << 20, seed=11)
        program.make_disk(self.disks[1], 64 << 20, 10 << 20, seed=12)
        self.archive, self.restored = directory / "image.bin", directory / "restored"
        state = directory / "undisturbed"
        self.run(state, *self.store(self.archive))
        self.run(state, *self.store(f"s3://{BUCKET}/source.bin"))
        self.run(state, "restore", f"s3://{BUCKET}/source.bin", self.restored)
        self.bytes = self.archive.read_bytes()

    def store(self, target, disks=None):
        root, data = disks or self.disks
        return ["store", "--disk", f"/dev/xvda={root}", "--disk", f"/dev/sdb={data}", "--name", "to be killed", str(target)]

    def run(self, state, *arguments, **options):
        return program.run(self.environment, state, *arguments, **options)

    def object(self, key):
        return self.server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def uploads(self, key):
        return [upload for upload in program.open_uploads(self.server, BUCKET) if upload["Key"] == key]

    def bytes_up(self, key):
        """Bytes of the parts of unfinished uploads on the server."""
        client, up = self.server.client(), 0
        for upload in self.uploads(key):
            listed = client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload["UploadId"])
            up += sum(part["Size"] for part in listed.get("Parts", []))
        return up

    def assert_nothing_left(self, state, key=None):
        assert not program.unfinished(self.environment, state), program.unfinished(self.environment, state)
        if key is not None:
            assert not self.uploads(key), f"an upload of {key} is left: {self.uploads(key)}"

    def assert_stored(self, state, key):
        assert self.object(key) == self.bytes, f"{key} is not the archive"
        self.assert_nothing_left(state, key)
        self.server.client().delete_object(Bucket=BUCKET, Key=key)


class Victim:
    """A run that is going to be killed."""

    def __init__(self, environment, state, arguments):
        self.err = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            program.command(*arguments),
            env=program.variables(environment, state),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.err,
        )

    def kill_after(self, seconds):
        """Whether it was killed; otherwise it was done before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        return self.was_killed()

    def kill(self):
        self.process.kill()
        self.process.wait(30)

    def was_killed(self):
        code = self.process.wait(program.SECONDS)
        self.err.seek(0)
        text = self.err.read().decode(errors="replace")
        self.err.close()
        # The run before may have been killed between its end and its exit: then the file or image
        # is complete.
        assert code in (program.OK, EXISTS, -9), f"a run that was to be killed ended with {code}:\n{text[-2000:]}"
        return code == -9


class Sums:
    """Counters over all runs; several threads add to them."""

    def __init__(self):
        self.lock, self.counts = threading.Lock(), {}

    def add(self, **counts):
        with self.lock:
            for name, count in counts.items():
                self.counts[name] = self.counts.get(name, 0) + count

    def __getattr__(self, name):
        return self.counts.get(name, 0)

    def __str__(self):
        shown = lambda name, count: f"{count >> 20} MiB {name}" if count > 1 << 20 else f"{count} {name}"
        return ", ".join(shown(name.replace("_", " "), count) for name, count in sorted(self.counts.items()))


def moments(chance, count, earliest=0.02):
    """For each point the shares of the undisturbed time after which the run is killed: once, or
    several times in a row. There are more points than kills to make, because some come too late.
    """
    return enumerate([[chance.uniform(earliest, 0.98) for _ in range(chance.choice([1, 1, 1, 2, 3]))] for _ in range(3 * count)])


class Pace:
    """The duration of a run while others run in parallel; an estimate on a machine with other
    work.
    """

    def __init__(self, rig, arguments_for):
        names = [f"timed-{number}" for number in range(PARALLEL_RUNS)]
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(PARALLEL_RUNS) as pool:
            list(pool.map(lambda name: rig.run(rig.directory / name, *arguments_for(name)), names))
        self.seconds = time.monotonic() - began

    def killed(self, rig, state, arguments, share, sums):
        """Starts a run and kills it after this share of the time. Whether it was killed, and not
        done before.
        """
        killed = Victim(rig.environment, state, arguments).kill_after(share * self.seconds)
        sums.add(kills=int(killed))
        if not killed:
            self.seconds *= 0.95
        return killed


def killed_stores(rig, chance):
    sums = Sums()
    key_of = lambda name: f"store-{name}.bin"
    arguments = lambda name: [*rig.store(f"s3://{BUCKET}/{key_of(name)}"), *SLOWLY]
    pace = Pace(rig, arguments)

    def point(number, shares):
        state, key = rig.directory / f"store-{number}", key_of(number)
        all(pace.killed(rig, state, arguments(number), share, sums) for share in shares)
        up = rig.bytes_up(key)
        ran = rig.run(state, *arguments(number))
        if ran.json["Outcome"] == "stored":
            sent, kept = ran.total("sent_bytes"), ran.total("kept_bytes")
            assert sent <= len(rig.bytes) - up, f"store {number}: {sent} bytes sent of {len(rig.bytes)}, although {up} were up\n{ran.err.decode()}"
            # A cell at either end of a run of parts may belong to a part that was not uploaded.
            assert kept >= up * 3 // 4 - 2 * PART, f"store {number}: {kept} bytes not read again, although {up} were up"
            sums.add(runs_resumed=int(up > 0), bytes_up=up, bytes_sent=sent, bytes_not_read_again=kept, bytes_of_archives=len(rig.bytes))
        rig.assert_stored(state, key)

    program.in_parallel(PARALLEL_RUNS, moments(chance, STORES), point, enough=lambda: sums.kills >= STORES)
    assert sums.kills >= STORES, sums
    assert sums.bytes_sent + sums.bytes_up <= sums.bytes_of_archives, sums
    assert sums.bytes_up > sums.bytes_of_archives // 5, f"kills came too early to show anything: {sums}"
    assert sums.bytes_not_read_again >= sums.bytes_up * 3 // 4, sums
    return sums


def killed_at_requests(rig, _):
    """A store, killed just before each of its requests reaches the server, and just before each
    answer reaches it.
    """
    sums = Sums()
    with Proxy(rig.server.port) as proxy:
        environment = rig.server.environment(proxy.endpoint)
        program.run(environment, rig.directory / "counted", *rig.store(f"s3://{BUCKET}/counted.bin"))
        lines = list(proxy.lines)
    points = [(number, line, when) for number, line in enumerate(lines, 1) for when in ("request", "answer")]

    def point(number, line, when):
        key, state = f"at-{number}-{when}.bin", rig.directory / f"at-{number}-{when}"
        arguments = rig.store(f"s3://{BUCKET}/{key}")
        with Proxy(rig.server.port) as proxy:
            environment = rig.server.environment(proxy.endpoint)
            # The first request comes before the process is known here.
            begun, dead = threading.Event(), threading.Event()

            def stop(at, _):
                if at == number:
                    begun.wait(10)
                    victim.kill()
                    dead.set()
                # Later requests go no further, and no process is left to repeat them.
                return at >= number and dead.wait(10)

            proxy.watch(**{f"on_{when}": stop})
            victim = Victim(environment, state, arguments)
            begun.set()
            killed = victim.was_killed()
            proxy.watch()
            try:
                program.run(environment, state, *arguments)
                rig.assert_stored(state, key)
            except AssertionError as error:
                raise AssertionError(f"killed at the {when} of {line} (number {number}): {error}") from error
        sums.add(kills=int(killed))

    program.in_parallel(PARALLEL_RUNS, points, point)
    assert sums.kills >= len(points) - 4, f"{sums} of {len(points)}"
    rig.server.client().delete_object(Bucket=BUCKET, Key="counted.bin")
    return sums


def killed_in_a_second_attempt(rig, _):
    """The answer for a part is lost, and the process is killed while it sends the part again.
    Garage then lists the first attempt and completes with neither: the repeated command begins a
    new upload.
    """
    key, state, sums = "second-attempt.bin", rig.directory / "second-attempt", Sums()
    arguments = [*rig.store(f"s3://{BUCKET}/{key}"), "--limit-rate", "20MiB"]
    with Proxy(rig.server.port) as proxy:
        environment = rig.server.environment(proxy.endpoint)

        def kill_second(_, line):
            if "partNumber=3&" in line:
                sums.add(attempts=1)
                if sums.attempts == 2:
                    threading.Timer(0.05, victim.kill).start()
            return False

        proxy.watch(on_request=kill_second, on_answer=lambda _, line: "partNumber=3&" in line)
        victim = Victim(environment, state, arguments)
        assert victim.was_killed() and sums.attempts == 2, sums
        proxy.watch()
        ran = program.run(environment, state, *arguments, expect=None)
        if ran.code != program.OK:
            assert (ran.code, ran.events[-1]["context"]["code"]) == (UNSUPPORTED, "InvalidPart"), ran.err
            sums.add(uploads_begun_anew=1)
            program.run(environment, state, *arguments)
        rig.assert_stored(state, key)
    return sums


def killed_restores(rig, chance):
    sums = Sums()
    url = f"s3://{BUCKET}/source.bin"
    target_of = lambda name: rig.directory / f"restored-{name}"
    arguments_for = lambda name: ["restore", url, *SLOWLY, target_of(name)]
    pace = Pace(rig, arguments_for)

    def point(number, shares):
        state, target = rig.directory / f"restore-{number}", target_of(number)
        arguments = arguments_for(number)
        if all(pace.killed(rig, state, arguments, share, sums) for share in shares):
            partial = sum(allocated(path) for path in target.glob(".*.partial"))
            ran = rig.run(state, *arguments, expect=None)
            # It may have been killed after its end, without a task file: then the result is whole.
            whole_before = ran.code == EXISTS and not partial
            assert ran.code == program.OK or whole_before, ran.err.decode()
            if not whole_before:
                received, kept = ran.total("received_bytes"), ran.total("kept_bytes")
                # Bytes of volumes, most of them incompressible; the end of the archive and its
                # indexes are always read.
                wanted = ran.total("bytes") - kept
                assert received <= wanted * 102 // 100 + (1 << 20), f"restore {number}: {received} received for {wanted}, {kept} kept"
                sums.add(bytes_there=partial, bytes_kept=kept, bytes_received=received, bytes_of_archives=len(rig.bytes))
        assert_same_image(target, rig.restored)
        rig.assert_nothing_left(state)
        shutil.rmtree(target)

    # Prefetched ranges share the rate, so little is written before the middle.
    program.in_parallel(PARALLEL_RUNS, moments(chance, RESTORES, 0.2), point, enough=lambda: sums.kills >= RESTORES)
    assert sums.kills >= RESTORES, sums
    assert sums.bytes_kept > 2 * len(rig.bytes), f"kills came too early to show anything: {sums}"
    # Blocks are noted after they are written, and a few are in flight at the kill.
    assert sums.bytes_kept >= sums.bytes_there * 6 // 10, sums
    return sums


def killed_while_naming(rig, _):
    """A restore is killed while its files get their final names. The moment is too short to be met
    by chance, so its state is made by hand.
    """
    finished = rig.directory / "restored-finished"
    arguments = ["restore", f"s3://{BUCKET}/source.bin", finished]
    state, begun = rig.directory / "naming", rig.directory / "naming-begun"
    kill_in_the_middle(rig, state, arguments)
    # Partial files name their archive: .NAME.TAG.partial
    tag = next(finished.glob(".*.raw.*.partial")).name.split(".")[-2]
    shutil.copytree(state, begun)
    rig.run(state, *arguments)
    names = [*sorted(path.name for path in finished.glob("*.raw")), "image.json"]
    assert len(names) == 3, names
    for named in range(len(names) + 1):
        # The record of the names, which is there before the first of them is given.
        inodes = [{"snapshot": name.removesuffix(".raw"), "inode": (finished / name).stat().st_ino} for name in names[:-1]]
        for name in names[named:-1]:
            (finished / name).rename(finished / f".{name}.{tag}.partial")
        if named < len(names):
            (finished / "image.json").unlink()
            (finished / ".image.json.partial").write_text(json.dumps({"tag": tag, "volumes": inodes}))
        shutil.copytree(begun, state, dirs_exist_ok=True)
        assert len(program.unfinished(rig.environment, state)) == 1
        rig.run(state, *arguments)
        rig.assert_nothing_left(state)
        assert_same_image(finished, rig.restored)
    # Without a task file the image is foreign, and stays.
    rig.run(state, *arguments, expect=EXISTS)
    return f"after each of {len(names)} names"


def killed_copies(rig, chance):
    """Copies from a file, and from an object through this machine, are continued. A copy to a file
    starts over, and leaves nothing either.
    """
    sums = Sums()
    source = f"s3://{BUCKET}/source.bin"
    pace = Pace(rig, lambda name: ["copy", "--no-server-copy", *SLOWLY, source, f"s3://{BUCKET}/{name}.bin"])

    def point(number, shares):
        state, key = rig.directory / f"copy-{number}", f"copy-{number}.bin"
        file = rig.directory / f"copy-{number}" / "copied.bin"
        file.parent.mkdir()
        ways = [(rig.archive, f"s3://{BUCKET}/{key}"), (source, f"s3://{BUCKET}/{key}"), (source, file)]
        to_file = number % 3 == 2
        arguments = ["copy", "--no-server-copy", *SLOWLY, *ways[number % 3]]
        all(pace.killed(rig, state, arguments, share, sums) for share in shares)
        up = 0 if to_file else rig.bytes_up(key)
        ran = rig.run(state, *arguments, expect=None)
        assert ran.code == program.OK or (ran.code == EXISTS and to_file and file.exists()), ran.err.decode()
        if to_file:
            assert_same_file(file, rig.archive)
            assert not list(file.parent.glob(".*.partial"))
            rig.assert_nothing_left(state)
            return
        sent = ran.total("sent_bytes")
        assert sent <= len(rig.bytes) - up, f"copy {number}: {sent} bytes sent, although {up} were up"
        sums.add(bytes_up=up, bytes_sent=sent, bytes_not_read_again=ran.total("kept_bytes"))
        rig.assert_stored(state, key)

    program.in_parallel(PARALLEL_RUNS, moments(chance, COPIES), point, enough=lambda: sums.kills >= COPIES)
    assert sums.kills >= COPIES and sums.bytes_up, sums
    return sums


def network_gone(rig, _):
    """The connection is cut in the middle, or the server hangs: an error in bounded time names the
    command to continue with, and that command continues.
    """
    sums = Sums()
    impatient = ["--max-attempts", "2", "--connect-timeout", "1", "--read-timeout", "2", "--limit-rate", "20MiB", "--memory", "52MiB"]

    def disturbed(environment, state, arguments, disturb):
        """Runs it, and calls `disturb` when requests are in flight."""
        timer = threading.Timer(1.0, disturb)
        timer.start()
        try:
            return program.run(environment, state, *arguments, expect=IO)
        finally:
            timer.join()

    def assert_continues(environment, state, key, failed):
        assert "resume_with" in failed.events[-1]["context"], failed.events[-1]
        [task] = program.unfinished(environment, state)
        assert task["TaskState"] == "Failed" and task["TaskFailureReason"], task
        up = rig.bytes_up(key)
        ran = program.run(environment, state, *rig.store(f"s3://{BUCKET}/{key}"), *impatient)
        assert up and ran.total("sent_bytes") <= len(rig.bytes) - up, (up, ran.total("sent_bytes"))
        sums.add(bytes_up=up, bytes_sent=ran.total("sent_bytes"), interruptions=1)
        rig.assert_stored(state, key)

    with Proxy(rig.server.port) as proxy:
        environment, state = rig.server.environment(proxy.endpoint), rig.directory / "cut"
        failed = disturbed(environment, state, [*rig.store(f"s3://{BUCKET}/cut.bin"), *impatient], proxy.cut)
        proxy.mend()
        assert_continues(environment, state, "cut.bin", failed)

        # A restore as well.
        arguments = ["restore", f"s3://{BUCKET}/source.bin", rig.directory / "restored-cut", *impatient]
        disturbed(environment, state, arguments, proxy.cut)
        proxy.mend()
        ran = program.run(environment, state, *arguments)
        assert ran.total("kept_bytes"), ran.err
        assert_same_image(rig.directory / "restored-cut", rig.restored)
        rig.assert_nothing_left(state)

        # A short interruption costs one more attempt.
        patient = ["--connect-timeout", "1", "--read-timeout", "2", "--limit-rate", "20MiB"]
        blink = threading.Timer(1.0, lambda: (proxy.cut(), time.sleep(0.5), proxy.mend()))
        blink.start()
        ran = program.run(environment, state, *rig.store(f"s3://{BUCKET}/blink.bin"), *patient)
        blink.join()
        assert any(event.get("event") == "retry" for event in ran.events), ran.err
        rig.assert_stored(state, "blink.bin")

    state = rig.directory / "hung"
    with contextlib.ExitStack() as frozen:
        arguments = [*rig.store(f"s3://{BUCKET}/hung.bin"), *impatient]
        failed = disturbed(rig.environment, state, arguments, lambda: frozen.enter_context(rig.server.frozen()))
    assert_continues(rig.environment, state, "hung.bin", failed)
    return sums


def kill_in_the_middle(rig, state, arguments):
    assert Victim(rig.environment, state, [*arguments, "--limit-rate", "20MiB", "--memory", "52MiB"]).kill_after(1.2), "it was done before it was killed"


def given_up(rig, _):
    """`clean --abort` after a kill removes upload, partial volumes and task files."""
    state = rig.directory / "given-up"
    target = rig.directory / "restored-given-up"
    kill_in_the_middle(rig, state, rig.store(f"s3://{BUCKET}/given-up.bin"))
    kill_in_the_middle(rig, state, ["restore", f"s3://{BUCKET}/source.bin", target])
    assert len(program.unfinished(rig.environment, state)) == 2 and rig.uploads("given-up.bin") and list(target.glob(".*.partial"))
    listed = rig.run(state, "clean").json["Leftovers"]
    assert len(listed) == 2 and not any(leftover["Removed"] for leftover in listed), listed
    assert len(program.unfinished(rig.environment, state)) == 2 and rig.uploads("given-up.bin")
    removed = rig.run(state, "clean", "--abort").json["Leftovers"]
    assert len(removed) == 2 and all(leftover["Removed"] for leftover in removed), removed
    rig.assert_nothing_left(state, "given-up.bin")
    assert not list(target.glob(".*.partial"))
    rig.run(state, *rig.store(f"s3://{BUCKET}/given-up.bin"))
    rig.assert_stored(state, "given-up.bin")
    return "store and restore"


def source_changed(rig, _):
    """Another source under the same name: the old upload is aborted, and the archive holds the new
    source and nothing of the old.
    """
    state, key = rig.directory / "changed", "changed.bin"
    disks = [rig.directory / "changed-root.raw", rig.disks[1]]
    subprocess.run(["cp", "--sparse=always", rig.disks[0], disks[0]], check=True)
    arguments = rig.store(f"s3://{BUCKET}/{key}", disks)
    kill_in_the_middle(rig, state, arguments)
    [old] = rig.uploads(key)
    with open(disks[0], "r+b") as disk:
        disk.seek(64 << 20)
        disk.write(os.urandom(1 << 20))
    ran = rig.run(state, *arguments)
    assert any("of something else" in event.get("message", "") for event in ran.events), ran.err
    assert ran.total("kept_bytes") == 0
    expected = rig.directory / "changed.bin"
    rig.run(rig.directory / "undisturbed", *rig.store(expected, disks))
    assert rig.object(key) == expected.read_bytes() != rig.bytes
    rig.assert_nothing_left(state, key)
    return f"upload {old['UploadId'][:12]}... was undone"


SCENES = [killed_stores, killed_at_requests, killed_in_a_second_attempt, killed_restores, killed_while_naming, killed_copies, network_gone, given_up, source_changed]


def main(name="garage", *wanted):
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as directory, servers.start(name) as server:
        server.make_bucket(BUCKET)
        rig = Rig(server, pathlib.Path(directory))
        for scene in SCENES:
            if wanted and scene.__name__ not in wanted:
                continue
            start = time.monotonic()
            # The moments of a scene do not depend on which other scenes run.
            result = scene(rig, random.Random(f"{SEED} {scene.__name__}"))
            print(f"  {scene.__name__.replace('_', ' ')}: {result} ({time.monotonic() - start:.0f} s)", flush=True)
        leftovers = [path for path in pathlib.Path(directory).rglob("*.partial")]
        assert not leftovers, leftovers
        assert not program.open_uploads(server, BUCKET)
    print(f"kills: {name}, seed {SEED}: all good, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
