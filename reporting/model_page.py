"""The page of a model, report.html: all that its pipeline says of it, in one file.

The stage `report` writes it from files of the pipeline alone, so that the same model has the same
page. `make report` adds what belongs to a machine and a day: its latency there, and how it differs
from the model that is served.
"""

import base64
import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from reporting import charts
from reporting.answers import Answers, changes, read_answers, reliability, wilson
from reporting.latency import Latency
from reporting.occlusion import PLACES, Explanation, explain
from reporting.pages import beside, data_address, embedded_json, page_template
from workspace import files
from workspace.errors import UserError
from workspace.history import kept_epoch
from workspace.settings import read_json, read_text

PAGE = Path("artifacts/report.html")
PREDICTIONS = Path("artifacts/predictions.csv")
HISTORY = Path("artifacts/history.csv")
GRAPH = Path("artifacts/model/classifier/1/model.onnx")
PREPARED = Path("data/prepared")
SERVED = Path("artifacts/served")

PICTURES = 600  # in a page, which then has about 3 MB
OF_A_CELL = 24  # of the confusion matrix
WORST = 24  # mistakes shown at once
CHANGED = 24  # pictures of each kind of change against the served model
EXPLAINED = 12
FAINT = 0.02  # change of a probability below which no part is shown in full colour
SIDE = 96  # pixels of a thumbnail
PLAIN = 32  # pixels up to which a thumbnail is kept as it is


@dataclass(frozen=True)
class Sources:
    """The files of the pipeline that a page is made from."""

    root: Path
    answers: Answers
    images: NDArray[np.uint8]  # of the test split
    history: list[dict[str, str]]
    metrics: dict[str, Any]
    data: dict[str, Any]
    lineage: dict[str, Any]

    @property
    def confidence(self) -> float:
        """Of the intervals."""
        return float(self.lineage["params"]["evaluate"]["confidence"])


def write(root: Path, name: str, page: Path = PAGE, latency: Latency | None = None) -> None:
    """Write the page of a project's model; with its latency also what differs from the served one.

    Raises UserError where the pipeline has not run.
    """
    sources = read(root)
    session = open_graph(root / GRAPH)
    content = contents(sources, session)
    if latency:
        content |= {"latency": latency, "served": served(sources), "where": "As seen here and now."}
    files.write(root / page, render(sources, name, content))


def read(root: Path) -> Sources:
    """Read what the pipeline wrote. Raises UserError."""
    answers = read_answers(root / PREDICTIONS)
    images = np.load(root / PREPARED / "test/images.npy", mmap_mode="r")
    if len(images) != len(answers.files):
        raise UserError(
            f"{PREDICTIONS} has answers on {len(answers.files)} pictures and the test split has "
            f"{len(images)}: run `make pipeline`"
        )
    return Sources(
        root,
        answers,
        images,
        list(csv.DictReader(io.StringIO(read_text(root / HISTORY)))),
        read_json(root / "metrics.json"),
        read_json(root / PREPARED / "report.json"),
        read_json(root / "lineage.json"),
    )


def contents(sources: Sources, session: Any) -> dict[str, Any]:
    """What the page says of a model wherever it is read."""
    own, bins = sources.answers, sources.lineage["params"]["evaluate"]["calibration_bins"]
    shares = own.confusion / np.maximum(own.confusion.sum(1, keepdims=True), 1)
    rows = reliability(own, bins)
    return {
        "classes": own.classes,
        "metrics": sources.metrics,
        "data": sources.data,
        "network": sources.lineage["params"]["train"]["network"],
        "code": sources.lineage["code"]["sha256"],
        "confidence": sources.confidence,
        "mistakes": int((~own.right).sum()),
        "curves": curves(sources.history),
        "kept": int(kept_epoch(sources.history)["epoch"]),
        "matrix": [
            [{"count": int(n), "share": float(s)} for n, s in zip(counts, parts, strict=True)]
            for counts, parts in zip(own.confusion, shares, strict=True)
        ],
        "per_class": per_class(sources),
        "bins": [
            {**vars(row), "interval": wilson(row.right, row.count, sources.confidence)}
            for row in rows
        ],
        "reliability_chart": reliability_chart(rows, sources.confidence),
        "worst": worst(own)[:WORST],
        "explanations": explanations(sources, session),
        "places": PLACES,
        "faint": FAINT,
        "latency": None,
        "served": None,
        "where": "",
    }


