"""Occluded images and their drops: by hand, one by one, and in batches."""

import math

import pytest
import torch

from leamfast.leam.occlusion import Masks, drops, occluded_units
from leamfast.leam.references import unit


def test_drops_of_a_tiny_case():
    # f(x) is the first axis, f(x') the second one or half way; r1 is the first axis, r2 the second.
    whole = torch.tensor([[1.0, 0.0]])
    half = math.sqrt(0.5)
    occluded = torch.tensor([[[0.0, 1.0], [half, half], [1.0, 0.0]]])
    references = torch.tensor([[0.5, 0.5]])  # mean of (1, 0) and (0, 1)
    # Against r1: 1, 1 - sqrt(1/2), 0; against r2: -1, -sqrt(1/2), 0.
    wanted = torch.tensor([[0.0, (1 - 2 * half) / 2, 0.0]])
    torch.testing.assert_close(drops(whole, occluded, references), wanted)
    torch.testing.assert_close(drops(whole, occluded, whole), torch.tensor([[1.0, 1 - half, 0.0]]))


def test_the_drop_against_a_mean_is_the_mean_of_the_drops():
    units = [unit(torch.randn(*shape, 16).double()) for shape in ((3,), (3, 4, 2), (3, 5))]
    whole, occluded, references = units
    together = drops(whole, occluded, references.mean(dim=1))
    assert together.shape == (3, 4, 2)
    one_by_one = torch.empty(3, 4, 2, 5, dtype=torch.float64)
    for i in range(3):
        for p in range(4):
            for z in range(2):
                for r in range(5):
                    reference = references[i, r]
                    before = torch.nn.functional.cosine_similarity(whole[i], reference, dim=0)
                    after = torch.nn.functional.cosine_similarity(occluded[i, p, z], reference, dim=0)
                    one_by_one[i, p, z, r] = before - after
    torch.testing.assert_close(together, one_by_one.mean(dim=3))


def test_masks_remember_whose_they_are():
    masks = Masks(4, torch.device("cpu"))
    first = torch.rand(2, 3, 4, 4) > 0.5
    second = torch.rand(1, 4, 4) > 0.5
    numbers = masks.add(first, torch.tensor([5, 9]))
    assert numbers.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert masks.add(second, torch.tensor([7])).tolist() == [6]
    nothing = masks.add(torch.zeros((0, 2, 4, 4), dtype=torch.bool), torch.zeros(0, dtype=torch.int64))
    assert nothing.shape == (0, 2)
    assert masks.count == 7
    for _ in range(2):  # asking again changes nothing
        all_masks, rows = masks.all
        assert torch.equal(all_masks[numbers], first)
        assert torch.equal(all_masks[6:], second)
        assert rows.tolist() == [5, 5, 5, 9, 9, 9, 7]


@pytest.fixture
def case(small_iresnet):
    """Pictures, a fill that depends on picture and mask, and masks of them."""
    pictures = torch.randn(3, 3, 32, 32)
    masks = torch.rand(11, 32, 32) > 0.8
    masks[4] = False
    rows = torch.tensor([0, 2, 2, 1, 0, 1, 0, 2, 1, 1, 0])

    def filled(numbers, holes):
        return (numbers.float() - holes.float().mean(dim=(1, 2)))[:, None, None, None].expand(-1, 3, 32, 32)

    return small_iresnet, pictures, filled, masks, rows


def test_every_image_is_filled_where_its_mask_says(case):
    model, pictures, filled, masks, rows = case
    found = occluded_units(model.embed, pictures, filled, masks, rows, 4)
    assert found.shape == (11, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(11))
    for m in range(11):
        image = pictures[rows[m]].clone()
        image[:, masks[m]] = float(rows[m]) - float(masks[m].float().mean())
        torch.testing.assert_close(found[m], unit(model.embed(image[None]))[0], rtol=0, atol=2e-5)
    whole = unit(model.embed(pictures))
    torch.testing.assert_close(found[4], whole[0], rtol=0, atol=2e-5)  # nothing was filled


@pytest.mark.parametrize("batch", [1, 3, 11, 64])
def test_the_batch_size_changes_nothing(case, batch):
    model, pictures, filled, masks, rows = case
    wanted = occluded_units(model.embed, pictures, filled, masks, rows, 5)
    sizes = []

    def embed(images):
        sizes.append(len(images))
        return model.embed(images)

    found = occluded_units(embed, pictures, filled, masks, rows, batch)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    assert max(sizes) <= batch
    assert sum(sizes) == 11  # each once


def test_pictures_are_not_changed(case):
    model, pictures, filled, masks, rows = case
    before = pictures.clone()
    occluded_units(model.embed, pictures, filled, masks, rows, 4)
    assert torch.equal(pictures, before)


def test_no_masks_no_images(case):
    _, pictures, filled, masks, rows = case

    def embed(images):
        raise AssertionError("there is nothing to embed")

    assert len(occluded_units(embed, pictures, filled, masks[:0], rows[:0], 4)) == 0
