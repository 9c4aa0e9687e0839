"""The `leamfast` command."""

import errno
import os
import sys

import typer

from leamfast.cli.align import align
from leamfast.cli.batch import batch
from leamfast.cli.bench import bench
from leamfast.cli.compare import compare
from leamfast.cli.compile import compile_
from leamfast.cli.demo import demo
from leamfast.cli.ingest import ingest
from leamfast.cli.inspect import info, layers, models
from leamfast.cli.occlude import occlude
from leamfast.cli.output import INTERRUPTED, note
from leamfast.cli.plan import plan
from leamfast.cli.results import analyze, verify
from leamfast.cli.synth import synth
from leamfast.errors import RequestError
from leamfast.store.atomic import StorageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="leamfast",
    help="Which parts of a face does a recognition model use to recognise one person?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo,
    synth,
    ingest,
    align,
    batch,
    plan,
    compare,
    occlude,
    analyze,
    verify,
    models,
    layers,
    info,
    bench,
):
    app.command()(command)
app.command("compile")(compile_)


def main() -> None:
    """Run the command; what the user did wrong is one sentence on stderr and status 2."""
    for word in sys.argv:
        if any("\ud800" <= letter <= "\udfff" for letter in word):  # bytes that are no UTF-8
            note(f"leamfast: arguments must be UTF-8, in which results are written, got {word!r}: rename it")
            sys.exit(2)
    try:
        app()
    except RequestError as exc:
        note(f"leamfast: {exc}")
        sys.exit(2)
    except StorageError as exc:
        note(f"leamfast: {exc.strerror}")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as exc:  # a full disk, a folder that cannot be written
        note(f"leamfast: {exc}")
        sys.exit(2 if exc.errno == errno.ENAMETOOLONG else 1)
    except KeyboardInterrupt:
        note("leamfast: interrupted; finished parts are whole, go on with --resume")
        sys.exit(INTERRUPTED)
