"""Small networks, their gradients at taps, and archives of them."""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from leamfast.models.iresnet import IResNet
from leamfast.models.mobilefacenet import MobileFaceNet

Gradients = tuple[Tensor, dict[str, Tensor]]


class Mixed(nn.Module):
    """Whatever models do between their layers, with nothing that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 1)
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6(inplace=True))
            for _ in range(3)
        )
        self.split = Split()
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, 8)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("shift", torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = F.max_pool2d(x, 2) if x.shape[-1] % 2 == 0 else F.avg_pool2d(x, 3)
        x = self.twice(F.relu(self.twice(x)))
        for step in self.steps:
            x = step(x) + x
        x, mean = self.split(x)
        count, half = x.size(0), int(x.size(2) // 2)
        spread = x.view(count, -1).mean(1) * (x.size(2) * x.size(3)) / 2
        x = F.adaptive_avg_pool2d(x * self.scale, (2, 2))
        x = x.reshape(count, int(x.size(1) * x.size(2) * x.size(3)))
        x = F.normalize(self.fc(self.drop(x)))
        return x * spread[:, None] + half + (mean + self.shift.view(1, 4)).sum(1, keepdim=True)


class Split(nn.Module):
    """A module with two results."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * 2
        return x, x.mean((2, 3))


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64 and evaluation mode, its statistics not at their start values."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.double().state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            low, high = (0.5, 1.5) if name.endswith(("var", "weight")) else (-0.3, 0.3)
            tensor.uniform_(low, high, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def networks() -> dict[str, tuple[nn.Module, tuple[str, ...], int]]:
    """Name -> network in float64, taps, and the side of its images. Not to be changed."""
    torch.manual_seed(0)
    taps = ("conv1", "layer1.0.prelu", "layer2.0.conv2", "layer3.0", "layer4.0.bn3")
    mobile = ("conv1.0", "conv1.1", "dw_conv", "features.0.conv.1.1", "features.3", "conv2")
    return {
        "iresnet": (randomised(IResNet((1, 1, 1, 1), (4, 6, 8, 8), 16, 32)), taps, 32),
        "mobilefacenet": (randomised(MobileFaceNet()), mobile, 112),
        "mixed": (randomised(Mixed()), ("conv", "steps.0", "steps.1.0", "steps.1.1", "steps.2.2"), 16),
    }


@pytest.fixture(scope="session")
def quiet() -> Callable:
    """Without the warnings with which torch.jit and torch.export meet everybody."""

    @contextmanager
    def silenced():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    return silenced


@pytest.fixture(scope="session")
def gradients() -> Callable[..., Gradients]:
    """(network, images, taps) -> embeddings, and the gradient of 1 - cos at each tap."""

    def at_taps(network: nn.Module, images: Tensor, taps: tuple[str, ...]) -> Gradients:
        acts: dict[str, Tensor] = {}
        handles = []
        for name in taps:

            def capture(module, args, output, name=name):
                acts[name] = output if output.requires_grad else output.detach().requires_grad_()
                return acts[name].clone()

            handles.append(network.get_submodule(name).register_forward_hook(capture))
        embeddings = network(images)
        for handle in handles:
            handle.remove()
        towards = torch.linspace(-1, 1, embeddings.shape[1], dtype=images.dtype)
        loss = (1 - F.cosine_similarity(embeddings, towards[None])).sum()
        grads = torch.autograd.grad(loss, [acts[name] for name in taps])
        return embeddings.detach(), dict(zip(taps, grads, strict=True))

    return at_taps


@pytest.fixture(scope="session")
def assert_same(gradients) -> Callable:
    """(found, wanted, taps, size): the same embeddings and gradients on calls 1 to 5, recorded or not."""

    def images(count: int, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, 3, size, size, dtype=torch.float64, generator=generator)

    def equal(found: Gradients, wanted: Gradients) -> None:
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-10, atol=1e-12)
        for name, grad in wanted[1].items():
            assert grad.abs().max() > 0
            torch.testing.assert_close(found[1][name], grad, rtol=1e-10, atol=1e-12 * float(grad.abs().max()))

    def check(found: nn.Module, wanted: nn.Module, taps: tuple[str, ...], size: int) -> None:
        for count in (2, 1, 5, 2, 3) if size < 100 else (1, 2, 1, 1, 1):
            x = images(count, size)
            equal(gradients(found, x, taps), gradients(wanted, x, taps))
        if size >= 100:
            return  # the smaller networks hold all that this one does

        def flat(x: Tensor) -> tuple[Tensor, ...]:
            embeddings, grads = gradients(found, x, taps)
            return embeddings, *grads.values()

        # Five images, for sizes that are equal are taken for one.
        graph = make_fx(flat, tracing_mode="symbolic", _allow_non_fake_inputs=True)(images(5, size))
        for count in (2, 3):
            x = images(count, size)
            embeddings, *grads = graph(x)
            equal((embeddings, dict(zip(taps, grads, strict=True))), gradients(wanted, x, taps))

    return check


@pytest.fixture(scope="session")
def save_script(quiet) -> Callable:
    """(network, path, images): a TorchScript archive, traced where images are given, else scripted."""

    def save(network: nn.Module, path: Path, images: Tensor | None = None) -> Path:
        with quiet():
            script = torch.jit.script(network) if images is None else torch.jit.trace(network, images)
            torch.jit.save(script, str(path))
        return path

    return save


@pytest.fixture(scope="session")
def save_export(quiet) -> Callable:
    """(network, path, images, ...): an archive of torch.export with a dynamic number of images."""

    def save(
        network: nn.Module, path: Path, images: Tensor, *, decomposed=False, strict=False, **limits: int
    ) -> Path:
        with quiet():
            batch = {0: torch.export.Dim("batch", **limits)}
            program = torch.export.export(network, (images,), dynamic_shapes=(batch,), strict=strict)
            torch.export.save(program.run_decompositions() if decomposed else program, path)
        return path

    return save
