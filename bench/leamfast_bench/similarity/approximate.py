"""What is not exact: our lower bound and geomloss's Sinkhorn losses, how far off they are and how fast.

None of the values of geomloss says how far off it is: the error here is known because the distance is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leamfast_bench.similarity.exact import exact_distances
from leamfast_bench.similarity.pairs import Pairs
from leamfast_bench.similarity.rows import OURS, Row, WrongAnswerError, timed_rows
from leamfast_kernels import emd_lower_bound

__all__ = ["BOUND", "EXACT", "LOSSES", "NOT_INSTALLED", "Loss", "losses", "measure_approximate"]

EXACT, BOUND = f"{OURS}, exact", f"{OURS}, emd_lower_bound"
NOT_INSTALLED = "not installed: pip install 'leamfast[bench]'"
ABOVE = 1e-9  # relative; by how much rounding may lift a bound over the distance
AT_ONCE = {"cpu": 8, "cuda": 128}  # pairs in a call of geomloss


@dataclass(frozen=True)
class Loss:
    """A setting of `geomloss.SamplesLoss("sinkhorn", p=1)`.

    Attributes:
        blur: in sides of the image; geomloss's default is 0.05.
        debias: subtract the losses of each map with itself, as geomloss does unless told.
        scaling: factor of the blur from step to step; its default is 0.5.
    """

    blur: float = 0.05
    debias: bool = True
    scaling: float = 0.5

    @property
    def name(self) -> str:
        """For people."""
        said = f"geomloss, blur {self.blur:g}{'' if self.debias else ', not debiased'}"
        return said if self.scaling == 0.5 else f"{said}, scaling {self.scaling:g}"

    def __call__(self, pairs: Pairs) -> Tensor:
        """Losses of pairs, (K,), where their maps lie.

        Raises:
            ImportError: geomloss is not installed.
        """
        from geomloss import SamplesLoss

        loss = SamplesLoss("sinkhorn", p=1, blur=self.blur, debias=self.debias, scaling=self.scaling)
        shares = (pairs.maps / pairs.maps.sum(dim=(1, 2), keepdim=True)).flatten(1)
        centres = _centres(*pairs.maps.shape[1:]).to(shares)
        found = []
        with torch.no_grad():
            for rows in pairs.listed.to(shares.device).split(AT_ONCE[shares.device.type]):
                points = centres.expand(len(rows), -1, -1).contiguous()
                found.append(loss(shares[rows[:, 0]], points, shares[rows[:, 1]], points))
        return torch.cat(found)


LOSSES = (Loss(), Loss(0.01, debias=False), Loss(0.002, debias=False, scaling=0.9))


def measure_approximate(
    pairs: Pairs, wanted: Tensor, few: int, rounds: int, note: Callable[[str], None]
) -> dict[str, Any]:
    """Their values over the distances, and their times beside ours.

    Args:
        pairs: what is compared.
        wanted: the distances, (K,).
        few: pairs that geomloss is given.
        rounds: in which each row is timed.
        note: told of progress.

    Raises:
        WrongAnswerError: the lower bound is above a distance, or a value of geomloss is no number.
    """
    note(f"{pairs.name}, not exact")
    rows, calls = _prepared(pairs, wanted, few)
    work = {row["row"]: row["pairs"] for row in rows if row["row"] in calls}
    times = {row["row"]: row for row in timed_rows(calls, work, rounds, "cpu", note)}
    for row in rows:
        row |= times.get(row["row"], {})
    return {"case": pairs.name, "rows": rows}


def _prepared(pairs: Pairs, wanted: Tensor, few: int) -> tuple[list[Row], dict[str, Callable[[], object]]]:
    """Rows with their errors, and what is timed of them."""
    i, j = pairs.listed.unbind(dim=1)
    p, q = pairs.maps[i], pairs.maps[j]
    calls: dict[str, Callable[[], Any]] = {
        EXACT: partial(exact_distances, pairs),
        BOUND: partial(emd_lower_bound, p, q),
    }
    bounds = calls[BOUND]()
    if not bool((bounds <= wanted * (1 + ABOVE)).all()):
        raise WrongAnswerError(f"{BOUND}: above the distance for {pairs.name}")
    exact = _compared(EXACT, calls[EXACT](), wanted, "exact")
    rows = [exact, _compared(BOUND, bounds, wanted, "lower bound")]
    for row, call in losses(pairs.first(few), wanted[:few]):
        rows.append(row)
        if call is not None:
            calls[row["row"]] = call
    return rows, calls


def losses(pairs: Pairs, wanted: Tensor) -> Iterator[tuple[Row, Callable[[], Tensor] | None]]:
    """Rows of geomloss, with why there is nothing to be timed in `why`, and what is.

    Raises:
        WrongAnswerError: a value is no number.
    """
    for loss in LOSSES:
        try:
            found = loss(pairs)
        except ImportError:
            yield {"row": loss.name, "pairs": 0, "why": NOT_INSTALLED}, None
            continue
        if not bool(torch.isfinite(found).all()):
            raise WrongAnswerError(f"{loss.name}: a value is no number for {pairs.name}")
        yield _compared(loss.name, found, wanted, "none"), partial(loss, pairs)


def _compared(name: str, found: Tensor, wanted: Tensor, certificate: str) -> Row:
    """Values beside the distances."""
    ratios = found.double().cpu() / wanted
    errors = (ratios - 1).abs()
    row: Row = {"row": name, "pairs": len(wanted), "why": "", "certificate": certificate}
    row |= {"of_distance": float(ratios.median())}
    return row | {"median_error": float(errors.median()), "largest_error": float(errors.max())}


def _centres(height: int, width: int) -> Tensor:
    rows, columns = ((torch.arange(n) + 0.5) / n for n in (height, width))
    return torch.cartesian_prod(rows, columns)
