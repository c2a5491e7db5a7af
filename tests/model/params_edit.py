"""A small project's params.yaml: completed from the project's, and changed as its owner does."""

import re
from pathlib import Path
from typing import Any

import yaml
from small_project import PROJECT

from classifier import params


def other_sections() -> str:
    """The text of those sections of the project's params.yaml that no stage reads."""
    sections = re.split(r"^(?=\w+:)", (PROJECT / "params.yaml").read_text(), flags=re.MULTILINE)
    return "".join(text for text in sections[1:] if text.split(":")[0] not in params.SECTIONS)


def complete(root: Path) -> Path:
    """Add those sections to a project that has none of them; return its folder."""
    with (root / "params.yaml").open("a") as file:
        file.write(f"\n{other_sections()}")
    return root


def edit(root: Path, **sections: dict[str, Any]) -> None:
    """Change keys of sections."""
    content = yaml.safe_load((root / "params.yaml").read_text())
    for name, values in sections.items():
        content[name] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
