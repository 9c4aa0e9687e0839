"""One evaluated model and some rows: embeddings of occluded crops, drops, visible changes, curves."""

import numpy as np
import torch
from torch import Tensor

from leamfast.engine.fills import Fill, fill_of
from leamfast.engine.occlude_settings import OccludeSettings
from leamfast.engine.occlusion_curves import Curves
from leamfast.engine.occlusion_maps import Entries
from leamfast.engine.occlusion_supports import BY_ENTRY, Drawn, Numbers, Supports
from leamfast.leam.occlusion import drops, occluded_units
from leamfast.leam.program import Program
from leamfast.leam.references import unit
from leamfast.leam.visible import psnr, ssim
from leamfast.store.occlusion import OWN, OcclusionArrays
from leamfast.store.results import Results

__all__ = ["CHANGED", "Average", "Evaluation"]

SAME_IMAGE = 0.99
"""Cosine of an image's embedding with the stored one, below which it is not the image, or not the model."""

CHANGED = "the embedding by"
"""How the reason begins why an image that can be read is left out all the same."""


class Average:
    """From maps to rows, each map with as many references as it has.

    Attributes:
        row: place of the row of each map, (E,).
        entries: mean of the unit embeddings of the references of each map, (E, D).
        rows: likewise of each row, (n, D); count: how many there are, (n,).
        none: which rows have none, (n,).
    """

    def __init__(
        self, entries: Entries, references: tuple[Tensor, Tensor], rows: int, device: torch.device
    ) -> None:
        self.row = torch.from_numpy(entries.row).to(device)
        self.entries, self.weights = references
        self.count = torch.zeros(rows, dtype=torch.int64, device=device)
        self.count.index_add_(0, self.row, self.weights)
        self.none = self.count == 0
        self.rows = self.of_entries(self.entries).nan_to_num()

    def of_entries(self, values: Tensor) -> Tensor:
        """Weighted means over the maps of each row, (E, ...) -> (n, ...); NaN is left out."""
        weights = self.weights.view(-1, *[1] * (values.dim() - 1)) * values.isfinite()
        shape = (len(self.count), *values.shape[1:])
        total, weight = (torch.zeros(shape, device=values.device) for _ in range(2))
        total.index_add_(0, self.row, values.nan_to_num() * weights)
        weight.index_add_(0, self.row, weights.expand_as(values).to(weight.dtype))
        return total / torch.where(weight > 0, weight, torch.nan)


