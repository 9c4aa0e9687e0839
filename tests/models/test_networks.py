"""The architectures of the zoo: names, sizes, and forward passes worked by hand."""

import pytest
import torch
from torch import nn

from leamfast import load_model
from leamfast.models.adaface import AdaFaceIR, Block
from leamfast.models.inception_resnet import InceptionResnetV1, block8, block35
from leamfast.models.iresnet import IRESNET_BLOCKS, IResNet
from leamfast.models.mobilefacenet import MobileFaceNet
from leamfast.models.zoo import ZOO, build

PARAMETERS = {
    "iresnet18": 24_025_600,
    "iresnet34": 34_139_328,
    "iresnet50": 43_590_848,
    "iresnet100": 65_156_160,
    "iresnet200": 118_833_920,
    "inceptionresnetv1": 23_482_624,
    "adaface_ir18": 24_020_352,
    "adaface_ir50": 43_585_600,
    "adaface_ir101": 65_150_912,
    "mobilefacenet": 999_936,
    "demo": 571_120,
}
MILLIONS = {18: 24.0, 34: 34.1, 50: 43.6, 100: 65.2}  # parameters of the published IResNets
OF_THE_PAPER = [f"{family}_R{depth}" for family in ("AF", "CF") for depth in MILLIONS]


def meta(make) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in make().state_dict().items()}


@pytest.mark.parametrize("name", ZOO)
def test_named_models_have_the_right_number_of_parameters(name):
    model = ZOO[name]
    count = sum(p.numel() for p in build(model, "meta").parameters())
    assert count == PARAMETERS[model.architecture]


def test_the_nine_models_of_the_paper():
    for name in OF_THE_PAPER:
        model = ZOO[name]
        values = (model.preprocessing.size, model.preprocessing.channels, model.preprocessing.std[0])
        assert values == (112, "rgb", 127.5)
        depth = int(model.architecture.removeprefix("iresnet"))
        assert PARAMETERS[model.architecture] / 1e6 == pytest.approx(MILLIONS[depth], abs=0.05)
    casia = ZOO["IR_CASIA"].preprocessing
    assert (casia.size, casia.channels, casia.mean[0], casia.std[0]) == (160, "rgb", 127.5, 128)
    assert ZOO["AdaFace_IR18"].preprocessing.channels == "bgr"


