"""Checkpoints of Lightning: classes of the training framework stand beside the tensors."""

import argparse
import sys
from types import ModuleType

import pytest
import torch

from leamfast import RequestError, load_model
from leamfast.models.weights import read_state_dict
from leamfast.models.zoo import ZOO, build

PACKAGE = "pytorch_lightning"
CALLBACKS = "pytorch_lightning.callbacks.model_checkpoint"
PARSING = "pytorch_lightning.utilities.parsing"


class ModelCheckpoint:
    def __init__(self):
        self.best = torch.ones(1)


class AttributeDict(dict):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.note = "kept beside"


def run(command):
    print(command)


class Command:
    """Pickled, it is a call of a function of the framework."""

    def __reduce__(self):
        return sys.modules[PARSING].run, ("code ran",)


class Print:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.fixture
def lightning(monkeypatch):
    """The framework, as far as pickling looks at it."""
    for module, members in ((PACKAGE, []), (CALLBACKS, [ModelCheckpoint]), (PARSING, [AttributeDict, run])):
        made = ModuleType(module)
        for member in members:
            monkeypatch.setattr(member, "__module__", module)
            setattr(made, member.__name__, member)
        monkeypatch.setitem(sys.modules, module, made)
    return monkeypatch


@pytest.fixture(scope="module")
def state():
    return dict(build(ZOO["mobilefacenet"], seed=5).state_dict())


def content(state, **beside):
    named = {f"model.{key}": value for key, value in state.items()}
    return {
        "epoch": 25,
        "state_dict": {**named, "head.kernel": torch.zeros(128, 9)},
        "callbacks": {ModelCheckpoint: {"best": torch.ones(1)}},
        "hyper_parameters": AttributeDict(rate=0.1, milestones=[8, 12]),
        "arguments": argparse.Namespace(arch="ir_18"),
        "checkpoint": ModelCheckpoint(),
        **beside,
    }


def test_a_checkpoint_loads_without_the_framework(tmp_path, lightning, state):
    path = tmp_path / "adaface.ckpt"
    torch.save(content(state), path)
    lightning.undo()
    before = set(torch.serialization.get_safe_globals())
    assert CALLBACKS not in sys.modules
    found = read_state_dict(path)
    assert set(found) == set(state)  # without `model.`, and without the classifier
    network = load_model(f"mobilefacenet={path}").network
    assert torch.equal(network.conv3.weight, state["conv3.weight"])
    assert set(torch.serialization.get_safe_globals()) == before  # nothing stays allowed


def test_functions_of_the_framework_are_not_called(tmp_path, lightning, state, capsys):
    torch.save(content(state, extra=Command()), tmp_path / "c.ckpt")
    assert set(read_state_dict(tmp_path / "c.ckpt")) == set(state)
    assert "code ran" not in capsys.readouterr().out


def test_anything_else_beside_is_refused(tmp_path, lightning, state, capsys):
    torch.save(content(state, extra=Print()), tmp_path / "c.ckpt")
    with pytest.raises(RequestError, match="could run code"):
        read_state_dict(tmp_path / "c.ckpt")
    assert "code ran" not in capsys.readouterr().out


def test_a_head_alone_is_no_classifier(tmp_path):
    """Names are dropped only where a `model.` stands beside them."""
    torch.save({"head.weight": torch.ones(1)}, tmp_path / "w.pt")
    assert set(read_state_dict(tmp_path / "w.pt")) == {"head.weight"}
    torch.save({"head.weight": torch.ones(1), "body.weight": torch.ones(1)}, tmp_path / "w.pt")
    assert set(read_state_dict(tmp_path / "w.pt")) == {"head.weight", "body.weight"}
