"""TorchScript archives against the models that they were made from."""

import copy
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leamfast.errors import RequestError
from leamfast.models.layers import list_layers
from leamfast.models.operators import Operator, find_operator
from leamfast.models.steps import Block, Frame, Step
from leamfast.models.torchscript import OpaqueModule, load_torchscript


def loaded(save, network: nn.Module, path: Path, images: Tensor | None = None):
    return load_torchscript(save(network, path / "model.pt", images))


def example(count: int = 2, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


class Wrapped(nn.Module):
    """A convolution, something of interest, and a linear layer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = inner
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.conv(x))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kind", ["traced", "scripted"])
@pytest.mark.parametrize("name", ["iresnet", "mobilefacenet", "mixed"])
def test_gradients_equal_those_of_the_python_model(networks, name, kind, tmp_path, save_script, assert_same):
    network, taps, size = networks[name]
    images = torch.randn(2, 3, size, size, dtype=torch.float64) if kind == "traced" else None
    found = loaded(save_script, network, tmp_path, images)
    assert [key for key, _ in found.named_modules()] == [key for key, _ in network.named_modules()]
    assert found.state_dict().keys() == network.state_dict().keys()
    assert found.opaque == {}
    assert not any(module.training for module in found.modules())
    assert_same(found, network, taps, size)


@pytest.mark.parametrize("kind", ["traced", "scripted"])
def test_layers_are_listed_as_those_of_the_python_model(networks, kind, tmp_path, save_script):
    network, _, size = networks["mixed"]
    images = torch.randn(1, 3, size, size, dtype=torch.float64)
    found = loaded(save_script, network, tmp_path, images if kind == "traced" else None)
    assert list_layers(found, images) == list_layers(network, images)
    assert {"twice@1", "twice@2"} <= {layer.name for layer in list_layers(found, images)}


def test_a_copy_and_another_precision_are_of_their_own(networks, tmp_path, save_script):
    network, _, size = networks["mixed"]
    found = loaded(save_script, network, tmp_path)
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    other = copy.deepcopy(found).float()
    torch.testing.assert_close(other(images.float()).double(), network(images), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.testing.assert_close(found(images), network(images))


def test_a_network_that_was_saved_while_it_trained(networks, tmp_path, save_script):
    network, _, size = networks["mixed"]
    found = loaded(save_script, copy.deepcopy(network).train(), tmp_path)
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(found(images), network(images), rtol=0, atol=0)


class Branching(nn.Module):
    """Decides by values, loops a number of times that depends on them, and returns early."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return x * 2
        times = int(x.abs().max()) + 1
        parts: list[Tensor] = []
        for i in range(times):
            parts.append(x + i)
        while len(parts) > 2:
            parts = parts[:-1]
        return torch.stack(parts).sum(0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_branches_on_values_are_taken_as_the_values_say(sign, tmp_path, save_script, gradients):
    network = Wrapped(Branching()).double().eval()
    found = loaded(save_script, network, tmp_path)
    with torch.no_grad():
        for parameter in (*network.conv.parameters(), *found.conv.parameters()):
            parameter.copy_(sign * parameter.abs())
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64) * 4
    wanted, found = (gradients(net, images, ("conv", "inner")) for net in (network, found))
    torch.testing.assert_close(found, wanted)


class Scoped(nn.Module):
    """What is computed without gradients, and a part that asks for another precision on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = torch.sigmoid(x)
        with torch.autocast("cuda", enabled=True):
            x = x * weight
        return x  # noqa: RET504


def test_scopes(tmp_path, save_script, gradients, quiet):
    network = Wrapped(Scoped()).double().eval()
    found = loaded(save_script, network, tmp_path)
    assert found.opaque == {}
    images = example().double()
    result = gradients(found, images, ("conv",))
    with quiet():  # Python's autocast warns where there is no GPU
        wanted = gradients(network, images, ("conv",))
    torch.testing.assert_close(result, wanted, rtol=0, atol=0)
    assert torch.is_grad_enabled()


def test_a_scope_is_left_after_an_error(tmp_path, save_script):
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.act(x)
            return x  # noqa: RET504

    found = loaded(save_script, Wrapped(Failing()).eval(), tmp_path)
    found.inner.act.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found(example())
    assert torch.is_grad_enabled()


class OnAnotherDevice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        device = torch.device("cuda:0")
        ones = torch.ones(1, device=device) + torch.zeros(x.size(0), 1, 1, 1, device="cuda")
        return x.to(device) * ones.cuda() if x.device.type == "cuda" else x.cpu() + ones.to(torch.float32)


def test_devices_in_the_graph_are_the_network_s_own(tmp_path, save_script):
    found = loaded(save_script, Wrapped(OnAnotherDevice()).eval(), tmp_path)
    assert found.opaque == {}
    images = example()
    wanted = found.fc((found.conv(images) + 1).mean((2, 3)))
    torch.testing.assert_close(found(images), wanted)
    on_meta = found.to("meta")(images.to("meta"))
    assert on_meta.device.type == "meta"


class Forked(nn.Module):
    """Uses what is not known here."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        future = torch.jit.fork(torch.relu, self.norm(self.deep(x)))
        return torch.jit.wait(future) * torch.tanh(x)


def test_what_is_not_known_is_run_whole_and_remembered(tmp_path, save_script, quiet, gradients):
    network = Wrapped(Forked()).double()
    for parameter in network.inner.norm.parameters():
        nn.init.uniform_(parameter)
    found = loaded(save_script, network.train(), tmp_path)
    network.eval()
    assert found.opaque == {"inner": "prim::fork"}
    assert isinstance(found.inner, OpaqueModule)
    assert found.inner.original_name == "Forked"
    assert "inner.deep" not in dict(found.named_modules())
    assert found.state_dict().keys() == network.state_dict().keys()
    taps = ("conv", "inner")
    for count in (2, 1, 5, 2, 3):
        images = example(count).double()
        result = gradients(found, images, taps)
        with quiet():  # torch.jit.fork of the Python model warns
            wanted = gradients(network, images, taps)
        torch.testing.assert_close(result, wanted, rtol=1e-10, atol=1e-14)
    single = copy.deepcopy(found).float()
    torch.testing.assert_close(single(images.float()), wanted[0].float())
    torch.testing.assert_close(found(images), wanted[0])


def test_no_layer_can_be_tapped_inside_the_outermost_module(tmp_path, save_script):
    with pytest.raises(RequestError, match="outermost module uses prim::fork, .* no layer can be tapped"):
        loaded(save_script, Forked().eval(), tmp_path)


@pytest.mark.parametrize("place", ["inside", "outermost"])
def test_hooks_in_the_archive(place, tmp_path, save_script):
    def hook(self, x: tuple[Tensor], output: Tensor) -> Tensor:
        return output + 1

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()
            self.act.register_forward_hook(hook)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x)

    network = Wrapped(Holder()).eval()
    if place == "outermost":
        network.register_forward_hook(hook)
        with pytest.raises(RequestError, match="hooks of its own"):
            loaded(save_script, network, tmp_path)
        return
    found = loaded(save_script, network, tmp_path)
    assert list(found.opaque) == ["inner"]
    torch.testing.assert_close(found(example()), network(example()))