# -- figures ---------------------------------------------------------------------------------------


def curves(history: list[dict[str, str]]) -> list[Markup]:
    """Charts of loss and accuracy over the epochs."""

    def column(name: str, scale: float = 1) -> list[float]:
        return [scale * float(row[name]) for row in history]

    kept = int(kept_epoch(history)["epoch"])
    losses = {"training": column("train_loss"), "validation": column("validation_loss")}
    accuracy = {"validation": column("validation_accuracy", 100)}
    return [
        charts.lines("Loss", losses, kept, logarithmic=True),
        charts.lines("Accuracy, %", accuracy, kept),
    ]


def per_class(sources: Sources) -> list[dict[str, Any]]:
    """Precision and recall of each class with their intervals, and F1."""
    matrix, level = sources.answers.confusion, sources.confidence

    def part(right: int, total: int) -> dict[str, float]:
        low, high = wilson(right, total, level)
        return {"value": right / max(1, total), "total": total, "low": low, "high": high}

    rows = []
    for k, name in enumerate(sources.answers.classes):
        right, true, said = int(matrix[k, k]), int(matrix[k].sum()), int(matrix[:, k].sum())
        f1 = 2 * right / max(1, true + said)
        figures = {"precision": part(right, said), "recall": part(right, true), "f1": f1}
        rows.append({"name": name, "support": true, **figures})
    return rows


def reliability_chart(rows: Iterable[Any], level: float) -> Markup:
    """Right answers against confidence."""
    rows = list(rows)
    most = max(row.count for row in rows)
    dots = []
    for row in rows:
        low, high = wilson(row.right, row.count, level)
        dots.append((row.confidence, row.right / row.count, low, high, row.count / most))
    return charts.diagonal("Right answers", dots)


def worst(own: Answers) -> list[int]:
    """Mistakes, the most confident first."""
    wrong = np.flatnonzero(~own.right)
    return wrong[np.argsort(-own.confidence[wrong], kind="stable")].tolist()


def served(sources: Sources) -> dict[str, Any] | None:
    """What is answered otherwise than by the served model, if its answers are here."""
    folder = sources.root / SERVED
    if not (folder / "predictions.csv").is_file():
        return None
    change = changes(sources.answers, read_answers(folder / "predictions.csv"))
    about = read_json(folder / "served.json") if (folder / "served.json").is_file() else {}
    surest = sources.answers.confidence

    def shown(pairs: Iterable[tuple[int, int]]) -> list[int]:
        return sorted((i for i, _ in pairs), key=lambda i: (-surest[i], i))[:CHANGED]

    return {
        "version": about.get("version"),
        "change": change,
        "right": shown(change.newly_right),
        "wrong": shown(change.newly_wrong),
    }


# -- explanations ----------------------------------------------------------------------------------


