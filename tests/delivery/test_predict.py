"""Pictures classified through a running Triton."""

import json
import runpy
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient

from conftest import UNBAKED
from delivery.__main__ import main
from delivery.commands import predict
from delivery.errors import DeliveryError
from delivery.model import golden
from delivery.parameters import Pictures
from delivery.triton.loopback import HOST
from delivery.triton.server import Ports, Server, choose, ready_path, start
from tiny import SHAPE, write_repository

CLIENT = UNBAKED / "serving/client.py"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("model"), version=3)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    running = start(repository, repository.parent / "triton.log")
    try:
        running.wait(ready_path(3), 300)
        yield running
    finally:
        running.kill()


def arguments(server: Server, *more: object) -> list[str]:
    ports = [f"--http-port={server.ports.http}", f"--grpc-port={server.ports.grpc}"]
    return ["predict", *ports, *map(str, more)]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_recorded_class_comes_first(
    server: Server,
    repository: Path,
    tmp_path: Path,
    protocol: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It does in `make predict` and in the client that others copy."""
    recorded = golden.load(repository / "classifier" / "golden.npz")
    files = [tmp_path / f"{index}.png" for index in range(4)]
    for file, pixels in zip(files, recorded.images, strict=False):
        Image.fromarray(pixels[..., 0]).save(file)
    assert main(arguments(server, f"--protocol={protocol}", "--top=2", *files)) == 0
    printed = capsys.readouterr().out.splitlines()
    for file, line, answer in zip(files, printed, recorded.probabilities, strict=False):
        first, second = np.argsort(answer)[:-3:-1]
        assert line == (
            f"{file}: class {first} {answer[first]:.1%}, class {second} {answer[second]:.1%} "
            "(version 3)"
        )
    address = f"{protocol}://{HOST}:{getattr(server.ports, protocol)}"
    told = runpy.run_path(str(CLIENT))["classify"](address, files, top=2)
    for classes, answer in zip(told, recorded.probabilities, strict=False):
        order = np.argsort(answer)[:-3:-1]
        assert [label for label, _ in classes] == [f"class {index}" for index in order]
        assert [share for _, share in classes] == pytest.approx(answer[order], abs=1e-5)


def test_the_client_that_others_copy_waits_for_no_call_for_ever(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's client over gRPC would, without a limit for each call."""
    limits = []

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **named: Any) -> Any:
            limits.append(named.get("client_timeout"))
            return call(*arguments, **named)

        return noting

    for name in ("get_model_metadata", "infer"):
        call = getattr(InferenceServerClient, name)
        monkeypatch.setattr(InferenceServerClient, name, noted(call))
    Image.new("L", SHAPE[1::-1]).save(tmp_path / "cat.png")
    address = f"grpc://{HOST}:{server.ports.grpc}"
    assert list(runpy.run_path(str(CLIENT))["classify"](address, [tmp_path / "cat.png"]))
    assert limits == [60.0, 60.0]


