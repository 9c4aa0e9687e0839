import pytest

from leamfast import RequestError, load_model
from leamfast.leam.taps import AUTO_TAPS, select_taps


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
    assert [tap.name for tap in select_taps(in_place, "auto")] == ["conv1", "unused", "conv2"]


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


def test_a_layer_that_runs_twice_is_refused(in_place):
    with pytest.raises(RequestError, match="runs 2 times"):
        select_taps(in_place, "twice")
