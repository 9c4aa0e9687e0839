"""The demo model: a narrow IResNet for synthetic faces, packaged with the project.

Trained from nothing by `python -m leamfast_bench.train_demo` on 500 synthetic people with 20 pictures each
(`leamfast.datasets.synthetic`, seed 0): CosFace with scale 24 and margin 0.2 (Wang et al., 2018), SGD, ten
epochs, ten minutes on one CPU core. No photograph of a person was used. It tells synthetic
people apart and nobody else.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from leamfast.models.iresnet import IResNet

__all__ = ["DEMO_ARCHITECTURE", "DEMO_MEAN", "DEMO_STD", "DEMO_WEIGHTS", "demo_network"]

DEMO_WEIGHTS: Final = Path(__file__).with_name("demo.safetensors")

DEMO_BLOCKS: Final = (1, 1, 1, 1)
DEMO_WIDTHS: Final = (16, 32, 64, 128)
DEMO_EMBEDDING: Final = 128
DEMO_SIZE: Final = 112
DEMO_STEM_STRIDE: Final = 2

# Preprocessing: (pixel - mean) / std of RGB values 0 to 255.
DEMO_MEAN: Final = 127.5
DEMO_STD: Final = 127.5

# What the header of the weights file records, as safetensors wants it: strings.
DEMO_ARCHITECTURE: Final[dict[str, str]] = {
    "blocks": ",".join(map(str, DEMO_BLOCKS)),
    "widths": ",".join(map(str, DEMO_WIDTHS)),
    "embedding": str(DEMO_EMBEDDING),
    "size": str(DEMO_SIZE),
    "stem_stride": str(DEMO_STEM_STRIDE),
}


def demo_network() -> "IResNet":
    """The demo model's network, with random weights: (N, 3, 112, 112) -> (N, 128)."""
    from leamfast.models.iresnet import IResNet

    return IResNet(DEMO_BLOCKS, DEMO_WIDTHS, DEMO_EMBEDDING, DEMO_SIZE, DEMO_STEM_STRIDE)
