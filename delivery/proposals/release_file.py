"""The release file of an environment: which model it serves."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from delivery.errors import DeliveryError
from delivery.parameters import NAME
from delivery.proposals.config_map import parse_config_map, write_config_map
from workspace.settings import Settings, SettingsError

RELEASE_FILE = "model.yaml"
RELEASE_NAME = "model-release"
CONFLICT = (
    "do not resolve it by hand: delete the branch and release again, `git push origin --delete "
    "<branch>`, `git switch main && git pull`, `make release`"
)
FIGURES = ["accuracy", "macro_f1", "calibration_error", "loss", "support"]


class ReleaseFileError(DeliveryError):
    """A release file that is missing or says something that cannot be served."""


def whole_number(value: Any) -> int:
    """Read a whole number from 1. Raises ValueError for others, such as "01" and "1.0"."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}", str(value)):
        raise ValueError("it is not a whole number from 1")
    return int(value)


Count = Annotated[
    int,
    BeforeValidator(whole_number),
    Field(description="a whole number from 1 without leading zeros", examples=["8"]),
]
SHARE = Field(
    ge=0, le=1, allow_inf_nan=False, description="a number from 0 to 1", examples=["0.98"]
)
LOSS = Field(ge=0, allow_inf_nan=False, description="a number from 0", examples=["0.05"])
SHA256 = Field(pattern=r"^[0-9a-f]{64}$", description="the 64 hexadecimal digits of a SHA-256")
COMMIT = Field(pattern=r"^[0-9a-f]{40}$", description="the 40 hexadecimal digits of a Git commit")
IMAGE = Field(
    pattern=rf"^{NAME}@sha256:[0-9a-f]{{64}}$",
    description="an image by digest: <name>@sha256:<64 digits>, the name of ASCII letters, digits "
    "and ._:/+~=,-",
)


class Release(Settings):
    """One released model: what `model.yaml` says, as values; `support` counts test pictures."""

    version: Count
    image: str = IMAGE
    accuracy: float = SHARE
    macro_f1: float = SHARE
    calibration_error: float = SHARE
    loss: float = LOSS
    support: Count
    data: str = SHA256
    test_data: str = SHA256
    code: str = SHA256
    commit: str = COMMIT

    def to_yaml(self) -> str:
        """Return the text of the release file; equal releases give equal text."""
        return write_config_map(RELEASE_NAME, self)


def read_release(path: Path) -> Release:
    """Read a release file.

    Raises ReleaseFileError when it is missing, unreadable or not a ConfigMap of this form.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ReleaseFileError(
            f"{path} is missing: nothing is released there; make and merge a release first."
        ) from None
    except OSError as error:
        raise ReleaseFileError(f"{path} cannot be read: {error}; restore it from Git.") from None
    return parse_release(text, str(path))


def parse_release(text: str | bytes, name: str) -> Release:
    """Read the text of a release file, such as an earlier commit's; `name` appears in messages.

    Raises ReleaseFileError when the text is not a ConfigMap of this form.
    """
    content = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    if any(line.startswith(b"<" * 7) for line in content.splitlines()):
        raise ReleaseFileError(f"{name} is in conflict: {CONFLICT}")
    try:
        return parse_config_map(Release, content, RELEASE_NAME, name)
    except SettingsError as error:
        raise ReleaseFileError(f"{error}; or restore the file from Git") from None
