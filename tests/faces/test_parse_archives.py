"""Parsers that are networks, on stand-ins with the signature of FaRL and of BiSeNets."""

import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leamfast.datasets.decoding import read_image
from leamfast.errors import RequestError
from leamfast.faces import parse_farl
from leamfast.faces.alignment import FaceError
from leamfast.faces.parse import UNKNOWN, ParserSpec, parse_parser
from leamfast.faces.parse_names import CELEBAMASK_HQ, class_regions, read_names
from leamfast.faces.regions import REGIONS, region_index
from leamfast.faces.retinaface import RetinaFaceDetector
from leamfast.faces.selection import Detection, one_face

SIDES = {"rr": "lr", "rb": "lb", "re": "le"}
SWAPPED = np.arange(256)
for a, b in SIDES.items():
    SWAPPED[[region_index(a), region_index(b)]] = region_index(b), region_index(a)


class Template(nn.Module):
    """Always the same regions in the aligned crop, as FaRL gives them: two outputs."""

    def __init__(self, names: tuple[str, ...], size: int) -> None:
        super().__init__()
        of = names.index
        logits = torch.zeros(1, len(names), size, size)
        brow, eye, half = int(0.375 * size), int(0.625 * size), size // 2
        for name, rows, columns in (
            ("rb", slice(brow), slice(half)),
            ("lb", slice(brow), slice(half, size)),
            ("re", slice(brow, eye), slice(half)),
            ("le", slice(brow, eye), slice(half, size)),
            ("llip", slice(eye, size), slice(size)),
        ):
            logits[0, of(name), rows, columns] = 5.0
        self.register_buffer("logits", logits)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits.expand(images.shape[0], -1, -1, -1), images.mean()


class Colours(nn.Module):
    """The class that the red of a pixel names, 10 a class."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        classes = torch.arange(19, dtype=images.dtype, device=images.device).view(1, 19, 1, 1)
        return -(images[:, :1] * 25.5 - classes).square() - 1, images.mean()


class Alone(nn.Module):
    """The outputs of a BiSeNet: a network's logits first, at an eighth of its size."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        logits, other = self.net(images)
        return [nn.functional.avg_pool2d(logits, 8), other]


