"""Fixtures that more than one package's tests use."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let processes that share the files of tests begin with those that hold slow tests.

    Whoever gets such a file last is waited for by all others. `--no-loadscope-reorder` keeps this order: by
    itself xdist begins with the files of most tests, and the slowest ones have few.
    """
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _own_face_cache(tmp_path_factory) -> Iterator[None]:
    """Detections are kept for this session only, and never in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _the_same_numbers_every_time() -> None:
    """Inputs that a test draws without a seed of its own do not depend on the tests before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and weights, which is not part of the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LEAMFAST_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("test data not found: set LEAMFAST_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    """Synthetic faces: 12 people with 4 images each, with region masks. Not to be changed."""
    from leamfast.datasets.synthetic import write_dataset

    folder = tmp_path_factory.mktemp("synthetic") / "faces"
    write_dataset(folder, identities=12, images=4, seed=3)
    return folder


@pytest.fixture(scope="session")
def finished_run(faces, tmp_path_factory) -> Path:
    """A run over `faces` in four shards, with an untrained model. Not to be changed."""
    from leamfast.engine.batch_run import BatchRequest, run_batch

    out = tmp_path_factory.mktemp("runs") / "finished"
    request = BatchRequest(
        data=faces, out=out, model=("demo=random:0",), align="none", shard_images=12, batch_size=5, threads=1
    )
    run_batch(request, note=lambda text: None)
    return out
