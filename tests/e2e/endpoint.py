"""`amistore serve` for tests: a process with an address, and clients of AWS that find it by their
environment.

The program is $AMISTORE, as in `program`. A server is ended with its standard streams; nothing that
others started is touched.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import unittest.mock

import boto3

import program

START_SECONDS = 30
# The drain timeout is 10 seconds for clients; tasks note their progress.
STOP_SECONDS = 30

# Held while the environment of the process is another.
ENVIRONMENT_LOCK = threading.Lock()


class Endpoint:
    """One server. Its AWS is that of `environment`; the AWS of its clients is the server itself."""

    def __init__(self, environment, state, *arguments, listen="127.0.0.1:0"):
        self.environment, self.state, self.log = environment, state, tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            program.command("serve", "--listen", listen, *arguments),
            env=program.variables(environment, state),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        try:
            self.said = json.loads(self.first_line())
        except BaseException as error:
            self.kill()
            raise AssertionError(f"amistore serve {arguments} does not start: {error}\n{self.errors()}") from error
        self.url, self.port = self.said["Url"], self.said["Port"]

    def first_line(self):
        """The time limit for a server that never reports that it is ready."""
        said = queue.Queue()

        threading.Thread(target=lambda: said.put(self.process.stdout.readline()), daemon=True).start()
        return said.get(timeout=START_SECONDS)

    def errors(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-4000:]

    def variables(self, **changes):
        """The environment of a client, with keys of its own if the test gives some."""
        return {**self.environment, "AWS_ENDPOINT_URL_EC2": self.url, **changes}

    def client(self, service="ec2", config=None, **changes):
        """boto3 as in a script: configured by the environment alone, which is the process's: one
        thread at a time may change it.
        """
        with ENVIRONMENT_LOCK, unittest.mock.patch.dict(os.environ, self.variables(**changes)):
            return boto3.Session().client(service, config=config)

    def kill(self):
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self, how=signal.SIGTERM):
        """Stops it as systemd does, within a time limit. Returns the exit code."""
        self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdout.close()
        self.log.close()

    @property
    def peak_memory(self):
        """Peak resident bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            [line] = [line for line in status if line.startswith("VmHWM:")]
        return int(line.split()[1]) << 10


@contextlib.contextmanager
def serving(environment, state, *arguments, **options):
    """A server until the end of the block. If the block fails, the output of the server is part of
    the failure.
    """
    server = Endpoint(environment, state, *arguments, **options)
    try:
        yield server
    except BaseException as error:
        error.add_note(f"the server said:\n{server.errors()}")
        raise
    finally:
        server.close()


def image(aws, name, blocks, seed, random=100):
    """An image with one volume, of which so many blocks have data, and its snapshot."""
    pattern = {"seed": seed, "random": random, "count": blocks, "step": 2}
    snapshot = aws.order("/snapshot", {"size_gib": 1, "pattern": pattern})["id"]
    return aws.order("/image", {"name": name, "snapshot": snapshot})["id"], snapshot