class Plain(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Writes(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        torch.save(images, "stolen.pt")
        return images, images


class Restores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.size = 3

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return self.size, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.size = state[0]
        self.training = state[1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


class BadValues(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images[:, :1].expand(-1, 19, -1, -1) * float("nan"), images


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def saved(network: nn.Module, name: str = "net.pt", **extra: str) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(network.eval()), str(tmp_path / name), _extra_files=extra)
        return tmp_path / name

    return saved


def face(left: float = 120, top: float = 90, scale: float = 1.0) -> Detection:
    points = np.array([[0, 0], [40, 0], [20, 22], [4, 45], [36, 45]], np.float32) * scale + (left, top)
    box = np.concatenate([points.min(axis=0) - 30, points.max(axis=0) + 30]).astype(np.float32)
    return Detection(box, points.astype(np.float32), 0.99)


def mirrored(found: Detection, width: int) -> Detection:
    points = found.points[[1, 0, 2, 4, 3]].copy()
    points[:, 0] = width - 1 - points[:, 0]
    box = found.box[[2, 1, 0, 3]].copy()
    box[[0, 2]] = width - 1 - box[[0, 2]]
    return Detection(box, points, found.score)


def at(labels: np.ndarray, point: np.ndarray) -> str:
    x, y = np.round(point).astype(int)
    return REGIONS[labels[y, x]]


def painted(height: int, width: int) -> np.ndarray:
    """Labels in squares of 12 pixels."""
    rows, columns = np.arange(height) // 12, np.arange(width) // 12
    return ((rows[:, None] * 5 + columns * 3) % 19).astype(np.uint8)


def photo_of(labels: np.ndarray) -> np.ndarray:
    return np.repeat((labels * 10)[..., None], 3, axis=2)


# Names


def test_names_are_mapped_not_counted() -> None:
    regions = class_regions(CELEBAMASK_HQ)
    assert sorted(regions) == list(range(19))
    of = dict(zip(CELEBAMASK_HQ, (REGIONS[i] for i in regions), strict=True))
    assert of["hair"] == "hair"
    assert of["skin"] == "face"
    assert (of["neck_l"], of["neck"], of["ear_r"], of["mouth"]) == ("neck_l", "neck", "earr", "imouth")
    # FaRL's own table from CelebAMask-HQ to facer's names: l_ is left in the picture, the person's right.
    pairs = "l_ear-rr r_ear-lr l_brow-rb r_brow-lb l_eye-re r_eye-le l_lip-llip u_lip-ulip cloth-cloth"
    assert pairs == " ".join(
        f"{pair.partition('-')[0]}-{of[pair.partition('-')[0]]}" for pair in pairs.split()
    )
    assert class_regions(REGIONS).tolist() == list(range(19))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (CELEBAMASK_HQ[:11], "must have 19 classes, got names of 11"),
        ((*CELEBAMASK_HQ[:18], "beard"), "a class 'beard', which is none of"),
        ((*CELEBAMASK_HQ[:18], "face"), "one class a region, got skin, face for face"),
    ],
)
def test_wrong_names_are_one_sentence(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        class_regions(names)


# FaRL through facer


def test_facers_classes_are_ours() -> None:
    facer = parse_farl._import_facer()
    assert tuple(facer.face_parsing.farl.pretrain_settings["celebm/448"]["label_names"]) == REGIONS


def test_labels_come_back_where_they_were(save: Callable) -> None:
    parser = parse_parser(f"farl={save(Colours())}").load()
    truth = painted(300, 320)
    labels = parser.parse(photo_of(truth), face(140, 120))
    assert (labels.dtype, labels.shape, parser.known) == (np.uint8, truth.shape, REGIONS)
    seen = labels != UNKNOWN
    inside = np.zeros_like(seen)
    inside[48:200, 84:236] = True  # the crop is centred on (160, 125) and reaches 81 to each side
    assert seen[inside].all()
    assert not seen[:3].any()
    rows, columns = np.arange(300) % 12, np.arange(320) % 12
    core = ((rows > 0) & (rows < 11))[:, None] & (columns > 0) & (columns < 11) & inside
    assert (labels == truth)[core].all()  # at the borders of the squares colours mix
    border = inside & ~core
    assert np.mean((labels == truth)[border]) > 0.4
    again = parser.parse(photo_of(truth), face(140, 120))
    np.testing.assert_array_equal(again, labels)


def test_only_the_part_with_the_face_is_parsed_and_it_makes_no_difference(save: Callable) -> None:
    parser = parse_parser(f"farl={save(Colours())}").load()
    truth, found = painted(500, 640), face(300, 200, 0.8)
    labels = parser.parse(photo_of(truth), found)
    facer_parser = parser._parser
    data = {"points": torch.from_numpy(found.points)[None], "image_ids": torch.zeros(1, dtype=torch.int64)}
    images = torch.from_numpy(photo_of(truth)).permute(2, 0, 1)[None]
    logits = facer_parser(images, data)["seg"]["logits"][0]
    expected = logits.argmax(dim=0).numpy()
    expected[(logits == 0).all(dim=0).numpy()] = UNKNOWN
    assert np.mean(labels != expected) < 1e-3
    assert 0.03 < np.mean(labels != UNKNOWN) < 0.5


def test_large_faces_are_parsed_smaller(save: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parse_parser(f"farl={save(Colours())}").load()
    truth = np.repeat(np.repeat(painted(300, 320), 8, axis=0), 8, axis=1)
    sizes: list[tuple[int, ...]] = []
    warp = parser._parser.warp_images
    monkeypatch.setattr(
        parser._parser, "warp_images", lambda images, data: sizes.append(images.shape) or warp(images, data)
    )
    labels = parser.parse(photo_of(truth), face(140 * 8 + 3.5, 120 * 8 + 3.5, 8))
    assert max(sizes[0]) == parse_farl.MAX_SIDE
    seen = labels != UNKNOWN
    assert np.mean((labels == truth)[seen]) > 0.85


def test_black_and_white_photos_are_parsed(save: Callable) -> None:
    parser = parse_parser(f"farl={save(Colours())}").load()
    for value, region in ((0, "background"), (1, "background"), (255, "neck_l")):
        labels = parser.parse(np.full((200, 300, 3), value, np.uint8), face())
        assert set(np.unique(labels)) <= {region_index(region), UNKNOWN}


def test_photos_and_points_that_cannot_be(save: Callable) -> None:
    parser = parse_parser(f"farl={save(Colours())}").load()
    photo = np.zeros((200, 300, 3), np.uint8)
    with pytest.raises(FaceError, match="face lies outside the picture"):
        parser.parse(photo, face(5000, 5000))
    for scale in (np.nan, 0):
        with pytest.raises(FaceError, match="not finite or coincide"):
            parser.parse(photo, face(scale=scale))
    with pytest.raises(TypeError, match="photo must be uint8, got float64"):
        parser.parse(np.zeros((20, 30, 3)), face())
    with pytest.raises(ValueError, match=r"photo must have shape \(H, W, 3\), got \(20, 30\)"):
        parser.parse(np.zeros((20, 30), np.uint8), face())
    with pytest.raises(FaceError, match="values that are not finite"):
        parse_parser(f"farl={save(BadValues(), 'nan.pt')}").load().parse(photo, face())


# Others of 19 classes


def test_other_networks_are_mapped_by_name(save: Callable) -> None:
    truth, found = painted(300, 320), face(140, 120)
    for names in (CELEBAMASK_HQ, tuple(reversed(CELEBAMASK_HQ)), tuple(reversed(REGIONS))):
        path = save(Template(tuple(REGIONS[i] for i in class_regions(names)), 512), names="\n".join(names))
        assert read_names(path) == names
        parser = parse_parser(f"bisenet={path}").load()
        parser._parser.net.net = Alone(parser._parser.net.net)
        labels = parser.parse(photo_of(truth), found)
        assert [at(labels, point) for point in found.points[[0, 1, 3]]] == ["re", "le", "llip"]
    path = save(Template(tuple(REGIONS[i] for i in class_regions(CELEBAMASK_HQ)), 512))
    assert read_names(path) is None
    assert at(parse_parser(f"bisenet={path}").load().parse(photo_of(truth), found), found.points[1]) == "le"


def test_networks_get_normalised_images(save: Callable) -> None:
    parser = parse_parser(f"bisenet={save(Alone(Colours()), names=json.dumps(REGIONS))}").load()
    seen: list[Tensor] = []
    network = nn.Sequential(parser._parser.net.net)
    network.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    parser._parser.net.net = network
    parser.parse(np.full((300, 320, 3), 100, np.uint8), face(140, 120))
    assert seen[0].shape == (1, 3, 512, 512)
    expected = (100 / 255 - np.array(parse_farl.MEAN)) / np.array(parse_farl.STD)
    np.testing.assert_allclose(seen[0][0, :, 256, 256], expected, atol=1e-3)


@pytest.mark.parametrize("names", ['["a", 3]', "[1", "a\nb", "\udcff", "x" * 20_000])
def test_wrong_lists_of_names_are_one_sentence(names: str, save: Callable, tmp_path: Path) -> None:
    path = save(Alone(Colours()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(
            f"{archive.namelist()[0].partition('/')[0]}/extra/names", names.encode(errors="surrogateescape")
        )
    with pytest.raises(RequestError, match=r"parser bisenet cannot use .*net\.pt: ") as caught:
        parse_parser(f"bisenet={path}").load()
    assert "\n" not in str(caught.value)


# Mirror images


@pytest.mark.parametrize("kind", ["farl", "bisenet"])
def test_a_mirrored_photo_swaps_left_and_right(kind: str, save: Callable) -> None:
    names = REGIONS if kind == "farl" else tuple(REGIONS[i] for i in class_regions(CELEBAMASK_HQ))
    parser = parse_parser(f"{kind}={save(Template(names, 448 if kind == 'farl' else 512))}").load()
    found, photo = face(140, 120), photo_of(painted(300, 321))
    labels = parser.parse(photo, found)
    assert [at(labels, point) for point in found.points[[0, 1, 3]]] == ["re", "le", "llip"]
    other = parser.parse(np.ascontiguousarray(photo[:, ::-1]), mirrored(found, 321))
    assert np.mean(SWAPPED[other[:, ::-1]] != labels) < 0.01


def test_real_photos_and_their_mirror_images(save: Callable, shared_data: Path) -> None:
    detector = RetinaFaceDetector(shared_data / "mobilenet0.25_Final.pth")
    parser = parse_parser(f"farl={save(Template(REGIONS, 448))}").load()
    for file in sorted(shared_data.glob("photos/id0[0-3]/img1*.jpg"))[:4]:
        photo = read_image(file).pixels
        turned = np.ascontiguousarray(photo[:, ::-1])
        found, other = one_face(detector.detect(photo)), one_face(detector.detect(turned))
        labels, swapped = parser.parse(photo, found), parser.parse(turned, other)
        for these, points in ((labels, found.points), (swapped, other.points)):
            assert [at(these, points[i]) for i in (0, 1, 3, 4)] == ["re", "le", "llip", "llip"]
        both = (labels != UNKNOWN) & (swapped[:, ::-1] != UNKNOWN)
        assert both.mean() > 0.2
        assert np.mean((SWAPPED[swapped[:, ::-1]] == labels)[both]) > 0.95


# Weights files


@pytest.mark.parametrize("kind", ["farl", "bisenet"])
def test_bad_weights_are_one_sentence(kind: str, save: Callable, tmp_path: Path) -> None:
    good = save(Colours()).read_bytes()
    files = {
        "a web page": b"\n<!DOCTYPE html><html><body>404: Not Found</body></html>",
        "it is empty": b"",
        "it is no zip file": b"\x80\x02}q\x00.",
        "only a part of one": good[: len(good) // 2],
        "damaged": good[:200] + bytes(byte ^ 255 for byte in good[200:260]) + good[260:],
    }
    file = tmp_path / "bad.pt"
    for reason, content in files.items():
        file.write_bytes(content)
        with pytest.raises(RequestError, match=reason) as caught:
            parse_parser(f"{kind}={file}").load()
        assert "\n" not in str(caught.value)
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(RequestError, match="a checkpoint of weights without the network"):
        parse_parser(f"{kind}={file}").load()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(RequestError, match="it is another zip file"):
        parse_parser(f"{kind}={file}").load()
    file.unlink()
    for path in (file, tmp_path):
        with pytest.raises(RequestError, match="there is no such file"):
            ParserSpec(kind, path).load()


def test_archives_that_do_more_than_compute_are_refused(
    save: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parse_farl, "_import_facer", lambda: pytest.fail("facer got it"))
    for network, reason in ((Writes(), "it reads or writes files"), (Restores(), "runs code while")):
        with pytest.raises(RequestError, match=reason):
            parse_parser(f"farl={save(network)}").load()
    assert not (tmp_path / "stolen.pt").exists()


def test_networks_of_another_kind_are_one_sentence(save: Callable) -> None:
    eleven = Template(REGIONS[:6] + REGIONS[6:10] + ("llip",), 448)
    for kind, network, reason in (
        ("farl", eleven, r"must give 19 classes for an image of 448 pixels, .*: it gives 11 classes"),
        ("bisenet", eleven, r"must give 19 classes for an image of 512 pixels, .*: it gives 11 classes"),
        ("bisenet", Plain(), "it gives 3 classes"),
        ("farl", Plain(), "it does not run as that parser does"),
        ("farl", nn.Linear(7, 2), "it does not run as that parser does"),
    ):
        with pytest.raises(RequestError, match=reason) as caught:
            parse_parser(f"{kind}={save(network)}").load()
        assert "\n" not in str(caught.value)


def test_nothing_is_downloaded(save: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("download"))
    path = save(Colours(), "https:example.org.pt")
    assert ParserSpec("farl", path).load().known == REGIONS
