#!/usr/bin/env python3
"""Time amistore against tools that do a similar job, on the same images (see images.py): pack,
restore, verify, scrub (`verify --stored`), copy.

The runs of a round follow each other (A B C, B C A, ...), so that a slow phase of the machine slows
all tools. The report has medians of the rounds; a ratio is taken from the two runs of one round,
and its median is reported. Below 1, amistore needs less.
Before each run, untimed: outputs removed, sync, input read into the page cache (or dropped from it,
with --cold). Once for each tool, untimed: the restored image is compared with the original.

usage: compare.py [--images os,vol,sparse,big] [--rounds 5] [--only pack|restore|verify|scrub|copy]
                  [--amistore PATH] [--json OUT]
       compare.py --ratios OUT.json ...          one short table of what was measured
"""
import argparse
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
OPERATIONS = ("pack", "restore", "verify", "scrub", "copy")
# Variables that would change the options of the tools.
SILENCED = ("AMISTORE_", "ZSTD_", "TAR_OPTIONS", "RESTIC_", "LC_", "LANG", "XZ_", "GZIP")
SHELL = ["bash", "-o", "pipefail", "-c"] if shutil.which("bash") else ["sh", "-c"]


class Row:
    """One line of a table: a command, and the tool whose archive it reads.

    In commands: {i} image, {d} and {n} its directory and file name, {a} archive, {r} an empty
    directory to restore to, {t} threads.
    """

    def __init__(self, name, command, needs, archive=None, prepare=None, of=None, sparse=True):
        self.name, self.command, self.needs = name, command, needs
        self.archive = archive  # pack: name of the output
        self.prepare = prepare  # pack: untimed command before it
        self.of = of  # other operations: the row that packs what is read
        self.sparse = sparse  # restore: leaves holes; otherwise the output takes the image's full length


