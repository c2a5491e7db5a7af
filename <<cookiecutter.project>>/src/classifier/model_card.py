"""The model card: what the model is, how good it is and where it comes from, for people.

Front matter as the Hugging Face Hub reads it (its documentation, "Model Cards").
"""

from pathlib import Path
from typing import Any

import yaml

from classifier import data
from classifier.evaluation import METRICS
from classifier.model_code import code_sha256
from classifier.params import Params
from workspace import files, settings

FILE = Path("MODEL_CARD.md")


def write(params: Params, root: Path) -> None:
    """Write MODEL_CARD.md from the metrics and the data report."""
    metrics = settings.read_json(root / METRICS)
    matter = yaml.safe_dump(front_matter(params, metrics), sort_keys=False, allow_unicode=True)
    text = body(params, metrics, data.report(root), code_sha256(root))
    files.write(root / FILE, f"---\n{matter}---\n\n{text}")


def front_matter(params: Params, metrics: dict[str, Any]) -> dict[str, Any]:
    """The machine-readable part."""
    results = [
        {"type": kind, "name": name, "value": round(metrics[key], 6)}
        for kind, name, key in (
            ("accuracy", "Accuracy", "accuracy"),
            ("f1", "Macro F1", "macro_f1"),
        )
    ]
    source = params.prepare.source
    return {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", params.train.network],
        "datasets": [source],
        "metrics": ["accuracy", "f1"],
        "model-index": [
            {
                "name": "<<cookiecutter.project>>",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"type": source, "name": source, "split": "test"},
                        "metrics": results,
                    }
                ],
            }
        ],
    }


def body(params: Params, metrics: dict[str, Any], report: dict[str, Any], code: str) -> str:
    """The part for people."""
    low, high = metrics["intervals"]["accuracy"]
    splits = ", ".join(f"{split['images']} {name}" for name, split in report["splits"].items())
    rows = "".join(
        f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
        f"| {row['support']} |\n"
        for name, row in metrics["per_class"].items()
    )
    used = params.train.model_dump(exclude_none=True)
    settings = "".join(f"- {name}: {value}\n" for name, value in used.items())
    return f"""# <<cookiecutter.project>>

Classifies images into {len(metrics["per_class"])} classes.
Network `{params.train.network}`, trained on `{params.prepare.source}` ({splits} images).

## How good it is

On {metrics["support"]} test images: accuracy {metrics["accuracy"]:.4f}
({params.evaluate.confidence:.0%} bootstrap interval {low:.4f} to {high:.4f}),
macro F1 {metrics["macro_f1"]:.4f}, cross-entropy {metrics["loss"]:.4f} nats,
expected calibration error {metrics["calibration_error"]:.4f}.

| class | precision | recall | F1 | images |
|---|---|---|---|---|
{rows}
## How it is used

Input `image`: raw pixels, uint8, (batch, height, width, channels). Output `probabilities`:
(batch, classes) in the order of `labels.txt`. Normalisation and softmax are part of the model.

It answers for images like those it was trained on; for others its probabilities mean nothing.

## How it was made

{settings}- seed: {params.seed}
- data: sha256 {report["sha256"]}
- code: sha256 {code}

`lineage.json` holds what is needed to make it again.
"""