def test_a_frozen_archive_has_no_layers(networks, tmp_path, quiet):
    network, _, _ = networks["iresnet"]
    with quiet():
        torch.jit.freeze(torch.jit.script(network)).save(tmp_path / "model.pt")
    with pytest.raises(RequestError, match="its layers' names are gone: .* before torch.jit.freeze"):
        load_torchscript(tmp_path / "model.pt")


@pytest.mark.parametrize("kind", ["traced", "scripted"])
@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (nn.BatchNorm2d(4, track_running_stats=False), "'inner' was saved in training mode|no running stat"),
        (nn.Dropout(0.5), "'inner' was saved in training mode .*dropout"),
        (nn.BatchNorm2d(4), "'inner' was saved in training mode .*batch_norm"),
    ],
)
def test_training_mode(inner, says, kind, tmp_path, quiet, save_script):
    network = Wrapped(inner).train()
    tracked = getattr(inner, "track_running_stats", True)
    if kind == "traced":
        with quiet():
            torch.jit.trace(network, example(), check_trace=False).save(tmp_path / "model.pt")
        found = load_torchscript(tmp_path / "model.pt")
    else:
        found = loaded(save_script, network, tmp_path)
        if tracked:  # it asks whether it trains, which it does not here
            torch.testing.assert_close(found(example()), network.eval()(example()))
            return
    with pytest.raises(RequestError, match=says):
        found(example())


