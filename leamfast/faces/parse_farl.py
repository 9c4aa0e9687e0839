"""Parsers that are networks: FaRL through facer, and others of 19 classes, warped by facer in the same way.

facer turns and crops the photo around a face (`farl/celebm/448`: the alignment of CelebA-HQ, a square of
3.6 times the distance from eyes to mouth or more, bilinear), runs the network, and warps its logits back onto
the photo (bilinear); the class of a pixel is the largest. All of that is facer's code. It takes points with
pixel centres at integers, as they are here, and adds the half pixel itself.

facer would download its weights; here it always gets a path. The archive is checked before facer sees it
(`leamfast.faces.parse_archives`). The network is run without the optimisations of TorchScript's executor,
which begin at the second photo and would change the last bits.

Facts about facer that the code here goes around: it labels what lies outside the crop as background, though
no network has seen it (here: `UNKNOWN`); it fails on photos whose brightest value is 1 and on values that
interpolation puts above 1; and it makes 19 logits for every pixel of the photo, 0.9 GB for 12 megapixels.
So it gets the part of the photo that its crop covers, shrunk to a longest side of `MAX_SIDE`.

Reference: Y. Zheng et al., General Facial Representation Learning in a Visual-Linguistic Manner, CVPR 2022.
"""

import contextlib
import functools
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leamfast.errors import RequestError, first_line
from leamfast.faces.alignment import FaceError
from leamfast.faces.parse_archives import check_script
from leamfast.faces.parse_names import CELEBAMASK_HQ, UNKNOWN, class_regions, read_names
from leamfast.faces.parse_part import cut_part
from leamfast.faces.regions import REGIONS
from leamfast.faces.selection import Detection

__all__ = ["MAX_SIDE", "BisenetParser", "FarlParser"]

Pixels = NDArray[np.uint8]

MAX_SIDE = 1024
"""Longest side of what facer gets: the largest crop, 512, takes at least every other pixel of it."""

BISENET_SIZE = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, with which BiSeNets are trained
BELOW_ONE = 1 - 2**-16


