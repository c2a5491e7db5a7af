"""Releases that a key vouches for: in their file, beside their image, in every command."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import fake_pipeline
from delivery.__main__ import main
from delivery.checks.rehearsal import check_signature
from delivery.commands.promote import run as promote
from delivery.commands.release import run as release
from delivery.errors import DeliveryError
from delivery.manifests.preparation import Rendered, Wanted, prepare
from delivery.model.packaging import LOCAL
from delivery.oci import referrers, signature
from delivery.oci.layout import Layout
from delivery.oci.referrers import attach, attached
from delivery.oci.signature import PublicKey, SignatureError, public_key, verify
from delivery.parameters import read_parameters
from delivery.proposals.release_file import Release, parse_release
from delivery.proposals.releases import release_path
from delivery.proposals.signing import PREDICATE, Trust, read_trust, signed
from example_release import RELEASE
from fake_project import PARAMS, Project, follow, make_project
from fake_registry import FakeRegistry, Handler, alone_with_registry
from workspace.errors import UserError
from workspace.machine import this_machine

STAGING = release_path("staging")
REQUIRED = "signing_key: signing.pub, require_signature: true"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, monkeypatch)


@pytest.fixture
def key(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pair of keys as the README makes them, the public one named in params.yaml."""
    path = project.folder.parent / "signing.pem"
    make_keys(path, project.folder / "signing.pub")
    sign_with(monkeypatch, path)
    configure(project, "signing_key: signing.pub")
    return path


def make_keys(private: Path, public: Path) -> None:
    made = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out".split()
    subprocess.run([*made, str(private)], check=True, capture_output=True)
    private.chmod(0o600)
    told = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(told, check=True)


def sign_with(monkeypatch: pytest.MonkeyPatch, path: Path | None) -> None:
    monkeypatch.setenv("SIGNING_KEY", str(path or ""))
    this_machine.cache_clear()


def configure(project: Project, settings: str) -> None:
    params = PARAMS.replace("registry:", f"{settings}, registry:" if settings else "registry:")
    fake_pipeline.write(project.folder, "params.yaml", params)
    project.commit("Say whose signature counts")


def released(project: Project) -> Release:
    """Release, merge, and return what the file says."""
    release(project.repository)
    project.merge("release/staging-v1")
    return parse_release(project.show("main", STAGING), STAGING)


def tamper(project: Project, change: Release) -> None:
    fake_pipeline.write(project.folder, STAGING, change.to_yaml())
    project.commit("Edit the release file")


def trust(project: Project) -> Trust:
    return read_trust(project.repository, project.repository.fetch())


def stranger() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


# -- what works ------------------------------------------------------------------------------------


