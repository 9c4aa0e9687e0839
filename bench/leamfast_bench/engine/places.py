"""Where work is carried: in worker processes of this machine, or by actors of a Ray of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leamfast.engine.agenda import Event
from leamfast.engine.cluster.connection import LOCAL, connected
from leamfast.engine.cluster.driver import RayDriver
from leamfast.engine.cluster.hands import Team
from leamfast.engine.local import LocalDriver
from leamfast.engine.run import Driver, Function, Sink, run
from leamfast.models.devices import device_name
from leamfast_bench.engine.naps import Naps, NapSink, plan_naps, read_spells
from leamfast_bench.engine.spells import Spell, check_once

__all__ = ["PLACES", "PROCESSES", "RAY", "Heard", "carried", "napped", "workers_on"]

PROCESSES, RAY = "worker processes", "actors of Ray"
PLACES = (PROCESSES, RAY)


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def hear(self, event: Event) -> None:
        """See `engine.run.Listener`."""
        self.events.append(event)

    def note(self, text: str) -> None:
        """See `engine.run.Listener`."""


@contextmanager
def carried(place: str, workers: int) -> Iterator[Callable[[int, Path], Driver]]:
    """Makes drivers of (workers, folder), as long as the block runs; actors are new ones for each.

    Args:
        place: one of `PLACES`.
        workers: the most that there will be.
    """
    if place == PROCESSES:
        yield lambda count, folder: LocalDriver(count)
        return
    with connected(LOCAL, workers, 0):
        import ray

        files = ray.put({})
        teams: list[Team] = []

        def driver(count: int, folder: Path) -> Driver:
            for team in teams:
                team.end()
            teams[:] = [Team(0, count, 1)]
            return workers_on(teams[0], folder, files)

        try:
            yield driver
        finally:
            for team in teams:
                team.end()


def workers_on(team: Team, folder: Path, files: object) -> Driver:
    """A driver of a team whose actors compute on the CPU, or on a GPU that is none."""
    return RayDriver(team, folder, device_name("cpu"), files, Heard())


def napped(driver: Driver, workers: int, pieces: int, seconds: float, rows: int, folder: Path) -> list[Spell]:
    """Naps that a driver has carried, checked: each piece once, none failed, its part in the folder.

    Args:
        driver: who carries them.
        workers: that it has.
        pieces: how many.
        seconds: of each.
        rows: images in the part of each, 0 for none.
        folder: empty.
    """
    report = run(plan_naps(pieces, seconds), _function(rows), _sink(folder), driver=driver)
    if report.failed:
        raise RuntimeError(f"pieces failed: {report.failed}")
    spells = read_spells(folder)
    check_once(spells, pieces, workers)
    return spells


def _function(rows: int) -> Function:
    return Naps(rows)


def _sink(folder: Path) -> Sink:
    return NapSink(folder)
