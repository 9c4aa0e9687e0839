"""The static batch of captured passes, with passes that are computed again in place of a capture."""

import pytest
import torch

from leamfast.leam.graphed import KEPT, GraphedPasses, static_size
from leamfast.models.compiled import Passes


class Recomputed(GraphedPasses):
    """Computes again, into the same memory, what a GPU would replay."""

    captures = 0

    def record(self, function, device):
        self.captures += 1
        outputs = function()

        def replay():
            for output, again in zip(outputs, function(), strict=True):
                output.copy_(again)

        return outputs, replay


@pytest.fixture
def sizes() -> list[int]:
    """Batches that the passes have been asked for."""
    return []


@pytest.fixture
def graphed(sizes) -> Recomputed:
    weight = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))

    def forward(images):
        sizes.append(len(images))
        acts = images * 2
        return acts.flatten(1) @ weight, acts

    def backward(acts, cotangents):
        grads = (cotangents @ weight.T).view_as(acts)
        return [(acts * grads).sum(dim=1), (acts + grads).sum(dim=1)]

    return Recomputed(Passes(forward, backward))


def both(passes, images, cotangents):
    embeddings, *saved = passes.forward(images)
    return [embeddings, *passes.backward(*saved, cotangents)]


def test_batches_of_every_size_give_what_the_passes_give(graphed, sizes):
    plain, kept = graphed._passes, []
    for count in (6, 8, 7, 1, 8, 2, 9, 3):
        images, cotangents = torch.randn(count, 3, 2, 2), torch.randn(count, 4)
        found = both(graphed, images, cotangents)
        kept.append((found, both(plain, images, cotangents)))
    for found, wanted in kept:  # later batches have not written into the results of earlier ones
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other)
    assert graphed.captures == 2 * 5  # of 2, 3, 6, 8 and 12 images
    assert {2, 3, 6, 8, 12} <= set(sizes)


def test_what_is_computed_follows_from_the_batch_alone(sizes, graphed):
    assert [static_size(count) for count in (1, 2, 3, 4, 5, 7, 9, 13, 17, 64, 65, 100)] == [
        2, 2, 3, 4, 6, 8, 12, 16, 24, 64, 96, 128
    ]  # fmt: skip
    images, cotangents = torch.randn(5, 3, 2, 2), torch.randn(5, 4)
    found = both(graphed, images, cotangents)
    for count in (100, 1, 9):
        both(graphed, torch.randn(count, 3, 2, 2), torch.randn(count, 4))
    for one, other in zip(both(graphed, images, cotangents), found, strict=True):
        assert torch.equal(one, other)


def test_few_static_batches_are_kept(graphed):
    for count in (2, 3, 4, 6, 8, 12, 16, 24):
        both(graphed, torch.randn(count, 3, 2, 2), torch.randn(count, 4))
    assert len(graphed._static) == KEPT
    assert graphed.captures == 2 * 8
    both(graphed, torch.randn(2, 3, 2, 2), torch.randn(2, 4))
    assert graphed.captures == 2 * 9


def test_several_backward_passes_over_one_tape(graphed):
    images, cotangents = torch.randn(3, 3, 2, 2), torch.randn(2, 3, 4)
    embeddings, *saved = graphed.forward(images)
    found = [graphed.backward(*saved, one) for one in cotangents]
    for maps, one in zip(found, cotangents, strict=True):
        for ours, theirs in zip(maps, both(graphed._passes, images, one)[1:], strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_tape_that_was_overwritten_is_an_error_and_no_wrong_map(graphed):
    _, *saved = graphed.forward(torch.randn(3, 3, 2, 2))
    graphed.forward(torch.randn(3, 3, 2, 2))
    with pytest.raises(RuntimeError, match="overwritten"):
        graphed.backward(*saved, torch.randn(3, 4))
