"""Every backend on every kind of model: maps against float64 on calls 1, 2 and 5."""

import copy
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from leamfast import FaceModel, load_model
from leamfast.leam.backends import build_program, compile_program
from leamfast.leam.program import Program
from leamfast.leam.taps import select_taps
from leamfast.models.iresnet import IResNet

TAPS = ("conv1", "layer1.0.prelu", "layer2.0.conv1", "layer3.0", "layer4.0.conv2")
CALLS = (1, 2, 5)
SIZE = 32
GIVEN = dict(size=SIZE, channels="rgb", mean=(127.5,) * 3, std=(127.5,) * 3)
SOURCES = ("module", "traced", "scripted", "exported")
BACKENDS = ("eager", "torchscript", "inductor")

ran: set[tuple[str, str]] = set()


class Small(IResNet):
    """A network with BatchNorm statistics that are not at their start values."""

    def __init__(self) -> None:
        super().__init__((1, 1, 1, 1), (4, 6, 8, 8), 16, SIZE)
        generator = torch.Generator().manual_seed(0)
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim == 1:
                low, high = (0.5, 1.5) if name.endswith(("var", "weight")) else (-0.3, 0.3)
                tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)


@pytest.fixture(scope="module")
def network() -> IResNet:
    return Small().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def models(network, tmp_path_factory) -> dict[str, FaceModel]:
    """The same network as a Python module and as what a user may have saved of it."""
    folder = tmp_path_factory.mktemp("archives")
    images = torch.zeros(2, 3, SIZE, SIZE)
    with pytest.warns(Warning, match="deprecated"):
        torch.jit.trace(network, images).save(folder / "traced.pt")
    with pytest.warns(Warning, match="deprecated"):
        torch.jit.script(network).save(folder / "scripted.pt")
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    torch.export.save(
        torch.export.export(network, (images,), dynamic_shapes=(batch,)), folder / "exported.pt2"
    )
    models = {
        name: load_model(str(folder / f"{name}.{'pt2' if name == 'exported' else 'pt'}"), preprocessing=GIVEN)
        for name in SOURCES[1:]
    }
    reference = models["traced"]
    return models | {"module": FaceModel("module", "small", network, reference.preprocessing, "")}


def exact(network: nn.Module, images: torch.Tensor, references: torch.Tensor) -> dict[str, torch.Tensor]:
    """Float64, hooks that clone, the whole graph: none of the program's short cuts."""
    network = copy.deepcopy(network).double()
    acts: dict[str, torch.Tensor] = {}
    for name in TAPS:

        def keep(module, args, output, name=name):
            acts[name] = output
            return output.clone()

        network.get_submodule(name).register_forward_hook(keep)
    embeddings = network(images.double().requires_grad_())
    cosines = nn.functional.cosine_similarity(embeddings, references.double())
    grads = torch.autograd.grad((1 - cosines).sum(), [acts[name] for name in TAPS])
    return {
        name: (grad.clamp_min(0) * acts[name]).sum(1).clamp_min(0).detach()
        for name, grad in zip(TAPS, grads, strict=True)
    }


def check_calls(program: Program, network: nn.Module) -> None:
    """Batches of changing size, one image among them."""
    generator = torch.Generator().manual_seed(1)
    for call, count in zip(range(1, 6), (3, 1, 4, 2, 5), strict=True):
        images = torch.randn(count, 3, SIZE, SIZE, generator=generator)
        references = torch.randn(count, 16, generator=generator)
        output = program(images, references=references)
        if call not in CALLS:
            continue
        for name, wanted in exact(network, images, references).items():
            found = output.maps[name]
            assert found.shape == wanted.shape
            assert wanted.norm() > 0
            # Rounding moves single activations across the kink of a PReLU, in shallow layers mostly.
            tolerance = 1e-5 if name == TAPS[-1] else 3e-3
            assert (found - wanted).norm() / wanted.norm() < tolerance, (call, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_backend_on_every_kind_of_model(models, network, source, backend, program_cache, request):
    if backend == "inductor":
        request.getfixturevalue("compiler")
    model = models[source]
    program = build_program(model, select_taps(model, TAPS), backend=backend)
    assert type(program.passes).__name__ == ("EagerPasses" if backend == "eager" else "RecordedPasses")
    check_calls(program, network)
    ran.add((source, backend))


@pytest.mark.parametrize(("backend", "suffix"), [("torchscript", "pt"), ("inductor", "pt2")])
def test_compiled_programs(models, network, tmp_path, backend, suffix, request):
    if backend == "inductor":
        request.getfixturevalue("compiler")
    model, path = models["module"], tmp_path / f"program.{suffix}"
    compile_program(model, select_taps(model, TAPS), path, backend=backend)
    loaded = load_model(str(path), trust_code=True)
    program = build_program(loaded, select_taps(loaded, "auto"), backend="auto")
    check_calls(program, network)
    images = torch.randn(1, 3, SIZE, SIZE)
    torch.testing.assert_close(loaded.embed(images), model.embed(images), rtol=1e-4, atol=1e-5)
    ran.add(("compiled", backend))


@pytest.mark.skipif(
    not os.environ.get("CI"), reason="continuous integration asserts that all combinations ran"
)
def test_all_combinations_ran():
    wanted = {(source, backend) for source in SOURCES for backend in BACKENDS}
    assert ran == wanted | {("compiled", "torchscript"), ("compiled", "inductor")}


def test_the_matrix_of_the_documentation_is_what_is_tested():
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()
    for backend in BACKENDS:
        assert f"| `{backend}` |" in page
