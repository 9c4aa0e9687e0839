"""IResNet: the residual network of ArcFace and CosFace (Duta et al., 2020; Deng et al., 2019).

A block is bn - conv3x3 - bn - PReLU - conv3x3(stride) - bn, added to its input. Module names follow
arcface_torch's `backbone.pth`, so that public checkpoints load strictly.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["IRESNET_BLOCKS", "IResNet", "iresnet"]

IRESNET_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}


class Block(nn.Module):
    """Pre-normalised residual block, (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(out)) + shortcut


class IResNet(nn.Module):
    """Images (N, 3, size, size) -> embeddings (N, embedding), not normalised.

    Args:
        blocks: number of residual blocks of the four stages (`IRESNET_BLOCKS[18]`, ...).
        widths: channels of the four stages; the stem has the first of them.
        embedding: length of an embedding.
        size: side of the input images in pixels.
        stem_stride: stride of the first convolution.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        embedding: int = 512,
        size: int = 112,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        stages = [
            nn.Sequential(Block(inputs, outputs, 2), *(Block(outputs, outputs, 1) for _ in range(depth - 1)))
            for depth, inputs, outputs in zip(blocks, (widths[0], *widths), widths, strict=False)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        side = size
        for stride in (stem_stride, 2, 2, 2, 2):
            side = -(-side // stride)
        self.bn2 = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1] * side * side, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(torch.flatten(self.bn2(x), 1)))


def iresnet(depth: int) -> IResNet:
    """The network of a depth that `IRESNET_BLOCKS` has."""
    return IResNet(IRESNET_BLOCKS[depth])
