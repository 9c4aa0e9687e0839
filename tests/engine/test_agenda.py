"""Attempts, and the search for images of which workers die, against a worker that dies of given ones."""

import random
from collections.abc import Callable

import pytest

from leamfast.datasets.entry import Entry
from leamfast.engine.agenda import Agenda, Event, is_trial
from leamfast.engine.plan import Identity, Shard
from leamfast.engine.time_limit import FACTOR, FIRST, FLOOR, RELIEF, TimeLimit


def shard(number: int, first: int, images: int) -> Shard:
    """A shard of two people."""
    entries = tuple(Entry(f"{position}.png", "p") for position in range(first, first + images))
    half = images // 2
    people = Identity("a", first, entries[:half]), Identity("b", first + half, entries[half:])
    return Shard(number, tuple(person for person in people if person.entries))


def carry_out(
    agenda: Agenda, dies: Callable[[tuple[int, ...]], bool], most: int = 10_000
) -> tuple[list[Event], list[Shard]]:
    """Take everything from an agenda with one worker; its events, and what the worker was given."""
    events, given = [], []
    while agenda.waiting:
        piece = agenda.waiting.popleft()
        given.append(piece)
        assert len(given) < most, "never ends"
        if dies(piece.images_left):
            events += agenda.failed(piece, "died", "w")
        else:
            events += agenda.finished(piece, "w", 0.0, 1.0)
    return events, given


def blamed(events: list[Event]) -> set[int]:
    return {position for event in events for position in event.blamed}


@pytest.mark.parametrize("images", [1, 2, 3, 7, 64, 100])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_guilty_images_are_found(images, seed):
    draw = random.Random(f"{images} {seed}")
    guilty = set(draw.sample(range(10, 10 + images), draw.randint(1, max(1, min(4, images - 1)))))
    agenda = Agenda([shard(0, 0, 10), shard(1, 10, images), shard(2, 10 + images, 5)], max_attempts=3)
    events, given = carry_out(agenda, lambda tried: bool(guilty & set(tried)))
    assert blamed(events) == guilty
    final = {event.piece.number: event for event in events if event.final}
    assert sorted(final) == [0, 1, 2]
    assert all(not event.error for event in final.values())
    assert set(final[1].piece.left_out) == guilty
    assert final[1].piece.images_left == tuple(p for p in range(10, 10 + images) if p not in guilty)
    assert not final[1].piece.trial
    assert len([event for event in events if event.final]) == 3
    assert sum(piece.number == 1 and not is_trial(piece) for piece in given) == 4  # 3 attempts, then without


def test_one_culprit_of_many_costs_few_deaths():
    agenda = Agenda([shard(0, 0, 1024)], max_attempts=3)
    deaths = 0

    def dies(tried: tuple[int, ...]) -> bool:
        nonlocal deaths
        deaths += 777 in tried
        return 777 in tried

    events, given = carry_out(agenda, dies)
    assert blamed(events) == {777}
    assert deaths <= 3 + 10 + 2
    assert len(given) <= 3 + 20 + 2 + 1


def test_bad_luck_blames_nobody():
    """A shard that failed three times for reasons of its machine is computed whole in the end."""
    agenda = Agenda([shard(0, 0, 16)], max_attempts=3)
    calls = iter([True] * 3)
    events, _ = carry_out(agenda, lambda tried: next(calls, False))
    assert blamed(events) == set()
    assert events[-1].final
    assert not events[-1].error
    assert events[-1].piece.left_out == {}


def test_an_image_that_failed_once_alone_is_not_blamed():
    """Two deaths of the same image, alone, are needed."""
    agenda = Agenda([shard(0, 0, 2)], max_attempts=1)
    failing = iter([True, True])  # the whole, and image 0 alone, once
    events, _ = carry_out(agenda, lambda tried: next(failing, False))
    assert blamed(events) == set()
    assert events[-1].final
    assert not events[-1].error


def test_what_fails_only_as_a_whole_is_left_out_as_a_whole():
    agenda = Agenda([shard(0, 0, 16), shard(1, 16, 4)], max_attempts=2)
    events, _ = carry_out(agenda, lambda tried: len(tried) == 16)
    assert blamed(events) == set()
    final = {event.piece.number: event.error for event in events if event.final}
    assert final == {0: "died", 1: ""}


def test_where_every_image_fails_it_is_the_shard():
    """A missing library, a wrong path: nothing is blamed on images that are all alike."""
    agenda = Agenda([shard(0, 0, 6), shard(1, 6, 2)], max_attempts=3)
    events, _ = carry_out(agenda, lambda tried: tried[0] < 6)
    assert blamed(events) == set()
    final = {event.piece.number: event.error for event in events if event.final}
    assert final == {0: "died; and so does each of its images alone", 1: ""}


@pytest.mark.parametrize("seed", range(20))
def test_unlucky_machines_never_lose_or_double_a_piece(seed):
    """Whatever fails at random, each piece has one last event; images are only left out with a reason."""
    draw = random.Random(seed)
    agenda = Agenda([shard(n, 8 * n, 8) for n in range(6)], max_attempts=3)
    events, _ = carry_out(agenda, lambda tried: draw.random() < 0.3)
    final = [event.piece.number for event in events if event.final]
    assert sorted(final) == list(range(6))
    for event in events:
        if event.final and not event.error:
            assert set(event.piece.left_out) <= blamed(events)


def test_a_piece_that_cannot_be_divided_fails_after_its_attempts():
    agenda = Agenda([Shard(0, ())], max_attempts=2)
    events, given = carry_out(agenda, lambda tried: True)
    assert len(given) == 2
    assert [(event.error, event.final) for event in events] == [("died", False), ("died", True)]


def test_a_piece_given_back_keeps_its_attempts():
    agenda = Agenda([shard(0, 0, 1), shard(1, 1, 1)], max_attempts=1)
    first = agenda.waiting.popleft()
    agenda.put_back(first)
    assert agenda.waiting[0] is first
    assert agenda.failures == {}


def test_the_limit_follows_the_measured_speed():
    limit = TimeLimit()
    big, small = shard(0, 0, 1000), shard(1, 0, 10)
    assert limit.of(big) == FIRST
    for seconds in (4.0, 5.0, 400.0):  # one that was slow changes little
        limit.learn(small, seconds)
    assert limit.of(big) == pytest.approx(FACTOR * 0.5 * 1000)
    assert limit.of(small) == FLOOR
    limit.exceeded(small)  # others were cheap, perhaps because they were kept from before
    assert limit.of(small) == RELIEF * FLOOR
    assert limit.of(big) == pytest.approx(FACTOR * 0.5 * 1000)
    assert TimeLimit(3.5).of(big) == 3.5
