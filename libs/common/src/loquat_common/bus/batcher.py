"""Batches: joins events of one project that came about the same time into one call, with an outcome for each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from loquat_common.bus.port import BatchHandler, Batching, Defer, Outcome, Received


@dataclass(slots=True)
class _Queue:
    waiting: list[tuple[Received, asyncio.Future[Outcome]]] = field(default_factory=list[tuple[Received, "asyncio.Future[Outcome]"]])
    task: asyncio.Task[None] | None = None


class Batcher:
    """A handler of single events that calls a handler of batches: per project one call at a time, in order of arrival.

    Bounded by the subscription: no more events are in here than it runs at once.
    """

    def __init__(self, handler: BatchHandler, batching: Batching) -> None:
        self._handler, self._batching = handler, batching
        self._queues: dict[str, _Queue] = {}

    async def handle(self, received: Received) -> Outcome:
        """The outcome of this event, once a batch with it was handled."""
        project = received.event.projectid
        queue = self._queues.setdefault(project, _Queue())
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        queue.waiting.append((received, future))
        if queue.task is None:
            queue.task = asyncio.create_task(self._work(project, queue), name=f"batches {project}")
        return await future

    async def _work(self, project: str, queue: _Queue) -> None:
        while queue.waiting:
            if len(queue.waiting) < self._batching.most:
                await asyncio.sleep(self._batching.linger)
            taken = [(r, f) for r, f in queue.waiting[: self._batching.most] if not f.done()]  # done: its member lost the partition
            del queue.waiting[: self._batching.most]
            await self._call(taken)
        queue.task = None
        self._queues.pop(project, None)

    async def _call(self, taken: list[tuple[Received, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes: Sequence[Outcome] = await self._handler([r for r, _ in taken]) if taken else ()
        except Exception as error:  # noqa: BLE001  (given to each waiting event, whose subscription decides)
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for n, (_, future) in enumerate(taken):
            if not future.done():
                future.set_result(outcomes[n] if n < len(outcomes) else Defer(5, "the batch gave no outcome for it"))
