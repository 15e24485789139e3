"""Commands for the fault campaign: how they run, the faults that can befall them, and the check of
what a run left. `faults` has the campaign, `fault_services` the commands that use S3 and EC2.
"""

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import program
from program import CORRUPT, DENIED, EXISTS, IO, OK, assert_same_file

INTERRUPTED = 130
KILLED, TERMINATED = 128 + signal.SIGKILL, 128 + signal.SIGTERM
SECONDS = 30

# The errors that a file system gives, by the name of the call.
ERRORS = {
    "open": ["EIO", "EMFILE", "ENOSPC"], "openat": ["EIO", "EMFILE", "ENOSPC"],
    "read": ["EIO", "EINTR"], "pread64": ["EIO", "EINTR"],
    "write": ["EIO", "ENOSPC", "EDQUOT", "EINTR"], "pwrite64": ["EIO", "ENOSPC", "EDQUOT", "EINTR"],
    "fsync": ["EIO", "ENOSPC", "EINTR"], "fdatasync": ["EIO", "EINTR"],
    "rename": ["EIO", "ENOSPC"], "renameat": ["EIO"], "renameat2": ["EIO", "ENOSPC", "EINVAL"],
    "link": ["EIO"], "linkat": ["EIO"], "unlink": ["EIO"], "unlinkat": ["EIO"], "rmdir": ["EIO"],
    "mkdir": ["EIO", "ENOSPC"], "mkdirat": ["EIO", "ENOSPC"], "ftruncate": ["EIO", "ENOSPC"],
    "stat": ["EIO"], "fstat": ["EIO"], "lstat": ["EIO"], "newfstatat": ["EIO"], "statx": ["EIO"],
    "flock": ["EIO", "EINTR", "ENOLCK"], "ioctl": ["EIO", "EOPNOTSUPP"], "lseek": ["EIO"],
    "getdents64": ["EIO"], "fcntl": ["EIO"], "clone3": ["EAGAIN"], "clone": ["EAGAIN"],
}
STARTS_THREAD = ("clone3", "clone")
# Calls on sockets: errors that a network gives.
NETWORK = {
    "socket": ["EMFILE"], "connect": ["ECONNREFUSED", "ETIMEDOUT", "EINTR"], "sendto": ["ECONNRESET", "EPIPE"],
    "sendmsg": ["ECONNRESET"], "recvfrom": ["ECONNRESET", "EIO"], "recvmsg": ["ECONNRESET"], "writev": ["ECONNRESET"],
    "setsockopt": ["EINVAL"], "getsockopt": ["EINVAL"],
}
# A name that is removed when a run fails stays if just that call fails.
REMOVES = ("unlink", "unlinkat", "rmdir")
CALL = re.compile(r"^\s*(\d+)\s+(?:\d+\.\d+ )?(\w+)\((.*)")
Point = collections.namedtuple("Point", "verb call number fault")


