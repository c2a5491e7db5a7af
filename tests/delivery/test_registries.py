import base64
import gzip
import io
import json
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fake_pipeline
from delivery.__main__ import main
from delivery.errors import DeliveryError
from delivery.model.packaging import LOCAL, package
from delivery.oci import referrers, remote
from delivery.oci.image import (
    CONFIG,
    LAYER,
    MANIFEST,
    Blob,
    config_content,
    digest_of,
    image_content,
    manifest_content,
    parse_manifest,
)
from delivery.oci.layout import Layout, MissingBlobError, writing
from delivery.oci.origin import Origin
from delivery.oci.referrers import attach, attached
from delivery.oci.registry import pull, push
from delivery.oci.remote import UnavailableError
from fake_project import make_project
from fake_registry import FakeRegistry, Handler, isolate, once
from registry_tools import need
from workspace.errors import UserError


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    need("skopeo")
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_waiting_and_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "DELAYS", [0, 0])
    isolate(monkeypatch, tmp_path)


def layer(layout: Layout, digest: str) -> Path:
    return layout.path(parse_manifest(layout.read_manifest(digest), digest).layer.digest)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_nothing_pulled(tmp_path: Path) -> None:
    assert not (tmp_path / "models").exists()
    assert not list(tmp_path.glob(".models-*")), "half a model was left behind"


# -- what works ------------------------------------------------------------------------------------


def test_a_pulled_image_holds_what_the_pipeline_wrote(
    tmp_path: Path, layout: Layout, digest: str
) -> None:
    pull(f"{layout.name}@{digest}", tmp_path / "models")
    pulled = files(tmp_path / "models")
    assert pulled["classifier/8/model.onnx"] == fake_pipeline.model(0.97)
    assert json.loads(pulled["classifier/about/metrics.json"]) == fake_pipeline.metrics()