class Evaluation:
    """One evaluated model's view of some rows."""

    def __init__(
        self,
        name: str,
        program: Program,
        crops: np.ndarray,
        rows: np.ndarray,
        settings: OccludeSettings,
        drawn: Drawn,
    ) -> None:
        self.name, self.program, self.rows, self.settings, self.drawn = name, program, rows, settings, drawn
        self.device = torch.device(settings.device)
        preprocessing = program.model.preprocessing
        raw = torch.from_numpy(crops).to(self.device)
        self.raw = raw.permute(0, 3, 1, 2).float()
        self.pictures = preprocessing(raw)
        self.fills: dict[str, Fill] = {
            fill: fill_of(fill, crops, rows.tolist(), settings.seeds[0], preprocessing, self.device)
            for fill in settings.fills
        }
        self.whole = occluded_units(
            program.embed,
            self.pictures,
            lambda numbers, masks: self.pictures[numbers],
            torch.zeros((len(rows), *crops.shape[1:3]), dtype=torch.bool, device=self.device),
            torch.arange(len(rows), device=self.device),
            settings.batch,
        )
        masks, whose = drawn.masks.all
        self.drawn_units = {fill: self._units(fill, masks, whose) for fill in settings.fills}

    def _units(self, fill: str, masks: Tensor, rows: Tensor) -> Tensor:
        if len(masks) == 0:
            return self.whole[:0]
        return occluded_units(
            self.program.embed, self.pictures, self.fills[fill], masks, rows, self.settings.batch
        )

    def changed(self, results: Results, left_out: dict[int, str]) -> np.ndarray:
        """Which rows have another embedding than the run stored, or none in either, (n,).

        Why is noted of those that have another one; what has none had none in the run.
        """
        first = int(self.rows[0])
        stored = torch.from_numpy(results.embedding(self.name, slice(first, first + len(self.rows))))
        cosines = (self.whole.cpu() * unit(stored)).sum(dim=1).numpy()
        nothing = (~stored.isfinite().all(dim=1) | (stored == 0).all(dim=1)).numpy()
        found = (cosines < SAME_IMAGE) & ~nothing
        for row in self.rows[found].tolist():
            left_out.setdefault(row, f"{CHANGED} {self.name} is not the one that the run stored")
        return found | nothing

    def arrays(
        self,
        supports: Supports,
        references: tuple[Tensor, Tensor],
        missing: np.ndarray,
        curves: Curves | None,
    ) -> OcclusionArrays:
        """Drops of the rows under the supports of one source model's maps."""
        settings, entries = self.settings, supports.entries
        names = list(supports.sizes)
        average = Average(entries, references, len(self.rows), self.device)
        shape = (len(names), len(settings.percents), len(settings.controls), len(settings.fills))
        drop = torch.full((len(self.rows), *shape, len(settings.seeds)), torch.nan, device=self.device)
        masks, whose = supports.masks.all
        for f, fill in enumerate(settings.fills):
            units = self._units(fill, masks, whose)
            for c, control in enumerate(settings.controls):
                if control in self.drawn.numbers:
                    occluded = self.drawn_units[fill][self.drawn.numbers[control]]
                    drop[:, :, :, c, f] = drops(self.whole, occluded, average.rows)[:, None]
                    continue
                for k, name in enumerate(names):
                    numbers = supports.by_entry.get((name, control)) or supports.by_row.get((name, control))
                    if numbers is not None:
                        drop[:, k, :, c, f] = self._drop(units, numbers, average, control in BY_ENTRY)
        own = settings.controls.index(OWN)
        absent = drop[:, :, :, own].isnan().all(dim=(2, 3, 4)) | average.none[:, None]
        gone = torch.from_numpy(missing).to(self.device)
        absent |= gone[:, None]
        drop[absent] = torch.nan  # controls are of the same images as the map itself
        there = {name: supports.by_entry[name, OWN].found for name in names}
        sizes = torch.stack(
            [
                average.of_entries(supports.sizes[name].float().masked_fill(~there[name], torch.nan))
                for name in names
            ],
            dim=1,
        )
        changes = self._visible(supports, names, average, absent)
        cosine = (self.whole * average.rows).sum(dim=1).masked_fill(average.none | gone, torch.nan)
        along = None
        if curves is not None:
            along = self._along(curves, names, average)
            along = along.masked_fill(absent[:, None, :, None, None, None], torch.nan)
        return OcclusionArrays(
            drop=drop.cpu().numpy(),
            references=average.count.masked_fill(gone, 0).to(torch.int32).cpu().numpy(),
            cosine=cosine.cpu().numpy(),
            support_size=sizes.masked_fill(absent[..., None], torch.nan).cpu().numpy(),
            psnr=None if changes is None else changes[0].cpu().numpy(),
            ssim=None if changes is None else changes[1].cpu().numpy(),
            deletion=None if along is None else along[:, 0].cpu().numpy(),
            insertion=None if along is None else along[:, 1].cpu().numpy(),
        )

    def _along(self, curves: Curves, names: list[str], average: Average) -> Tensor:
        """Cosines along curves, (n, 2, map, control, fill, step): deletion, then insertion."""
        s = self.settings
        shape = (len(self.rows), 2, len(names), len(s.controls), len(s.fills), len(s.steps))
        found = torch.full(shape, torch.nan, device=self.device)
        masks, whose = curves.masks.all

        def cosine(units: Tensor) -> Tensor:
            return (units * average.rows.view(len(units), *[1] * (units.dim() - 2), -1)).sum(dim=-1)

        before = cosine(self.whole)
        for f, fill in enumerate(s.fills):
            if fill == "inpaint":  # from which nothing is left to paint, in the end
                continue
            units = self._units(fill, masks, whose)
            for k, name in enumerate(names):
                for c, control in enumerate(s.controls):
                    values = curves.cosines(name, control, units, cosine, before)
                    if values is not None:
                        found[:, :, k, c, f] = values
        return found

    def _drop(self, units: Tensor, numbers: Numbers, average: Average, by_entry: bool) -> Tensor:
        """Drops of one map and control, (n, P, Z)."""
        occluded = units[numbers.numbers]
        if by_entry:
            found = drops(self.whole[average.row], occluded, average.entries)
            return average.of_entries(found.masked_fill(~numbers.found[:, None], torch.nan))
        found = drops(self.whole, occluded, average.rows)
        return found.masked_fill(~numbers.found[:, None], torch.nan)

    def _visible(
        self, supports: Supports, names: list[str], average: Average, absent: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """PSNR and SSIM of the own supports under each fill, (n, map, percent, fill)."""
        if len(self.settings.fills) < 2:
            return None
        masks, whose = supports.masks.all
        shape = (len(self.rows), len(names), len(self.settings.percents), len(self.fills))
        both = torch.full((2, *shape), torch.nan, device=self.device)
        for f, fill in enumerate(self.fills.values()):
            for k, name in enumerate(names):
                numbers = supports.by_entry[name, OWN].numbers[..., 0]
                changes = self._changes(fill, masks[numbers.flatten()], whose[numbers.flatten()])
                for values, change in zip(both, changes, strict=True):
                    change = change.masked_fill(change.isinf(), torch.nan).view(numbers.shape)
                    values[:, k, :, f] = average.of_entries(change)
        both = both.masked_fill(absent[..., None, None], torch.nan)
        return both[0], both[1]

    def _changes(self, fill: Fill, masks: Tensor, rows: Tensor) -> Tensor:
        """PSNR and SSIM of pictures with masks filled against the pictures, (2, M)."""
        found = [torch.empty((2, 0), device=self.device)]
        for start in range(0, len(masks), self.settings.batch):
            mine, theirs = (values[start : start + self.settings.batch] for values in (masks, rows))
            before = self.raw[theirs]
            after = torch.where(mine[:, None], fill.raw(theirs, mine), before)
            found.append(torch.stack([psnr(before, after), ssim(before, after)]))
        return torch.cat(found, dim=1)
