import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from delivery.__main__ import main
from delivery.commands.promote import promote
from delivery.manifests.preview_status import PreviewStatus
from fake_project import Project, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with model 1 in staging and nothing in production."""
    project = make_project(tmp_path, monkeypatch)
    project.deploy("staging", 1)
    return project


class Triton(ThreadingHTTPServer):
    """Answers as Triton does; `versions` maps versions to whether they are ready."""

    def __init__(self, versions: dict[str, bool]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.versions = versions
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
        self.send_response(200 if known or self.path in ready else 400)
        self.end_headers()
        if known:
            names = ", ".join(f'"{each}"' for each in self.server.versions)
            self.wfile.write(f'{{"name": "classifier", "versions": [{names}]}}'.encode())


@pytest.fixture
def triton(request: pytest.FixtureRequest) -> Iterator[Triton]:
    server = Triton(getattr(request, "param", {"1": True}))
    yield server
    server.shutdown()
    server.server_close()


def test_what_runs_is_what_git_wants(
    project: Project, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", f"staging={triton.address}"]) == 0
    production, staging = capsys.readouterr().out.splitlines()[-2:]
    assert "Git: model 1 (sha256:" in staging
    assert staging.endswith("running: model 1   agree")
    assert production.endswith("Git: nothing   running: unknown, no address   -")


def test_the_preview_is_found_by_itself(
    project: Project, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project.folder / ".local/preview/staging"
    PreviewStatus("staging", triton.address, triton.address).write(folder)
    assert main(["status"]) == 0
    assert "running: model 1   agree" in capsys.readouterr().out


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
    project: Project, triton: Triton, running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", f"staging={triton.address}"]) == 1
    output = capsys.readouterr()
    assert f"running: {running}   DISAGREE" in output.out
    assert "error: staging does not run what Git wants" in output.err


def test_a_server_that_is_down_is_a_disagreement(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--address", "staging=127.0.0.1:1"]) == 1
    assert "running: no answer from 127.0.0.1:1   DISAGREE" in capsys.readouterr().out


def test_a_merge_that_is_only_on_the_remote_counts(
    project: Project, triton: Triton, capsys: pytest.CaptureFixture[str]
) -> None:
    promote(project.repository)
    head = project.git("rev-parse", "HEAD")
    project.merge("release/production-v1")
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
    project: Project, capsys: pytest.CaptureFixture[str], address: str, sentence: str
) -> None:
    assert main(["status", "--address", address]) == 1
    assert sentence in capsys.readouterr().err
