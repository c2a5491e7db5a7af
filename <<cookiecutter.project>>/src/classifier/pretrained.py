"""Weights to start from: torchvision's, learnt from ImageNet, or a file or address of one's own.

They are downloaded once, into the project's folder of downloads, and used only if their SHA-256 is
the one that is expected. Nothing in them is run.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from classifier import networks, params
from classifier.networks import Photographic
from classifier.params import TrainParams
from workspace import files
from workspace.errors import UserError, said, shown
from workspace.pictures import DOWNLOADS
from workspace.settings import SettingsError

NAMED = re.compile(r"-([0-9a-f]{8,64})\.pth$")  # how torchvision's files say what they hold


@dataclass(frozen=True)
class Weights:
    """Tensors by their names, where they come from, and the SHA-256 of their file."""

    state: Mapping[str, Tensor]
    source: str
    sha256: str


def load(train: TrainParams, root: Path) -> Weights | None:
    """The weights that the parameters ask to start from, or None; downloads are below `root`.

    Raises UserError: they cannot be had, are not those that are expected, or fit no such network.
    """
    if not train.pretrained:
        return None
    kind = networks.pretrainable(train.network)
    source = train.weights or address_of(kind)
    expected = train.weights_sha256
    if not train.weights and (named := NAMED.search(source)):
        expected = expected or named.group(1)
    path = download(source, root) if "://" in source else root / source
    try:
        sha256 = files.sha256(path)
    except OSError as error:
        raise UserError(
            f"{params.FILE}: train.weights is {shown(source)}, which cannot be read "
            f"({error.strerror}): give a file, an address that begins with https://, or null"
        ) from None
    if expected is None:
        raise SettingsError(
            f"{params.FILE}: train.weights is {shown(source)} without a checksum: if the file "
            f"there is the right one, write `weights_sha256: {sha256}` below it"
        )
    if not sha256.startswith(expected):
        raise UserError(
            f"{path} has the SHA-256 {sha256} instead of {expected}: remove it and put the right "
            f"file there, or write `weights_sha256: {sha256}` into the section train"
        )
    state = read(path)
    try:
        fitting(kind, state)
    except ValueError as error:
        raise UserError(
            f"{path} holds no weights of {train.network}, {said(str(error))}: give the network "
            "that they are of in train.network, or other weights"
        ) from None
    return Weights(state, source, sha256)


def address_of(kind: type[Photographic]) -> str:
    """Where torchvision has its newest weights of a network."""
    from torchvision.models import get_model_weights  # takes seconds to import

    return str(get_model_weights(kind.MODEL).DEFAULT.url)


def download(address: str, root: Path) -> Path:
    """The file of an address, fetched if it is not there. Raises UserError."""
    name = Path(urlsplit(address).path).name or "weights.pth"
    place = DOWNLOADS / name
    if not (root / place).exists():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(root / place), progress=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the weights could not be downloaded ({said(str(error))}): fetch {address} "
                f"elsewhere, place it at {place} and run again"
            ) from None
    return root / place


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, of which nothing is run. Raises UserError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file, anything
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(
            f"{path} holds more than weights, or is damaged ({said(reason)}): give the file of a "
            "state_dict, as torch.save writes it"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}: give the file of a state_dict, as "
            "torch.save writes it"
        )
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def fitting(kind: type[Photographic], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a network of that kind could take the weights."""
    with torch.device("meta"):  # nothing is computed
        kind(networks.ANY_PHOTO, pretrained=True).check(state)
