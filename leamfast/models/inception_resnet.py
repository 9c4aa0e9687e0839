"""Inception-ResNet-v1 for faces (Szegedy et al., 2016; David Sandberg's facenet), 160x160 -> 512 dimensions.

Module names follow facenet-pytorch's state dicts, so that they load strictly but for the classifier `logits`.
Its network ends by giving embeddings length 1; a cosine does not see lengths, so this one leaves that out.
"""

import torch
from torch import Tensor, nn

__all__ = ["InceptionResnetV1"]

EPSILON = 1e-3  # of every BatchNorm

Kernel = int | tuple[int, int]


class ConvUnit(nn.Module):
    """Convolution - BatchNorm - ReLU, (N, inputs, H, W) -> (N, outputs, h, w)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, EPSILON)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """What `branch0`, `branch1`, ... make of one input, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)

    def forward(self, x: Tensor) -> Tensor:
        branches = [module for name, module in self.named_children() if name.startswith("branch")]
        return torch.cat([branch(x) for branch in branches], 1)


class Residual(Branches):
    """Branches, projected by a 1x1 convolution, scaled, and added to their input: (N, C, H, W) -> the same.

    Args:
        channels: C, of input and output.
        joined: channels of the branches together.
        branches: these.
        scale: of what is added.
        rectified: whether a ReLU ends the block.
    """

    def __init__(
        self, channels: int, joined: int, *branches: nn.Module, scale: float, rectified: bool = True
    ) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(joined, channels, 1)
        self.relu = nn.ReLU() if rectified else nn.Identity()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2d(super().forward(x)) * self.scale + x)


def same(inputs: int, *units: tuple[int, Kernel]) -> nn.Module:
    """Units of (channels, kernel) in a row that keep height and width."""
    made = []
    for outputs, kernel in units:
        padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
        made.append(ConvUnit(inputs, outputs, kernel, padding=padding))
        inputs = outputs
    return made[0] if len(made) == 1 else nn.Sequential(*made)


def block35() -> Residual:
    """The block of the 35x35 grid of a 299-pixel input; 17x17 here."""
    branches = same(256, (32, 1)), same(256, (32, 1), (32, 3)), same(256, (32, 1), (32, 3), (32, 3))
    return Residual(256, 96, *branches, scale=0.17)


def block17() -> Residual:
    """The block of the 17x17 grid of a 299-pixel input; 8x8 here."""
    branches = same(896, (128, 1)), same(896, (128, 1), (128, (1, 7)), (128, (7, 1)))
    return Residual(896, 256, *branches, scale=0.10)


def block8(scale: float = 0.20, rectified: bool = True) -> Residual:
    """The block of the 8x8 grid of a 299-pixel input; 3x3 here."""
    branches = same(1792, (192, 1)), same(1792, (192, 1), (192, (1, 3)), (192, (3, 1)))
    return Residual(1792, 384, *branches, scale=scale, rectified=rectified)


def mixed_6a() -> Branches:
    """Reduction (N, 256, 17, 17) -> (N, 896, 8, 8)."""
    return Branches(
        ConvUnit(256, 384, 3, 2),
        nn.Sequential(ConvUnit(256, 192, 1), ConvUnit(192, 192, 3, padding=1), ConvUnit(192, 256, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


def mixed_7a() -> Branches:
    """Reduction (N, 896, 8, 8) -> (N, 1792, 3, 3)."""
    return Branches(
        nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 384, 3, 2)),
        nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, 2)),
        nn.Sequential(ConvUnit(896, 256, 1), ConvUnit(256, 256, 3, padding=1), ConvUnit(256, 256, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


class InceptionResnetV1(nn.Module):
    """Images (N, 3, 160, 160) -> embeddings (N, 512), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = ConvUnit(3, 32, 3, 2)
        self.conv2d_2a = ConvUnit(32, 32, 3)
        self.conv2d_2b = ConvUnit(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvUnit(64, 80, 1)
        self.conv2d_4a = ConvUnit(80, 192, 3)
        self.conv2d_4b = ConvUnit(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(block35() for _ in range(5)))
        self.mixed_6a = mixed_6a()
        self.repeat_2 = nn.Sequential(*(block17() for _ in range(10)))
        self.mixed_7a = mixed_7a()
        self.repeat_3 = nn.Sequential(*(block8() for _ in range(5)))
        self.block8 = block8(scale=1.0, rectified=False)
        self.avgpool_1a = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.6)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        x = self.dropout(self.avgpool_1a(x))
        return self.last_bn(self.last_linear(torch.flatten(x, 1)))
