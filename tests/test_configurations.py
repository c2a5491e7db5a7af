"""A project's own tests pass whatever its owner sets in params.yaml; as generated, elsewhere."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Project, cookiecutter

# The tests of a project to which its params.yaml can make a difference.
READERS = {"tests/test_params.py"}

FLOORS = {"min_accuracy": 0.5, "min_macro_f1": 0.4, "tolerance": 0.02}
NO_AUGMENTATION = {"shift": 0.0, "rotate": 0.0, "scale": 0.0, "flip": False}

# What owners set, by section; each as the README advises for some purpose.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "pictures of one's own, in colour and of mixed sizes": {
        "prepare": {"source": "folder", "image_size": [64, 48], "channels": 3},
        "train": {"batch_size": 32, "augmentation": {"flip": True, "rotate": 20}},
    },
    "a larger network, stopped early, on a GPU": {
        "train": {
            **{"network": "resnet18", "options": {}, "optimizer": "sgd", "patience": 3},
            **{"precision": "bf16-mixed", "threads": None, "data_on_device": False},
        },
        "release": {"registry": "registry.example/team/model"},
    },
    "a linear network on the whole set at once": {
        "train": {
            **{"network": "logistic_regression", "options": {"c": 2.0}, "optimizer": "lbfgs"},
            **{"schedule": "constant", "learning_rate": 1.0, "batch_size": 100000, "epochs": 20},
            **{"weight_decay": 0.0, "augmentation": NO_AUGMENTATION, "channels_last": False},
        },
        "evaluate": {"bootstrap_samples": 100, "confidence": 0.8, "calibration_bins": 5},
        "export": {"tolerance": 0.01, "golden_images": 8},
    },
    "photographs by weights learnt elsewhere, in fewer bits": {
        "prepare": {"source": "folder", "official_test": "test", "image_size": [224, 224]},
        "train": {
            **{"network": "efficientnet_b0", "options": {}, "pretrained": True, "ema": 0.99},
            **{"augmentation": NO_AUGMENTATION | {"flip": True, "cutmix": 1.0}},
            **{"label_smoothing": 0.1, "learning_rate": 0.001, "epochs": 12},
        },
        "export": {"precision": "int8", "calibration_pictures": 64, "tolerance": 0.001},
        "release": {"registry": "ghcr.io/acme/model", "soak": 4, "require_healthy": True},
    },
    "another seed, other shares, lower floors, a search of one's own": {
        "seed": 7,
        "prepare": {"validation_share": 0.3, "test_share": 0.3, "near_duplicate_rms": 0.0},
        "train": {"network": "mlp", "options": {"width": 64}, "epochs": 1, "deterministic": False},
        "tune": {"trials": 3, "space": {"mlp": {"learning_rate": {"choice": [0.1, 0.2]}}}},
        "ingest": {"min_confidence": 0.9},
        "gate": FLOORS,
    },
}


def set_values(place: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and name not in ("options", "space"):
            set_values(place[name], value)
        else:
            place[name] = value


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose parameters each test sets."""
    output = tmp_path_factory.mktemp("configured")
    assert cookiecutter(output).returncode == 0
    (folder,) = output.iterdir()
    return Project(folder)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_projects_own_tests_pass_as_its_owner_configures_it(
    name: str, generated: Project, tmp_path: Path
) -> None:
    """Those that read it: a test of the generated project sees that no other test does."""
    project = Project(tmp_path / "project")
    shutil.copytree(generated.folder, project.folder)
    path = project.folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    set_values(content, CONFIGURATIONS[name])
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *READERS)
    result = project.run(*command, PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")
    assert result.returncode == 0, result.stdout[-6000:]
    assert " passed" in result.stdout and "failed" not in result.stdout
