import pickle

import pytest
import torch
from safetensors.torch import save_file

from leamfast import RequestError, load_model
from leamfast.models.loading import brings_preprocessing, located, spec_name
from leamfast.models.weights import file_sha256, read_state_dict
from leamfast.models.zoo import ZOO, build

PREPROCESSING = {"size": 16, "channels": "rgb", "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture(scope="module")
def state():
    return {k: v.clone() for k, v in build(ZOO["mobilefacenet"], seed=3).state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {"model": {f"model.{k}": v for k, v in s.items()}},
        lambda s: {f"module.model.{k}": v for k, v in s.items()},
    ],
    ids=["plain", "state_dict", "module.", "model.", "both prefixes"],
)
def test_wrapped_checkpoints_load(tmp_path, state, wrap):
    path = tmp_path / "w.pth"
    torch.save(wrap(state), path)
    model = load_model(f"mobilefacenet={path}")
    assert model.weights == file_sha256(path)
    assert not model.network.training
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_safetensors_and_legacy_files_load(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "old.pt"):
        network = load_model(f"mobilefacenet={tmp_path / name}").network
        assert torch.equal(network.conv3.weight, state["conv3.weight"])


def test_counters_may_be_absent(tmp_path, state):
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, tmp_path / "w.pt")
    assert load_model(f"mobilefacenet={tmp_path / 'w.pt'}").name == "mobilefacenet"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("conv3.bias"), "conv3.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra is unexpected"),
        (lambda s: s.update({"conv3.bias": torch.zeros(4)}), r"conv3.bias has shape \(4,\) where \(128,\)"),
    ],
)
def test_keys_that_do_not_fit_are_named(tmp_path, state, change, words):
    changed = dict(state)
    change(changed)
    torch.save(changed, tmp_path / "w.pt")
    with pytest.raises(RequestError, match=words):
        load_model(f"mobilefacenet={tmp_path / 'w.pt'}")


def test_weights_of_another_architecture_say_which_they_fit(tmp_path, state):
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(RequestError, match="do not fit iresnet50.*would fit mobilefacenet"):
        load_model(f"AF_R50={tmp_path / 'w.pt'}")


def test_weights_of_facenet_come_with_a_classifier_that_is_left_out(tmp_path):
    state = build(ZOO["IR_CASIA"], seed=1).state_dict()
    torch.save(
        {**state, "logits.weight": torch.zeros(3, 512), "logits.bias": torch.zeros(3)}, tmp_path / "c.pt"
    )
    model = load_model(f"IR_CASIA={tmp_path / 'c.pt'}")
    assert torch.equal(model.network.last_linear.weight, state["last_linear.weight"])
    with pytest.raises(RequestError, match="do not fit iresnet18.*would fit inceptionresnetv1"):
        load_model(f"AF_R18={tmp_path / 'c.pt'}")


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"a": Malicious()}), "more than tensors"),
        (b"", "not readable"),
        (b"\x89PNG not weights", "more than tensors|not readable"),
    ],
    ids=["code", "empty", "other file"],
)
def test_files_that_are_no_weights(tmp_path, capsys, content, words):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=words):
        load_model(f"mobilefacenet={path}")
    assert "code ran" not in capsys.readouterr().out


def test_checkpoints_that_carry_code_are_refused(tmp_path, state, capsys):
    torch.save({"state_dict": state, "optimizer": Malicious()}, tmp_path / "w.pt")
    with pytest.raises(RequestError, match="could run code"):
        read_state_dict(tmp_path / "w.pt")
    assert "code ran" not in capsys.readouterr().out


