"""A prepared project, and its parameters; no repository of which a hook of Git's runs the tests."""

import os
from pathlib import Path

import pytest
from small_project import fixed, prepared_project

from classifier import params
from classifier.params import Params
from workspace.root import git_variables

for variable in git_variables():
    os.environ.pop(variable, None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A prepared project of the test's own."""
    return prepared_project(tmp_path)


@pytest.fixture(scope="session")
def settings() -> Params:
    """The tests' parameters."""
    return params.parse(fixed())
