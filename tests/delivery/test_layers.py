"""One digest, one model: images are taken only in the one form that they are written in."""

import gzip
import io
import json
import resource
import subprocess
import sys
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

import fake_pipeline
from conftest import TEMPLATE
from delivery.errors import DeliveryError
from delivery.model.packaging import package
from delivery.oci.image import (
    CONFIG,
    LAYER,
    canonical,
    config_content,
    digest_of,
    manifest_content,
    parse_manifest,
)
from delivery.oci.layout import Layout
from delivery.oci.registry import pull


def refuse(tmp_path: Path, layout: Layout, digest: str, words: str) -> None:
    with pytest.raises(DeliveryError, match=words):
        pull(f"{layout.name}@{digest}", tmp_path / "models")
    assert not list(tmp_path.glob("*models*"))
    assert not (tmp_path / "escaped").exists()


# -- the documents ---------------------------------------------------------------------------------


def two_spellings(content: bytes) -> bytes:
    other = json.dumps({"Layers": json.loads(content)["layers"]}).encode()
    return other[:-1] + b"," + content[1:]


def doubled_key(content: bytes) -> bytes:
    return b'{"layers":[],' + content[1:]


def doubled_digest(content: bytes) -> bytes:
    return content.replace(b'"digest":', b'"digest":"sha256:%b","digest":' % (b"0" * 64), 1)


def utf16(content: bytes) -> bytes:
    return content.decode().encode("utf-16")


def byte_order_mark(content: bytes) -> bytes:
    return b"\xef\xbb\xbf" + content


def with_spaces(content: bytes) -> bytes:
    return json.dumps(json.loads(content)).encode()


def two_documents(content: bytes) -> bytes:
    return content + b"\n"


def other_address(content: bytes) -> bytes:
    document = json.loads(content)
    document["layers"][0]["urls"] = ["https://evil.test/layer"]
    return canonical(document)


def two_layers(content: bytes) -> bytes:
    document = json.loads(content)
    return canonical({**document, "layers": document["layers"] * 2})


def size_in_words(content: bytes) -> bytes:
    document = json.loads(content)
    document["layers"][0]["size"] = str(document["layers"][0]["size"])
    return canonical(document)


def strange_version(content: bytes) -> bytes:
    return content.replace(b'"8"', '"٨"'.encode())


def another_configuration(content: bytes) -> bytes:
    document = json.loads(content)
    return canonical({**document, "config": document["layers"][0] | {"mediaType": CONFIG}})


@pytest.mark.parametrize(
    "change",
    [
        *(two_spellings, doubled_key, doubled_digest, utf16, byte_order_mark, with_spaces),
        *(two_documents, other_address, two_layers, size_in_words, strange_version),
        another_configuration,
    ],
)
def test_an_image_manifest_in_another_form_is_refused(
    tmp_path: Path, layout: Layout, digest: str, change: Callable[[bytes], bytes]
) -> None:
    content = change(layout.read_manifest(digest))
    layout.write_manifest(content, "v8")
    refuse(tmp_path, layout, digest_of(content), "is not a model image")


def test_a_configuration_in_another_form_is_refused(
    tmp_path: Path, layout: Layout, digest: str
) -> None:
    layer = parse_manifest(layout.read_manifest(digest), digest).layer
    other = json.loads(config_content(layer)) | {"config": {"Entrypoint": ["sh"]}}
    config = layout.add_bytes(CONFIG, canonical(other))
    content = manifest_content(config, layer, "8")
    layout.write_manifest(content, "v8")
    refuse(tmp_path, layout, digest_of(content), "is not a model image")


# -- the layer -------------------------------------------------------------------------------------


def image(layout: Layout, layer: bytes) -> str:
    """Store an image whose digests are all right, around any layer."""
    blob = layout.add_bytes(LAYER, layer)
    config = layout.add_bytes(CONFIG, config_content(blob))
    content = manifest_content(config, blob, "8")
    layout.write_manifest(content, "v8")
    return digest_of(content)


def written(
    *entries: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT, **options: object
) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=format, **options) as archive:  # type: ignore[call-overload]
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return content.getvalue()


