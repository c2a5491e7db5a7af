"""The pages and pictures as a person sees them: in a real browser.

The console must stay silent, and nothing may be asked of another host.
"""

import io
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import example_model
from delivery.proposals.history import history
from delivery.proposals.live_figures import Curve, draw
from delivery.proposals.releases import Past
from example_release import RELEASE
from reporting import compare_page, model_page, plots, review_page
from reporting.answers import bins_of, read_answers

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (400, 1280)
MERMAID = "11.17.2"  # GitHub follows its releases
CLASSES = ["cat", f"dog {example_model.HOSTILE}", "cow " + "with a long name " * 8]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium: `apt-get install chromium`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def tab(request: pytest.FixtureRequest, chromium: Any) -> Iterator[Any]:
    """A tab, dark if it is narrow; what went wrong in it fails the test."""
    dark = "dark" if request.param == WIDTHS[0] else "light"
    made = chromium.new_page(viewport={"width": request.param, "height": 800}, color_scheme=dark)
    said: list[str] = []
    made.on("console", lambda message: said.append(message.text))
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("request", lambda asked: said.append(asked.url) if is_elsewhere(asked.url) else None)
    yield made
    assert said == []
    made.close()


def is_elsewhere(address: str) -> bool:
    return not address.startswith(("file:", "data:", "http://127.0.0.1:"))


def fits(tab: Any) -> bool:
    """Whether nothing but what scrolls by itself is wider than the window."""
    return tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    example_model.write(root, CLASSES, 90)
    model_page.write(root, "p")
    return root


def test_a_click_on_the_confusion_matrix_shows_its_pictures(tab: Any, model: Path) -> None:
    tab.goto((model / model_page.PAGE).as_uri())
    own = read_answers(model / model_page.PREDICTIONS)
    matrix = own.confusion
    for i, j in ((0, 0), *np.argwhere(matrix * (1 - np.eye(3, dtype=int)))[:1].tolist()):
        tab.click(f'[data-cell="{i}-{j}"]')
        assert tab.get_attribute(f'[data-cell="{i}-{j}"]', "aria-pressed") == "true"
        shown = tab.locator("#chosen figure")
        assert shown.count() == min(matrix[i, j], model_page.OF_A_CELL) > 0
        here = {own.files[k] for k in np.flatnonzero((own.labels == i) & (own.predicted == j))}
        assert {image.get_attribute("title") for image in shown.locator("img").all()} <= here
    assert tab.evaluate("[...document.images].every((each) => each.naturalWidth > 0)")
    assert tab.locator("#mistakes ~ .gallery figure").count() >= int((~own.right).sum())
    assert tab.locator("body").inner_text().count(example_model.HOSTILE) > 1
    assert fits(tab)


def test_keys_decide_on_the_review_page(tab: Any) -> None:
    names = [f"cross/{k}.png" for k in range(4)]
    rows = [
        {
            "image": name,
            "label": "cross",
            "reason": example_model.HOSTILE,
            "suggestion": "circle",
            "confidence": "0.90",
            "decision": "",
        }
        for name in names
    ]
    stream = io.BytesIO()
    Image.new("RGB", (8, 12), "red").save(stream, "PNG")

    def decide(image: str, decision: str) -> None:
        rows[names.index(image)]["decision"] = decision

    review = review_page.Review(
        "june", ["circle", "cross", "square"], lambda: rows, lambda _: stream.getvalue(), decide
    )
    with review_page.Server(review) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        tab.goto(server.address, wait_until="networkidle")
        for number, key in enumerate("kds", 1):
            tab.keyboard.press(key)
            tab.get_by_role("status").get_by_text(f"{number} of 4 decided").wait_for()
        assert [row["decision"] for row in rows] == ["keep", "drop", "circle", ""]
        tab.keyboard.press("u")
        tab.get_by_role("status").get_by_text("2 of 4 decided").wait_for()
        tab.keyboard.press("r")
        tab.locator("select:focus").select_option("square")
        tab.get_by_role("status").get_by_text("3 of 4 decided").wait_for()
        tab.keyboard.press("Enter")
        tab.locator("dialog img").wait_for()
        tab.keyboard.press("Escape")
        tab.locator("dialog img").wait_for(state="hidden")
        for key, name in (("ArrowLeft", names[2]), ("ArrowRight", names[3])):
            tab.keyboard.press(key)
            assert tab.locator(".row.current img").get_attribute("alt") == name
        assert fits(tab)
        tab.click("#done")
        tab.get_by_text("This page is finished").wait_for()
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert [row["decision"] for row in rows] == ["keep", "drop", "square", ""]


