"""Release files, run files and what stands beside them in Git, as anybody may commit them."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from conftest import UNBAKED
from delivery.dvc import parse_lock
from delivery.model.differences import output_hashes
from delivery.oci.signature import PublicKey, public_key, sign, verify
from delivery.proposals.config_map import parse_config_map
from delivery.proposals.release_file import Release, parse_release
from delivery.proposals.run_file import RUN_NAME, Run
from delivery.proposals.signing import Trust
from delivery.proposals.template import read_origin
from delivery.proposals.texts import describe_change
from example_release import RELEASE
from hostile import SCALARS, changed_text, files, texts, value_or_sentence
from workspace.model_code import named_code
from workspace.settings import parse_yaml

RUN = Run(run=3, image=RELEASE.image, nodes=2, commit="d" * 40)
ORIGIN = {"address": "../template", "commit": "e" * 40, "answers": {"project": "digits"}}
OUTS = [{"path": "data/prepared", "md5": "0" * 32, "size": 4}]
LOCK = {"schema": "2.0", "stages": {"prepare": {"cmd": "x", "deps": OUTS, "outs": OUTS}}}


@given(texts(RELEASE.to_yaml()))
def test_a_release_file(content: bytes) -> None:
    release = value_or_sentence(parse_release, content, "model.yaml")
    if release:
        assert parse_release(release.to_yaml(), "model.yaml") == release
        assert "`" not in release.image and release.image.isascii()
        assert describe_change(release, None)


@given(st.builds(dict, **{name: st.none() | SCALARS for name in Release.model_fields}), st.data())
def test_release_files_with_other_values(values: dict[str, Any], data: st.DataObject) -> None:
    good = RELEASE.model_dump()
    kept = data.draw(st.sets(st.sampled_from(sorted(good)), min_size=len(good) - 2))
    lines = [
        f"  {name}: {json.dumps(good[name] if name in kept else values[name])}\n" for name in good
    ]
    head = RELEASE.to_yaml().partition("  version")[0]
    value_or_sentence(parse_release, (head + "".join(lines)).encode(), "model.yaml")


SIGNATURES = Path(__file__).parents[1] / "delivery/signatures"
KEY = public_key((SIGNATURES / "sigstore-go-1.2.2.pub").read_bytes(), "signing.pub")
BUNDLE = json.loads((SIGNATURES / "sigstore-go-1.2.2.json").read_bytes())


@given(files(BUNDLE))
def test_a_signature(content: bytes) -> None:
    found = value_or_sentence(verify, content, RELEASE.digest, KEY)
    assert found is None or found.is_about(RELEASE.digest)


@given(
    files({"subject": [{"digest": {"sha256": "1" * 64}}], "predicateType": "x", "predicate": {}})
)
def test_what_somebody_signed(content: bytes) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    trust = Trust(PublicKey("signing.pub", private.public_key()))
    value_or_sentence(trust.vouches, sign(content, private), RELEASE)


@given(texts(RUN.to_yaml()))
def test_a_run_file(content: bytes) -> None:
    run = value_or_sentence(parse_config_map, Run, content, RUN_NAME, "run.yaml")
    assert run is None or parse_config_map(Run, run.to_yaml(), RUN_NAME, "run.yaml") == run


@given(files(ORIGIN))
def test_the_origin_of_a_project(content: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "is_file", lambda self: True)
        patch.setattr("workspace.settings._content", lambda path, largest: content)
        origin = value_or_sentence(read_origin, Path("/project"))
        if origin:
            content = origin.to_json().encode()
            assert read_origin(Path("/project")) == origin


@given(changed_text((UNBAKED / "dvc.yaml").read_bytes()))
def test_the_code_of_a_pipeline(content: bytes) -> None:
    def read() -> list[str]:
        return named_code(parse_yaml(content, "dvc.yaml"), "dvc.yaml")

    named = value_or_sentence(read)
    assert named is None or all(isinstance(path, str) for path in named)


@given(files({"stages": {"export": {"deps": ["src/a.py", "data/x"], "outs": [{"a": {"b": 1}}]}}}))
def test_the_code_of_a_pipeline_of_another_form(content: bytes) -> None:
    value_or_sentence(lambda: named_code(parse_yaml(content, "dvc.yaml"), "dvc.yaml"))


@given(files(LOCK))
def test_the_lock_of_a_pipeline(content: bytes) -> None:
    value_or_sentence(parse_lock, content)
    value_or_sentence(output_hashes, content)
