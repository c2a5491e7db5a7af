"""The documents: links lead somewhere, decisions can be found, what they name can be run."""

import difflib
import importlib
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from PIL import Image

import observed
from conftest import TEMPLATE, UNBAKED, tracked
from delivery.checks.manifest_check import RELEASE
from delivery.proposals.releases import release_path

BENCHMARKS = TEMPLATE / "benchmarks"
CLUSTER = TEMPLATE / "docs/cluster.md"
DECISIONS = TEMPLATE / "docs/decisions.md"
LOOP = TEMPLATE / "docs/loop.svg"
LINK = re.compile(r"\]\(([^()\s]+)\)|<img [^>]*\bsrc=\"([^\"]+)\"")
DATED = re.compile(r"(\d{4}-\d\d-\d\d) · \[")


def documents() -> list[Path]:
    """The texts whose links are checked, relative to the template."""
    ours = [Path("README.md"), Path("CONTRIBUTING.md"), Path("benchmarks/README.md")]
    generated = [
        path for path in tracked() if path.parts[0] == UNBAKED.name and path.name == "README.md"
    ]
    return [*ours, *(path for path in tracked() if path.match("docs/*.md")), *generated]


def links(text: str) -> list[str]:
    """Targets of a text's links and pictures, without those that lead to other hosts."""
    targets = [link or picture for link, picture in LINK.findall(text)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchor(heading: str) -> str:
    """The name by which a link reaches a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """The names of all headings of a text."""
    return {anchor(heading) for heading in re.findall(r"(?m)^#+ (.+)$", text)}


@pytest.fixture(scope="module")
def contents() -> tuple[str, list[tuple[str, str]]]:
    """The decisions' table of contents, and heading and text of each."""
    start, *entries = re.split(r"(?m)^## ", DECISIONS.read_text())
    parted = (entry.partition("\n") for entry in entries)
    return start, [(heading, text) for heading, _, text in parted]


@pytest.mark.parametrize("document", documents(), ids=str)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    place = TEMPLATE / document
    room = UNBAKED if UNBAKED in place.parents else TEMPLATE
    for link in links(place.read_text()):
        assert not link.startswith("<"), f"{document}: {link}: begin it with ./"
        path, _, heading = unquote(link).partition("#")
        target = place.parent / path if path else place
        assert target.exists(), f"{document}: {link}"
        assert target.resolve().is_relative_to(room), f"{document}: {link} leads out of it"
        assert not heading or heading in anchors(target.read_text()), f"{document}: {link}"


def test_the_links_of_a_text_are_found() -> None:
    text = '[a](x.md) ![b](y.svg#z) <img alt="c" src="d.svg"> [e](https://example.com) `f(g)`'
    assert links(text) == ["x.md", "y.svg#z", "d.svg"]


def test_the_table_of_contents_is_that_of_the_decisions(contents) -> None:
    start, entries = contents
    listed = re.findall(r"(?m)^- \[(.+)\]\(#(.+)\)$", start)
    assert listed == [(heading, anchor(heading)) for heading, _ in entries]
    assert len({name for _, name in listed}) == len(listed) > 50


def test_every_decision_has_its_date_its_code_and_what_was_turned_down(contents) -> None:
    for heading, text in contents[1]:
        found = DATED.match(text.strip())
        assert found, f"{heading}: begin with a date and links to the code"
        assert date.fromisoformat(found[1]) >= date(2026, 11, 23), heading  # the first commit's
        assert "\nTurned down: " in text, heading


@pytest.mark.parametrize("script", ["docs/draw_loop.py", "benchmarks/merge_timeline.py"])
def test_a_picture_is_what_its_script_draws(script: str) -> None:
    subprocess.run([sys.executable, TEMPLATE / script, "--check"], check=True)


def test_the_picture_is_true_of_a_release_line_by_line() -> None:
    """What it says of checks is compared with a verdict's parts in test_check."""
    drawn, picture = runpy.run_path(str(TEMPLATE / "docs/draw_loop.py")), LOOP.read_text()
    targets = re.findall(r"^([a-z-]+):.* ## ", (UNBAKED / "Makefile").read_text(), re.M)
    asked = re.findall(r">make ([a-z-]+)<", picture)
    assert len(asked) == 2 and {*asked} <= {*targets}
    stages = [*yaml.safe_load((UNBAKED / "dvc.yaml").read_text())["stages"]]
    steps = list(drawn["PIPELINE"])
    assert [each for each in stages if each != "report"] == [
        each for each in steps if each in stages
    ]
    assert steps[-2:] == ["gate", "package"], "what `make release` does"
    assert release_path("staging") in picture
    files = [
        RELEASE.model_copy(update={"version": n, "image": f"r@sha256:{n:064}"}) for n in (7, 8)
    ]
    differ = list(difflib.unified_diff(*(each.to_yaml().splitlines() for each in files), n=0))
    for line in drawn["DIFFERENCE"]:
        form = re.sub("…@sha256:[0-9a-f]+…", "…", line)
        assert any(re.fullmatch(re.escape(form).replace("…", ".*"), each) for each in differ), line


def test_the_pictures_of_reports_are_of_the_reports_as_they_are() -> None:
    drawing = runpy.run_path(str(TEMPLATE / "docs/draw_reports.py"))
    reports = sorted(drawing["REPORTS"].glob("*.md"))
    assert {drawing["picture"](each) for each in reports} == {
        *(TEMPLATE / "docs").glob("pull-request-*.png")
    }
    for report in reports:
        with Image.open(drawing["picture"](report)) as picture:
            shown = picture.info[drawing["KEY"]]
        assert shown == drawing["digest"](report), "draw the reports anew: docs/draw_reports.py"


@pytest.mark.parametrize("name", observed.DASHBOARDS)
def test_the_dashboards_pictures_have_every_panel_and_are_small(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(TEMPLATE / "docs")
    drawing = importlib.import_module("dashboard_page")
    dashboard = observed.DASHBOARDS[name]
    asked = [target for panel in dashboard["panels"] for target in panel["targets"]]
    asked += dashboard["annotations"]["list"]
    series = [({"version": "8"}, [(20.0, 1.0), (21.0, 2.0), (30.0, 2.0)])]
    drawn: list[str] = []
    for kind, draws in drawing.DRAWN.items():

        def seen(panel: Any, draws: Callable[[Any], None] = draws) -> None:
            drawn.append(panel.settings["title"])
            draws(panel)

        monkeypatch.setitem(drawing.DRAWN, kind, seen)
    picture = tmp_path / "picture.png"
    drawing.draw(dashboard, {each["expr"]: series for each in asked}, "a note", picture)
    assert drawn == [panel["title"] for panel in dashboard["panels"]]
    with Image.open(picture) as new, Image.open(TEMPLATE / f"docs/dashboard-{name}.png") as old:
        assert new.size == old.size, "draw the dashboards anew: docs/draw_dashboards.py"
    assert (TEMPLATE / f"docs/dashboard-{name}.png").stat().st_size < 200_000


def test_no_placeholder_is_left_in_a_document() -> None:
    for document in documents():
        found = re.findall(
            r"\b[A-Z]+_(?:TIME|DISK|DEMO|TEST|TABLE|SECTION)\b", (TEMPLATE / document).read_text()
        )
        assert not found, f"{document}: {found}"


def test_documents_forward_the_services_that_the_chart_of_prometheus_makes() -> None:
    stack = TEMPLATE / "argocd/platform/controllers/kube-prometheus-stack.yaml"
    chart = yaml.safe_load(stack.read_text())
    settings = chart["settings"]
    assert not [name for name in settings["grafana"] if name.lower().endswith("nameoverride")]
    # Grafana is a chart within the chart, so it has its name of the release.
    made = {f"{settings['fullnameOverride']}-prometheus", f"{chart['chart']}-grafana"}
    forwarded = rf"--namespace {chart['namespace']} port-forward (?:service|svc)/([\w-]+)"
    texts = [(TEMPLATE / path).read_text() for path in tracked() if path.suffix == ".md"]
    assert {name for text in texts for name in re.findall(forwarded, text)} == made


def test_a_private_repository_is_read_by_the_address_that_argo_cd_is_given() -> None:
    text = (UNBAKED / "infra/README.md").read_text()
    (address,) = re.findall(r"create secret generic repository (?:.*\\\n)*.*=url=(\S+)", text)
    named = re.findall(r'repoURL: "(.*)"', (UNBAKED / "argocd/root.yaml").read_text())
    assert named == [address]


def rows(heading: str) -> dict[str, str]:
    """The table below a heading of the page about clusters: first column, last column."""
    section = re.split(r"(?m)^## ", CLUSTER.read_text().partition(f"## {heading}\n")[2])[0]
    found = re.findall(r"(?m)^\| `([^`]+)` \|(?:.*\|)? *([^|]+?) \|$", section)
    assert found and len(found) == len({name for name, _ in found}), heading
    return dict(found)


def manifests() -> set[str]:
    """Every manifest of a project, by the path that it has there."""
    paths = {path for path in tracked() if path.suffix == ".yaml" and not path.name.startswith(".")}
    own = {
        str(path.relative_to(UNBAKED.name))
        for path in paths
        if path.parts[:2] == (UNBAKED.name, "argocd") and not (TEMPLATE / path).is_symlink()
    }
    return own | {
        str(Path("argocd/base", *path.parts[1:])) for path in paths if path.parts[0] == "argocd"
    }


def reached(place: Path) -> set[Path]:
    """A manifest, or all that a Kustomization in a folder takes from this repository."""
    if place.is_file():
        return {place.resolve()}
    file = place / "kustomization.yaml"
    read = yaml.safe_load(file.read_text())
    named = [*read.get("resources", []), *read.get("components", [])]
    named += [patch["path"] for patch in read.get("patches", []) if "path" in patch]
    here = [place / each for each in named if not each.startswith("https://")]
    there = [reached(each) for each in here if each.exists()]  # a release comes later
    return {file.resolve()}.union(*there)


def test_every_manifest_is_applied_by_the_cluster_tests_or_has_a_reason() -> None:
    there = {name: (UNBAKED / name).resolve() for name in manifests()}
    applied = set().union(*(reached(UNBAKED / each) for each in rows("What the tests apply")))
    reasons = rows("Every manifest that no test applies")
    without = {name for name, path in there.items() if path not in applied}
    assert without == set(reasons), "apply it in tests/cluster, or say in docs/cluster.md why not"
    assert all(len(reason) > 20 for reason in reasons.values())


def test_the_tests_that_the_page_about_clusters_names_are_there() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", CLUSTER.read_text())
    folder = TEMPLATE / "tests/cluster"
    assert len(named) > 10
    assert [each for each in named if f"def {each[1]}(" not in (folder / each[0]).read_text()] == []


OF_THE_TESTS = [
    path.name for path in sorted(BENCHMARKS.glob("*.py")) if '/ "tests"' in path.read_text()
]


@pytest.mark.parametrize("name", OF_THE_TESTS)
def test_a_benchmark_finds_what_it_takes_from_the_tests(name: str) -> None:
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    load = f"import runpy; runpy.run_path({str(BENCHMARKS / name)!r}, run_name='loaded')"
    loaded = subprocess.run(
        [sys.executable, "-c", load], cwd=BENCHMARKS, capture_output=True, text=True, env=outside
    )
    assert loaded.returncode == 0, loaded.stderr