def rows(options, restic_sparse):
    amistore = shlex.quote(options.amistore) + " --quiet --threads {t}"
    store = amistore + " store --disk /dev/xvda={i} --name benchmark"
    tar = "tar -C {d} -S -cf - {n} | zstd -q -T{t} %s -o {a}"
    bsdtar = "bsdtar -C {d} --zstd --options zstd:compression-level=%s,zstd:threads={t} -cf {a} {n}"
    pack = [
        Row("amistore -1", store + " --level 1 --no-sync {a}", ["amistore"], "1.bin"),
        Row("amistore -1, durable", store + " --level 1 {a}", ["amistore"], "durable.bin"),
        Row("amistore -3", store + " --level 3 --no-sync {a}", ["amistore"], "3.bin"),
        Row("tar | zstd -1", tar % "-1", ["tar", "zstd"], "1.tar.zst"),
        Row("tar | zstd -3", tar % "-3", ["tar", "zstd"], "3.tar.zst"),
        Row("bsdtar zstd -1", bsdtar % 1, ["bsdtar"], "bsd1.tar.zst"),
        Row("bsdtar zstd -1; sync", bsdtar % 1 + " && sync {a}", ["bsdtar"], "bsd1s.tar.zst"),
        Row("bsdtar zstd -3", bsdtar % 3, ["bsdtar"], "bsd3.tar.zst"),
        Row("qemu-img qcow2 zstd", "qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd -m {t} -W {i} {a}", ["qemu-img"], "a.qcow2"),
        Row("restic", "restic -q -r {a} --no-cache backup {i}", ["restic"], "restic", prepare="restic -q -r {a} --no-cache init"),
    ]
    unpack = amistore + " restore %s %s {r}/image"
    restic = "restic -q -r {a} --no-cache restore latest --target {r}" + (" --sparse" if restic_sparse else "")
    restore = [
        Row("amistore -1", unpack % ("--no-sync", "{a}"), ["amistore"], of="amistore -1"),
        Row("amistore -1, from a pipe", "cat {a} | " + unpack % ("--no-sync", "-"), ["amistore"], of="amistore -1"),
        Row("amistore -1, durable", unpack % ("", "{a}"), ["amistore"], of="amistore -1"),
        Row("amistore -3", unpack % ("--no-sync", "{a}"), ["amistore"], of="amistore -3"),
        Row("zstd -dc | tar, level 1", "zstd -q -dc {a} | tar -C {r} -xSf -", ["tar", "zstd"], of="tar | zstd -1"),
        Row("zstd -dc | tar, level 3", "zstd -q -dc {a} | tar -C {r} -xSf -", ["tar", "zstd"], of="tar | zstd -3"),
        Row("bsdtar zstd -1", "bsdtar -C {r} -xSf {a}", ["bsdtar"], of="bsdtar zstd -1"),
        Row("bsdtar zstd -1; sync", "bsdtar -C {r} -xSf {a} && sync {r}/*", ["bsdtar"], of="bsdtar zstd -1"),
        Row("bsdtar zstd -3", "bsdtar -C {r} -xSf {a}", ["bsdtar"], of="bsdtar zstd -3"),
        Row("qemu-img qcow2 zstd", "qemu-img convert -f qcow2 -O raw -m {t} -W {a} {r}/image.raw", ["qemu-img"], of="qemu-img qcow2 zstd"),
        Row("restic", restic, ["restic"], of="restic", sparse=restic_sparse),
    ]
    verify = [
        Row("amistore -1", amistore + " verify {a}", ["amistore"], of="amistore -1"),
        Row("amistore -1, from a pipe", "cat {a} | " + amistore + " verify -", ["amistore"], of="amistore -1"),
        Row("amistore -3", amistore + " verify {a}", ["amistore"], of="amistore -3"),
        Row("zstd -t, amistore's archive", "zstd -q -t {a}", ["zstd"], of="amistore -1"),
        Row("zstd -t, tar level 1", "zstd -q -t {a}", ["tar", "zstd"], of="tar | zstd -1"),
        Row("zstd -dc > /dev/null, tar level 1", "zstd -q -dc {a} > /dev/null", ["tar", "zstd"], of="tar | zstd -1"),
    ]
    scrub = [
        Row("amistore -1", amistore + " verify --stored {a}", ["amistore"], of="amistore -1"),
        Row("sha256sum", "sha256sum {a}", ["sha256sum"], of="amistore -1"),
        Row("openssl dgst -sha256", "openssl dgst -sha256 {a}", ["openssl"], of="amistore -1"),
    ]
    copy = [
        Row("amistore -1", amistore + " copy --no-sync {a} {r}/copy.bin", ["amistore"], of="amistore -1"),
        Row("amistore -1, --verify-blocks", amistore + " copy --verify-blocks --no-sync {a} {r}/copy.bin", ["amistore"], of="amistore -1"),
        Row("amistore -1, durable", amistore + " copy {a} {r}/copy.bin", ["amistore"], of="amistore -1"),
        Row("cp", "cp {a} {r}/copy.bin", ["cp"], of="amistore -1"),
        Row("cp; sync", "cp {a} {r}/copy.bin && sync {r}/copy.bin", ["cp"], of="amistore -1"),
    ]
    return {"pack": pack, "restore": restore, "verify": verify, "scrub": scrub, "copy": copy}


def log(message):
    print(message, file=sys.stderr, flush=True)


def files_in(path):
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


