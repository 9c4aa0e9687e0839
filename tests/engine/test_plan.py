from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest
from leamfast.engine.batches import pack
from leamfast.engine.plan import boundaries, plan_shards


def manifest(counts):
    entries = tuple(
        Entry(f"{person}/{i}.png", f"p{person}", None, {})
        for person, n in enumerate(counts)
        for i in range(n)
    )
    return Manifest(Path("."), entries, ())


def test_shards_by_hand():
    plan = plan_shards(manifest([3, 2, 6, 1, 1]), 5)
    assert [[i.name for i in shard.identities] for shard in plan] == [["p0", "p1"], ["p2"], ["p3", "p4"]]
    assert [shard.images for shard in plan] == [5, 6, 2]
    assert [i.first for shard in plan for i in shard.identities] == [0, 3, 5, 11, 12]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 12))
def test_shards_keep_everyone_whole_and_in_order(counts, least):
    plan = plan_shards(manifest(counts), least)
    assert [i.name for shard in plan for i in shard.identities] == [f"p{k}" for k in range(len(counts))]
    assert [len(i.entries) for shard in plan for i in shard.identities] == counts
    assert [shard.number for shard in plan] == list(range(len(plan)))
    assert all(shard.images >= least for shard in plan[:-1])


def test_slices_by_hand():
    plan = plan_shards(manifest([2, 11, 3, 4]), 4, 8)
    assert boundaries(plan) == "2,3s,4s,4s,0c,7"
    assert [shard.persons for shard in plan] == [1, 0, 0, 0, 1, 2]
    slices = [shard.identities[0] for shard in plan[1:4]]
    assert [(identity.name, identity.first) for identity in slices] == [("p1", 2), ("p1", 5), ("p1", 9)]
    assert [entry.path for entry in slices[1].entries] == [f"1/{i}.png" for i in range(3, 7)]
    assert {shard.split for shard in plan[1:5]} == {plan[4].split}
    assert (plan[4].split.closing, list(plan[4].split.shards), plan[4].closes) == (4, [1, 2, 3, 4], True)
    assert boundaries(plan_shards(manifest([2, 11, 3, 4]), 4)) == "13,7"


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 9), st.integers(1, 20))
def test_slices_hold_everyone_once_and_in_order(counts, least, split):
    plan = plan_shards(manifest(counts), least, split)
    entries = [entry for shard in plan for identity in shard.identities for entry in identity.entries]
    assert entries == list(manifest(counts).entries)
    assert [shard.number for shard in plan] == list(range(len(plan)))
    assert sum(shard.persons for shard in plan) == len(counts)
    for shard in plan:
        if shard.split is None:
            assert all(len(identity.entries) <= split for identity in shard.identities)
        else:
            assert shard.images <= min(least, split)
            assert plan[shard.split.closing].closes
    assert boundaries(plan).count("c") == sum(count > split for count in counts)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 8))
def test_batches_hold_every_row_once_and_no_identity_in_two_unless_it_must(counts, size):
    identities = [person for person, n in enumerate(counts) for _ in range(n)]
    batches = pack(identities, size)
    assert [row for batch in batches for row in batch] == list(range(len(identities)))
    assert all(0 < len(batch) <= size for batch in batches)
    for person, n in enumerate(counts):
        homes = [batch for batch in batches if any(identities[row] == person for row in batch)]
        if n <= size:
            assert len(homes) == 1
        else:
            assert all(identities[row] == person for batch in homes for row in batch)
