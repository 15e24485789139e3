#!/usr/bin/env python3
"""Time amistore against tools that move objects, on one S3 server of this machine, with and without
latency.

The server is Garage (see tests/e2e/servers.py), or with --server double the S3 of the tests (release
build), which keeps objects in memory and delays its answers by itself. The runs of a round follow each other
(A B C, B C A, ...); a ratio is taken from the two runs of one round, and its median is reported.
Below 1, amistore needs less. amistore also checks each frame that it moves, and its times include
that.

* up: an existing archive goes into the bucket: `amistore copy` against `aws s3 cp`, `rclone`,
  `s5cmd`
* down: it comes back as a file: the same tools
* store: a disk image becomes an archive in the bucket: `amistore store` against `tar | zstd` with
  `aws s3 cp -` from the pipe, and against two steps
* restore: the archive becomes a disk image again: `amistore restore` against `aws s3 cp -` into
  `zstd | tar`, and against two steps

usage: s3.py [--image bench-work/data/os.raw] [--rounds 3] [--latency 0,20,100] [--only up,down]
             [--tools s5cmd,rclone] [--server garage|double] [--amistore PATH] [--json OUT]
"""
import argparse
import contextlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "e2e"))
import check_aws  # noqa: E402
import servers  # noqa: E402
from compare import Bench, MIB, describe, first_line, log, machine, remove, same, warm  # noqa: E402

BUCKET = "bench"


def rows(program, image, archive, work):
    """Operation, tool, its programs, command. In commands: {k} a fresh key, {o} a fresh path."""
    amistore = shlex.quote(program) + " --quiet"
    quoted, directory, name = shlex.quote(image), shlex.quote(os.path.dirname(image)), shlex.quote(os.path.basename(image))
    here = shlex.quote(archive)
    store = amistore + " store --disk /dev/xvda=%s --name benchmark " % quoted
    two = shlex.quote(os.path.join(work, "two.bin"))
    tar = "tar -C %s -S -cf - %s | zstd -q -T2 -1" % (directory, name)
    return [
        ("up", "amistore", "amistore", amistore + " copy %s s3://bench/{k}" % here),
        ("up", "aws s3 cp", "aws", "aws s3 cp --quiet %s s3://bench/{k}" % here),
        ("up", "rclone", "rclone", "rclone copyto %s bench:bench/{k}" % here),
        ("up", "s5cmd", "s5cmd", "s5cmd cp %s s3://bench/{k} > /dev/null" % here),
        ("down", "amistore", "amistore", amistore + " copy --no-sync s3://bench/archive.bin {o}"),
        ("down", "aws s3 cp", "aws", "aws s3 cp --quiet s3://bench/archive.bin {o}"),
        ("down", "rclone", "rclone", "rclone copyto bench:bench/archive.bin {o}"),
        ("down", "s5cmd", "s5cmd", "s5cmd cp s3://bench/archive.bin {o} > /dev/null"),
        ("store", "amistore", "amistore", store + "s3://bench/{k}"),
        ("store", "tar | zstd | aws s3 cp -", "aws", tar + " | aws s3 cp --quiet --expected-size 4000000000 - s3://bench/{k}"),
        ("store", "amistore to a file, then aws s3 cp", "aws", store + "--force --no-sync %s && aws s3 cp --quiet %s s3://bench/{k}" % (two, two)),
        ("restore", "amistore", "amistore", amistore + " restore --no-sync s3://bench/archive.bin {o}"),
        ("restore", "aws s3 cp - | zstd | tar", "aws", "mkdir {o} && aws s3 cp --quiet s3://bench/archive.bin - | zstd -q -dc | tar -C {o} -xSf -"),
        ("restore", "aws s3 cp, then amistore", "aws", "aws s3 cp --quiet s3://bench/archive.bin %s && %s restore --no-sync %s {o}" % (two, amistore, two)),
        ("verify", "amistore", "amistore", amistore + " verify s3://bench/archive.bin"),
        ("verify", "aws s3 cp - | zstd -t", "aws", "aws s3 cp --quiet s3://bench/archive.bin - | zstd -q -t"),
    ]


class Double:
    """The S3 of the tests, which delays its answers by itself."""

    def __init__(self, aws):
        self.aws = aws
        self.endpoint = aws.environment["AWS_ENDPOINT_URL_S3"]

    def environment(self, endpoint):
        return {**self.aws.environment, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": self.aws.region, "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self):
        return self.aws.client("s3")

    def make_bucket(self, name):
        self.aws.order("/bucket", {"name": name})

    def delay(self, latency):
        self.aws.order("/settings", {"s3_latency_ms": latency})


@contextlib.contextmanager
def start(name):
    if name == "double":
        check_aws.PROGRAM = os.environ.get("AWS_DOUBLE") or os.path.abspath("target/release/aws-double")
        with check_aws.running("--s3") as [aws]:
            yield Double(aws)
    else:
        with servers.start(name) as server:
            yield server


def rclone_settings(environment):
    """rclone takes its remote from variables."""
    return {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_FORCE_PATH_STYLE": "true",
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": environment["AWS_ACCESS_KEY_ID"],
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": environment["AWS_SECRET_ACCESS_KEY"],
        "RCLONE_CONFIG_BENCH_REGION": environment["AWS_REGION"],
        "RCLONE_CONFIG_BENCH_ENDPOINT": environment["AWS_ENDPOINT_URL"],
    }


def right(operation, output, key, options, server, archive):
    """Whether the output is correct. Untimed."""
    if operation == "down":
        return same(output, archive)
    if operation == "restore":
        found = [os.path.join(output, name) for name in os.listdir(output) if name.endswith(".raw")]
        return len(found) == 1 and same(found[0], options.image)
    if operation == "up":
        return server.client().head_object(Bucket=BUCKET, Key=key)["ContentLength"] == os.path.getsize(archive)
    return True


