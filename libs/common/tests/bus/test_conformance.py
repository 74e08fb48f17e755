"""One suite for every engine: order, fairness, retries, rows, drain."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from loquat_common.bus.limits import Limits
from loquat_common.bus.port import Batching, Dead, Defer, Done, EventTooLarge, Outcome, Received, Retry
from loquat_common.bus.record import LARGEST
from loquat_events.catalog import DIRECTORY, INBOX
from loquat_events.conversations import ConversationChanged
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.projects import ProjectListed

from libs.common.tests.bus.engines import PATIENCE, Engine, event, neighbours, number, until

QUICK = Limits(hold=0.4, spill=2.0)


@pytest.mark.promise("P3")
async def test_a_lanes_events_are_handled_one_by_one_in_order_while_lanes_run_side_by_side(engine: Engine) -> None:
    seen: dict[str, list[int]] = defaultdict(list)
    running: Counter[str] = Counter()
    most = 0

    async def handle(received: Received) -> Outcome:
        nonlocal most
        lane = received.event.lane
        running[lane] += 1
        most = max(most, sum(running.values()))
        assert running[lane] == 1
        await asyncio.sleep(0.001)
        seen[lane].append(number(received.event))
        running[lane] -= 1
        return Done()

    (project,) = neighbours(1)
    await engine.member(handle)
    await engine.publish(event(project, f"lane{n % 10}", n) for n in range(200))
    await until(lambda: sum(map(len, seen.values())) == 200, "all are handled")
    assert all(found == sorted(found) for found in seen.values())
    assert most > 3


@pytest.mark.promise("P3")
async def test_a_slow_lane_does_not_hold_others_of_its_own_project_and_partition(engine: Engine) -> None:
    release, seen = asyncio.Event(), list[int]()

    async def handle(received: Received) -> Outcome:
        if received.event.lane == "slow":
            await release.wait()
        seen.append(number(received.event))
        return Done()

    (project,) = neighbours(1)
    await engine.member(handle)
    await engine.publish([event(project, "slow", 0), *(event(project, f"fast{n % 3}", n) for n in range(1, 31))])
    await until(lambda: len(seen) == 30, "the fast ones are handled")
    release.set()
    await until(lambda: 0 in seen, "the slow one ends")


@pytest.mark.promise("P3")
async def test_a_thousand_events_of_a_broken_project_do_not_slow_its_neighbour_on_the_same_partition(engine: Engine) -> None:
    release, seen = asyncio.Event(), list[int]()
    broken, good = neighbours(2)

    async def handle(received: Received) -> Outcome:
        if received.event.projectid == broken and not release.is_set():
            await release.wait()
        seen.append(number(received.event))
        return Done()

    member = await engine.member(handle, limits=QUICK)
    await engine.publish(
        [*(event(broken, f"lane{n % 50}", n) for n in range(1_000)), *(event(good, f"lane{n}", 5_000 + n) for n in range(20))]
    )
    await until(lambda: len([n for n in seen if n >= 5_000]) == 20, "the neighbour's are handled", 20)

    async def finished() -> None:
        async with asyncio.timeout(PATIENCE):
            while sum((await member.subscription.lag()).values()) > 0:  # noqa: ASYNC110  (the code under test tells nobody)
                await asyncio.sleep(0.05)

    await finished()  # every broken event is a row: none keeps the partition
    release.set()


@pytest.mark.promise("P3")
async def test_a_poison_event_is_tried_again_then_kept_as_a_dead_letter_and_its_lane_goes_on(engine: Engine) -> None:
    tries, seen = list[int](), list[int]()

    async def handle(received: Received) -> Outcome:
        if number(received.event) == 1:
            tries.append(received.attempts)
            return Dead("it is poison") if received.attempts >= 2 else Retry(0.05, "it failed")
        seen.append(number(received.event))
        return Done()

    (project,) = neighbours(1)
    await engine.member(handle)
    await engine.publish(event(project, "lane", n) for n in range(5))
    await until(lambda: seen == [0, 2, 3, 4], "the lane goes on in order")
    assert tries == [0, 1, 2]
    assert [reason for _, reason in await engine.dead(project)] == ["it is poison"]


@pytest.mark.promise("P3")
async def test_a_handler_that_always_raises_is_tried_with_growing_pauses_then_given_up_and_its_lane_goes_on(engine: Engine) -> None:
    tries, seen = list[int](), list[int]()

    async def handle(received: Received) -> Outcome:
        if number(received.event) == 0:
            tries.append(received.attempts)
            raise ZeroDivisionError
        seen.append(number(received.event))
        return Done()

    (project,) = neighbours(1)
    member = await engine.member(handle, limits=Limits(hold=0.01))  # every pause becomes a row
    rows = member.recorded()
    await engine.publish(event(project, "lane", n) for n in range(2))
    await until(lambda: seen == [1], "the lane goes on")
    assert tries == [0, 1, 2, 3, 4]
    pauses = [w.delay for w in rows if w.item.offset == rows[0].item.offset and w.state == "deferred" and w.outcome is not None]
    assert len(pauses) == 4
    assert pauses == sorted(pauses)
    assert pauses[-1] > 3 * pauses[0]
    assert [reason for _, reason in await engine.dead(project)] == ["the handler failed: ZeroDivisionError"]


@pytest.mark.promise("P3")
async def test_a_lane_that_must_wait_becomes_rows_as_a_whole_and_comes_back_in_order(engine: Engine) -> None:
    seen, deferred = list[int](), False

    async def handle(received: Received) -> Outcome:
        nonlocal deferred
        if number(received.event) == 0 and not deferred:
            deferred = True
            return Defer(1.0, "later")
        seen.append(number(received.event))
        return Done()

    (project,) = neighbours(1)
    member = await engine.member(handle, limits=QUICK)
    await engine.publish(event(project, "lane", n) for n in range(10))
    await until(lambda: len(seen) == 10, "all come back")
    assert seen == list(range(10))
    await engine.publish([event(project, "lane", 10)])
    await until(lambda: len(seen) == 11, "the lane is back in memory")
    assert await member.drain()


async def test_a_blocked_project_waits_in_rows_until_it_is_unblocked_and_its_neighbour_goes_on(engine: Engine) -> None:
    seen = list[int]()

    async def handle(received: Received) -> Outcome:
        seen.append(number(received.event))
        return Done()

    paused, other = neighbours(2)
    member = await engine.member(handle, limits=QUICK)
    member.subscription.block(paused, "paused")
    await engine.publish([*(event(paused, "lane", n) for n in range(5)), event(other, "lane", 100)])
    await until(lambda: seen == [100], "the neighbour's is handled")
    member.subscription.unblock(paused)
    await until(lambda: seen == [100, 0, 1, 2, 3, 4], "they come back in order")


async def test_a_dead_letter_is_redriven_or_discarded(engine: Engine) -> None:
    seen, healed = list[tuple[int, bool]](), False

    async def handle(received: Received) -> Outcome:
        if not healed:
            return Dead("broken")
        seen.append((number(received.event), received.redriven))
        return Done()

    (project,) = neighbours(1)
    await engine.member(handle)
    await engine.publish(event(project, f"lane{n}", n) for n in range(2))
    for _ in range(400):
        if len(await engine.dead(project)) == 2:
            break
        await asyncio.sleep(0.05)
    letters = [letter for letter, _ in await engine.dead(project)]
    healed = True
    assert await engine.redrive(project, letters[0])
    assert await engine.discard(project, letters[1])
    await until(lambda: len(seen) == 1, "the redriven one is handled")
    assert seen[0][1]
    assert await engine.dead(project) == []
    assert not await engine.redrive(project, letters[1])


@pytest.mark.promise("P2")
async def test_an_orderly_drain_repeats_nothing(engine: Engine) -> None:
    seen: Counter[int] = Counter()

    async def handle(received: Received) -> Outcome:
        await asyncio.sleep(0.002)
        seen[number(received.event)] += 1
        return Done()

    (project,) = neighbours(1)
    for part in range(3):
        member = await engine.member(handle)
        await engine.publish(event(project, f"lane{n % 20}", part * 100 + n) for n in range(100))
        await until(lambda part=part: len(seen) > part * 100 + 30, "it is in the middle")
        assert await member.drain()
    last = await engine.member(handle)
    await until(lambda: len(seen) == 300, "all are handled")
    assert await last.drain()
    assert set(seen.values()) == {1}


@pytest.mark.promise("P1")
async def test_the_largest_event_arrives_whole_and_one_that_is_larger_is_refused_for_good(engine: Engine) -> None:
    got = list[int]()

    async def handle(received: Received) -> Outcome:
        got.append(len(received.event.to_json()))
        return Done()

    (project,) = neighbours(1)
    await engine.member(handle)
    room = LARGEST - len(event(project, "lane", 0).to_json())
    with pytest.raises(EventTooLarge):
        await engine.publish([event(project, "lane", 0, size=room + 1)])
    await engine.publish([event(project, "lane", 1, size=room), event(project, "lane", 2)])
    await until(lambda: len(got) == 2, "it arrived, and the next one")
    assert got[0] == LARGEST


@pytest.mark.promise("P3")
async def test_a_large_event_dies_at_once_and_its_lane_goes_on(engine: Engine) -> None:
    seen = list[int]()

    async def handle(received: Received) -> Outcome:
        if number(received.event) == 0:
            return Dead("it is poison")
        if number(received.event) == 1:
            return Done((endless,))
        seen.append(number(received.event))
        return Done()

    (project,) = neighbours(1)
    data = ConversationChanged(conversation_id=uuid4(), state="x" * LARGEST, version=1, at=datetime.now(UTC))
    endless = AnyEvent.of(data, id=uuid4(), source="/bot-runner", time=datetime.now(UTC), project=project, lane="lane")
    await engine.member(handle)
    await engine.publish([event(project, "lane", 0, size=4_000_000), event(project, "lane", 1), event(project, "lane", 2)])
    await until(lambda: seen == [2], "the lane goes on")
    assert sorted(reason.partition(":")[0] for _, reason in await engine.dead(project)) == [
        "it is poison",
        "what follows from it cannot be said",
    ]


@pytest.mark.promise("P3")
async def test_a_member_takes_no_more_than_its_span_into_memory_and_says_how_far_behind_it_is(engine: Engine) -> None:
    release, started = asyncio.Event(), list[int]()

    async def handle(received: Received) -> Outcome:
        started.append(number(received.event))
        await release.wait()
        return Done()

    (project,) = neighbours(1)
    limits = Limits(concurrency=4, project_cap=4, span=100, lane_depth=1_000, project_depth=100_000, hold=60)
    member = await engine.member(handle, limits=limits)
    await engine.publish(event(project, f"lane{n % 7}", n) for n in range(900))
    await until(lambda: len(started) == 4, "it has begun")

    async def lag() -> int:
        return sum((await member.subscription.lag()).values())

    for _ in range(400):
        if await lag() == 900:
            break
        await asyncio.sleep(0.02)
    assert await lag() == 900
    windows = member.subscription._consumer.lanes._windows  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]  (memory is what this is about)
    assert max(len(w._open) for w in windows.values()) <= 100 + 200  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]  (span, and one fetch)
    release.set()
    await until(lambda: len(started) == 900, "all are handled")


async def test_batches_are_of_one_project_with_an_outcome_for_each_event(engine: Engine) -> None:
    calls, handled = list[tuple[str, int]](), Counter[int]()

    async def handle(batch: Sequence[Received]) -> Sequence[Outcome]:
        assert len({r.event.projectid for r in batch}) == 1
        calls.append((batch[0].event.projectid, len(batch)))
        outcomes: list[Outcome] = []
        for r in batch:
            bad = number(r.event) == 7 and r.attempts == 0
            handled[number(r.event)] += not bad
            outcomes.append(Retry(0.05, "once more") if bad else Done())
        return outcomes

    one, two = neighbours(2)
    bus = await engine.bus("bot-runner")
    subscription = bus.subscribe_batches(engine.group, [INBOX], handle, Batching(most=25, linger=0.02))
    task = asyncio.create_task(subscription.run())
    await engine.publish(event((one, two)[n % 2], f"lane{n % 3}", n) for n in range(100))
    await until(lambda: sum(handled.values()) == 100, "all are handled")
    assert max(size for _, size in calls) <= 25
    assert len(calls) < 40
    assert await subscription.drain(10)
    await task
    await bus.stop()


async def test_a_table_holds_the_last_value_of_each_key_forgets_tombstones_and_follows(engine: Engine) -> None:
    bus = await engine.bus("provisioner")

    def listed(project: str, name: str) -> Event[Payload]:
        data = ProjectListed(project_id=project, organization_id="o", name=name, state="ready")
        return Event[Payload].of(
            data, id=fact_id("t", project, name), source="/provisioner", time=datetime.now(UTC), project=project, lane="project"
        )

    one, two = neighbours(2)
    await bus.publish(listed(one, "first"), listed(two, "first"))
    await bus.publish(listed(one, "second"))
    table, changes = bus.table(DIRECTORY), list[tuple[str, bool]]()
    table.on_change(lambda key, value: changes.append((key, value is None)))
    task = asyncio.create_task(table.run())
    async with asyncio.timeout(20):
        await table.caught_up()
    found = table.get(f"{one}:project")
    assert found is not None
    assert isinstance(found.data, ProjectListed)
    assert found.data.name == "second"
    assert table.age() < 5
    await bus.remove(DIRECTORY, project=two, lane="project")
    await until(lambda: table.get(f"{two}:project") is None, "the tombstone is seen")
    assert (f"{two}:project", True) in changes
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bus.stop()


async def test_a_tail_gives_what_is_published_from_now_on(engine: Engine) -> None:
    (project,) = neighbours(1)
    await engine.publish([event(project, "lane", 0)])
    got = list[int]()
    bus = await engine.bus("bot-runner")

    async def follow() -> None:
        async for found in bus.tail(INBOX):
            if found.projectid == project:
                got.append(number(found))

    task = asyncio.create_task(follow())
    n = 1
    for _ in range(200):
        await engine.publish([event(project, "lane", n)])
        n += 1
        await asyncio.sleep(0.05)
        if got:
            break
    assert got
    assert 0 not in got
    assert got == sorted(got)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bus.stop()


@pytest.mark.promise("P4")
async def test_a_service_cannot_say_what_the_catalog_does_not_let_it_say(engine: Engine) -> None:
    bus = await engine.bus("bot-runner")
    with pytest.raises(PermissionError):
        await bus.publish(event("p", "lane", 0))
    await bus.stop()
