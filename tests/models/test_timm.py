"""Networks of timm: from a folder of the hub, from a file, untrained; never from the network."""

import json
import socket

import pytest
import torch
from safetensors.torch import save_file

from leamfast import RequestError, load_model
from leamfast.leam.taps import select_taps
from leamfast.models import FaceModel, Preprocessing
from leamfast.models.loading import brings_preprocessing, spec_name
from leamfast.models.timm_models import PUBLISHED
from leamfast.models.weights import file_sha256
from leamfast.models.zoo import make

SMALL = {"patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 16,
    "global_pool": "token",
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "fixed_input_size": True,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.25, 0.5],
        "num_classes": 1000,
        "classifier": "head",
        "of_a_later_timm": 1,
    },
    "model_args": SMALL,
}
PREPROCESSING = {"size": 64, "channels": "bgr", "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def small_vit():
    import timm

    return timm.create_model("vit_tiny_patch16_224", num_classes=16, img_size=32, **SMALL)


@pytest.fixture(scope="module")
def state():
    return dict(make(small_vit, seed=2).state_dict())


@pytest.fixture
def folder(tmp_path, state):
    """As a folder of the hub is downloaded."""
    made = tmp_path / "vit_small.face"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    save_file(state, made / "model.safetensors")
    return made


def test_a_folder_of_the_hub(folder, state):
    spec = f"timm:{folder}"
    assert brings_preprocessing(spec)
    model = load_model(spec)
    assert model.name == spec_name(spec) == "vit_small.face"
    assert model.architecture == "timm:vit_tiny_patch16_224 depth=2 embed_dim=24 num_heads=2 patch_size=8"
    assert model.preprocessing == Preprocessing(32, "rgb", (127.5,) * 3, (127.5, 63.75, 127.5))
    assert model.weights == file_sha256(folder / "model.safetensors")
    assert torch.equal(model.network.pos_embed, state["pos_embed"])
    assert model.embed(torch.rand(2, 3, 32, 32)).shape == (2, 16)
    assert [tap.name for tap in select_taps(model, "auto")] == [
        "patch_embed.proj",
        "blocks.0.norm1",
        "blocks.1.norm1",
    ]
    with pytest.raises(RequestError, match="must not be given"):
        load_model(spec, preprocessing=PREPROCESSING)


def test_weights_of_an_older_kind_and_an_alias(folder, state):
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert load_model(f"mine:=timm:{folder}").name == spec_name(f"mine:=timm:{folder}") == "mine"


def test_a_file_with_a_configuration_beside(folder):
    spec = f"timm:vit_tiny_patch16_224={folder / 'model.safetensors'}"
    assert brings_preprocessing(spec)
    model = load_model(spec)
    assert model.name == spec_name(spec) == "vit_tiny_patch16_224"
    assert model.preprocessing.size == 32
    with pytest.raises(RequestError, match="says architecture vit_tiny_patch16_224: name that one"):
        load_model(f"timm:convnext_nano={folder / 'model.safetensors'}")


def test_a_file_alone(tmp_path, state):
    import timm

    def network():
        return timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64)

    made = make(network, seed=1)
    torch.save(made.state_dict(), tmp_path / "w.pt")
    spec = f"timm:vit_tiny_patch16_224={tmp_path / 'w.pt'}"
    assert not brings_preprocessing(spec)
    with pytest.raises(RequestError, match="brings no preprocessing"):
        load_model(spec)
    model = load_model(spec, preprocessing=PREPROCESSING)
    assert model.preprocessing.channels == "bgr"
    assert model.embed(torch.rand(1, 3, 64, 64)).shape == (1, 7)  # as many as the file's classifier gives
    headless = {key: value for key, value in made.state_dict().items() if not key.startswith("head.")}
    torch.save(headless, tmp_path / "w.pt")
    assert load_model(spec, preprocessing=PREPROCESSING).embed(torch.rand(1, 3, 64, 64)).shape == (1, 192)
    save_file(state, tmp_path / "small.safetensors")
    with pytest.raises(RequestError, match="do not fit timm's vit_tiny.*a config.json beside them"):
        load_model(f"timm:vit_tiny_patch16_224={tmp_path / 'small.safetensors'}", preprocessing=PREPROCESSING)


