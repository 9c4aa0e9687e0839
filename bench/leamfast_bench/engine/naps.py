"""Work whose time is known: pieces that a worker sleeps over, so that two of them need no two cores."""

import json
import os
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from leamfast.store.part import Part, write_part
from leamfast_bench.engine.parts import make_part
from leamfast_bench.engine.spells import Spell

__all__ = ["Nap", "NapSink", "Napped", "Naps", "plan_naps", "read_spells"]


@dataclass(frozen=True)
class Nap:
    """A piece that takes so many seconds."""

    number: int
    seconds: float
    amount: int = 1

    @property
    def title(self) -> str:
        """What the reader knows it by."""
        return f"nap {self.number}"


@dataclass(frozen=True)
class Napped:
    """A piece that is done, by whom and when, by the worker's own clock; and a part, where naps make any."""

    spell: Spell
    part: Part | None = field(default=None, repr=False)


class Naps:
    """Sleeps over a piece; what it gives has a part of `rows` images, if there are any."""

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows

    def __getstate__(self) -> dict[str, int]:
        return {"rows": self.rows}  # the part is made where it is needed

    @cached_property
    def part(self) -> Part | None:
        """The part of every piece, up to its number."""
        return make_part(0, self.rows) if self.rows else None

    def __call__(self, piece: Nap, ahead: Nap | None = None) -> Napped:
        part = self.part  # before the clock starts: the first piece's part takes long to make
        began = time.monotonic()
        time.sleep(piece.seconds)
        spell = Spell(f"process {os.getpid()}", piece.number, piece.amount, began, time.monotonic())
        return Napped(spell, None if part is None else replace(part, shard=piece.number))


class NapSink:
    """Keeps what is done in a folder; a piece that is done twice is an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, napped: Napped) -> None:
        number = napped.spell.piece
        if napped.part is not None:
            write_part(self.folder / f"part-{number:05d}.h5", napped.part)
        with (self.folder / f"{number}.json").open("x") as file:
            json.dump(napped.spell.__dict__, file)


def plan_naps(pieces: int, seconds: float) -> tuple[Nap, ...]:
    """So many pieces of so many seconds."""
    return tuple(Nap(number, seconds) for number in range(pieces))


def read_spells(folder: Path) -> list[Spell]:
    """What a sink kept."""
    return [Spell(**json.loads(file.read_text())) for file in folder.glob("*.json")]