def written(descriptor, size):
    """The ranges of a file that are not holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole up to the end
            return
        end = min(os.lseek(descriptor, at, os.SEEK_HOLE), size)
        yield at, end
        at = end


def warm(path):
    """Reads the written ranges of a file, or of all files in a directory, into the page cache."""
    buffer = bytearray(256 << 10)
    for name in files_in(path):
        with open(name, "rb", buffering=0) as file:
            for at, end in written(file.fileno(), os.fstat(file.fileno()).st_size):
                while at < end:
                    done = os.preadv(file.fileno(), [buffer], at)
                    if not done:
                        break
                    at += done


def chill(path):
    """Drops a file, or all in a directory, from the page cache. Needs no root, but clean pages:
    call sync first.
    """
    for name in files_in(path):
        with open(name, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def same(left, right):
    """Whether two files read the same. Where both have holes nothing is read: else 64 GiB of zeros
    were compared for each tool.
    """
    with open(left, "rb", buffering=0) as a, open(right, "rb", buffering=0) as b:
        a, b = a.fileno(), b.fileno()
        size = os.fstat(a).st_size
        if os.fstat(b).st_size != size:
            return False
        done = 0
        for at, end in sorted([*written(a, size), *written(b, size)]):
            at = max(at, done)
            while at < end:
                length = min(end - at, 256 << 10)
                one, two = os.pread(a, length, at), os.pread(b, length, at)
                if one != two or not one:
                    return False
                at += len(one)
            done = max(done, at)
        return True


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0].strip("* ") if text else ""


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def machine(options):
    """Facts about the machine that a figure depends on."""
    field = lambda text, name: next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(name)), "")
    cpu = read("/proc/cpuinfo")
    mounts = [line.split() for line in read("/proc/self/mounts").splitlines()]
    under = lambda mount: os.path.commonpath([options.work, mount]) == mount
    file_system = max(((len(fields[1]), fields[2]) for fields in mounts if under(fields[1])), default=(0, "?"))[1]
    memory = field(read("/proc/meminfo"), "MemTotal").split()
    tools = {name: first_line(command) for name, command in {
        "amistore": [options.amistore, "--version"],
        "tar": ["tar", "--version"],
        "zstd": ["zstd", "--version"],
        "bsdtar": ["bsdtar", "--version"],
        "qemu-img": ["qemu-img", "--version"],
        "restic": ["restic", "version"],
        "cp, sha256sum": ["cp", "--version"],
    }.items()}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": field(cpu, "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(memory[0]) // 1024 if memory else None,
        "kernel": platform.release(),
        "file_system": file_system,
        "load": os.getloadavg()[0],
        "threads": options.threads,
        "cache": "cold" if options.cold else "warm",
        "tools": tools,
    }


def environment(work):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SILENCED)}
    # restic is written in Go and has no option for its threads.
    return dict(kept, LC_ALL="C", RESTIC_PASSWORD="benchmark", TMPDIR=work)


def busy_ticks():
    """CPU seconds that the machine has spent, by all processes."""
    fields = [int(word) for word in read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK") if fields else 0.0


class Bench:
    def __init__(self, options, work):
        self.options, self.work = options, work
        self.environment = dict(environment(work), GOMAXPROCS=str(options.threads))
        self.log = os.path.join(work, "log")
        self.runs, self.checks, self.skipped = [], {}, []

    def time(self, command):
        """Runs a command line; wall, CPU of the whole tree, and peak of its largest process."""
        before = busy_ticks()
        with open(self.log, "wb") as output:
            start = time.monotonic()
            child = subprocess.Popen([*SHELL, command], env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                _, status, usage = os.wait4(child.pid, 0)
            except BaseException:
                child.send_signal(signal.SIGTERM)
                child.wait()
                raise
            wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        others = max(0.0, busy_ticks() - before - cpu) / max(wall, 1e-3) / os.cpu_count()
        return {"code": child.returncode, "wall": wall, "user": usage.ru_utime, "sys": usage.ru_stime, "cpu": cpu, "peak": usage.ru_maxrss * 1024, "others": others}

    def complaint(self):
        return " / ".join(read(self.log).strip().splitlines()[-2:])[:300]

    def fill(self, command, image, archive="", target=""):
        quote = shlex.quote
        places = {"i": quote(image), "d": quote(os.path.dirname(image)), "n": quote(os.path.basename(image)), "a": quote(archive), "r": quote(target), "t": self.options.threads}
        return command.format(**places)

    def ready(self, source):
        os.sync()
        if self.options.cold:
            chill(source)
        else:
            warm(source)

    def pack(self, row, image):
        archive = os.path.join(self.work, row.archive)
        remove(archive)
        if row.prepare:
            run = self.time(self.fill(row.prepare, image, archive))
            if run["code"]:
                return run
        self.ready(image)
        run = self.time(self.fill(row.command, image, archive))
        if run["code"] == 0:
            run["size"] = sum(os.path.getsize(name) for name in files_in(archive))
        return run

    def restore(self, row, image, archive, check):
        target = os.path.join(self.work, "restored")
        remove(target)
        os.mkdir(target)
        self.ready(archive)
        run = self.time(self.fill(row.command, image, archive, target))
        if run["code"] == 0:
            restored = [name for name in files_in(target) if name.endswith(".raw")]
            os.sync()  # sizes on disk are known when it is there
            run["size"] = sum(os.stat(name).st_blocks * 512 for name in restored)
            if check:
                run["same"] = len(restored) == 1 and same(restored[0], image)
        remove(target)
        return run

    def copy(self, row, image, archive):
        target = os.path.join(self.work, "copied")
        remove(target)
        os.mkdir(target)
        self.ready(archive)
        run = self.time(self.fill(row.command, image, archive, target))
        if run["code"] == 0:
            (copied,) = files_in(target)
            run["size"], run["same"] = os.path.getsize(copied), same(copied, archive)
        remove(target)
        return run

    def verify(self, row, image, archive):
        self.ready(archive)
        run = self.time(self.fill(row.command, image, archive))
        run["size"] = sum(os.path.getsize(name) for name in files_in(archive))
        return run

    def usable(self, table, image, all_tools=False):
        """The rows whose tools are here, and whose output fits; names the others."""
        selected = []
        for row in table:
            missing = [name for name in row.needs if name != "amistore" and not shutil.which(name)]
            reason = "not installed: " + ", ".join(missing) if missing else None
            if not reason and not row.sparse and os.path.getsize(image) > shutil.disk_usage(self.work).free // 2:
                reason = "this version restores holes as zeros, which would not fit on the disk"
            if self.options.tools and not all_tools and not row.name.startswith("amistore -1") and not any(part in row.name for part in self.options.tools):
                continue
            if reason:
                line = "%s is skipped for %s: %s" % (row.name, os.path.basename(image), reason)
                if line not in self.skipped:
                    self.skipped.append(line)
                    log(line)
            else:
                selected.append(row)
        return selected

    def image(self, image, operations, tables):
        """All operations for one image. The archives of the last pack are restored and verified."""
        name = os.path.basename(image).removesuffix(".raw")
        all_packers = {row.name: row for row in tables["pack"]}
        packed = {}
        for operation in operations:
            table = self.usable(tables[operation], image)
            # Checking what was packed is part of packing, if nothing is restored afterwards.
            check_packed = operation == "pack" and "restore" not in operations
            wanted = {row.of: all_packers[row.of] for row in table if row.of and row.of not in packed}
            for row in wanted.values():
                log("%s: packing with %s, untimed" % (name, row.name))
                run = self.pack(row, image)
                packed[row.name] = run["code"] == 0
                if run["code"]:
                    log("  failed: " + self.complaint())
            for number in range(self.options.rounds):
                # Each round begins with another tool, so that none is always the first or always
                # behind the same one.
                turn = number % max(len(table), 1)
                for row in table[turn:] + table[:turn]:
                    if row.of and not packed.get(row.of):
                        continue
                    if operation == "pack":
                        run = self.pack(row, image)
                        packed[row.name] = run["code"] == 0
                    else:
                        archive = os.path.join(self.work, all_packers[row.of].archive)
                        check = (name, operation, row.name) not in self.checks
                        if operation == "restore":
                            run = self.restore(row, image, archive, check)
                        else:
                            run = (self.copy if operation == "copy" else self.verify)(row, image, archive)
                    if run["code"]:
                        run["error"] = self.complaint()
                    if "same" in run:
                        self.checks[name, operation, row.name] = run["same"]
                    self.runs.append({"image": name, "operation": operation, "tool": row.name, "round": number, **run})
                    outcome = run.get("error") and "failed: " + run["error"] or "%.2f s, %.2f s CPU" % (run["wall"], run["cpu"])
                    if "same" in run:
                        outcome += ", its bytes " + ("identical" if run["same"] else "DIFFER")
                    log("%s %s, round %d, %s: %s" % (name, operation, number + 1, row.name, outcome))
            if check_packed:
                first = {}
                for row in self.usable(tables["restore"], image, all_tools=True):
                    if packed.get(row.of):
                        first.setdefault(row.of, row)
                for of, row in first.items():
                    run = self.restore(row, image, os.path.join(self.work, all_packers[of].archive), True)
                    self.checks[name, operation, of] = run.get("same", False)
                    log("%s: what %s packed is restored %s" % (name, of, "identical" if run.get("same") else "DIFFERENTLY " + self.complaint()))
            print(self.table(name, operation), flush=True)
        for row in all_packers.values():
            remove(os.path.join(self.work, row.archive))

    def summary(self, name, operation):
        """Medians of each tool, and the medians of the ratios of `amistore -1` to it."""
        runs = [run for run in self.runs if (run["image"], run["operation"]) == (name, operation)]
        base = {run["round"]: run for run in runs if run["tool"] == "amistore -1" and not run["code"]}
        lines = []
        for tool in dict.fromkeys(run["tool"] for run in runs):
            mine = [run for run in runs if run["tool"] == tool]
            good = [run for run in mine if not run["code"]]
            line = {"image": name, "operation": operation, "tool": tool, "runs": len(good), "same": self.checks.get((name, operation, tool))}
            if good:
                for key in ("wall", "cpu", "peak", "size", "others"):
                    line[key] = statistics.median(run[key] for run in good)
                line["wall_spread"] = [min(run["wall"] for run in good), max(run["wall"] for run in good)]
                for key in ("wall", "cpu"):
                    ratios = [base[run["round"]][key] / max(run[key], 1e-3) for run in good if run["round"] in base]
                    line[key + "_ratio"] = statistics.median(ratios) if ratios else None
            lines.append(line)
        return lines

    def table(self, name, operation):
        # A child starts with the peak of the process that made it, so nothing smaller than Python
        # can be seen.
        floor = self.time(":")["peak"] * 1.05
        size = "on disk MiB" if operation == "restore" else "archive MiB"
        text = ["", "### %s: %s" % (name, operation), "", "| tool | wall s | CPU s | peak MiB | %s | wall, amistore -1 / tool | CPU, amistore -1 / tool |" % size, "|---|--:|--:|--:|--:|--:|--:|"]
        ratio = lambda value: "" if value is None else "%.2f" % value
        for line in self.summary(name, operation):
            if not line["runs"]:
                text.append("| %s | failed | | | | | |" % line["tool"].replace("|", "\\|"))
                continue
            peak = "< %.0f" % (floor / MIB) if line["peak"] <= floor else "%.0f" % (line["peak"] / MIB)
            tool = line["tool"].replace("|", "\\|") + (" **(restored bytes differ)**" if line["same"] is False else "")
            text.append("| %s | %.2f | %.2f | %s | %.0f | %s | %s |" % (tool, line["wall"], line["cpu"], peak, line["size"] / MIB, ratio(line["wall_ratio"]), ratio(line["cpu_ratio"])))
        runs = [run for run in self.runs if (run["image"], run["operation"]) == (name, operation)]
        others = max((run["others"] for run in runs), default=0)
        text += ["", "Rounds: %d. Other processes used at most %.0f %% of the machine during a run." % (self.options.rounds, others * 100)]
        return "\n".join(text)


# A row of amistore and the row of another tool that does the same.
PAIRS = (
    ("pack", "amistore -1", "bsdtar zstd -1"),
    ("pack", "amistore -1, durable", "bsdtar zstd -1; sync"),
    ("restore", "amistore -1", "bsdtar zstd -1"),
    ("restore", "amistore -1, durable", "bsdtar zstd -1; sync"),
    ("scrub", "amistore -1", "sha256sum"),
    ("scrub", "amistore -1", "openssl dgst -sha256"),
    ("copy", "amistore -1", "cp"),
    ("copy", "amistore -1, durable", "cp; sync"),
)


def ratios(files):
    """A table of the ratios of PAIRS, wall / CPU, each image a column."""
    runs = {}
    for name in files:
        with open(name) as file:
            for run in json.load(file)["runs"]:
                if not run["code"]:
                    runs.setdefault((run["operation"], run["image"]), {}).setdefault(run["tool"], {})[run["round"]] = run
    names = list(dict.fromkeys(image for _, image in runs))
    lines = ["| amistore / other, wall and CPU | %s |" % " | ".join("`%s`" % name for name in names), "|---|" + "--:|" * len(names)]
    for operation, ours, theirs in PAIRS:
        cells = []
        for name in names:
            tools = runs.get((operation, name), {})
            one, other = tools.get(ours, {}), tools.get(theirs, {})
            median = lambda key: statistics.median(one[number][key] / max(other[number][key], 1e-3) for number in one if number in other)
            cells.append("%.2f, %.2f" % (median("wall"), median("cpu")) if one.keys() & other.keys() else "")
        kind = ", durable" if "durable" in ours else ""
        lines.append("| %s%s / %s | %s |" % (operation, kind, theirs, " | ".join(cells)))
    return "\n".join(lines)


def describe(facts):
    lines = [
        "%s; %s, %d cores, %s MiB, Linux %s, %s; %d threads, page cache %s; load at the start %.1f."
        % (facts["date"], facts["cpu"], facts["cores"], facts["memory_mib"], facts["kernel"], facts["file_system"], facts["threads"], facts["cache"], facts["load"]),
        "",
    ]
    return "\n".join(lines + ["* %s: %s" % (name, version or "not installed") for name, version in facts["tools"].items()])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="os,vol,sparse,big", help="names of images in DATA, or paths of raw files")
    parser.add_argument("--data", default="bench-work/data", help="where images.py put the images")
    parser.add_argument("--work", default="bench-work", metavar="DIR", help="where archives and restored images go, and are removed again")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--only", choices=OPERATIONS)
    parser.add_argument("--tools", type=lambda text: text.split(","), metavar="NAME,...", help="only tools whose name contains one of these, and amistore -1")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="for each tool that has threads")
    parser.add_argument("--cold", action="store_true", help="drop the input from the page cache before each run")
    parser.add_argument("--amistore", default="target/release/amistore", metavar="PATH")
    parser.add_argument("--json", metavar="OUT", help="write machine, medians and all runs there")
    parser.add_argument("--ratios", nargs="+", metavar="JSON", help="print a short table of earlier runs, and do nothing else")
    options = parser.parse_args()
    if options.ratios:
        return options
    options.work = os.path.realpath(options.work)
    found = os.path.abspath(options.amistore) if os.path.exists(options.amistore) else shutil.which(options.amistore)
    if not found:
        parser.error("no amistore at %s: build it with cargo build --release, or say --amistore PATH" % options.amistore)
    options.amistore = found
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads have to be at least 1")
    paths = []
    for word in options.images.split(","):
        path = word if os.path.isfile(word) else os.path.join(options.data, word + ".raw")
        if not os.path.isfile(path):
            parser.error("no image %s; images.py makes them" % path)
        paths.append(os.path.realpath(path))
    options.images = paths
    return options


def main():
    options = arguments()
    if options.ratios:
        print(ratios(options.ratios))
        return 0
    os.makedirs(options.work, exist_ok=True)
    facts = machine(options)
    print(describe(facts), flush=True)
    # Older versions of restic write out the holes.
    help_text = subprocess.run(["restic", "restore", "--help"], capture_output=True, text=True).stdout if shutil.which("restic") else ""
    restic_sparse = re.search(r"--sparse\b", help_text) is not None
    operations = [options.only] if options.only else list(OPERATIONS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="compare-", dir=options.work) as work:
        bench = Bench(options, work)
        for image in options.images:
            bench.image(image, operations, rows(options, restic_sparse))
            if options.json:
                names = [os.path.basename(path).removesuffix(".raw") for path in options.images]
                medians = [line for name in names for operation in operations for line in bench.summary(name, operation)]
                with open(options.json, "w") as file:
                    json.dump({"machine": facts, "skipped": bench.skipped, "medians": medians, "runs": bench.runs}, file, indent=1)
    if bench.skipped:
        print("\n" + "\n".join("* " + line for line in bench.skipped))
    differ = ["%s %s %s" % key for key, value in bench.checks.items() if not value]
    failed = sorted({"%(image)s %(operation)s %(tool)s" % run for run in bench.runs if run["code"]})
    for line in differ:
        log("RESTORED BYTES DIFFER: " + line)
    for line in failed:
        log("failed: " + line)
    return 1 if differ or failed else 0


if __name__ == "__main__":
    sys.exit(main())
