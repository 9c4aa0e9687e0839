"""A few images from all over a data set."""

from pathlib import Path

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest
from leamfast.engine.plan import plan_shards
from leamfast.engine.sample import PIECES, sample_pieces


def plan(*identities: int):
    entries = tuple(
        Entry(f"{number}/{image}.png", f"id{number:03d}")
        for number, images in enumerate(identities)
        for image in range(images)
    )
    return plan_shards(Manifest(Path(), entries, ()), 64)


def test_pieces_begin_evenly_spaced_and_hold_whole_identities():
    pieces = sample_pieces(plan(*[4] * 300), batch_size=16)
    assert [piece.images for piece in pieces] == [16, 16, 16]
    assert [piece.identities[0].name for piece in pieces] == ["id000", "id100", "id200"]
    assert [piece.identities[0].first for piece in pieces] == [0, 400, 800]
    assert [piece.number for piece in pieces] == [0, 1, 2]


def test_a_large_identity_is_cut_but_stays_larger_than_a_batch():
    pieces = sample_pieces(plan(1000), batch_size=16)
    assert [piece.images for piece in pieces] == [21]


def test_a_large_batch_is_filled():
    assert [piece.images for piece in sample_pieces(plan(*[5] * 400), batch_size=64)] == [65 - 1] * PIECES


@pytest.mark.parametrize("identities", [(1,), (2, 2), (1, 1, 1), (50, 1, 1), (1, 1, 50), (3,) * 20])
def test_no_image_is_taken_twice(identities):
    pieces = sample_pieces(plan(*identities), batch_size=16)
    taken = [entry.name for piece in pieces for person in piece.identities for entry in person.entries]
    assert 1 <= len(pieces) <= PIECES
    assert len(set(taken)) == len(taken) <= 64