def test_files_without_named_or_finite_tensors(tmp_path, state):
    torch.save({0: torch.zeros(1)}, tmp_path / "numbers.pt")
    with pytest.raises(RequestError, match="no state dict"):
        read_state_dict(tmp_path / "numbers.pt")
    torch.save({**state, "conv3.bias": torch.full((128,), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(RequestError, match="conv3.bias that are not finite"):
        load_model(f"mobilefacenet={tmp_path / 'nan.pt'}")


def test_truncated_and_stateless_files(tmp_path, state):
    torch.save(state, tmp_path / "w.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:5000])
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    for name, words in (
        ("cut.pt", "not readable"),
        ("epoch.pt", "no state dict"),
        ("none.pt", "does not exist"),
    ):
        with pytest.raises(RequestError, match=words):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("AF_R18", "needs its weights.*backbone.pth"),
        ("AFR18=x", "did you mean AF_R18"),
        ("mobilefacenet=random:x", "whole number"),
        ("mobilefacenet=random:99999999999999999999", "whole number"),
        ("a/b:=demo", "alias"),
        ("json:loads", "trust-code"),
    ],
)
def test_bad_specs(spec, words):
    with pytest.raises(RequestError, match=words):
        load_model(spec)


def test_paths_are_made_absolute_for_processes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pt").touch()
    assert located("net.pt") == f"{tmp_path}/net.pt"
    assert located("a:=net.pt") == f"a:={tmp_path}/net.pt"
    assert located("AF_R18=net.pt") == f"AF_R18={tmp_path}/net.pt"
    for other in ("demo", "demo=random:0", "module:factory", "AF_R18=absent.pt"):
        assert located(other) == other


def test_an_alias_renames():
    model = load_model("mine:=mobilefacenet=random:0")
    assert model.name == spec_name("mine:=mobilefacenet=random:0") == "mine"
    assert model.architecture == "mobilefacenet"


def test_a_factory_needs_trust_and_preprocessing(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def tiny():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Flatten(), nn.Linear(256, 8))\n"
        "def wrong():\n"
        "    return 3\n"
        "def fails():\n"
        "    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert not brings_preprocessing("my_nets:tiny")
    with pytest.raises(RequestError, match="brings no preprocessing"):
        load_model("my_nets:tiny", trust_code=True)
    model = load_model("my_nets:tiny", trust_code=True, preprocessing=PREPROCESSING)
    assert [(t.name, t.height) for t in model.taps()] == [("0", 8)]
    for spec, words in (
        ("my_nets:wrong", "must return"),
        ("my_nets:none", "cannot be made: AttributeError"),
        ("my_nets:fails", "ZeroDivision"),
    ):
        with pytest.raises(RequestError, match=words):
            load_model(spec, trust_code=True, preprocessing=PREPROCESSING)
    with pytest.raises(RequestError, match="must not be given"):
        load_model("mobilefacenet=random:0", preprocessing=PREPROCESSING)


NETS = """
import torch
from torch import nn

class Normed(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2, 1), norm

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3))

def batch():
    return Normed(nn.BatchNorm2d(4, track_running_stats=False))

def instance():
    return Normed(nn.InstanceNorm2d(4))

def diverged():
    network = Normed(nn.BatchNorm2d(4))
    network.norm.running_var[2] = torch.inf
    return network

def broken():
    network = Normed(nn.BatchNorm2d(4))
    nn.init.constant_(network.conv.bias, torch.nan)
    return network

def grid():
    return nn.Conv2d(3, 4, 3)

def picky():
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 4))
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("batch", r"norm \(BatchNorm2d\) must have running statistics, without which images of a batch"),
        ("diverged", "norm.running_var that are not finite"),
        ("broken", "conv.bias that are not finite"),
        ("grid", r"model grid must return embeddings of shape \(N, D\).*got float32 \(1, 4, 14, 14\)"),
        ("picky", "does not take images of 16 pixels: .*mat1 and mat2"),
    ],
)
def test_networks_that_cannot_be_explained_are_refused(tmp_path, monkeypatch, name, words):
    (tmp_path / "refused_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=words):
        load_model(f"refused_nets:{name}", trust_code=True, preprocessing=PREPROCESSING)
    instance = load_model("refused_nets:instance", trust_code=True, preprocessing=PREPROCESSING)
    assert [layer.name for layer in instance.taps()] == ["conv", "norm"]  # it norms every image by itself


def test_the_public_mobilefacenet_weights(shared_data):
    """Embeddings of a fixed pattern, pinned; a swapped channel or another mean changes them."""
    model = load_model(f"mobilefacenet={shared_data / 'mobilefacenet.pt'}")
    ramp = torch.arange(112 * 112 * 3).view(1, 112, 112, 3).remainder(251).to(torch.uint8)
    embedding = model.embed(model.preprocess(ramp))[0]
    pinned = torch.tensor(PINNED)
    assert torch.allclose(embedding[:8], pinned, atol=2e-4), embedding[:8].tolist()


PINNED = [-0.075829, -1.139117, 0.082536, -0.837938, 0.756240, 1.260949, 0.7929, 1.0808]
