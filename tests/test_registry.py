"""Model images in a real registry: Debian's docker-registry on loopback, read back with skopeo."""

import base64
import json
import os
import pty
import socket
import socketserver
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from delivery.errors import DeliveryError
from delivery.model.packaging import package, tag_of
from delivery.oci import remote
from delivery.oci.image import parse_manifest
from delivery.oci.layout import Layout
from delivery.oci.referrers import attach, attached
from delivery.oci.registry import pull, push
from delivery.oci.remote import UnavailableError
from delivery.oci.signature import BUNDLE
from registry_tools import need

PASSWORDS = "robot:$2b$04$0ivqTK4rcbb1UZeTMPmPeu7z3d/zV3cpXlL3wB6jkGSMTNYntVgRG\n"  # of "pa:ss"
CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/storage}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
SMALL = 4096  # bytes: more than an image's configuration, less than half of its layer
HALF = 4 << 20  # bytes of its layer
WITH_PASSWORD = "auth: {{htpasswd: {{realm: registry, path: {folder}/passwords}}}}\n"


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    need("docker-registry", "skopeo")


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
        for _ in range(2400):  # two minutes
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
    monkeypatch.setattr(remote, "DELAYS", [0.1, 0.1])
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
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


def test_a_signature_lies_beside_its_image(registry: Registry, layout: Layout, digest: str) -> None:
    """This registry knows no list of what refers to an image, so there is one by tag."""
    push(layout, digest, registry.name)
    assert attach(registry.name, digest, b"{}") and not attach(registry.name, digest, b"{}")
    attach(registry.name, digest, b"[]")
    assert attached(registry.name, digest) == [b"{}", b"[]"]
    tag = f"docker://{registry.name}:{digest.replace(':', '-')}"
    listed = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", tag))["manifests"]
    assert {each["artifactType"] for each in listed} == {BUNDLE}
    one = f"docker://{registry.name}@{listed[0]['digest']}"
    manifest = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", one))
    assert (manifest["subject"]["digest"], len(manifest["layers"])) == (digest, 1)


def test_the_second_push_uploads_nothing(
    registry: Registry, layout: Layout, digest: str, capfd: pytest.CaptureFixture[str]
) -> None:
    blob = registry.blob(layer(layout, digest))
    assert push(layout, digest, registry.name)
    written = blob.stat().st_ino
    assert not push(layout, digest, registry.name)
    assert blob.stat().st_ino == written and not registry.bytes_uploading()
    assert capfd.readouterr() == ("", ""), "progress where there is no terminal"


def test_progress_is_shown_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, layout: Layout, digest: str
) -> None:
    screen, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        push(layout, digest, registry.name)
        assert b"Writing manifest" in os.read(screen, 1 << 16)
    os.close(screen)


def test_a_layer_that_the_registry_lost_is_pushed_again(
    tmp_path: Path, registry: Registry, layout: Layout, digest: str
) -> None:
    push(layout, digest, registry.name)
    registry.blob(layer(layout, digest)).unlink()
    with pytest.raises(DeliveryError, match=r"does not hold it .*: push the image to it again"):
        pull(f"{registry.name}@{digest}", tmp_path / "models")
    push(layout, digest, registry.name)
    pull(f"{registry.name}@{digest}", tmp_path / "models")


def test_proxies_are_not_asked_for_loopback(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, layout: Layout, digest: str
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert push(layout, digest, registry.name)


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
    reason = "does not hold it" if damage == "deleted" else r"(not match|gave \d).*: have it del"
    with pytest.raises(DeliveryError, match=reason):
        pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert not (tmp_path / "models").exists()
    blob.unlink(missing_ok=True)  # as its deletion there does
    assert push(layout, digest, registry.name)
    pull(f"{registry.name}@{digest}", tmp_path / "models")


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


class Gate(socketserver.ThreadingTCPServer):
    """A way to the registry that passes on half of a layer, and the rest when it is dead."""

    daemon_threads = True

    def __init__(self, registry: Registry, killed: threading.Event) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.registry, self.killed, self.sent = registry, killed, 0
        self.name = f"127.0.0.1:{self.server_address[1]}/team/model"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Passage(socketserver.BaseRequestHandler):
    server: Gate

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as inside:
            threading.Thread(target=self.back, args=(inside,), daemon=True).start()
            while chunk := self.request.recv(SMALL):
                self.server.sent += len(chunk)
                if self.server.sent > HALF:
                    assert self.server.killed.wait(20), "the registry has seen nothing of it"
                inside.sendall(chunk)

    def back(self, inside: socket.socket) -> None:
        with suppress(OSError):
            while chunk := inside.recv(SMALL):
                self.request.sendall(chunk)
            self.request.shutdown(socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        return self.server.registry.port


@pytest.fixture
def killed() -> threading.Event:
    return threading.Event()


@pytest.fixture
def gate(registry: Registry, killed: threading.Event) -> Iterator[Gate]:
    server = Gate(registry, killed)
    yield server
    server.shutdown()
    server.server_close()


def holds(registry: Registry, digest: str) -> bool:
    source = ["inspect", "--tls-verify=false", f"docker://{registry.name}@{digest}"]
    return subprocess.run(["skopeo", *source], capture_output=True).returncode == 0


def test_a_registry_killed_mid_push_shows_no_image_and_a_second_push_completes_it(
    registry: Registry, gate: Gate, killed: threading.Event, layout: Layout, digest: str
) -> None:
    thread = kill_at_the_first_byte(registry, killed)
    with pytest.raises(UnavailableError, match=f"skopeo failed with {gate.name} "):
        push(layout, digest, gate.name)
    thread.join()
    registry.start()
    assert not holds(registry, digest)
    push(layout, digest, registry.name)
    assert holds(registry, digest)


def test_a_registry_that_restarts_mid_push_costs_only_time(
    monkeypatch: pytest.MonkeyPatch,
    registry: Registry,
    gate: Gate,
    killed: threading.Event,
    layout: Layout,
    digest: str,
) -> None:
    monkeypatch.setattr(remote, "DELAYS", [1] * 30)
    thread = kill_at_the_first_byte(registry, killed)
    threading.Thread(target=lambda: (thread.join(), registry.start()), daemon=True).start()
    push(layout, digest, gate.name)
    assert killed.is_set()
    assert holds(registry, digest)


def test_a_password_of_docker_login_is_used(
    tmp_path: Path, locked_registry: Registry, layout: Layout, digest: str
) -> None:
    with pytest.raises(DeliveryError, match="run `skopeo login") as refusal:
        push(layout, digest, locked_registry.name)
    assert str(refusal.value).endswith(f"login --tls-verify=false {locked_registry.host}`")
    auth = base64.b64encode(b"robot:pa:ss").decode()
    (tmp_path / "docker").mkdir()
    config = {"auths": {locked_registry.host: {"auth": auth}}}
    (tmp_path / "docker/config.json").write_text(json.dumps(config))
    push(layout, digest, locked_registry.name)
    pull(f"{locked_registry.name}@{digest}", tmp_path / "models")
    assert (tmp_path / "models/classifier/8/model.onnx").is_file()


def test_the_login_that_a_refusal_names_is_enough(
    locked_registry: Registry, layout: Layout, digest: str
) -> None:
    with pytest.raises(DeliveryError) as refusal:
        push(layout, digest, locked_registry.name)
    command = str(refusal.value).rpartition("run `")[2].rstrip("`").split()
    subprocess.run([*command, "--username=robot", "--password=pa:ss"], check=True)
    assert push(layout, digest, locked_registry.name)
