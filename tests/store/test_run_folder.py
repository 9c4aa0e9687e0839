from leamfast.store.run_folder import RunFolder

PART = "shards/.part-00001.h5.99-0123abcd.tmp"
PROBE = ".probe-0123456789abcdef0123456789abcdef.tmp"


def test_what_killed_workers_leave_is_removed_as_a_run_begins_and_as_it_ends(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.shards.mkdir(parents=True)
    left = [folder.root / name for name in (PART, PROBE, f".{PROBE}.99-0123abcd.tmp")]
    [path.touch() for path in left]
    with folder.locked():
        assert not any(path.exists() for path in left)
        [path.touch() for path in left]
    assert not any(path.exists() for path in left)
