"""Import over real HTTP: what becomes rows, and what is said of the lines that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from loquat_common.metrics import REGISTRY
from loquat_schema_manager.adapters import imports
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.http.transfer import TransferApi
from structlog.testing import capture_logs
from yarl import URL

from tests.desk import USER, Answer, Desk, open_desk
from tests.system.world import until
from tests.tenants import Desk as Readers
from tests.tenants import Project, message

CSV, JSONL = "text/csv", "application/x-ndjson"
Told = list[tuple[str, int, str]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
async def data(project: Project, told: Told) -> AsyncGenerator[Desk]:
    def changed(_project: str, table: str, count: int, actor: str) -> None:
        told.append((table, count, actor))

    async with open_desk(project, lambda api, editors, _bus: TransferApi(Imports(editors, changed), Exports(editors)).add_to(api)) as made:
        bot = await made.bot()
        await bot.execute(
            "CREATE TABLE guests (id serial PRIMARY KEY, name text NOT NULL, seats integer CHECK (seats < 100), email varchar(10) UNIQUE)"
        )
        yield made


async def load(data: Desk, file: str | bytes, kind: str = CSV, table: str = "guests", **query: Any) -> Answer:
    raw = file.encode() if isinstance(file, str) else file
    return await data.ask("POST", data.path(table, "/import"), raw=raw, kind=kind, **query)


async def rows(data: Desk, table: str = "guests") -> list[tuple[Any, ...]]:
    return [tuple(r) for r in await (await data.bot()).fetch(f"SELECT name, seats, email FROM {table} ORDER BY name")]  # noqa: S608  (a constant)


GOOD = {
    CSV: 'name,seats,email\r\nAnn,1,a@x\r\n"Bob, ""the"" builder\r\nand more",,""\r\n\r\n',
    JSONL: '{"name": "Ann", "seats": 1, "email": "a@x"}\n\n{"email": "", "name": "Bob, \\"the\\" builder\\r\\nand more", "seats": null}\n',
}


@pytest.mark.parametrize("mode", ["all_or_nothing", "best_effort"])
@pytest.mark.parametrize("kind", [CSV, JSONL])
async def test_a_good_file_becomes_rows_and_is_told_once(data: Desk, told: Told, kind: str, mode: str) -> None:
    answer = await load(data, GOOD[kind], kind, mode=mode)
    assert (answer.status, answer.json) == (200, {"inserted": 2, "bad": 0, "bad_lines": [], "stopped_at_line": None})
    assert await rows(data) == [("Ann", 1, "a@x"), ('Bob, "the" builder\r\nand more', None, "")]
    assert told == [("guests", 2, USER)]


BAD = {
    CSV: "name,seats,email\n"
    "Ann,1,a@x\n"
    "Bob,many,b@x\n"  # 3: no number
    '"two\nlines",5,c@x\n'
    "Eve,200,d@x\n"  # 6: the check
    "Dan,3,a@x\n"  # 7: not unique
    ",3,e@x\n"  # 8: not null
    "Fay,3,12345678901\n"  # 9: too long
    "Gil,3\n"  # 10: too narrow
    "Hal,3,h@x,x\n"  # 11: too wide
    "Ida,4,i@x\n",
    JSONL: "\n".join(
        orjson.dumps(r).decode() if isinstance(r, dict) else r
        for r in (
            {},
            {"name": "Ann", "seats": 1, "email": "a@x"},
            {"name": "Bob", "seats": "many"},  # 3
            {"name": "two\nlines", "seats": "5", "email": "c@x"},
            "",
            {"name": "Eve", "seats": 200},  # 6
            {"seats": 3, "name": "Dan", "email": "a@x"},  # 7
            {"seats": 3, "name": None},  # 8
            {"name": "Fay", "email": "12345678901"},  # 9
            "{",  # 10
            {"nam": "Hal"},  # 11
            {"name": "Ida", "seats": 4, "email": "i@x"},
        )
    ),
}
WHY = {
    3: ("wrong_type", "seats"), 6: ("check", None), 7: ("not_unique", None), 8: ("not_null", "name"), 9: ("too_long", "email"),
    10: ("wrong_value", None), 11: ("wrong_value", None),
}  # fmt: skip


def reasons(report: dict[str, Any]) -> dict[int, tuple[str, str | None]]:
    return {b["line"]: (b["code"], b["column"]) for b in report["bad_lines"]}


async def test_best_effort_keeps_the_good_lines_and_names_every_bad_one_of_a_csv(data: Desk, told: Told) -> None:
    report = (await load(data, BAD[CSV], mode="best_effort")).json
    assert (report["inserted"], report["bad"]) == (3, 7)
    assert {n: why if n != 10 else (why[0], None) for n, why in reasons(report).items()} == WHY
    bad = {b["line"]: b for b in report["bad_lines"]}
    assert (bad[3]["value"], "a@x" in bad[7]["reason"], "missing data" in bad[10]["reason"], "extra data" in bad[11]["reason"]) == (
        "many",
        True,
        True,
        True,
    )
    assert [r[0] for r in await rows(data)] == ["Ann", "Ida", "two\nlines"]
    assert told == [("guests", 3, USER)]


async def test_best_effort_keeps_the_good_lines_and_names_every_bad_one_of_a_jsonl(data: Desk) -> None:
    report = (await load(data, BAD[JSONL], JSONL, mode="best_effort")).json
    assert (report["inserted"], report["bad"]) == (3, 8)
    assert reasons(report) == WHY | {1: ("no_columns", None), 10: ("not_json", None), 11: ("unknown_column", "nam")}
    assert [r[0] for r in await rows(data)] == ["Ann", "Ida", "two\nlines"]


@pytest.mark.parametrize("kind", [CSV, JSONL])
async def test_all_or_nothing_names_every_bad_line_and_leaves_nothing(data: Desk, told: Told, kind: str) -> None:
    answer = await load(data, BAD[kind], kind)
    assert (answer.status, answer.json["code"]) == (422, "import_refused")
    assert {3, 6, 7, 8, 9, 10, 11} <= set(reasons(answer.json))
    assert (await rows(data), told) == ([], [])


async def test_a_file_that_is_bad_in_every_line_is_not_read_to_its_end(data: Desk) -> None:
    file = "name,seats\n" + "x,y\n" * 5_000
    report = (await load(data, file, mode="best_effort")).json
    assert (report["bad"], len(report["bad_lines"]), report["stopped_at_line"], report["inserted"]) == (1000, 100, 1001, 0)


@pytest.mark.parametrize(
    ("file", "code", "line"),
    [
        ("name;seats\nAnn;1\n", "wrong_delimiter", 1),
        ("name\tseats\nAnn\t1\n", "wrong_delimiter", 1),
        ("name,name\nAnn,1\n", "wrong_header", 1),
        ("", "no_header", 1),
        ("name,seats\nAnn,1\n".encode("utf-16"), "wrong_encoding", 1),
        ("näme,seats\nAnn,1\n".encode("latin-1"), "wrong_encoding", 1),
    ],
)
async def test_a_file_that_is_wrong_as_a_whole_says_how(data: Desk, file: str | bytes, code: str, line: int) -> None:
    answer = await load(data, file, mode="best_effort")
    assert (answer.status, answer.json["code"], answer.json["line"]) == (422, code, line)


async def test_a_wrong_encoding_in_the_middle_names_its_line(data: Desk) -> None:
    file = b"name,seats\nAnn,1\n" + "Jörg,2\n".encode("latin-1") + b"Eve,3\n"
    refused = (await load(data, file)).json
    assert (refused["code"], reasons(refused)) == ("import_refused", {3: ("wrong_value", None)})
    assert "encoding" in refused["bad_lines"][0]["reason"]


async def test_a_quote_that_is_never_closed_names_its_line(data: Desk) -> None:
    refused = (await load(data, 'name,seats\nAnn,1\n"Bob,2\nEve,3\n')).json
    assert reasons(refused) == {3: ("wrong_value", None)}
    endless = (await load(data, b'name,seats\nAnn,1\n"Bob,2\n' + b"Eve,3\n" * 2_000_000)).json
    assert (endless["code"], endless["line"] <= 3) == ("record_too_long", True)


@pytest.mark.parametrize(("delimiter", "sign"), [("semicolon", ";"), ("tab", "\t"), ("pipe", "|")])
async def test_other_delimiters_and_a_byte_order_mark(data: Desk, delimiter: str, sign: str) -> None:
    file = b"\xef\xbb\xbf" + f"name{sign}seats\nAnn{sign}1\n".encode()
    assert (await load(data, file, delimiter=delimiter)).json["inserted"] == 1
    assert await rows(data) == [("Ann", 1, None)]


async def test_a_csv_without_a_header_names_its_columns_in_the_request(data: Desk) -> None:
    assert (await load(data, "1,Ann\n2,Bob\n", header="false", columns="seats")).status == 422
    answer = await data.ask("POST", "/tables/guests/import?columns=seats&columns=name&header=false", raw=b"1,Ann\n2,Bob\n", kind=CSV)
    assert answer.json["inserted"] == 2
    assert [r[0] for r in await rows(data)] == ["Ann", "Bob"]


async def test_blocks_end_between_records_however_the_file_is_cut(data: Desk) -> None:
    """Three megabytes with quoted line ends and quotes everywhere, and one bad line far behind."""
    lines = [f'"guest ""{n}""\n\nand ""more""{"x" * 100}",{n % 90}\n' for n in range(20_000)]
    lines[15_000] = '"bad\none",x\n'
    number = 2 + sum(line.count("\n") for line in lines[:15_000])
    report = (await load(data, "name,seats\n" + "".join(lines), mode="best_effort")).json
    assert (report["inserted"], report["bad"], report["bad_lines"][0]["line"]) == (19_999, 1, number)
    assert await (await data.bot()).fetchval("SELECT count(*) FROM guests WHERE name LIKE 'guest %\n\nand \"more\"%'") == 19_999


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("inner", ["\n", "\r\n", "\n\n", "\r"])
async def test_a_line_is_named_right_whatever_line_ends_stand_in_texts(data: Desk, end: str, inner: str) -> None:
    lines = [f'"a{inner}b",{n}' for n in range(6)]
    lines[4] = f'"a{inner}b",x'
    before = "name,seats" + end + end.join(lines[:4]) + end
    report = (await load(data, "name,seats" + end + end.join(lines) + end, mode="best_effort")).json
    assert ([b["line"] for b in report["bad_lines"]], report["inserted"]) == ([before.count("\n") + 1], 5)


@pytest.mark.parametrize("mode", ["all_or_nothing", "best_effort"])
async def test_a_foreign_key_whose_line_postgres_does_not_name_is_found(data: Desk, mode: str) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE rooms (id int PRIMARY KEY); INSERT INTO rooms SELECT generate_series(1, 50)")
    await bot.execute("CREATE TABLE stays (room int REFERENCES rooms)")
    file = "room\n" + "".join(f"{n % 50 + 1}\n" for n in range(300)) + "77\n" + "".join(f"{n % 50 + 1}\n" for n in range(300)) + "88\n"
    answer = (await load(data, file, table="stays", mode=mode)).json
    assert [(b["line"], b["code"]) for b in answer["bad_lines"]] == [(302, "foreign_key"), (603, "foreign_key")]
    assert await bot.fetchval("SELECT count(*) FROM stays") == (600 if mode == "best_effort" else 0)


@pytest.mark.parametrize("kind", [CSV, JSONL])
async def test_link_columns_are_looked_up_line_by_line(data: Desk, project: Project, kind: str) -> None:
    await (await Readers.of(project)).record(message("phone:+491"))
    bot = await data.bot()
    contact = str(await bot.fetchval("SELECT id FROM contacts"))
    await bot.execute("CREATE TABLE visits (note text, contact uuid)")
    await bot.execute("COMMENT ON COLUMN visits.contact IS 'loquat:link=contact'")
    nobody = "0198f0c2-0000-7000-8000-000000000001"
    lines = [("a", contact), ("b", nobody), ("c", "junk"), ("d", None)]
    text = {
        CSV: "note,contact\n" + "".join(f"{n},{c or ''}\n" for n, c in lines),
        JSONL: "\n" + "".join(f"{orjson.dumps({'note': n, 'contact': c}).decode()}\n" for n, c in lines),
    }
    report = (await load(data, text[kind], kind, "visits", mode="best_effort")).json
    assert reasons(report) == {3: ("no_such_link", "contact"), 4: ("wrong_type", "contact")}
    assert ({b["line"]: b["value"] for b in report["bad_lines"]}[3], report["inserted"]) == (nobody, 2)


@pytest.mark.promise("P5")
async def test_system_tables_and_views_take_no_file(data: Desk) -> None:
    await (await data.bot()).execute("CREATE VIEW v AS SELECT 1 AS name")
    for table in ("contacts", "conversations", "messages"):
        assert (await load(data, "id\n1\n", table=table)).json["code"] == "system_table"
    assert (await load(data, "name\n1\n", table="v")).json["code"] == "not_a_table"
    assert (await load(data, "name\n1\n", table="none")).status == 404
    assert (await load(data, "name\n1\n", kind="text/plain")).status == 415


async def test_a_generated_column_and_an_unknown_one_are_named(data: Desk) -> None:
    await (await data.bot()).execute("CREATE TABLE g (id int GENERATED ALWAYS AS IDENTITY, a int)")
    assert (await load(data, "id,a\n1,1\n", table="g")).json["column"] == "id"
    assert (await load(data, "b,a\n1,1\n", table="g")).json["columns"] == ["id", "a"]


async def test_words_of_a_hostile_table_are_not_taken_for_line_numbers(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute('CREATE TABLE "t, line 1, column x" ("x: 9, line 2" int, y text)')
    file = "x: 9, line 2,y\n1,a\n"
    bad = await load(
        data,
        '"x: 9, line 2",y\n1,a\n2,b\nCOPY t\n"COPY t, line 1, column x, line 1",z\n4,c\n',
        table="t, line 1, column x",
        mode="best_effort",
    )
    assert (bad.json["inserted"], sorted(reasons(bad.json)), file.count("\n")) == (3, [4, 5], 2)


@pytest.mark.parametrize("header", ["true", "false"])
async def test_a_file_whose_lines_end_with_carriage_returns_alone_is_refused(data: Desk, header: str) -> None:
    answer = await load(data, "name,seats\rAnn,1\rBob,2\r", header=header)
    assert (answer.status, answer.json["code"], answer.json["line"]) == (422, "wrong_line_ends", 1)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_a_header_and_blank_lines_are_a_file_without_rows(data: Desk, end: str) -> None:
    assert (await load(data, f"name,seats{end}{end}{end}")).json == {"inserted": 0, "bad": 0, "bad_lines": [], "stopped_at_line": None}


async def test_numbers_of_a_jsonl_keep_all_their_digits(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE numbers (n serial, v numeric, j jsonb)")
    values = ["12345678901234567890123", "0.12345678901234567890123", "1.50"]
    await load(data, "".join(f'{{"v": {v}, "j": {{"x": [{v}]}}}}\n' for v in values), JSONL, "numbers")
    assert [tuple(r) for r in await bot.fetch("SELECT v::text, j->'x'->>0 FROM numbers ORDER BY n")] == [(v, v) for v in values]
    bad = (await load(data, '{"v": NaN}\n{"v": 1e200000}\n{"j": 1e200000}\n{"v": 1e3}\n', JSONL, "numbers", mode="best_effort")).json
    assert (bad["inserted"], sorted(reasons(bad))) == (1, [1, 2, 3])


@asynccontextmanager
async def under_way(data: Desk, count: int) -> AsyncGenerator[list[asyncio.Task[int]]]:
    """Files whose header was sent, and whose rest is sent at the end of the block. The statuses of their answers."""
    begun, go_on = [asyncio.Event() for _ in range(count)], asyncio.Event()

    async def trickle(at: int) -> AsyncGenerator[bytes]:
        yield b"name\n"
        begun[at].set()
        await go_on.wait()
        yield b"guest\n"

    async def upload(at: int) -> int:
        address, headers = data.base + data.path("guests", "/import"), {"Content-Type": CSV}
        async with data.http.post(address, data=trickle(at), headers=headers, params={"mode": "best_effort"}) as response:
            return response.status

    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        uploads = [tasks.create_task(upload(at)) for at in range(count)]
        for one in begun:
            await one.wait()
        yield uploads
        go_on.set()


async def test_a_file_under_way_holds_no_connection(data: Desk) -> None:
    """Three are what a project has."""
    async with under_way(data, 4) as uploads:
        assert (await load(data, "name\nAnn\n")).status == 200
    assert [u.result() for u in uploads] == [200] * 4


async def test_a_project_has_few_files_under_way_at_once(data: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_AT_ONCE", 1)

    async def refused() -> bool:
        return (await load(data, "name\nAnn\n")).status == 429

    async with under_way(data, 1) as uploads:
        await until(refused, "the file under way counts")
    assert [u.result() for u in uploads] == [200]
    assert (await load(data, "name\nAnn\n")).status == 200


async def test_a_file_that_trickles_is_given_up(data: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 0.2 s for a MiB instead of 60."""
    monkeypatch.setattr(imports, "_A_MIB", 0.2)
    gone = asyncio.Event()

    async def trickle() -> AsyncGenerator[bytes]:
        yield b"name\n"
        while not gone.is_set():
            await asyncio.sleep(0.01)  # of the client under test, far below the silence that is borne
            yield b"x"

    async with asyncio.timeout(15):
        async with data.http.post(data.base + data.path("guests", "/import"), data=trickle(), headers={"Content-Type": CSV}) as response:
            gone.set()
            assert (response.status, (await response.json(content_type=None))["code"]) == (408, "too_slow")


