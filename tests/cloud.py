"""A mock of AWS on loopback, and the walk through the README's commands on it."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

REGION = "eu-central-1"
START_SECONDS = 60

# Programs that a mock cloud cannot answer: their arguments are noted, and they say yes.
STAND_INS = ("aws", "gh", "kubectl")
STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >> "$COMMANDS"
[ "${0##*/} $*" != "kubectl config current-context" ] || echo mock
"""


@contextmanager
def mock_cloud(log: Path) -> Iterator[str]:
    """Start the mock; yield its address; stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("mock_cloud.py")
    with log.open("w") as stream:
        server = subprocess.Popen([sys.executable, script, str(port)], stderr=stream)
    try:
        until = time.monotonic() + START_SECONDS
        while not answers(port):
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def credentials(endpoint: str) -> dict[str, str]:
    """Environment of programs that take the mock for AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Account:
    """The mock's account, as boto3 reads it."""

    def __init__(self, endpoint: str):
        self.endpoint = endpoint

    def client(self, service: str):
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


def stand_ins(folder: Path) -> dict[str, str]:
    """Make the stand-ins; return the environment that finds them first."""
    folder.mkdir()
    for name in STAND_INS:
        program = folder / name
        program.write_text(STAND_IN)
        program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "COMMANDS": str(folder / "commands")}


def commands(readme: Path, *sections: str) -> str:
    """Return the shell commands in some sections of a README, as one script."""
    parts = re.split(r"^## (.*)\n", readme.read_text(), flags=re.MULTILINE)[1:]
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    blocks = [
        block
        for section in sections
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", texts[section], re.S | re.M)
    ]
    return "set -eu\n" + "".join(blocks)
