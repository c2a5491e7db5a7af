"""Weights learnt elsewhere: had, checked, taken up, trained head first, normalised as they were."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from pytorch_lightning.callbacks import Callback
from small_project import change, fixed, prepared_project

from classifier import data, networks, params, pretrained, training
from classifier.export import Served, to_onnx
from classifier.model import Classifier, load_model
from classifier.networks import MobileNetV3, Photographic, ResNet18, Shape
from classifier.params import Params
from workspace import files
from workspace.errors import UserError
from workspace.pictures import DOWNLOADS

NAME = "mobilenet_v3"
FILE = "weights/own.pth"
ADDRESS = "http://127.0.0.1:9/own.pth"  # nobody listens there


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are enlarged less, or the tests would take minutes."""
    monkeypatch.setattr(Photographic, "LEARNT", 32)


@pytest.fixture(scope="session")
def state() -> dict[str, torch.Tensor]:
    """Weights as they are told apart from all others."""
    torch.manual_seed(1)
    network = MobileNetV3(Shape(32, 32, 3, 7), pretrained=True).body.state_dict()
    return {
        name: weight + 0.01 if weight.is_floating_point() else weight
        for name, weight in network.items()
    }


@pytest.fixture
def root(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A prepared project with a file of weights."""
    root = prepared_project(tmp_path / "project")
    (root / FILE).parent.mkdir()
    torch.save(state, root / FILE)
    return root


def asked(root: Path, **values: Any) -> Params:
    """Parameters that start from the file."""
    sha256 = files.sha256(root / FILE)
    usual = {"network": NAME, "options": {}, "pretrained": True, "weights": FILE}
    return change(params.parse(fixed()), **usual | {"weights_sha256": sha256} | values)


def body(model: Any, state: dict[str, torch.Tensor]) -> bool:
    """Whether the model's body is that of the weights, statistics of batches included."""
    own = model.network.body.state_dict()
    names = [name for name in own if not name.startswith(f"{model.network.head_name}.")]
    return all(torch.equal(own[name], state[name]) for name in names)


def test_only_the_head_learns_at_first_and_the_lineage_names_the_weights(
    root: Path, state: dict[str, torch.Tensor]
) -> None:
    settings = asked(root, epochs=1, head_epochs=1)
    training.train(settings, root)
    model = load_model(root / training.CHECKPOINT)
    assert body(model, state)
    assert model.trained["weights"] == {"source": FILE, "sha256": files.sha256(root / FILE)}
    assert model.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    training.train(asked(root, epochs=1, head_epochs=0), root)
    assert not body(load_model(root / training.CHECKPOINT), state)


def test_the_exported_graph_takes_raw_pixels_and_enlarges_them_itself(root: Path) -> None:
    shape = Shape(12, 10, 3, 3)
    train = asked(root, network="resnet18").train
    model = Classifier(shape, train)
    model.start_from(pretrained.Weights(model.network.body.state_dict(), "", ""))
    graph = to_onnx(Served(model.eval()), shape)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = data.load_split(root, "test").images[:5]
    with torch.inference_mode():
        expected = Served(model)(torch.from_numpy(np.array(images))).numpy()
    (answers,) = session.run(None, {"image": images})
    assert session.get_inputs()[0].type == "tensor(uint8)"
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    assert len(np.unique(expected.round(3), axis=0)) > 1


def test_head_and_body_have_rates_of_their_own(root: Path) -> None:
    train = asked(root, learning_rate=0.02, body_rate=0.25).train
    model = Classifier(Shape(12, 10, 1, 3), train)
    body, head = training.Training(model, 1, 10).make_optimizer().param_groups
    assert (body["lr"], head["lr"]) == (0.005, 0.02)
    assert [weight.shape[0] for weight in head["params"]] == [3, 3]
    assert len(body["params"]) + 2 == len(list(model.parameters()))


class KilledError(Exception):
    """What stands for a kill."""


class Killer(Callback):
    """Ends the training in the middle of its third epoch."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.current_epoch == 2 and index == 1:
            raise KilledError


def test_a_run_with_all_of_it_is_taken_up_and_ends_as_an_uninterrupted_one(
    root: Path, tmp_path: Path
) -> None:
    mixed = {"colour": 0.2, "blur": 0.5, "erase": 0.2, "mixup": 0.4, "cutmix": 1.0}
    settings = asked(
        root,
        epochs=4,
        ema=0.9,
        class_weights=True,
        label_smoothing=0.1,
        augmentation=params.parse(fixed()).train.augmentation.model_copy(update=mixed),
    )
    splits, weights = training.load_splits(root), pretrained.load(settings.train, root)
    shape = training.shape_of(splits[0], data.class_names(root))

    def fit(run: str, *callbacks: Callback) -> tuple[dict[str, torch.Tensor], list[Any]]:
        folder = tmp_path / run
        model, history, _ = training.fit(
            settings, shape, *splits, folder, callbacks, weights=weights
        )
        return model.state_dict(), history.epochs

    with pytest.raises(KilledError):
        fit("killed", Killer())
    resumed, uninterrupted = fit("killed"), fit("whole")
    assert resumed[1] == uninterrupted[1] and len(resumed[1]) == 4
    assert all(torch.equal(resumed[0][name], uninterrupted[0][name]) for name in resumed[0])


def test_no_pretrained_network_begins_without_weights(root: Path, tmp_path: Path) -> None:
    settings = asked(root, epochs=1)
    splits, weights = training.load_splits(root), pretrained.load(settings.train, root)
    shape = training.shape_of(splits[0], data.class_names(root))
    run = tmp_path / "run"
    with pytest.raises(ValueError, match=r"train.pretrained is true, but no weights were given"):
        training.fit(settings, shape, *splits, run)
    whole = training.fit(settings, shape, *splits, run, weights=weights)[1].epochs
    assert training.fit(settings, shape, *splits, run)[1].epochs == whole  # is taken up


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny", "mobilenet_v3", "resnet18"])
def test_torchvisions_weights_have_an_address_and_a_checksum_and_fit(name: str) -> None:
    kind = networks.pretrainable(name)
    address = torch.hub.urlparse(pretrained.address_of(kind)).path
    assert pretrained.NAMED.search(address)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(kind.MODEL)  # of 1,000 classes
    pretrained.fitting(kind, theirs.state_dict())


def test_a_stem_follows_the_pictures(root: Path) -> None:
    strides = [
        ResNet18(Shape(side, side, 3, 2), pretrained=learnt).body.conv1.stride[0]
        for side, learnt in [(32, False), (64, False), (96, False), (32, True)]
    ]
    assert strides == [1, 1, 2, 2]


# -- what goes wrong -------------------------------------------------------------------------------


def refusal(settings: Params, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        training.train(settings, root)
    assert not (root / training.CHECKPOINT).exists()
    return str(caught.value)


def had(settings: Params, root: Path) -> bool:
    return pretrained.load(settings.train, root) is not None


def test_without_network_the_file_can_be_placed_by_hand(root: Path) -> None:
    settings = asked(root, weights=ADDRESS)
    said = refusal(settings, root)
    assert f"fetch {ADDRESS} elsewhere, place it at {DOWNLOADS / 'own.pth'} and run again" in said
    (root / DOWNLOADS).mkdir(parents=True, exist_ok=True)
    (root / FILE).rename(root / DOWNLOADS / "own.pth")
    assert had(settings, root)


def test_torchvisions_weights_are_fetched_once_and_checked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(address: str, place: str, progress: bool) -> None:
        fetched.append(address)
        Path(place).write_bytes((root / FILE).read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    settings = asked(root, weights=None, weights_sha256=None)
    said = refusal(settings, root)
    sha256 = files.sha256(root / FILE)
    assert f"has the SHA-256 {sha256} instead of 5c1a4163: remove it and put" in said
    assert had(asked(root, weights=None, weights_sha256=sha256), root)  # as it says
    assert len(fetched) == 1 and fetched[0].endswith("mobilenet_v3_large-5c1a4163.pth")


def test_weights_that_cannot_be_used_are_named_and_the_cure_works(
    root: Path, state: dict[str, torch.Tensor]
) -> None:
    said = refusal(asked(root, weights="weights/absent.pth"), root)
    assert "train.weights is 'weights/absent.pth', which cannot be read (No such file" in said
    assert had(asked(root), root)

    said = refusal(asked(root, weights_sha256=None), root)
    assert f"write `weights_sha256: {files.sha256(root / FILE)}`" in said
    assert had(asked(root, weights_sha256=files.sha256(root / FILE)), root)

    said = refusal(asked(root, weights_sha256="0" * 64), root)
    assert f"has the SHA-256 {files.sha256(root / FILE)} instead of {'0' * 64}: remove it" in said

    said = refusal(asked(root, network="resnet18"), root)
    assert f"{FILE} holds no weights of resnet18, which would have one named conv1.weight:" in said
    assert had(asked(root, network=NAME), root)

    said = refusal(asked(root, network="cnn"), root)
    assert "train.pretrained is true, but there are no weights of cnn: give one of resnet18" in said
    assert networks.pretrainable("resnet18")

    torch.save(state | {"features.0.0.weight": torch.zeros(1)}, root / FILE)
    said = refusal(asked(root), root)
    assert "features.0.0.weight has the shape (1,) instead of (16, 3, 3, 3): give the" in said


def test_an_unknown_network_is_named_all_the_same(root: Path) -> None:
    plain = asked(root, network="vgg", pretrained=False, weights=None, label_smoothing=0.1)
    assert "train.network is 'vgg': give one of linear_regression" in refusal(plain, root)


def test_a_file_of_something_else_is_refused_and_nothing_of_it_is_run(
    root: Path, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    code = io.BytesIO()
    torch.save({"conv1.weight": Code()}, code)
    for content in (code.getvalue(), pickle.dumps(Code()), b"nonsense", b""):
        (root / FILE).write_bytes(content)
        assert "holds more than weights, or is damaged" in refusal(asked(root), root)
    torch.save([1, 2], root / FILE)
    assert "holds a list: give the file of a state_dict" in refusal(asked(root), root)
    assert not (tmp_path / "ran").exists()
    torch.save({"state_dict": state}, root / FILE)  # as others keep it, beside other things
    assert had(asked(root), root)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("class_weights", {"class_weights": True}),
        ("label_smoothing", {"label_smoothing": 0.1}),
        ("augmentation.mixup", {"augmentation": {"mixup": 0.2}}),
    ],
)
def test_targets_that_a_loss_is_not_made_for_are_refused(
    name: str, values: dict[str, Any], root: Path
) -> None:
    content = fixed()
    content["train"] |= {"network": "linear_svm", "options": {}} | values
    said = refusal(params.parse(content), root)
    assert f"train.{name} is" in said and "linear_svm has no cross-entropy" in said
    content["train"] |= {"network": "logistic_regression"}
    networks.check_targets(params.parse(content).train)
