"""Changes of a project's params.yaml, as its owner makes them."""

from pathlib import Path
from typing import Any

import yaml


def edit(root: Path, **sections: dict[str, Any]) -> None:
    """Change keys of sections."""
    content = yaml.safe_load((root / "params.yaml").read_text())
    for name, values in sections.items():
        content[name] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