def test_a_release_is_signed_in_its_file_and_beside_its_image(
    project: Project, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = released(project)
    assert "signature: signed with signing.pub (" in capsys.readouterr().out
    assert trust(project).judge(found).startswith("signed with signing.pub (")
    (bundle,) = attached("oci:.local/registry", found.digest)
    assert bundle == found.bundle
    envelope = json.loads(bundle)["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicateType"] == PREDICATE
    assert statement["predicate"]["accuracy"] == "0.97"
    assert statement["predicate"]["commit"] == found.commit
    assert "registry" not in json.dumps(statement), "a mirror has the same signature"


def test_who_signed_what_is_told_without_a_network(
    project: Project, key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = released(project)
    project.git("remote", "set-url", "origin", "/nowhere")
    sign_with(monkeypatch, None)
    assert main(["verify", "1"]) == main(["verify", "1", "--environment", "staging"]) == 0
    line = f"model 1 ({found.digest[:19]}): signed with signing.pub ("
    assert line in capsys.readouterr().out


def test_a_release_that_is_repeated_has_the_same_signature(project: Project, key: Path) -> None:
    release(project.repository)
    first = project.show("release/staging-v1", STAGING)
    release(project.repository)
    assert project.show("release/staging-v1", STAGING) == first
    digest = parse_release(first, STAGING).digest
    assert len(attached("oci:.local/registry", digest)) == 1


def test_the_signature_goes_to_production_with_the_file(project: Project, key: Path) -> None:
    configure(project, REQUIRED)
    released(project)
    promote(project.repository)
    path = release_path("production")
    assert project.show("release/production-v1", path) == project.show("main", STAGING)


def test_a_release_without_a_key_says_that_it_is_unsigned(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    found = released(project)
    assert found.signature is None and "signature:" not in project.show("main", STAGING)
    assert "signature: unsigned" in capsys.readouterr().out
    message = project.git("log", "--all", "--format=%B", folder=project.origin)
    assert "- signature: **none**" in message
    assert check_signature(found, Trust()).detail == "unsigned"


# -- in registries ---------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    with alone_with_registry(monkeypatch, tmp_path) as server:
        yield server


def test_a_registry_that_lists_what_refers_gets_no_tag(registry: FakeRegistry) -> None:
    image = b'{"schemaVersion": 2}'
    digest = referrers.digest_of(image)
    registry.content[digest] = image
    registry.faults.append(listing)
    assert attach(registry.name, digest, b"{}") and not attach(registry.name, digest, b"{}")
    assert attached(registry.name, digest) == [b"{}"]
    assert not [tag for tag in registry.tags if tag.startswith("sha256-")]


def listing(handler: Handler) -> bool:
    """Answer as a registry with a list of referrers does."""
    server, digest = handler.server, handler.path.rpartition("/")[2]
    if handler.command == "PUT" and "/manifests/" in handler.path:
        content = handler.body()
        server.content[digest] = content
        subject = json.loads(content)["subject"]["digest"]
        handler.answer(201, OCI_Subject=subject)
        return True
    if "/referrers/" not in handler.path:
        return False
    referring = [
        {"digest": each}
        for each, content in server.content.items()
        if json.loads(content).get("subject", {}).get("digest") == digest
    ]
    handler.answer(200, json.dumps({"manifests": referring}).encode())
    return True


def test_a_registry_that_refuses_a_signature_says_so(registry: FakeRegistry) -> None:
    image = b'{"schemaVersion": 2}'
    digest = referrers.digest_of(image)
    registry.content[digest] = image

    def denied(handler: Handler) -> bool:
        if handler.command == "GET":
            return False
        handler.answer(403)
        return True

    registry.faults.append(denied)
    with pytest.raises(UserError, match=r"403.*skopeo login"):
        attach(registry.name, digest, b"{}")


def test_others_signatures_stay_beside_ours(project: Project, key: Path) -> None:
    found = released(project)
    other = signed(found, stranger())
    assert attach("oci:.local/registry", found.digest, other.bundle)
    assert attached("oci:.local/registry", found.digest) == [found.bundle, other.bundle]
    layout = Layout(project.folder / LOCAL)
    listed = json.loads((layout.folder / "index.json").read_text())["manifests"]
    assert len(listed) == 2, "the image, and one list of what refers to it"


def test_a_signature_in_the_registry_alone_is_found(
    project: Project, capsys: pytest.CaptureFixture[str], key: Path
) -> None:
    found = released(project)
    tamper(project, found.model_copy(update={"signature": None}))
    assert main(["verify", "1"]) == 0
    assert "signed with signing.pub" in capsys.readouterr().out


# -- what is refused -------------------------------------------------------------------------------


def changed(found: Release, **values: object) -> Release:
    return found.model_copy(update=values)


WRONG = {
    "unsigned": (lambda found: changed(found, signature=None), "is unsigned"),
    "wrong key": (lambda found: signed(found, stranger()), "is not one of signing.pub"),
    "figures": (lambda found: changed(found, accuracy=0.99), "accuracy is '0.99' in the release"),
    "commit": (lambda found: changed(found, commit="f" * 40), "commit is 'ffff"),
    "lineage": (lambda found: changed(found, data="f" * 64), "data is 'ffff"),
    "other digest": (
        lambda found: changed(found, image=f"oci:.local/registry@sha256:{'2' * 64}"),
        "is of another image than sha256:222222222222",
    ),
    "no bundle": (lambda found: changed(found, signature="e30="), "cannot be read"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_signature_is_a_sentence(wrong: str) -> None:
    private = stranger()
    change, sentence = WRONG[wrong]
    trust = Trust(PublicKey("signing.pub", private.public_key()), required=True)
    good = signed(RELEASE, private)
    assert trust.judge(good).startswith("signed with signing.pub (")
    with pytest.raises(SignatureError, match=sentence):
        trust.judge(change(good))
    made = check_signature(change(good), trust)
    assert not made.passed and sentence in made.detail


def test_a_tampered_release_is_neither_promoted_nor_served(
    project: Project, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "model 1: accuracy is '0.99' in the release file and '0.97' in what signing.pub ("
    tamper(project, changed(released(project), accuracy=0.99))
    with pytest.raises(DeliveryError, match=re.escape(sentence)):
        promote(project.repository)
    wanted = Wanted(project.repository, project.repository.head(), "staging", tmp_path, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("delivery.manifests.preparation.render", lambda folder: None)
        patch.setattr("delivery.manifests.preparation.read_server_pod", lambda documents: RELEASE)
        prepared = prepare(wanted)
        assert isinstance(next(prepared), Rendered)
        with pytest.raises(DeliveryError, match=re.escape(sentence)):
            next(prepared)
    capsys.readouterr()
    assert main(["verify", "1"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {sentence}") and told.count("\n") == 1


def test_an_image_that_nobody_signed_is_unsigned(
    project: Project, capsys: pytest.CaptureFixture[str], key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_with(monkeypatch, None)
    released(project)
    assert main(["verify", "1"]) == 1
    assert capsys.readouterr().err == "error: model 1 is unsigned\n"


def test_a_version_that_is_not_there_is_named(
    project: Project, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "1"]) == 1
    assert "there is no model 1 in this commit's history: `make release`" in capsys.readouterr().err
    released(project)
    assert main(["verify", "7"]) == 1
    assert "give VERSION=1" in capsys.readouterr().err
    assert main(["verify", "1"]) == 0


def test_a_required_signature_needs_its_key(
    project: Project, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(project, REQUIRED)
    sign_with(monkeypatch, None)
    before = project.branches()
    with pytest.raises(DeliveryError, match="`make release SIGNING_KEY=<private key>`"):
        release(project.repository)
    assert project.branches() == before and not (project.folder / LOCAL).exists()
    sign_with(monkeypatch, key)
    found = released(project)
    tamper(project, changed(found, signature=None))
    with pytest.raises(DeliveryError, match="releases it signed"):
        promote(project.repository)
    project.train(0.98)
    release(project.repository)


def test_what_a_wrong_key_is_told_to_do_works(
    project: Project, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = key.with_name("other.pem")
    sign_with(monkeypatch, other)
    with pytest.raises(DeliveryError, match="which cannot be read: No such file"):
        release(project.repository)
    other.write_text("no key\n")
    other.chmod(0o644)
    with pytest.raises(DeliveryError, match="others may read the private key") as open_file:
        release(project.repository)
    follow(str(open_file.value), project)
    with pytest.raises(DeliveryError, match="holds no private key") as none:
        release(project.repository)
    follow(str(none.value), project)
    other.chmod(0o600)
    with pytest.raises(DeliveryError, match="is not the private key of signing"):
        release(project.repository)
    sign_with(monkeypatch, key)
    release(project.repository)


def test_what_a_wrong_public_key_is_told_to_do_works(project: Project, key: Path) -> None:
    public = (project.folder / "signing.pub").read_bytes()
    (project.folder / "signing.pub").unlink()
    project.commit("Lose the key")
    with pytest.raises(DeliveryError, match="commit the public key there"):
        release(project.repository)
    curve = ec.generate_private_key(ec.SECP384R1())
    pem = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (project.folder / "signing.pub").write_bytes(pem)
    project.commit("Commit something else")
    with pytest.raises(DeliveryError, match="holds no public key") as wrong:
        release(project.repository)
    follow(str(wrong.value).replace("<private key>", str(key)), project)
    assert (project.folder / "signing.pub").read_bytes() == public
    project.commit("Commit the key")
    release(project.repository)


def test_a_key_that_nobody_is_told_of_is_named_first(
    project: Project, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, "")
    with pytest.raises(DeliveryError, match="commit the public key and name it there"):
        release(project.repository)
    assert main(["verify", "1"]) == 1
    assert "commit a public key and name it there" in capsys.readouterr().err
    configure(project, "signing_key: signing.pub")
    released(project)
    assert main(["verify", "1"]) == 0


def test_a_signature_cannot_be_required_of_nobody(project: Project) -> None:
    configure(project, "require_signature: true")
    with pytest.raises(UserError, match="true with a signing_key beside it"):
        read_parameters(project.folder)


# -- the format ------------------------------------------------------------------------------------


def test_what_sigstores_own_library_signed_is_read_as_ours() -> None:
    """The same statement, signed and written by sigstore-go 1.2.2, which is what cosign 3 uses."""
    files = Path(__file__).parent / "signatures"
    bundle = (files / "sigstore-go-1.2.2.json").read_bytes()
    key = public_key((files / "sigstore-go-1.2.2.pub").read_bytes(), "signing.pub")
    told = Trust(key).vouches(bundle, RELEASE)
    assert told.startswith("signed with signing.pub (")
    with pytest.raises(SignatureError, match="accuracy is '0"):
        Trust(key).vouches(bundle, changed(RELEASE, accuracy=0.5))


def test_a_signature_that_cosign_made_vouches_for_the_image() -> None:
    """Its statement has another predicate, which says nothing of the figures."""
    private = stranger()
    public = PublicKey("signing.pub", private.public_key())
    content = signature.statement(RELEASE.digest, "https://sigstore.dev/cosign/sign/v1", {})
    bundle = signature.sign(content, private)
    told = Trust(public).vouches(bundle, RELEASE)
    assert told.startswith("its image is signed with signing.pub (")


def test_every_changed_byte_of_what_was_signed_is_seen() -> None:
    private = stranger()
    public = PublicKey("signing.pub", private.public_key())
    document = json.loads(signed(RELEASE, private).bundle)
    content = bytearray(base64.b64decode(document["dsseEnvelope"]["payload"]))
    for place in range(0, len(content), 37):
        other = bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]])
        document["dsseEnvelope"]["payload"] = base64.b64encode(other).decode()
        with pytest.raises(SignatureError):
            verify(json.dumps(document).encode(), RELEASE.digest, public)
