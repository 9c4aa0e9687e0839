"""The embedding among whatever a network returns."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from leamfast import RequestError
from leamfast.models import FaceModel, Preprocessing
from leamfast.models.embedding import as_embedding

V = torch.arange(6.0).view(2, 3)
OTHER = torch.zeros(2, 4)
NORM = torch.ones(2, 1)
GRID = torch.zeros(2, 3, 5, 5)


@dataclass
class Output:
    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor


Pair = namedtuple("Pair", ["norm", "embedding"])


@pytest.mark.parametrize(
    "output",
    [
        V,
        V[..., None, None],
        (V, NORM),
        [NORM, V],
        (GRID, V),
        {"x": V},
        {"logits": OTHER, "embedding": V},
        {"feat": OTHER, "features": V},
        {"features": GRID, "feat": V},
        OrderedDict(labels=torch.zeros(2, 3, dtype=torch.long), x=V),
        Output(torch.zeros(2, 5, 3), V),
        Pair(NORM, V),
    ],
    ids=lambda output: type(output).__name__,
)
def test_the_embedding_is_found(output):
    found = as_embedding(output, "m")
    assert found.shape == (2, 3)
    assert torch.equal(found, V)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (GRID, r"float32 \(2, 3, 5, 5\)"),
        (torch.zeros(2, 3, dtype=torch.int64), r"int64 \(2, 3\)"),
        ((NORM, GRID), r"a tuple of \[float32 \(2, 1\), float32 \(2, 3, 5, 5\)\]"),
        ({"a": V, "b": OTHER}, r"a dict of \[a: float32 \(2, 3\), b: float32 \(2, 4\)\]"),
        (None, "a NoneType"),
        ((), r"a tuple of \[\]"),
    ],
)
def test_what_holds_no_embedding_is_described(output, words):
    with pytest.raises(RequestError, match=f"model m must return embeddings.*got {words}"):
        as_embedding(output, "m")


def test_it_can_be_recorded_for_any_batch():
    graph = make_fx(
        lambda x: as_embedding({"embedding": x[..., None, None] * 2}, "m"), tracing_mode="symbolic"
    )(V)
    assert torch.equal(graph(torch.ones(7, 3)), torch.full((7, 3), 2.0))


class Returns(nn.Module):
    def __init__(self, wrap, dtype=torch.float32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1, dtype=dtype)
        self.wrap = wrap

    def forward(self, x):
        x = self.conv(x.to(self.conv.weight.dtype))
        return self.wrap(x, x.mean((2, 3)))


@pytest.mark.parametrize(
    "wrap", [lambda grid, v: (grid, v), lambda grid, v: {"grid": grid, "feature": v}], ids=["tuple", "dict"]
)
def test_models_may_return_more_than_embeddings(wrap):
    model = FaceModel("m", "m", Returns(wrap).eval(), Preprocessing(8, "rgb", (0,) * 3, (1,) * 3), "")
    assert [layer.name for layer in model.taps()] == ["conv"]
    embeddings = model.embed(torch.rand(2, 3, 8, 8))
    assert embeddings.shape == (2, 4)
    assert not embeddings.requires_grad


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_embeddings_have_single_precision_or_double(dtype, expected):
    network = Returns(lambda grid, v: v, dtype).eval()
    model = FaceModel("m", "m", network, Preprocessing(8, "rgb", (0,) * 3, (1,) * 3), "")
    assert model.embed(torch.rand(2, 3, 8, 8)).dtype == expected
