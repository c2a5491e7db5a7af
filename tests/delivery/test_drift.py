"""The report of drift in a terminal: from a server's metrics, or from a Prometheus."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from delivery.commands import drift
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.drift import Behaviour, Feature
from delivery.triton.loopback import HOST
from tiny_project import TinyProject, make_project

LABELS = 'model="classifier",version="8"'
HEAD = f"# TYPE behaviour_pictures_total counter\nnv_inference_count{{{LABELS}}} 3\n"


def lines(family: str, feature: str, **bins: float) -> str:
    """Metrics of a feature's bins."""
    return "".join(
        f'{family}{{{LABELS},feature="{feature}",bin="{name}"}} {value}\n'
        for name, value in bins.items()
    )


def metrics(cat: float = 150, dog: float = 150, yes: float = 285, reference: bool = True) -> str:
    """What a server tells of 300 pictures."""
    text = HEAD + lines("behaviour_pictures_total", "class", cat=cat, dog=dog)
    text += lines("behaviour_pictures_total", "sure", no=cat + dog - yes, yes=yes)
    if reference:
        text += lines("behaviour_reference_share", "class", cat=0.5, dog=0.5)
        text += lines("behaviour_reference_share", "sure", no=0.05, yes=0.95)
        for name, value in (("pictures", 600), ("labelled", 300), ("accuracy", 0.95)):
            text += f"behaviour_reference_{name}{{{LABELS}}} {value}\n"
    return text


class Served:
    """What answers at an address: the metrics, and Prometheus' queries of them."""

    def __init__(self) -> None:
        self.text, self.address = metrics(), ""
        self.recorded: dict[str, str] = {}  # by name: what Prometheus has recorded of `class`
        self.asked: list[str] = []

    def answer(self, path: str) -> str:
        url = urlparse(path)
        if url.path == "/metrics":
            return self.text
        (query,) = parse_qs(url.query)["query"]
        self.asked.append(query)
        found = drift.parse(self.text)
        about = {"version": "8", "feature": "class"}
        found |= {name: [(about, value)] for name, value in self.recorded.items()}
        names = [each for each in sorted(found, key=len) if each in query]
        result = [
            {"metric": labels, "value": [1.5, str(value)]}
            for name in names[:1]
            for labels, value in found[name]
        ]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(made.answer(self.path).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        made.address = f"{HOST}:{web.server_port}"
        yield made
        web.shutdown()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    project: TinyProject = make_project(tmp_path_factory.mktemp("drift"))
    for path in (project.folder / "argocd/environments").glob("*/kustomization.yaml"):
        path.write_text(path.read_text().replace("<<cookiecutter.project>>", "digits"))
    project.merge("Name it")
    return Repository(project.folder)


@pytest.mark.parametrize("source", ["metrics", "prometheus"])
def test_the_report_names_what_drifts(
    repository: Repository, served: Served, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    served.text = metrics(cat=270, dog=30, yes=200)
    address = served.address if source == "metrics" else f"http://{served.address}/"
    drift.run(repository, "staging", **{source: address})
    first, head, classes, sure, accuracy = capsys.readouterr().out.splitlines()
    since = "since the server's start" if source == "metrics" else "in the last hour"
    assert first == f"staging, model 8: 300 pictures were looked at {since}"
    assert head.split() == ["feature", "PSI", "by", "chance", "JS"]
    assert classes.split()[::4] == ["class", "drifting"] and sure.endswith("drifting")
    assert accuracy == (
        "as many answers seem right: 0.667, and it is 0.950 of held-out ones  less sure"
    )
    if source == "prometheus":
        assert all('{namespace="digits-staging"}' in each for each in served.asked)


@pytest.mark.parametrize(("psi", "verdict"), [(0.05, []), (0.3, ["differs"])])
def test_the_report_compares_with_the_version_before(
    repository: Repository,
    served: Served,
    psi: float,
    verdict: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    served.recorded = dict(zip(drift.BEFORE, (psi, 0.1, 0.02), strict=True))
    drift.run(repository, "staging", prometheus=f"http://{served.address}/")
    told, head, row = capsys.readouterr().out.splitlines()[-3:]
    assert told == "against the version before, of the last six hours" and head == drift.HEAD
    assert row.split() == ["class", f"{psi:.3f}", "0.100", "0.020", *verdict]


def test_the_report_says_when_all_is_as_it_was(
    repository: Repository, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    drift.run(repository, "staging", metrics=served.address)
    out = capsys.readouterr().out
    assert "drifting" not in out and "less sure" not in out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (metrics(cat=50, dog=50, yes=10), "too few to tell: 200 are needed"),
        (metrics(reference=False), "its image says nothing of held-out pictures"),
    ],
)
def test_the_report_says_what_it_cannot_tell(
    repository: Repository,
    served: Served,
    capsys: pytest.CaptureFixture[str],
    text: str,
    told: str,
) -> None:
    served.text = text
    drift.run(repository, "staging", metrics=served.address)
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text", "why"),
    [
        (("staging",), "", "give one place that the figures are at"),
        (("nowhere", None, "x"), "", "there is no environment 'nowhere': give ENV="),
        (("staging", None, "at"), HEAD, "nobody looks at what staging answers: name the component"),
        (("staging", None, f"{HOST}:1"), "", "does not answer"),
        (("staging", "no address"), "", "does not answer"),
        (("staging", None, "at"), metrics().replace(" 0.95\n", " 0.9.5\n"), "is no figure"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(
    repository: Repository, served: Served, arguments: tuple, text: str, why: str
) -> None:
    served.text = text
    given = [served.address if each == "at" else each for each in arguments]
    with pytest.raises(DeliveryError) as refused:
        drift.run(repository, *given)
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_a_place_and_a_component_are_what_it_needs(
    repository: Repository, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    for metrics_at, told in ((None, "METRICS=127.0.0.1:8002"), (served.address, "component")):
        served.text = HEAD
        with pytest.raises(DeliveryError, match=told):
            drift.run(repository, "staging", metrics=metrics_at)
    served.text = metrics()  # as the server of a component tells
    drift.run(repository, "staging", metrics=served.address)
    assert "300 pictures were looked at" in capsys.readouterr().out


def test_another_address_helps(
    repository: Repository, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeliveryError, match="forward its port, or give another"):
        drift.run(repository, "staging", metrics=f"{HOST}:1")
    served.text = metrics().replace(" 0.95\n", " 0.9.5\n")
    with pytest.raises(DeliveryError, match="give the address of another server"):
        drift.run(repository, "staging", metrics=served.address)
    served.text = metrics()
    drift.run(repository, "staging", metrics=served.address)
    assert "300 pictures were looked at" in capsys.readouterr().out


def test_what_is_no_prometheus_is_said(repository: Repository, served: Served) -> None:
    served.answer = lambda path: "<html>"
    with pytest.raises(DeliveryError, match="is no Prometheus"):
        drift.run(repository, "staging", prometheus=f"http://{served.address}")


def test_chance_alone_is_no_drift() -> None:
    random, shares = np.random.default_rng(0), dict(zip("abcdefghij", [0.1] * 10, strict=True))
    held_out = random.multinomial(600, list(shares.values()))
    reference = dict(zip(shares, (held_out + 0.5) / (600 + 5), strict=True))
    drifting = 0
    for _ in range(2000):
        counted = dict(zip(shares, random.multinomial(250, list(shares.values())), strict=True))
        feature = Feature(counted, reference)
        whole = Behaviour({}, 600, 300, 0.9)
        drifting += feature.psi() > whole.by_chance(feature)
        assert 0 <= feature.js() <= 1
    assert drifting <= 2
