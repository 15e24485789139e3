"""Many clients poll the endpoint for the state of their tasks, while it works on four of them.

    python3 serve_load.py                            # 200 clients for 20 seconds
    python3 serve_load.py --seconds 5 --clients 50   # as CI does it

Each client has a connection of its own, which it keeps, and asks DescribeStoreImageTasks again
`--pause` seconds after the answer. The four tasks are slow enough to outlast them. Latency is that
of the whole exchange as one Python process sees it, and the machine is shared with the server, its
tasks and their AWS, so it is an upper bound. Prints one object of JSON and one line; any answer but
a list with the four tasks is a failure. Signatures are not needed on this machine.
"""

import argparse
import asyncio
import json
import pathlib
import tempfile
import time

import check_aws
from endpoint import image, serving

BUCKET, TASKS = "archives", 4
FORM = b"Action=DescribeStoreImageTasks&Version=2016-11-15"
# Seconds after which a missing answer counts as an error.
ANSWER_TIMEOUT = 30


class Client:
    """One persistent connection."""

    def __init__(self, port):
        self.port, self.latencies, self.errors, self.connections = port, [], [], 0
        head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/x-www-form-urlencoded; charset=utf-8\r\nContent-Length: {len(FORM)}\r\n\r\n"
        self.request = head.encode() + FORM

    async def poll(self, until, pause, first):
        # Not all in the same instant.
        await asyncio.sleep(first)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections += 1
        try:
            while time.monotonic() < until:
                began = time.monotonic()
                try:
                    status, body = await asyncio.wait_for(self.ask(reader, writer), ANSWER_TIMEOUT)
                except (OSError, EOFError, TimeoutError, ValueError) as error:
                    self.errors.append(repr(error))
                    return
                self.latencies.append(time.monotonic() - began)
                if status != 200 or body.count(b"<storeTaskState>InProgress</storeTaskState>") != TASKS:
                    self.errors.append(f"{status} {body.decode(errors='replace')}")
                await asyncio.sleep(pause)
        finally:
            writer.close()

    async def ask(self, reader, writer):
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        [length] = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
        return status, await reader.readexactly(length)


async def polled(port, clients, seconds, pause):
    until = time.monotonic() + seconds
    made = [Client(port) for _ in range(clients)]
    await asyncio.gather(*(client.poll(until, pause, pause * number / clients) for number, client in enumerate(made)))
    return made


def share(ordered, part):
    return round(1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 2)


def measured(directory, clients, seconds, pause):
    with check_aws.running("--s3", "--server", "us-east-1") as [aws]:
        aws.order("/bucket", {"name": BUCKET})
        # 1 MiB/s for all of them: none of the four can end before the clients do.
        images = [image(aws, f"load {number}", 256, number)[0] for number in range(TASKS)]
        with serving(aws.environment, directory / "state", "--max-tasks", TASKS, "--limit-rate", "1MiB", "--memory", "512MiB", "--max-connections", clients + 16) as server:
            ec2 = server.client()
            for id in images:
                ec2.create_store_image_task(ImageId=id, Bucket=BUCKET)
            idle = server.peak_memory
            began = time.monotonic()
            made = asyncio.run(polled(server.port, clients, seconds, pause))
            took = time.monotonic() - began
            latencies = sorted(latency for client in made for latency in client.latencies)
            errors = [error for client in made for error in client.errors]
            return {
                "clients": clients, "seconds": round(took, 1), "pause_ms": round(1000 * pause), "tasks": TASKS,
                "requests": len(latencies), "requests_per_second": round(len(latencies) / took),
                "p50_ms": share(latencies, 0.5), "p99_ms": share(latencies, 0.99), "max_ms": share(latencies, 1),
                "errors": len(errors), "first_errors": errors[:3],
                "peak_memory_before_mib": round(idle / (1 << 20), 1), "peak_memory_mib": round(server.peak_memory / (1 << 20), 1),
                "blocks_read": aws.order("/calls")["GetSnapshotBlock"]["calls"],
            }


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--clients", type=int, default=200)
    options.add_argument("--pause", type=float, default=0.2)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-load-") as directory:
        found = measured(pathlib.Path(directory), chosen.clients, chosen.seconds, chosen.pause)
    print(json.dumps(found))
    assert found["requests"] >= chosen.clients and not found["errors"], found["first_errors"]
    print("serve load: {clients} clients, {requests_per_second} requests/s, p50 {p50_ms} ms, p99 {p99_ms} ms, at most {max_ms} ms, {peak_memory_mib} MiB, no errors".format(**found))


if __name__ == "__main__":
    main()
