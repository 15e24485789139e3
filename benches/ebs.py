#!/usr/bin/env python3
"""Time amistore's reads and writes of snapshots, on an EBS of this machine with latency and with the
quota of AWS.

The server is the AWS of the tests (tests/aws-double, release build). It makes blocks when
they are requested, and discards written ones after it compared their checksums, so that neither
takes memory or disk. Each snapshot allows 1,000 blocks a second, 500 MiB, like those of AWS: the
ceiling. Archives are files without sync, so that runs wait for EBS alone, or objects of a bucket in
the memory of the server.

* store: snapshots become an archive, one volume after the other:
  `amistore store snap-... FILE`
* store to S3: snapshots become an object in a bucket, the volumes in parallel:
  `amistore store --volumes-at-once N snap-... s3://...`
* restore: the archive becomes snapshots, the volumes in parallel:
  `amistore restore --snapshots-only`
* compare: all blocks are read and compared with the archive, and nothing is written:
  `amistore retire --dry-run`
* coldsnap, if it is installed ($COLDSNAP or PATH): its download to a raw file, and its upload of
  one. A ratio is taken from the runs of one round; below 1, amistore needs less.

usage: ebs.py [--blocks 2048] [--rounds 2] [--latency 0,20,100] [--snapshots 1,2,4]
              [--memory 256MiB,1GiB] [--only OPERATION,...] [--amistore PATH] [--aws-double PATH] [--json OUT]
"""
import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))
import check_aws  # noqa: E402
from compare import Bench, MIB, describe, first_line, log, machine, read, remove  # noqa: E402

CEILING = 1000
BLOCK = 512 << 10
GIB = 1 << 30
LATENCY = 100
BUCKET = "archives"
KEY = "output.bin"
IN_PARALLEL = ("store to S3", "restore", "coldsnap upload")


