"""Throw-away copies: made while the project goes on, reached by their own login alone, gone whatever happens."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from loquat_bot_runner.adapters.clones import Clone, Clones
from loquat_common.client import InternalClient
from loquat_common.failpoints import FailpointError, Failpoints
from loquat_common.http import Api, internal_auth
from loquat_common.lifecycle import Server
from loquat_common.problems import Problem
from loquat_common.settings import ClusterAddress
from loquat_common.tokens import Signer, Verifier, new_key
from loquat_embedded.postgres import Cluster
from loquat_events.projects import ProjectListed
from loquat_provisioner.adapters import throwaway
from loquat_provisioner.adapters.previews import InTheWay, PreviewStore
from loquat_provisioner.adapters.store import Project
from loquat_provisioner.adapters.throwaway import Clearing
from loquat_provisioner.domain.life import LOGINS, Names
from loquat_provisioner.http.places import Places
from loquat_provisioner.http.previews import Previews
from pydantic import SecretStr

from conftest import open_platform
from services.provisioner.tests.workshop import Workshop, create, gone, open_workshop
from tests.tenants import PASSWORD, Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

LARGEST = 64 << 20


@dataclass(slots=True)
class Attic:
    """A provisioner's API as bot-runner asks it, and the project that is copied."""

    shop: Workshop
    project: Project
    rows: PreviewStore
    clones: Clones
    clearing: Clearing
    previews: Previews

    @property
    def listed(self) -> ProjectListed:
        known = self.project
        return ProjectListed(
            project_id=known.project_id,
            organization_id=known.organization_id,
            name=known.name,
            state="ready",
            cluster="tenants",
            database=known.database,
            epoch=known.epoch,
        )

    @property
    def own(self) -> set[str]:
        """What the project itself is on the cluster."""
        names = Names(self.project.database or "")
        return {names.database, names.owner, *(names.login(kind) for kind in LOGINS)}

    async def make(self, preview: UUID | None = None) -> Clone:
        return await self.clones.make(self.listed, preview or uuid4())

    async def refused(self, code: str, asking: Any) -> Problem:
        with pytest.raises(Problem) as caught:
            await asking
        assert caught.value.code == code
        return caught.value

    async def enter(self, clone: Clone, database: str | None = None) -> Connection:
        return await self.shop.tenants.connect(database or clone.login.database, clone.login.user, clone.login.password)

    async def age(self, column: str) -> None:
        """Long ago it was."""
        await self.shop.pool.execute(f"UPDATE previews SET {column} = {column} - interval '3 hours'")  # noqa: S608

    async def clear(self) -> None:
        """Nothing is left but the project, which goes on."""
        await self.clearing.once()
        assert await self.shop.names() == self.own
        assert await self.shop.pool.fetchval("SELECT count(*) FROM previews") == 0
        bot = await self.shop.enter(self.project, "bot")
        await bot.close()


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, tenants: Tenants, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Attic]:
    async with (
        open_platform(platform_cluster) as platform,
        open_workshop(platform, tenants, tmp_path_factory.mktemp("attic")) as shop,
        _open(shop) as made,
    ):
        yield made


@pytest.fixture
async def attic(shared: Attic) -> AsyncGenerator[Attic]:
    yield shared
    await shared.shop.pool.execute("UPDATE previews SET state = 'going', used_at = '-infinity'")
    await shared.clearing.once()