def file(name: str, **fields: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o644, 4
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def folder(name: str) -> tarfile.TarInfo:
    return file(name, type=tarfile.DIRTYPE, mode=0o755, size=0)


def link(name: str, kind: bytes, to: str) -> tarfile.TarInfo:
    return file(name, type=kind, linkname=to, size=0)


GOOD = written(folder("a"), file("a/b"), file("c"))
LONG = "n" * 99
OTHER_FORMS = {
    "a time": written(file("a", mtime=1)),
    "an owner": written(file("a", uid=1)),
    "an owner's name": written(file("a", uname="root")),
    "a mode": written(file("a", mode=0o755)),
    "the format of GNU": written(file("a"), format=tarfile.GNU_FORMAT),
    "an older kind of file": written(file("a", type=tarfile.AREGTYPE)),
    "a contiguous file": written(file("a", type=tarfile.CONTTYPE)),
    "a global path": written(file("a"), pax_headers={"path": "b"}),
    "a global comment": written(file("a"), pax_headers={"comment": "b"}),
    "a path of its own": written(file("a", pax_headers={"path": "b"})),
    "a comment": written(file("a", pax_headers={"comment": "b"})),
    "a size of its own": written(file("a", pax_headers={"size": "4"})),
    "a long extension": written(file("a", pax_headers={"comment": "b" * 10**6})),
    "a long name of GNU": written(file(LONG * 2), format=tarfile.GNU_FORMAT),
    "bytes after the end": GOOD + b"x",
    "zeros after the end": GOOD + bytes(512),
    "another archive after the end": GOOD + written(file("d")),
    "another archive within the end": GOOD[: 5 * 512] + bytes(512) + written(file("d")),
    "no end": GOOD[: 5 * 512],
    "bytes in the padding": GOOD[: 512 * 3 - 1] + b"x" + GOOD[512 * 3 :],
    "another checksum's spelling": GOOD[:154] + b" \0" + GOOD[156:],
    "a compressed archive": gzip.compress(GOOD),
    "another order": written(file("b"), file("a")),
    "an empty folder": written(folder("a"), file("b")),
    "no folder": written(file("a/b")),
    "a file as a folder": written(file("a"), file("a/b")),
    "a name twice": written(file("a"), file("a")),
    "./x": written(folder("."), file("./a")),
    "x//y": written(folder("a"), file("a//b")),
    "x/./y": written(folder("a"), file("a/./b")),
    "..": written(file("../escaped")),
    "an absolute name": written(file("/tmp/escaped")),
    "a name of dots": written(file("...")),
    "a backslash": written(file("..\\escaped")),
    "a space": written(file("a b")),
    "a line break": written(file("a\n")),
    "composed letters": written(file(unicodedata.normalize("NFC", "é"))),
    "decomposed letters": written(file(unicodedata.normalize("NFD", "é"))),
    "right to left": written(file("a\u202eb")),
    "no letters at all": written(file("")),
    "a name of 252 bytes": written(file("n" * 252)),
    "a name of 256 bytes": written(file("n" * 256)),
    "1,000 folders deep": written(*(folder("a/" * depth + "a") for depth in range(1000))),
    "1,000 folders in a name": written(file("a/" * 1000 + "b")),
    "a symbolic link": written(link("a", tarfile.SYMTYPE, "/etc/passwd")),
    "a way through a link": written(link("a", tarfile.SYMTYPE, ".."), file("a/escaped")),
    "a hard link": written(file("a"), link("b", tarfile.LNKTYPE, "a")),
    "a hard link outside": written(link("a", tarfile.LNKTYPE, "../../etc/passwd")),
    "a character device": written(link("a", tarfile.CHRTYPE, "")),
    "a block device": written(link("a", tarfile.BLKTYPE, "")),
    "a pipe": written(link("a", tarfile.FIFOTYPE, "")),
    "an unknown kind": written(file("a", type=b"Z")),
    "holes of GNU": written(file("a", type=tarfile.GNUTYPE_SPARSE)),
    "holes": written(
        file(
            "a",
            pax_headers={"GNU.sparse.map": "0,4", "GNU.sparse.size": str(10**12)},
        )
    ),
    "too many": written(*(file(f"{number:06}", size=0) for number in range(10_001))),
    "nothing": b"",
}


@pytest.mark.parametrize("layer", OTHER_FORMS.values(), ids=OTHER_FORMS.keys())
def test_a_layer_in_another_form_is_refused(tmp_path: Path, layout: Layout, layer: bytes) -> None:
    words = "the layer (holds|is written in another way|is not a tar archive)"
    refuse(tmp_path, layout, image(layout, layer), words)


def test_what_is_refused_was_made_from_what_is_taken(tmp_path: Path, layout: Layout) -> None:
    pull(f"{layout.name}@{image(layout, GOOD)}", tmp_path / "models")
    assert sorted(path.name for path in (tmp_path / "models").rglob("*")) == ["a", "b", "c"]


def test_names_and_sizes_beyond_a_plain_header_are_taken(tmp_path: Path, layout: Layout) -> None:
    names = [LONG, f"{LONG}/{LONG}"]
    pull(
        f"{layout.name}@{image(layout, written(folder(names[0]), file(names[1])))}", tmp_path / "m"
    )
    assert (tmp_path / "m" / names[1]).read_bytes() == bytes(4)


def test_a_model_with_a_name_that_no_layer_holds_is_not_packaged(tmp_path: Path) -> None:
    fake_pipeline.write_outputs(tmp_path)
    bad = tmp_path / "artifacts/model/classifier/1/größe.onnx"
    bad.write_bytes(b"")
    with pytest.raises(DeliveryError, match=r"holds 'classifier/8/größe\.onnx': a name is"):
        package(tmp_path, 8, Layout(tmp_path / "registry"))
    assert not list((tmp_path / "registry").glob("**/*blob*"))
    bad.rename(bad.with_name("groesse.onnx"))
    package(tmp_path, 8, Layout(tmp_path / "registry"))


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))


def test_a_header_of_gigabytes_fills_no_memory(tmp_path: Path, layout: Layout) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        entry = file("a", type=kind, size=1 << 30)
        place = tmp_path / "layer"
        with place.open("wb") as stream:
            stream.write(entry.tobuf(tarfile.USTAR_FORMAT))
            stream.truncate((1 << 30) + 512)
        script = (
            "import sys; from pathlib import Path\n"
            "from delivery.oci.layer import unpack\n"
            "unpack(open(sys.argv[1], 'rb'), Path(sys.argv[2]))\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script, str(place), str(tmp_path / f"out{kind.hex()}")],
            env={"PYTHONPATH": str(TEMPLATE), "PATH": "/usr/bin:/bin"},
            preexec_fn=little_memory,
            capture_output=True,
            text=True,
        )
        assert "DeliveryError: the layer holds 'a', which is neither" in ended.stderr
