"""How far what a model sees and answers is from what it said of held-out pictures.

The formulas are those of `argocd/platform/configs/behaviour-rules.yaml`, which alerts go by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FEWEST = 200  # pictures, below which nothing is said
DRIFT = 0.2  # population stability index that is more than a little
LOSS = 0.05  # of the estimated accuracy
Bins = Mapping[str, float]  # by name


@dataclass(frozen=True)
class Feature:
    """A feature's pictures in each bin, and the shares there of held-out ones, none of them 0."""

    counted: Bins
    reference: Bins

    @property
    def pictures(self) -> float:
        """How many were counted."""
        return sum(self.counted.values())

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares (bins,) now and of held-out pictures; half a picture more keeps bins from 0."""
        counted = np.array([self.counted.get(name, 0.0) for name in self.reference]) + 0.5
        return counted / counted.sum(), np.array(list(self.reference.values()))

    def psi(self) -> float:
        """Population stability index: 0 is the same."""
        now, held_out = self.shares()
        return float(((now - held_out) * np.log(now / held_out)).sum())

    def js(self) -> float:
        """Jensen-Shannon divergence in bits: 0 is the same, 1 has nothing in common."""
        now, held_out = self.shares()
        middle = (now + held_out) / 2
        parts = now * np.log2(now / middle) + held_out * np.log2(held_out / middle)
        return float(parts.sum() / 2)


@dataclass(frozen=True)
class Behaviour:
    """What one version of a model saw and answered.

    Attributes:
        features: by name.
        pictures: held-out ones, from which the features' references are.
        labelled: those of them that the accuracy is of.
        accuracy: the share that was answered rightly, and as large a share of answers was sure.
    """

    features: Mapping[str, Feature]
    pictures: float
    labelled: float
    accuracy: float

    def by_chance(self, feature: Feature) -> float:
        """Return the index that chance exceeds once in 30,000.

        It is chi-squared by 1/n + 1/m of both counts of pictures (Yurdakul 2018); the quantile at
        four deviations is Wilson's and Hilferty's.
        """
        freedom = len(feature.reference) - 1
        spread = 2 / (9 * freedom)
        quantile = freedom * (1 - spread + 4 * spread**0.5) ** 3
        return float((1 / max(feature.pictures, 1) + 1 / self.pictures) * quantile)

    def drifting(self, feature: Feature) -> bool:
        """Whether a feature is another than that of held-out pictures."""
        return feature.pictures >= FEWEST and feature.psi() > max(DRIFT, self.by_chance(feature))

    def estimate(self) -> float:
        """Return the accuracy now as it seems: the share of answers that are sure.

        Source: Garg et al., Leveraging unlabeled data to predict out-of-distribution performance
        (ICLR 2022).
        """
        sure = self.features["sure"]
        return sure.counted.get("yes", 0.0) / sure.pictures

    def unsure(self) -> bool:
        """Whether fewer answers seem right than of held-out pictures, and not by chance."""
        sure, estimate = self.features["sure"], self.estimate()
        middle = (self.accuracy + estimate) / 2
        spread = (middle * (1 - middle) * (1 / sure.pictures + 1 / self.labelled)) ** 0.5
        return sure.pictures >= FEWEST and self.accuracy - estimate > max(LOSS, 4 * spread)