async def test_a_bad_line_costs_the_lines_around_it_and_not_the_whole_block(data: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes that are given to COPY."""
    copied, copy = list[int](), imports._Loader._copy  # pyright: ignore[reportPrivateUsage]

    async def counted(self: Any, columns: Any, given: bytes) -> None:
        copied.append(len(given))
        await copy(self, columns, given)

    monkeypatch.setattr(imports._Loader, "_copy", counted)  # pyright: ignore[reportPrivateUsage]
    await (await data.bot()).execute("CREATE TABLE short (a int)")
    file = "x\n" * 50 + "1\n" * 100_000
    report = (await load(data, "a\n" + file, table="short", mode="best_effort")).json
    assert (report["inserted"], report["bad"], report["bad_lines"][0]["line"]) == (100_000, 50, 2)
    assert sum(copied) < 2 * len(file) + 50 * len("1\n" * 2_000)


def imports_answered(status: int) -> float:
    labels = {"method": "POST", "route": "/internal/projects/{project_id}/database/tables/{table}/import", "status": str(status)}
    return REGISTRY.get_sample_value("loquat_http_requests_total", labels) or 0


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n\r\nname\nAnn\n", b"Transfer-Encoding: chunked\r\n\r\n9\r\nname\nAnn\n\r\n"])
async def test_a_client_that_leaves_in_the_middle_of_its_file_is_no_failure_of_ours(data: Desk, head: bytes) -> None:
    address = URL(data.base + data.path("guests", "/import"))

    async def told() -> bool:
        return imports_answered(400) + imports_answered(500) > before

    with capture_logs() as logs:
        before = imports_answered(400) + imports_answered(500)
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(f"POST {address.raw_path} HTTP/1.1\r\nHost: x\r\nContent-Type: {CSV}\r\n".encode() + head)
        await writer.drain()
        writer.close()
        await until(told, "the request is answered, to nobody")
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == []
    assert await rows(data) == []