def test_untrained_networks_follow_from_the_seed():
    spec = "timm:convnext_atto=random:"
    assert not brings_preprocessing(spec + "1")
    models = [load_model(spec + seed, preprocessing=PREPROCESSING) for seed in "112"]
    first, same, other = (model.network.stem[0].weight for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert models[0].weights == "random:1"
    assert models[0].embed(torch.rand(1, 3, 64, 64)).shape == (1, 512)


def changed(**changes):
    return {**CONFIG, **changes}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("not json", "must be a configuration of timm"),
        ({"architecture": "vit_tiny_patch16_224"}, "must be a configuration of timm.*KeyError"),
        (changed(architecture="vit_tny_patch16_224"), "timm has no architecture.*did you mean"),
        (
            changed(model_args={"checkpoint_path": "x.pth"}),
            "model_args must be arguments of.*checkpoint_path",
        ),
        (changed(model_args={"pretrained": True}), "got pretrained"),
        (changed(model_args={"wings": 2}), "cannot be made by timm: TypeError: .*wings"),
        (
            changed(model_args=SMALL | {"depth": 3}),
            "do not fit timm's vit_tiny.*blocks.2.norm1.weight is missing",
        ),
        (changed(pretrained_cfg=CONFIG["pretrained_cfg"] | {"input_size": [3, 32, 40]}), "of a square"),
        (changed(pretrained_cfg=CONFIG["pretrained_cfg"] | {"std": [0, 1, 1]}), "std must be positive"),
    ],
)
def test_configurations_that_cannot_be_used(folder, config, words):
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(RequestError, match=words):
        load_model(f"timm:{folder}")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("timm:no/such/folder", "must be timm:ARCH=FILE, timm:ARCH=random:SEED, or timm:FOLDER"),
        ("timm:vit_tiny_patch16_224=random:-1", "whole number"),
        ("timm:vit_tiny_patch16_224=no/such/file", "does not exist"),
        ("timm:resnet_18=random:0", "no architecture 'resnet_18'; did you mean .*resnet18"),
    ],
)
def test_bad_specs(spec, words):
    with pytest.raises(RequestError, match=words):
        load_model(spec, preprocessing=None if brings_preprocessing(spec) else PREPROCESSING)


def test_a_folder_whose_name_cannot_be_stored(folder):
    odd = folder.rename(folder.with_name("my faces"))
    with pytest.raises(RequestError, match="got 'my faces'.*choose another with alias:="):
        load_model(f"timm:{odd}")
    assert load_model(f"mine:=timm:{odd}").name == "mine"


def test_a_size_that_the_network_does_not_take():
    with pytest.raises(RequestError, match="timm:vit_tiny_patch16_224=random:0' .*size"):
        load_model("timm:vit_tiny_patch16_224=random:0", preprocessing=PREPROCESSING | {"size": 8})


ARGUMENTS = {
    "vit_tiny": {"img_size": 112, "patch_size": 8},
    "vit_smal": {"img_size": 112, "patch_size": 8, "class_token": False, "global_pool": "avg"},
    "convnext": {},
}
MILLIONS = {
    "vit_tiny_patch16_224": 5.51,
    "vit_small_patch16_224": 21.6,
    "convnext_nano": 15.3,
    "convnext_atto": 3.54,
}


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)
def test_published_models_have_the_stored_taps(published):
    import timm

    options = ARGUMENTS[published.name[:8]]
    network = make(lambda: timm.create_model(published.architecture, num_classes=512, **options), "meta")
    model = FaceModel(published.name, "", network, Preprocessing(112, "rgb", (0,) * 3, (1,) * 3), "")
    assert tuple(tap.name for tap in select_taps(model, "auto")) == published.taps
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(MILLIONS[published.architecture], abs=0.05)


def test_gradients_reach_the_patches(folder):
    """Every tap of `auto` gets a gradient that differs between cells, through attention too."""
    model = load_model(f"timm:{folder}")
    outputs = {}
    for tap in select_taps(model, "auto"):
        model.network.get_submodule(tap.module).register_forward_hook(
            lambda m, a, output, tap=tap: outputs.update({tap: output})
        )
    embedding = model.network(torch.rand(1, 3, 32, 32).requires_grad_())
    grads = torch.autograd.grad(embedding[0, 0], list(outputs.values()))
    for tap, grad in zip(outputs, grads, strict=True):
        cells = tap.grid(grad).abs().sum(1)
        assert cells.shape == (1, 4, 4)
        assert (cells > 0).all(), tap.name
        assert cells.std() > 0, tap.name