def measure(options, server, latency, work, archive, bench):
    """All rounds at one latency; yields lines of results."""
    proxy, endpoint = None, server.endpoint
    if isinstance(server, Double):
        server.delay(latency)
    elif latency:
        delay = os.path.join(os.path.dirname(os.path.abspath(__file__)), "delay.py")
        proxy = subprocess.Popen([sys.executable, delay, str(server.port), str(latency)], stdout=subprocess.PIPE, text=True)
        endpoint = "http://127.0.0.1:%d" % int(proxy.stdout.readline())
    reach = server.environment(endpoint)
    bench.environment = {**bench.environment, **reach, **rclone_settings(reach), "AMISTORE_STATE": os.path.join(work, "state"), "S3_ENDPOINT_URL": endpoint}
    runs = []
    try:
        table = [row for row in rows(options.amistore, options.image, archive, work) if row[2] == "amistore" or shutil.which(row[2]) and (not options.tools or row[2] in options.tools)]
        table = [row for row in table if not options.only or row[0] in options.only]
        for operation in dict.fromkeys(row[0] for row in table):
            mine = [row for row in table if row[0] == operation]
            for number in range(options.rounds):
                turn = number % len(mine)
                for _, tool, _, command in mine[turn:] + mine[:turn]:
                    key, output = "run.bin", os.path.join(work, "output")
                    remove(output)
                    server.client().delete_object(Bucket=BUCKET, Key=key)
                    os.sync()
                    warm(options.image if operation == "store" else archive)
                    run = bench.time(command.format(k=key, o=shlex.quote(output)))
                    if run["code"] == 0 and number == 0 and not right(operation, output, key, options, server, archive):
                        run["code"] = -1
                    log("%d ms %s, round %d, %s: %s" % (latency, operation, number + 1, tool, "%.2f s, %.2f s CPU" % (run["wall"], run["cpu"]) if run["code"] == 0 else "failed: " + bench.complaint()))
                    runs.append({"latency_ms": latency, "operation": operation, "tool": tool, "round": number, **run})
            remove(os.path.join(work, "output"))
    finally:
        if isinstance(server, Double):
            server.delay(0)
        if proxy:
            proxy.terminate()
            proxy.wait()
    return runs


def table(runs, latency, operation, length):
    mine = [run for run in runs if (run["latency_ms"], run["operation"]) == (latency, operation)]
    base = {run["round"]: run for run in mine if run["tool"] == "amistore" and run["code"] == 0}
    lines = ["", "### %s, %d ms" % (operation, latency), "", "| tool | wall s | MiB/s | CPU s | peak MiB | wall, amistore / tool | CPU, amistore / tool |", "|---|--:|--:|--:|--:|--:|--:|"]
    for tool in dict.fromkeys(run["tool"] for run in mine):
        good = [run for run in mine if run["tool"] == tool and run["code"] == 0]
        if not good:
            lines.append("| %s | failed | | | | | |" % tool.replace("|", "\\|"))
            continue
        median = lambda key: statistics.median(run[key] for run in good)
        ratio = lambda key: statistics.median(base[run["round"]][key] / max(run[key], 1e-3) for run in good if run["round"] in base) if base else float("nan")
        lines.append("| %s | %.2f | %.0f | %.2f | %.0f | %.2f | %.2f |" % (tool.replace("|", "\\|"), median("wall"), length / MIB / median("wall"), median("cpu"), median("peak") / MIB, ratio("wall"), ratio("cpu")))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="bench-work/data/os.raw")
    parser.add_argument("--work", default="bench-work")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=lambda text: [int(number) for number in text.split(",")], default=[0, 20, 100], metavar="MS,...", help="round trips")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="OPERATION,...")
    parser.add_argument("--tools", type=lambda text: text.split(","), metavar="TOOL,...", help="only these peers")
    parser.add_argument("--server", choices=["garage", "double"], default="garage")
    parser.add_argument("--amistore", default="target/release/amistore")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args()
    options.amistore, options.image = os.path.abspath(options.amistore), os.path.abspath(options.image)
    options.threads, options.cold = 2, False
    os.makedirs(options.work, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as work, start(options.server) as server:
        options.work = work = os.path.abspath(work)
        facts = machine(options)
        facts["tools"] = {name: first_line(command) for name, command in {
            "amistore": [options.amistore, "--version"], "aws": ["aws", "--version"], "rclone": ["rclone", "--version"], "s5cmd": ["s5cmd", "version"],
        }.items()}
        print(describe(facts), flush=True)
        server.make_bucket(BUCKET)
        archive = os.path.join(work, "archive.bin")
        subprocess.run([options.amistore, "--quiet", "store", "--disk", "/dev/xvda=" + options.image, "--name", "benchmark", archive], check=True)
        server.client().upload_file(archive, BUCKET, "archive.bin")
        bench = Bench(options, work)
        runs = []
        for latency in options.latency:
            runs += measure(options, server, latency, work, archive, bench)
            for operation in dict.fromkeys(run["operation"] for run in runs):
                print(table(runs, latency, operation, os.path.getsize(archive)), flush=True)
        others = max(run["others"] for run in runs)
        print("\nRounds: %d. The server, the proxy and others used at most %.0f %% of the machine during a run." % (options.rounds, others * 100))
        if options.json:
            with open(options.json, "w") as file:
                json.dump({"machine": facts, "archive_bytes": os.path.getsize(archive), "runs": runs}, file, indent=1)


if __name__ == "__main__":
    main()