def open_graph(path: Path) -> Any:
    """Open an exported model, on one thread so that the same machine gives the same answers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def explanations(sources: Sources, session: Any) -> list[dict[str, Any]]:
    """What the answers need on the most confident mistakes, and on the surest right answers."""
    own = sources.answers

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return session.run(None, {"image": np.ascontiguousarray(images)})[0]

    sample = sources.images[: min(len(sources.images), 1000)]
    cover = sample.mean((0, 1, 2)).round().astype(np.uint8)
    chosen = worst(own)[: EXPLAINED // 2]
    right = np.flatnonzero(own.right)
    by_class: dict[int, int] = {}
    for i in right[np.argsort(-own.confidence[right], kind="stable")].tolist():
        by_class.setdefault(int(own.labels[i]), i)
    chosen += [*by_class.values()][: EXPLAINED - len(chosen)]
    return [
        about(sources, i, explain(sources.images[i], int(own.predicted[i]), answer, cover))
        for i in chosen
    ]


def about(sources: Sources, i: int, explanation: Explanation) -> dict[str, Any]:
    """What the page shows of an explanation."""
    own = sources.answers
    return {
        "picture": thumbnail(sources.images[i]),
        "heat": heat(explanation.fall),
        "answer": own.classes[own.predicted[i]],
        "label": own.classes[own.labels[i]],
        "right": bool(own.right[i]),
        "confidence": float(own.confidence[i]),
        "file": own.files[i],
        "most": max(0.0, float(explanation.fall.max())),
        "rise": max(0.0, -float(explanation.fall.min())),
    }


def heat(fall: NDArray[np.float32]) -> str:
    """Orange where the probability falls, blue where it rises, as a picture to lay over another."""
    strength = np.abs(fall) / max(FAINT, float(np.abs(fall).max()))
    pixels = np.zeros((*fall.shape, 4), np.uint8)
    pixels[fall > 0, :3] = (255, 120, 0)
    pixels[fall < 0, :3] = (0, 110, 255)
    pixels[..., 3] = (strength * 190).round()
    return encoded(Image.fromarray(pixels), "PNG")


# -- pictures --------------------------------------------------------------------------------------


def embedded(own: Answers, wanted: Iterable[int]) -> list[int]:
    """Which pictures are in the page: those wanted, mistakes by confidence, then the least sure."""
    chosen = dict.fromkeys(wanted)
    counts: dict[tuple[int, int], int] = {}
    sure = np.flatnonzero(own.right)
    for i in [*worst(own), *sure[np.argsort(own.confidence[sure], kind="stable")].tolist()]:
        cell = int(own.labels[i]), int(own.predicted[i])
        if counts.get(cell, 0) < OF_A_CELL and len(chosen) < PICTURES:
            counts[cell] = counts.get(cell, 0) + 1
            chosen.setdefault(i)
    return list(chosen)


def thumbnail(image: NDArray[np.uint8]) -> str:
    """A picture (H,W,C) as a data address, small; tiny ones stay as they are."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    if max(picture.size) <= PLAIN:
        return encoded(picture, "PNG")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return encoded(picture, "JPEG", quality=85)


def encoded(picture: Image.Image, kind: str, **options: Any) -> str:
    """A picture as a data address."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return data_address(stream.getvalue(), kind.lower())


# -- the page --------------------------------------------------------------------------------------


def render(sources: Sources, name: str, content: dict[str, Any]) -> str:
    """Put it all into the page."""
    own = sources.answers
    changed = [i for kind in ("wrong", "right") for i in (content["served"] or {}).get(kind, ())]
    chosen = embedded(own, [*content["worst"], *changed])
    pictures = {
        i: {
            "label": int(own.labels[i]),
            "answer": int(own.predicted[i]),
            "confidence": share(float(own.confidence[i])),
            "file": own.files[i],
            "image": thumbnail(sources.images[i]),
        }
        for i in chosen
    }
    script = beside("model_page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page_template("model_page.html").render(
        **content,
        name=name,
        css=beside("page.css") + beside("model_page.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        pictures_json=embedded_json({"classes": own.classes, "pictures": pictures}),
        embedded=len(chosen),
        limits={"pictures": PICTURES, "cell": OF_A_CELL},
        sections=titles(content),
        share=share,
        tile=lambda i: Markup(f'<figure data-picture="{int(i)}"></figure>'),
    )


def titles(content: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections by their places in the page."""
    first = [("served", "Against the served model")] if content["served"] else []
    last = [("latency", "Latency")] if content["latency"] else []
    return [
        *first,
        *(("data", "Data"), ("training", "Training"), ("confusion", "Confusion")),
        *(("mistakes", "Mistakes"), ("classes", "Classes"), ("reliability", "Reliability")),
        *(("explanations", "Explanations"), *last),
    ]


def share(value: float, digits: int = 1) -> str:
    """A share in per cent."""
    return f"{100 * value:.{digits}f} %"