def test_training_mode_inside_what_is_run_whole(tmp_path, quiet):
    class Frozen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.jit.wait(torch.jit.fork(torch.relu, x))
            return F.dropout(y, 0.5, True)

    with quiet():
        torch.jit.save(torch.jit.script(Wrapped(Frozen())), str(tmp_path / "model.pt"))
    with pytest.raises(RequestError, match="'inner' was saved in training mode"):
        load_torchscript(tmp_path / "model.pt")


def test_statistics_of_the_batch_under_other_names():
    x = torch.randn(4, 3, 2, 2)
    for name, arguments in {
        "aten::_native_batch_norm_legit.no_stats": (x, None, None, False, 0.1, 1e-5),
        "aten::batch_norm": (x, None, None, None, None, False, 0.1, 1e-5, False),
    }.items():
        op = find_operator(name)
        operator = Operator(op, [argument.name for argument in op._schema.arguments], "norm")
        with pytest.raises(RequestError, match="'norm' has no running statistics"):
            operator(arguments)


class Writer(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x


class Restored(nn.Module):
    """Runs code of its own when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.ones(1), state[0])

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_to(x: Tensor, path: str) -> Tensor:
    torch.save(x, path)
    return x


class WritesInAFork(nn.Module):
    """Writes in a graph that a node holds."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(save_to, x, self.path))


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (Writer, "reads or writes files .aten::save"),
        (WritesInAFork, "reads or writes files .aten::save"),
        (Restored, "runs code while it is loaded"),
    ],
)
def test_an_archive_writes_no_files(inner, says, tmp_path, save_script, quiet):
    witness = tmp_path / "written"
    path = save_script(Wrapped(inner(str(witness))).eval(), tmp_path / "model.pt")
    with pytest.raises(RequestError, match=says):
        load_torchscript(path)
    assert not witness.exists()
    with quiet():  # the control
        torch.jit.load(str(path))(example())
    assert witness.exists()


def test_operators_of_others_are_refused(tmp_path, save_script):
    import torchvision  # noqa: F401  brings operators, some of which read and write files

    class Reads(nn.Module):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ops.image.read_file(self.path).sum()

    path = save_script(Wrapped(Reads(__file__)).eval(), tmp_path / "model.pt")
    with pytest.raises(RequestError, match="operator image::read_file"):
        load_torchscript(path)


def test_what_a_model_says_of_its_input(tmp_path, save_script):
    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.size(2) == 8, f"eight pixels are needed, got {x.size(2)}"
            return x

    found = loaded(save_script, Wrapped(Strict()).eval(), tmp_path)
    assert found(example()).shape == (2, 5)
    with pytest.raises(RequestError, match="'inner' refuses its input: .*eight pixels are needed, got 9"):
        found(example(size=9))


def test_arguments_with_defaults(tmp_path, save_script):
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, x: Tensor, flip: bool = False, scale: float = 2.0) -> Tensor:
            return self.fc((x.flip(3) if flip else x).mean((2, 3))) * scale

    network = Optional().eval()
    found = loaded(save_script, network, tmp_path)
    torch.testing.assert_close(found(example()), network(example()))
    torch.testing.assert_close(found(example(), True, 3.0), network(example(), True, 3.0))


def test_the_source_is_not_needed(tmp_path, save_script):
    (tmp_path / "gone.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x).mean((2, 3))\n"
    )
    make = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch, gone; "
    make += f"torch.jit.script(gone.Net().eval()).save({str(tmp_path / 'model.pt')!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", make], check=True)
    (tmp_path / "gone.py").unlink()
    found = load_torchscript(tmp_path / "model.pt")
    assert [layer.name for layer in list_layers(found, example(1))] == ["conv"]
    assert list_layers(found, example(1))[0].kind == "Conv2d"


def test_values_are_forgotten_after_their_last_use():
    class Value:
        pass

    alive = {}

    def make(name):
        def run(values, frame):
            values[name] = Value()
            alive[name] = weakref.ref(values[name])

        return run

    def look(values, frame):
        values["seen"] = [name for name, value in alive.items() if value() is not None]

    steps = [
        Step(make("a"), (), ("a",)),
        Step(make("unused"), (), ("unused",)),
        Step(make("b"), ("a",), ("b",)),
        Step(look, ("b",), ("seen",)),
    ]
    block = Block((), steps, ("seen",))
    frame = Frame(None, torch.device("cpu"), None)
    assert block.run({}, frame) == [["b"]]
    assert Block(("x",), [Step(look, ("x", "y"), ("seen",))], ("seen", "z")).needs == ("y", "z")
