"""What a run that was killed left on this machine, tried in networks that nobody else sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="networks of its own need Linux and root"
)
BEFORE = "mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip netns add mts-node-2 && "
USED = """nsenter --net=/run/netns/mts-node-2 sleep 60 &
until ip netns pids mts-node-2 | grep -q .; do sleep 0.1; done; """
MAKE = "import network\nwith network.bridge(), network.node(1), network.node(2): print('made')"


def make_networks(left: str) -> "subprocess.CompletedProcess[str]":
    """Make the networks of two nodes where a run left something."""
    alone = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run(
        ["unshare", *alone, "sh", "-c", left + 'exec "$@"', "sh", sys.executable, "-c", MAKE],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
    )


def test_networks_of_a_killed_run_are_taken_away() -> None:
    result = make_networks(BEFORE)
    assert result.stdout == "made\n", result.stderr


def test_networks_in_use_are_left_alone() -> None:
    result = make_networks(BEFORE + USED)
    assert "another cluster is at work on this machine" in result.stderr
    assert not result.stdout
