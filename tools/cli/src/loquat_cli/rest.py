"""Loquat's REST API and the simulator's, as the command line and the stack's own start use them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from loquat_common.problems import ProblemDocument
from pydantic import ValidationError

from loquat_cli.errors import Trouble

_LIMIT: Final = 30.0  # seconds for an answer, beside what a long poll waits
_REFUSED, _BUSY, _SERVER = 400, 429, 500
MOST: Final = 200
"""Items of a page at most."""


class Refused(Trouble):
    """The server said no. The text is its own."""

    def __init__(self, status: int, body: object) -> None:
        try:
            problem = ProblemDocument.model_validate(body)
        except ValidationError:
            problem = ProblemDocument(status=status, code="", title=f"It answered with status {status}")
        self.status, self.code = status, problem.code
        more = problem.model_extra or {}
        several = len(more.get("flaws", ())) + len(more.get("reasons", ())) > 1  # each is told below: none of them twice
        sentence = ": ".join(w for w in (problem.title, None if several else problem.detail) if w)
        place = [f"{k} {v}" for k, v in more.items() if k in {"file", "line"} and v is not None]
        if place and not several and str(more.get("file")) not in sentence:
            sentence += f" ({', '.join(place)})"
        wrong = [f"{e.field}: {e.message}" for e in problem.errors or () if e.message not in sentence]
        super().__init__("\n  ".join([sentence, *wrong, *_explained(more, sentence)]))


def _explained(more: Mapping[str, Any], sentence: str) -> Iterator[str]:
    """Each flaw of a bot, each reason against a deployment, with what to do about it."""
    for found in (*more.get("flaws", ()), *more.get("reasons", ())):
        said = str(found.get("message") or found.get("detail") or "")
        if len(more.get("flaws", ())) + len(more.get("reasons", ())) > 1 or said not in sentence:
            yield f"- {said}"
        yield from (f"    {line}" for line in str(found.get("trace") or "").splitlines())
        if found.get("advice"):
            yield f"  {found['advice']}"
    if more.get("advice") and "flaws" not in more:
        yield str(more["advice"])


class Away(Trouble):
    """Nobody answers there."""


def passes(trouble: Away | Refused) -> bool:
    """Whether the same may be answered in a moment."""
    return isinstance(trouble, Away) or trouble.status >= _SERVER or trouble.status == _BUSY


class Rest:
    """One server, one key. Use as an async context manager."""

    def __init__(self, base: str, key: str | None = None) -> None:
        self.base, self._key = base.rstrip("/"), key
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(headers=headers)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, query: Mapping[str, str | int] | None = None, *, patience: float = _LIMIT) -> Any:
        """The answer of a question."""
        return await self._call("GET", path, params={k: str(v) for k, v in (query or {}).items()}, patience=patience)

    async def pages(self, path: str, query: Mapping[str, str | int] | None = None) -> AsyncGenerator[Any]:
        """The answers of a list, page by page, to its end."""
        asked = dict(query or {})
        while True:
            page = await self.get(path, asked)
            yield page
            if page.get("next_cursor") is None:
                return
            asked["cursor"] = page["next_cursor"]

    async def all(self, path: str) -> list[Any]:
        """All items of a list."""
        return [item async for page in self.pages(path, {"limit": MOST}) for item in page["items"]]

    async def post(self, path: str, body: object = None, *, headers: dict[str, str] | None = None, patience: float = _LIMIT) -> Any:
        """The answer to a wish."""
        return await self._call("POST", path, body=body, headers=headers, patience=patience)

    async def put(self, path: str, body: object, *, headers: dict[str, str] | None = None, patience: float = _LIMIT) -> Any:
        """What is there now."""
        return await self._call("PUT", path, body=body, headers=headers, patience=patience)

    async def patch(self, path: str, body: object, *, patience: float = _LIMIT) -> Any:
        """What it is now."""
        return await self._call("PATCH", path, body=body, patience=patience)

    async def delete(self, path: str, query: Mapping[str, str | int] | None = None) -> Any:
        """What goes, or nothing."""
        return await self._call("DELETE", path, params={k: str(v) for k, v in (query or {}).items()})

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        patience: float = _LIMIT,
    ) -> Any:
        """The parsed body; None for none.

        Raises:
            Refused: the server said no.
            Away: it does not answer.
        """
        if self._session is None:
            raise RuntimeError("use Rest as an async context manager")
        try:
            async with self._session.request(
                method, self.base + path, json=body, params=params, headers=headers, timeout=aiohttp.ClientTimeout(total=patience)
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Away(f"{self.base} does not answer ({type(error).__name__}); is Loquat running?") from None
        try:
            parsed = json.loads(raw) if raw else None
        except ValueError:
            parsed = None
        if response.status >= _REFUSED:
            raise Refused(response.status, parsed)
        return parsed