class FarlParser:
    """FaRL's parser `celebm/448`.

    Args:
        weights: its TorchScript archive, published as `face_parsing.farl.celebm.main_ema_181500_jit.pt`.
        device: where the network runs.

    Raises:
        RequestError: facer is not installed, or the file is missing, another one or not safe to run.
    """

    known: tuple[str, ...] = REGIONS

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        self._load(weights, torch.device(device))
        self._regions = class_regions(self._parser.label_names)
        self._try(weights, 448)

    def parse(self, photo: Pixels, face: Detection) -> Pixels:
        """Regions of a face in a photo.

        Args:
            photo: picture, shape (H, W, 3), uint8, RGB.
            face: the one face that is parsed, with points in coordinates of the photo.

        Returns:
            Indices of `REGIONS`, shape (H, W), uint8; `UNKNOWN` outside the crop that the network sees.

        Raises:
            FaceError: the crop lies outside the photo, or the network gives values that are no numbers.
            TypeError: photo is not uint8.
            ValueError: photo has another shape.
        """
        if photo.dtype != np.uint8:
            raise TypeError(f"photo must be uint8, got {photo.dtype}")
        if photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise ValueError(f"photo must have shape (H, W, 3), got {photo.shape}")
        part = cut_part(photo, face.points, self._facer.transform.get_quad, MAX_SIDE)
        device = self._parser.device
        data = {
            "points": torch.from_numpy(part.points)[None].to(device),
            "image_ids": torch.zeros(1, dtype=torch.int64, device=device),
        }
        pixels = torch.from_numpy(part.pixels).permute(2, 0, 1)[None].to(device)
        with _executor_as_it_is():
            logits = self._parser(pixels / 255 * BELOW_ONE, data)["seg"]["logits"][0]
        if not bool(torch.isfinite(logits).all()):
            raise FaceError("parser gives values that are not finite")
        # Beyond the crop facer puts zeros, and along its edge it scales all logits by the same factor.
        labels = torch.where((logits == 0).all(dim=0), UNKNOWN, self._table(device)[logits.argmax(dim=0)])
        return part.paste(labels.to(torch.uint8).cpu().numpy(), photo.shape)

    def _table(self, device: torch.device) -> Tensor:
        return torch.from_numpy(self._regions).to(device)

    def _load(self, weights: Path, device: torch.device) -> None:
        check_script(weights)
        self._facer = _import_facer()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*torch\.jit\.\w+` is (deprecated|not supported)", Warning)
            # A resolved path is never taken for an address to download from.
            path = str(weights.resolve())
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # facer prints that a download failed
                    self._parser: Any = self._facer.face_parser("farl/celebm/448", device, model_path=path)
            except Exception as exc:  # what a device or a file changed meanwhile can say
                raise RequestError(
                    f"parser in {weights} cannot be loaded on {device}: {first_line(exc)}"
                ) from exc

    def _try(self, weights: Path, size: int) -> None:
        """Run the network once, so that what is wrong is said now."""
        must = f"parser must give {len(REGIONS)} classes for an image of {size} pixels, got {weights}"
        try:
            with _executor_as_it_is():
                image = torch.zeros(1, 3, size, size, device=self._parser.device)
                logits = self._parser.forward_warped(image, return_preds=False)
        except Exception as exc:  # whatever operators say of sizes and kinds that do not fit
            raise RequestError(f"{must}: it does not run as that parser does ({first_line(exc)})") from exc
        if not isinstance(logits, Tensor) or logits.ndim != 4 or len(logits) != 1:
            given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise RequestError(f"{must}: it gives {given}, not logits (1, classes, height, width)")
        if logits.shape[1] != len(REGIONS):
            raise RequestError(f"{must}: it gives {logits.shape[1]} classes")


class BisenetParser(FarlParser):
    """A network of 19 classes whose names it carries, or those of CelebAMask-HQ in the order of BiSeNets.

    It gets RGB images of 512x512 pixels, normalised with the mean and deviation of ImageNet, in the alignment
    of CelebA-HQ, and gives logits of any size, alone or first in a tuple or list.

    The weights that are published with zllrunning/face-parsing.PyTorch were trained on mirrored photos too,
    whose left and right labels stayed as they were (its pull request 26): do not trust their sides.

    Args:
        weights: a TorchScript archive.
        device: where the network runs.

    Raises:
        RequestError: as for `FarlParser`; or the names are not 19, unknown or the same.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        self._load(weights, torch.device(device))
        try:
            self._regions = class_regions(read_names(weights) or CELEBAMASK_HQ)
        except RequestError as exc:
            raise RequestError(f"parser bisenet cannot use {weights}: {exc}") from exc
        shape = (BISENET_SIZE, BISENET_SIZE)
        grid = {"warp_factor": 0, "warped_shape": shape}
        transform = self._facer.transform
        self._parser.setting = {
            **self._parser.setting,
            "get_matrix_fn": functools.partial(transform.get_face_align_matrix_celebm, target_shape=shape),
            "get_grid_fn": functools.partial(transform.make_tanh_warp_grid, **grid),
            "get_inv_grid_fn": functools.partial(transform.make_inverted_tanh_warp_grid, **grid),
        }
        self._parser.net = _Normalised(self._parser.net).to(self._parser.device).eval()
        self._try(weights, BISENET_SIZE)


class _Normalised(nn.Module):
    """A network on normalised images, with two outputs as facer takes them."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        given = self.net((images - self.mean) / self.std)
        return (given[0] if isinstance(given, (tuple, list)) else given), None


def _executor_as_it_is() -> Any:
    """TorchScript without optimisation, which would begin at the second call."""
    jit: Any = torch.jit
    return jit.optimized_execution(False)


def _import_facer() -> Any:
    """facer, imported at first use: it brings timm, torchvision and matplotlib."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Importing from timm.models.layers is deprecated", FutureWarning, r"timm\."
            )
            import facer
            import facer.transform
    except ImportError as exc:
        raise RequestError(
            f"parsers farl and bisenet need the package pyfacer, which cannot be imported ({exc}): "
            "install it with `pip install pyfacer timm`"
        ) from exc
    return facer
