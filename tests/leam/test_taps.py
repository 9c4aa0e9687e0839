import pytest
import torch
from torch import nn

from leamfast import LEAM, FaceModel, RequestError, load_model
from leamfast.leam.diagnostics import tap_warnings
from leamfast.leam.taps import AUTO_TAPS, select_taps
from tests.leam.conftest import face_model


def test_auto_spreads_nine_convolutions_from_the_stem_to_the_last():
    model = load_model("AF_R18=random:0")
    taps = [tap.name for tap in select_taps(model, "auto")]
    assert len(taps) == AUTO_TAPS
    assert taps[0] == "conv1"
    assert taps[-1] == "layer4.1.conv2"
    assert not any("downsample" in name for name in taps)


def test_all_is_every_spatial_convolution():
    model = load_model("mobilefacenet=random:0")
    names = [tap.name for tap in select_taps(model, "all")]
    assert len(names) == 1 + 2 + 15 * 3 + 1
    assert {"conv1.0", "dw_conv.depthwise", "dw_conv.pointwise", "features.14.conv.2", "conv2.0"} <= set(
        names
    )
    assert "gdconv.depthwise" not in names  # its output is one cell


def test_a_small_network_gives_all_it_has(in_place):
    assert [tap.name for tap in select_taps(in_place, "auto")] == [
        "conv1",
        "unused",
        "conv2",
        "twice@1",
        "twice@2",
    ]


def test_names_come_back_in_the_order_of_execution(small_iresnet):
    taps = select_taps(small_iresnet, "layer2.0.conv1, conv1,layer2.0")
    assert [tap.name for tap in taps] == ["conv1", "layer2.0.conv1", "layer2.0"]
    assert [(tap.channels, tap.height, tap.width) for tap in taps] == [(4, 32, 32), (6, 16, 16), (6, 8, 8)]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("layer2.0.conv3", "does not exist .* near names: .*layer2.0.conv2"),
        ("zzz", "see `leamfast layers`"),
        ("fc", "no spatial extent"),
        ("conv1,conv1", "different names"),
        ([], "one or more"),
    ],
)
def test_bad_names(small_iresnet, layers, words):
    with pytest.raises(RequestError, match=words):
        select_taps(small_iresnet, layers)


def test_every_call_of_a_module_is_a_tap(in_place):
    both = [tap.name for tap in select_taps(in_place, "twice")]
    assert both == ["twice@1", "twice@2"]
    (second,) = select_taps(in_place, "twice@2")
    assert (second.module, second.call) == ("twice", 2)
    assert [tap.name for tap in select_taps(in_place, "twice@2,twice")] == both
    for name in ("twice@3", "conv1@1"):
        with pytest.raises(RequestError, match=f"{name!r} does not exist in small; near names: "):
            select_taps(in_place, name)


class Shared(nn.Module):
    """One activation for a grid and for a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.act = nn.ReLU()
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.act(self.fc(self.act(self.conv(x)).mean((2, 3))))


def test_a_module_means_the_calls_that_give_a_grid():
    model = face_model(Shared())
    assert [tap.name for tap in select_taps(model, "act")] == ["act@1"]
    with pytest.raises(RequestError, match="'act@2' of small has no spatial extent"):
        select_taps(model, "act@2")


def vision(name: str, size: int, **options) -> FaceModel:
    import timm

    return face_model(timm.create_model(name, num_classes=10, **options), size)


def test_transformers_are_tapped_before_their_attention():
    model = vision("vit_tiny_patch16_224", 32, img_size=32, patch_size=8, depth=12, embed_dim=12, num_heads=2)
    taps = select_taps(model, "auto")
    assert [tap.name for tap in taps] == ["patch_embed.proj"] + [
        f"blocks.{i}.norm1" for i in (1, 2, 4, 5, 7, 8, 10, 11)
    ]
    assert all(tap.height * tap.width == 16 for tap in taps)
    everything = [tap.name for tap in select_taps(model, "all")]
    assert everything == ["patch_embed.proj"] + [f"blocks.{i}.norm1" for i in range(12)]
    named = select_taps(model, "blocks.3.mlp.fc1,blocks.3")
    assert [(tap.name, tap.channels) for tap in named] == [("blocks.3.mlp.fc1", 48), ("blocks.3", 12)]


def test_windows_are_tapped_before_their_attention_too():
    options = {"img_size": 56, "depths": (1, 1, 1), "embed_dim": 12, "num_heads": (1, 2, 2), "window_size": 7}
    taps = select_taps(vision("swin_tiny_patch4_window7_224", 56, **options), "auto")
    assert [(tap.name, tap.layout, tap.height) for tap in taps] == [
        ("patch_embed.proj", "channels_first", 14),
        ("layers.0.blocks.0.norm1", "channels_last", 14),
        ("layers.1.blocks.0.norm1", "channels_last", 7),
        ("layers.2.blocks.0.norm1", "channels_last", 4),
    ]


def test_convolutions_of_a_convnext_are_tapped():
    model = vision("convnext_atto", 64, depths=(1, 1, 1, 1), dims=(4, 6, 8, 10))
    assert {tap.kind for tap in select_taps(model, "auto")} == {"Conv2d"}


def test_shortcuts_are_left_out_under_any_name():
    taps = [tap.name for tap in select_taps(load_model("AdaFace_IR18=random:0"), "auto")]
    assert (taps[0], taps[-1], len(taps)) == ("input_layer.0", "body.7.res_layer.4", AUTO_TAPS)
    assert not any("shortcut" in name for name in taps)


def test_calls_of_a_module_are_taps_of_their_own(in_place):
    """Their maps differ, and together they are what one map of a shared gradient would hide."""
    images, references = torch.randn(2, 3, 32, 32), torch.randn(2, 10)
    leam = LEAM(in_place, ["twice"], registration="receptive", activation="positive")
    maps = leam(images, references).maps
    assert list(maps) == ["twice@1", "twice@2"]
    assert not torch.equal(maps["twice@1"], maps["twice@2"])
    assert leam.centres["twice@1"] == leam.centres["twice@2"] == ((0.0, 4.0), (0.0, 4.0))
    found = tap_warnings(in_place, select_taps(in_place, "twice"), activation="signed", registration="resize")
    assert set(found) == {"twice@1", "twice@2"}
