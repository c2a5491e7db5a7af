"""The model card: what the model is, how good it is and where it comes from, for people.

Front matter as the Hugging Face Hub reads it (its documentation, "Model Cards").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workspace import files
from workspace.markdown import cell, table
from workspace.pictures import WHITE

FILE = Path("MODEL_CARD.md")


@dataclass(frozen=True)
class Account:
    """What a card tells: the content of params.yaml, metrics.json and the data report, the code."""

    name: str  # of the project
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    code: str  # its SHA-256
    precision: str = ""  # what fewer bits than 32 lose, in words


def write(account: Account, root: Path) -> None:
    """Write MODEL_CARD.md."""
    matter = yaml.safe_dump(front_matter(account), sort_keys=False, allow_unicode=True)
    files.write(root / FILE, f"---\n{matter}---\n\n{body(account)}")


def front_matter(account: Account) -> dict[str, Any]:
    """The machine-readable part."""
    results = [
        {"type": kind, "name": name, "value": round(account.metrics[key], 6)}
        for kind, name, key in (
            ("accuracy", "Accuracy", "accuracy"),
            ("f1", "Macro F1", "macro_f1"),
        )
    ]
    source = account.params["prepare"]["source"]
    return {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", account.params["train"]["network"]],
        "datasets": [source],
        "metrics": ["accuracy", "f1"],
        "model-index": [
            {
                "name": account.name,
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


def body(account: Account) -> str:
    """The part for people."""
    parts = (
        introduction(account),
        quality(account.metrics, account.params["evaluate"]["confidence"]),
        *fewer_bits(account.precision),
        usage(account.data["image"], account.data["classes"], account.params["prepare"]["white"]),
        LIMITS,
        origin(account),
    )
    return "\n".join(parts)


def introduction(account: Account) -> str:
    """What it is, in two sentences and a picture."""
    splits = ", ".join(
        f"{split['images']} {name}" for name, split in account.data["splits"].items()
    )
    network, source = account.params["train"]["network"], account.params["prepare"]["source"]
    return f"""# {account.name}

Classifies pictures into {len(account.data["classes"])} classes.
Network `{network}`, trained on `{source}` ({splits} pictures).

![How many pictures each class has, and examples](plots/data.png)
"""


def quality(metrics: Mapping[str, Any], confidence: float) -> str:
    """Its figures on the test set, as text, table and plots."""
    low, high = metrics["intervals"]["accuracy"]
    head = ["class", "precision", "recall", "F1", "pictures"]
    rows = [
        [cell(name), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), row["support"]]
        for name, row in metrics["per_class"].items()
    ]
    return f"""## How good it is

On {metrics["support"]} test pictures: accuracy {metrics["accuracy"]:.4f}
({confidence:.0%} bootstrap interval {low:.4f} to {high:.4f}),
macro F1 {metrics["macro_f1"]:.4f}, cross-entropy {metrics["loss"]:.4f} nats,
expected calibration error {metrics["calibration_error"]:.4f}.

{table(head, rows, right=range(1, 5))}
![Counts of true class against predicted class](plots/confusion.png)

![Precision, recall and F1 of every class](plots/per_class.png)

![Accuracy against confidence](plots/reliability.png)

![Test pictures with their answers, the mistakes first](plots/predictions.png)

![Loss and accuracy over the epochs](plots/learning_curves.png)
"""


def fewer_bits(told: str) -> list[str]:
    """What the graph that is served loses against 32 bits, if it has fewer."""
    if not told:
        return []
    return [f"The figures above are of 32 bits. What is served has fewer: {told}.\n"]


def usage(image: Mapping[str, int], classes: list[str], white: int) -> str:
    """How it is called: input, output, examples; `white` is the value of 16 bits that is 255."""
    height, width, channels = image["height"], image["width"], image["channels"]
    shape = f"{height}, {width}, {channels}"
    mode = "L" if channels == 1 else "RGB"
    colours = "grey" if channels == 1 else "red, green and blue"
    to_channels = (
        "colours become grey, their luma of ITU-R 601-2"
        if channels == 1
        else "grey becomes three equal channels"
    )
    option = "" if white == WHITE else f" with `--white={white}`"
    indices = table(["index", "class"], [[k, cell(name)] for k, name in enumerate(classes)])
    return f"""## How it is called

| | name | type | shape | values |
|---|---|---|---|---|
| input | `image` | UINT8 | [batch, {shape}]: height, width, {colours} | 0 (black) to 255 |
| output | `probabilities` | FP32 | [batch, {len(classes)}]: one of each class | 0 to 1, in all 1 |

Pixels go in as they are: their normalisation and the softmax are part of the model. The place of a
probability is the index of its class; `labels.txt` has the classes in this order.

{indices}
On a server at `localhost`, HTTP at port 8000 and gRPC at 8001, a black picture:

```sh
python3 -c 'import json; print(json.dumps({{"inputs": [{{"name": "image", "datatype": "UINT8",
  "shape": [1, {shape}], "data": [0] * {height * width * channels}}}]}}))' |
  curl --silent --data @- localhost:8000/v2/models/classifier/infer
```

A file of 8 bits without transparency, by NVIDIA's client over HTTP
(`pip install "tritonclient[http]" pillow`):

```python
import numpy as np
import tritonclient.http as triton
from PIL import Image, ImageOps

picture = ImageOps.exif_transpose(Image.open("picture.png")).convert("{mode}")
picture = picture.resize(({width}, {height}), Image.Resampling.BILINEAR)
image = triton.InferInput("image", [1, {shape}], "UINT8")
image.set_data_from_numpy(np.asarray(picture).reshape(1, {shape}))
answer = triton.InferenceServerClient("localhost:8000").infer("classifier", [image])
probabilities = answer.as_numpy("probabilities")[0]
print(probabilities.argmax(), probabilities.max())
```

Over gRPC it is the same with `tritonclient.grpc` and `localhost:8001`.

## How a picture is prepared

The pictures that it learnt from became pixels so; others should, too:

- turned upright, as their EXIF orientation says; of several frames the first;
- what is transparent is laid onto white;
- 16 bits of grey become 8, so that {white} becomes 255, rounded; palettes, CMYK and single bits
  become plain colour;
- 16 bits of colour are to be saved with 8 first;
- {to_channels};
- stretched to {height} × {width} pixels (height × width) by bilinear interpolation where they have
  another size: the ratio of the sides is not kept, and nothing is cut off.

The file `serving/client.py` of the model's repository does all that{option}, and asks; it is there
to be copied.
"""


LIMITS = """## Limits

It knows its classes and nothing else: a picture of something else gets one of them, too. Its
probabilities are calibrated for pictures like those it was tested on; for other cameras, light or
places they mean little, until it has been tested there. The figures above are of the test set; the
interval says how far chance may have moved them.
"""


def origin(account: Account) -> str:
    """What it was made from."""
    used = account.params["train"]
    settings = "".join(
        f"- {name}: {cell(value)}\n" for name, value in used.items() if value is not None
    )
    return f"""## How it was made

{settings}- seed: {account.params["seed"]}
- data: sha256 {account.data["sha256"]}
- code: sha256 {account.code}

`lineage.json` holds what is needed to make it again.
"""
