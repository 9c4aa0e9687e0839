"""Planted sets and the models that are asked about them: nothing is scored where the truth is not known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from leamfast import RequestError
from leamfast.datasets.synthetic import FaceGenerator
from leamfast.faces.regions import REGIONS, region_index
from leamfast.models.demo import DEMO_ARCHITECTURE, DEMO_SIZE, DEMO_WEIGHTS, demo_network
from leamfast_bench.truth import models
from leamfast_bench.truth.benchmark import LEARNT, Form, score_model
from leamfast_bench.truth.models import PlantedModel, find_models, model_file
from leamfast_bench.truth.planted import FIRST, REACH, check_planted, planted_set
from leamfast_bench.truth.tables import checks, tables

PARTS = [
    region_index(name)
    for name in ("face", "rb", "lb", "re", "le", "nose", "ulip", "imouth", "llip", "rr", "lr")
]
FORM = Form(people=4, images=3, draws=1, variants=(), free_variants=(), packages=())


def write_model(folder: Path, said: dict[str, str] | None, name: str = "nose-plain-0.safetensors") -> Path:
    """An untrained model whose header says what is asked."""
    torch.manual_seed(0)
    weights = {key: tensor.contiguous() for key, tensor in demo_network().state_dict().items()}
    save_file(weights, str(folder / name), said if said is None else {**DEMO_ARCHITECTURE, **said})
    return folder / name


def stain(monkeypatch):
    """Let the first pixel depend on the person, whatever is planted."""
    render = FaceGenerator.render

    def stained(self, identity, image, **how):
        face = render(self, identity, image, **how)
        pixels = face.image.copy()
        pixels[0, 0] = identity % 251
        return replace(face, image=pixels)

    monkeypatch.setattr(FaceGenerator, "render", stained)


def test_a_planted_set():
    generator = FaceGenerator(seed=3, size=DEMO_SIZE, plant="nose")
    planted = planted_set(generator, people=3, images=2)
    assert planted.images.shape == (6, DEMO_SIZE, DEMO_SIZE, 3)
    assert planted.people.tolist() == [0, 0, 1, 1, 2, 2]
    for row, (person, picture) in enumerate((p, k) for p in range(3) for k in range(2)):
        face = generator.render(FIRST + person, picture)
        assert np.array_equal(planted.images[row], face.image)
        assert np.array_equal(planted.labels[row], face.label)
    assert planted.region == "nose"
    assert planted.classes == (region_index("nose"),)
    assert np.array_equal(planted.inside, planted.labels == region_index("nose"))
    assert np.array_equal(planted.faces, np.isin(planted.labels, PARTS))
    assert (planted.inside <= planted.faces).all()
    assert 0.2 < planted.faces.mean() < 0.8
    assert planted.areas.shape == (len(REGIONS),)
    assert planted.areas.sum() == pytest.approx(1)
    assert planted.areas[region_index("nose")] == pytest.approx(planted.inside.mean())


def test_a_region_of_two_parts():
    planted = planted_set(FaceGenerator(size=DEMO_SIZE, plant="eyes"), people=1, images=1)
    assert set(planted.classes) == {region_index("re"), region_index("le")}
    assert np.array_equal(planted.inside, np.isin(planted.labels, planted.classes))
    assert planted.areas[list(planted.classes)].min() > 0


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("region", [region for region in models.REGIONS if region != "all"])
def test_people_differ_where_the_generator_says(region, free):
    check_planted(FaceGenerator(seed=1, size=DEMO_SIZE, plant=region, free=free))


@pytest.mark.parametrize("free", [False, True])
def test_people_who_differ_elsewhere_are_refused(monkeypatch, free):
    stain(monkeypatch)
    with pytest.raises(
        RequestError,
        match=r"people 2000000 and 2000001 must differ in nose only, "
        "but elsewhere 1 of their pixels differ too, first row 0, column 0: .* nothing is scored",
    ):
        planted_set(FaceGenerator(size=DEMO_SIZE, plant="nose", free=free), people=2, images=2)


def test_paint_may_lie_a_little_beside_the_mask_but_no_further(monkeypatch):
    generator, render = FaceGenerator(size=DEMO_SIZE, plant="nose"), FaceGenerator.render
    labels = [render(generator, FIRST + i, 0, nuisance=(FIRST, 0)).label for i in range(2)]
    nose = np.argwhere((labels[0] == region_index("nose")) | (labels[1] == region_index("nose")))
    lowest, column = nose[nose[:, 0].argmax()]

    def below(pixels: int):
        def stained(self, identity, image, **how):
            face = render(self, identity, image, **how)
            image = face.image.copy()
            image[lowest + pixels, column] = identity % 251
            return replace(face, image=image)

        return stained

    monkeypatch.setattr("leamfast_bench.truth.planted.PAIRS", 1)
    assert REACH == 4
    monkeypatch.setattr(FaceGenerator, "render", below(4))
    check_planted(generator)
    monkeypatch.setattr(FaceGenerator, "render", below(5))
    with pytest.raises(RequestError, match=f"1 of their pixels differ too, first row {lowest + 5}"):
        check_planted(generator)


def test_a_generator_that_plants_nothing_is_refused():
    with pytest.raises(RequestError, match="a planted set needs a planted region"):
        planted_set(FaceGenerator(), people=2, images=2)


def test_no_scores_where_people_differ_elsewhere(monkeypatch):
    stain(monkeypatch)
    result = score_model(find_models(None)[0], (), FORM)
    assert "must differ in nose only" in result["unreported"]
    assert result["scores"] == []
    assert "auc" not in result
    assert (result["region"], result["people"], result["images"]) == ("nose", 4, 12)


def test_no_scores_of_a_model_that_did_not_learn(tmp_path):
    write_model(tmp_path, {"region": "nose", "kind": "plain", "seed": "0"})
    (model,) = find_models(tmp_path)
    result = score_model(model, find_models(None), FORM)
    assert 0 < result["auc"] < LEARNT
    assert result["unreported"].startswith(f"AUC {result['auc']:.3f} on unseen people is below {LEARNT}")
    assert result["scores"] == []
    found = {"models": [result]}
    (check,) = checks(found)
    assert (check["model"], check["holds"]) == ("nose-plain-0", False)
    assert check["unreported"] == result["unreported"]
    made = tables(found | {"checks": [check]})
    assert len(made) == 6
    for table in made:
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_models_that_ship():
    found = find_models(None)
    assert [model.name for model in found] == ["nose-plain-0", "eyes-plain-0"]
    assert sum(path.stat().st_size for path in (DEMO_WEIGHTS, *(m.weights for m in found))) < 5_000_000
    for model in found:
        loaded = model.load()
        assert loaded.name == model.name
        assert loaded.preprocessing.size == DEMO_SIZE
        assert (model.generator().plant, model.generator().free) == (model.region, False)
        said = dict(model.header)
        assert (said["region"], said["kind"], said["seed"]) == (model.region, "plain", "0")
        assert float(said["auc"]) >= LEARNT


def test_models_come_by_region_kind_and_seed(tmp_path):
    wanted = ["nose-plain-0", "nose-plain-2", "nose-free-0", "brows-plain-10", "all-plain-0"]
    for name in sorted(wanted):
        region, kind, seed = name.split("-")
        said = {"region": region, "kind": kind, "seed": seed}
        write_model(tmp_path, said, model_file(region, kind, int(seed)))
    found = find_models(tmp_path)
    assert [model.name for model in found] == wanted
    assert found[2].generator().free
    assert found[-1].generator().plant is None
    assert [model.seed for model in found] == [0, 2, 0, 10, 0]


@pytest.mark.parametrize("all_regions", [False, True])
def test_a_folder_without_planted_models_names_the_command(tmp_path, all_regions):
    if all_regions:
        write_model(tmp_path, {"region": "all", "kind": "plain", "seed": "0"}, "all-plain-0.safetensors")
    with pytest.raises(RequestError, match=r"python -m leamfast_bench\.truth\.train --out " + str(tmp_path)):
        find_models(tmp_path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "its header lacks region"),
        ({"region": "nose", "kind": "plain"}, "its header lacks seed"),
        ({"region": "nose", "kind": "plain", "seed": "x"}, "says seed 'x', which is no whole number"),
        ({"region": "chin", "kind": "plain", "seed": "0"}, "says region 'chin' and kind 'plain'"),
        ({"region": "nose", "kind": "fast", "seed": "0"}, "says region 'nose' and kind 'fast'"),
    ],
)
def test_a_file_that_does_not_say_what_it_is(tmp_path, said, words):
    path = write_model(tmp_path, said)
    with pytest.raises(RequestError) as refused:
        find_models(tmp_path)
    assert str(path) in str(refused.value)
    assert words in str(refused.value)


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path = write_model(tmp_path, {"region": "nose", "kind": "plain", "seed": "0"})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RequestError, match=str(path)):
        find_models(tmp_path)


def test_two_files_of_one_model_are_refused(tmp_path):
    said = {"region": "nose", "kind": "plain", "seed": "0"}
    write_model(tmp_path, said)
    write_model(tmp_path, {**said, "seed": "1"}, "nose-plain-1.safetensors")
    assert [model.name for model in find_models(tmp_path)] == ["nose-plain-0", "nose-plain-1"]
    write_model(tmp_path, said, "copy.safetensors")
    with pytest.raises(RequestError, match=f"{tmp_path} holds more than one file of nose-plain-0: remove"):
        find_models(tmp_path)


def test_what_a_file_says_is_kept(tmp_path):
    write_model(tmp_path, {"region": "nose", "kind": "free", "seed": "3", "auc": "0.9", "start": "abc"})
    (model,) = find_models(tmp_path)
    wanted = {"region": "nose", "kind": "free", "seed": "3", "auc": "0.9", "start": "abc"}
    assert dict(model.header) == {**DEMO_ARCHITECTURE, **wanted}
    assert hash(model) == hash(find_models(tmp_path)[0])


def test_a_model_is_its_file(tmp_path):
    path = write_model(tmp_path, {"region": "nose", "kind": "plain", "seed": "0"})
    torch.manual_seed(0)
    images = torch.randn(2, 3, DEMO_SIZE, DEMO_SIZE)
    torch.manual_seed(0)
    network = demo_network().eval()
    with torch.no_grad():
        assert torch.equal(PlantedModel("nose", "plain", 0, path).load().embed(images), network(images))
