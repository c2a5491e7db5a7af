"""What a preview knows of its environment: a file that others read, and a history."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from workspace.files import is_held, write
from workspace.settings import SMALL, SettingsError, check, read_json

PREVIEWS = Path(".local/preview")  # a folder for each environment
STATUS = "status.json"
HISTORY = "history.jsonl"
LOCK = "lock"  # held while a preview runs, however it ends


@dataclass
class PreviewStatus:
    """The state of an environment, in Argo CD's words.

    Attributes:
        address: the stable address of HTTP, host and port; empty when the preview has ended.
        grpc_address: the stable address of gRPC.
        commit: the newest commit that was looked at.
        version: the model version that answers.
        sync: Synced, OutOfSync, or Unknown when the manifests cannot be read.
        health: Healthy, Progressing, Degraded, or Missing before the first release.
        message: the reason, in a sentence.
        received: bytes that the last release cost to pull.
        timeline: when each step of the last release was done, in seconds since 1970.
    """

    environment: str
    address: str
    grpc_address: str
    commit: str = ""
    version: int | None = None
    sync: str = "Unknown"
    health: str = "Missing"
    message: str = "starting"
    received: int = 0
    timeline: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the status where others read it."""
        write(folder / STATUS, json.dumps(asdict(self), indent=2) + "\n")

    def record(self, folder: Path) -> None:
        """Add the status to the history, a line for each release that was tried."""
        with (folder / HISTORY).open("a") as file:
            file.write(json.dumps(asdict(self)) + "\n")


def read_status(root: Path, environment: str) -> PreviewStatus | None:
    """Return what the preview of an environment wrote last.

    None where that cannot be read, or none runs: one that was killed leaves its last word.
    """
    folder = root / PREVIEWS / environment
    if not is_held(folder / LOCK):
        return None
    path = folder / STATUS
    try:
        return check(PreviewStatus, read_json(path, SMALL), str(path))
    except SettingsError:
        return None
