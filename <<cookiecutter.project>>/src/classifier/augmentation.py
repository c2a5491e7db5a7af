"""Random changes to training pictures, drawn anew for every one of a batch, on its device."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from workspace.settings import Settings

if TYPE_CHECKING:  # the stages that only read the settings need no torch
    from torch import Tensor

Share = Annotated[float, Field(description="a share from 0 to 1", examples=[0.1], ge=0, le=1)]
Degrees = Annotated[float, Field(description="degrees from 0 to 180", examples=[10], ge=0, le=180)]
Below1 = Annotated[
    float, Field(description="a share from 0 to below 1", examples=[0.1], ge=0, lt=1)
]
From0 = Annotated[float, Field(description="a number from 0", examples=[0.2], ge=0)]


class Augmentation(Settings):
    """How far a picture may be moved from what was recorded; zeros leave it as it is."""

    shift: Share = 0.0  # of the picture's size, in each direction
    rotate: Degrees = 0.0  # to each side
    scale: Below1 = 0.0  # share by which it may grow or shrink; by all, one pixel fills it
    flip: bool = False  # mirror left and right, one time in two
    colour: Share = 0.0  # share by which brightness, contrast and saturation change; a tenth: hue
    blur: From0 = 0.0  # pixels, the largest deviation of a Gaussian
    erase: Share = 0.0  # of the pictures that lose a rectangle
    mixup: From0 = 0.0  # alpha of the shares in which two pictures, and labels, are laid together
    cutmix: From0 = 0.0  # alpha of those by which one has a rectangle of the other


def recolour(images: "Tensor", how: Augmentation) -> "Tensor":
    """Pixels uint8 (N, H, W, C), each picture in a light of its own."""
    if not how.colour:
        return images
    from torchvision.transforms import v2

    each = v2.ColorJitter(how.colour, how.colour, how.colour, min(how.colour / 10, 0.5))
    return one_by_one(each, images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def augment(images: "Tensor", how: Augmentation) -> "Tensor":
    """Normalised pictures (N, C, H, W), each moved, blurred and erased in a way of its own."""
    from torchvision.transforms import v2

    if how.shift or how.rotate or how.scale or how.flip:
        images = move(images, how)
    if how.blur:
        half = min(math.ceil(2 * how.blur), *(side - 1 for side in images.shape[2:]))
        images = one_by_one(v2.GaussianBlur(2 * half + 1, (1e-3, how.blur)), images)
    if how.erase:  # to zero, which is the mean
        images = one_by_one(v2.RandomErasing(how.erase), images)
    return images


def mix(
    images: "Tensor", labels: "Tensor", classes: int, how: Augmentation
) -> tuple["Tensor", "Tensor"]:
    """Pictures (N, C, H, W) laid together by twos, and their labels (N,) as shares (N, K)."""
    import torch
    from torchvision.transforms import v2

    kinds = {v2.MixUp: how.mixup, v2.CutMix: how.cutmix}
    chosen = [(kind, alpha) for kind, alpha in kinds.items() if alpha]
    if not chosen:
        return images, labels
    kind, alpha = chosen[int(torch.randint(len(chosen), ()))]
    return kind(alpha=alpha, num_classes=classes)(images, labels)


def one_by_one(transform: Callable[["Tensor"], "Tensor"], images: "Tensor") -> "Tensor":
    """Change each picture by draws of its own; torchvision changes those of a batch alike."""
    import torch

    return torch.stack([transform(image) for image in images])


def move(images: "Tensor", how: Augmentation) -> "Tensor":
    """Pictures (N, C, H, W), each after a random affine map of its own; the edges are continued."""
    import torch
    import torch.nn.functional as F

    count, device = len(images), images.device

    def uniform(limit: float) -> "Tensor":
        return (torch.rand(count, device=device) * 2 - 1) * limit

    angle = uniform(math.radians(how.rotate))
    zoom = 1 + uniform(how.scale)
    mirror = torch.where(torch.rand(count, device=device) < 0.5 * how.flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # The grid's coordinates run from -1 to 1 along either side: a shift by the whole picture is 2,
    # and what turns a picture must know how much longer one side is, or it shears.
    height, width = images.shape[2:]
    across, down = -sine * (height / width), sine * (width / height)
    rows = [cosine * mirror, across, 2 * uniform(how.shift), down * mirror, cosine]
    maps = torch.stack([*rows, 2 * uniform(how.shift)], dim=1).view(count, 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
