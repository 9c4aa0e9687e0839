from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from leamfast.datasets.entry import Entry
from leamfast.datasets.manifest import Manifest
from leamfast.engine.batches import pack
from leamfast.engine.plan import plan_shards


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
