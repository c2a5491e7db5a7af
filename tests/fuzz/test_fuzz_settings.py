"""Settings: params.yaml, variables, logins, and the door that all documents come through."""

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier import networks, params
from classifier.params import IngestParams, TuneParams
from conftest import UNBAKED
from delivery.oci.login import Login, find_login
from delivery.parameters import Parameters
from hostile import DOCUMENTS, changed_document, changed_text, files, value_or_sentence
from tuning import search_space
from workspace.errors import said, shown
from workspace.machine import Machine
from workspace.markdown import block, cell, code, table
from workspace.settings import check, parse_documents, parse_json, parse_texts, parse_yaml

TEXT = (UNBAKED / "params.yaml").read_bytes()
GOOD = parse_yaml(TEXT, "params.yaml")
NAMES = ("DEVICES", "NODES", "ACCELERATOR", "TRITON_VENV", "RAY_ADDRESS", "STORAGE", "CXX")


def read_all(content: bytes) -> None:
    """Read params.yaml as every command together does."""
    document = parse_yaml(content, "params.yaml")
    check(Parameters, document, "params.yaml")
    sections = {name: part for name, part in document.items() if name in params.SECTIONS}
    values = params.parse(sections)
    params.check(IngestParams, document.get("ingest"), "ingest")
    tune = params.check(TuneParams, document.get("tune"), "tune")
    networks.options_of(values.train.network)
    space = search_space.parse(tune.space, values.train).get(values.train.network, {})
    next(search_space.candidates(values.train.network, space, values.train, values.seed), None)


@given(changed_text(TEXT))
def test_parameters(content: bytes) -> None:
    value_or_sentence(read_all, content)


@given(changed_document(GOOD))
def test_parameters_of_another_form(document: Any) -> None:
    value_or_sentence(read_all, json.dumps(document).encode())


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=6) | st.sampled_from(["gpu", "2"])))
def test_variables(variables: dict[str, str]) -> None:
    value_or_sentence(Machine.from_environment, variables)


LOGINS = {
    "auths": {"registry.test/team": {"auth": "bWU6c2VjcmV0"}, "https://index.docker.io/v1/": {}},
    "credHelpers": {"registry.test": "none", "other.test": None},
    "credsStore": "",
}
NAMED = st.sampled_from(["registry.test/team/model", "docker.io/a", "other.test:5000/a/b"])


@given(files(LOGINS), NAMED)
def test_a_file_of_logins(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / "auth.json"
        file.write_bytes(content)
        patch.setenv("REGISTRY_AUTH_FILE", str(file))
        patch.setenv("XDG_CONFIG_HOME", folder)
        patch.setenv("DOCKER_CONFIG", folder)
        patch.setenv("PATH", folder)  # where there is no program
        found = value_or_sentence(find_login, name)
        assert found is None or isinstance(found, Login)


def plain(document: Any) -> bool:
    """Whether a document holds nothing but what passes through the door."""
    match document:
        case dict():
            return all(isinstance(key, str) and plain(value) for key, value in document.items())
        case list():
            return all(map(plain, document))
        case float():
            return math.isfinite(document)
    return document is None or (type(document) in (str, bool, int) and "\0" not in str(document))


@given(files(GOOD))
def test_the_door_of_yaml(content: bytes) -> None:
    found = value_or_sentence(parse_documents, content, "a file")
    assert found is None or plain(found)


@given(changed_text(b"a: [1, 2.5, {b: text}]\nf: |\n  block\n'g':\n- true\n- \"x\"\n- ~\n"))
def test_the_door_of_texts(content: bytes) -> None:
    def only_texts(document: Any) -> bool:
        if isinstance(document, dict):
            return all(map(only_texts, [*document, *document.values()]))
        return isinstance(document, str) or all(map(only_texts, document))

    found = value_or_sentence(parse_texts, content, "a file")
    assert found is None or only_texts(found)


@given(files(GOOD))
def test_the_door_of_json(content: bytes) -> None:
    value_or_sentence(parse_json, content, "a file")


@given(DOCUMENTS)
def test_what_is_written_is_read_again(document: Any) -> None:
    written = json.dumps(document)
    if "NaN" in written or "Infinity" in written:
        return
    for read in (parse_json, parse_yaml):
        found = value_or_sentence(read, written, "a file")
        assert found in (None, document)
    if not re.search(r"\\u(0000|d)|[0-9]{19}", written):
        assert parse_json(written, "a file") == document


@given(st.text(), st.binary())
def test_quotations(text: str, content: bytes) -> None:
    for quoted in (said(text), said(content), shown(text), cell(text), code(text)):
        assert quoted.isprintable()
    assert "`" not in said(text) + shown(text)
    assert len(shown(text)) <= 81


@given(st.text("`~\n\r\x1b x|", max_size=30))
def test_reports_keep_their_form(text: str) -> None:
    opening, *inside, closing = block(text, "diff").split("\n")
    assert opening == f"{closing}diff"
    assert not any(line.strip().startswith(closing) for line in inside)
    assert code(text).strip("`").count("`" * (len(code(text)) - len(code(text).lstrip("`")))) == 0
    assert table(["a"], [[cell(text)]]).count("\n") == 3
