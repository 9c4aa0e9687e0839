"""Which layers are found, and how their outputs become grids."""

import pytest
import torch
from torch import nn

from leamfast.models.layers import Layer, list_layers


def found(network: nn.Module, size: int = 32) -> dict[str, Layer]:
    layers = list_layers(network.eval(), torch.zeros(1, 3, size, size))
    return {layer.name: layer for layer in layers}


class Twice(nn.Module):
    """One module run twice, what it gave the first time overwritten afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.pair = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x):
        first = self.conv(x)
        second = self.conv(first)
        first += 1
        return self.pair(second)[0].flatten(1)


def test_every_call_of_a_module_is_a_layer():
    layers = list_layers(Twice().eval(), torch.zeros(1, 3, 8, 8))
    assert [layer.name for layer in layers] == ["conv@1", "conv@2", "pair"]
    first, second, pair = layers
    assert [(layer.module, layer.call, layer.calls) for layer in layers] == [
        ("conv", 1, 2),
        ("conv", 2, 2),
        ("pair", 1, 1),
    ]
    assert (first.overwritten, second.overwritten) == (True, False)
    assert not pair.spatial  # it returns a tuple


def test_a_grid_is_a_view_of_every_layout():
    values = torch.arange(2 * 7 * 5).view(2, 7, 5)
    tokens = Layer("a", "LayerNorm", 5, 2, 3, 1, False, 1, "tokens", 1)
    grid = tokens.grid(values)
    assert grid.shape == (2, 5, 2, 3)
    assert grid[1, 4, 1, 2] == values[1, 1 + 1 * 3 + 2, 4]
    assert grid.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()
    last = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    assert (
        Layer("a", "Linear", 5, 3, 4, 1, False, 1, "channels_last").grid(last)[1, 4, 2, 3] == last[1, 2, 3, 4]
    )
    assert Layer("a", "Conv2d", 3, 4, 5, 1, False).grid(last) is last


class Reshaped(nn.Module):
    """A module that sees its input in another shape, given without the batch."""

    def __init__(self, module: nn.Module, *shape: int) -> None:
        super().__init__()
        self.inside = module
        self.shape = shape

    def forward(self, x):
        return self.inside(x.new_zeros(1, *self.shape))


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.ReLU(), (5, 8, 8), (5, 8, 8, "channels_first", 0)),
        (nn.ReLU(), (8, 8, 5), (5, 8, 8, "channels_last", 0)),
        (nn.ReLU(), (8, 8, 8), (8, 8, 8, "channels_first", 0)),
        (nn.Linear(8, 8), (8, 8, 8), (8, 8, 8, "channels_last", 0)),
        (nn.LayerNorm(8), (8, 8, 8), (8, 8, 8, "channels_last", 0)),
        (nn.ReLU(), (5, 3, 8), (5, 3, 8, "channels_first", 0)),
        (nn.ReLU(), (16, 6), (6, 4, 4, "tokens", 0)),
        (nn.ReLU(), (17, 6), (6, 4, 4, "tokens", 1)),
        (nn.ReLU(), (201, 6), (6, 14, 14, "tokens", 5)),
        (nn.ReLU(), (34, 6), (0, 0, 0, "channels_first", 0)),
        (nn.ReLU(), (3, 6), (0, 0, 0, "channels_first", 0)),
        (nn.ReLU(), (6,), (0, 0, 0, "channels_first", 0)),
    ],
)
def test_layouts_follow_from_the_shape(module, shape, expected):
    layer = found(Reshaped(module, *shape))["inside"]
    assert (layer.channels, layer.height, layer.width, layer.layout, layer.prefix) == expected
    if layer.spatial:
        assert layer.grid(torch.zeros(3, *shape)).shape == (3, *expected[:3])


def vit(**changes) -> nn.Module:
    import timm

    options = {
        "img_size": 32,
        "patch_size": 8,
        "depth": 2,
        "embed_dim": 24,
        "num_heads": 2,
        "num_classes": 10,
    }
    return timm.create_model("vit_tiny_patch16_224", **(options | changes))


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [
        ({}, 1),
        ({"reg_tokens": 4}, 5),
        ({"class_token": False, "global_pool": "avg"}, 0),
        ({"reg_tokens": 9}, 10),  # more than would be guessed: the network says it
    ],
)
def test_tokens_of_vision_transformers(changes, prefix):
    layers = found(vit(**changes))
    for name in ("blocks.0.norm1", "blocks.1.mlp.fc1", "blocks.1", "norm"):
        layer = layers[name]
        assert (layer.height, layer.width, layer.layout, layer.prefix) == (4, 4, "tokens", prefix), name
    embedded = layers["patch_embed"]
    assert (embedded.layout, embedded.prefix, embedded.height) == ("tokens", 0, 4)
    assert layers["patch_embed.proj"].layout == "channels_first"
    assert not layers["head"].spatial


def test_attention_heads_are_no_grid():
    layers = found(vit(qk_norm=True, embed_dim=34, class_token=False, global_pool="avg"))  # 16 tokens of 17
    assert not layers["blocks.0.attn.q_norm"].spatial
    square = found(vit(qk_norm=True, embed_dim=32, class_token=False, global_pool="avg"))  # 16 tokens of 16
    assert not square["blocks.0.attn.q_norm"].spatial
    assert square["blocks.0.attn.proj"].spatial


def test_a_grid_of_tokens_holds_the_patches():
    """The convolution's grid, flattened to tokens and back, is the same grid."""
    network = vit().eval()
    layers = found(network)
    kept = {}
    for name in ("patch_embed.proj", "patch_embed"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda m, a, output, name=name: kept.update({name: output}))
    network(torch.rand(2, 3, 32, 32))
    grids = [layers[name].grid(output) for name, output in kept.items()]
    assert torch.equal(*grids)


def test_convnext_mixes_layouts():
    import timm

    options = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10), "conv_mlp": False, "num_classes": 12}
    layers = found(timm.create_model("convnext_atto", **options), 64)
    block = "stages.1.blocks.0"
    assert [layers[f"{block}.{name}"].layout for name in ("conv_dw", "norm", "mlp.fc1", "mlp.act")] == [
        "channels_first",
        "channels_last",
        "channels_last",
        "channels_last",
    ]
    for name in (block, f"{block}.norm", f"{block}.conv_dw"):
        layer = layers[name]
        assert (layer.channels, layer.height, layer.width) == (6, 8, 8)
