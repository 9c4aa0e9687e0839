"""Cell centres from the graph against centres measured by the gradient of single cells."""

import pytest
import torch
from torch import nn

from leamfast import FaceModel, RequestError, load_model
from leamfast.leam.registration import cell_centres, plain_centres
from leamfast.leam.taps import select_taps
from tests.leam.conftest import face_model


def measured(models: list[FaceModel], tap: str, cell: tuple[int, int]) -> tuple[float, float]:
    """Centroid of (d cell / d image)^2, averaged over images, channel weights and networks."""
    centres = torch.tensor([_measured(model, tap, cell) for model in models]).mean(0)
    return float(centres[0]), float(centres[1])


def _measured(model: FaceModel, tap: str, cell: tuple[int, int], seeds: int = 8) -> tuple[float, float]:
    size = model.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    outputs: list[torch.Tensor] = []
    handle = model.network.get_submodule(tap).register_forward_hook(lambda m, a, out: outputs.append(out))
    images = torch.randn(seeds, 3, size, size, generator=generator).requires_grad_()
    model.network(images)
    handle.remove()
    values = outputs[0][:, :, cell[0], cell[1]]
    weights = torch.randn(values.shape, generator=generator)
    (gradient,) = torch.autograd.grad((values * weights).sum(), images)
    energy = gradient.square().sum(dim=(0, 1))
    grid = torch.arange(size, dtype=energy.dtype)
    total = energy.sum()
    return float((energy.sum(1) * grid).sum() / total), float((energy.sum(0) * grid).sum() / total)


class InceptionStem(nn.Module):
    """The stem of InceptionResnetV1: convolutions without padding, a pooling, and branches that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2)
        self.conv2 = nn.Conv2d(8, 8, 3)
        self.conv3 = nn.Conv2d(8, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2)
        self.conv4 = nn.Conv2d(16, 16, 1)
        self.conv5 = nn.Conv2d(16, 16, 3, 2)
        self.wide = nn.Conv2d(16, 8, (1, 7), padding=(0, 3))
        self.left, self.right = nn.Conv2d(24, 8, 3, 2), nn.MaxPool2d(3, 2)
        self.last = nn.Conv2d(32, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        x = self.conv5(torch.relu(self.conv4(self.pool(torch.relu(x)))))
        x = torch.cat([x, self.wide(x)], 1)
        x = self.last(torch.cat([self.left(x), self.right(x)], 1))
        return self.fc(x.mean(dim=(2, 3)))


def stems(count: int) -> list[FaceModel]:
    """Networks with few channels: single random kernels are lopsided, their average is not."""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(face_model(InceptionStem(), size=160, seed=seed))
    return made


def test_by_hand():
    """3x3, stride 2, padding 1: cell i sits on pixel 2i; four such layers on pixel 16i."""
    model = load_model("AF_R18=random:0")
    taps = select_taps(model, "conv1,layer1.0.conv1,layer1.0.conv2,layer2.0.downsample.0,layer4.1.conv2")
    centres = cell_centres(model, taps)
    steps = {
        "conv1": 1,
        "layer1.0.conv1": 1,
        "layer1.0.conv2": 2,
        "layer2.0.downsample.0": 4,
        "layer4.1.conv2": 16,
    }
    assert centres == {name: ((0, step), (0, step)) for name, step in steps.items()}
    assert plain_centres(taps[-1], 112) == ((7.5, 16), (7.5, 16))


def test_stem_without_padding_by_hand():
    model = face_model(InceptionStem(), size=160)
    centres = cell_centres(model, select_taps(model, "conv1,conv2,conv3,pool,conv5,last"))
    wanted = {
        "conv1": (1, 2),
        "conv2": (3, 2),
        "conv3": (3, 2),
        "pool": (5, 4),
        "conv5": (9, 8),
        "last": (17, 16),
    }
    assert {name: rows for name, (rows, _) in centres.items()} == wanted
    assert all(rows == columns for rows, columns in centres.values())


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("AF_R18=random:0", "conv1,layer1.0.prelu,layer1.1,layer2.0.conv2,layer2.1,layer3.0.conv1"),
        ("AF_R50=random:0", "layer1.2,layer2.3.conv2,layer3.0.conv2"),
        (
            "mobilefacenet=random:0",
            "conv1.0,dw_conv.pointwise,features.2,features.5.conv.2,features.8.conv.2",
        ),
        ("stem", "conv1,conv3,pool,conv5,wide,last"),
    ],
)
def test_agrees_with_the_measured_centre_of_interior_cells(spec, layers):
    models = stems(12) if spec == "stem" else [load_model(spec)]
    model = models[0]
    taps = select_taps(model, layers)
    for tap in taps:
        (y, dy), (x, dx) = cell_centres(model, taps)[tap.name]
        cell = tap.height // 2, tap.width // 2
        found = measured(models, tap.name, cell)
        assert found[0] == pytest.approx(y + dy * cell[0], abs=0.5), tap.name
        assert found[1] == pytest.approx(x + dx * cell[1], abs=0.5), tap.name


def test_operations_that_are_not_known_are_named():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.embed(x).flatten(2).softmax(-1)
            return self.fc(self.mix(tokens.unflatten(2, (8, 8))).mean((2, 3)))

    model = face_model(Tokens())
    assert cell_centres(model, select_taps(model, "embed")) == {"embed": ((1.5, 4), (1.5, 4))}
    with pytest.raises(RequestError, match="'mix' .* cannot be registered: .*Backward"):
        cell_centres(model, select_taps(model, "mix"))


def test_gates_that_read_the_whole_grid_do_not_move_it():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate, self.last = (
                nn.Conv2d(3, 4, 3, 2, 1),
                nn.Conv2d(4, 4, 1),
                nn.Conv2d(4, 4, 3, 2, 1),
            )
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
            return self.fc(self.last(x).mean((2, 3)))

    model = face_model(Gated())
    assert cell_centres(model, select_taps(model, "last")) == {"last": ((0, 4), (0, 4))}
