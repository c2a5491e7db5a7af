"""Model images in a real registry: Debian's docker-registry on loopback, read back with skopeo."""

import base64
import json
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from delivery.errors import DeliveryError
from delivery.model.packaging import package, tag_of
from delivery.oci import registry_client
from delivery.oci.image import parse_manifest
from delivery.oci.layout import Layout
from delivery.oci.registry import pull, push
from delivery.oci.registry_client import UnavailableError

TOOLS = ["docker-registry", "skopeo"]
PASSWORDS = "robot:$2b$04$0ivqTK4rcbb1UZeTMPmPeu7z3d/zV3cpXlL3wB6jkGSMTNYntVgRG\n"  # of "pa:ss"
CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/storage}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
SMALL = 4096  # bytes: more than an image's configuration, less than half of its layer
WITH_PASSWORD = "auth: {{htpasswd: {{realm: registry, path: {folder}/passwords}}}}\n"


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Install what is missing; without permission or packages, say what to do."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if not missing:
        return
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        try:
            subprocess.run(["apt-get", *arguments], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"{' and '.join(missing)} missing and not installable here ({error})")


class Registry:
    """The real registry on a free port; its storage outlives the process."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.host = f"127.0.0.1:{self.port}"
        self.name = f"{self.host}/team/model"
        (folder / "passwords").write_text(PASSWORDS)
        config = (CONFIG + extra).format(folder=folder, port=self.port)
        (folder / "config.yml").write_text(config)
        self.start()

    def start(self) -> None:
        command = ["docker-registry", "serve", str(self.folder / "config.yml")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def blob(self, digest: str) -> Path:
        """Return where the registry keeps a blob."""
        name = digest.removeprefix("sha256:")
        blobs = self.folder / "storage/docker/registry/v2/blobs/sha256"
        return blobs / name[:2] / name / "data"

    def bytes_uploading(self) -> int:
        """Bytes of unfinished uploads; one may finish, and its file go, while it is looked at."""
        total = 0
        with suppress(FileNotFoundError):
            for file in (self.folder / "storage").glob("**/_uploads/*/data"):
                total += file.stat().st_size
        return total


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    server = Registry(tmp_path / "registry")
    yield server
    server.kill()


@pytest.fixture
def locked_registry(tmp_path: Path) -> Iterator[Registry]:
    server = Registry(tmp_path / "locked", WITH_PASSWORD)
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def no_waiting_and_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_client, "DELAYS", [0.1, 0.1])
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What the pipeline leaves, around a model of 8 MiB."""
    root = tmp_path / "project"
    for name in ("config.pbtxt", "labels.txt", "golden.npz", "1/model.onnx"):
        path = root / "artifacts/model/classifier" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    path.write_bytes(bytes(range(256)) * (8 << 12))
    (root / "data/prepared").mkdir(parents=True)
    for name in ("metrics.json", "lineage.json", "artifacts/export.json"):
        (root / name).write_text("{}")
    (root / "data/prepared/report.json").write_text("{}")
    (root / "MODEL_CARD.md").write_text("# Digits\n")
    return root


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "local")


@pytest.fixture
def digest(model: Path, layout: Layout) -> str:
    return package(model, 8, layout)


def layer(layout: Layout, digest: str) -> str:
    return parse_manifest(layout.read_manifest(digest), digest).layer.digest


