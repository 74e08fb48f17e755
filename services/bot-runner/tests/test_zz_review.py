from __future__ import annotations
from collections.abc import AsyncGenerator
from pathlib import Path
import pytest
from loquat_embedded.postgres import Cluster
from loquat_sandbox import Measured
from conftest import open_platform
from tests.botbench import Bench, bot, bundles_in, open_bench
from tests.tenants import Tenants
from loquat_events.elements import inbound


import tests.botbench as bb
_load = bb.load
bb.load = lambda *a: [m for m in _load(*a) if m.number != 7]

@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Path, tenants: Tenants, measured: Measured) -> AsyncGenerator[Bench]:
    async with (
        open_platform(platform_cluster) as platform,
        open_bench(platform, bundles_in(clusters_home), tenants, measured.sandbox) as made,
    ):
        yield made


@pytest.fixture
async def bench(shared: Bench) -> Bench:
    return await shared.anew()


async def test_deep(bench: Bench) -> None:
    await bench.deploy(files=bot("one"))
    await bench.say("1")
    for who in ("root", "editor", "bot"):
        c = await (bench.project.root() if who == "root" else bench.project.login(who))
        try:
            print(
                who,
                await c.execute(
                    "UPDATE public.contacts SET attributes = jsonb_build_object('x', (repeat('[', 1500) || repeat(']', 1500))::jsonb)"
                ),
            )
        except Exception as e:
            print(who, "EXC", e)
    try:
        print(await bench.say("1"))
    except BaseException as e:
        print("EXC", type(e), str(e)[:200])
    other = bench.message("50")
    runs = bench.inbox._runs
    begun = await runs.begin(bench.time.listed, inbound(other), None)
    d = []
    for _ in range(300):
        d = [d]
    try:
        print(await runs.commit(bench.time.listed, other.id, begun.version, {"replies": [], "contact": {"attributes": {"x": d}}}))
    except BaseException as e:
        print("EXC", type(e), type(e).__mro__, str(e)[:200])
