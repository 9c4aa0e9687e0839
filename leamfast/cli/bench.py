"""`leamfast bench`: the registered benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from leamfast.cli.output import json_text, note, print_json, print_table
from leamfast.errors import RequestError
from leamfast.store.atomic import write_atomically

__all__ = ["bench"]


def bench(
    suite: Annotated[
        str | None, typer.Argument(help="Which benchmark; without one, they are listed.")
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="The form that takes minutes.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="truth: processes; each has --threads.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--models", help="truth: folder of trained planted models; scores are kept beside them."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="truth: module:function of yours (model, images, references) -> maps (N, h, w)."),
    ] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Allow --method to run.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="faces, similarity: your photos, in any form that batch takes.")
    ] = None,
    detector: Annotated[
        list[str] | None, typer.Option(help="faces, similarity: retinaface=FILE or dlib; repeat for more.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="faces, similarity: model SPEC.", show_default="demo")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the results, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run a benchmark and print its tables, peers beside us on the same work."""
    from leamfast_bench import registry  # brings what only benchmarks need

    if suite is None:
        rows = [[name, registry.registered(name).summary] for name in registry.names()]
        if as_json:
            print_json({"benchmarks": dict(rows)})
        else:
            print_table(["benchmark", ""], rows)
        return
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise RequestError(f"--out {out} must be a file in a folder that exists")
    benchmark = registry.registered(suite)
    options = registry.Options(
        small=small,
        device=device,
        threads=threads,
        workers=workers,
        folder=folder,
        method=method,
        trust_code=trust_code,
        data=data,
        detector=tuple(detector or ()),
        model=model,
        note=note,
    )
    found = registry.run(suite, options)
    if out is not None:
        write_atomically(out, json_text(found).encode())
    if as_json:
        print_json(found)
        return
    for table in benchmark.tables(found["results"]):
        print_table(list(table.columns), [list(row) for row in table.rows], table.title)
