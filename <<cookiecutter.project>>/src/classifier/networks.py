"""The networks: plain modules from normalised pictures to class scores, each with its own loss.

Every network takes float pictures (N, C, H, W) and returns scores (N, K): the class with the
highest score is the answer. How they are trained is in `training`; this is what gets exported.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import create_model
from torch import Tensor, nn

from classifier import params
from classifier.augmentation import Augmentation
from classifier.params import TrainParams
from workspace.settings import Settings, SettingsError


@dataclass(frozen=True)
class Shape:
    """What a data set asks of a network: picture size in pixels, channels, number of classes."""

    height: int
    width: int
    channels: int
    classes: int

    @property
    def pixels(self) -> int:
        """Numbers in one picture."""
        return self.height * self.width * self.channels


class Network(nn.Module):
    """Base: softmax scores, trained with cross-entropy."""

    cross_entropy = True  # which targets between classes and weights of classes are made for

    def fit_to(self, images: Tensor, generator: torch.Generator) -> None:
        """Set what depends on the training pictures (N, C, H, W), before training starts."""

    @classmethod
    def looks_at_pictures(cls) -> bool:
        """Whether `fit_to` is one of its own; for others no picture needs to be normalised."""
        return cls.fit_to is not Network.fit_to

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of scores (N, K) and labels (N,)."""
        return F.cross_entropy(scores, labels)

    def penalty(self, examples: int) -> Tensor | float:
        """What is added to the mean loss over a training set of that many examples."""
        return 0.0


class LinearNetwork(Network):
    """Base of the networks that are linear in a feature vector: scores = features · W + b."""

    def __init__(self, features: int, classes: int, c: float) -> None:
        super().__init__()
        self.c = c
        self.head = nn.Linear(features, classes)
        nn.init.zeros_(self.head.weight)  # the problems are convex: any start will do
        nn.init.zeros_(self.head.bias)

    def features(self, images: Tensor) -> Tensor:
        """Feature vectors (N, F) of pictures (N, C, H, W)."""
        return images.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K)."""
        return self.head(self.features(images))

    def penalty(self, examples: int) -> Tensor | float:
        """½‖W‖² / (C·N): scikit-learn's ½‖W‖² + C·Σ loss, divided by C·N."""
        return self.head.weight.square().sum() / (2 * self.c * examples)


class LinearRegression(LinearNetwork):
    """Least squares on one-hot targets: min Σ ‖f(x) − onehot(y)‖².

    Source: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, §4.2.
    """

    cross_entropy = False

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.pixels, shape.classes, math.inf)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean over the examples of the squared distance to the one-hot target."""
        targets = F.one_hot(labels, scores.shape[1]).to(scores.dtype)
        return (scores - targets).square().sum(1).mean()


class LogisticRegression(LinearNetwork):
    """Multinomial logistic regression: −log softmax(f(x))_y + ½‖W‖² / (C·N).

    Source: The Elements of Statistical Learning, §4.4.
    """

    def __init__(self, shape: Shape, c: float = 1.0) -> None:
        super().__init__(shape.pixels, shape.classes, c)


class LinearSVM(LinearNetwork):
    """Linear support vector machine: ½‖W‖² + C · Σ slack.

    The slack is the multiclass hinge max(0, 1 + max over j≠y of s_j − s_y). Source: Crammer &
    Singer, On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines, JMLR 2
    (2001).
    """

    cross_entropy = False

    def __init__(self, shape: Shape, c: float = 1.0) -> None:
        super().__init__(shape.pixels, shape.classes, c)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean slack of scores (N, K) and labels (N,)."""
        margins = 1 - F.one_hot(labels, scores.shape[1]).to(scores.dtype)
        true_scores = scores.gather(1, labels[:, None]).squeeze(1)
        return ((scores + margins).amax(1) - true_scores).mean()