def test_runs_side_by_side(tab: Any, model: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (900, 300), "red").save(picture, "PNG")
    runs = [
        compare_page.Run(
            *(f"{name} {example_model.HOSTILE}", "2026-11-26 First", data, {"accuracy": share}),
            {"train.options": example_model.HOSTILE if share > 0.9 else 1},
            {"confusion": picture.getvalue()},
        )
        for name, data, share in (("v1", "a", 0.9), ("main", "a", 0.95), ("here", "b", 0.8))
    ]
    compare_page.write(runs, model / "compare.html")
    tab.goto((model / "compare.html").as_uri())
    assert tab.locator("td.better").all_inner_texts() == ["0.9500"]
    assert tab.locator("td.worse").all_inner_texts() == ["b", "0.8000"]
    assert tab.locator("img").count() == 3 and fits(tab)


def test_pictures_of_a_pull_request_open(tab: Any, model: Path) -> None:
    own = read_answers(model / model_page.PREDICTIONS)
    plots.confusion(own.confusion, CLASSES, model)
    which = bins_of(own.confidence, 10)
    plots.reliability(own.confidence, own.right, which, 10, model)
    for name in ("confusion", "reliability"):
        tab.goto((model / f"plots/{name}.png").as_uri())
        assert tab.evaluate("document.images[0].naturalWidth") > 400


@pytest.fixture(scope="module")
def mermaid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with Mermaid, of which npm has the only build that stands alone."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm: install Node.js")
    folder = tmp_path_factory.mktemp("mermaid")
    command = ["npm", "pack", f"mermaid@{MERMAID}", "--silent"]
    packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    with tarfile.open(folder / packed.stdout.strip()) as archive:
        archive.extract("package/dist/mermaid.min.js", folder, filter="data")
    page = folder / "page.html"
    page.write_text('<meta charset="utf-8"><script src="package/dist/mermaid.min.js"></script>')
    return page


def draw_mermaid(text: str, tab: Any, mermaid: Path) -> None:
    """Draw the only picture of a text."""
    _, drawing = text.split("```mermaid\n")
    tab.goto(mermaid.as_uri())
    tab.evaluate(
        "async (text) => { document.body.innerHTML = (await mermaid.render('d', text)).svg }",
        drawing.split("\n```")[0],
    )


@pytest.mark.parametrize("count", [1, 10])
def test_a_rollback_draws_what_was_measured_and_its_limit(
    count: int, tab: Any, mermaid: Path
) -> None:
    start = datetime(2026, 11, 26, 8)
    points = [(start + timedelta(seconds=30 * n), n / 100 - 0.02) for n in range(count)]
    draw_mermaid(draw(8, [Curve("failing", 0.02, points)]), tab, mermaid)
    assert tab.locator("svg .bar-plot-0 rect").count() == count
    assert tab.locator("svg .line-plot-1 path").count() == 1
    labels = tab.locator("svg .bottom-axis .label text").all_text_contents()
    assert labels == [f"{moment:%H:%M:%S}" for moment, _ in points]


@pytest.mark.parametrize("count", [1, 30])
def test_a_pull_request_draws_all_releases(count: int, tab: Any, mermaid: Path) -> None:
    releases = [
        RELEASE.model_copy(update={"version": n + 1, "accuracy": 0.8 + n / 250, "support": 300})
        for n in range(count)
    ]
    text = history([Past("staging", each, b"") for each in reversed(releases[:-1])], releases[-1])
    draw_mermaid(text, tab, mermaid)
    assert tab.locator("svg .bar-plot-0 rect").count() == count
    labels = tab.locator("svg .bottom-axis .label text").all_text_contents()
    assert labels == [str(each.version) for each in releases]
