"""Planted truth: runs of which it is known what their maps show, from the photos to the verdict."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leamfast.analysis.occlusion_tables import OcclusionTables, occlusion_tables
from tests.engine.occluded_runs import occlude, replace_maps, tiny_run

PEOPLE, PICTURES, SIZE, PATCH = 12, 4, 32, 8
MAPS = ("conv1", "conv2", "fused")
CONTROLS = ("random", "shifted", "other-identity", "population")


def write_patches(folder: Path, own_place: bool) -> Path:
    """Dark pictures of people, each with a bright patch of their own texture.

    Args:
        folder: where they go.
        own_place: each person's patch lies at a place of its own; otherwise all lie in the middle.
    """
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        place = np.array(divmod(person, SIZE // PATCH) if own_place else (1.5, 1.5)) * PATCH
        y, x = place.astype(int)
        texture = np.kron(rng.uniform(150, 255, (PATCH // 2, PATCH // 2, 3)), np.ones((2, 2, 1)))
        (folder / f"person {person:02d}").mkdir(parents=True)
        for number in range(PICTURES):
            picture = rng.uniform(20, 110, (SIZE, SIZE, 3))
            patch = texture + rng.normal(0, 20, texture.shape)
            picture[y : y + PATCH, x : x + PATCH] = patch.clip(130, 255)
            path = folder / f"person {person:02d}" / f"{number}.png"
            Image.fromarray(picture.astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[bool, Path]:
    """Whether each person's patch lies at its own place -> a run over such pictures. Not to be changed."""
    folder = tmp_path_factory.mktemp("patches")
    return {
        own: tiny_run(
            write_patches(folder / f"data {own}", own), folder / f"out {own}", ("bright",), shard_images=100,
            parser="none",
        )
        for own in (True, False)
    }  # fmt: skip


def tables_of(out: Path) -> OcclusionTables:
    report = occlude(out, controls=CONTROLS, percents=(2.0, 10.0), seeds=3)
    assert report.images == PEOPLE * PICTURES
    assert report.left_out == {}
    return occlusion_tables(out)


def verdicts(tables: OcclusionTables) -> dict[str, str]:
    return {verdict.map: verdict.verdict for verdict in tables.verdicts}


def specificity(tables: OcclusionTables, name: str):
    return next(row for row in tables.specificity if (row.map, row.threshold) == (name, 2))


def test_evidence_at_a_place_of_one_s_own_is_person_specific(runs, tmp_path):
    tables = tables_of(Path(shutil.copytree(runs[True], tmp_path / "out")))
    assert verdicts(tables) == dict.fromkeys(MAPS, "person-specific"), tables.verdicts
    for name in MAPS:
        row = specificity(tables, name)
        assert (row.n, row.people) == (PEOPLE * PICTURES * (PICTURES - 1), PEOPLE)
        # Where other people's patches lie there is nothing to lose.
        assert abs(row.other_identity) < 0.1 * row.drop
        assert abs(row.population) < 0.1 * row.drop
        assert row.specific_part > 0.9
    for ranks in tables.identities:
        assert (ranks.specificity > 0).all()


def test_evidence_in_the_same_place_with_the_mean_of_all_maps_is_a_position_prior(runs, tmp_path):
    out = Path(shutil.copytree(runs[False], tmp_path / "out"))

    def the_mean(tap: str, first: int, maps: np.ndarray) -> np.ndarray:
        shares = maps / maps.sum(axis=(1, 2), keepdims=True)
        return np.repeat(shares.mean(axis=0, keepdims=True), len(maps), axis=0)

    replace_maps(out, the_mean)
    tables = tables_of(out)
    assert verdicts(tables) == dict.fromkeys(MAPS, "mostly position prior"), tables.verdicts
    for name in MAPS:
        row = specificity(tables, name)
        assert row.specificity == pytest.approx(0, abs=1e-6)  # one map for all
        assert row.minus_random_low > 0
        assert row.minus_shifted_low > 0


@pytest.mark.parametrize("own_place", [True, False])
def test_random_maps_are_no_better_than_random(runs, tmp_path, own_place):
    out = Path(shutil.copytree(runs[own_place], tmp_path / "out"))

    def noise(tap: str, first: int, maps: np.ndarray) -> np.ndarray:
        return np.random.default_rng([len(tap), first]).exponential(size=maps.shape).astype(np.float32)

    replace_maps(out, noise)
    tables = tables_of(out)
    assert verdicts(tables) == dict.fromkeys(MAPS, "no better than random"), tables.verdicts


def test_the_maps_of_a_shared_place_are_not_called_person_specific(runs, tmp_path):
    """The maps that the network itself makes there: its evidence lies in the middle for everyone."""
    tables = tables_of(Path(shutil.copytree(runs[False], tmp_path / "out")))
    assert "person-specific" not in verdicts(tables).values(), tables.verdicts
    for name in MAPS:
        row = specificity(tables, name)
        assert row.other_identity > 0.5 * row.drop
        assert row.minus_random_low > 0
