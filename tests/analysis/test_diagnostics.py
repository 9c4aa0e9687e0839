"""The warnings of a run: those of its taps, and those that its results raise, each with its number."""

import csv

import numpy as np
import pytest

from leamfast.analysis.analyze import analyze_run, write_analysis
from leamfast.analysis.diagnostics import NAMES
from leamfast.engine.batch_run import BatchRequest, run_batch
from leamfast.faces.regions import REGIONS
from leamfast.store.arrays import NO_LABEL
from leamfast.store.results import open_results
from tests.analysis.conftest import FACE, planted, sharp


def go(faces, out, **options):
    notes: list[str] = []
    request = BatchRequest(
        data=faces, out=out, model=("demo=random:0",), layers=("layer1.0.prelu,layer3.0",), align="none",
        threads=1, backend="eager", **options,
    )  # fmt: skip
    run_batch(request, note=notes.append)
    with write_analysis(out, analyze_run(out))["diagnostics"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["model", "map", "warning", "name", "value", "limit"]
    return notes, [row for row in rows if row["name"] == "tap"]


def test_the_paper_s_own_way_is_warned_of_before_the_run_and_in_the_table(faces, tmp_path):
    notes, rows = go(faces, tmp_path / "paper")
    *rows, fused = rows
    assert fused == {
        "model": "demo",
        "map": "fused",
        "warning": "it is the mean over taps with warnings too: layer3.0",
        "name": "tap",
        "value": "",
        "limit": "",
    }
    assert {(row["model"], row["map"]) for row in rows} == {("demo", "layer3.0")}
    assert len(rows) == 3  # coarse, displaced, a sum
    assert sorted(f"demo layer3.0: {row['warning']}" for row in rows) == sorted(notes)
    with open_results(tmp_path / "paper") as results:
        assert results.warnings("demo", "layer3.0") == tuple(row["warning"] for row in rows)
        assert results.warnings("demo", "layer1.0.prelu") == ()
        assert results.file["model/demo/layer/layer1.0.prelu"].attrs["kind"] == "PReLU"


def test_true_centres_and_positive_activations_leave_the_grid_s_coarseness(faces, tmp_path):
    notes, rows = go(faces, tmp_path / "right", registration="receptive", activation="positive")
    assert [row["map"] for row in rows] == ["layer3.0", "fused"]
    assert len(notes) == 1
    assert "16x16 pixels" in rows[0]["warning"]


PEOPLE = [0, 0, 1, 1, 2, 2]
SOUND = {"face": 0.6, "re": 0.1, "le": 0.1, "nose": 0.1, "background": 0.1}


def found(root, map="a"):
    rows = [row for row in analyze_run(root).diagnostics if row.map == map and row.name != "tap"]
    assert all(row.name in NAMES for row in rows)
    return {row.name: row for row in rows}


def sound(run, maps=None, labels=FACE, shares=None, **options):
    """A run in which nothing is wrong, but for what is given."""
    shares = planted(6, **SOUND) if shares is None else planted(6, **shares)
    return run(PEOPLE, sharp(6) if maps is None else maps, labels, shares, **options)


def test_a_sound_run_has_no_warning(run):
    assert analyze_run(sound(run)).diagnostics == []


def test_warnings_come_by_model_first_those_of_taps_then_by_map_in_order_of_depth(run):
    maps = sharp(6)
    maps[0] = 0
    root = sound(run, maps, shares={"background": 0.7, "face": 0.3}, warnings="one\ntwo")
    assert [(row.map, row.name) for row in analyze_run(root).diagnostics] == [
        ("a", "tap"), ("a", "tap"), ("fused", "tap"),
        ("a", "zero-maps"), ("a", "off-face"), ("fused", "off-face"),
    ]  # fmt: skip


def test_maps_of_zeros(run):
    maps = sharp(6)
    maps[2] = 0
    maps[3] = np.nan  # without a reference: no map at all
    row = found(sound(run, maps))["zero-maps"]
    assert (row.value, row.limit) == (1, 0)
    assert row.warning.startswith("1 of 5 maps are zero everywhere")
    assert "activation positive" in row.warning
    root = sound(run, maps, settings={"activation": "positive"})
    assert "activation positive" not in found(root)["zero-maps"].warning


def test_vanishing_gradients(run):
    scale = np.array([1, 1, 1, 0.9e-6, 1, np.nan])
    maps = sharp(6)
    maps[5] = np.nan
    row = found(sound(run, maps, scale=scale))["vanishing-gradients"]
    assert row.value == pytest.approx(1 / 5)
    assert row.warning.startswith("1 of 5 maps have a mass below 1e-06")
    assert "vanishing-gradients" not in found(sound(run, scale=np.full(6, 1.1e-6)))
    # The mass counts, not the maximum: 64 cells of a fiftieth of the limit.
    assert "vanishing-gradients" not in found(sound(run, np.ones((6, 8, 8)), scale=2e-8))


def test_one_faint_map_of_a_hundred_is_none(run):
    people = np.repeat(range(50), 2).tolist()
    scale = np.ones(100)
    scale[7] = 1e-9
    assert "vanishing-gradients" not in found(run(people, sharp(100), scale=scale))
    scale[8] = 1e-9
    assert "vanishing-gradients" in found(run(people, sharp(100), scale=scale))


def test_supports_off_the_face(run):
    rows = found(sound(run, shares={"background": 0.65, "face": 0.35}))
    assert rows["off-face"].value == pytest.approx(0.65 / 0.625)
    assert rows["off-face"].warning.startswith("65% of the top 5% of its pixels lie off the face, 1.04 times")
    assert "off-face" not in found(sound(run, shares={"background": 0.6, "face": 0.4}))
    labels = np.where(FACE == 0, NO_LABEL, FACE).astype(np.uint8)
    known = ("face", "re", "le", "nose")
    rows = found(sound(run, labels=labels, shares={"face": 0.35}, known=known))
    assert "parser cannot tell count as off it" in rows["off-face"].warning


def test_blobs_that_reach_off_the_face(run):
    flat = np.ones((6, 8, 8))
    off, on = {"background": 0.55, "face": 0.45}, {"background": 0.45, "face": 0.55}
    row = found(sound(run, flat, shares=off))["blob"]
    assert row.value == 1
    assert "55% of its mass lies off the face, 0.88 times" in row.warning
    assert "blob" not in found(sound(run, shares=off))  # sharp
    assert "blob" not in found(sound(run, flat, shares=on))  # on the face
    assert "blob" not in found(sound(run, flat, shares=off), map="fused")  # its width is not stored


def test_the_width_of_a_blob_is_at_half_of_its_maximum(run):
    maps = np.full((6, 10, 10), 0.49)
    maps[:, 0, 0] = 1
    maps[:, 5] = 0.5  # 11 of 100 cells
    off = {"background": 0.55, "face": 0.45}
    assert "blob" not in found(sound(run, maps, shares=off))
    maps[:, 6, 0] = 0.5
    assert found(sound(run, maps, shares=off))["blob"].value == pytest.approx(0.12)


def test_uneven_pairs(run):
    uneven = {**SOUND, "re": 0.15, "le": 0.05}
    row = found(sound(run, shares=uneven))["asymmetric"]
    assert (row.value, row.limit) == (pytest.approx(0.5), 0.2)
    assert "15.0% lie on the person's right eye (re) and 5.0% on the left one (le)" in row.warning
    assert "registration receptive" in row.warning
    receptive = sound(run, shares=uneven, settings={"registration": "receptive"})
    assert "registration" not in found(receptive)["asymmetric"].warning
    assert "asymmetric" not in found(sound(run, shares={**SOUND, "re": 0.115, "le": 0.085}))
    # Too little to speak of.
    assert "asymmetric" not in found(sound(run, shares={**SOUND, "re": 0.008, "le": 0.001}))


def test_a_pair_as_uneven_as_its_areas_is_none(run):
    turned = FACE.copy()
    turned[2, 1:5] = REGIONS.index("re")  # six pixels, two of the left eye: an index of 0.5
    assert "asymmetric" not in found(sound(run, labels=turned, shares={**SOUND, "re": 0.15, "le": 0.05}))
    assert "asymmetric" in found(sound(run, labels=turned))


def test_a_pair_that_is_uneven_by_chance_is_none(run):
    """One person of three has it all: the interval holds the index of the areas."""
    uneven = {**SOUND, "re": [0.5, 0.5, 0.1, 0.1, 0.0, 0.0], "le": [0.0, 0.0, 0.1, 0.1, 0.2, 0.2]}
    assert "asymmetric" not in found(sound(run, shares=uneven))


def test_one_person_s_pairs_are_not_judged(run):
    shares = planted(4, **{**SOUND, "re": 0.2, "le": 0.0})
    assert "asymmetric" not in found(run([0] * 4, sharp(4), FACE, shares))
    assert "asymmetric" in found(run([0, 0, 1, 1], sharp(4), FACE, shares))


def test_shares_that_vary_within_an_identity(run):
    unstable = {**SOUND, "nose": [0.0, 0.2] * 3, "face": [0.7, 0.5] * 3}
    row = found(sound(run, shares=unstable))["unstable"]
    assert row.value == pytest.approx(np.sqrt(2), rel=1e-5)
    assert "(nose 141%)" in row.warning
    assert "unstable" not in found(sound(run, shares={**unstable, "nose": [0.05, 0.15] * 3}))
    # Off the face, or hardly there, they may vary.
    assert "unstable" not in found(sound(run, shares={**SOUND, "nose": [0.0, 0.018] * 3}))
    assert "unstable" not in found(sound(run, shares={**SOUND, "background": [0.0, 0.2] * 3}))


def test_maps_of_one_person_that_disagree(run):
    maps = sharp(6)
    maps[::2] = np.roll(maps[::2], 3, axis=2)
    row = found(sound(run, maps))["disagreement"]
    assert (row.value, row.limit) == (0, 0.3)
    assert "coefficient of 0.00, those of two people 0.50" in row.warning
    maps[1] = maps[0]  # one person of three agrees
    assert "disagreement" not in found(sound(run, maps))


def test_without_masks_the_others_are_there(run):
    maps = sharp(6)
    maps[::2] = np.roll(maps[::2], 3, axis=2)
    maps[0] = 0
    analysis = analyze_run(run(PEOPLE, maps))
    assert not analysis.masks
    assert [row.name for row in analysis.diagnostics] == ["zero-maps", "disagreement"]
    assert analysis.regions == analysis.off_face == analysis.asymmetry == analysis.layers == []
