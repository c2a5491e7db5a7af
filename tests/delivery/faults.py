"""Commits that must not be served: each function spoils a project whose version 1 serves."""

import io
import json
import os
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from delivery.oci.image import CONFIG, LAYER, Blob, config_content, digest_of, manifest_content
from delivery.oci.layout import Layout
from delivery.proposals.release_file import Release
from registry_tools import need
from tiny import CLASSES, SHAPE
from tiny_project import TinyProject

Fault = Callable[[TinyProject], None]


# -- images ----------------------------------------------------------------------------------------


def add_argument(project: TinyProject, argument: str) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    text = path.read_text().replace("- --model-control-mode=none", f"- {argument}")
    path.write_text(text)


def layer(project: TinyProject, digest: str) -> Path:
    """Return the file of an image's layer in the registry."""
    blobs = project.folder / ".local" / "registry" / "blobs" / "sha256"
    manifest = json.loads((blobs / digest.removeprefix("sha256:")).read_text())
    return blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")


def unknown_digest(project: TinyProject) -> None:
    release = project.build(2)
    digest = f"sha256:{'0' * 64}"
    project.release_file().write_text(
        release.to_yaml().replace(release.image.rpartition("@")[2], digest)
    )


def missing_layer(project: TinyProject) -> None:
    released(project).unlink()


def truncated_layer(project: TinyProject) -> None:
    path = released(project)
    path.write_bytes(path.read_bytes()[:-1000])


def flipped_bit_in_the_layer(project: TinyProject) -> None:
    path = released(project)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def released(project: TinyProject) -> Path:
    """Write a good release of version 2; return its layer, to spoil it."""
    release = project.build(2)
    project.release_file().write_text(release.to_yaml())
    return layer(project, release.image.rpartition("@")[2])


def missing_registry(project: TinyProject) -> None:
    release = project.build(2)
    text = release.to_yaml().replace("oci:.local/registry", "oci:.local/elsewhere")
    project.release_file().write_text(text)


def corrupt_onnx(project: TinyProject) -> None:
    release = project.build(2)
    (project.folder / "artifacts/model/classifier/1/model.onnx").write_bytes(b"not a graph")
    digest = project.package(2)
    text = release.to_yaml().replace(release.image.rpartition("@")[2], digest)
    project.release_file().write_text(text)


def wrong_version_directory(project: TinyProject) -> None:
    release = project.build(2)
    project.release_file().write_text(release.to_yaml().replace('version: "2"', 'version: "3"'))


def release_without_an_image(project: TinyProject) -> None:
    text = re.sub(r"  image: .*\n", "", project.release_file().read_text())
    project.release_file().write_text(text)


def version_that_is_no_number(project: TinyProject) -> None:
    text = project.release_file().read_text().replace('version: "1"', 'version: "two"')
    project.release_file().write_text(text)


def tag_instead_of_a_digest(project: TinyProject) -> None:
    text = re.sub(r"@sha256:\w+", ":latest", project.release_file().read_text())
    project.release_file().write_text(text)


def kustomization_that_names_a_missing_file(project: TinyProject) -> None:
    path = project.release_file().parent / "kustomization.yaml"
    path.write_text(path.read_text().replace("- model.yaml", "- model.yaml\n  - missing.yaml"))


def unknown_key_in_the_rollout(project: TinyProject) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    path.write_text(path.read_text().replace("serviceAccountName:", "serviceAcountName:"))


def other_command(project: TinyProject) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    path.write_text(path.read_text().replace("[tritonserver]", "[python3]"))


def image_mounted_elsewhere(project: TinyProject) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    path.write_text(path.read_text().replace("mountPath: /models", "mountPath: /model"))


def deleted_release_file(project: TinyProject) -> None:
    project.release_file().unlink()


def deleted_manifests(project: TinyProject) -> None:
    shutil.rmtree(project.folder / "argocd" / "base")


def image_of_another_version(project: TinyProject) -> None:
    text = project.release_file().read_text()
    project.release_file().write_text(text.replace('version: "1"', 'version: "2"'))


