import pytest
import torch

from leamfast.models.iresnet import IRESNET_BLOCKS, IResNet
from leamfast.models.mobilefacenet import MobileFaceNet
from leamfast.models.zoo import ZOO, build

MILLIONS = {18: 24.0, 34: 34.1, 50: 43.6, 100: 65.2}  # parameters of the published models


@pytest.mark.parametrize("depth", MILLIONS)
def test_iresnet_has_the_published_number_of_parameters(depth):
    with torch.device("meta"):
        network = IResNet(IRESNET_BLOCKS[depth])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(MILLIONS[depth], abs=0.05)


def test_iresnet_has_the_keys_of_the_published_checkpoints():
    with torch.device("meta"):
        keys = set(IResNet(IRESNET_BLOCKS[18]).state_dict())
    block = {f"layer2.0.{m}.weight" for m in ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")}
    ends = {"conv1.weight", "bn1.running_mean", "prelu.weight", "bn2.bias", "fc.bias", "features.running_var"}
    assert block | ends | {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"} <= keys
    assert "layer2.1.downsample.0.weight" not in keys


@pytest.mark.parametrize(("size", "stride"), [(112, 1), (112, 2), (64, 1), (50, 2)])
def test_iresnet_takes_any_size_and_stem_stride(size, stride):
    network = IResNet((1, 1, 1, 1), (4, 4, 8, 8), 16, size, stride).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 16)


def test_mobilefacenet_has_the_layout_of_the_published_weights():
    with torch.device("meta"):
        state = MobileFaceNet().state_dict()
    assert len(state) == 307
    assert state["features.14.conv.2.weight"].shape == (128, 256, 1, 1)
    assert state["gdconv.depthwise.weight"].shape == (512, 1, 7, 7)


def test_untrained_weights_follow_from_the_seed():
    first, same, other = (build(ZOO["mobilefacenet"], seed=seed).conv3.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
