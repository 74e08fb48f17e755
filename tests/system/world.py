"""A running Loquat as a test sees it from outside: REST with an API key, signed webhooks, the simulator's phone, and an administrator's look
into each project's database."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import aiohttp
import asyncpg

from tests.system.webhooks import WABA, signature

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PATIENCE = 30.0  # seconds that a condition may take to become true on a busy machine
T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T | None]], what: str, patience: float = PATIENCE) -> T:
    """The first answer of `look` that is true. Asks again every 50 ms."""
    try:
        async with asyncio.timeout(patience):
            while not (answer := await look()):  # noqa: ASYNC110  (no event crosses processes)
                await asyncio.sleep(0.05)
            return answer
    except TimeoutError:
        raise AssertionError(f"not within {patience:g} s: {what}") from None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(repr=False, default_factory=dict[str, str])


@dataclass(slots=True)
class World:
    """What one stack's tests share."""

    gateway: str
    simulator: str
    api_key: str = field(repr=False)
    app_secret: str = field(repr=False)
    verify_token: str = field(repr=False)
    tenants: Callable[[str], Awaitable[Connection]]
    session: aiohttp.ClientSession
    numbers: int = 0
    tokens: list[str] = field(default_factory=list[str], repr=False)
    opened: list[Connection] = field(default_factory=list["Connection"])

    async def rest(self, method: str, path: str, json: object = None, *, key: str | None = None, headers: Mapping[str, str] = {}) -> Answer:
        """One REST call with the owner's key, or another, or none (empty)."""
        secret = self.api_key if key is None else key
        sent = {**({"Authorization": f"Bearer {secret}"} if secret else {}), **headers}
        async with self.session.request(
            method, self.gateway + path, json=json, headers=sent, timeout=aiohttp.ClientTimeout(total=20)
        ) as response:
            return Answer(
                response.status, await response.json(content_type=None) if response.status != 204 else None, dict(response.headers)
            )

    async def good(self, method: str, path: str, json: object = None, **more: Any) -> Any:
        """The body of a call that must succeed."""
        answer = await self.rest(method, path, json, **more)
        assert answer.status < 300, f"{method} {path}: {answer}"
        return answer.body

    async def project(self, name: str, files: Mapping[str, str] | None = None) -> str:
        """A ready project, with a bot of its own if files are given."""
        project: str = (await self.good("POST", "/v1/projects", {"name": name}))["id"]

        async def ready() -> bool:
            view = await self.good("GET", f"/v1/projects/{project}")
            assert view["status"] != "failed", view
            return view["status"] == "ready"

        await until(ready, f"{name} is ready")
        if files is not None:
            await self.good("POST", f"/v1/projects/{project}/bot/deployments", {"files": dict(files), "message": "first"})
        return project

    async def number(self, project: str) -> str:
        """A number of the project, known to the simulator, routed by the gateway."""
        self.numbers += 1
        number = f"{uuid4().int % 10**12:012}{self.numbers:03}"
        token = f"EAA{uuid4().hex}"
        self.tokens.append(token)
        await self.simulate(
            "POST",
            "/api/numbers",
            {
                "phone_number_id": number,
                "waba_id": WABA,
                "display_phone_number": f"1555{number[-7:]}",
                "token": token,
                "webhook_url": f"{self.gateway}/webhooks/whatsapp",
                "app_secret": self.app_secret,
                "verify_token": self.verify_token,
            },
        )
        await self.good("POST", f"/v1/projects/{project}/numbers", {"phone_number_id": number, "waba_id": WABA, "token": token})
        return number

    async def simulate(self, method: str, path: str, json: object = None) -> Any:
        """One call of the simulator's API for tests."""
        async with self.session.request(method, self.simulator + path, json=json, timeout=aiohttp.ClientTimeout(total=40)) as response:
            assert response.status < 300, f"{method} {path}: {response.status} {await response.text()}"
            return await response.json(content_type=None) if response.status != 204 else None

    async def deliver(self, raw: bytes, *, signed: str | None = None) -> int:
        """Posts a webhook as Meta would; the status. A refused connection is 0: the gateway is being restarted."""
        headers = {"X-Hub-Signature-256": signature(self.app_secret, raw) if signed is None else signed, "Content-Type": "application/json"}
        try:
            async with self.session.post(
                f"{self.gateway}/webhooks/whatsapp", data=io.BytesIO(raw), headers=headers, timeout=aiohttp.ClientTimeout(total=20)
            ) as response:
                return response.status
        except (aiohttp.ClientError, OSError):
            return 0

    async def deliver_until_kept(self, raw: bytes) -> None:
        """What Meta does: the same body again until it is answered 200."""

        async def kept() -> bool:
            return await self.deliver(raw) == 200

        await until(kept, "the webhook is answered 200", 60)

    async def database(self, project: str) -> Connection:
        """An administrator's connection to the project's own database; closed after the test."""
        root = await self.tenants("postgres")
        names = [r["datname"] for r in await root.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'p\\_%' AND datallowconn")]
        await root.close()
        for name in names:
            connection = await self.tenants(name)
            if await connection.fetchval("SELECT project FROM loquat.identity") == project:
                self.opened.append(connection)
                return connection
            await connection.close()
        raise AssertionError(f"no database says it is {project}'s")

    async def got(self, number: str, contact: str, count: int) -> list[dict[str, Any]]:
        """What the contact's phone shows from this number, once there are at least `count`."""

        async def enough() -> list[dict[str, Any]] | None:
            messages = (await self.simulate("GET", f"/api/messages?phone_number_id={number}&contact={contact}"))["messages"]
            return messages if len(messages) >= count else None

        return await until(enough, f"{contact} got {count} messages from {number}")

    async def quiet(self, project: str) -> dict[str, int]:
        """The ledger once nothing of the project waits or is deferred."""

        async def still() -> dict[str, int] | None:
            answer = await self.rest("GET", f"/v1/projects/{project}/ledger")
            if answer.status == 503:  # who answers it was killed
                return None
            ledger: dict[str, int] = answer.body
            return ledger if answer.status == 200 and ledger["waiting"] == 0 and ledger["deferred"] == 0 else None

        return await until(still, f"{project} is quiet", 60)


def balanced(ledger: Mapping[str, int]) -> bool:
    """P7: accepted = handled + held + expired + discarded + deferred + dead + waiting."""
    return (
        ledger["accepted"] == sum(ledger[w] for w in ("handled", "held", "expired", "discarded", "deferred", "dead", "waiting"))
        and ledger["waiting"] >= 0
    )