def test_every_registry_gives_the_same_image(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    for target in (f"oci:{tmp_path / 'shared'}", registry.name):
        assert push(layout, digest, target)
        folder = tmp_path / digest_of(target.encode())
        pull(f"{target}@{digest}", folder)
        assert files(folder)["classifier/8/model.onnx"] == fake_pipeline.model(0.97)


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_the_second_push_uploads_nothing(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, kind: str
) -> None:
    target = registry.name if kind == "http" else f"oci:{tmp_path / 'shared'}"
    assert push(layout, digest, target)
    registry.requests.clear()
    assert not push(layout, digest, target)
    assert not [request for request in registry.requests if "/uploads/" in request]


def test_the_manifest_is_pushed_last(layout: Layout, digest: str, registry: FakeRegistry) -> None:
    push(layout, digest, registry.name)
    puts = [request for request in registry.requests if request.startswith("PUT")]
    assert len(puts) == 3 and "/manifests/v8-" in puts[-1]


def test_another_version_of_the_model_is_a_new_layer_and_a_new_tag(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    push(layout, digest, registry.name)
    other = package(tmp_path / "project", 9, layout)
    assert push(layout, other, registry.name)
    assert registry.content[f"sha256:{layer(layout, other).name}"]
    assert len(registry.tags) == 2


# -- faults of the content: each is refused, and nothing is left in the folder ---------------------


def digest_mismatch(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)


def truncated_layer(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def layer_cut_within_a_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1600])


def layer_too_long(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty_layer(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("kind", ["folder", "http"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (digest_mismatch, "is corrupt: its digest is"),
        (truncated_layer, r"gave \d+ instead of"),
        (layer_cut_within_a_file, "gave 1600 instead of"),
        (layer_too_long, r"gave \d+ instead of"),
        (empty_layer, "gave 0 instead of"),
    ],
)
def test_damaged_content_is_refused(
    tmp_path: Path,
    layout: Layout,
    digest: str,
    registry: FakeRegistry,
    kind: str,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    name = layout.name
    if kind == "http":
        push(layout, digest, registry.name)
        name = registry.name
    path = layer(layout, digest)
    blob = f"sha256:{path.name}"
    damage(path)
    registry.content[blob] = path.read_bytes()
    found_by_skopeo = kind == "http" and damage is digest_mismatch
    told = "Digest did not match" if found_by_skopeo else f"{words}.*{blob}"
    with pytest.raises(DeliveryError, match=told):
        pull(f"{name}@{digest}", tmp_path / "models")
    assert_nothing_pulled(tmp_path)


def test_a_changed_manifest_is_refused(tmp_path: Path, layout: Layout, digest: str) -> None:
    path = layout.path(digest)
    path.write_bytes(path.read_bytes().replace(b'"8"', b'"9"'))
    with pytest.raises(DeliveryError, match=r"is corrupt: its digest is sha256:"):
        pull(f"{layout.name}@{digest}", tmp_path / "models")
    assert_nothing_pulled(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "http"])
@pytest.mark.parametrize("what", ["layer", "manifest"])
def test_a_missing_blob_is_named(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, kind: str, what: str
) -> None:
    name = layout.name
    if kind == "http":
        push(layout, digest, registry.name)
        name = registry.name
    path = layer(layout, digest) if what == "layer" else layout.path(digest)
    path.unlink()
    registry.content.pop(f"sha256:{path.name}", None)
    with pytest.raises(MissingBlobError, match=f"{path.name[:12]}.*: .*push the image to it again"):
        pull(f"{name}@{digest}", tmp_path / "models")
    assert_nothing_pulled(tmp_path)


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
    return info


def sparse_file() -> tarfile.TarInfo:
    """Return four bytes that an extraction would turn into a terabyte of zeros."""
    info = entry("GNUSparseFile.0/zeros")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "zeros",
        "GNU.sparse.size": str(10**12),
        "GNU.sparse.map": "0,4",
    }
    return info


def with_nul() -> tarfile.TarInfo:
    info = entry("classifier")
    info.pax_headers = {"path": "classi\0fier"}
    return info


UNSAFE = {
    "sparse file": [sparse_file()],
    "path traversal": [entry("classifier/../../escaped")],
    "absolute name": [entry("/tmp/escaped")],
    "symbolic link": [entry("classifier/link", tarfile.SYMTYPE, "/etc/passwd")],
    "write through a symbolic link": [entry("out", tarfile.SYMTYPE, ".."), entry("out/escaped")],
    "hard link": [entry("classifier/link", tarfile.LNKTYPE, "/etc/passwd")],
    "device": [entry("classifier/null", tarfile.CHRTYPE)],
    "named pipe": [entry("classifier/pipe", tarfile.FIFOTYPE)],
    "duplicate entry": [entry("classifier/config.pbtxt"), entry("classifier/config.pbtxt")],
    "duplicate entry in other words": [entry("labels.txt"), entry("./labels.txt")],
    "a thousand folders": [entry("a/" * 1000 + "b")],
    "file in the place of a folder": [entry("classifier"), entry("classifier/labels.txt")],
}


@pytest.mark.parametrize("entries", UNSAFE.values(), ids=UNSAFE.keys())
def test_an_unsafe_layer_is_refused(
    tmp_path: Path, layout: Layout, entries: list[tarfile.TarInfo]
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in entries:
            archive.addfile(item, io.BytesIO(b"evil"))
    reference = f"{layout.name}@{image_with_layer(layout, content.getvalue())}"
    with pytest.raises(DeliveryError, match="the layer holds"):
        pull(reference, tmp_path / "models")
    assert_nothing_pulled(tmp_path)
    assert not (tmp_path / "escaped").exists()


def image_with_layer(layout: Layout, content: bytes) -> str:
    """Store an image whose digests are all right, around any layer."""
    blob = layout.add_bytes(LAYER, content)
    config = layout.add_bytes(CONFIG, config_content(blob))
    manifest = manifest_content(config, blob, "8")
    layout.write_manifest(manifest, "v8")
    return digest_of(manifest)


def test_a_layer_that_is_no_archive_is_refused(tmp_path: Path, layout: Layout) -> None:
    digest = image_with_layer(layout, b"MZ" * 4096)
    with pytest.raises(DeliveryError, match="the layer is not a tar archive"):
        pull(f"{layout.name}@{digest}", tmp_path / "models")
    assert_nothing_pulled(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"[]",
        b'{"layers": []}',
        b'{"layers": [{"digest": "sha256:../../../etc/passwd"}]}',
    ],
    ids=["not JSON", "a list", "no layer", "path in a digest"],
)
def test_a_manifest_of_something_else_is_refused(
    tmp_path: Path, layout: Layout, content: bytes
) -> None:
    layout.write_manifest(content, "v8")
    with pytest.raises(DeliveryError, match="is not a model image"):
        pull(f"{layout.name}@{digest_of(content)}", tmp_path / "models")


def test_a_layer_with_a_name_that_no_file_can_have_is_refused(
    tmp_path: Path, layout: Layout
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(with_nul(), io.BytesIO(b"evil"))
    digest = image_with_layer(layout, content.getvalue())
    with pytest.raises(DeliveryError, match=r"the layer holds 'classi\\x00fier': a name"):
        pull(f"{layout.name}@{digest}", tmp_path / "models")
    assert_nothing_pulled(tmp_path)


def test_an_existing_folder_is_not_touched(tmp_path: Path, layout: Layout, digest: str) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(DeliveryError, match="models exists"):
        pull(f"{layout.name}@{digest}", tmp_path / "models")


@pytest.mark.parametrize(
    "reference",
    ["oci:.local/registry", "oci:.local/registry@sha256:12", "registry.example.com/model:latest"],
    ids=["no digest", "short digest", "mutable tag"],
)
def test_a_reference_without_a_digest_is_refused(
    tmp_path: Path, layout: Layout, digest: str, reference: str
) -> None:
    with pytest.raises(DeliveryError, match="does not name an image by its digest: give <reg"):
        pull(reference, tmp_path / "models")
    pull(f"{layout.name}@{digest}", tmp_path / "models")


def test_a_folder_that_is_there_stays_until_it_is_removed(
    tmp_path: Path, layout: Layout, digest: str
) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(DeliveryError, match=r"models exists: remove it, or pull .* into another"):
        pull(f"{layout.name}@{digest}", tmp_path / "models")
    pull(f"{layout.name}@{digest}", tmp_path / "others")
    (tmp_path / "models").rmdir()
    pull(f"{layout.name}@{digest}", tmp_path / "models")


def test_a_digest_of_another_image_is_replaced_by_that_of_the_release(
    tmp_path: Path, layout: Layout, digest: str
) -> None:
    content = layout.read_manifest(digest) + b"\n"
    layout.write_manifest(content, "v8")
    with pytest.raises(DeliveryError, match=r"is not a model image .*: give the digest that"):
        pull(f"{layout.name}@{digest_of(content)}", tmp_path / "models")
    pull(f"{layout.name}@{digest}", tmp_path / "models")


@pytest.mark.parametrize(
    "name",
    [
        *("", "oci:", "registry.example.com", "example.com/model:v1", "acme/model"),
        *("localhost:x@evil.test/r", "localhost:80@evil.test/r", "me@example.com/r"),
        *("https://example.com/r", "example.com/Model", "example.com/../r", "example.com/r?x"),
        *("example.com//r", "example.com/r\n", "exämple.com/r", "[::2]/r", "example.com:/r"),
    ],
)
def test_a_name_that_is_no_registry_is_refused(layout: Layout, digest: str, name: str) -> None:
    with pytest.raises(DeliveryError, match="is not a registry: give oci:<folder> or <host>/"):
        push(layout, digest, name)
    push(layout, digest, f"oci:{layout.folder.parent / 'shared'}")


# -- faults of the registry ------------------------------------------------------------------------


def test_a_registry_that_goes_down_mid_push_shows_no_image(
    layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    def down(handler: Handler) -> bool:
        if uploads and handler.command != "HEAD":
            handler.break_off()
            return True
        uploads.extend([handler.path] if handler.command == "PUT" else [])
        return False

    uploads: list[str] = []
    registry.faults.append(down)
    with pytest.raises(UnavailableError, match="skopeo failed with"):
        push(layout, digest, registry.name)
    assert digest not in registry.content and not registry.tags
    registry.faults.clear()
    push(layout, digest, registry.name)
    assert digest in registry.content


def broken_off(handler: Handler) -> bool:
    handler.break_off()
    return True


def overloaded(handler: Handler) -> bool:
    handler.body()
    handler.answer(503, b"busy")
    return True


@pytest.mark.parametrize("fault", [broken_off, overloaded])
@pytest.mark.parametrize("command", ["GET", "HEAD", "POST", "PATCH", "PUT"])
def test_one_failed_request_is_repeated_when_pushing(
    layout: Layout,
    digest: str,
    registry: FakeRegistry,
    command: str,
    fault: Callable[[Handler], bool],
) -> None:
    registry.faults.append(once(lambda request: request.command == command and fault(request)))
    push(layout, digest, registry.name)
    assert digest in registry.content


def test_a_download_that_breaks_off_is_repeated(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    def half(handler: Handler) -> bool:
        if layer(layout, digest).name not in handler.path or handler.command != "GET":
            return False
        content = layer(layout, digest).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.break_off()
        return True

    push(layout, digest, registry.name)
    registry.faults.append(once(half))
    pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert files(tmp_path / "models")["classifier/8/model.onnx"] == fake_pipeline.model(0.97)
    registry.faults[:] = [half]
    with pytest.raises(UnavailableError):
        pull(f"{registry.name}@{digest}", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_layer_without_end_fills_no_disk(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    def endless(handler: Handler) -> bool:
        if layer(layout, digest).name not in handler.path or handler.command != "GET":
            return False
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(bytes(1 << 20))
        handler.break_off()
        return True

    push(layout, digest, registry.name)
    registry.faults.append(endless)
    with pytest.raises(DeliveryError, match="gave more bytes than announced"):
        pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert_nothing_pulled(tmp_path)


def test_what_a_foreign_host_says_is_printed_in_plain_characters(
    layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    def says(handler: Handler) -> bool:
        handler.body()
        handler.answer(418, "\x1b[2J\r\u202e\nhello ".encode() * 100)
        return handler.path != "/v2/"

    registry.faults.append(lambda handler: handler.path != "/v2/" and says(handler))
    with pytest.raises(DeliveryError) as error:
        push(layout, digest, registry.name)
    assert all(" " <= each <= "~" for each in str(error.value))
    assert len(str(error.value)) < 300


def test_a_missing_skopeo_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    layout: Layout,
    digest: str,
    registry: FakeRegistry,
) -> None:
    for use in (
        lambda: push(layout, digest, registry.name),
        lambda: pull(f"{registry.name}@{digest}", tmp_path / "models"),
    ):
        with monkeypatch.context() as without:
            without.setenv("PATH", str(tmp_path / "empty"))
            with pytest.raises(DeliveryError, match=r"skopeo, .*is not installed: `sudo apt inst"):
                use()
        use()
    push(layout, digest, f"oci:{tmp_path / 'shared'}")


CONTAINERS = {
    "no image is trusted": ("policy.json", '{"default": [{"type": "reject"}]}'),
    "a damaged policy": ("policy.json", "{"),
    "damaged registries": ("registries.conf", "x = ["),
    "a blocked host": ("registries.conf", '[[registry]]\nlocation = "127.0.0.1"\nblocked = true\n'),
    "signatures elsewhere": (
        "registries.d/x.yaml",
        "default-docker: {lookaside: 'http://127.0.0.1:1', sigstore: 'http://127.0.0.1:1'}\n",
    ),
    "signatures beside": (
        "registries.d/x.yaml",
        "default-docker: {use-sigstore-attachments: true}\n",
    ),
    "a damaged folder": ("registries.d/x.yaml", "["),
}


@pytest.mark.parametrize(("name", "text"), CONTAINERS.values(), ids=CONTAINERS.keys())
def test_settings_for_other_images_do_not_count(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, name: str, text: str
) -> None:
    fake_pipeline.write(tmp_path, f"home/.config/containers/{name}", text)
    assert push(layout, digest, registry.name)
    assert pull(f"{registry.name}@{digest}", tmp_path / "image")


@pytest.mark.parametrize("address", ["http://[::1", "http://[x/"])
def test_an_address_that_is_none_is_named(
    layout: Layout, digest: str, registry: FakeRegistry, address: str
) -> None:
    def elsewhere(handler: Handler) -> bool:
        if "/manifests/" in handler.path:
            handler.answer(307, Location=address)
            return True
        return False

    registry.faults.append(elsewhere)
    with pytest.raises(DeliveryError, match=r"skopeo failed with \S+ \(\w.*IP") as refusal:
        push(layout, digest, registry.name)
    assert "EOF" not in str(refusal.value)


def test_a_registry_that_is_down_is_one_sentence(layout: Layout, digest: str) -> None:
    need("skopeo")
    with pytest.raises(UnavailableError) as error:
        push(layout, digest, "127.0.0.1:1/team/model")
    assert str(error.value) == ("skopeo failed with 127.0.0.1:1/team/model (Connection refused)")


def test_a_registry_that_stores_something_else_is_noticed(
    layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    def other(handler: Handler) -> bool:
        if handler.command == "PUT" and "/manifests/" in handler.path:
            handler.body()
            handler.answer(201, Docker_Content_Digest="sha256:" + "0" * 64)
            return True
        return False

    registry.faults.append(other)
    with pytest.raises(DeliveryError, match=f"does not give {digest} back after it was sent"):
        push(layout, digest, registry.name)


@pytest.mark.parametrize("statuses", [{}, {"POST": 202, "PATCH": 202, "PUT": 201}])
def test_a_web_site_that_says_yes_to_everything_is_no_registry(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, statuses: dict[str, int]
) -> None:
    def yes(handler: Handler) -> bool:
        handler.body()
        handler.answer(statuses.get(handler.command, 200), b"<html>", Location="/")
        return True

    registry.faults.append(yes)
    with pytest.raises(DeliveryError, match="check that this is the address of a registry"):
        push(layout, digest, registry.name)
    with pytest.raises(DeliveryError, match="is corrupt: its digest is"):
        pull(f"{registry.name}@{digest}", tmp_path / "models")
    registry.faults.clear()  # the address of a registry
    assert push(layout, digest, registry.name)


def test_damage_in_the_local_layout_does_not_reach_a_registry(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    digest_mismatch(layer(layout, digest))
    for target in (registry.name, f"oci:{tmp_path / 'shared'}"):
        with pytest.raises(DeliveryError, match="package the model again"):
            push(layout, digest, target)
    assert not registry.tags and not (tmp_path / "shared/index.json").exists()
    assert package(tmp_path / "project", 8, layout) == digest
    assert push(layout, digest, registry.name)


def test_an_index_that_is_damaged_is_named(tmp_path: Path, layout: Layout, digest: str) -> None:
    index = layout.folder / "index.json"
    index.write_text('{"manifests": 3}')
    with pytest.raises(
        UserError, match=r"index\.json: manifests is 3: give the list of the layout"
    ):
        package(tmp_path / "project", 9, layout)
    assert index.read_text() == '{"manifests": 3}'


# -- credentials -----------------------------------------------------------------------------------

SECRET = base64.b64encode(b"robot:pa:ss").decode()


def wants_password(handler: Handler) -> bool:
    if handler.headers.get("Authorization") == f"Basic {SECRET}":
        return False
    handler.body()
    handler.answer(401, WWW_Authenticate='Basic realm="registry"')
    return True


def wants_token(handler: Handler) -> bool:
    host = handler.headers["Host"]
    if handler.path.startswith("/token"):
        known = handler.headers.get("Authorization") == f"Basic {SECRET}"
        handler.answer(*((200, b'{"token": "t0"}') if known else (401, b"who?")))
        return True
    if handler.headers.get("Authorization") == "Bearer t0":
        return False
    handler.body()
    challenge = f'Bearer realm="http://{host}/token",service="r",scope="repository:m:pull,push"'
    handler.answer(401, WWW_Authenticate=challenge)
    return True


def log_in(tmp_path: Path, host: str, where: str) -> None:
    """Leave credentials as `docker login` does, with and without a helper."""
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    answer = json.dumps({"Username": "robot", "Secret": "pa:ss"})
    helper.write_text(
        f"#!{sys.executable}\nimport sys\nassert sys.stdin.read() == '{host}'\n"
        f"print('''{answer}''')\n"
    )
    helper.chmod(0o755)
    places: dict[str, dict[str, Any]] = {
        "file": {"auths": {host: {"auth": SECRET}}},
        "helper of the host": {"credHelpers": {host: "test"}},
    }
    fake_pipeline.write(tmp_path, "docker/config.json", places[where])


@pytest.mark.parametrize("demand", [wants_password, wants_token])
@pytest.mark.parametrize("where", ["file", "helper of the host"])
def test_credentials_of_docker_login_are_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    registry: FakeRegistry,
    demand: Callable[[Handler], bool],
    where: str,
) -> None:
    registry.faults.append(demand)
    log_in(tmp_path, registry.name.partition("/")[0], where)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    push(layout, digest, registry.name)
    pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert digest in registry.content


@pytest.mark.parametrize("content", ["{", '{"auths": []}', '{"credHelpers": {"host": 1}}'])
def test_a_docker_configuration_that_is_damaged_is_named(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, content: str
) -> None:
    registry.faults.append(wants_password)
    fake_pipeline.write(tmp_path, "docker/config.json", content.encode())
    with pytest.raises(UserError, match=r"docker/config\.json: .* is |config\.json is not JSON"):
        push(layout, digest, registry.name)


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        ("http://127.0.0.1:{port}{path}", "redirects without end: check the address of the reg"),
        ("ftp://example.com{path}", "another or a less safe host: check the address of the reg"),
    ],
    ids=["without end", "less safe"],
)
def test_an_address_that_only_redirects_is_corrected(
    layout: Layout, digest: str, registry: FakeRegistry, other: FakeRegistry, to: str, sentence: str
) -> None:
    def redirects(handler: Handler) -> bool:
        handler.body()
        handler.answer(307, Location=to.format(port=other.server_port, path=handler.path))
        return True

    other.faults.append(redirects)
    with pytest.raises(DeliveryError, match=sentence):
        Origin(other.name, "pull").size(digest)
    push(layout, digest, registry.name)
    assert Origin(registry.name, "pull").size(f"sha256:{layer(layout, digest).name}")


@pytest.mark.parametrize("demand", [wants_password, wants_token])
def test_missing_credentials_say_how_to_log_in(
    layout: Layout, digest: str, registry: FakeRegistry, demand: Callable[[Handler], bool]
) -> None:
    registry.faults.append(demand)
    host = registry.name.partition("/")[0]
    with pytest.raises(DeliveryError, match=f"run `skopeo login --tls-verify=false {host}`"):
        push(layout, digest, registry.name)
    assert not registry.content


def test_a_password_is_not_sent_to_another_host(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, other: FakeRegistry
) -> None:
    seen: list[str | None] = []

    def stored_elsewhere(handler: Handler) -> bool:
        if "/blobs/" not in handler.path or handler.command != "GET":
            return False
        handler.answer(307, Location=f"http://localhost:{other.server_port}{handler.path}")
        return True

    def note(handler: Handler) -> bool:
        seen.append(handler.headers.get("Authorization"))
        return False

    push(layout, digest, registry.name)
    other.content = registry.content
    registry.faults += [wants_password, stored_elsewhere]
    other.faults.append(note)
    log_in(tmp_path, registry.name.partition("/")[0], "file")
    pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert seen == [None, None], "the configuration and the layer, without a password"


def test_a_host_that_was_redirected_to_gets_no_password_for_asking(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, other: FakeRegistry
) -> None:
    def elsewhere(handler: Handler) -> bool:
        handler.body()
        handler.answer(307, Location=f"http://localhost:{other.server_port}{handler.path}")
        return True

    def ask(handler: Handler) -> bool:
        seen.append(handler.headers.get("Authorization"))
        return wants_password(handler)

    seen: list[str | None] = []
    registry.faults += [wants_password, elsewhere]
    other.faults.append(ask)
    log_in(tmp_path, registry.name.partition("/")[0], "file")
    with pytest.raises(DeliveryError):
        push(layout, digest, registry.name)
    assert seen and not any(seen)


# -- what a registry holds and how long it takes ---------------------------------------------------


def test_a_release_to_a_web_site_fails_and_proposes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    registry: FakeRegistry,
) -> None:
    project = make_project(tmp_path, monkeypatch)
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("oci:.local/registry", registry.name))
    project.commit("Use another registry")
    branches = project.branches()

    def yes(handler: Handler) -> bool:
        handler.body()
        handler.answer(200, b"<html>")
        return True

    registry.faults.append(yes)
    assert main(["release"]) == 1
    assert "check that this is the address of a registry" in capsys.readouterr().err
    assert project.branches() == branches
    registry.faults.clear()
    assert main(["release"]) == 0
    assert project.branches() != branches


@pytest.mark.parametrize("size", [None, 0, 5])
def test_a_blob_that_a_registry_only_claims_is_sent(
    layout: Layout, digest: str, registry: FakeRegistry, size: int | None
) -> None:
    blob = f"sha256:{layer(layout, digest).name}"

    def claims(handler: Handler) -> bool:
        if handler.command != "HEAD" or blob not in handler.path or blob in registry.content:
            return False
        handler.send_response(200)
        if size is not None:
            handler.send_header("Content-Length", str(size))
        handler.end_headers()
        return True

    registry.faults.append(claims)
    assert push(layout, digest, registry.name)
    assert blob in registry.content


def test_a_blob_that_vanishes_after_it_was_sent_is_noticed(
    layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    blob = f"sha256:{layer(layout, digest).name}"

    def loses(handler: Handler) -> bool:
        if handler.command == "PUT" and "/manifests/" in handler.path:
            del registry.content[blob]
        return False

    registry.faults.append(loses)
    with pytest.raises(DeliveryError, match=f"does not give {digest} back after it was sent"):
        push(layout, digest, registry.name)
    registry.faults.clear()
    assert push(layout, digest, registry.name)
    assert not push(layout, digest, registry.name)


def test_pushing_again_heals_a_folder(tmp_path: Path, layout: Layout, digest: str) -> None:
    shared = Layout(tmp_path / "shared")
    for damage in (digest_mismatch, truncated_layer, Path.unlink):
        push(layout, digest, shared.name)
        damage(layer(shared, digest))
        with pytest.raises(DeliveryError, match="push the image to it again"):
            pull(f"{shared.name}@{digest}", tmp_path / "models")
        assert push(layout, digest, shared.name)
        pull(f"{shared.name}@{digest}", tmp_path / "models")
        shutil.rmtree(tmp_path / "models")


@pytest.mark.parametrize("what", ["manifest", "layer"])
def test_a_released_image_that_is_damaged_here_is_packaged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    project = make_project(tmp_path / "released", monkeypatch)
    digest, layout = project.image(2), Layout(LOCAL)
    damaged = layout.path(digest) if what == "manifest" else layer(layout, digest)
    damaged.write_bytes(damaged.read_bytes()[::-1])
    with pytest.raises(DeliveryError, match=r"corrupt.*`make package VERSION=<its version>`"):
        pull(f"{layout.name}@{digest}", tmp_path / "models")
    assert main(["package", "--version", "2"]) == 0
    assert digest in capsys.readouterr().out
    pull(f"{layout.name}@{digest}", tmp_path / "models")


@pytest.mark.parametrize("what", ["manifest", "layer"])
def test_a_registry_that_never_ends_is_given_up(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry, what: str
) -> None:
    name = digest if what == "manifest" else layer(layout, digest).name
    over = threading.Event()

    def drips(handler: Handler) -> bool:
        if name not in handler.path or handler.command != "GET":
            return False
        handler.send_response(200)
        handler.send_header("Content-Type", MANIFEST)
        handler.send_header("Content-Length", str(layer(layout, digest).stat().st_size))
        handler.end_headers()
        handler.wfile.write(b"{")
        over.wait(60)
        return True

    push(layout, digest, registry.name)
    registry.faults.append(drips)
    with pytest.raises(DeliveryError, match=f"{registry.name} did not answer in full within .* s"):
        pull(f"{registry.name}@{digest}", tmp_path / "models", deadline=3)
    over.set()
    assert_nothing_pulled(tmp_path)
    registry.faults.clear()
    pull(f"{registry.name}@{digest}", tmp_path / "models", deadline=300)


DRIPS = [
    *(("push", "/blobs/", "head"), ("attach", "/uploads/", "head"), ("attached", "/", "head")),
    *(("attached", "/manifests/", "body"), ("attached", "/token", "body")),
]


@pytest.mark.parametrize(("what", "where", "part"), DRIPS, ids=["-".join(each) for each in DRIPS])
def test_a_registry_that_drips_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    digest: str,
    registry: FakeRegistry,
    what: str,
    where: str,
    part: str,
) -> None:
    over = threading.Event()

    def drips(handler: Handler) -> bool:
        if where not in handler.path or "urllib3" not in handler.headers["User-Agent"]:
            return False  # or skopeo asks, which has its own deadline
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        handler.wfile.write(b"X: " if part == "head" else b"Content-Length: 9999\r\n\r\n")
        with suppress(OSError):
            for _ in range(200):
                handler.wfile.write(b"x")
                if over.wait(0.1):
                    break
        handler.break_off()
        return True

    ask = {
        "push": lambda: push(layout, digest, registry.name),
        "attach": lambda: attach(registry.name, digest, b"{}"),
        "attached": lambda: attached(registry.name, digest),
    }[what]
    push(layout, digest, registry.name)
    with monkeypatch.context() as hurried:
        for module in (remote, referrers):
            hurried.setattr(module, "PATIENCE", 2)
        registry.faults += [drips] if where != "/token" else [drips, wants_token]
        with pytest.raises(DeliveryError, match=f"{registry.name} did not answer in full within 2"):
            ask()
    over.set()
    registry.faults.clear()
    ask()


def test_a_signature_that_breaks_off_is_one_sentence(
    layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    def half(handler: Handler) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(10))
        handler.break_off()
        return True

    push(layout, digest, registry.name)
    registry.faults.append(lambda handler: "/manifests/" in handler.path and half(handler))
    with pytest.raises(UnavailableError, match="skopeo failed with"):
        attached(registry.name, digest)


def test_a_deadline_ends_further_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    monkeypatch.setattr(remote, "DELAYS", [3600])
    with pytest.raises(UnavailableError):
        pull(f"127.0.0.1:1/team/model@{digest}", tmp_path / "models", deadline=60)


def test_what_comes_compressed_is_not_unpacked(
    tmp_path: Path, digest: str, registry: FakeRegistry
) -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))

    def compressed(handler: Handler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        handler.answer(200, bomb, Content_Encoding="gzip", Content_Type=MANIFEST)
        return True

    registry.faults.append(compressed)
    with pytest.raises(DeliveryError, match=f"its digest is {digest_of(bomb)}"):
        pull(f"{registry.name}@{digest}", tmp_path / "models")


def test_a_manifest_without_end_fills_no_memory(
    tmp_path: Path, layout: Layout, digest: str, registry: FakeRegistry
) -> None:
    sent = [0]

    def endless(handler: Handler) -> bool:
        if "/manifests/" not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Type", MANIFEST)
        handler.end_headers()
        with suppress(OSError):
            while True:
                sent[0] += handler.wfile.write(b" " * (1 << 20))
        handler.break_off()
        return True

    registry.faults.append(endless)
    with pytest.raises(DeliveryError, match="gave more bytes than announced"):
        pull(f"{registry.name}@{digest}", tmp_path / "models")
    assert sent[0] < 64 << 20


def test_an_image_larger_than_the_disk_is_refused(tmp_path: Path, layout: Layout) -> None:
    config = Blob(media_type=LAYER, digest=digest_of(b""), size=10**18)
    content = image_content(config, "8")
    layout.write_manifest(content, "v8")
    with pytest.raises(DeliveryError, match=r"needs 1,000,000,000.0 GB in .* are free: make room"):
        pull(f"{layout.name}@{digest_of(content)}", tmp_path / "models")
    assert_nothing_pulled(tmp_path)


def test_an_image_is_pulled_once_there_is_room(
    tmp_path: Path, layout: Layout, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        with pytest.raises(DeliveryError, match=r"0\.0 GB are free: make room"):
            pull(f"{layout.name}@{digest}", tmp_path / "models")
    pull(f"{layout.name}@{digest}", tmp_path / "models")


def test_what_a_killed_pull_left_is_swept_by_the_next(
    tmp_path: Path, layout: Layout, digest: str
) -> None:
    left = tmp_path / ".models-k1ll3d/image"
    left.mkdir(parents=True)
    others = tmp_path / ".models2-other"
    others.mkdir()
    with writing(tmp_path, ".none"):  # another process is at work
        pull(f"{layout.name}@{digest}", tmp_path / "models")
        assert left.exists()
    shutil.rmtree(tmp_path / "models")
    pull(f"{layout.name}@{digest}", tmp_path / "models")
    assert not left.parent.exists() and others.exists()
