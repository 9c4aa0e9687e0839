"""Our rows: LEAM by every backend and precision that can be had here."""

from collections.abc import Iterator

import torch

from leamfast import LEAM, RequestError
from leamfast.leam.backends import BACKENDS
from leamfast.leam.precision import PRECISIONS
from leamfast.models import FaceModel
from leamfast_bench.maps.case import Case
from leamfast_bench.maps.row import Call, Row, See

__all__ = ["Explainers", "backend_of", "our_rows", "variants"]

NAME = "leamfast "
CHECKED = (1, 2, 5)  # calls: a compiled graph that is merged or specialised late is wrong late


class Explainers:
    """LEAM objects of one model by what was asked for: what was compiled once serves every cell."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[str, ...], str, str], LEAM] = {}

    def __call__(
        self, model: FaceModel, taps: tuple[str, ...], backend: str, precision: str = "fp32"
    ) -> LEAM:
        """The explainer of some taps.

        Raises:
            RequestError: the backend or the precision cannot be had here.
        """
        asked = taps, backend, precision
        if asked not in self._made:
            self._made[asked] = LEAM(model, layers=taps, target="loss", backend=backend, precision=precision)
        return self._made[asked]


def variants(device: str) -> Iterator[tuple[str, str, str]]:
    """Name, backend and precision of everything that we might have; on a CPU, only eager rounds to less."""
    for precision in PRECISIONS:
        for backend in BACKENDS:
            less_on_cpu = precision != "fp32" and torch.device(device).type == "cpu"
            if backend != "auto" and not (less_on_cpu and backend != "eager"):
                suffix = "" if precision == "fp32" else f", {precision}"
                yield f"{NAME}{backend}{suffix}", backend, precision


def backend_of(name: str) -> str:
    """The backend of a row of ours in float32, by its name; eager without one."""
    return name.removeprefix(NAME) or "eager"


def our_rows(explainers: Explainers, device: str = "cpu") -> Iterator[Row]:
    """LEAM itself, and the batch repeated for several references an image."""
    for name, backend, precision in variants(device):

        def make(case: Case, backend: str = backend, precision: str = precision) -> Call:
            if precision == "bf16" and case.images.device.type == "cpu":
                raise RequestError("precision bf16 is timed on a GPU only: most CPUs emulate it")
            leam = explainers(case.model, case.taps, backend, precision)

            def call(see: See) -> object:
                result = leam(case.images, case.references)
                for tap, maps in result.maps.items():
                    see(tap, map=maps)
                return result

            return call

        yield Row(name, "ours", make, CHECKED, precision)

    def repeated(case: Case) -> Call:
        leam, count = explainers(case.model, case.taps, "eager"), case.references.shape[1]

        def call(see: See) -> object:
            images = case.images.repeat_interleave(count, dim=0)
            result = leam(images, case.references.flatten(0, 1))
            for tap, maps in result.maps.items():
                see(tap, map=maps.unflatten(0, (-1, count)))
            return result

        return call

    yield Row(f"{NAME}eager, batch repeated", "repeated", repeated)
