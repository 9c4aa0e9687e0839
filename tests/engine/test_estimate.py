"""How long a run takes: exact arithmetic on measurements."""

import pytest

from leamfast.engine.estimate import Measurement, duration, efficiency, makespan, passes, spoken


@pytest.mark.parametrize(
    ("identities", "references", "expected"),
    [
        ([4, 4, 4], "mean", 24),  # forward and backward
        ([4, 17], "mean", 63),  # and all embedded first, as one is larger than a batch
        ([], "mean", 0),
        ([4, 4], "each", 2 * 8 + 2 * 4 * 3),
        ([20], "mean-map", 2 * 20 + 20 * 8),  # at most eight references
        ([1], "each", 3),
    ],
)
def test_passes_of_a_shard(identities, references, expected):
    assert passes(identities, references, max_references=8, batch_size=16) == expected


@pytest.mark.parametrize(
    ("work", "workers", "expected"),
    [
        ([], 3, 0),
        ([5, 5, 5], 1, 15),
        ([5, 5, 5], 2, 10),  # the third waits for one of the first two
        ([1, 1, 1, 9], 2, 10),  # the large one comes last
        ([9, 1, 1, 1], 2, 9),
        ([4, 6], 8, 6),
    ],
)
def test_the_longest_worker_ends_the_run(work, workers, expected):
    assert makespan(work, workers) == expected


def test_a_pass_takes_the_mean_and_the_limits_are_the_fastest_and_slowest_piece():
    measured = [Measurement(16, 32, 4.0), Measurement(16, 32, 8.0), Measurement(32, 64, 12.0)]
    took = duration(measured, [32, 32, 64])
    assert (took.seconds, took.low, took.high) == (128 * 24 / 128, 128 / 8, 128 / 4)


def test_workers_share_the_work_at_the_efficiency_that_is_stated():
    measured = [Measurement(10, 20, 2.0)]
    assert efficiency(1) == 1
    assert duration(measured, [20] * 8, workers=1).seconds == 16
    assert duration(measured, [20] * 8, workers=4).seconds == pytest.approx(4 / efficiency(4))
    assert duration(measured, [20] * 8, workers=100).seconds == pytest.approx(2 / efficiency(100))


def test_nothing_left_takes_no_time():
    assert duration([Measurement(1, 2, 1.0)], []).seconds == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "less than a second"),
        (40, "40 s"),
        (89, "89 s"),
        (100, "2 min"),
        (3599, "1 h"),
        (12_000, "3 h 20 min"),
        (7200, "2 h"),
        (48 * 3600, "2 d"),
        (53 * 3600, "2 d 5 h"),
    ],
)
def test_times_are_spoken_in_two_units(seconds, text):
    assert spoken(seconds) == text
