"""The real Triton on this machine: right answers, clear refusals, clean ends."""

import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from conftest import TEMPLATE, mark_root
from delivery.commands import serve
from delivery.errors import DeliveryError
from delivery.model import golden
from delivery.triton import installation
from delivery.triton.client import PROTOCOLS, Client, connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Ports, Server, choose, ready_path, start, sweep, translate
from tiny import CLASSES, SHAPE, graph, processes, write_repository
from workspace.machine import this_machine


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    running = start(repository, repository.parent / "triton.log")
    try:
        running.wait(ready_path(1), 300)
        yield running
    finally:
        running.kill()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_served_answers_are_the_recorded_ones(
    server: Server, repository: Path, protocol: str, batch: int
) -> None:
    recorded = golden.load(repository / "classifier" / "golden.npz")
    with connect(protocol, server.ports) as client:
        result = golden.compare(client, recorded, batch)
    assert result.passed, result
    assert (result.images, result.accuracy, result.versions) == (70, 1.0, {1})


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("images", "named"),
    [
        pytest.param(np.zeros((1, 8, 8, 1), np.uint8), "shape", id="wrong-width"),
        pytest.param(np.zeros((1, *SHAPE), np.float32), "data-type", id="wrong-type"),
        pytest.param(np.zeros((33, *SHAPE), np.uint8), "batch-size", id="too-many-images"),
    ],
)
def test_bad_requests_are_refused_by_name(
    server: Server, protocol: str, images: np.ndarray, named: str
) -> None:
    status = {"http": "400", "grpc": "StatusCode.INVALID_ARGUMENT"}[protocol]
    with connect(protocol, server.ports) as client:
        with pytest.raises(DeliveryError, match=f"the server refused .*{named}") as refusal:
            client.infer(images)
        assert status in str(refusal.value)
        answer = client.infer(np.zeros((2, *SHAPE), np.uint8))
    assert answer.probabilities.shape == (2, CLASSES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_larger_than_wanted_is_refused_unread(server: Server, protocol: str) -> None:
    address = f"{HOST}:{getattr(server.ports, protocol)}"
    picture = np.zeros((1, *SHAPE), np.uint8)
    with Client(protocol, address, largest=4096) as client:
        assert client.infer(picture).probabilities.shape == (1, CLASSES)
    with (
        Client(protocol, address, largest=8) as client,
        pytest.raises(DeliveryError, match=r"(?i)bytes and at most 8 are read|larger than max"),
    ):
        client.infer(picture)


def test_folders_may_have_any_name(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my models; $HOME 'quoted' & (more)"
    shutil.copytree(repository, folder)
    server = start(folder, tmp_path / "log")
    try:
        server.wait(ready_path(1), 120)
        with connect("grpc", server.ports) as client:
            assert client.infer(np.zeros((1, *SHAPE), np.uint8)).version == 1
    finally:
        server.kill()


def test_many_clients_share_batches_and_get_their_own_answers(
    server: Server, repository: Path
) -> None:
    recorded = golden.load(repository / "classifier" / "golden.npz")
    results = golden.compare_together(server.ports, recorded, batch=3, clients=8)
    assert all(result.passed for result in results)


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_only_the_loopback_address_is_listened_to(server: Server, name: str) -> None:
    port = getattr(server.ports, name)
    socket.create_connection((HOST, port)).close()
    with pytest.raises(ConnectionRefusedError):  # as it would not be if it listened everywhere
        socket.create_connection(("127.0.0.2", port))


def test_a_golden_file_of_another_model_is_named(server: Server, repository: Path) -> None:
    recorded = golden.load(repository / "classifier" / "golden.npz")
    other = golden.Golden(recorded.images, recorded.probabilities[:, :3], recorded.labels)
    with (
        connect("grpc", server.ports) as client,
        pytest.raises(DeliveryError, match="5 classes, the golden requests with 3"),
    ):
        golden.compare(client, other, 7)


def test_another_answer_is_not_passed(server: Server, repository: Path) -> None:
    recorded = golden.load(repository / "classifier" / "golden.npz")
    shifted = golden.Golden(recorded.images, recorded.probabilities + 2e-4, recorded.labels)
    with connect("grpc", server.ports) as client:
        result = golden.compare(client, shifted, 32)
    assert not result.passed and result.equal == 70


def test_graphs_in_fewer_bits_say_how_far_machines_round_apart(tmp_path: Path) -> None:
    file = write_repository(tmp_path) / "classifier/golden.npz"
    recorded = golden.load(file)
    assert recorded.tolerance == golden.TOLERANCE
    for told, taken in ((0.01, 0.01), (0.9, golden.LOOSEST)):
        arrays = {name: value for name, value in vars(recorded).items() if name != "tolerance"}
        np.savez(file, **arrays, tolerance=told)
        some = golden.load(file).some(3)
        assert (len(some.images), some.tolerance) == (3, taken)
        shared = {"images": 3, "equal": 3, "accuracy": 1.0, "versions": frozenset({1})}
        for difference in (taken, np.nextafter(taken, 1)):
            compared = golden.Comparison(
                **shared, difference=difference, latencies=(), tolerance=taken
            )
            assert compared.passed == (difference == taken)


# -- what cannot be served: one sentence each ------------------------------------------------------


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="run `make pipeline` first"):
        start(tmp_path, tmp_path / "log")
    write_repository(tmp_path)
    start(tmp_path, tmp_path / "log").kill()


def asked(server: Server, file: Path, version: int = 1) -> "subprocess.CompletedProcess[str]":
    """Ask a server the golden requests of a file as a cluster asks a new version's pods."""
    where = {"HOST": HOST, "PORT": str(server.ports.http)}
    known = {f"TRITON_CANARY_SERVICE_{name}": value for name, value in where.items()}
    return subprocess.run(
        ["python3", "-I", TEMPLATE / "argocd/triton/golden_answers.py", file, str(version), "0"],
        env=os.environ | known | {"http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )


def test_a_cluster_finds_the_recorded_answers(server: Server, repository: Path) -> None:
    result = asked(server, repository / "classifier/golden.npz")
    assert (result.returncode, result.stdout) == (0, "all of 70 answers are as recorded\n")


@pytest.mark.parametrize("wrong", ["class", "probability", "number", "classes"])
def test_a_cluster_finds_one_answer_that_is_not_the_recorded_one(
    server: Server, repository: Path, tmp_path: Path, wrong: str
) -> None:
    recorded = dict(np.load(repository / "classifier/golden.npz"))
    probabilities = recorded["probabilities"]
    if wrong == "class":
        probabilities[3] = probabilities[3][::-1]
    elif wrong == "classes":
        recorded["probabilities"] = probabilities[:, :3]
    else:
        probabilities[3, 0] += {"probability": 2e-4, "number": np.nan}[wrong]
    np.savez(tmp_path / "golden.npz", **recorded)
    result = asked(server, tmp_path / "golden.npz")
    count = 70 if wrong == "classes" else 1
    assert result.returncode == 1
    assert result.stderr.startswith(f"{count} of 70 answers are not as recorded: class ")
    if wrong == "probability":  # fewer bits say what differs by how much
        np.savez(tmp_path / "golden.npz", **recorded, tolerance=3e-4)
        assert not asked(server, tmp_path / "golden.npz").returncode


READ_MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (64 * 2**20, 64 * 2**20))
sys.path.insert(0, sys.argv[1])
from golden_answers import requests
shape, pictures, recorded, _ = requests(sys.argv[2])
print(shape, len(recorded), sum(map(len, pictures)) / 2**20)
"""


def test_a_cluster_reads_more_pictures_than_its_memory_holds(tmp_path: Path) -> None:
    """Their limits, 512 MiB and 1 GiB, are fewer bytes than a golden.npz may have."""
    images = np.zeros((100, 1024, 1024, 1), np.uint8)
    np.savez_compressed(tmp_path / "golden.npz", images=images, probabilities=np.zeros((100, 2)))
    scripts = TEMPLATE / "argocd/triton"
    command = [sys.executable, "-c", READ_MANY, scripts, tmp_path / "golden.npz"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "[1, 1024, 1024, 1] 100 100.0\n", result.stderr


def probed(
    file: Path, port: int, scripts: Path, version: int = 1
) -> "subprocess.CompletedProcess[str]":
    """Ask whatever serves at a port one recorded request, as component `probe` does."""
    for name in ("triton/golden_answers.py", "components/probe/probe.py"):
        shutil.copy(TEMPLATE / "argocd" / name, scripts)
    known = {"TRITON_SERVICE_HOST": HOST, "TRITON_SERVICE_PORT": str(port)}
    return subprocess.run(
        ["python3", scripts / "probe.py", file, str(version)],
        env=os.environ | known | {"http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )


def test_a_probe_finds_an_answer_that_is_not_the_recorded_one(
    server: Server, repository: Path, tmp_path: Path
) -> None:
    recorded, port = repository / "classifier/golden.npz", server.ports.http
    assert re.match(
        r"picture \d+ is answered as recorded$", probed(recorded, port, tmp_path).stdout
    )
    arrays = dict(np.load(recorded))
    arrays["probabilities"] = arrays["probabilities"][:, ::-1]
    np.savez(tmp_path / "golden.npz", **arrays)
    wrong = probed(tmp_path / "golden.npz", port, tmp_path)
    assert wrong.returncode == 1
    assert re.match(r"picture \d+ is not answered as recorded: class \d", wrong.stderr)
    other = probed(tmp_path / "golden.npz", port, tmp_path, version=2)
    assert (other.returncode, other.stdout) == (0, "model 1 answers, and not model 2\n")


def test_a_probe_that_gets_no_answer_says_so(
    server: Server, repository: Path, tmp_path: Path
) -> None:
    recorded = repository / "classifier/golden.npz"
    nobody = probed(recorded, choose(Ports()).http, tmp_path)
    assert nobody.returncode == 1 and nobody.stderr.startswith("no answer: <urlopen error")
    arrays = dict(np.load(recorded))
    np.savez(tmp_path / "golden.npz", **arrays | {"images": arrays["images"][:, :, :-1]})
    refused = probed(tmp_path / "golden.npz", server.ports.http, tmp_path)
    assert refused.returncode == 1 and refused.stderr.startswith("no answer: 400 ")


def test_a_cluster_that_asks_a_version_which_is_not_there_says_so(
    server: Server, repository: Path
) -> None:
    result = asked(server, repository / "classifier/golden.npz", version=2)
    assert result.returncode == 1
    assert result.stderr.startswith("the new pods give no answer: 404 ")


def test_more_golden_requests_than_are_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_repository(tmp_path) / "classifier/golden.npz"
    many = golden.load(file)
    with zipfile.ZipFile(file) as archive:
        size = sum(part.file_size for part in archive.infolist())
    monkeypatch.setattr(golden, "LARGEST", size - 1)
    with pytest.raises(DeliveryError, match=r"set export\.golden_images lower and run"):
        golden.load(file)
    few = many.some(1)
    np.savez(file, images=few.images, probabilities=few.probabilities, labels=few.labels)
    assert len(golden.load(file).images) == 1


@pytest.mark.parametrize("content", [None, b"PK"], ids=["missing", "damaged"])
def test_golden_requests_that_the_pipeline_writes_again_are_read(
    content: bytes | None, tmp_path: Path
) -> None:
    file = write_repository(tmp_path) / "classifier/golden.npz"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(DeliveryError, match=r"golden\.npz.*: run `make pipeline`"):
        golden.load(file)
    shutil.rmtree(tmp_path / "classifier")
    write_repository(tmp_path)
    assert len(golden.load(file).images)


def failure(repository: Path) -> str:
    server = start(repository, repository / "triton.log")
    try:
        with pytest.raises(DeliveryError, match="Triton ended: ") as error:
            server.wait(ready_path(1), 300)
    finally:
        server.kill()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = "error: creating server: long ago\n" + "nothing\n" * 20_000
    ended: Any = SimpleNamespace(poll=lambda: 1)
    for last in ("error: creating server: just now\n", "the last line\n"):
        log.write_text(told + last)
        reason = last.removeprefix("error: creating server: ").strip()
        assert Server(ended, Ports(), log, tmp_path).reason() == f"ended: {reason}"


def test_corrupt_onnx(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    (tmp_path / "classifier/1/model.onnx").write_bytes(b"not a graph")
    assert "Protobuf parsing failed" in failure(tmp_path)


def test_broken_configuration(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    (tmp_path / "classifier/config.pbtxt").write_text('name: "classifier"\nbackend: 7\n')
    assert "config.pbtxt" in failure(tmp_path)


SHAPED = r"model 'classifier', tensor '{}': the model expects {} dimensions \(shape {}\) but the "
IMAGE, PROBABILITIES = "[-1, 8, 6, 1]", "[-1, 5]"
OTHERS = {  # what is changed in config.pbtxt: how the real backend refuses it
    ("dims: [ 8, 6, 1 ]", "dims: [ 8, 7, 1 ]"): SHAPED.format("image", 4, re.escape(IMAGE)),
    ("dims: [ 8, 6, 1 ]", "dims: [ 8, 6 ]"): SHAPED.format("image", 4, re.escape(IMAGE)),
    ("dims: [ 5 ]", "dims: [ 4 ]"): SHAPED.format("probabilities", 2, re.escape(PROBABILITIES)),
    ("dims: [ 5 ]", "dims: [ -1 ]"): SHAPED.format("probabilities", 2, re.escape(PROBABILITIES)),
    ("TYPE_UINT8", "TYPE_FP32"): "expects datatype TYPE_FP32 for input 'image', model provides "
    "TYPE_UINT8",
    ("TYPE_FP32", "TYPE_FP16"): "expects datatype TYPE_FP16 for output 'probabilities', model "
    "provides TYPE_FP32",
    ('name: "image"', 'name: "picture"'): "unexpected inference input 'picture', allowed inputs "
    "are: image",
    ('name: "probabilities"', 'name: "scores"'): "unexpected inference output 'scores', allowed "
    "outputs are: probabilities",
    ("input [ {", "input [ { name: 'mask' data_type: TYPE_UINT8 dims: [ 1 ] }, {"): "configuration "
    "expects 2 inputs, model provides 1",
    ("KIND_AUTO", "KIND_GPU"): "has kind KIND_GPU but no GPUs are available",
}


def changed(repository: Path, folder: Path, change: tuple[str, str]) -> Path:
    """A copy of a model repository with something else in its configuration."""
    shutil.copytree(repository, folder)
    file = folder / "classifier/config.pbtxt"
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    return folder


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The local backend outside of Triton."""
    inside = SimpleNamespace(TritonModelException=ValueError)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", inside)
    yield importlib.import_module("delivery.triton.onnxruntime_backend")
    del sys.modules["delivery.triton.onnxruntime_backend"]


def initialize(backend: Any, repository: Path) -> None:
    """Load a model as Triton does."""
    text = (repository / "classifier/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    as_json = json_format.MessageToJson(config, preserving_proto_field_name=True)
    backend.TritonPythonModel().initialize(
        {
            "model_config": as_json,
            "model_name": "classifier",
            "model_repository": str(repository / "classifier"),
            "model_version": "1",
            "model_instance_kind": "GPU" if "KIND_GPU" in text else "CPU",
        }
    )


def test_another_configuration_is_refused_as_by_the_real_backend(
    backend: Any, repository: Path, tmp_path: Path
) -> None:
    initialize(backend, repository)
    for number, (change, sentence) in enumerate(OTHERS.items()):
        with pytest.raises(ValueError, match=sentence):
            initialize(backend, changed(repository, tmp_path / str(number), change))


def test_a_graph_without_batches_is_refused(backend: Any, tmp_path: Path) -> None:
    write_repository(tmp_path)
    fixed = graph(0)
    for tensor in (*fixed.graph.input, *fixed.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, tmp_path / "classifier/1/model.onnx")
    with pytest.raises(ValueError, match="first dimension must be -1; but shape expected by the"):
        initialize(backend, tmp_path)


@pytest.mark.parametrize("change", [*OTHERS][1:5:2] + [*OTHERS][-1:], ids=" ".join)
def test_a_server_with_another_configuration_ends_with_that_sentence(
    repository: Path, tmp_path: Path, change: tuple[str, str]
) -> None:
    found = failure(changed(repository, tmp_path / "models", change))
    assert re.search(rf"Triton ended: .*{OTHERS[change]}", found), found


def test_version_that_never_becomes_ready(server: Server) -> None:
    with pytest.raises(DeliveryError, match="versions/9/ready did not answer within"):
        server.wait(ready_path(9), 0.2)


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_busy_port_is_named(repository: Path, tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeliveryError, match=f"the {name} port {port} .*{name.upper()}_PORT"):
            start(repository, tmp_path / "log", Ports(**{name: port}))
        assert getattr(choose(Ports()), name) != port  # another one
    assert getattr(choose(Ports(**{name: port})), name) == port  # nothing listens there any more


def test_nobody_else_is_given_the_ports_of_a_server_that_starts(
    repository: Path, tmp_path: Path
) -> None:
    """Another server there would be taken for this one."""
    with start(repository, tmp_path / "log") as server:
        for port in vars(server.ports).values():
            with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
                other.bind((HOST, port))
        server.wait(ready_path(1), 300)
        for protocol in PROTOCOLS:
            with connect(protocol, server.ports) as client:
                assert client.infer(np.zeros((1, *SHAPE), np.uint8)).version == 1
    assert choose(server.ports) == server.ports


def test_missing_environment(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_VENV", "nowhere")
    with pytest.raises(DeliveryError, match="nowhere: run `make setup`"):
        start(repository, repository / "log")


@pytest.mark.parametrize("before", ["nothing", "an environment without the package"])
def test_an_environment_that_was_set_up_is_found(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, place = this_machine().triton_venv.absolute(), tmp_path / "venv"
    if before != "nothing":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    monkeypatch.setenv("TRITON_VENV", str(place))
    this_machine.cache_clear()
    with pytest.raises(DeliveryError, match="run `make setup`"):
        installation.installation()
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(made)  # what `make setup` makes
    assert installation.installation().server.is_file()


def test_missing_shared_library_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"sudo apt install libpython9\.99"):
        installation.check_shared_library(tmp_path, "libpython9.99.so.1.0")
    maps = Path("/proc/self/maps").read_text().split()
    library = next(path for path in maps if "/libc.so" in path)  # one that is installed
    (tmp_path / "libpython9.99.so.1.0").symlink_to(library)
    installation.check_shared_library(tmp_path, "libpython9.99.so.1.0")


@pytest.mark.parametrize("found", ["glibc 2.31", "glibc 1.99", ""])
def test_old_c_library(found: str) -> None:
    with pytest.raises(DeliveryError, match=r"needs glibc 2\.35 or newer"):
        installation.check_glibc(found)
    installation.check_glibc("glibc 2.36")  # of Debian 12


def test_recent_c_library() -> None:
    installation.check_glibc("glibc 2.35")


def test_container_arguments_are_translated() -> None:
    written = [
        "--model-repository=/models",
        "--allow-client-shm=false",
        "--http-port",
        "8000",
        "--model-control-mode=none",
        "--exit-timeout-secs",
        "20",
    ]
    kept = ["--model-control-mode=none", "--exit-timeout-secs", "20"]
    assert translate(written) == kept


def test_argument_that_triton_does_not_know(repository: Path, tmp_path: Path) -> None:
    server = start(repository, tmp_path / "log", arguments=["--no-such-thing"])
    with (
        server,
        pytest.raises(DeliveryError, match="unrecognized option '--no-such-thing'"),
    ):
        server.wait(ready_path(1), 300)


# -- the machine around it -------------------------------------------------------------------------

PROXIES = {
    name: "http://127.0.0.1:9"
    for each in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
    for name in (each, each.upper())
}


def test_settings_of_the_network_change_nothing_on_loopback(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (PROXIES | {"NO_PROXY": "", "no_proxy": ""}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere"))
    server.wait(ready_path(1), 20)
    for protocol in PROTOCOLS:
        with connect(protocol, server.ports) as client:
            assert client.infer(np.zeros((1, *SHAPE), np.uint8)).version == 1


def test_the_signal_that_killed_a_server_is_named(repository: Path, tmp_path: Path) -> None:
    server = start(repository, tmp_path / "log")
    os.kill(server.process.pid, signal.SIGKILL)
    with server, pytest.raises(DeliveryError, match=r"Triton died by signal SIGKILL \(log: "):
        server.wait(ready_path(1), 300)


def test_what_killed_servers_left_is_swept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, memory = tmp_path / "work", tmp_path / "memory"
    monkeypatch.setattr("delivery.triton.server.SHARED_MEMORY", memory)
    dead, alive = 2**22 + 1, os.getpid()  # no process has a number above 2^22
    left = [f"delivery-{dead}-8000-region", f"delivery-{dead}-8000-"]
    kept = [
        *(f"delivery-{alive}-8000-region", "delivery--8000-", "delivery-..-8000-x", "delivery-1"),
        *("delivery-notes-2026-draft", f"other-{dead}-8000-", f"delivery-{dead}-8000-x y"),
    ]
    for folder in (work, memory):
        folder.mkdir()
        for name in left + kept:
            (folder / name).touch()
        (folder / f"delivery-{dead}-9000-folder").mkdir()
    sweep(work)
    for folder in (work, memory):
        assert {path.name for path in folder.iterdir()} == {
            *kept,
            f"delivery-{dead}-9000-folder",
        }


def test_files_of_another_user_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delivery.triton.server.SHARED_MEMORY", tmp_path)
    theirs, ours = (tmp_path / f"delivery-{2**22 + each}-8000-x" for each in (1, 2))
    theirs.touch()
    ours.touch()
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == theirs:
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    sweep(tmp_path / "work")
    assert theirs.exists() and not ours.exists()


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def command(repository: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    mark_root(tmp_path)
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    running = subprocess.Popen(
        [sys.executable, "-m", "delivery", "serve", "--models", str(repository), *ports],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TEMPLATE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield running
    running.kill()
    running.communicate()


def announced(command: subprocess.Popen[str]) -> Ports:
    """Wait for the line that tells the addresses."""
    assert command.stdout and command.stderr
    for line in command.stdout:
        if line.startswith("serving version 1"):
            return Ports(*map(int, re.findall(rf"{HOST}:(\d+)", line)))
    raise AssertionError(command.stderr.read())


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_ends_cleanly(command: subprocess.Popen[str], sign: signal.Signals) -> None:
    ports = announced(command)
    with connect("http", ports) as client:
        assert client.input_shape() == SHAPE
    command.send_signal(sign)
    printed, errors = command.communicate(timeout=60)
    assert (command.returncode, errors) == (0, "")
    assert printed.endswith("stopped\n")
    choose(ports)  # raises if one of them is still taken


def test_serve_under_nohup_outlives_its_terminal(repository: Path, tmp_path: Path) -> None:
    mark_root(tmp_path)
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    running = subprocess.Popen(
        ["nohup", sys.executable, "-m", "delivery", "serve", "--models", repository, *ports],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TEMPLATE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = announced(running)
        running.send_signal(signal.SIGHUP)
        with connect("http", port) as client:
            assert client.input_shape() == SHAPE
        running.send_signal(signal.SIGTERM)
        printed, _ = running.communicate(timeout=60)
        assert running.returncode == 0 and printed.endswith("stopped\n")
    finally:
        running.kill()


def test_killed_serve_leaves_no_server_behind(command: subprocess.Popen[str]) -> None:
    memory = f"delivery-{command.pid}-{announced(command).http}-"  # named to server and helpers
    assert len(processes(memory)) == 2
    command.kill()
    command.wait()
    deadline = time.monotonic() + 20
    while processes(memory):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_serve_reports_one_sentence(tmp_path: Path) -> None:
    mark_root(tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "delivery", "serve"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TEMPLATE)},
        capture_output=True,
        text=True,
    )
    folder = serve.MODEL
    expected = f"error: there is no exported model in {folder}: run `make pipeline` first"
    assert (result.returncode, result.stderr.strip()) == (1, expected)


def test_calling_where_nothing_listens() -> None:
    ports = choose(Ports())
    for protocol in PROTOCOLS:
        with (
            connect(protocol, ports) as client,
            pytest.raises(
                DeliveryError, match=r"no server answers at .*: start one with `make serve`"
            ),
        ):
            client.input_shape()
