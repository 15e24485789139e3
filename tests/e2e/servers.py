"""S3 servers of others, on this machine, for as long as a test needs them.

    with servers.start("garage") as server:
        server.make_bucket("archives")
        server.client().list_objects_v2(Bucket="archives")      # boto3
        subprocess.run([...], env={**os.environ, **server.environment()})

* moto: PyPI `moto[server,s3,s3crc32c]`. It installs everywhere; it is forgiving, and answers some
  requests with wrong XML roots.
* garage: a distributed store that is used in production. $GARAGE, or `garage` on PATH: `cargo
  install garage --version 2.5.0`.
* localstack: PyPI `localstack`, in the interpreter that $LOCALSTACK_PYTHON names. Optional: it
  needs another Python than most systems have.

Differences from S3 stand in the `quirks` of a server, so that a test can name what it leaves out.
Servers listen on 127.0.0.1 only, keep everything in a temporary directory, and end with the block,
however that ends.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import boto3
import botocore.config

START_SECONDS = 90

# Features that a server lacks or has in another form.
NO_TAGS = "keeps no tags"
NO_SIGNATURES = "does not check signatures"
NO_CONDITIONS = "ignores If-None-Match"


@dataclasses.dataclass
class Server:
    name: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str
    quirks: frozenset
    process: subprocess.Popen

    @property
    def port(self):
        return int(self.endpoint.rsplit(":", 1)[1])

    def environment(self, endpoint=None):
        """The variables with which AWS tools reach it, and no other server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30, retries={"max_attempts": 3}
            ),
        )

    def make_bucket(self, bucket):
        self.client().create_bucket(Bucket=bucket)

    @contextlib.contextmanager
    def frozen(self):
        """Stopped, like a machine that hangs: connections stay open, without answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def free_ports(count):
    """Free ports. All stay bound until all are chosen, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextlib.contextmanager
def running(name, command, directory, port, **variables):
    """A process, from the first answer of its port on. If it does not start, its last output is
    shown.
    """
    log_path = os.path.join(directory, "log")
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **variables}
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log_path, errors="replace") as log:
                    raise RuntimeError(f"{name} does not start:\n" + log.read()[-3000:])
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def moto():
    [port] = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryDirectory(prefix="moto-") as directory:
        # Without it the first call reads a list of thousands of images.
        with running("moto", command, directory, port, MOTO_EC2_LOAD_DEFAULT_AMIS="false") as process:
            quirks = frozenset({NO_SIGNATURES})
            yield Server("moto", f"http://127.0.0.1:{port}", "us-east-1", "testing", "testing", quirks, process)


GARAGE_CONFIG = """\
metadata_dir = "{directory}/meta"
data_dir = "{directory}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"

[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:{port}"
"""


@contextlib.contextmanager
def garage():
    program = os.environ.get("GARAGE") or shutil.which("garage")
    if not program:
        raise FileNotFoundError("no garage: set $GARAGE, or cargo install garage --version 2.5.0")
    port, rpc = free_ports(2)
    key, secret = "GK" + secrets.token_hex(12), secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="garage-") as directory:
        config = os.path.join(directory, "garage.toml")
        with open(os.open(config, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(GARAGE_CONFIG.format(directory=directory, port=port, rpc=rpc, secret=secrets.token_hex(32)))
        command = [program, "-c", config, "server", "--single-node", "--default-access-key"]
        keys = {"GARAGE_DEFAULT_ACCESS_KEY": key, "GARAGE_DEFAULT_SECRET_KEY": secret}
        with running("garage", command, directory, port, RUST_LOG="garage=warn", **keys) as process:
            # The port answers before the layout of the only node is in force.
            wait_for(lambda: subprocess.run([program, "-c", config, "health"], capture_output=True, timeout=30).returncode == 0)
            allow = [program, "-c", config, "key", "allow", "--create-bucket", key]
            subprocess.run(allow, check=True, capture_output=True, timeout=30)
            quirks = frozenset({NO_TAGS, NO_CONDITIONS})
            yield Server("garage", f"http://127.0.0.1:{port}", "garage", key, secret, quirks, process)


@contextlib.contextmanager
def localstack():
    python = os.environ.get("LOCALSTACK_PYTHON")
    if not python:
        raise FileNotFoundError("no localstack: $LOCALSTACK_PYTHON does not say which Python has it")
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="localstack-") as directory:
        variables = {
            "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "GATEWAY_SERVER": "hypercorn",
            "USE_SSL": "0",
            "LOCALSTACK_ACTIVATE_PRO": "0",
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "EAGER_SERVICE_LOADING": "0",
            "FILESYSTEM_ROOT": directory,
        }
        command = [python, "-m", "localstack.runtime.main"]
        with running("localstack", command, directory, port, **variables) as process:
            server = Server("localstack", f"http://127.0.0.1:{port}", "us-east-1", "test", "test", frozenset({NO_SIGNATURES}), process)
            wait_for(lambda: server.client().list_buckets())
            yield server


STARTERS = {"moto": moto, "garage": garage, "localstack": localstack}


def start(name):
    """The server of this name; FileNotFoundError if its program is not here."""
    return STARTERS[name]()


def at_hand():
    """Names of the servers whose programs are here."""
    found = ["moto"]
    if os.environ.get("GARAGE") or shutil.which("garage"):
        found.append("garage")
    if os.environ.get("LOCALSTACK_PYTHON"):
        found.append("localstack")
    return found


def wait_for(ready, seconds=START_SECONDS):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Exception):
            if ready():
                return
        if time.monotonic() > deadline:
            raise TimeoutError("a server is not ready")
        time.sleep(0.1)


if __name__ == "__main__":
    # Starts each of them and says where it is: `python3 servers.py`.
    for name in at_hand():
        began = time.monotonic()
        with start(name) as server:
            server.make_bucket("archives")
            buckets = [bucket["Name"] for bucket in server.client().list_buckets()["Buckets"]]
            shown = {"server": name, "endpoint": server.endpoint, "buckets": buckets, "quirks": sorted(server.quirks)}
            print(json.dumps({**shown, "seconds": round(time.monotonic() - began, 1)}))
