"""Which backend is chosen, what it keeps, and what it gives at the edges."""

import copy

import pytest
import torch
from torch import nn

from leamfast import LEAM, FaceModel, RequestError, load_model
from leamfast.leam import backends, program_cache
from leamfast.leam.backends import available, build_program, choose_backend
from leamfast.leam.references import leave_one_out
from leamfast.leam.taps import select_taps
from tests.leam.conftest import face_model

TAPS = ("conv1", "layer2.0.conv1", "layer4.0.conv2")


@pytest.fixture(scope="module")
def demo() -> FaceModel:
    return load_model("demo")


@pytest.fixture(scope="module")
def recorded(demo, tmp_path_factory):
    """The demo model by TorchScript; and the folder of the cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield LEAM(demo, TAPS, backend="torchscript"), folder / "leamfast" / "programs"


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.allclose(
        found, wanted, rtol=1e-2, atol=1e-3 * float(wanted.nan_to_num().max()), equal_nan=True
    )


def test_auto_follows_from_the_amount_of_work_alone(demo, monkeypatch):
    monkeypatch.setattr(backends, "has_compiler", lambda: True)
    assert choose_backend(demo, 30, 2) == ("eager",)
    assert choose_backend(demo, 10**7, 2)[0] == "inductor"
    assert choose_backend(demo, 10**7, 2)[-1] == "eager"
    large = load_model("iresnet100=random:0")
    few = next(n for n in range(1, 10**6, 50) if choose_backend(demo, n, 2) != ("eager",))
    assert choose_backend(large, few, 2) != ("eager",)
    assert choose_backend(demo, few, 64) == ("eager",)


def test_without_a_compiler_inductor_is_not_chosen_and_says_so(demo, monkeypatch):
    monkeypatch.setattr(backends, "has_compiler", lambda: False)
    assert "inductor" not in choose_backend(demo, 10**7, 2)
    assert "C++ compiler" in available("cpu")["inductor"]
    with pytest.raises(RequestError, match="backend inductor is not to be had here, as there is no C"):
        LEAM(demo, backend="inductor")


def test_batches_of_every_size_and_references_of_every_shape(demo, recorded):
    eager, (leam, _) = LEAM(demo, TAPS), recorded
    for count in (1, 2, 7):
        images = torch.randn(count, 3, 112, 112)
        for shape in ((count, 128), (count, 1, 128), (count, 3, 128)):
            references = torch.randn(shape)
            if len(shape) == 3 and shape[1] == 3:
                references[0, 1] = torch.nan
            found, wanted = leam(images, references), eager(images, references)
            torch.testing.assert_close(found.embeddings, wanted.embeddings, rtol=1e-4, atol=1e-5)
            for name, maps in wanted.maps.items():
                assert found.maps[name].shape == maps.shape
                assert close(found.maps[name], maps), (count, shape, name)
                assert not maps.isnan().all()


@pytest.mark.parametrize("layout", ["not contiguous", "channels last", "uint8"])
def test_inputs_of_any_layout(demo, recorded, layout):
    images, references = torch.randn(3, 3, 112, 112), torch.randn(3, 128)
    if layout == "uint8":
        crops = torch.randint(0, 256, (3, 224, 224, 3), dtype=torch.uint8)[:, ::2, ::2]
        images = demo.preprocess(crops)
        torch.testing.assert_close(images, demo.preprocess(crops.contiguous().numpy()))
        given = images
    elif layout == "channels last":
        given = images.contiguous(memory_format=torch.channels_last)
    else:
        given = torch.stack([images, images], dim=-1)[..., 1]
        assert not given.is_contiguous()
    for leam in (LEAM(demo, TAPS), recorded[0]):
        wanted = leam(images, references)
        for name, maps in leam(given, references).maps.items():
            assert close(maps, wanted.maps[name])


def test_an_image_that_is_not_finite_leaves_the_others_alone(demo, recorded):
    images = torch.randn(4, 3, 112, 112)
    weights = leave_one_out(torch.tensor([0, 0, 1, 1]))
    for leam in (LEAM(demo, TAPS), recorded[0]):
        wanted = leam.program(images, weights)
        broken = images.clone()
        broken[0] = torch.nan
        found = leam.program(broken, weights)
        for name, maps in found.maps.items():
            assert maps[:2].isnan().all()  # its own, and that of the one it is the reference of
            assert close(maps[2:], wanted.maps[name][2:])


class Constant(nn.Module):
    """An embedding without a direction."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, 2, 1)
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean(dim=(2, 3)) * self.value


