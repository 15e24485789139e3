"""The status page of a server that works, in Chromium.

    PLAYWRIGHT=/somewhere/node_modules/playwright-core python3 serve_page.py

One task moves slowly, one waits, one is done, and one failed, with markup in the name of its place.
What is looked at is in `serve_page.mjs`. $CHROMIUM is the browser (default chromium), $SCREENSHOTS
a directory that keeps the pictures.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import check_aws
import servers
from endpoint import image, serving

BUCKET = "archives"
MARKUP = "<b>bold</b><img src=x onerror=alert(1)>"


def main():
    began = time.monotonic()
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    assert chromium, "there is no chromium"
    with tempfile.TemporaryDirectory(prefix="serve-page-") as name, check_aws.running("--s3", "--server", "us-east-1") as [aws]:
        directory = pathlib.Path(name)
        aws.order("/bucket", {"name": BUCKET})
        (done, _), (broken, snapshot), (slow, _), (waits, _) = [image(aws, f"{what} image", blocks, seed) for seed, (what, blocks) in enumerate((("done", 1), ("broken", 20), ("slow", 1000), ("waiting", 2)))]
        with serving(aws.environment, directory / "state", "--max-tasks", "1", "--limit-rate", "6MiB", "--max-attempts", "2") as server:
            ec2 = server.client()
            state = lambda id: ec2.describe_store_image_tasks(ImageIds=[id])["StoreImageTaskResults"][0]["StoreTaskState"]
            ec2.create_store_image_task(ImageId=done, Bucket=BUCKET)
            servers.wait_for(lambda: state(done) == "Completed", 30)
            aws.order("/fault", {"operation": "GetSnapshotBlock", "kind": "FlipBit", "snapshot": snapshot, "every": 1})
            ec2.create_store_image_task(ImageId=broken, Bucket=f"{BUCKET}/{MARKUP}")
            servers.wait_for(lambda: state(broken) == "Failed", 60)
            aws.order("/fault", method="DELETE")
            for id in (slow, waits):
                ec2.create_store_image_task(ImageId=id, Bucket=BUCKET)
            servers.wait_for(lambda: state(slow) == "InProgress", 10)
            expected = {"slow": slow, "ids": [done, broken, slow, waits], "failed": broken, "text": MARKUP, "facts": ["slow image", "1.0 GiB"]}
            pictures = os.environ.get("SCREENSHOTS", name)
            script = pathlib.Path(__file__).with_suffix(".mjs")
            subprocess.run(["node", script, server.url, chromium, pictures], input=json.dumps(expected), text=True, check=True, timeout=150)
            assert state(slow) == "InProgress", "it was not slow enough"
    print(f"status page: all good, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