def skopeo(*arguments: str) -> str:
    result = subprocess.run(["skopeo", *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_skopeo_reads_a_pushed_image(
    tmp_path: Path, registry: Registry, layout: Layout, digest: str
) -> None:
    push(layout, digest, registry.name)
    source = f"docker://{registry.name}@{digest}"
    seen = json.loads(skopeo("inspect", "--tls-verify=false", source))
    assert (seen["Digest"], seen["Os"], seen["Layers"]) == (
        digest,
        "linux",
        [layer(layout, digest)],
    )
    skopeo("copy", "--src-tls-verify=false", source, f"dir:{tmp_path / 'copy'}")
    copied = tmp_path / "copy" / layer(layout, digest).removeprefix("sha256:")
    with tarfile.open(copied) as archive:
        assert "classifier/8/model.onnx" in archive.getnames()


def test_skopeo_reads_the_layout_on_disk(layout: Layout, digest: str) -> None:
    source = f"oci:{layout.folder}:{tag_of(8, digest)}"
    assert json.loads(skopeo("inspect", source))["Digest"] == digest


def test_what_skopeo_copied_is_pulled(
    tmp_path: Path, registry: Registry, layout: Layout, digest: str, model: Path
) -> None:
    source = f"oci:{layout.folder}:{tag_of(8, digest)}"
    target = f"docker://{registry.name}:mirrored"
    # without --preserve-digests skopeo compresses the layer, which is another image
    skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", source, target)
    pull(f"{registry.name}@{digest}", tmp_path / "models")
    pulled = tmp_path / "models/classifier/8/model.onnx"
    original = model / "artifacts/model/classifier/1/model.onnx"
    assert pulled.read_bytes() == original.read_bytes()


def test_the_second_push_uploads_nothing(registry: Registry, layout: Layout, digest: str) -> None:
    size = layout.path(layer(layout, digest)).stat().st_size
    assert size < push(layout, digest, registry.name).sent < size + 2048
    assert push(layout, digest, registry.name).sent == 0


@pytest.mark.parametrize("damage", ["changed", "truncated", "deleted"])
def test_damage_in_the_registrys_storage_is_noticed(
    tmp_path: Path, registry: Registry, layout: Layout, digest: str, damage: str
) -> None:
    push(layout, digest, registry.name)
    blob = registry.blob(layer(layout, digest))
    content = blob.read_bytes()
    if damage == "deleted":
        blob.unlink()
    else:
        blob.write_bytes(content[:-512] if damage == "truncated" else content[:-1] + b"\1")
    reason = "does not hold" if damage == "deleted" else "is corrupt|gave (only|more than)"
    with pytest.raises(DeliveryError, match=f"{reason}|no answer from|answered 5"):
        pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def kill_at_the_first_byte(registry: Registry, killed: threading.Event) -> threading.Thread:
    """Kill the registry once it has received part of the layer; then set `killed`."""

    def watch() -> None:
        while registry.bytes_uploading() < SMALL:
            time.sleep(0.001)
        registry.kill()
        killed.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


class HalfWay:
    """A file whose second half can be read only once the registry is dead; not a small one."""

    def __init__(self, file: BinaryIO, size: int, killed: threading.Event) -> None:
        self.file, self.size, self.killed = file, size, killed

    def read(self, size: int = -1) -> bytes:
        if self.size > SMALL and self.file.tell() > self.size // 2:
            assert self.killed.wait(20), "the registry has seen nothing of the first half"
        return self.file.read(size)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def slow(monkeypatch: pytest.MonkeyPatch, killed: threading.Event) -> None:
    """Send half of a layer, and the rest only when the registry is dead."""

    @contextmanager
    def wrapped(file: BinaryIO, method: str, total: int, **_: Any) -> Iterator[HalfWay]:
        yield HalfWay(file, total, killed)

    monkeypatch.setattr(registry_client.tqdm, "wrapattr", wrapped)


def test_a_registry_killed_mid_push_shows_no_image_and_a_second_push_completes_it(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, layout: Layout, digest: str
) -> None:
    killed = threading.Event()
    slow(monkeypatch, killed)
    thread = kill_at_the_first_byte(registry, killed)
    with pytest.raises(UnavailableError, match=f"no answer from the registry {registry.host}"):
        push(layout, digest, registry.name)
    thread.join()
    registry.start()
    source = ["inspect", "--tls-verify=false", f"docker://{registry.name}@{digest}"]
    assert subprocess.run(["skopeo", *source], capture_output=True).returncode != 0
    push(layout, digest, registry.name)
    assert json.loads(skopeo(*source))["Digest"] == digest


def test_a_registry_that_restarts_mid_push_costs_only_time(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, layout: Layout, digest: str
) -> None:
    monkeypatch.setattr(registry_client, "DELAYS", [1, 1, 1, 1])
    killed = threading.Event()
    slow(monkeypatch, killed)
    thread = kill_at_the_first_byte(registry, killed)
    threading.Thread(target=lambda: (thread.join(), registry.start()), daemon=True).start()
    push(layout, digest, registry.name)
    assert killed.is_set()
    source = ["inspect", "--tls-verify=false", f"docker://{registry.name}@{digest}"]
    assert json.loads(skopeo(*source))["Digest"] == digest


def test_a_password_of_docker_login_is_used(
    tmp_path: Path, locked_registry: Registry, layout: Layout, digest: str
) -> None:
    with pytest.raises(DeliveryError, match=f"run `docker login {locked_registry.host}`"):
        push(layout, digest, locked_registry.name)
    auth = base64.b64encode(b"robot:pa:ss").decode()
    (tmp_path / "docker").mkdir()
    config = {"auths": {locked_registry.host: {"auth": auth}}}
    (tmp_path / "docker/config.json").write_text(json.dumps(config))
    push(layout, digest, locked_registry.name)
    pull(f"{locked_registry.name}@{digest}", tmp_path / "models")
    assert (tmp_path / "models/classifier/8/model.onnx").is_file()