def test_iresnet_has_the_keys_of_the_published_checkpoints():
    keys = set(meta(lambda: IResNet(IRESNET_BLOCKS[18])))
    block = {f"layer2.0.{m}.weight" for m in ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")}
    ends = {"conv1.weight", "bn1.running_mean", "prelu.weight", "bn2.bias", "fc.bias", "features.running_var"}
    assert block | ends | {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"} <= keys
    assert "layer2.1.downsample.0.weight" not in keys


@pytest.mark.parametrize(("size", "stride"), [(112, 1), (112, 2), (64, 1), (50, 2)])
def test_iresnet_takes_any_size_and_stem_stride(size, stride):
    network = IResNet((1, 1, 1, 1), (4, 4, 8, 8), 16, size, stride).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 16)


def test_mobilefacenet_has_the_layout_of_the_published_weights():
    state = meta(MobileFaceNet)
    assert len(state) == 307
    assert state["features.14.conv.2.weight"] == (128, 256, 1, 1)
    assert state["gdconv.depthwise.weight"] == (512, 1, 7, 7)


# Names and shapes as facenet-pytorch's files have them.
INCEPTION = {
    "conv2d_1a.conv.weight": (32, 3, 3, 3),
    "conv2d_2b.bn.running_var": (64,),
    "conv2d_3b.conv.weight": (80, 64, 1, 1),
    "conv2d_4b.conv.weight": (256, 192, 3, 3),
    "repeat_1.0.branch0.conv.weight": (32, 256, 1, 1),
    "repeat_1.4.branch2.2.conv.weight": (32, 32, 3, 3),
    "repeat_1.4.conv2d.weight": (256, 96, 1, 1),
    "mixed_6a.branch0.conv.weight": (384, 256, 3, 3),
    "mixed_6a.branch1.2.conv.weight": (256, 192, 3, 3),
    "repeat_2.9.branch1.1.conv.weight": (128, 128, 1, 7),
    "repeat_2.9.branch1.2.conv.weight": (128, 128, 7, 1),
    "repeat_2.9.conv2d.bias": (896,),
    "mixed_7a.branch0.1.conv.weight": (384, 256, 3, 3),
    "mixed_7a.branch2.2.conv.weight": (256, 256, 3, 3),
    "repeat_3.4.branch1.1.conv.weight": (192, 192, 1, 3),
    "block8.branch1.2.bn.bias": (192,),
    "block8.conv2d.weight": (1792, 384, 1, 1),
    "last_linear.weight": (512, 1792),
    "last_bn.running_mean": (512,),
}


def test_inception_resnet_has_the_keys_of_the_published_files():
    state = meta(InceptionResnetV1)
    assert {key: state.get(key) for key in INCEPTION} == INCEPTION
    assert {key.split(".")[0] for key in state} == {
        "conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b", "repeat_1", "mixed_6a",
        "repeat_2", "mixed_7a", "repeat_3", "block8", "last_linear", "last_bn",
    }  # fmt: skip
    assert len(state) == 111 * 6 + 21 * 2 + 1 + 5  # units, projections of blocks, last_linear, last_bn
    assert "repeat_1.5.conv2d.bias" not in state


@pytest.mark.parametrize(
    ("block", "channels", "expected"),
    [
        (block35(), 256, (0.0, 2 + 0.17)),
        (block8(), 1792, (0.0, 2 + 0.20)),
        (block8(scale=1.0, rectified=False), 1792, (-3.0 + 1, 2 + 1)),
    ],
)
def test_inception_blocks_add_a_scaled_part(block, channels, expected):
    """With the projection's weights zero and its bias 1, a block gives ReLU(scale + x)."""
    nn.init.zeros_(block.conv2d.weight)
    nn.init.ones_(block.conv2d.bias)
    x = torch.full((1, channels, 3, 3), -3.0)
    x[:, :, 1, 1] = 2
    out = block.eval()(x)
    assert out[0, 5, 0, 0].item() == pytest.approx(expected[0])
    assert out[0, 5, 1, 1].item() == pytest.approx(expected[1])


def test_inception_resnet_runs():
    model = load_model("IR_CASIA=random:0")
    shapes = {layer.name: (layer.channels, layer.height) for layer in model.taps()}
    assert [
        shapes[name] for name in ("conv2d_1a", "repeat_1", "mixed_6a", "repeat_2", "mixed_7a", "block8")
    ] == [
        (32, 79),
        (256, 17),
        (896, 8),
        (896, 8),
        (1792, 3),
        (1792, 3),
    ]
    assert all(
        m.eps == 1e-3 for m in model.network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)
    )
    embeddings = model.embed(torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)))
    assert embeddings.shape == (2, 512)
    assert embeddings.isfinite().all()


# Names and shapes as AdaFace's checkpoints have them, under `model.`.
ADAFACE = {
    "input_layer.0.weight": (64, 3, 3, 3),
    "input_layer.1.running_mean": (64,),
    "input_layer.2.weight": (64,),
    "body.0.res_layer.0.weight": (64,),
    "body.2.shortcut_layer.0.weight": (128, 64, 1, 1),
    "body.2.shortcut_layer.1.bias": (128,),
    "body.2.res_layer.1.weight": (128, 64, 3, 3),
    "body.2.res_layer.3.weight": (128,),
    "body.2.res_layer.4.weight": (128, 128, 3, 3),
    "body.7.res_layer.5.running_var": (512,),
    "output_layer.0.weight": (512,),
    "output_layer.3.weight": (512, 25088),
    "output_layer.3.bias": (512,),
    "output_layer.4.running_mean": (512,),
}


def test_adaface_has_the_keys_of_the_published_checkpoints():
    state = meta(lambda: AdaFaceIR(18))
    assert {key: state.get(key) for key in ADAFACE} == ADAFACE
    absent = {"body.0.shortcut_layer.0.weight", "body.8.res_layer.0.weight", "output_layer.4.weight"}
    assert not absent & set(state)
    assert {
        depth: sum("res_layer.4" in key for key in meta(lambda d=depth: AdaFaceIR(d))) for depth in (50, 100)
    } == {
        50: 24,
        100: 49,
    }


def test_adaface_shortcuts_take_every_second_cell():
    block = Block(4, 4, 2).eval()
    nn.init.zeros_(block.res_layer[5].weight)
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(block(x), x[:, :, ::2, ::2])


def test_adaface_embeddings_have_length_1():
    model = load_model("AdaFace_IR18=random:0")
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        feature, length = model.network(images)
    assert length.shape == (2, 1)
    embeddings = model.embed(images)
    assert torch.equal(embeddings, feature)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_untrained_weights_follow_from_the_seed():
    first, same, other = (build(ZOO["mobilefacenet"], seed=seed).conv3.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