def release(project: TinyProject, release: Release, digest: str) -> None:
    """Write a release with another image in the registry."""
    text = release.to_yaml().replace(release.image.rpartition("@")[2], digest)
    project.release_file().write_text(text)


def rebuilt(change: Callable[[Path], object]) -> Fault:
    """Return the fault of a model whose folder was changed before it was packaged."""

    def fault(project: TinyProject) -> None:
        good = project.build(2)
        change(project.folder / "artifacts/model/classifier")
        release(project, good, project.package(2))

    return fault


def golden(folder: Path, **changes: np.ndarray) -> None:
    with np.load(folder / "golden.npz") as arrays:
        content = dict(arrays)
    np.savez(folder / "golden.npz", **content | changes)


def answer_of_20_megabytes(folder: Path) -> None:
    """Have a model answer a picture with five million equal numbers, and say so."""
    classes = 5_000_000
    model = onnx.load(folder / "1/model.onnx")
    *_, softmax = model.graph.node
    softmax.output[:] = ["few"]
    model.graph.node.append(helper.make_node("ReduceMax", ["few", "axis"], ["one"]))
    model.graph.node.append(helper.make_node("Expand", ["one", "many"], ["probabilities"]))
    for name, numbers in {"axis": [1], "many": [1, classes]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(numbers), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes
    onnx.save(model, folder / "1/model.onnx")
    settings = folder / "config.pbtxt"
    settings.write_text(settings.read_text().replace("dims: [ 5 ]", f"dims: [ {classes} ]"))


def bomb(file: Path) -> None:
    """Write a bit more than 1 GB of zeros in a few MB."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as stream,
    ):
        for _ in range(2**10 + 1):
            stream.write(bytes(2**20))


def repacked(make: Callable[[tarfile.TarFile], object], raw: bytes = b"") -> Fault:
    """Return the fault of an image whose layer holds something else, or other bytes."""

    def fault(project: TinyProject) -> None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            make(archive)
        layer = raw or stream.getvalue()
        blob = Blob(media_type=LAYER, digest=digest_of(layer), size=len(layer))
        config = config_content(blob)
        described = Blob(media_type=CONFIG, digest=digest_of(config), size=len(config))
        manifest = manifest_content(described, blob, "2")
        release(project, project.build(2), kept(project, layer, config, manifest))

    return fault


def kept(project: TinyProject, *blobs: bytes) -> str:
    """Put blobs into the registry; return the last one's digest."""
    for blob in blobs:
        path = Layout(project.folder / ".local/registry").path(digest_of(blob))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
    return digest_of(blobs[-1])


def image_manifest(content: bytes) -> Fault:
    """Return the fault of an image whose image manifest is something else."""

    def fault(project: TinyProject) -> None:
        release(project, project.build(2), kept(project, content))

    return fault


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


# -- registries ------------------------------------------------------------------------------------


class Registry(BaseHTTPRequestHandler):
    """Answers every request alike, see `broken_registry`."""

    def do_GET(self) -> None:
        answer, size, closing = self.server.behaviour  # type: ignore[attr-defined]
        if answer is None:
            closing.wait(600)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(answer)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def broken_registry(answer: bytes | None, size: int = 0) -> Fault:
    """Return the fault of a registry that answers so, breaks off, or hangs (None) for ever."""

    def fault(project: TinyProject) -> None:
        need("skopeo")
        server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
        server.daemon_threads = True
        server.behaviour = (answer, size, threading.Event())  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = project.build(2).to_yaml()
        name = f"127.0.0.1:{server.server_port}/team/model"
        project.release_file().write_text(text.replace("oci:.local/registry", name))

    return fault


# -- commits ---------------------------------------------------------------------------------------


def release_file(content: str | bytes) -> Fault:
    """Return the fault of a release file with another content; {} is a good one."""

    def fault(project: TinyProject) -> None:
        path = project.release_file()
        if isinstance(content, str):
            path.write_text(content.replace("{}", path.read_text()))
        else:
            path.write_bytes(content)

    return fault


def link(name: str, target: str) -> Fault:
    """Return the fault of a link among the manifests."""

    def fault(project: TinyProject) -> None:
        path = project.folder / "argocd" / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return fault


def file(name: str, content: str) -> Fault:
    """Return the fault of a file with another content below the manifests."""

    def fault(project: TinyProject) -> None:
        (project.folder / "argocd" / name).write_text(content)

    return fault


def submodule(project: TinyProject) -> None:
    commit = project.git("rev-parse", "HEAD")
    place = "argocd/base/module"
    project.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{place}")
    (project.folder / place).mkdir()


def argument(text: str) -> Fault:
    """Return the fault of another argument of Triton."""
    return lambda project: add_argument(project, text)


KUSTOMIZATION = "environments/staging/kustomization.yaml"
ROLLOUT = "base/triton/rollout.yaml"
DEEP = "/".join(["deep"] * 1000)

# name: what is done, and what the message must match. The manifests can be read, but not served:
DEGRADED: dict[str, tuple[Fault, str]] = {
    "unknown digest": (unknown_digest, "does not hold sha256:0000"),
    "missing layer": (missing_layer, "does not hold sha256:"),
    "truncated layer": (truncated_layer, "gave .* instead of .* bytes"),
    "flipped bit in the layer": (flipped_bit_in_the_layer, "corrupt"),
    "missing registry": (missing_registry, "elsewhere"),
    "corrupt graph": (corrupt_onnx, "Triton ended: .*Protobuf parsing failed"),
    "wrong version directory": (
        wrong_version_directory,
        "the image holds version 2 of the model and the release says 3",
    ),
    "image of another version": (
        image_of_another_version,
        "the image holds version 1 of the model and the release says 2",
    ),
    "gRPC switched off": (argument("--allow-grpc=false"), "does not answer on its gRPC port"),
    "unknown argument": (argument("--no-such-thing"), "unrecognized option '--no-such-thing'"),
    "argument of another kind": (argument("--exit-timeout-secs=soon"), "Triton ended"),
    "layer nested 1,000 deep": (
        repacked(lambda archive: archive.addfile(member(DEEP, tarfile.DIRTYPE))),
        "layer",
    ),
    "layer with a link": (
        repacked(lambda archive: archive.addfile(member("a", tarfile.SYMTYPE, "/etc/passwd"))),
        "layer",
    ),
    "layer that leaves the image": (
        repacked(lambda archive: archive.addfile(member("../../escaped"))),
        "layer",
    ),
    "layer without anything": (repacked(lambda archive: None), "image|layer"),
    "layer that is no archive": (repacked(lambda archive: None, os.urandom(4000)), "layer"),
    "image manifest of HTML": (image_manifest(b"<html>Sign in</html>"), "not a model image"),
    "image manifest of null": (image_manifest(b"null"), "not a model image"),
    "image manifest of brackets": (image_manifest(b"[" * 100_000), "."),
    "image manifest of no text": (image_manifest(b"\xff\xfe\x00"), "not a model image"),
    "model without settings": (
        rebuilt(lambda folder: (folder / "config.pbtxt").write_text("")),
        "Triton ended: unable to load model 'classifier', configuration expects 0 inputs",
    ),
    "settings that Triton refuses": (
        rebuilt(lambda folder: (folder / "config.pbtxt").write_text("backend: 7")),
        "Triton ended: ",
    ),
    "backend that is not there": (
        rebuilt(
            lambda folder: (folder / "config.pbtxt").write_text(
                (folder / "config.pbtxt").read_text().replace("onnxruntime", "nothing")
            )
        ),
        "Triton ended: ",
    ),
    "golden answers that differ": (
        rebuilt(lambda folder: golden(folder, probabilities=np.full((70, CLASSES), 0.2, "f4"))),
        "does not answer as model 2 should: .* golden answers",
    ),
    "golden answers of other classes": (
        rebuilt(lambda folder: golden(folder, probabilities=np.full((70, 3), 0.3, "f4"))),
        "5 classes, the golden requests with 3",
    ),
    "answers that fill the memory": (
        rebuilt(answer_of_20_megabytes),
        "an answer has 20000.* bytes and at most 16777216 are read",
    ),
    "golden pictures of another size": (
        rebuilt(lambda folder: golden(folder, images=np.zeros((70, *SHAPE[1:], 3), np.uint8))),
        "the server refused",
    ),
    "no golden requests": (
        rebuilt(lambda folder: golden(folder, images=np.zeros((0, *SHAPE), np.uint8))),
        ".",
    ),
    "golden requests that fill the memory": (
        rebuilt(lambda folder: bomb(folder / "golden.npz")),
        "golden.npz holds .* bytes of golden requests and at most",
    ),
    "golden requests that are half a file": (
        rebuilt(lambda folder: (folder / "golden.npz").write_bytes(b"PK\3\4half")),
        "golden.npz cannot be read",
    ),
    "registry that answers with a sign-in page": (
        broken_registry(b"<html>Sign in</html>", 20),
        "127.0.0.1",
    ),
}
# The manifests cannot be read:
UNKNOWN: dict[str, tuple[Fault, str]] = {
    "release without an image": (release_without_an_image, "'data.image' is missing: give"),
    "version that is no number": (version_that_is_no_number, "version is 'two'"),
    "tag instead of a digest": (
        tag_instead_of_a_digest,
        "image is 'oci:.local/registry:latest'",
    ),
    "release file that is no text": (release_file(b"\xff\xfe\x00model"), "model.yaml"),
    "release file of nothing": (release_file(""), "model.yaml"),
    "release file of null": (release_file("null"), "model.yaml"),
    "release file with a tag": (release_file("{}extra: !!int ''\n"), "model"),
    "release file with a program": (
        release_file("{}extra: !!python/object/apply:os.system ['true']\n"),
        "model.yaml",
    ),
    "release file with a bad date": (release_file("{}extra: 2026-99-99\n"), "model"),
    "release file of brackets": (release_file("[" * 3000), "."),
    "release file of 5 MB": (release_file("# long\n" * 700_000 + "data: 1\n"), "."),
    "release file with a bomb": (
        release_file(
            "a: &a [x, x]\n"
            + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghi"))
        ),
        "model.yaml",
    ),
    "release file that links to another": (
        link("environments/staging/model.yaml", "../nowhere/model.yaml"),
        "model.yaml",
    ),
    "kustomization that names a missing file": (
        kustomization_that_names_a_missing_file,
        "missing.yaml",
    ),
    "kustomization that is not YAML": (file(KUSTOMIZATION, "resources: ["), "cannot be built"),
    "kustomization of nothing": (file(KUSTOMIZATION, ""), "."),
    "document without a kind": (file("base/triton/service.yaml", "metadata: {}\n"), "."),
    "rollout without containers": (
        file(
            ROLLOUT,
            "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: triton}\n",
        ),
        ".",
    ),
    "unknown key in the rollout": (unknown_key_in_the_rollout, "serviceAcountName"),
    "other command": (other_command, "python3"),
    "image mounted elsewhere": (image_mounted_elsewhere, "mounted at"),
    "deleted release file": (deleted_release_file, "model.yaml is missing: put it back"),
    "deleted base": (deleted_manifests, "base"),
    "no manifests at all": (
        lambda project: shutil.rmtree(project.folder / "argocd"),
        "model.yaml is missing: put it back",
    ),
    "link out of the manifests": (link("base/out", "../../../secret"), "leads out of argocd"),
    "link to the machine's files": (link("base/out", "/etc/hostname"), "leads out of argocd"),
    "links in a circle": (link("base/out", "out"), "leads out of argocd"),
    "submodule": (submodule, "is a submodule"),
}
# It takes longer than anybody would wait for it, so it is not told:
HANGING: dict[str, Fault] = {
    "server that never gets ready": argument("--model-control-mode=explicit"),
    "registry that hangs": broken_registry(None),
}