@asynccontextmanager
async def _open(shop: Workshop) -> AsyncGenerator[Attic]:
    databases = {"tenants": shop.databases()}
    address = ClusterAddress(host=shop.tenants.cluster.host, port=shop.tenants.cluster.port, password=SecretStr(PASSWORD))
    places = Places(shop.store, databases, {"tenants": address}, {})
    points, rows = Failpoints(shop.folder / "points"), PreviewStore(shop.pool, shop.ring)
    clearing = Clearing(rows, databases, points)
    private, public = new_key()
    api = Api("Provisioner", "1", authenticate=internal_auth(Verifier({"bot-runner": public}, "provisioner")))
    previews = Previews(places, rows, databases, clearing, points, LARGEST, rest=0)
    previews.add_to(api)
    server = Server(api.app(), "127.0.0.1", 0)
    await server.start()
    client = InternalClient(f"http://127.0.0.1:{server.port}", Signer("bot-runner", private), "provisioner")
    await client.start()
    yield Attic(shop, await shop.project(), rows, Clones(client), clearing, previews)
    await client.stop()
    await server.stop()
    await databases["tenants"].close()


@pytest.mark.promise("P4")
async def test_a_copy_is_made_while_the_project_goes_on_and_its_login_reaches_nothing_else(attic: Attic) -> None:
    shop, project = attic.shop, attic.project
    editor, resting = await shop.enter(project, "editor"), await shop.enter(project, "bot")
    await editor.execute("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)")
    said, listed = len(shop.said(project.project_id)), shop.listings(project.project_id)
    clone = await attic.make()
    for session in (editor, resting):
        await gone(session)
    assert (len(shop.said(project.project_id)), shop.listings(project.project_id)) == (said, listed), "nobody was told anything"
    bot = await attic.enter(clone)
    assert await bot.fetchval("SELECT current_user") == Names(clone.login.database).owner
    await bot.execute("INSERT INTO orders VALUES (2)")
    assert await bot.fetchval("SELECT array_agg(id ORDER BY id) FROM orders") == [1, 2]
    service = await shop.tenants.connect(clone.login.database, "loquat_bot_runner")
    assert tuple(await service.fetchrow("SELECT * FROM loquat.whoami()") or ())[:2] == (project.project_id, project.epoch + 1)
    editor = await shop.enter(project, "editor")
    assert await editor.fetchval("SELECT array_agg(id) FROM orders") == [1]
    for database in (project.database, "postgres"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await attic.enter(clone, database)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
        await shop.enter(project, "bot", clone.login.database)
    for role in (project.database or "", *(Names(project.database or "").login(k) for k in LOGINS)):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError)):
            await bot.execute(f'SET ROLE "{role}"')
    assert [p.project_id for p in await shop.store.of_organization(project.organization_id, 10)] == [project.project_id]
    for connection in (bot, service, editor):
        await connection.close()


async def test_a_project_has_one_copy_that_goes_when_another_is_made_it_is_left_unused_or_the_project_goes(attic: Attic) -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    await attic.make(first)
    clone = await attic.make(second)
    await attic.refused("preview_gone", attic.clones.use(attic.listed, first))
    await attic.clearing.once()
    left = Names(clone.login.database)
    assert await attic.shop.names() == attic.own | {left.database, left.owner, left.login("bot")}
    assert (await attic.clones.use(attic.listed, second)).login == clone.login
    await attic.age("used_at")
    await attic.refused("preview_gone", attic.clones.use(attic.listed, second))
    await attic.clear()
    await attic.make(third)
    await attic.clones.drop(attic.project.project_id, third)
    await attic.refused("not_found", attic.clones.drop(attic.project.project_id, third))
    await attic.clear()
    preview = await attic.rows.reserve(attic.project, uuid4())
    await attic.rows.ready(preview.preview_id)
    await attic.shop.store.state(attic.project.project_id, "deleting")
    await attic.clear()
    await attic.shop.store.state(attic.project.project_id, "ready")