@pytest.mark.parametrize(("value", "says"), [(0.0, "zero"), (float("nan"), "not finite")])
def test_embeddings_without_a_direction_are_one_sentence(demo, value, says):
    model = FaceModel("constant", "constant", Constant(value).eval(), demo.preprocessing, "")
    with pytest.raises(RequestError, match=rf"images\[0\] has an embedding that is {says}"):
        LEAM(model, ["conv"])(torch.randn(2, 3, 112, 112), torch.ones(2, 2))


class WithoutGradient(nn.Module):
    """A forward pass that forbids gradients itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        with torch.no_grad():
            return x.mean(dim=(2, 3))


@pytest.mark.parametrize("backend", ["eager", "torchscript"])
def test_a_forward_pass_that_forbids_gradients_is_one_sentence(demo, backend, program_cache):
    model = FaceModel("frozen", "frozen", WithoutGradient().eval(), demo.preprocessing, "")
    with pytest.raises(RequestError, match="the embedding of frozen has no gradient"):
        LEAM(model, ["conv"], backend=backend)(torch.randn(2, 3, 112, 112), torch.ones(2, 4))


@pytest.mark.parametrize("shape", [(2, 0, 128), (2, 127), (2, 3, 127), (3, 128), (128,), (2, 1, 1, 128)])
def test_references_of_the_wrong_shape_are_one_sentence(demo, shape):
    with pytest.raises(RequestError, match=r"^references must be embeddings of shape \(2, 128\)[^\n]*$"):
        LEAM(demo, TAPS)(torch.randn(2, 3, 112, 112), torch.ones(shape))


def test_infinite_references_and_wrong_weights_are_one_sentence(demo):
    leam, images = LEAM(demo, TAPS), torch.randn(2, 3, 112, 112)
    with pytest.raises(RequestError, match="references must be finite"):
        leam(images, torch.full((2, 128), torch.inf))
    with pytest.raises(RequestError, match=r"weights must have shape \(2, 2\) for 2 images, got \(2, 3\)"):
        leam.program(images, torch.ones(2, 3))


def test_a_program_is_not_recorded_again_where_its_file_is_known(demo, recorded, monkeypatch):
    leam, _ = recorded
    monkeypatch.setattr(backends, "record", lambda *arguments: pytest.fail("recorded again"))
    again = build_program(demo, leam.program.taps, backend="torchscript", kept=leam.program.kept)
    images, references = torch.randn(3, 3, 112, 112), torch.randn(3, 128)
    wanted = leam(images, references).maps
    for name, maps in again(images, references=references).maps.items():
        assert torch.equal(maps, wanted[name])


def test_what_was_compiled_is_kept_and_used_again(demo, recorded, monkeypatch):
    leam, folder = recorded
    kept = set(folder.iterdir())
    assert len(kept) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent.parent))
    monkeypatch.setattr(backends, "write_program", lambda *arguments: pytest.fail("compiled again"))
    again = LEAM(demo, TAPS, backend="torchscript")
    images, references = torch.randn(3, 3, 112, 112), torch.randn(3, 128)
    wanted = leam(images, references)
    assert all(torch.equal(m, wanted.maps[name]) for name, m in again(images, references).maps.items())


def test_other_weights_are_another_program(demo, recorded, monkeypatch):
    folder = recorded[1]
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent.parent))
    network = copy.deepcopy(demo.network)
    network.layer2[0].conv1.weight[0, 0, 0, 0] += 1
    other = FaceModel(demo.name, demo.architecture, network, demo.preprocessing, demo.weights)
    build_program(other, select_taps(other, TAPS), backend="torchscript")
    assert len(list(folder.iterdir())) == 2


def test_bfloat16_is_close_and_said_to_be(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images, references = torch.randn(3, 3, 112, 112), torch.randn(3, 128)
    wanted = LEAM(demo, TAPS)(images, references).maps
    for backend in ("eager", "torchscript"):
        found = LEAM(demo, TAPS, backend=backend, precision="bf16")(images, references)
        assert found.embeddings.dtype == torch.float32
        for name, maps in found.maps.items():
            assert maps.dtype == torch.float32
            assert 1e-5 < (maps - wanted[name]).norm() / wanted[name].norm() < 0.2


def test_tf32_needs_a_gpu(demo):
    with pytest.raises(RequestError, match="precision tf32 needs a CUDA device, got cpu: use fp32"):
        LEAM(demo, precision="tf32")


class Outputs(nn.Module):
    """A network that returns its embedding in some form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.fc = nn.Linear(4, 6)
        self.form = form

    def forward(self, x: torch.Tensor) -> object:
        embedding = self.fc(torch.relu(self.conv(x)).mean(dim=(2, 3)))
        match self.form:
            case "tuple":
                return nn.functional.normalize(embedding), embedding.norm(dim=1, keepdim=True)
            case "dict":
                return {"logits": embedding.sum(), "embedding": embedding}
            case "normalised":
                return nn.functional.normalize(embedding)
        return embedding


