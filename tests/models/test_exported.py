"""torch.export archives against the models that they were made from, and hostile ones."""

import copy
import io
import json
import logging
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leamfast.errors import RequestError
from leamfast.models.archives import load_archive
from leamfast.models.exported import load_exported
from leamfast.models.layers import list_layers

CONFIG = "data/{0}/model_{0}_config.json"


def example(count: int = 2, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """One convolution, something of interest, one linear layer."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = inner or nn.ReLU()
        self.fc = nn.Linear(4, 5)
        self.shift = torch.linspace(0, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.conv(x))
        return self.fc(x.mean((2, 3)) + self.shift)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, save_export) -> Path:
    """A good archive. Not to be changed."""
    return save_export(Plain().eval(), tmp_path_factory.mktemp("good") / "model.pt2", example())


def rewritten(good: Path, to: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive whose members, by their names below its root, are changed."""
    with zipfile.ZipFile(good) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"model/{name}", content)
    return to


def edit_json(members: dict[str, bytes], name: str, edit: Callable[[dict], object]) -> None:
    content = json.loads(members[name])
    edit(content)
    members[name] = json.dumps(content).encode()


def program_of(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        return json.loads(archive.read(name))


@pytest.mark.parametrize("kind", ["", "strict", "decomposed"])
@pytest.mark.parametrize("name", ["iresnet", "mixed", "mobilefacenet"])
def test_gradients_equal_those_of_the_python_model(networks, name, kind, tmp_path, save_export, assert_same):
    network, taps, size = networks[name]
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    options = {kind: True} if kind else {}
    found = load_exported(save_export(network, tmp_path / "model.pt2", images, **options))
    gone = {key for key, _ in network.named_modules()} - {key for key, _ in found.named_modules()}
    assert gone <= {"drop", "dropout"}  # which decompositions remove
    assert not any(module.training for module in found.modules())
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert_same(found, network, taps, size)


def test_layers_are_listed_as_those_of_the_python_model(networks, tmp_path, save_export):
    network, _, size = networks["mixed"]
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    found = load_exported(save_export(network, tmp_path / "model.pt2", images))
    assert list_layers(found, images[:1]) == list_layers(network, images[:1])
    assert {"twice@1", "twice@2"} <= {layer.name for layer in list_layers(found, images[:1])}


def test_a_copy_and_another_precision_are_of_their_own(networks, tmp_path, save_export):
    network, _, size = networks["mixed"]
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    found = load_exported(save_export(network, tmp_path / "model.pt2", images))
    other = copy.deepcopy(found).float()
    torch.testing.assert_close(other(images.float()).double(), network(images), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.testing.assert_close(found(images), network(images))


class Scoped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = torch.sigmoid(x) * x.size(0)
        with torch.autocast("cuda", enabled=False):
            return self.conv(x * weight)


def test_scopes(tmp_path, save_export, gradients):
    network = Plain(Scoped()).double().eval()
    network.shift = network.shift.double()
    found = load_exported(save_export(network, tmp_path / "model.pt2", example().double()))
    targets = [
        node["target"] for node in program_of(tmp_path / "model.pt2")["graph_module"]["graph"]["nodes"]
    ]
    assert {target.rpartition("_with_")[2] for target in targets if "higher_order" in target} == {
        "set_grad_enabled",
        "autocast",
    }
    taps = ("conv", "inner.conv", "inner")
    for count in (2, 1, 5):
        images = example(count).double()
        torch.testing.assert_close(gradients(found, images, taps), gradients(network, images, taps))
    assert torch.is_grad_enabled()


def test_autocast_is_applied_on_its_device(tmp_path, save_export):
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.conv(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.inner = Halved()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.first(x)).float().mean((2, 3))

    network = Outer().eval()
    found = load_exported(save_export(network, tmp_path / "model.pt2", example()))
    seen = []
    found.inner.conv.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    torch.testing.assert_close(found(example()), network(example()), rtol=0, atol=0)
    assert seen == [torch.bfloat16]


class Shared(nn.Module):
    """One activation in two places, lists, and a module that is passed a number."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.PReLU(2)
        self.left = nn.Sequential(nn.Conv2d(2, 2, 1), act)
        self.right = nn.Sequential(nn.Conv2d(2, 2, 1), act)
        self.scaled = Scaled()

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        left, right = torch.split(torch.cat([self.left(left), self.right(right)], dim=1), 2, dim=1)
        return torch.cat([self.scaled(left, x.shape[0] * x.shape[2]), right], dim=1)


class Scaled(nn.Module):
    def forward(self, x: Tensor, by: int) -> Tensor:
        return x / by


def test_what_modules_share_and_pass(tmp_path, save_export, gradients):
    network = Plain(Shared()).double().eval()
    network.shift = network.shift.double()
    found = load_exported(save_export(network, tmp_path / "model.pt2", example().double()))
    taps = ("conv", "inner.left.0", "inner.left", "inner.right", "inner.scaled", "inner")
    for count in (2, 1, 5):
        images = example(count).double()
        torch.testing.assert_close(gradients(found, images, taps), gradients(network, images, taps))


def test_kinds_of_several_results(tmp_path, save_export):
    class Pair(Plain):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = super().forward(x)
            return F.normalize(x), x.norm(dim=1, keepdim=True)

    class Single(Plain):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (super().forward(x),)

    for kind in (Pair, Single):
        network = kind().eval()
        found = load_exported(save_export(network, tmp_path / "model.pt2", example()))
        torch.testing.assert_close(found(example(3)), network(example(3)))
        assert type(found(example())) is tuple


def test_an_archive_from_another_device(plain, tmp_path):
    def on_a_gpu(members: dict[str, bytes]) -> None:
        for name in ("models/model.json", CONFIG.format("weights"), CONFIG.format("constants")):
            members[name] = members[name].replace(b'"type": "cpu"', b'"type": "cuda"')
            assert b'"cuda"' in members[name]

    found = load_exported(rewritten(plain, tmp_path / "cuda.pt2", on_a_gpu))
    torch.testing.assert_close(found(example(3)), load_exported(plain)(example(3)))
    assert all(tensor.device.type == "cpu" for tensor in found.state_dict().values())


def test_devices_in_the_graph_are_the_network_s_own(tmp_path, save_export):
    class Made(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(x.size(0), 1, 1, 1, device=x.device)

    found = load_exported(save_export(Plain(Made()).eval(), tmp_path / "model.pt2", example()))
    assert found.to("meta")(example().to("meta")).device.type == "meta"


def test_the_number_of_images(tmp_path, save_export, quiet):
    network = Plain().eval()
    with quiet():
        torch.export.save(torch.export.export(network, (example(),)), tmp_path / "static.pt2")
    with pytest.raises(RequestError, match="takes exactly 2 images: export it with a dynamic batch"):
        load_exported(tmp_path / "static.pt2")
    found = load_exported(save_export(network, tmp_path / "few.pt2", example(), min=1, max=4))
    assert found(example(4)).shape == (4, 5)
    with pytest.raises(RequestError, match="exported for 1 to 4 images at a time, got 5"):
        found(example(5))
    found = load_exported(save_export(network, tmp_path / "many.pt2", example(4), min=3))
    with pytest.raises(RequestError, match="exported for 3 to any number of images at a time, got 2"):
        found(example(2))


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (nn.BatchNorm2d(4), "training mode"),
        (nn.Dropout(0.5), "training mode|uses torch.ops.aten.bernoulli"),
        (nn.BatchNorm2d(4, track_running_stats=False), "training mode|no running statistics"),
    ],
)
def test_training_mode(inner, says, decomposed, tmp_path, save_export):
    path = save_export(Plain(inner).train(), tmp_path / "model.pt2", example(), decomposed=decomposed)
    with pytest.raises(RequestError, match=says):
        load_exported(path)(example())


def test_what_is_not_known_is_named(plain, tmp_path):
    def edited(edit: Callable[[dict], object]) -> Path:
        return rewritten(
            plain,
            tmp_path / "model.pt2",
            lambda members: edit_json(members, "models/model.json", edit),
        )

    def target(name: str) -> Callable[[dict], object]:
        return lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=name)

    for name in ("torch.ops.higher_order.cond", "torch.os.system", "torch.ops.aten.from_file.default"):
        with pytest.raises(RequestError, match=f"uses {name}, which is not known here"):
            load_exported(edited(target(name)))
    with pytest.raises(RequestError, match=r"format 9 .* where 8 is read"):
        load_exported(edited(lambda program: program["schema_version"].update(major=9)))
    with pytest.raises(RequestError, match="the program takes 2 tensors"):
        load_exported(
            edited(
                lambda program: program["graph_module"]["signature"]["input_specs"].append(
                    {"user_input": {"arg": {"as_tensor": {"name": "more"}}}}
                )
            )
        )


def old_layout(good: Path, to: Path, **replaced: bytes) -> Path:
    """As torch 2.7 wrote archives."""
    from torch._export.serde.serialize import serialize

    artifact = serialize(torch.export.load(good))
    contents = {
        "serialized_exported_program.json": artifact.exported_program,
        "serialized_state_dict.pt": artifact.state_dict,
        "serialized_constants.pt": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
        "version": b"8.0",
    }
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, replaced.get(name.partition(".")[0], content))
    return to


def test_older_archives(plain, tmp_path, quiet):
    with quiet():
        path = old_layout(plain, tmp_path / "old.pt2")
    wanted = load_exported(plain)(example(3))
    torch.testing.assert_close(load_exported(path)(example(3)), wanted)

    def pickled(members: dict[str, bytes]) -> None:
        for kind in ("weights", "constants"):
            with zipfile.ZipFile(path) as archive:
                old = {"weights": "serialized_state_dict.pt", "constants": "serialized_constants.pt"}[kind]
                members[f"data/{kind}/model.pt"] = archive.read(old)
            del members[CONFIG.format(kind)]

    later = rewritten(plain, tmp_path / "later.pt2", pickled)
    torch.testing.assert_close(load_exported(later)(example(3)), wanted)


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def saved(payload: object) -> bytes:
    content = io.BytesIO()
    torch.save(payload, content)
    return content.getvalue()


def payload_as(kind: str, record: str | None, content: Callable[[object], bytes]) -> Callable:
    """Puts a payload where weights or constants are read by unpickling."""

    def change(members: dict[str, bytes], witness: Path) -> None:
        if record is None:
            members[f"data/{kind}/model.pt"] = content(Payload(witness))
            return
        config = {"path_name": record, "is_param": False, "use_pickle": True, "tensor_meta": None}
        edit_json(members, CONFIG.format(kind), lambda found: found["config"].update(payload=config))
        members[f"data/{kind}/{record}"] = content(Payload(witness))

    return change


def sample_inputs(members: dict[str, bytes], witness: Path) -> None:
    members["data/sample_inputs/model.pt"] = saved(Payload(witness))


def expression(members: dict[str, bytes], witness: Path) -> None:
    """Sizes are text that torch evaluates."""

    def edit(program: dict) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        for value in values.values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('pathlib').Path({str(witness)!r}).touch()"

    edit_json(members, "models/model.json", edit)


HOSTILE = {
    "sample inputs": sample_inputs,
    "weights": payload_as("weights", None, saved),
    "a weight": payload_as("weights", "weight_99", saved),
    "constants": payload_as("constants", None, saved),
    "a constant": payload_as("constants", "tensor_99", saved),
    "an object": payload_as("constants", "opaque_obj_0", pickle.dumps),
    "a size": expression,
}


@pytest.mark.parametrize("where", HOSTILE)
def test_nothing_of_a_hostile_archive_runs(plain, where, tmp_path, quiet):
    witness = tmp_path / "executed"
    path = rewritten(plain, tmp_path / "hostile.pt2", lambda members: HOSTILE[where](members, witness))
    if where == "a size":  # it is text, and nobody evaluates it
        assert load_archive(path, 8)[0](example(3)).shape == (3, 5)
    else:
        with pytest.raises(RequestError, match=r"^archive [^\n]*hostile.pt2: [^\n]* could run code[^\n]*$"):
            load_archive(path, 8)
    assert not witness.exists()
    logging.disable(logging.WARNING)
    with quiet(), suppress(Exception):  # the control; what comes of it plays no part
        torch.export.load(path)
    logging.disable(logging.NOTSET)
    assert witness.exists()


@pytest.mark.parametrize(
    "name", ["serialized_state_dict", "serialized_constants", "serialized_example_inputs"]
)
def test_nothing_of_a_hostile_older_archive_runs(plain, name, tmp_path, quiet):
    witness = tmp_path / "executed"
    with quiet():
        path = old_layout(plain, tmp_path / "old.pt2", **{name: saved(Payload(witness))})
    with pytest.raises(RequestError, match="could run code"):
        load_archive(path, 8)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("data/aotinductor/model/wrapper.so", "compiled package .*, which is code"),
        ("data/constants/custom_obj_0", "objects that are no tensors"),
        ("extra/hidden.so", "compiled package .*, which is code"),
    ],
)
def test_code_and_objects_are_refused(plain, member, says, tmp_path):
    path = rewritten(plain, tmp_path / "model.pt2", lambda members: members.update({member: b"?"}))
    with pytest.raises(RequestError, match=says):
        load_archive(path, 8)


@pytest.mark.parametrize("field", ["sizes", "strides", "storage_offset"])
def test_a_tensor_that_does_not_fit_its_bytes(plain, field, tmp_path):
    def edit(config: dict) -> None:
        meta = config["config"]["conv.weight"]["tensor_meta"]
        meta[field] = {"as_int": 10**9} if field == "storage_offset" else [{"as_int": 10**9}] * 4

    path = rewritten(
        plain, tmp_path / "model.pt2", lambda members: edit_json(members, CONFIG.format("weights"), edit)
    )
    with pytest.raises(RequestError, match="is damaged or of a kind not known here"):
        load_archive(path, 8)
