"""Is the occlusion of a run whole, and of the maps that it has now? Every problem is named."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from leamfast.store.occlusion_block import BlockName, block_files, block_name, read_block
from leamfast.store.occlusion_index import occlusion_sha256, what_is_wrong
from leamfast.store.pair_index import parts_sha256
from leamfast.store.part import PartError
from leamfast.store.run_folder import RunFolder

__all__ = ["occlusion_problems"]


def occlusion_problems(
    folder: RunFolder, digests: Iterable[str], rows: int, models: Collection[str]
) -> Iterator[str]:
    """One sentence a problem of the blocks of occlusion; none where nothing was occluded.

    Args:
        folder: the run.
        digests: of its parts, in order.
        rows: how many it has.
        models: their names.
    """
    files = block_files(folder.occlusion)
    run = occlusion_sha256(folder, parts_sha256(digests))
    again = f"run `leamfast occlude {folder.root}` again"
    if run is None:
        if files or folder.occlude_settings.exists():
            yield f"occlusion is of other maps than the run has now: {again} with --overwrite"
        return
    blocks = []
    for path in files:
        problem, block = _problem(path, run)
        if block is not None and block.run == run:
            blocks.append(block)
            if not problem and (
                strange := {name for pair in block.groups for name in pair}.difference(models)
            ):
                problem = f"{path.name} is of {min(strange)}, which is no model of the run"
        if problem:
            yield f"{problem}: {again}"
    if not blocks:
        yield f"no block of occlusion is there, though its settings are: {again}"
    elif problem := what_is_wrong(blocks, rows):
        yield f"{problem}: {again}"


def _problem(path: Path, run: str) -> tuple[str, BlockName | None]:
    """What is wrong with a block, and what it says of itself where that can be read."""
    try:
        block = block_name(path)
    except PartError as exc:
        return str(exc), None
    try:
        read_block(path)
    except PartError as exc:
        return str(exc), block
    return (f"{path.name} was made with other settings" if block.run != run else ""), block
