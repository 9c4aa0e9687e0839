"""Parts of a data set: exact on a tiny one, and the laws that make a choice reproducible."""

from pathlib import Path

import pytest

from leamfast.datasets.entry import Entry
from leamfast.datasets.limits import limited
from leamfast.datasets.manifest import Manifest
from leamfast.errors import RequestError


def people(**images: int) -> Manifest:
    """So many images of each."""
    entries = [Entry(f"{name}/{i}.jpg", name) for name, count in images.items() for i in range(count)]
    return Manifest(Path("root"), tuple(entries), ("age",), 2, {"before": 5})


MANY = people(**{f"p{i}": 1 + i % 7 for i in range(60)})


def images_of(manifest: Manifest, name: str) -> list[str]:
    return [entry.path for entry in manifest.entries if entry.identity == name]


def test_nothing_asked_changes_nothing() -> None:
    assert limited(MANY) == MANY
    assert limited(MANY, identities=60, images_per_identity=7, seed=3) == MANY


def test_counts_and_reasons() -> None:
    manifest = limited(people(ann=1, bob=5, cid=3, dan=4), identities=2, images_per_identity=2, min_images=2)
    assert len(manifest.identities) == 2
    assert all(len(images_of(manifest, name)) == 2 for name in manifest.identities)
    assert (manifest.root, manifest.columns, manifest.ignored) == (Path("root"), ("age",), 2)
    assert list(manifest.left_out) == [
        "before",
        "image of an identity with fewer than 2 images (--min-images)",
        "image of an identity not among the 2 drawn (--limit-identities)",
        "image not among the 2 drawn of its identity (--images-per-identity)",
    ]
    assert sum(manifest.left_out.values()) == 5 + 13 - 4


def test_min_images_is_of_what_there_is() -> None:
    manifest = limited(people(ann=1, bob=5, cid=3), min_images=3, images_per_identity=1)
    assert manifest.identities == ("bob", "cid")
    assert manifest.left_out == {
        "before": 5,
        "image of an identity with fewer than 3 images (--min-images)": 1,
        "image not among the 1 drawn of its identity (--images-per-identity)": 6,
    }
    with pytest.raises(
        RequestError, match="must leave an identity, got 6 where the largest of 3 has 5 images"
    ):
        limited(people(ann=1, bob=5, cid=3), min_images=6)


def test_manifest_order_is_kept() -> None:
    part = limited(MANY, identities=20, images_per_identity=3, seed=1)
    positions = [MANY.entries.index(entry) for entry in part.entries]
    assert positions == sorted(positions)
    assert len(part.identities) == 20


@pytest.mark.parametrize("seed", [0, 1, 2**70])
def test_a_smaller_limit_chooses_a_part_of_a_larger_one(seed: int) -> None:
    sizes = (5, 10, 40)
    chosen = [set(limited(MANY, identities=size, seed=seed).identities) for size in sizes]
    assert [len(names) for names in chosen] == list(sizes)
    assert chosen[0] < chosen[1] < chosen[2]
    images = [
        {entry.name for entry in limited(MANY, images_per_identity=size, seed=seed).entries}
        for size in (1, 3, 5)
    ]
    assert images[0] < images[1] < images[2]


def test_the_seed_alone_decides() -> None:
    one, same, other = (limited(MANY, identities=10, images_per_identity=2, seed=s) for s in (4, 4, 5))
    assert one == same
    assert set(one.identities) != set(other.identities)
    shared = limited(MANY, images_per_identity=2, seed=4), limited(MANY, images_per_identity=2, seed=5)
    assert shared[0].entries != shared[1].entries


def test_order_and_other_identities_do_not_change_a_choice() -> None:
    turned = people(**{name: len(images_of(MANY, name)) for name in reversed(MANY.identities)})
    one, two = (limited(m, identities=10, images_per_identity=2, seed=7) for m in (MANY, turned))
    assert {entry.name for entry in one.entries} == {entry.name for entry in two.entries}
    alone = people(p6=7)
    for seed in range(5):
        part = limited(MANY, images_per_identity=2, seed=seed)
        assert images_of(limited(alone, images_per_identity=2, seed=seed), "p6") == images_of(part, "p6")


def test_choices_are_even() -> None:
    whole = people(ann=4, bob=4, cid=4, dan=4)
    names = dict.fromkeys(whole.identities, 0)
    numbers = dict.fromkeys(range(4), 0)
    draws = 400
    for seed in range(draws):
        part = limited(whole, identities=2, images_per_identity=1, seed=seed)
        for entry in part.entries:
            names[entry.identity] += 1
            numbers[int(entry.path[-5])] += 1
    # Mean 200, standard deviation 10 and at most 13: five of them.
    assert all(abs(count - draws / 2) < 65 for count in (*names.values(), *numbers.values()))


def test_the_draws_are_these() -> None:
    # The same on every machine and in every version: numbers of a run made before.
    part = limited(people(ann=4, bob=4, cid=4, Zoë=4), identities=2, images_per_identity=2, seed=11)
    assert [entry.path for entry in part.entries] == ["bob/2.jpg", "bob/3.jpg", "Zoë/2.jpg", "Zoë/3.jpg"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"identities": 0}, "--limit-identities must be at least 1, got 0"),
        ({"images_per_identity": -1}, "--images-per-identity must be at least 1, got -1"),
        ({"min_images": 0}, "--min-images must be at least 1, got 0"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
    ],
)
def test_limits_that_are_none(limits: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        limited(MANY, **limits)
