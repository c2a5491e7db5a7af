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
START_SECONDS = 300

# Programs that a mock cloud cannot answer: their arguments are noted, and they say yes.
STAND_INS = ("gh", "kubectl")
STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >> "$COMMANDS"
[ "${0##*/} $*" != "kubectl config current-context" ] || echo mock
"""
# AWS's command line, as far as commands go whose names and options are those of AWS's own calls.
AWS = f"""#!{sys.executable}
import json, os, sys
import boto3
with open(os.environ["COMMANDS"], "a") as noted:
    print("aws", *sys.argv[1:], file=noted)
service, operation, *rest = sys.argv[1:]
if (service, operation) == ("eks", "update-kubeconfig"):
    sys.exit()
named, words = {{}}, []
for word in rest:
    if word.startswith("--"):
        named[word] = words = []
    else:
        words.append(word)
named = {{
    name: words if name.endswith("types") else words[0] if words else True
    for name, words in named.items()
}}
client = boto3.client(service, region_name=named.pop("--region", None) or "{REGION}")
named.pop("--output", None)
asked = {{
    "".join(word.title() for word in name[2:].split("-")): value for name, value in named.items()
}}
for old in [name for name in asked if service in ("ecr", "logs")]:
    asked[old[0].lower() + old[1:]] = asked.pop(old)
try:
    answer = getattr(client, operation.replace("-", "_"))(**asked)
except client.exceptions.ClientError as error:
    sys.exit(str(error))
answer.pop("ResponseMetadata")
print(json.dumps(answer, default=str))
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
    for name, text in (*((name, STAND_IN) for name in STAND_INS), ("aws", AWS)):
        program = folder / name
        program.write_text(text)
        program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    # A `python3` that chooses among versions puts a folder before these.
    return {"PATH": path, "COMMANDS": str(folder / "commands"), "PYTHON": sys.executable}


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
