"""Write what Terraform made to where it is read: `outputs.py`.

* `infra/outputs.env`: every setting, one `NAME=value` in a line. Workflows read it into their
  environment; it is committed, because it holds names and no secrets.
* `params.yaml`: `release.registry`, which `make release` pushes to.
* `.dvc/config`: the default remote, which `make data-push` and `make data-pull` use.

Standard library only, as `roots.py`.
"""

import configparser
import io
import re
import sys
from pathlib import Path

from failures import InfraError, reported
from roots import BACKEND, INFRA, ROOTS, local_state, ready, replace_file, settings

PROJECT = INFRA.parent


def read_settings() -> dict[str, str]:
    """Return the settings of every root that is applied. Raises InfraError when none is."""
    found: dict[str, str] = {}
    for root in ROOTS:
        if BACKEND.exists() or local_state(root).exists():
            with ready(root):
                found |= settings(root)
    if not found:
        raise InfraError("no root is applied yet, so there is nothing to write: `make infra-apply`")
    return found


def write(path: Path, text: str) -> None:
    """Write a file at once, so that it is never half-written, and say so."""
    replace_file(path, text)
    print(f"wrote {path.relative_to(PROJECT)}")


def with_registry(params: str, address: str) -> str:
    """Return the text of params.yaml with another `release.registry`, comments kept."""
    line = re.compile(r"^(release:\n(?:[ #].*\n|\n)*?  registry: )\S+", re.MULTILINE)
    if not line.search(params):
        raise InfraError("params.yaml has no `registry` in its section `release`: add the line")
    return line.sub(lambda match: match[1] + address, params)


def with_remote(config: str, url: str) -> str:
    """Return the text of DVC's configuration with the data store as its default remote."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string("\n".join(line.strip() for line in config.splitlines()))
    parser.read_dict({"core": {"remote": "store"}, "'remote \"store\"'": {"url": url}})
    text = io.StringIO()
    parser.write(text)
    indented = re.sub(r"^(?=[^\[\n])", "    ", text.getvalue(), flags=re.MULTILINE)
    return indented.replace("\n\n", "\n").rstrip() + "\n"


def texts(found: dict[str, str]) -> dict[Path, str]:
    """Return what each file is to say. Raises InfraError when one of them has no place for it."""
    lines = [f"{name}={value}\n" for name, value in sorted(found.items())]
    files = {INFRA / "outputs.env": "".join(lines)}
    for name, file, changed in (
        ("REGISTRY", PROJECT / "params.yaml", with_registry),
        ("DATA_URL", PROJECT / ".dvc" / "config", with_remote),
    ):
        if name in found:
            files[file] = changed(file.read_text(), found[name])
    return files


def main() -> int:
    """Write all of it, once all of it is known; return the exit status."""
    return reported(lambda: [write(*file) for file in texts(read_settings()).items()])


if __name__ == "__main__":
    sys.exit(main())