class Verb:
    """A command, its results under final names, and the check of what a run left. {run} in an
    argument stands for a name that no other run has.
    """

    # The errors of calls that concern the network, if the command uses one.
    network = {}
    # Whether an error may leave partial files to the same command, which it then names.
    continues = False

    def __init__(self, name, arguments, results, stdin=None):
        self.name, self.arguments, self.results, self.stdin = name, arguments, results, stdin

    def points(self, rig):
        """All faults of this verb: the calls of an undisturbed run, as each thread counts them."""
        directory = rig.sandbox()
        log = directory / "trace"
        errors = {**ERRORS, **self.network}
        code, _, err = self.run(rig, directory, ["strace", "-f", "-y", "-o", str(log), "-e", "trace=" + ",".join("?" + call for call in errors)])
        assert code == OK, f"{self.name} does not end well under strace: {code}\n{err}"
        counts, found = collections.Counter(), set()
        for line in log.read_text(errors="replace").splitlines():
            matched = CALL.match(line)
            if matched is None:
                continue
            thread, call, rest = matched.groups()
            counts[thread, call] += 1
            if call in ERRORS and (str(directory) in rest or call in STARTS_THREAD):
                found.add((call, counts[thread, call]))
            if call in self.network and ("<socket:" in rest or "<TCP" in rest or "AF_INET" in rest):
                found.add((call, counts[thread, call]))
        shutil.rmtree(directory)
        return [Point(self, call, number, fault) for call, number in sorted(found) for fault in [*errors[call], "KILL", "TERM"]]

    def run(self, rig, directory, prefix=()):
        stdin = open(rig.directory / self.stdin, "rb") if self.stdin else subprocess.DEVNULL
        try:
            done = subprocess.run(
                [*prefix, program.AMISTORE, "--threads", "2", *self.given(directory)],
                cwd=directory, env=rig.variables(directory), stdin=stdin, capture_output=True, timeout=SECONDS,
            )
        finally:
            if self.stdin:
                stdin.close()
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return code, done.stdout, done.stderr.decode(errors="replace")

    def given(self, directory):
        return [argument.replace("{run}", directory.name) for argument in self.arguments]

    def injured(self, rig, directory, point):
        how = f"signal={point.fault}" if point.fault in ("KILL", "TERM") else f"error={point.fault}"
        inject = f"inject={point.call}:{how}:when={point.number}"
        # Its own lines go to a file: stderr belongs to the program.
        log = directory / "strace"
        prefix = ["strace", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={point.call}", "-e", inject]
        code, _, err = self.run(rig, directory, prefix)
        injected = [line for line in log.read_text(errors="replace").splitlines() if "(INJECTED)" in line]
        log.unlink()
        # Threads do not make the same calls in each run. The wake-up of a thread (eventfd) does not
        # fail in any system; a run in which it was met says nothing.
        met_wakeup = any("anon_inode" in line for line in injected)
        if met_wakeup or "error while loading shared libraries" in err or code == 127:
            return None, err
        return code, err

    def check(self, rig, directory, point):
        code, err = self.injured(rig, directory, point)
        if code is None:
            return "elsewhere"
        what = f"{point.verb.name}: {point.call} {point.number} {point.fault}: exit code {code}\n{err}"
        # Two threads may make the call, and a second SIGTERM ends the process at once.
        killed = code == KILLED or point.fault == "TERM" and code == INTERRUPTED and not err
        assert (code == KILLED) == (point.fault == "KILL" and code != OK), what
        assert code in expected(point), what
        assert "panicked" not in err and "please report" not in err, what
        if code not in (OK, TERMINATED) and not killed:
            assert err.count("error: ") == 1, f"not one error in {what}"
        self.assert_whole_or_nothing(rig, directory, killed, what)
        continues = self.continues and "continue with" in err
        if code not in (OK, TERMINATED) and not killed and not continues and point.call not in REMOVES:
            assert not left(directory), f"{left(directory)} stay after {what}"
        again, _, err = self.run(rig, directory)
        # The process may have been stopped, or its last sync may have failed, behind the last name.
        complete = all((directory / name).exists() for name, _ in self.results)
        assert again == OK or again == EXISTS and complete, f"then {again}: {err}\nafter {what}"
        for name, reference in self.results:
            same(directory / name, rig.directory / reference, what)
        self.assert_complete(rig, directory, what)
        assert not left(directory), f"{left(directory)} stay after the next run, after {what}"
        cleaned = subprocess.run([program.AMISTORE, "clean"], env=rig.variables(directory), cwd=directory, capture_output=True, timeout=SECONDS)
        assert cleaned.returncode == OK and b"nothing was left" in cleaned.stdout, f"{cleaned} after {what}"
        return "killed" if killed else "tolerated" if code == OK else "refused"

    def assert_complete(self, rig, directory, what):
        """Further checks of the result of the next run."""

    def assert_whole_or_nothing(self, rig, directory, killed, what):
        for name, reference in self.results:
            path = directory / name
            if path.is_dir():
                if (path / "image.json").exists():
                    same(path, rig.directory / reference, what)
                elif not killed:
                    assert not list(path.glob("*.raw")), f"a volume without its image.json after {what}"
                elif list(path.glob("[!.]*")):
                    assert (path / ".image.json.partial").stat().st_size > 0, f"a named volume without a record after {what}"
            elif path.exists():
                same(path, rig.directory / reference, what)


def expected(point):
    if point.fault == "KILL":
        return (OK, KILLED)
    if point.fault == "TERM":
        # A process that is about to end completes its work; one that has just started has no handler.
        return (OK, INTERRUPTED, TERMINATED)
    if point.fault == "EINTR" and point.call not in ("fcntl", *NETWORK):
        return (OK,)
    return (OK, IO)


def same(one, other, what):
    try:
        if one.is_dir():
            names = sorted(name for name in os.listdir(one) if not name.startswith("."))
            assert names == sorted(os.listdir(other)), f"{names}"
            for name in names:
                assert_same_file(one / name, other / name)
        else:
            assert_same_file(one, other)
    except AssertionError as error:
        raise AssertionError(f"WRONG BYTES: {error} after {what}") from error


def left(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.name.endswith((".partial", ".new")))


class Serve(Verb):
    """A server that starts, answers, and is stopped."""

    def __init__(self):
        super().__init__("serve", [], [])

    def run(self, rig, directory, prefix=()):
        process = subprocess.Popen(
            [*prefix, program.AMISTORE, "--output", "json", "serve", "--listen", "127.0.0.1:0", "--account-id", "123456789012", "--max-attempts", "1"],
            cwd=directory, env=rig.variables(directory), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        try:
            line = process.stdout.readline()
            if line:
                said = json.loads(line)
                self.answers = [self.ask(said["Url"], action) for action in ("DescribeStoreImageTasks", "CreateStoreImageTask", "DescribeStoreImageTasks")]
                try:
                    os.kill(said["Pid"], signal.SIGTERM)
                except ProcessLookupError:
                    pass
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return code, out, err.decode(errors="replace")

    def ask(self, url, action):
        form = {"Action": action, "Version": "2016-11-15"}
        if action.startswith("Create"):
            form |= {"ImageId": "ami-0123456789abcdef0", "Bucket": "bucket"}
        try:
            with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=SECONDS) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def check(self, rig, directory, point):
        code, err = self.injured(rig, directory, point)
        if code is None:
            return "elsewhere"
        what = f"serve: {point.call} {point.number} {point.fault}: exit code {code}\n{err}"
        killed = code == KILLED
        assert killed == (point.fault == "KILL" and code != OK), what
        # Of a file that it cannot open for writing SQLite says that it is read-only.
        assert code in (*expected(point), IO, CORRUPT, DENIED), what
        assert "panicked" not in err, what
        outcome = "killed" if killed else "tolerated" if code == OK else "refused"
        code, _, err = self.run(rig, directory)
        assert code == OK and self.answers[0] == 200 and self.answers[2] == 200, f"the next server: {code} {self.answers} {err}\nafter {what}"
        tasks = subprocess.run([program.AMISTORE, "tasks"], env=rig.variables(directory), capture_output=True, timeout=SECONDS)
        assert tasks.returncode == OK, f"{tasks} after {what}"
        return outcome
