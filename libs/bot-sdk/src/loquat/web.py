"""`ctx.http`: requests to services outside, bounded in time and size."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    import aiohttp

SECONDS: Final = 5.0
"""For a request as a whole, unless it says otherwise: half of what a handler has."""
LONGEST: Final = 60.0
BYTES: Final = 1 << 20
"""Of an answer, unless the request says otherwise."""
MOST_BYTES: Final = 16 << 20
_REDIRECTS: Final = 5
_CONNECTIONS: Final = 20  # at once, of one bot
_PIECE: Final = 1 << 16
_FAILED: Final = 400


class HttpFailed(OSError):
    """No answer, or none that could be taken: who was asked does not answer, not in time, too much, or with an error."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `most`: bytes of the answer."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes | None = field(default=None, repr=False)
    seconds: float = SECONDS
    most: int = BYTES

    def __repr__(self) -> str:
        return f"Request({self.method} {urlsplit(self.url)._replace(query='', fragment='').geturl()})"

    def json(self) -> Any:
        """The body, read as JSON."""
        return jsonlib.loads(self.body or b"null")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status. Names of headers are in small letters."""

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Answer:
        """Of JSON: for tests."""
        return cls(status, jsonlib.dumps(value).encode(), {"content-type": "application/json"})

    @property
    def ok(self) -> bool:
        """Whether it is no error."""
        return self.status < _FAILED

    @property
    def text(self) -> str:
        """As UTF-8."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """Read as JSON.

        Raises:
            HttpFailed: it is none.
        """
        try:
            return jsonlib.loads(self.body)
        except ValueError:
            raise HttpFailed(f"the answer (status {self.status}) is no JSON") from None

    def raise_for_status(self) -> Answer:
        """Itself.

        Raises:
            HttpFailed: its status is 400 or more.
        """
        if not self.ok:
            raise HttpFailed(f"the answer's status is {self.status}")
        return self


Send = Callable[[Request], Awaitable[Answer]]


class Http:
    """`await ctx.http.get("https://example.org/", params={"q": "tea"})`. An answer of any status is an answer; see `raise_for_status`.

    A request may happen more than once, as the event is tried again: `str(ctx.event.id)` is an idempotency key.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        data: bytes | Mapping[str, Any] | None = None,
        seconds: float = SECONDS,
        most: int = BYTES,
    ) -> Answer:
        """Asks. `data` is bytes, or the fields of a form; `seconds` at most 60, `most` bytes of an answer at most 16 MiB.

        Raises:
            HttpFailed: there is no answer that could be taken.
            ValueError: such a request cannot be made.
        """
        if json is not None and data is not None:
            raise ValueError("give json or data, one of both")
        if not 0 < seconds <= LONGEST or not 0 <= most <= MOST_BYTES:
            raise ValueError(f"seconds are at most {LONGEST:g}, most is at most {MOST_BYTES} bytes")
        kind, body = _body(json, data)
        named = {**({"Content-Type": kind} if kind else {}), **(headers or {})}
        return await self._send(Request(method.upper(), _address(url, params), named, body, seconds, most))

    async def get(self, url: str, **more: Any) -> Answer:
        """See `request`."""
        return await self.request("GET", url, **more)

    async def post(self, url: str, **more: Any) -> Answer:
        """See `request`."""
        return await self.request("POST", url, **more)

    async def put(self, url: str, **more: Any) -> Answer:
        """See `request`."""
        return await self.request("PUT", url, **more)

    async def patch(self, url: str, **more: Any) -> Answer:
        """See `request`."""
        return await self.request("PATCH", url, **more)

    async def delete(self, url: str, **more: Any) -> Answer:
        """See `request`."""
        return await self.request("DELETE", url, **more)


def _body(json: Any, data: bytes | Mapping[str, Any] | None) -> tuple[str | None, bytes | None]:
    if json is not None:
        return "application/json", jsonlib.dumps(json).encode()
    if isinstance(data, Mapping):
        return "application/x-www-form-urlencoded", urlencode(data).encode()
    return None, data


def _address(url: str, params: Mapping[str, Any] | None) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"an address begins with https:// or http:// and a host, unlike {url!r}"[:200])
    if not params:
        return url
    return urlunsplit(parts._replace(query="&".join(q for q in (parts.query, urlencode(params, doseq=True)) if q)))


class Client:
    """Sends requests, through the proxy that HTTPS_PROXY and HTTP_PROXY name. aiohttp is loaded at the first of them: most bots send none."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Answer:
        """See `Http.request`."""
        import aiohttp  # noqa: PLC0415

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS), cookie_jar=aiohttp.DummyCookieJar(), trust_env=True
            )
        where = urlsplit(request.url).hostname
        try:
            async with self._session.request(
                request.method,
                request.url,
                headers=request.headers,
                data=request.body,
                timeout=aiohttp.ClientTimeout(total=request.seconds),
                max_redirects=_REDIRECTS,
            ) as response:
                body = bytearray()
                async for piece in response.content.iter_chunked(_PIECE):
                    body += piece
                    if len(body) > request.most:
                        raise HttpFailed(f"the answer of {where} has more than {request.most} bytes")
                return Answer(response.status, bytes(body), {k.lower(): v for k, v in response.headers.items()})
        except TimeoutError:
            raise HttpFailed(f"{where} did not answer within {request.seconds:g} s") from None
        except aiohttp.InvalidURL:
            raise ValueError("the request's address is none") from None
        except aiohttp.ClientHttpProxyError as error:
            raise HttpFailed(f"{where} could not be asked: the proxy answered {error.status} {error.message}"[:300]) from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, HttpFailed):
                raise
            raise HttpFailed(f"{where} could not be asked: {type(error).__name__}") from None

    async def close(self) -> None:
        """Ends its connections."""
        if self._session is not None:
            await self._session.close()