class KernelSVM(LinearSVM):
    """Support vector machine with an explicit feature map of an RBF or polynomial kernel.

    The map is Nyström's, φ(x) = K(x, Z) · K(Z, Z)^(−½) with landmarks Z drawn from the training
    pictures; with all of them as landmarks the kernel is exact. Source: Williams & Seeger, Using
    the Nyström Method to Speed Up Kernel Machines, NIPS 2000.

    RBF: k(x, z) = exp(−γ‖x − z‖²); polynomial: k(x, z) = (γ x·z + 1)^degree. `gamma` defaults to
    1 / (pixels · variance), as scikit-learn's "scale".
    """

    landmarks: Tensor
    whitening: Tensor
    gamma: Tensor

    def __init__(
        self,
        shape: Shape,
        kernel: Literal["rbf", "polynomial"] = "rbf",
        c: float = 10.0,
        gamma: float | None = None,
        degree: int = 3,
        landmarks: int = 1024,
    ) -> None:
        super().__init__(shape, c)
        self.kernel_name = kernel
        self.degree = degree
        self.head = nn.Linear(landmarks, shape.classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("gamma", torch.tensor(gamma or 0.0))
        self.register_buffer("landmarks", torch.zeros(landmarks, shape.pixels))
        self.register_buffer("whitening", torch.zeros(landmarks, landmarks))

    def kernel(self, x: Tensor, z: Tensor) -> Tensor:
        """Kernel matrix (N, M) of x (N, D) and z (M, D)."""
        products = x @ z.T
        if self.kernel_name == "polynomial":
            return (self.gamma * products + 1) ** self.degree
        distances = x.square().sum(1, keepdim=True) + z.square().sum(1) - 2 * products
        return torch.exp(-self.gamma * distances.clamp_min(0))

    def fit_to(self, images: Tensor, generator: torch.Generator) -> None:
        """Draw the landmarks, repeating none, and compute K(Z, Z)^(−½)."""
        points = images.flatten(1)
        drawn = torch.randperm(len(points), generator=generator)[: len(self.landmarks)]
        z = points[drawn].double()
        if self.gamma == 0:
            self.gamma.fill_(1 / (points.shape[1] * points.var().item()))
        values, vectors = torch.linalg.eigh(self.kernel(z, z))
        # Directions with next to no variance are noise of the arithmetic: leave them out.
        scales = torch.where(values > 1e-6 * values.max(), values.clamp_min(0).rsqrt(), 0.0)
        # A small data set fills only the first landmarks; the others stay zero and weigh nothing.
        self.landmarks[: len(z)] = z.float()
        self.whitening[: len(z), : len(z)] = ((vectors * scales) @ vectors.T).float()

    def features(self, images: Tensor) -> Tensor:
        """φ(x), (N, landmarks)."""
        return self.kernel(images.flatten(1), self.landmarks) @ self.whitening


class MLP(Network):
    """Multi-layer perceptron: `depth` hidden layers of `width` units with ReLU and dropout."""

    def __init__(
        self, shape: Shape, width: int = 256, depth: int = 2, dropout: float = 0.2
    ) -> None:
        super().__init__()
        widths = [shape.pixels] + [width] * depth
        hidden = [
            nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
            for before, after in pairwise(widths)
        ]
        self.layers = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], shape.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K)."""
        return self.layers(images)


class CNN(Network):
    """Three stages of two 3×3 convolutions; the second and third halve the picture; global mean.

    The first convolution brings larger pictures to about `SEEN` pixels a side, so that what the
    stages see, and the time that they take, hardly depends on how large pictures are.
    Batch normalisation after each convolution: Ioffe & Szegedy, arXiv:1502.03167.
    """

    SEEN = 40
    STRIDES = 4  # of the first convolution, at most

    def __init__(self, shape: Shape, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        side = math.sqrt(shape.height * shape.width)
        strides = [min(max(1, round(side / self.SEEN)), self.STRIDES), 2, 2]
        widths = [shape.channels, width, 2 * width, 4 * width]
        stages = [
            nn.Sequential(
                self.convolution(before, after, stride), self.convolution(after, after, stride=1)
            )
            for stride, (before, after) in zip(strides, pairwise(widths), strict=True)
        ]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], shape.classes))

    @staticmethod
    def convolution(before: int, after: int, stride: int) -> nn.Sequential:
        """A 3×3 convolution, or a wider one that steps over no pixel, normalised, activated."""
        size = max(3, 2 * stride - 1)
        return nn.Sequential(
            nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K)."""
        return self.head(self.stages(images).mean((2, 3)))


