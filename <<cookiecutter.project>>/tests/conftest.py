"""A prepared project, and its parameters."""

from pathlib import Path

import pytest
from small_project import fixed, prepared_project

from classifier import params
from classifier.params import Params


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A prepared project of the test's own."""
    return prepared_project(tmp_path)


@pytest.fixture(scope="session")
def settings() -> Params:
    """The tests' parameters."""
    return params.parse(fixed())
