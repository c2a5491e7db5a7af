"""The release file of an environment: which model it serves."""

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from delivery.errors import DeliveryError
from delivery.git import BRANCH, REMOTE
from delivery.parameters import NAME
from delivery.proposals.config_map import parse_config_map, write_config_map
from workspace.settings import Settings, SettingsError

RELEASE_FILE = "model.yaml"
RELEASE_NAME = "model-release"
PROPOSING = "and what proposed it: `make release`, `make promote` or `make rollback`"
FIGURES = ["accuracy", "macro_f1", "calibration_error", "loss", "support"]
DIGITS = 9  # of a whole number, at most


class ReleaseFileError(DeliveryError):
    """A release file that is missing or says something that cannot be served."""


def whole_number(value: Any) -> int:
    """Read a whole number from 1. Raises ValueError for others, such as "01" and "1.0"."""
    if not re.fullmatch(rf"[1-9][0-9]{{0,{DIGITS - 1}}}", str(value)):
        raise ValueError("it is not a whole number from 1")
    return int(value)


def next_number(given: Iterable[int]) -> int:
    """Return a number that was never given: one more than the highest.

    Where that has a digit too many, because somebody wrote what nobody counted, the lowest is free.
    """
    known = {*given}
    following = 1 + max(known, default=0)
    free = (number for number in count(1) if number not in known)
    return following if following < 10**DIGITS else next(free)


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
SIGNATURE = Field(
    default=None,  # a release may be unsigned
    max_length=20_000,
    pattern=r"^(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    description="base64 of a signature, at most 20,000 characters, as `make release` writes it",
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
    signature: str | None = SIGNATURE

    @property
    def digest(self) -> str:
        """The image's, which is the same wherever it is kept."""
        return self.image.rpartition("@")[2]

    @property
    def bundle(self) -> bytes:
        """The signature, which must be there, as it lies in the registry."""
        assert self.signature
        return base64.b64decode(self.signature)

    def is_same_as(self, other: "Release") -> bool:
        """Tell whether both serve the same version of the same model."""
        return (self.version, self.digest) == (other.version, other.digest)

    def to_yaml(self) -> str:
        """Return the text of the release file; equal releases give equal text."""
        return write_config_map(RELEASE_NAME, self)


def in_conflict(branch: str = "<branch>", again: str = PROPOSING) -> str:
    """Say what to do when Git cannot merge a branch, because another one was faster."""
    return (
        f"do not resolve it by hand: delete the branch and release again, `git push {REMOTE} "
        f"--delete {branch}`, `git switch {BRANCH} && git pull`, {again}"
    )


def read_release(path: Path) -> Release:
    """Read a release file.

    Raises ReleaseFileError when it is missing, unreadable or not a ConfigMap of this form.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ReleaseFileError(
            f"{path} is missing: nothing is released there; make and merge a release first."
        ) from None
    except OSError as error:
        raise ReleaseFileError(f"{path} cannot be read: {error}; restore it from Git.") from None
    return parse_release(content, str(path))


def parse_release(content: str | bytes, name: str) -> Release:
    """Read a release file's content, such as an earlier commit's; `name` appears in messages.

    Raises ReleaseFileError when it is not the text of a ConfigMap of this form.
    """
    text = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    if any(line.startswith(b"<" * 7) for line in text.splitlines()):
        raise ReleaseFileError(f"{name} is in conflict: {in_conflict()}")
    with readable():
        return parse_config_map(Release, text, RELEASE_NAME, name)


@contextmanager
def readable() -> Iterator[None]:
    """Say of a release file that cannot be read where a good one is. Raises ReleaseFileError."""
    try:
        yield
    except SettingsError as error:
        raise ReleaseFileError(f"{error}; or restore the file from Git") from None
