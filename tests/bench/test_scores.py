"""Scores of maps against a known region, and the fall of the cosine, on cases worked by hand."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from leamfast_bench.truth.methods import Maps
from leamfast_bench.truth.scores import CURVE, PERCENTS, Drops, cosines, drops, localisation, pixel_auc
from leamfast_bench.truth.scoring import Score, make_query, score_maps, too_small
from tests.bench.conftest import IMAGES, PEOPLE, SIDE, constructed
from tests.leam.conftest import face_model

ROWS = PEOPLE * IMAGES
NOSE = 36 / SIDE**2  # share of the picture that the nose of `constructed` covers


def test_pixel_auc_by_hand():
    # Inside 3 and 1, outside 2, 1 and 0: 3 beats all; 1 beats 0 and ties with 1. (3 + 1.5) of 6.
    values = torch.tensor([[3.0, 2.0, 1.0, 1.0, 0.0]])
    inside = torch.tensor([[True, False, True, False, False]])
    assert pixel_auc(values, inside).tolist() == [4.5 / 6]


def test_pixel_auc_agrees_with_scikit_learn_where_there_are_ties():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (6, 150)).astype(np.float32)
    values[4], values[5] = rng.normal(size=150), 0
    inside = rng.random((6, 150)) < 0.2
    found = pixel_auc(torch.from_numpy(values), torch.from_numpy(inside))
    assert found.dtype == torch.float64
    wanted = [roc_auc_score(mask, row) for mask, row in zip(inside, values, strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-12)
    assert wanted[5] == 0.5


def test_pixel_auc_of_a_batch_is_that_of_its_rows():
    values = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    inside = torch.rand(5, 40, generator=torch.Generator().manual_seed(1)) < 0.3
    rows = [pixel_auc(values[i : i + 1], inside[i : i + 1]) for i in range(5)]
    assert torch.equal(pixel_auc(values, inside), torch.cat(rows))


@pytest.fixture
def block():
    """Labels (1, 10, 10) with six pixels of class 10, and where they are."""
    inside = torch.zeros(1, 10, 10, dtype=torch.bool)
    inside[0, 4:6, 3:6] = True
    return inside.to(torch.uint8) * 10, inside


def test_a_map_that_is_1_in_the_region_alone(block):
    labels, inside = block
    found = localisation(inside.float(), labels, inside, None)
    assert found.shares.shape == (1, len(PERCENTS), 19)
    assert found.shares[0, :, 10] == pytest.approx([1, 1, 1, 0.6])  # at 10% no other pixel is positive
    assert found.shares.sum(axis=2)[0] == pytest.approx([1, 1, 1, 0.6])
    assert (found.hit.tolist(), found.empty.tolist()) == ([1], [False])
    assert found.area.tolist() == [1]
    assert dict(zip(CURVE, found.recall[0], strict=True)) == pytest.approx(
        {1: 1 / 6, 2: 2 / 6, 5: 5 / 6, 10: 1, 20: 1, 30: 1, 50: 1}
    )


def test_a_map_that_is_larger_in_the_region_and_positive_elsewhere(block):
    labels, inside = block
    found = localisation(inside + 1.0, labels, inside, None)
    assert found.shares[0, :, 10] == pytest.approx([1, 1, 1, 0.6])  # ten pixels, six of them inside
    assert found.shares[0, :, 0] == pytest.approx([0, 0, 0, 0.4])
    assert (found.hit.tolist(), found.area.tolist()) == ([1], [1])


def test_a_single_pixel_is_no_full_support(block):
    """One of the 1, 2, 5 and 10 pixels that may lie in the supports."""
    labels, inside = block
    maps = torch.zeros(1, 10, 10)
    maps[0, 4, 3] = 1
    found = localisation(maps, labels, inside, None)
    assert found.shares[0, :, 10] == pytest.approx([1, 1 / 2, 1 / 5, 1 / 10])
    assert found.shares.sum(axis=2)[0] == pytest.approx([1, 1 / 2, 1 / 5, 1 / 10])
    assert (found.hit.tolist(), found.empty.tolist()) == ([1], [False])
    assert found.recall[0] == pytest.approx([1 / 6] * len(CURVE))
    assert found.area == pytest.approx([(1 + 5 / 2) / 6])  # it beats all, the other five tie


def test_the_inverse_map(block):
    labels, inside = block
    found = localisation(1.0 - inside.float(), labels, inside, None)
    assert found.shares[0, :, 10].tolist() == [0, 0, 0, 0]
    assert (found.hit.tolist(), found.area.tolist()) == ([0], [0])
    assert found.recall.tolist() == [[0] * len(CURVE)]


def test_a_map_of_zeros_finds_nothing(block):
    labels, inside = block
    first = torch.zeros_like(inside)
    first[0, 0, 0] = True  # where argmax lands among equals
    for region in (inside, first):
        found = localisation(torch.zeros(1, 10, 10), labels, region, None)
        assert (found.shares == 0).all()
        assert found.empty.tolist() == [True]
        assert (found.hit.tolist(), found.area.tolist()) == ([0], [0.5])
        assert found.recall.tolist() == [[0] * len(CURVE)]


def test_maps_lie_where_their_cells_are():
    maps, inside = torch.zeros(1, 5, 5), torch.zeros(1, 10, 10, dtype=torch.bool)
    maps[0, 1, 2], inside[0, 6, 8] = 1, True
    labels = inside.to(torch.uint8)
    placed = localisation(maps, labels, inside, ((5, 1), (4, 2)))  # the cell sits on (5 + 1, 4 + 2 * 2)
    plain = localisation(maps, labels, inside, None)
    assert (placed.hit.tolist(), placed.shares[0, 0, 1]) == ([1], 1)
    assert (plain.hit.tolist(), plain.shares[0, 0, 1]) == ([0], 0)


class Pixels(nn.Module):
    """The red values of two pixels are the embedding."""

    def __init__(self, *places: tuple[int, int]) -> None:
        super().__init__()
        self.places = places

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0, row, column] for row, column in self.places], dim=1)


WHITE = np.full((1, SIDE, SIDE, 3), 255, np.uint8)  # 1 after preprocessing, black is -1


FACE = np.ones((1, SIDE, SIDE), np.bool_)


def drops_of(model, images, reference, before, maps, draws=1, rows=None, faces=None) -> Drops:
    """Drops of pictures that are wholly face, numbered from 0, unless said otherwise."""
    rows = np.arange(len(images)) if rows is None else np.array(rows)
    faces = FACE.repeat(len(images), axis=0) if faces is None else faces
    return drops(model, images, reference, before, maps, None, rows=rows, faces=faces, draws=draws)


def at(*places: tuple[int, int], rows: int = 1) -> torch.Tensor:
    maps = torch.zeros(rows, SIDE, SIDE)
    for row, column in places:
        maps[:, row, column] = 1
    return maps


@pytest.mark.parametrize(
    ("map_at", "drop"),
    [
        ([(2, 3)], 1),  # (-1, 1) against (1, 1)
        ([(2, 3), (9, 9)], 2),  # (-1, -1)
        ([(4, 4)], 0),
        ([], 0),
    ],
)
def test_own_drop_by_hand(map_at, drop):
    model = face_model(Pixels((2, 3), (9, 9)), size=SIDE)
    reference = torch.full((1, 2), 0.5**0.5)
    before = cosines(model, WHITE, reference)
    assert before == pytest.approx([1])
    found = drops_of(model, WHITE, reference, before, at(*map_at))
    assert found.own == pytest.approx([drop], abs=1e-6)
    alone = drops_of(model, WHITE, reference, before, at(*map_at), draws=0)
    assert alone.own == pytest.approx([drop], abs=1e-6)
    assert np.isnan([alone.shifted, alone.on_face]).all()


def shift_of(row: int, draw: int = 0) -> np.ndarray:
    return np.random.default_rng([0, row, draw]).integers(1, SIDE, 2)


def seen(place: tuple[int, int]) -> dict:
    """A model that sees a pixel and the corner, to which a white picture is the reference."""
    assert place != (31, 31)
    model = face_model(Pixels(place, (31, 31)), size=SIDE)
    return {"model": model, "images": WHITE, "reference": torch.full((1, 2), 0.5**0.5), "before": np.ones(1)}


@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize("start", [(2, 3), (30, 9)])
def test_shifted_drop_by_hand(row, start):
    """A map of one pixel, moved by a draw of its row alone, onto the pixel that the model sees."""
    first, second = shift_of(row), shift_of(row, draw=1)
    landing = tuple(int(i) for i in (np.array(start) + first) % SIDE)
    one = drops_of(**seen(landing), maps=at(start), rows=[row])
    assert one.own == pytest.approx([0], abs=1e-6)
    assert one.shifted == pytest.approx([1], abs=1e-6)
    assert (first != second).any()
    two = drops_of(**seen(landing), maps=at(start), rows=[row], draws=2)
    assert two.shifted == pytest.approx([0.5], abs=1e-6)  # the second draw lands elsewhere: (1 + 0) / 2
    other = drops_of(**seen(landing), maps=at(start), rows=[row + 1])
    assert other.shifted == pytest.approx([0], abs=1e-6)


def test_the_shift_never_stays_where_it_was():
    found = np.stack([shift_of(row, draw) for row in range(40) for draw in range(40)])
    assert (found.min(), found.max()) == (1, SIDE - 1)


@pytest.mark.parametrize(
    ("face_at", "sees", "drop"),
    [
        ((20, 11), (20, 11), 1),
        ((20, 11), (19, 11), 1),
        ((20, 11), (21, 11), 1),
        ((20, 11), (22, 11), 0),
        ((20, 11), (18, 11), 0),
        ((20, 11), (20, 12), 0),
        ((0, 0), (31, 0), 1),  # round the edge
    ],
)
def test_on_face_drop_by_hand(face_at, sees, drop):
    """The middle of three pixels, one below the other, comes to lie on a face of one pixel."""
    face = np.zeros((1, SIDE, SIDE), np.bool_)
    face[0][face_at] = True
    found = drops_of(**seen(sees), maps=at((5, 5), (6, 5), (7, 5)), faces=face, draws=3)
    assert found.on_face == pytest.approx([drop], abs=1e-6)


def test_on_face_every_pixel_of_the_face_is_as_likely():
    """A face of two pixels, of which the model sees one, in forty pictures of three draws."""
    face = np.zeros((1, SIDE, SIDE), np.bool_)
    face[0, 4, 4] = face[0, 25, 9] = True
    how = seen((25, 9))
    count = 40
    how |= {"images": WHITE.repeat(count, 0), "reference": how["reference"].repeat(count, 1)}
    how |= {"before": np.ones(count)}
    found = drops_of(**how, maps=at((15, 15), rows=count), faces=face.repeat(count, 0), draws=3)
    assert set(np.round(found.on_face * 3).astype(int)) == {0, 1, 2, 3}
    assert found.on_face.mean() == pytest.approx(0.5, abs=0.15)


def test_an_empty_map_moves_nowhere():
    found = drops_of(**seen((4, 4)), maps=at())
    assert (found.own, found.shifted, found.on_face) == (0, 0, 0)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return face_model(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 6)), size=SIDE)


def test_drops_are_the_same_twice_and_row_by_row(linear):
    planted = constructed()
    query = make_query(linear, planted)
    before = cosines(linear, planted.images, query.mean)
    maps = torch.rand(ROWS, 8, 8, generator=torch.Generator().manual_seed(0))

    def of(part: slice, first: int = 0):
        made = (planted.images[part], query.mean[part], before[part], maps[part])
        numbers = np.arange(ROWS)[part] + first
        return drops_of(linear, *made, draws=2, rows=numbers, faces=planted.faces[part])

    whole, again, part, other = of(slice(None)), of(slice(None)), of(slice(2, 4)), of(slice(None), first=9)
    for name in ("own", "shifted", "on_face"):
        assert np.array_equal(getattr(whole, name), getattr(again, name))
        assert getattr(part, name) == pytest.approx(getattr(whole, name)[2:4], abs=1e-6)
    assert np.array_equal(other.own, whole.own)
    assert np.abs(other.shifted - whole.shifted).max() > 1e-4
    assert np.abs(other.on_face - whole.on_face).max() > 1e-4
    assert np.abs(whole.on_face - whole.shifted).max() > 1e-4


def test_rows_with_the_same_map_are_shifted_differently(linear):
    images = np.repeat(constructed().images[:1], 3, axis=0)
    reference = linear.embed(linear.preprocess(images[::-1].copy() // 2))
    before = cosines(linear, images, reference)
    maps = at((5, 5), (5, 6), (9, 2), rows=3)
    found = drops_of(linear, images, reference, before, maps)
    assert found.own == pytest.approx([found.own[0]] * 3, abs=1e-6)
    assert len(np.unique(found.shifted.round(6))) == len(np.unique(found.on_face.round(6))) == 3
    one = drops_of(linear, images, reference, before, maps, rows=[4, 4, 5])  # two maps of one picture
    for fall in (one.shifted, one.on_face):
        assert fall[0] == pytest.approx(fall[1], abs=1e-6)
        assert abs(fall[0] - fall[2]) > 1e-6


def test_references_are_the_other_pictures_of_the_person(linear):
    planted = constructed()
    query = make_query(linear, planted)
    units = nn.functional.normalize(linear.embed(linear.preprocess(planted.images)))
    assert torch.allclose(query.mean, units[[1, 0, 3, 2, 5, 4]], atol=1e-6)
    assert torch.allclose(query.each[:, 0], units[[1, 0, 3, 2, 5, 4]], atol=1e-6)
    assert query.images.shape == (ROWS, 3, SIDE, SIDE)


def scored(model, maps, region="nose", centres=None, rows=None, draws=None) -> Score:
    """The one score of a method that makes these maps."""
    planted = constructed(region)
    rows = torch.arange(ROWS) if rows is None else rows
    made = Maps("by hand", "tap", "block", maps.shape[-1], maps, centres, rows)
    (score,) = score_maps(make_query(model, planted), planted, [lambda query: iter([made])], draws)
    return score


def inside(region: str = "nose") -> torch.Tensor:
    return torch.from_numpy(constructed(region).inside).float()


def test_the_perfect_map(linear):
    score = scored(linear, inside())
    assert (score.method, score.map, score.kind, score.cells) == ("by hand", "tap", "block", SIDE)
    five, ten = 36 / 51 / NOSE, 36 / 102 / NOSE  # 36 of the 51 and 102 pixels that there may be
    assert score.over == pytest.approx({"1": 1 / NOSE, "2": 1 / NOSE, "5": five, "10": ten})
    assert (score.over_low, score.over_high) == pytest.approx((five, five))
    assert (score.rank, score.pointing, score.area, score.empty, score.n) == (1, 1, 1, 0, ROWS)
    assert score.recall == pytest.approx([10 / 36, 20 / 36, 1, 1, 1, 1, 1])
    assert (score.drop, score.shifted, score.on_face, score.unreported) == (None, None, None, "")
    own = scored(linear, inside(), draws=0)
    assert own.drop_low <= own.drop <= own.drop_high
    assert (own.shifted, own.on_face) == (None, None)
    assert {**asdict(own), "drop": None, "drop_low": None, "drop_high": None} == asdict(score)


def test_a_single_pixel_is_over_represented_by_what_it_covers_alone(linear):
    """One of 10, 20, 51 and 102 pixels: less than the whole nose, from 1% on."""
    maps = at((15, 15), rows=ROWS)
    score = scored(linear, maps)
    wanted = {"1": 1 / 10, "2": 1 / 20, "5": 1 / 51, "10": 1 / 102}
    assert score.over == pytest.approx({percent: share / NOSE for percent, share in wanted.items()})
    assert score.over["1"] < 3
    assert score.over["5"] < 1 < scored(linear, inside()).over["5"]
    assert (score.rank, score.pointing, score.empty) == (1, 1, 0)


def test_over_representation_is_limited_by_the_area(linear):
    """Positive elsewhere too, 5% are 51 pixels, of which the nose fills 36 and the first of the others 15."""
    score = scored(linear, inside() + 1)
    assert score.over["1"] == score.over["2"] == pytest.approx(1 / NOSE)
    assert score.over["5"] == pytest.approx(36 / 51 / NOSE)
    assert score.over["10"] == pytest.approx(36 / 102 / NOSE)
    assert score.rank == 1


def test_a_map_of_the_wrong_part(linear):
    score = scored(linear, inside("eyes"))
    assert score.over == {"1": 0, "2": 0, "5": 0, "10": 0}
    assert score.rank == 4  # behind the eyes, and behind lips and skin, which lack it as well
    assert (score.pointing, score.n) == (0, ROWS)
    assert score.area == pytest.approx(0.5 * (1 - 20 / (SIDE**2 - 36)))  # ties with all but the eyes' pixels


def test_the_rank_counts_the_parts_that_are_more_over_represented(linear):
    """All of the lips, a fifth of the eyes and a ninth of the nose."""
    maps = inside("lips")
    maps[:, 8, 8:12] = 1  # 4 of 20 pixels of the eyes
    maps[:, 13, 13:17] = 1  # 4 of 36 pixels of the nose
    assert scored(linear, maps, "lips").rank == 1
    assert scored(linear, maps, "eyes").rank == 2
    assert scored(linear, maps, "nose").rank == 3
    assert scored(linear, maps, "nose").over["5"] == pytest.approx(4 / 51 / NOSE)


def test_empty_maps_miss_the_region(linear):
    maps = inside()
    maps[::2] = 0
    score = scored(linear, maps)
    assert score.over["5"] == pytest.approx(0.5 * 36 / 51 / NOSE)
    assert (score.empty, score.pointing, score.area, score.rank) == (0.5, 0.5, 0.75, 1)
    nothing = scored(linear, torch.zeros_like(maps))
    assert nothing.over == {"1": 0, "2": 0, "5": 0, "10": 0}
    assert (nothing.rank, nothing.empty) == (4, 1)  # ties count against the region: nose, eyes, lips, skin


def test_maps_are_scored_against_the_picture_that_they_are_of(linear):
    """Two maps of each picture, in another order, against pictures that differ."""
    maps = torch.rand(ROWS, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) + inside()
    rows = torch.tensor([3, 0, 5, 1, 4, 2]).repeat(2)
    one, two = scored(linear, maps, draws=1), scored(linear, maps[rows], rows=rows, draws=1)
    assert two.over == pytest.approx(one.over)
    assert two.recall == pytest.approx(one.recall)
    assert two.drop == pytest.approx(one.drop, abs=1e-6)
    planted = constructed()
    query = make_query(linear, planted)
    before = cosines(linear, planted.images, query.mean)
    fall = drops_of(linear, planted.images, query.mean, before, maps, faces=planted.faces)
    means = [values.mean() for values in (fall.own, fall.shifted, fall.on_face)]
    assert [one.drop, one.shifted, one.on_face] == pytest.approx(means)
    assert [two.shifted, two.on_face] == pytest.approx(means[1:], abs=1e-6)  # moved as their picture is
    assert two.n == 2 * ROWS
    assert one.drop_low <= one.drop <= one.drop_high


@pytest.mark.parametrize(
    ("region", "side", "centres", "reason"),
    [
        ("nose", 4, None, "nose is too small here: 36 pixels in a cell of 64"),
        ("nose", 16, ((0, 6.0), (0, 6.0)), ""),
        ("nose", 16, ((0, 6.0), (0, 6.1)), "nose is too small here: 36 pixels in a cell of 37"),
        ("eyes", 8, None, "eyes is too small here: 8 pixels in a cell of 16"),  # the smaller eye
        ("eyes", 16, None, ""),
    ],
)
def test_a_grid_too_coarse_for_the_region(linear, region, side, centres, reason):
    maps = torch.rand(ROWS, side, side, generator=torch.Generator().manual_seed(0))
    made = Maps("by hand", "tap", "block", side, maps, centres, torch.arange(ROWS))
    assert too_small(constructed(region), made) == reason
    score = scored(linear, maps, region, centres, draws=1)
    assert score.unreported == reason
    if reason:
        assert score == Score("by hand", "tap", "block", side, unreported=reason)
    else:
        assert score.n == ROWS


def test_maps_that_were_made_larger_show_no_more_than_the_grid_that_they_were(linear):
    """A peer's maps come at the size of the picture; what counts is the grid of the tap."""
    planted = constructed("eyes")
    maps = torch.rand(ROWS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for cells, reason in ((16, ""), (8, "eyes is too small here: 8 pixels in a cell of 16")):
        made = Maps("a peer", "tap", "block", cells, maps, None, torch.arange(ROWS))
        assert too_small(planted, made) == reason
        (score,) = score_maps(make_query(linear, planted), planted, [lambda query, made=made: iter([made])])
        assert (score.unreported, score.cells, score.n) == (reason, cells, 0 if reason else ROWS)