class Bumped(BaseHTTPRequestHandler):
    """A server that closes the connection at the first question, and answers the next as told."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, {"inputs": [{"name": "image", "shape": [-1, *SHAPE]}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.questions.append((self.client_address, body))  # type: ignore[attr-defined]
        status = self.server.statuses.pop(0)  # type: ignore[attr-defined]
        if status:
            binary = b"\x09\0\0\0" + b"0.9:0:cat"
            output = {"name": "probabilities", "datatype": "BYTES", "shape": [1, 1]}
            output["parameters"] = {"binary_data_size": len(binary)}
            self.answer(status, {"outputs": [output]}, binary)
        else:
            self.close_connection = True

    def answer(self, status: int, document: dict, binary: bytes = b"") -> None:
        head = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Inference-Header-Content-Length", str(len(head)))
        self.send_header("Content-Length", str(len(head + binary)))
        self.end_headers()
        self.wfile.write(head + binary)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("statuses", "questions"), [([0, 200], 2), ([0, 0], 2), ([400], 1)], ids=str
)
def test_the_client_that_others_copy_asks_twice_where_a_connection_is_closed(
    tmp_path: Path, statuses: list[int], questions: int
) -> None:
    Image.new("L", SHAPE[1::-1]).save(tmp_path / "cat.png")
    answered = statuses[-1] == 200
    with ThreadingHTTPServer((HOST, 0), Bumped) as web:
        web.questions, web.statuses = [], statuses  # type: ignore[attr-defined]
        threading.Thread(target=web.serve_forever, daemon=True).start()
        told = runpy.run_path(str(CLIENT))["classify"](
            f"http://{HOST}:{web.server_port}", [tmp_path / "cat.png"], top=1
        )
        if answered:
            assert list(told) == [[("cat", 0.9)]]
        else:
            with pytest.raises(Exception, match=r"400|closed"):
                list(told)
        web.shutdown()
    asked = {address for address, _ in web.questions}  # type: ignore[attr-defined]
    assert len(asked) == questions


@pytest.mark.parametrize(("options", "brightest"), [([], 16), (["--white=4095"], 255)])
def test_the_client_that_others_copy_is_told_what_is_white(
    options: list[str], brightest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    deep = np.linspace(0, 4095, SHAPE[0] * SHAPE[1]).astype(np.uint16).reshape(SHAPE[:2])
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with ThreadingHTTPServer((HOST, 0), Bumped) as web:
        web.questions, web.statuses = [], [200]  # type: ignore[attr-defined]
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://{HOST}:{web.server_port}"
        monkeypatch.setattr("sys.argv", ["client.py", address, f"{tmp_path}/deep.png", *options])
        runpy.run_path(str(CLIENT), run_name="__main__")
        web.shutdown()
    assert capsys.readouterr().out == f"{tmp_path}/deep.png: cat 90.0%\n"
    ((_, body),) = web.questions  # type: ignore[attr-defined]
    assert max(body[-deep.size :]) == brightest


def test_other_sizes_and_modes_are_converted_and_told(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "large.jpg"
    Image.new("CMYK", (60, 40)).save(file)
    assert main(arguments(server, file)) == 0
    assert f"{file}: resized from 60x40 to 6x8" in capsys.readouterr().err


def test_colour_models_get_colour(tmp_path: Path) -> None:
    file = tmp_path / "grey.png"
    Image.new("L", (5, 4), 9).save(file)
    image = predict.read(file, (4, 5, 3), Pictures())
    assert image.shape == (4, 5, 3) and (image == 9).all()


def test_channels_that_no_file_has(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="the model takes pictures of 7 channels"):
        predict.read(tmp_path / "any.png", (4, 5, 7), Pictures())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(None, "there is no file", id="missing"),
        pytest.param(b"hello", "is no picture that can be read", id="text"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n\x00\x00", "is no picture that can be read", id="truncated"
        ),
    ],
)
def test_files_without_an_image(
    server: Server,
    tmp_path: Path,
    content: bytes | None,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "bad.png"
    if content is not None:
        file.write_bytes(content)
    assert main(arguments(server, file)) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and sentence in printed and str(file) in printed


def test_one_bad_file_among_many_costs_the_others_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a.png", "bad.png", "my photo (1).png", "b.png"]
    for name in names:
        Image.new("L", SHAPE[1::-1]).save(tmp_path / name)
    (tmp_path / "bad.png").write_text("hello")
    listed = " ".join(str(tmp_path / name) for name in [*names, "absent.png"])
    assert main(arguments(server, listed)) == 1  # as make hands it on
    printed = capsys.readouterr()
    good = [line.partition(": ")[0] for line in printed.out.splitlines()]
    assert good == [str(tmp_path / name) for name in names if name != "bad.png"]
    first, second = printed.err.removeprefix("error: ").splitlines()
    assert first.startswith(f"{tmp_path}/bad.png is no picture that can be read: not a picture in ")
    assert second.strip() == f"there is no file {tmp_path}/absent.png"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.png", ["a.png"]),
        ("my photo (1).png", ["my photo (1).png"]),
        ("a.png my photo (1).png b.png", ["a.png", "my photo (1).png", "b.png"]),
        ("'my photo (1).png' a.png", ["my photo (1).png", "a.png"]),
        ("*.png", ["a.png", "b.png", "it's.png", "my photo (1).png"]),
        ("a***.png", ["a.png"]),
        ("my photo*", ["my photo (1).png"]),
        ("it's.png b.png", ["it's.png", "b.png"]),
        ("none.png  a.png", ["none.png", "a.png"]),
        (" ".join(["a.png"] * 2000), ["a.png"] * 2000),
    ],
)
def test_a_list_of_files_may_have_blanks_in_their_names(
    text: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "it's.png", "my photo (1).png"):
        (tmp_path / name).touch()
    assert predict.files(text) == [Path(name) for name in found]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_server(
    repository: Path, tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "image.png"
    Image.new("L", SHAPE[1::-1]).save(file)
    ports = choose(Ports())
    options = [f"--http-port={ports.http}", f"--grpc-port={ports.grpc}", f"--protocol={protocol}"]
    assert main(["predict", *options, str(file)]) == 1
    assert "start one with `make serve`" in capsys.readouterr().err
    running = start(repository, tmp_path / "triton.log", ports)  # as `make serve` does
    try:
        running.wait(ready_path(3), 300)
        assert main(["predict", *options, str(file)]) == 0
    finally:
        running.kill()