async def test_what_is_too_large_too_busy_or_too_many_is_refused_with_the_reason(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attic.previews, "_largest", 1)
    refused = await attic.refused("too_large", attic.make())
    assert "database: live" in (refused.detail or "")
    monkeypatch.undo()
    monkeypatch.setitem(attic.previews._resting, attic.project.project_id, time.monotonic() + 60)
    await attic.refused("too_often", attic.make())
    monkeypatch.undo()
    attic.previews._resting.clear()
    monkeypatch.setattr(throwaway, "_PATIENCE", 0.1)
    monkeypatch.setattr(throwaway, "_LONG", timedelta())
    editor = await attic.shop.enter(attic.project, "editor")
    async with editor.transaction():
        await attic.refused("database_busy", attic.make())
        assert await editor.fetchval("SELECT 1") == 1, "nobody is sent away in the middle of something"
    await editor.close()
    monkeypatch.setattr(throwaway, "_LOCKED", 0.001)
    refused = await attic.refused("database_busy", attic.make())
    assert "others have to wait" in (refused.detail or "")
    monkeypatch.undo()
    attic.previews._resting.clear()
    await attic.shop.pool.execute("UPDATE previews SET state = 'going'")
    with pytest.raises(InTheWay, match="0 previews"):
        await PreviewStore(attic.shop.pool, attic.shop.ring, most=0).reserve(attic.project, uuid4())


@pytest.mark.promise("P4")
async def test_where_all_places_are_taken_an_organization_with_many_gives_up_the_one_it_used_longest_ago(attic: Attic) -> None:
    rows = PreviewStore(attic.shop.pool, attic.shop.ring, most=3)

    async def of(organization: str) -> UUID:
        """One more project's, ready."""
        order = create(organization=organization)
        project = replace(await attic.shop.store.accept(order), cluster="away", database="p_000000000000")
        preview = await rows.reserve(project, uuid4())
        assert await rows.ready(preview.preview_id)
        return preview.preview_id

    many = [await of("many") for _ in range(3)]
    assert await rows.use((await attic.shop.pool.fetchval("SELECT project_id FROM previews WHERE preview_id = $1", many[0])), many[0])
    with pytest.raises(InTheWay, match="3 previews"):
        await of("many")
    other = await of("other")
    left = await attic.shop.pool.fetch("SELECT preview_id FROM previews WHERE state <> 'going'")
    assert {r["preview_id"] for r in left} == {many[0], many[2], other}
    with pytest.raises(InTheWay, match="3 previews"):
        await of("other")
    await attic.shop.pool.execute("DELETE FROM previews")


async def test_no_copy_of_before_is_used_once_a_person_is_erased_from_its_project(attic: Attic) -> None:
    ready, unfinished = uuid4(), uuid4()
    await attic.make(ready)
    await attic.clones.drop_all(attic.project.project_id)
    await attic.refused("preview_gone", attic.clones.use(attic.listed, ready))
    await attic.clearing.once()
    await attic.rows.reserve(attic.project, unfinished)
    await attic.clones.drop_all(attic.project.project_id)
    assert not await attic.rows.ready(unfinished)
    assert await attic.clearing.once() == 0, "whoever makes it may be at it still"
    await attic.clones.drop_all(attic.project.project_id)
    await attic.age("used_at")
    await attic.clear()


async def test_whoever_dies_while_a_copy_is_made_or_dropped_leaves_an_open_project_and_a_row_that_leads_to_the_rest(attic: Attic) -> None:
    points, databases = Failpoints(attic.shop.folder / "points"), attic.shop.databases()
    for point in ("copied", "opened"):
        preview = await attic.rows.reserve(attic.project, uuid4())
        attic.shop.arm(f"provisioner.preview.{point}")
        with pytest.raises(FailpointError):
            await throwaway.make(databases, attic.project, preview, PASSWORD, LARGEST, points)
        bot = await attic.shop.enter(attic.project, "bot")
        await bot.close()
        await attic.refused("preview_being_made", attic.make())
        assert await attic.clearing.once() == 0, "whoever makes it may be at it still"
        await attic.age("made_at")
        if point == "opened":
            attic.shop.arm("provisioner.preview.dropped")
            with pytest.raises(FailpointError):
                await attic.clearing.once()
            await attic.age("used_at")
        await attic.clear()
    await databases.close()
