"""The IR network of AdaFace (Kim et al., 2022), 112x112 BGR -> 512 dimensions.

An IResNet under other names, whose shortcut has no parameters where the channels stay the same. Module names
follow the checkpoints of mk-minchul/AdaFace, so that they load strictly.
"""

import torch
from torch import Tensor, nn

from leamfast.models.iresnet import IRESNET_BLOCKS

__all__ = ["AdaFaceIR"]

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Pre-normalised residual block, (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class AdaFaceIR(nn.Module):
    """Images (N, 3, 112, 112) -> (embeddings (N, 512) of length 1, the lengths they had (N, 1)).

    Args:
        depth: a key of `IRESNET_BLOCKS`; what is published as IR-101 is 100 here.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.PReLU(WIDTHS[0])
        )
        blocks: list[nn.Module] = []
        for repeats, inputs, outputs in zip(
            IRESNET_BLOCKS[depth], (WIDTHS[0], *WIDTHS), WIDTHS, strict=False
        ):
            blocks += [Block(inputs, outputs, 2), *(Block(outputs, outputs, 1) for _ in range(repeats - 1))]
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(WIDTHS[-1]),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(WIDTHS[-1] * 7 * 7, 512),
            nn.BatchNorm1d(512, affine=False),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.output_layer(self.body(self.input_layer(x)))
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x / length, length
