"""Write what Terraform made to where it is read: `outputs.py`.

* `infra/outputs.env`: every setting, one `NAME=value` in a line. Workflows read it into their
  environment; it is committed, because it holds names and no secrets.
* `params.yaml`: `release.registry`, which `make release` pushes to.
* `.dvc/config`: the default remote, which `make data-push` and `make data-pull` use.

Standard library only, as `roots.py`.
"""

import configparser
import io
import json
import re
import sys
from pathlib import Path

from roots import INFRA, ROOTS, InfraError, answer, ready, state_is_local

PROJECT = INFRA.parent


def read_settings() -> dict[str, str]:
    """Return the settings of every root that is applied. Raises InfraError when none is."""
    settings: dict[str, str] = {}
    for root in ROOTS:
        if not state_is_local(root):
            with ready(root):
                outputs = json.loads(answer(root, "output", "-json") or "{}")
            settings |= outputs.get("settings", {}).get("value", {})
    if not settings:
        raise InfraError("no root is applied yet, so there is nothing to write: `make infra-apply`")
    return settings


def write(path: Path, text: str) -> None:
    """Replace a file at once, so that it is never half-written."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)
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


def main() -> int:
    """Write all of it; return the exit status."""
    try:
        settings = read_settings()
        lines = [f"{name}={value}\n" for name, value in sorted(settings.items())]
        write(INFRA / "outputs.env", "".join(lines))
        if address := settings.get("REGISTRY"):
            params = PROJECT / "params.yaml"
            write(params, with_registry(params.read_text(), address))
        if url := settings.get("DATA_URL"):
            config = PROJECT / ".dvc" / "config"
            write(config, with_remote(config.read_text(), url))
    except InfraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
