"""Methods of the user's: scored as ours and the peers' are, and what can be wrong with them."""

from types import SimpleNamespace

import pytest
import torch

from leamfast import RequestError
from leamfast_bench.truth.benchmark import Form, score_method
from leamfast_bench.truth.methods import Query, Variant
from leamfast_bench.truth.models import find_models
from leamfast_bench.truth.peers import PRIORS
from leamfast_bench.truth.user import user_method
from tests.bench.conftest import CENTRE

FORM = Form(people=4, images=3, draws=1, variants=(), free_variants=(), packages=())
EACH, MEAN_MAP = (Variant("similarity", "positive", "receptive", policy) for policy in ("each", "mean-map"))


def test_a_method_of_the_users_is_scored_as_the_peers_are(own_module):
    own_module(CENTRE)
    nose = find_models(None)[0]
    mine = score_method(nose, user_method("own_methods:centre", True), FORM)
    peer = score_method(nose, PRIORS["centre prior"], FORM)
    assert [score["model"] for score in mine] == ["own", "untrained"]
    assert {score["method"] for score in mine} == {"own_methods:centre"}
    assert [{**score, "method": "centre prior"} for score in mine] == peer
    own, untrained = mine
    assert (own["kind"], own["cells"], own["n"]) == ("input", 112, 12)
    assert {"drop", "shifted", "on_face"} <= own.keys()
    assert not {"drop", "shifted", "on_face"} & untrained.keys()
    assert own["over"] == untrained["over"]  # the maps know no model
    assert own["over"]["5"] > score_method(nose, PRIORS["random"], FORM)[0]["over"]["5"]


def test_a_method_of_the_users_may_name_its_maps(own_module):
    own_module(
        "import torch\n"
        "def both(model, images, references):\n"
        "    assert model.embed(images[:1]).shape[1] == references.shape[1]\n"
        "    assert torch.allclose(references.norm(dim=1), torch.ones(len(images)))\n"
        "    ones = torch.ones(len(images), 14, 14, dtype=torch.float64)\n"
        "    return {'ones': ones, 'zeros': 0 * ones}\n"
    )
    found = score_method(find_models(None)[0], user_method("own_methods:both", True), FORM)
    assert [(s["model"], s["method"], s["map"], s["cells"]) for s in found] == [
        (model, "own_methods:both", name, 14) for model in ("own", "untrained") for name in ("ones", "zeros")
    ]
    ones, zeros, *_ = found
    assert (ones["area"], ones["empty"], zeros["area"], zeros["empty"]) == (0.5, 0, 0.5, 1)
    assert ones["over"]["5"] == zeros["over"]["5"] == zeros["drop"] == zeros["pointing"] == 0
    assert zeros["shifted"] == zeros["on_face"] == 0
    assert zeros["rank"] > 1  # a map that finds no part does not rank the region first


@pytest.mark.parametrize(
    "returned", ["images", "images[:-1, 0]", "images[0, 0]", "images[:, 0].numpy()", "None", "{'a': images}"]
)
def test_maps_of_another_shape_are_refused(own_module, returned):
    own_module(f"def wrong(model, images, references):\n    return {returned}\n")
    images = torch.zeros(3, 3, 8, 8)
    query = Query(SimpleNamespace(), images, torch.zeros(3, 4), torch.zeros(3, 1, 4))
    with pytest.raises(RequestError, match=r"own_methods:wrong must return tensors of shape \(N, h, w\)"):
        list(user_method("own_methods:wrong", True)(query))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("images[:, 0] / 0", "must return maps that are finite in float32"),
        ("{'a': images[:, 0], 'b': images[:, 0].log()}", "must return maps that are finite in float32"),
        ("images[:, 0].double() * 1e300", "must return maps that are finite in float32"),
        ("images[:, 0] * 1j", "must return real maps with cells, got torch.complex64 (3, 8, 8)"),
        ("images[:, 0, :0]", "must return real maps with cells, got torch.float32 (3, 0, 8)"),
        ("{}", "must return maps, got none"),
        ("{}['here']", "failed: KeyError: 'here'"),
        ("model.embed(images)", "failed: AttributeError: 'types.SimpleNamespace' object has no attribute"),
        ("1 / 0", "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_goes_wrong_in_a_method_of_the_users_is_one_sentence(own_module, body, sentence):
    own_module(f"def wrong(model, images, references):\n    return {body}\n")
    query = Query(SimpleNamespace(), -torch.ones(3, 3, 8, 8), torch.zeros(3, 4), torch.zeros(3, 1, 4))
    with pytest.raises(RequestError) as refused:
        list(user_method("own_methods:wrong", True)(query))
    assert str(refused.value).startswith(f"--method own_methods:wrong {sentence}")


@pytest.mark.parametrize("spec", ["own_methods:right", "elsewhere:right"])
def test_a_method_that_is_not_there(own_module, spec):
    own_module("")
    with pytest.raises(RequestError, match=f"--method {spec} cannot be had"):
        user_method(spec, True)


def test_a_module_of_the_users_that_cannot_be_imported(own_module):
    own_module("raise ValueError('no such thing')\n")
    with pytest.raises(
        RequestError, match=r"--method own_methods:a cannot be had: ValueError: no such thing"
    ):
        user_method("own_methods:a", True)


def test_the_users_code_does_not_run_untrusted(own_module):
    own_module("raise SystemExit(7)\n")
    with pytest.raises(RequestError, match="--trust-code"):
        user_method("own_methods:any", False)