class Rig:
    """The server with its snapshots, and archives of them."""

    def __init__(self, aws, options, work):
        self.aws, self.options, self.work, self.known = aws, options, work, {}
        self.pid = aws.pid
        aws.order("/settings", {"discard": True, "keep_calls": False})
        aws.order("/bucket", {"name": BUCKET})

    def limits(self, latency):
        """A second's worth may come at once; the quota of the account, 5,000 a second in us-east-1,
        is out of reach.
        """
        self.aws.order("/settings", {"latency_ms": latency, "s3_latency_ms": latency, "snapshot_rate": {"burst": CEILING, "per_second": CEILING}})

    def snapshots(self, count, blocks):
        """Ids, archive and image of so many snapshots. So much of each block cannot be
        compressed.
        """
        if (count, blocks) not in self.known:
            gib = -(-blocks * 2 * BLOCK // GIB)
            order = lambda number: {"size_gib": gib, "pattern": {"seed": 100 * count + number, "random": self.options.random, "count": blocks, "step": 2}}
            ids = [self.aws.order("/snapshot", order(number))["id"] for number in range(count)]
            mappings = [{"DeviceName": "/dev/sd" + "fghijklm"[number], "Ebs": {"SnapshotId": id, "VolumeSize": gib, "VolumeType": "gp3"}} for number, id in enumerate(ids)]
            register = {"Name": "benchmark %d x %d" % (count, blocks), "RootDeviceName": "/dev/sdf", "VirtualizationType": "hvm", "Architecture": "x86_64"}
            image = self.aws.client("ec2").register_image(BlockDeviceMappings=mappings, **register)["ImageId"]
            self.aws.order("/settings", {"latency_ms": 0, "s3_latency_ms": 0, "snapshot_rate": None})
            archive = os.path.join(self.work, image + ".bin")
            run = Bench(self.options, self.work)
            run.environment = {**run.environment, **self.environment()}
            if run.time("%s --quiet store --no-sync %s %s" % (shlex.quote(self.options.amistore), image, shlex.quote(archive)))["code"]:
                raise RuntimeError(run.complaint())
            self.known[count, blocks] = (ids, archive, image)
        return self.known[count, blocks]

    def environment(self):
        return {**self.aws.environment, "AMISTORE_STATE": os.path.join(self.work, "state")}

    def cpu(self):
        """CPU seconds of the server so far: it shares the machine."""
        fields = read("/proc/%d/stat" % self.pid).rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def calls(self):
        counts = self.aws.order("/calls")
        mine = [counts.get(name, {"calls": 0, "failed": 0}) for name in ("GetSnapshotBlock", "PutSnapshotBlock")]
        return sum(count["calls"] for count in mine), sum(count["failed"] for count in mine)


def command(rig, operation, known, memory, output):
    ids, archive, image = known
    amistore = "%s --quiet --memory %s" % (shlex.quote(rig.options.amistore), memory)
    archive, output = shlex.quote(archive), shlex.quote(output)
    coldsnap = "%s --endpoint %s" % (shlex.quote(rig.options.coldsnap or "coldsnap"), rig.aws.environment["AWS_ENDPOINT_URL"])
    return {
        "store": "%s store --no-sync %s %s" % (amistore, ",".join(ids), output),
        "store to S3": "%s store --volumes-at-once %d %s s3://%s/%s" % (amistore, len(ids), ",".join(ids), BUCKET, KEY),
        # Each run makes snapshots of its own.
        "restore": "%s restore --snapshots-only --tag run=%d %s ec2" % (amistore, time.monotonic_ns(), archive),
        "compare": "%s retire %s --archive %s --deprecate --dry-run" % (amistore, image, archive),
        "coldsnap download": "%s download %s %s" % (coldsnap, ids[0], output),
        "coldsnap upload": "%s upload --omit-zero-blocks %s" % (coldsnap, shlex.quote(os.path.join(rig.work, "raw", ids[0] + ".raw"))),
    }[operation]


def once(rig, bench, operation, count, blocks, latency, memory):
    known = rig.snapshots(count, blocks)
    rig.limits(latency)
    output = os.path.join(rig.work, "output")
    remove(output)
    os.sync()
    before, (calls, failed) = rig.cpu(), rig.calls()
    bench.environment = {**bench.environment, **rig.environment()}
    run = bench.time(command(rig, operation, known, memory, output))
    remove(output)
    rig.aws.client("s3").delete_object(Bucket=BUCKET, Key=KEY)
    called, refused = (after - now for after, now in zip(rig.calls(), (calls, failed)))
    # A run that did not move all blocks did not do its work.
    if run["code"] == 0 and called - refused < count * blocks:
        run["code"] = -1
    gib = count * blocks * BLOCK / GIB
    run.update(operation=operation, snapshots=count, blocks=blocks, latency_ms=latency, memory=memory, gib=gib, throttled=refused, server_cpu=rig.cpu() - before, load=os.getloadavg()[0])
    # CPU time of other processes than this run and its server.
    run["others"] = max(0.0, run["others"] - run["server_cpu"] / max(run["wall"], 1e-3) / os.cpu_count())
    log("%s, %d x %d blocks, %d ms, %s: %s" % (operation, count, blocks, latency, memory, "%.2f s, %.2f s CPU" % (run["wall"], run["cpu"]) if run["code"] == 0 else "failed: " + bench.complaint()))
    return run


def points(options):
    """The measured cases: operation, snapshots, blocks of each, latency, memory."""
    default, found = options.memory[0], []
    # Compared cases follow each other, so that they run under the same load.
    for latency in options.latency:
        for operation, other in (("store", "coldsnap download"), ("restore", "coldsnap upload")):
            found += [(name, 1, options.blocks, latency, default) for name in ([operation, other] if options.coldsnap else [operation])]
    for operation in ("store", "restore"):
        found += [(operation, 1, options.blocks, LATENCY, memory) for memory in options.memory]
        found += [(operation, count, options.blocks // 2, LATENCY, default) for count in options.snapshots]
    # Parallel volumes take memory for parts of each.
    found += [("store to S3", count, options.blocks // 2, LATENCY, memory) for memory in options.memory for count in options.snapshots]
    found += [("compare", 1, options.blocks, LATENCY, default)]
    return [point for point in dict.fromkeys(found) if not options.only or point[0] in options.only]


PARTNERS = {"coldsnap download": "store", "coldsnap upload": "restore"}


def table(runs, title, wanted):
    """Medians. Ratios to amistore's run of the same round stand with the other tool."""
    lines = ["", "### " + title, "", "| operation | snapshots | latency ms | memory | wall s | blocks/s of each snapshot | of the ceiling | MiB/s | CPU s per GiB (user) | peak MiB | throttled | wall, amistore / it | CPU, amistore / it |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for point in wanted:
        key = lambda run: (run["operation"], run["snapshots"], run["blocks"], run["latency_ms"], run["memory"])
        mine = [run for run in runs if key(run) == point and run["code"] == 0]
        operation, count, blocks, latency, memory = point
        if not mine:
            lines.append("| %s | %d | %d | %s | failed | | | | | | | | |" % (operation, count, latency, memory))
            continue
        median = lambda of: statistics.median(of(run) for run in mine)
        rate = blocks * count / median(lambda run: run["wall"])
        # A store to a file reads one snapshot at a time, so its ceiling is that of one.
        ceiling = CEILING * (count if operation in IN_PARALLEL else 1)
        partners = {run["round"]: run for run in runs if operation in PARTNERS and key(run) == (PARTNERS[operation], *point[1:]) and run["code"] == 0}
        ratio = lambda name: "%.2f" % statistics.median(partners[run["round"]][name] / max(run[name], 1e-3) for run in mine if run["round"] in partners) if partners else ""
        lines.append("| %s | %d | %d | %s | %.2f | %.0f | %.0f %% | %.0f | %.2f (%.2f) | %.0f | %d | %s | %s |" % (
            operation, count, latency, memory, median(lambda run: run["wall"]), rate / count if ceiling > CEILING else rate, 100 * rate / ceiling, rate * BLOCK / MIB,
            median(lambda run: run["cpu"] / run["gib"]), median(lambda run: run["user"] / run["gib"]), median(lambda run: run["peak"] / MIB), median(lambda run: run["throttled"]), ratio("wall"), ratio("cpu")))
    return "\n".join(lines)


def main():
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="bench-work")
    parser.add_argument("--blocks", type=int, default=2048, help="of one snapshot; half as many where there are several")
    parser.add_argument("--random", type=int, default=50, metavar="PERCENT", help="of a block that cannot be compressed")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--latency", type=numbers, default=[0, 20, 100], metavar="MS,...", help="from request to answer")
    parser.add_argument("--snapshots", type=numbers, default=[1, 2, 4], metavar="N,...", help="growth, at %d ms" % LATENCY)
    parser.add_argument("--memory", type=lambda text: text.split(","), default=["256MiB", "1GiB"], metavar="SIZE,...")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="OPERATION,...", help="such as 'store,store to S3'")
    parser.add_argument("--amistore", default="target/release/amistore")
    parser.add_argument("--aws-double", default="target/release/aws-double")
    parser.add_argument("--coldsnap", default=os.environ.get("COLDSNAP") or shutil.which("coldsnap"))
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args()
    options.amistore, check_aws.PROGRAM = os.path.abspath(options.amistore), os.path.abspath(options.aws_double)
    options.threads, options.cold = os.cpu_count(), False
    os.makedirs(options.work, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as work, check_aws.running("--s3") as [aws]:
        options.work = work = os.path.abspath(work)
        facts = machine(options)
        facts["tools"] = {"amistore": first_line([options.amistore, "--version"]), "coldsnap": "at hand (it does not say its version)" if options.coldsnap else None}
        print(describe(facts), flush=True)
        rig, bench, runs = Rig(aws, options, work), Bench(options, work), []
        wanted = points(options)
        for number in range(options.rounds):
            for point in wanted if number % 2 == 0 else wanted[::-1]:
                if point[0] == "coldsnap upload":
                    ids, archive, _ = rig.snapshots(1, options.blocks)
                    if not os.path.isdir(os.path.join(work, "raw")):
                        bench.time("%s --quiet restore --no-sync %s %s" % (shlex.quote(options.amistore), shlex.quote(archive), shlex.quote(os.path.join(work, "raw"))))
                runs.append({"round": number, **once(rig, bench, *point)})
        default = options.memory[0]
        plain = [point for point in wanted if point[1] == 1 and point[2] == options.blocks and point[4] == default]
        print(table(runs, "One snapshot, %.2g GiB of blocks" % (options.blocks * BLOCK / GIB), sorted(plain, key=lambda point: (point[3], point[0]))))
        print(table(runs, "Memory", [point for point in wanted if point[1] == 1 and point[2] == options.blocks and point[3] == LATENCY and point[0] in ("store", "restore")]))
        print(table(runs, "Several snapshots, %.2g GiB of blocks each" % (options.blocks // 2 * BLOCK / GIB), [point for point in wanted if point[2] == options.blocks // 2]))
        print("\nRounds: %d. The server used %.0f %% of the machine at most during a run, others %.0f %%; load between %.1f and %.1f." % (
            options.rounds, 100 * max(run["server_cpu"] / run["wall"] / os.cpu_count() for run in runs), 100 * max(run["others"] for run in runs),
            min(run["load"] for run in runs), max(run["load"] for run in runs)))
        if options.json:
            with open(options.json, "w") as file:
                json.dump({"machine": facts, "ceiling_blocks_per_second": CEILING, "runs": runs}, file, indent=1)


if __name__ == "__main__":
    main()
