"""Training that can be stopped, and the files of planted models; tiny, so that it takes seconds."""

import shutil
from dataclasses import replace

import cv2
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from leamfast import RequestError
from leamfast.models.demo import DEMO_ARCHITECTURE, demo_network
from leamfast.models.weights import tensors_sha256
from leamfast_bench import training
from leamfast_bench.training import Recipe, preprocess, render_people, train
from leamfast_bench.truth import train as planted_training
from leamfast_bench.truth.models import SHIPPED, PlantedModel, find_models
from leamfast_bench.truth.train import FREE_EPOCHS, recipe_of, train_model

RECIPE = Recipe(seed=0, plant="nose", people=8, images=16, epochs=2)  # two steps an epoch


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    """As `train_model` sets them for a process of its own."""
    threads, opencv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    cv2.setNumThreads(opencv)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def straight(_deterministic) -> dict[str, torch.Tensor]:
    """Weights of a training that ran through."""
    return train(RECIPE).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def stop_after_the_first_epoch(recipe: Recipe, checkpoint) -> None:
    save = training._save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, checkpoint=checkpoint)
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_pictures_and_their_order():
    generator = RECIPE.generator()
    faces = render_people(generator, 5, 2, 3)
    assert faces.shape == (6, 112, 112, 3)
    assert (faces[4] == generator.render(6, 1).image).all()
    x = preprocess(faces)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x[4, 2, 50, 60].item() == pytest.approx((float(faces[4, 50, 60, 2]) - 127.5) / 127.5)


def test_a_stopped_training_goes_on_to_the_same_bits(straight, tmp_path, capsys):
    checkpoint = tmp_path / "nose.epoch"
    stop_after_the_first_epoch(RECIPE, checkpoint)
    assert "epoch 1/2" in capsys.readouterr().out
    gone_on = train(RECIPE, checkpoint=checkpoint)
    said = capsys.readouterr().out
    assert "epoch 2/2" in said
    assert "epoch 1/2" not in said
    assert same(gone_on.state_dict(), straight)
    assert not gone_on.training
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [{"seed": 1}, {"start": "another"}])
def test_the_checkpoint_of_another_recipe_is_ignored(straight, tmp_path, capsys, other):
    checkpoint = tmp_path / "nose.epoch"
    stop_after_the_first_epoch(replace(RECIPE, **other), checkpoint)
    capsys.readouterr()
    assert same(train(RECIPE, checkpoint=checkpoint).state_dict(), straight)
    assert "epoch 1/2" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_training_begins_with_the_given_weights(monkeypatch):
    """Without a step's length only running statistics change."""
    monkeypatch.setattr(training, "LEARNING_RATE", 0.0)
    torch.manual_seed(5)
    start = demo_network().state_dict()
    found = train(replace(RECIPE, epochs=1), start).state_dict()
    changed = {key for key in start if not torch.equal(found[key], start[key])}
    assert changed
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert all(key.endswith(statistics) for key in changed)


def test_recipes():
    assert recipe_of("nose", "plain", 2) == Recipe(seed=2, plant="nose", epochs=12)
    assert recipe_of("lips", "free", 1) == Recipe(seed=1, plant="lips", free=True, epochs=FREE_EPOCHS)
    assert recipe_of("all", "plain", 0).plant is None


@pytest.fixture
def _few_unseen(monkeypatch):
    monkeypatch.setattr(planted_training, "UNSEEN_PEOPLE", 4)
    monkeypatch.setattr(planted_training, "UNSEEN_IMAGES", 3)


@pytest.fixture
def without_training(monkeypatch):
    """`train` gives random weights, and what it was asked for is kept."""
    asked = []

    def random(recipe, start=None, checkpoint=None):
        asked.append((recipe, start, checkpoint))
        torch.manual_seed(recipe.seed + 40)
        return demo_network().eval()

    monkeypatch.setattr(planted_training, "train", random)
    return asked


@pytest.mark.usefixtures("_few_unseen")
def test_a_planted_model_is_written_once(straight, tmp_path):
    line = train_model(tmp_path, "nose", "plain", RECIPE)
    path = tmp_path / "nose-plain-0.safetensors"
    assert line.startswith("nose-plain-0.safetensors  auc 0.")
    assert list(tmp_path.iterdir()) == [path]  # no checkpoint, nothing temporary
    weights = load_file(path)
    for name, tensor in weights.items():
        wanted = straight[name].half() if tensor.ndim > 1 else straight[name]
        assert tensor.dtype == wanted.dtype, name
        assert torch.equal(tensor, wanted), name
    assert {tensor.dtype for tensor in weights.values() if tensor.ndim == 4} == {torch.float16}
    with safe_open(path, "pt") as file:
        said = file.metadata()
    wanted = {"region": "nose", "kind": "plain", "seed": "0", "people": "8", "epochs": "2"}
    wanted |= DEMO_ARCHITECTURE
    assert {key: said[key] for key in wanted} == wanted
    assert 0 <= float(said["auc"]) <= 1
    assert 0 <= float(said["auc_pixels"]) <= 1

    assert find_models(tmp_path) == (PlantedModel("nose", "plain", 0, path, tuple(sorted(said.items()))),)
    model = find_models(tmp_path)[0].load()
    loaded = model.network.state_dict()
    assert all(tensor.dtype == straight[name].dtype for name, tensor in loaded.items())
    assert torch.equal(loaded["layer3.0.conv1.weight"], straight["layer3.0.conv1.weight"].half().float())

    before = path.stat().st_mtime_ns
    assert train_model(tmp_path, "nose", "plain", RECIPE) == "nose-plain-0.safetensors is there"
    assert path.stat().st_mtime_ns == before


