"""Random changes to training pictures, drawn anew for every one of a batch, on its device."""

import math
from typing import TYPE_CHECKING

from workspace.settings import Settings

if TYPE_CHECKING:  # the stages that only read the settings need no torch
    from torch import Tensor


class Augmentation(Settings):
    """How far a picture may be moved from what was recorded; zeros leave it as it is."""

    shift: float = 0.0  # share of the picture's size, in each direction
    rotate: float = 0.0  # degrees, to each side
    scale: float = 0.0  # share by which it may grow or shrink
    flip: bool = False  # mirror left and right, one time in two


def augment(images: "Tensor", how: Augmentation) -> "Tensor":
    """Pictures (N, C, H, W), each after a random affine map of its own; the edges are continued."""
    import torch
    import torch.nn.functional as F

    if how == Augmentation():
        return images
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
