"""What is scored: presets, kinds of taps, the peers' grids, and priors that need no model."""

import pytest
import torch

from leamfast.leam import PRESETS
from leamfast.models.face_model import FaceModel
from leamfast.models.loading import load_model
from leamfast_bench.truth.methods import (
    ALL_VARIANTS,
    FAITHFUL,
    PAPER,
    Query,
    leam_maps,
    residual_taps,
    tap_kind,
)
from leamfast_bench.truth.models import find_models
from leamfast_bench.truth.peers import CAM_TAPS, PACKAGES, PRIORS
from leamfast_bench.truth.planted import PlantedSet, planted_set
from leamfast_bench.truth.scoring import make_query, score_maps


@pytest.fixture(scope="module")
def planted() -> PlantedSet:
    """Four pictures of two people. Not to be changed."""
    return planted_set(find_models(None)[1].generator(), 2, 2)


@pytest.fixture(scope="module")
def eyes() -> FaceModel:
    return find_models(None)[1].load()


def test_the_presets_are_those_of_the_command():
    for variant, name in ((PAPER, "paper"), (FAITHFUL, "faithful")):
        chosen = PRESETS[name]
        assert (variant.target, variant.activation) == (chosen.target, chosen.activation)
        assert (variant.registration, variant.references) == (chosen.registration, chosen.references)
        assert variant in ALL_VARIANTS
    assert len(set(ALL_VARIANTS)) == len(ALL_VARIANTS)


def test_what_lies_outside_the_stages_is_the_stem(eyes):
    kinds = {tap.name: tap_kind(tap) for tap in residual_taps(eyes)}
    assert (kinds.pop("conv1"), kinds.pop("prelu")) == ("stem", "stem")
    assert all(name.startswith("layer") for name in kinds)
    assert {
        name.rpartition(".")[2]: kind for name, kind in kinds.items() if name.startswith("layer2.0.")
    } == {
        "conv1": "convolution",
        "prelu": "activation",
        "conv2": "convolution",
    }
    assert {kinds[f"layer{stage}.0"] for stage in range(1, 5)} == {"block"}
    assert "stem" not in kinds.values()


def test_the_stem_is_in_no_fused_map(eyes, planted):
    """Maps that are fused of the blocks' activations stay as they are without the stem's."""
    query, taps = make_query(eyes, planted), residual_taps(eyes)
    fused = []
    for chosen in (taps, [tap for tap in taps if tap.name not in ("conv1", "prelu")]):
        maps = {made.map: made for made in leam_maps(query, (FAITHFUL,), chosen)}
        fused.append(maps["fused activations"].maps)
    assert torch.equal(*fused)


@pytest.mark.parametrize("name", PRIORS)
def test_priors_need_no_model(eyes, planted, name):
    """Not even references: they are the same whatever model is asked."""
    query = make_query(eyes, planted)
    (bare,) = PRIORS[name](Query(None, query.images, None, None))
    for model in (eyes, load_model("demo=random:5")):
        (made,) = PRIORS[name](make_query(model, planted))
        assert (made.method, made.map, made.kind, made.cells, made.centres) == (name, "", "input", 112, None)
        assert torch.equal(made.maps, bare.maps)
        assert made.rows.tolist() == [0, 1, 2, 3]
    assert bare.maps.shape == (4, 112, 112)
    assert bare.maps.isfinite().all()
    assert bare.maps.min() >= 0


def test_edges_by_hand():
    """A step of 1 between columns 7 and 8: a Sobel filter gives 4 at both, blurred over five columns."""
    images = torch.zeros(2, 3, 16, 16)
    images[1, :, :, 8:] = 1
    (made,) = PRIORS["edges"](Query(None, images, None, None))
    assert (made.maps[0] == 0).all()
    row = [0.0] * 5 + [4 / 5, 8 / 5, 8 / 5, 8 / 5, 8 / 5, 4 / 5] + [0.0] * 5
    for y in range(2, 14):
        assert made.maps[1, y].tolist() == pytest.approx(row)


def test_edges_are_of_the_picture_and_the_centre_is_of_all(eyes, planted):
    query = make_query(eyes, planted)
    (edges,), (centre,) = (PRIORS[name](query) for name in ("edges", "centre prior"))
    assert all(not torch.equal(edges.maps[0], other) for other in edges.maps[1:])
    assert all(torch.equal(centre.maps[0], other) for other in centre.maps[1:])
    assert torch.equal(centre.maps[0], centre.maps[0].flip(0, 1))
    assert centre.maps[0].argmax().item() in {55 * 112 + 55, 55 * 112 + 56, 56 * 112 + 55, 56 * 112 + 56}


def test_class_activation_maps_know_the_grid_of_their_tap(eyes, planted):
    """The package gives maps of the size of the picture; eyes are too small for the grid behind `layer4`."""
    pytest.importorskip("pytorch_grad_cam")
    query, grids = make_query(eyes, planted), {tap.name: tap.height for tap in residual_taps(eyes)}
    made = list(PACKAGES["pytorch_grad_cam"](query))
    wanted = [(name, tap) for name in ("LayerCAM (grad-cam)", "Grad-CAM (grad-cam)") for tap in CAM_TAPS]
    assert sorted((maps.method, maps.map) for maps in made) == sorted(wanted)
    assert all(maps.cells == grids[maps.map] and maps.maps.shape == (4, 112, 112) for maps in made)
    assert {maps.map: maps.kind for maps in made} == {
        "layer2.0.prelu": "activation",
        "layer3.0.prelu": "activation",
        "layer3.0": "block",
        "layer4.0": "block",
    }
    assert not any(parameter.requires_grad for parameter in eyes.network.parameters())
    for score in score_maps(query, planted, [lambda query: iter(made)]):
        assert score.unreported.startswith("eyes is too small here") == (score.cells <= 7)