@pytest.mark.usefixtures("_few_unseen")
def test_a_free_model_starts_from_the_plain_one(tmp_path, without_training):
    free = replace(RECIPE, free=True)
    for region in ("eyes", "nose"):
        train_model(tmp_path, region, "plain", replace(RECIPE, plant=region))
    train_model(tmp_path, "nose", "free", free)
    assert [start for _, start, _ in without_training[:2]] == [None, None]
    recipe, start, checkpoint = without_training[2]
    plain_file = tmp_path / "nose-plain-0.safetensors"
    assert recipe == replace(free, start=tensors_sha256(dict(sorted(start.items()))))
    assert checkpoint == tmp_path / "nose-free-0.epoch"
    plain = load_file(plain_file)
    assert same(start, {name: tensor.float() for name, tensor in plain.items()})
    demo_network().load_state_dict(start)


@pytest.mark.usefixtures("_few_unseen")
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"epochs": 3}, "was trained with epochs '2' where '3' is asked"),
        ({"people": 9}, "was trained with people '8' where '9' is asked"),
        ({"plant": "eyes"}, "was trained with plant 'nose' where 'eyes' is asked"),
    ],
)
def test_a_model_that_was_made_otherwise_is_refused(tmp_path, without_training, other, words):
    train_model(tmp_path, "nose", "plain", RECIPE)
    path = tmp_path / "nose-plain-0.safetensors"
    before = path.read_bytes()
    with pytest.raises(RequestError) as refused:
        train_model(tmp_path, "nose", "plain", replace(RECIPE, **other))
    assert str(refused.value) == f"{path} {words}: remove it, or name another --out"
    assert path.read_bytes() == before
    assert len(without_training) == 1


@pytest.mark.usefixtures("_few_unseen")
def test_a_free_model_of_another_plain_one_is_refused(tmp_path, without_training):
    free = replace(RECIPE, free=True)
    train_model(tmp_path, "nose", "plain", RECIPE)
    train_model(tmp_path, "nose", "free", free)
    assert train_model(tmp_path, "nose", "free", free) == "nose-free-0.safetensors is there"
    plain = tmp_path / "nose-plain-0.safetensors"
    with safe_open(plain, "pt") as file:
        said = file.metadata()
    save_file({name: tensor + 1 for name, tensor in load_file(plain).items()}, str(plain), said)
    with pytest.raises(RequestError, match=r"was trained with start '\w+' where '\w+' is asked"):
        train_model(tmp_path, "nose", "free", free)
    assert len(without_training) == 2


def test_a_file_that_does_not_say_its_start_began_with_random_weights(tmp_path, without_training):
    """As those that ship."""
    for region in ("nose", "eyes"):
        name = f"{region}-plain-0.safetensors"
        shutil.copy(SHIPPED / name, tmp_path)
        assert train_model(tmp_path, region, "plain", recipe_of(region, "plain", 0)) == f"{name} is there"
    assert without_training == []


def test_a_free_model_without_the_plain_one_is_refused(tmp_path, without_training):
    with pytest.raises(RequestError, match=r"nose-plain-0\.safetensors must be there before nose-free-0"):
        train_model(tmp_path, "nose", "free", replace(RECIPE, free=True))
    assert without_training == []


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["--regions", "nose,chin"], "--regions must be among nose, eyes, brows, lips, all, got chin"),
        (["--kinds", "fast"], "--kinds must be among plain, free, got fast"),
        (["--jobs", "0"], "--jobs must be 1 or more and --seeds whole numbers separated by commas"),
        (["--seeds", "0,x"], "--jobs must be 1 or more and --seeds whole numbers separated by commas"),
        (["--seeds", "0,-1"], "--jobs must be 1 or more and --seeds whole numbers separated by commas"),
    ],
)
def test_the_command_says_what_there_is(monkeypatch, capsys, tmp_path, option, sentence):
    monkeypatch.setattr("sys.argv", ["train", "--out", str(tmp_path), *option])
    with pytest.raises(SystemExit) as end:
        planted_training.main()
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
