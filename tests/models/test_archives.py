"""What a file is, and what is said of one that is no model."""

import hashlib
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leamfast.errors import RequestError
from leamfast.models.archives import archive_name, is_archive, load_archive


class Small(nn.Module):
    """Embeddings of eight-pixel images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 16, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))


@pytest.fixture(scope="module")
def archives(tmp_path_factory, save_script, save_export) -> dict[str, Path]:
    """The same model three times. Not to be changed."""
    folder, network, images = tmp_path_factory.mktemp("archives"), Small().eval(), torch.randn(2, 3, 8, 8)
    return {
        "traced": save_script(network, folder / "traced.pt", images),
        "scripted": save_script(network, folder / "scripted.pt"),
        "exported": save_export(network, folder / "exported.pt2", images),
    }


def refusal(path: Path, size: int = 8) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(RequestError) as caught:
        load_archive(path, size)
    text = str(caught.value)
    assert text.startswith(f"archive {path}")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/b.pt", True), ("b.pt2", True), ("AF_R18=b.pt", False), ("demo", False), ("b.pth", False)],
)
def test_what_names_an_archive(text, expected):
    assert is_archive(text) is expected


@pytest.mark.parametrize(
    ("file", "name"),
    [("r 100(v2).pt", "r_100_v2_"), ("a.b-c_d.pt2", "a.b-c_d"), ("../_x.pt", "x"), ("é.pt", "archive")],
)
def test_names_of_results(file, name):
    assert archive_name(Path(file)) == name


@pytest.mark.parametrize("kind", ["traced", "scripted", "exported"])
def test_each_kind_is_told_by_what_it_holds(archives, kind, tmp_path):
    other = tmp_path / "model.bin"
    other.write_bytes(archives[kind].read_bytes())
    network, sha256 = load_archive(other, 8)
    wanted, _ = load_archive(archives["scripted"], 8)
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(network(images), wanted(images))
    assert sha256 == hashlib.sha256(other.read_bytes()).hexdigest()
    assert {"conv", "bn", "fc"} == {name for name, _ in network.named_modules() if name}
    assert [network.get_submodule(name).original_name for name in ("conv", "bn", "fc")] == [
        "Conv2d",
        "BatchNorm2d",
        "Linear",
    ]
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_files_that_are_no_models(archives, tmp_path):
    assert "does not exist" in refusal(tmp_path / "absent.pt")
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    assert f"checkpoint of weights, which needs the network's name: NAME={tmp_path}" in refusal(
        tmp_path / "weights.pt"
    )
    (tmp_path / "text.pt2").write_text("no zip")
    assert "not a zip file" in refusal(tmp_path / "text.pt2")
    with zipfile.ZipFile(tmp_path / "photos.pt", "w") as file:
        file.writestr("a/photo.png", b"")
    assert "holds no model" in refusal(tmp_path / "photos.pt")


@pytest.mark.parametrize("kind", ["traced", "scripted", "exported"])
def test_damaged_files(archives, kind, tmp_path):
    content = archives[kind].read_bytes()
    path = tmp_path / archives[kind].name
    for length in (10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        assert "not a zip file, or only a part of one" in refusal(path)
    with zipfile.ZipFile(archives[kind]) as file:
        start = max(file.infolist(), key=lambda member: member.file_size).header_offset
    broken = bytearray(content)
    broken[start + 200] ^= 1
    path.write_bytes(broken)
    assert "damaged" in refusal(path)


def test_zip_files_made_to_do_harm(archives, tmp_path, recwarn):
    bomb = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/archive_format", b"pt2")
        file.writestr("model/data/weights/weight_0", bytes(100 << 20))
    assert "unpacks to" in refusal(bomb)
    twice = tmp_path / "twice.pt2"
    with zipfile.ZipFile(archives["exported"]) as good, zipfile.ZipFile(twice, "w") as file:
        for name in good.namelist():
            file.writestr(name, good.read(name))
        file.writestr(next(n for n in good.namelist() if n.endswith("model.json")).upper(), b"{}")
    assert "two members of the same name" in refusal(twice)


def test_images_that_do_not_fit(archives, tmp_path, save_script):
    for path in archives.values():
        assert "does not run forward and backward on 1 images of 10 pixels" in refusal(path, 10)

    class Baked(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).view(len(x), 64))

    baked = save_script(Baked().eval(), tmp_path / "baked.pt", torch.zeros(1, 3, 8, 8))
    assert "does not run forward and backward on 2 images of 8 pixels" in refusal(baked)

    class Folded(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).view(-1, 64)).sum(0, keepdim=True)

    folded = save_script(Folded().eval(), tmp_path / "folded.pt")
    assert "gives 1 embeddings for 2 images" in refusal(folded)

    class Maps(Small):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    assert "embeddings of shape (N, D)" in refusal(save_script(Maps().eval(), tmp_path / "maps.pt"))


def test_what_has_no_gradient(tmp_path, quiet):
    layer = nn.TransformerEncoderLayer(4, 2, batch_first=True)

    class Fast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 4, 4)
            self.attention = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(self.conv(x).flatten(2).transpose(1, 2)).mean(1)

    with quiet(), torch.no_grad():  # in which torch fuses the layer to one that has no derivative
        torch.jit.trace(Fast().eval(), torch.zeros(2, 3, 8, 8)).save(tmp_path / "fast.pt")
    assert "derivative" in refusal(tmp_path / "fast.pt")


def test_training_mode_is_said_of_the_file(tmp_path, save_export):
    path = save_export(Small().train(), tmp_path / "train.pt2", torch.randn(2, 3, 8, 8))
    assert "training mode" in refusal(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["scripted", "exported"])
def test_other_precisions_become_float32(dtype, kind, tmp_path, save_script, save_export):
    network = Small().eval().to(dtype)
    if kind == "scripted":
        path = save_script(network, tmp_path / "model.pt")
    else:
        path = save_export(network, tmp_path / "model.pt2", torch.zeros(2, 3, 8, 8, dtype=dtype))
    found, _ = load_archive(path, 8)
    images = torch.randn(2, 3, 8, 8)
    assert found(images).dtype == torch.float32
    torch.testing.assert_close(found(images), network.float()(images))


def test_mixed_precision_is_left_as_it_is(tmp_path, save_script):
    class Mixed(Small):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.bn(self.conv(x.double()).float()))
            return self.fc(x.flatten(1))

    network = Mixed().eval()
    network.conv.double()
    found, _ = load_archive(save_script(network, tmp_path / "model.pt"), 8)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(found(images), network(images), rtol=0, atol=0)
    assert found.conv.weight.dtype == torch.float64
