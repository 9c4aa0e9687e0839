"""Scores of maps against a known region, and the fall of the cosine, on cases worked by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from leamfast_bench.truth.methods import Maps
from leamfast_bench.truth.scores import CURVE, PERCENTS, cosines, drops, localisation, pixel_auc
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
    assert found.shares[0, :, 10].tolist() == [1, 1, 1, 1]  # at 10% too: no other pixel is positive
    assert found.shares.sum(axis=2).tolist() == [[1, 1, 1, 1]]
    assert found.hit.tolist() == [1]
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
        assert np.isnan(found.shares).all()
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
    found = drops(model, WHITE, reference, before, at(*map_at), None, draws=1)
    assert found.own == pytest.approx([drop], abs=1e-6)


def shift_of(row: int, draws: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, row]).integers(1, SIDE, (draws, 2))


@pytest.mark.parametrize("seed", [0, 7])
def test_shifted_drop_by_hand(seed):
    """A map of one pixel, moved by a draw of the seed and the row, onto the pixel that the model sees."""
    start = (2, 3)
    (first, second) = shift_of(0, draws=2, seed=seed)
    landing = tuple(int(i) for i in (np.array(start) + first) % SIDE)
    elsewhere = next((r, 0) for r in range(SIDE) if (r, 0) not in (landing, start))
    model = face_model(Pixels(landing, elsewhere), size=SIDE)
    reference, before = torch.full((1, 2), 0.5**0.5), np.ones(1)
    one = drops(model, WHITE, reference, before, at(start), None, draws=1, seed=seed)
    assert one.own == pytest.approx([0], abs=1e-6)
    assert one.shifted == pytest.approx([1], abs=1e-6)
    assert (first != second).any()
    two = drops(model, WHITE, reference, before, at(start), None, draws=2, seed=seed)
    assert two.shifted == pytest.approx([0.5], abs=1e-6)  # the second draw lands elsewhere: (1 + 0) / 2


def test_the_shift_never_stays_where_it_was():
    found = np.concatenate([shift_of(row, draws=40) for row in range(40)])
    assert (found.min(), found.max()) == (1, SIDE - 1)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return face_model(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 6)), size=SIDE)


def test_drops_are_the_same_twice_and_row_by_row(linear):
    planted = constructed()
    query = make_query(linear, planted)
    before = cosines(linear, planted.images, query.mean)
    maps = torch.rand(ROWS, 8, 8, generator=torch.Generator().manual_seed(0))

    def of(rows: int, seed: int = 0):
        return drops(
            linear, planted.images[:rows], query.mean[:rows], before[:rows], maps[:rows], None, 2, seed
        )

    whole, again, part, other = of(ROWS), of(ROWS), of(2), of(ROWS, seed=1)
    assert np.array_equal(whole.own, again.own)
    assert np.array_equal(whole.shifted, again.shifted)
    assert part.own == pytest.approx(whole.own[:2], abs=1e-6)
    assert part.shifted == pytest.approx(whole.shifted[:2], abs=1e-6)
    assert np.array_equal(other.own, whole.own)
    assert np.abs(other.shifted - whole.shifted).max() > 1e-4


def test_rows_with_the_same_map_are_shifted_differently(linear):
    images = np.repeat(constructed().images[:1], 3, axis=0)
    reference = linear.embed(linear.preprocess(images[::-1].copy() // 2))
    before = cosines(linear, images, reference)
    found = drops(linear, images, reference, before, at((5, 5), (5, 6), (9, 2), rows=3), None, draws=1)
    assert found.own == pytest.approx([found.own[0]] * 3, abs=1e-6)
    assert len(np.unique(found.shifted.round(6))) == 3


def test_references_are_the_other_pictures_of_the_person(linear):
    planted = constructed()
    query = make_query(linear, planted)
    units = nn.functional.normalize(linear.embed(linear.preprocess(planted.images)))
    assert torch.allclose(query.mean, units[[1, 0, 3, 2, 5, 4]], atol=1e-6)
    assert torch.allclose(query.each[:, 0], units[[1, 0, 3, 2, 5, 4]], atol=1e-6)
    assert query.images.shape == (ROWS, 3, SIDE, SIDE)


def scored(model, maps, region="nose", centres=None, rows=None, draws=0) -> Score:
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
    assert score.over == pytest.approx({"1": 1 / NOSE, "2": 1 / NOSE, "5": 1 / NOSE, "10": 1 / NOSE})
    assert (score.over_low, score.over_high) == pytest.approx((1 / NOSE, 1 / NOSE))
    assert (score.rank, score.pointing, score.area, score.empty, score.n) == (1, 1, 1, 0, ROWS)
    assert score.recall == pytest.approx([10 / 36, 20 / 36, 1, 1, 1, 1, 1])
    assert (score.drop, score.shifted, score.unreported) == (None, None, "")


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
    assert score.rank > 1
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
    assert scored(linear, maps, "nose").over["5"] == pytest.approx(4 / 40 / NOSE)


def test_empty_maps_miss_the_region(linear):
    maps = inside()
    maps[::2] = 0
    score = scored(linear, maps)
    assert score.over["5"] == pytest.approx(0.5 / NOSE)
    assert (score.empty, score.pointing, score.area, score.rank) == (0.5, 0.5, 0.75, 1)
    assert scored(linear, torch.zeros_like(maps)).over == {"1": 0, "2": 0, "5": 0, "10": 0}


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
    fall = drops(linear, planted.images, query.mean, before, maps, None, draws=1)
    assert (one.drop, one.shifted) == pytest.approx((fall.own.mean(), fall.shifted.mean()))
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
