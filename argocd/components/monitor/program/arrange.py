"""Lay out a model repository in which `classifier` is `network`, then `monitor`.

It runs in a pod before the server, with nothing but Python. The model's own repository stays as it
is, and so do the names, types and shapes that callers know. Where that cannot be done, what is laid
out is the model alone: a monitor never costs a server.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

PROGRAM = ("monitor.py", "behaviour.py", "capture.py")
REFERENCE = "about/behaviour.json"
MODEL = "classifier"
ENSEMBLE = """name: "classifier"
platform: "ensemble"
max_batch_size: {batch}
input {input}
output {output}
ensemble_scheduling {{
  step [
    {{
      model_name: "network"
      model_version: -1
      input_map {{ key: "image" value: "image" }}
      output_map {{ key: "probabilities" value: "answers" }}
    }},
    {{
      model_name: "monitor"
      model_version: -1
      input_map {{ key: "image" value: "image" }}
      input_map {{ key: "answers" value: "answers" }}
      output_map {{ key: "probabilities" value: "probabilities" }}
    }}
  ]
}}
"""
# On processors even where the network is on a GPU. What it gives back it got: Triton refuses an
# ensemble in which nothing comes of a model.
MONITOR = """name: "monitor"
backend: "python"
max_batch_size: {batch}
input {input}
input {answers}
output {output}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
parameters [ {{ key: "about" value: {{ string_value: {about} }} }} ]
"""


def arrange(models: Path, program: Path, target: Path) -> None:
    """Lay out the three models in an empty folder. Raises an error where the model is another."""
    model = models / MODEL
    text = (model / "config.pbtxt").read_text()
    batch = re.search(r"(?m)^max_batch_size\s*:\s*(\d+)", text)
    parts = {name: field(text, name) for name in ("input", "output")}
    for name, tensor in (("input", "image"), ("output", "probabilities")):
        if f'name: "{tensor}"' not in parts[name]:
            raise ValueError(f"its {name} is not named {tensor}")
    if not batch or int(batch[1]) < 1:
        raise ValueError("it takes no batches")
    (version,) = (each.name for each in model.iterdir() if each.name.isdecimal())
    renamed, times = re.subn(r'(?m)^name\s*:\s*"classifier"', 'name: "network"', text)
    if times != 1:
        raise ValueError("its name is not classifier")
    classes = (model / "labels.txt").read_text().splitlines()
    about = json.dumps(
        {
            "reference": str(model / REFERENCE),
            "classes": classes,
            "captured": os.environ.get("CAPTURED", ""),  # a folder, of component `capture`
        }
    )
    output = re.sub(r'\s*label_filename\s*:\s*"[^"]*"', "", parts["output"])
    answers = output.replace('"probabilities"', '"answers"')
    configs = {
        "network": renamed,
        "monitor": MONITOR.format(
            batch=batch[1],
            input=parts["input"],
            answers=answers,
            output=output,
            about=quoted(about),
        ),
        MODEL: ENSEMBLE.format(batch=batch[1], **parts),
    }
    for name, config in configs.items():
        (target / name).mkdir()
        (target / name / "config.pbtxt").write_text(config)
        (target / name / "labels.txt").symlink_to(model / "labels.txt")
    for name in ("network", MODEL):  # an ensemble looks at no more than the version's number
        (target / name / version).symlink_to(model / version)
    (target / "monitor" / version).mkdir()
    for name in PROGRAM:
        copied = target / "monitor" / version / name.replace("monitor", "model")
        copied.write_bytes((program / name).read_bytes())


def field(text: str, name: str) -> str:
    """Return what follows the name of a field in brackets. Raises ValueError where it is not."""
    found = re.search(rf"(?m)^{name}\s*\[", text)
    if not found:
        raise ValueError(f"config.pbtxt says nothing of its {name}")
    depth = 0
    for place in range(found.end() - 1, len(text)):
        depth += {"[": 1, "]": -1}.get(text[place], 0)
        if not depth:
            return text[found.end() - 1 : place + 1]
    raise ValueError(f"{name} does not end")


def quoted(text: str) -> str:
    """Return a text as protobuf's text format has it; JSON has other signs as escapes already."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main(models: Path, program: Path, target: Path) -> None:
    """Lay out the models, or the one alone, and say which."""
    try:
        arrange(models, program, target)
        print("the monitor sees what is asked and answered")
    except Exception as error:
        print(f"the model serves without its monitor: {error}", file=sys.stderr)
        for left in target.iterdir():
            shutil.rmtree(left)
        (target / MODEL).symlink_to(models / MODEL)


if __name__ == "__main__":
    main(*(Path(os.environ[name]) for name in ("MODELS", "PROGRAM", "TARGET")))
