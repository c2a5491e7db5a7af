"""Status: what Git wants and what runs, which has to be our model and not just anything."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from delivery.__main__ import main
from delivery.manifests import answers
from delivery.manifests.preview_status import LOCK, PreviewStatus
from delivery.model import golden
from tiny_project import TinyProject, make_project
from workspace.files import only_one

PREVIEW = Path(".local/preview/staging")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """Return a project with model 1 in staging and nothing in production."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    project = make_project(tmp_path)
    project.bump(1)
    monkeypatch.chdir(project.folder)
    return project


class Triton(ThreadingHTTPServer):
    """Answers as Triton does, with the answers that are given.

    `versions` maps versions to whether they are ready.
    """

    def __init__(self, versions: dict[str, bool], recorded: golden.Golden) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.versions = versions
        self.images = recorded.images
        self.answers = recorded.probabilities
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Triton

    def do_GET(self) -> None:
        ready = [
            f"/v2/models/classifier/versions/{each}/ready"
            for each, is_ready in self.server.versions.items()
            if is_ready
        ]
        known = self.path == "/v2/models/classifier" and self.server.versions
        names = [*self.server.versions]
        self.answer(
            200 if known or self.path in ready else 400,
            {"name": "classifier", "versions": names} if known else {"error": "unknown model"},
        )

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        image = content[int(self.headers["Inference-Header-Content-Length"]) :]
        (index,) = (n for n, each in enumerate(self.server.images) if each.tobytes() == image)
        answers = self.server.answers[index : index + 1]
        output = {"name": "probabilities", "datatype": "FP32", "shape": answers.shape}
        output["data"] = answers.ravel().tolist()
        version = next(iter(self.server.versions))
        self.answer(
            200, {"model_name": "classifier", "model_version": version, "outputs": [output]}
        )

    def answer(self, code: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def triton(request: pytest.FixtureRequest, project: TinyProject) -> Iterator[Triton]:
    recorded = golden.load(project.folder / "artifacts/model/classifier/golden.npz")
    server = Triton(getattr(request, "param", {"1": True}), recorded)
    yield server
    server.shutdown()
    server.server_close()


def test_what_runs_is_what_git_wants(
    project: TinyProject, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", f"staging={triton.address}"]) == 0
    production, staging = capsys.readouterr().out.splitlines()[-2:]
    assert "Git: model 1 (sha256:" in staging
    assert staging.endswith("running: model 1   agree")
    assert production.endswith("Git: nothing   running: unknown, no address   -")


def test_the_preview_is_found_by_itself(
    project: TinyProject, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    PreviewStatus("staging", triton.address, triton.address).write(PREVIEW)
    with only_one(PREVIEW / LOCK, "a preview runs"):
        assert main(["status"]) == 0
    assert "running: model 1   agree" in capsys.readouterr().out


def test_a_preview_that_was_killed_is_none(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    PreviewStatus("staging", "127.0.0.1:1", "127.0.0.1:2", version=1).write(PREVIEW)
    (PREVIEW / LOCK).touch()
    assert main(["status"]) == 0
    assert "running: unknown, no address   -" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "null", '{"address": 1}'])
def test_a_preview_whose_status_cannot_be_read_is_none(
    project: TinyProject, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    PREVIEW.mkdir(parents=True)
    (PREVIEW / "status.json").write_text(content)
    with only_one(PREVIEW / LOCK, "a preview runs"):
        assert main(["status"]) == 0
    assert "running: unknown, no address   -" in capsys.readouterr().out


def test_settings_of_the_network_change_nothing(
    project: TinyProject,
    triton: Triton,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert main(["status", "--address", f"staging={triton.address}"]) == 0
    assert "running: model 1   agree" in capsys.readouterr().out


def test_the_golden_requests_are_pulled_once(project: TinyProject, triton: Triton) -> None:
    address = ["--address", f"staging={triton.address}"]
    assert main(["status", *address]) == 0
    (project.folder / ".local/registry").rename(project.folder / ".local/away")
    assert main(["status", *address]) == 0
    (kept,) = answers.GOLDEN.iterdir()
    kept.write_bytes(b"half")  # then they are pulled again
    (project.folder / ".local/away").rename(project.folder / ".local/registry")
    assert main(["status", *address]) == 0


@pytest.mark.parametrize(
    ("triton", "running"),
    [
        ({"2": True}, "model 2"),
        ({"1": True, "2": True}, "model 1 and 2"),
        ({"1": False}, "nothing"),
        ({}, "nothing"),
    ],
    indirect=["triton"],
    ids=["another version", "two versions", "not ready", "no model"],
)
def test_a_disagreement_fails(
    project: TinyProject, triton: Triton, running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", f"staging={triton.address}"]) == 1
    output = capsys.readouterr()
    assert f"running: {running}   DISAGREE" in output.out
    assert "error: staging does not run what Git wants: if a merge was a moment ago" in output.err
    triton.versions = {"1": True}  # after the sync
    assert main(["status", "--address", f"staging={triton.address}"]) == 0


@pytest.mark.parametrize("triton", [{}], indirect=True)
def test_before_the_first_release_nothing_is_to_run(
    project: TinyProject, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", f"production={triton.address}"]) == 0
    assert "production  Git: nothing   running: nothing   agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answers: answers[::-1], "with other answers ("),
        (lambda answers: answers - 0.02, "with other answers (they differ by 2.0e-02)"),
        (lambda answers: answers * np.float32("nan"), "with other answers ("),
        (lambda answers: answers[:, :3], "which does not answer (the server answers with 3"),
        (lambda answers: answers[:0], "which does not answer"),
    ],
    ids=["of other pictures", "a little off", "no numbers", "of other classes", "none"],
)
def test_a_server_with_other_answers_is_not_our_model(
    project: TinyProject,
    triton: Triton,
    change: Callable[[np.ndarray], np.ndarray],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    triton.answers = change(triton.answers)
    assert main(["status", "--address", f"staging={triton.address}"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"running: model 1, {said}" in line and line.endswith("   DISAGREE")


def test_answers_that_nobody_can_compare_are_not_believed(
    project: TinyProject, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.folder / ".local/registry").rename(project.folder / ".local/away")
    assert main(["status", "--address", f"staging={triton.address}"]) == 1
    assert "model 1, whose answers cannot be compared (" in capsys.readouterr().out


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Have another program than Triton listen; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("answer", [b"OK", b"<html>Welcome</html>", b"null", b"[]", b'{"a": 1}'])
def test_a_program_that_says_yes_to_everything_is_not_believed(
    project: TinyProject, triton: Triton, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    class Yes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with listening(Yes) as address:
        assert main(["status", "--address", f"staging={address}"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"no model (what answers at {address} is not Triton" in line
    assert line.endswith("   DISAGREE")
    assert main(["status", "--address", f"staging={triton.address}"]) == 0  # another port


@pytest.mark.parametrize(("piece", "pause"), [(b" ", 0.2), (b" " * 2**16, 0.0)])
def test_an_answer_without_an_end_is_given_up(
    project: TinyProject,
    triton: Triton,
    piece: bytes,
    pause: float,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(piece)
                    time.sleep(pause)

    monkeypatch.setattr(answers, "DEADLINE", 2)
    with listening(Endless) as address:
        assert main(["status", "--address", f"staging={address}"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"no model (what answers at {address} did not come to an end within 2 s: " in line
    monkeypatch.setattr(answers, "DEADLINE", 60)
    assert main(["status", "--address", f"staging={triton.address}"]) == 0  # another port


def test_a_server_that_is_down_is_a_disagreement(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", "staging=127.0.0.1:1"]) == 1
    said = capsys.readouterr().out
    assert "running: no model (no server answers at 127.0.0.1:1" in said
    assert said.endswith("   DISAGREE\n")


def test_a_merge_that_is_only_on_the_remote_counts(
    project: TinyProject, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    head = project.git("rev-parse", "HEAD")
    project.release(project.released(), "production")
    project.git("reset", "--quiet", "--hard", head)
    assert main(["status", "--address", f"production={triton.address}"]) == 0
    assert "production  Git: model 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("staging", "'staging' is not an address: give ENVIRONMENT=HOST:PORT"),
        ("qa=127.0.0.1:1", "there is no environment 'qa'"),
    ],
)
def test_a_bad_address_is_refused(
    project: TinyProject,
    triton: Triton,
    capsys: pytest.CaptureFixture[str],
    address: str,
    sentence: str,
) -> None:
    assert main(["status", "--address", address]) == 1
    assert sentence in capsys.readouterr().err
    assert main(["status", "--address", f"staging={triton.address}"]) == 0