class Photographic(Network):
    """A network of torchvision's for photographs, which may start from weights learnt elsewhere.

    It sees three channels, grey pictures three times the same, and small pictures enlarged, as
    those were from which the weights were learnt. All layers but the last are the body.
    """

    MODEL = ""  # its name there
    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, from 0 to 1
    LEAST = 32  # pixels of the shorter side, or it would shrink to nothing
    LEARNT = 96  # with such weights, which know things of a certain size

    def __init__(self, shape: Shape, *, pretrained: bool = False) -> None:
        super().__init__()
        self.body = self.make(shape, pretrained)
        parts = self.body.named_modules()
        self.head_name = [name for name, part in parts if isinstance(part, nn.Linear)][-1]
        shorter = min(shape.height, shape.width)
        factor = max(1.0, (self.LEARNT if pretrained else self.LEAST) / shorter)
        self.size = (round(factor * shape.height), round(factor * shape.width))

    def make(self, shape: Shape, pretrained: bool) -> nn.Module:
        """The network as torchvision has it, for those classes."""
        from torchvision.models import get_model  # takes seconds to import, only these need it

        return get_model(self.MODEL, num_classes=shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K)."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if tuple(images.shape[2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False)
        return self.body(images)

    @property
    def head(self) -> nn.Module:
        """The last layer, which tells these classes apart."""
        return self.body.get_submodule(self.head_name)

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Raise ValueError for the first weight of the body that `state` lacks or has otherwise.

        What it says completes "these are no weights of it, …".
        """
        for name, weight in self.body.state_dict().items():
            if name.startswith(f"{self.head_name}."):
                continue  # of other classes
            if name not in state:
                raise ValueError(f"which would have one named {name}")
            if state[name].shape != weight.shape:
                sizes = f"{tuple(state[name].shape)} instead of {tuple(weight.shape)}"
                raise ValueError(f"whose {name} has the shape {sizes}")

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of the body, as `check` lets pass; the head stays as it is."""
        own = self.body.state_dict()
        learnt = {name: state[name] for name in own if not name.startswith(f"{self.head_name}.")}
        self.body.load_state_dict(own | learnt)


class ResNet18(Photographic):
    """ResNet-18; for small pictures with a stem of one 3×3 convolution and no pooling.

    Source: He et al., arXiv:1512.03385, §4.2 (the CIFAR-10 networks).
    """

    MODEL = "resnet18"
    SMALL = 64  # pixels of a side, up to which nothing is to be left out at the start

    def make(self, shape: Shape, pretrained: bool) -> nn.Module:
        """The network with the stem that fits."""
        body: Any = super().make(shape, pretrained)
        if not pretrained and math.sqrt(shape.height * shape.width) <= self.SMALL:
            body.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            body.maxpool = nn.Identity()
        return body


class EfficientNetB0(Photographic):
    """EfficientNet-B0. Source: Tan & Le, arXiv:1905.11946."""

    MODEL = "efficientnet_b0"


class ConvNeXtTiny(Photographic):
    """ConvNeXt-Tiny. Source: Liu et al., A ConvNet for the 2020s, arXiv:2201.03545."""

    MODEL = "convnext_tiny"


class MobileNetV3(Photographic):
    """MobileNetV3-Large, the fastest of them. Source: Howard et al., arXiv:1905.02244."""

    MODEL = "mobilenet_v3_large"


NETWORKS: dict[str, type[Network]] = {
    "linear_regression": LinearRegression,
    "logistic_regression": LogisticRegression,
    "linear_svm": LinearSVM,
    "kernel_svm": KernelSVM,
    "mlp": MLP,
    "cnn": CNN,
    "resnet18": ResNet18,
    "efficientnet_b0": EfficientNetB0,
    "convnext_tiny": ConvNeXtTiny,
    "mobilenet_v3": MobileNetV3,
}
ANY_PHOTO = Shape(224, 224, 3, 2)


