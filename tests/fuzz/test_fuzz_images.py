"""Image layouts and what is in an image: index, image manifest, layer, the pipeline's account."""

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fake_pipeline
from delivery.commands import pin
from delivery.commands.pipeline import figures
from delivery.errors import DeliveryError
from delivery.model import differences, golden
from delivery.model.interface import read_interface
from delivery.model.packaging import package
from delivery.model.pipeline_outputs import ABOUT, read_account
from delivery.model.predictions import read_predictions
from delivery.oci.build import _digest
from delivery.oci.image import (
    CONFIG,
    LAYER,
    config_content,
    digest_of,
    manifest_content,
    parse_manifest,
)
from delivery.oci.layout import Layout
from delivery.oci.registry import pull
from delivery.oci.remote import Configuration
from delivery.parameters import Limits, Parameters, Target
from delivery.proposals.gate import check_gate
from delivery.proposals.texts import describe
from hostile import changed_text, files, value_or_sentence
from workspace.settings import check, parse_json, parse_texts

PARAMETERS = Parameters(
    gate=Limits(min_accuracy=0.9, min_macro_f1=0.9, tolerance=0.005),
    release=Target(registry="oci:registry"),
)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, str]:
    """A layout with one image, and its digest."""
    root = tmp_path_factory.mktemp("packaged")
    fake_pipeline.write_outputs(root)
    layout = Layout(root / "registry")
    return layout, package(root, 3, layout)


@given(data=st.data())
def test_an_index(packaged: tuple[Layout, str], data: st.DataObject) -> None:
    layout, digest = packaged
    content = layout.read_manifest(digest)
    layout.write_manifest(content, "v3")
    index = layout.folder / "index.json"
    good = index.read_bytes()
    try:
        index.write_bytes(data.draw(files(json.loads(good))))
        value_or_sentence(layout.write_manifest, content, "v3-other")
    finally:
        index.write_bytes(good)


@given(data=st.data())
def test_an_image_manifest(packaged: tuple[Layout, str], data: st.DataObject) -> None:
    layout, digest = packaged
    good = layout.read_manifest(digest)
    content = data.draw(st.one_of(files(json.loads(good)), changed_text(good)))
    value_or_sentence(parse_manifest, content, "the image")
    other = layout.path(digest_of(content))
    if other.name == digest.partition(":")[2]:
        return
    other.write_bytes(content)
    with tempfile.TemporaryDirectory() as folder:
        value_or_sentence(pull, f"{layout.name}@{digest_of(content)}", Path(folder) / "model")
    other.unlink()


def archive() -> bytes:
    """A layer with a folder and two files."""
    stream = io.BytesIO()
    with tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name in ("classifier", "classifier/1", "classifier/labels.txt", "classifier/ü"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name[-1] in "r1" else tarfile.REGTYPE
            entry.size = 0 if entry.isdir() else 5
            made.addfile(entry, io.BytesIO(b"hello"))
    return stream.getvalue()[:6000]


@given(changed_text(archive()))
def test_a_layer(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder) / "registry")
        layer = layout.add_bytes(LAYER, content)
        config = layout.add_bytes(CONFIG, config_content(layer))
        manifest = manifest_content(config, layer, "3")
        layout.write_manifest(manifest, "v3")
        model = Path(folder) / "models/3"
        value_or_sentence(pull, f"{layout.name}@{digest_of(manifest)}", model)
        outside = {path.name for path in Path(folder).iterdir()} - {"registry", "models"}
        assert not outside, "nothing is written beside the model"


def judge(folder: Path) -> None:
    """Do with an account what the commands do."""
    account = read_account(folder, {name: Path(name) for name in ABOUT})
    figures(account)
    try:
        check_gate(account, PARAMETERS, None)
    finally:
        describe(account, 3, "oci:registry@sha256:" + "1" * 64, "d" * 40)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an account, as they are in an image."""
    root = tmp_path_factory.mktemp("account")
    fake_pipeline.write_outputs(root)
    for name, path in ABOUT.items():
        (root / name).write_bytes((root / path).read_bytes())
    return root


@pytest.mark.parametrize("name", ["metrics.json", "lineage.json", "export.json", "report.json"])
@given(data=st.data())
def test_an_account(account: Path, name: str, data: st.DataObject) -> None:
    path = account / name
    good = path.read_bytes()
    try:
        path.write_bytes(data.draw(files(json.loads(good))))
        value_or_sentence(judge, account)
        others = {name: account / "good.json"}
        others[name].write_bytes(good)
        value_or_sentence(differences.compare_accounts, others, {name: path})
    finally:
        path.write_bytes(good)


PREDICTIONS = b"sha256,file,label,predicted,confidence,p_a,p_b\nab,1.png,a,b,0.9,0.1,0.9\n" * 2


@given(changed_text(PREDICTIONS))
def test_an_account_of_answers(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        path.write_bytes(content)
        value_or_sentence(read_predictions, path)


@given(changed_text(fake_pipeline.CONFIG.encode()), changed_text(b"zero\none\n"))
def test_an_interface(config: bytes, labels: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "classifier"
        model.mkdir()
        (model / "config.pbtxt").write_bytes(config)
        (model / "labels.txt").write_bytes(labels)
        value_or_sentence(read_interface, Path(folder))


@settings(max_examples=100)
@given(changed_text(b"PK\x03\x04 golden"))
def test_golden_requests(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    path.write_bytes(content)
    value_or_sentence(golden.load, path)


@given(files({"containerimage.digest": "sha256:" + "1" * 64}))
def test_the_answer_of_a_builder(content: bytes) -> None:
    value_or_sentence(_digest, content.decode(errors="replace"))


@given(files({"config": {"Labels": {"org.opencontainers.image.revision": "d" * 40}}}))
def test_the_configuration_of_a_training_image(content: bytes) -> None:
    def read() -> Any:
        return check(Configuration, parse_json(content, "it"), "it").config.labels

    value_or_sentence(read)


@given(files({"entries": {"keda": [{"version": "2.1", "digest": "sha256:" + "1" * 64}]}}))
def test_the_index_of_charts(content: bytes) -> None:
    def read() -> str:
        index = check(pin.ChartIndex, parse_texts(content, "index"), "index")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pin, "chart_index", lambda repository: index)
            return pin.chart_digest(pin.Chart(repository="x", chart="keda", version="2.1"))

    value_or_sentence(read)


def test_an_empty_index_is_cured_as_the_sentence_says(packaged: tuple[Layout, str]) -> None:
    layout, digest = packaged
    content, index = layout.read_manifest(digest), layout.folder / "index.json"
    index.write_bytes(b"")
    with pytest.raises(DeliveryError, match=r"index.json is empty; or remove it"):
        layout.write_manifest(content, "v3")
    index.unlink()
    layout.write_manifest(content, "v3")
    assert digest in index.read_text()