@pytest.mark.parametrize("form", ["tuple", "dict", "normalised"])
@pytest.mark.parametrize("backend", ["eager", "torchscript"])
def test_outputs_of_any_form(demo, form, backend, program_cache):
    torch.manual_seed(0)
    plain = Outputs("plain").eval().requires_grad_(False)
    formed = Outputs(form).eval().requires_grad_(False)
    formed.load_state_dict(plain.state_dict())
    images, references = torch.randn(3, 3, 112, 112), torch.randn(3, 6)
    maps = [
        LEAM(FaceModel("m", "m", network, demo.preprocessing, ""), ["conv"], backend=by)(images, references)
        for network, by in ((plain, "eager"), (formed, backend))
    ]
    assert maps[0].maps["conv"].max() > 0
    torch.testing.assert_close(maps[1].maps["conv"], maps[0].maps["conv"], rtol=1e-3, atol=1e-7)


def test_a_cached_program_that_is_damaged_is_made_again(demo, recorded, monkeypatch):
    folder = recorded[1]
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent.parent))
    (folder / ".0123.pt-left-by-a-killed-process").mkdir()
    monkeypatch.setattr(program_cache, "KEPT", 1)
    for path in folder.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    images, references = torch.randn(2, 3, 112, 112), torch.randn(2, 128)
    wanted = recorded[0](images, references)
    again = LEAM(demo, TAPS, backend="torchscript")(images, references)
    assert all(torch.equal(maps, wanted.maps[name]) for name, maps in again.maps.items())
    assert len(list(folder.glob("[0-9a-f]*.pt"))) == 1


def test_a_cache_that_cannot_be_written_is_one_sentence(demo, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(RequestError, match=r"^compiled programs cannot be kept in .*use backend eager$"):
        LEAM(demo, TAPS, backend="torchscript")


class Sequences(nn.Module):
    """A one-dimensional convolution, a normalised output and sizes that follow the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, 4, 2)
        self.along = nn.Conv1d(4, 6, 3, 1, 1)
        self.bn = nn.BatchNorm1d(6)
        self.fc = nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.conv(x), self.conv(x.flip(3))])
        x = torch.relu(self.bn(self.along(both.flatten(2)))).mean(dim=2)
        return nn.functional.normalize(self.fc(x).unflatten(0, (2, -1)).sum(dim=0))


class Scaled(nn.Module):
    """Numbers of different size behind layers, which Inductor alone takes for one and the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 1, 1)
        self.second = nn.Conv2d(4, 4, 3, 1, 1)
        self.third = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.second(x) * 0.17)
        x = torch.relu(x + self.third(x) * 2)
        return self.fc(x.mean(dim=(2, 3))) / 3 - 0.5


def test_numbers_behind_layers(program_cache, compiler):
    torch.manual_seed(0)
    model = face_model(Scaled(), size=16)
    images, references = torch.randn(3, 3, 16, 16), torch.randn(3, 8)
    wanted = LEAM(model, ["first"])(images, references)
    found = LEAM(model, ["first"], backend="inductor")(images, references)
    torch.testing.assert_close(found.embeddings, wanted.embeddings, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.maps["first"], wanted.maps["first"], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("backend", ["torchscript", "inductor"])
def test_a_network_of_another_kind(backend, program_cache, request):
    if backend == "inductor":
        request.getfixturevalue("compiler")
    torch.manual_seed(0)
    model = face_model(Sequences(), size=16)
    images, references = torch.randn(3, 3, 16, 16), torch.randn(3, 8)
    wanted = LEAM(model, ["conv"])(images, references).maps
    assert list(wanted) == ["conv@1", "conv@2"]
    for name, maps in LEAM(model, ["conv"], backend=backend)(images, references).maps.items():
        torch.testing.assert_close(maps, wanted[name], rtol=1e-3, atol=1e-7)


def test_a_network_in_float64_stays_in_it(program_cache):
    torch.manual_seed(0)
    model = face_model(Sequences().double(), size=16)
    images, references = torch.randn(3, 3, 16, 16), torch.randn(3, 8)
    assert model.embed(images).dtype == torch.float64
    assert "eager" in choose_backend(model, 10, 1)
    wanted = LEAM(model, ["conv"])(images, references).maps
    for name, maps in LEAM(model, ["conv"], backend="torchscript")(images, references).maps.items():
        torch.testing.assert_close(maps, wanted[name], rtol=1e-9, atol=1e-14)