def build(
    name: str,
    shape: Shape,
    options: Mapping[str, Any] | None = None,
    place: str = "train",
    pretrained: bool = False,
) -> Network:
    """Build the network of that name for pictures of that shape.

    Raises SettingsError for a name that is not in NETWORKS or an option that it does not take,
    which is of that place of params.yaml, or one that cannot start from weights and is to.
    """
    if name not in NETWORKS:
        raise SettingsError(
            f"{params.FILE}: train.network is {name!r}: give one of {', '.join(NETWORKS)}"
        )
    checked = params.check(options_of(name), options or {}, place, "options")
    if pretrained:
        return pretrainable(name)(shape, pretrained=True, **dict(checked))
    return NETWORKS[name](shape, **dict(checked))


def pretrainable(name: str) -> type[Photographic]:
    """The network of that name, which can start from weights. Raises SettingsError."""
    kind = NETWORKS.get(name, Network)
    if not issubclass(kind, Photographic):
        able = [each for each, other in NETWORKS.items() if issubclass(other, Photographic)]
        raise SettingsError(
            f"{params.FILE}: train.pretrained is true, but there are no weights of {name}: give "
            f"one of {', '.join(able)} in train.network, or set it to false"
        )
    return kind


def check_together(train: TrainParams) -> None:
    """Raise SettingsError for parameters of the section `train` that do not go together."""
    check_targets(train)
    check_optimizer(train)
    if train.pretrained:
        pretrainable(train.network)


def check_targets(train: TrainParams) -> None:
    """Raise SettingsError for targets that the loss of a network is not made for."""
    wanted = {
        "class_weights": train.class_weights,
        "label_smoothing": train.label_smoothing,
        "augmentation.mixup": train.augmentation.mixup,
        "augmentation.cutmix": train.augmentation.cutmix,
    }
    kind = NETWORKS.get(train.network, Network)  # an unknown one is named later
    if not kind.cross_entropy and (names := [name for name, value in wanted.items() if value]):
        raise SettingsError(
            f"{params.FILE}: train.{names[0]} is {wanted[names[0]]}, but {train.network} has no "
            "cross-entropy, which it needs: set it to 0 or false, or give another train.network"
        )


def check_optimizer(train: TrainParams) -> None:
    """Raise SettingsError for what L-BFGS cannot do.

    Its line search computes the loss of one batch several times, which must be the same each time,
    to all digits. torch's takes no weight decay, and no schedule that moves a momentum.
    """
    if train.optimizer != "lbfgs":
        return
    given = train.model_dump() | {f"augmentation.{name}": v for name, v in train.augmentation}
    able: dict[str, list[Any]] = {
        "schedule": ["constant"],
        "weight_decay": [0.0],
        "precision": ["32-true", "auto"],
        **{f"augmentation.{name}": [off] for name, off in Augmentation()},
    }
    wrong = [name for name, values in able.items() if given[name] not in values]
    if wrong:
        having = ", ".join(f"{name} {given[name]}" for name in wrong)
        cure = ", ".join(f"{name} to {able[name][0]}".lower() for name in wrong)  # YAML's false
        raise SettingsError(
            f"{params.FILE}: train.optimizer is 'lbfgs', which cannot train with {having}: set "
            f"{cure}, or give another train.optimizer"
        )


def options_of(name: str) -> type[Settings]:
    """The options of the network of that name: what its class takes beside the shape."""
    _, *others = inspect.signature(NETWORKS[name]).parameters.values()
    taken = [each for each in others if each.kind is not each.KEYWORD_ONLY]
    fields: dict[str, Any] = {each.name: (each.annotation, each.default) for each in taken}
    return create_model(f"Options of {name}", __base__=Settings, **fields)


def defaults(name: str) -> dict[str, Any]:
    """The options of the network of that name and what they are unless somebody says otherwise."""
    return {option: field.default for option, field in options_of(name).model_fields.items()}
