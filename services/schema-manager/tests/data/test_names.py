"""Names and texts of any hostility mean to the server what they meant to the one who wrote them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from loquat_common.sql import Ident
from loquat_rest.changes import CreateTable
from loquat_schema_manager.domain.fragments import NotText, Text
from loquat_schema_manager.domain.steps import pick
from pydantic import ValidationError

from tests.changing import Workshop, control, open_workshop
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform

HOSTILE = st.text(
    st.one_of(st.sampled_from("\"'\\;-$%{}()/*\n\t. "), st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=63
)
NAMES = HOSTILE.filter(lambda s: len(s.encode()) <= 63)
WORDS = [
    "select",
    "user",
    "table",
    "all",
    "pg_class",
    "public",
    "contacts--",
    "nul",
    "1",
    " ",
    "E'",
    "$$",
    "\ufeff",
    "\u202e",
    "a\u0301",
    "\U0001f4a3" * 15,
]
ONE_SERVER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
async def shop(project: Project, platform: Platform) -> AsyncGenerator[Workshop]:
    async with open_workshop(project, await control(platform)) as made:
        yield made


@ONE_SERVER
@given(st.one_of(NAMES, st.sampled_from(WORDS)), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
@example('"; DROP TABLE contacts; --', "\\'; DROP TABLE contacts; --")
@example("a\\", "\\")
async def test_names_and_texts_are_quoted_as_the_server_quotes_them(project: Project, name: str, text: str) -> None:
    bot = project.connections[0] if project.connections else await project.login("bot")
    row = await bot.fetchrow(
        "SELECT quote_ident($1) AS plain, format('%I.%I', 'public', $1::text) AS dotted, quote_literal($2) AS text", name, text
    )
    assert row is not None
    assert str(Ident(name)) in {row["plain"], f'"{row["plain"]}"'}
    assert str(Ident("public").dot(name)) in {f'"public".{row["plain"]}', f'"public"."{row["plain"]}"'}
    assert str(Text(text)) == row["text"].lstrip(" ")
    for setting in ("on", "off"):
        await bot.execute(f"SET standard_conforming_strings = {setting}")
        assert await bot.fetchval(f"SELECT {Text(text)}") == text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(NAMES)
@example("select")
async def test_a_table_of_any_name_is_made_changed_described_and_undone_under_this_name(shop: Workshop, name: str) -> None:
    column = f"{name[:5]}_"
    try:
        CreateTable.model_validate({"name": name, "columns": [{"name": column, "type": "text"}]})
    except ValidationError:  # not for a new table; but the bot may have made one
        bot = shop.desk.project.connections[0] if shop.desk.project.connections else await shop.desk.bot()
        await bot.execute(f"CREATE TABLE {Ident(name)} (id int PRIMARY KEY, {Ident(column)} text)")
    else:
        await shop.change({"change": "create_table", "name": name, "columns": [{"name": column, "type": "text"}]})
    changed = await shop.change(
        {"change": "add_column", "table": name, "column": {"name": "other", "type": "uuid", "link": "contact", "comment": name}},
        {"change": "add_unique", "table": name, "columns": [column]},
        {"change": "comment_table", "table": name, "comment": name},
        {"change": "rename_table", "table": name, "to": "plain"},
    )
    assert (await shop.column("plain", "other"))["comment"] == name
    await shop.desk.good("POST", f"/changes/{changed['id']}/revert", {})
    listed = (await shop.desk.good("GET", "/tables"))["items"]
    assert name in [t["name"] for t in listed]
    await shop.change({"change": "drop_table", "table": name})


@pytest.mark.parametrize("wrong", ["a\0b", "\ud800"])
def test_what_cannot_be_text_is_refused(wrong: str) -> None:
    with pytest.raises(NotText):
        Text(wrong)


@given(NAMES, st.lists(NAMES, max_size=3), st.sampled_from(["idx", "key", "fkey"]))
def test_a_picked_name_is_free_and_fits(table: str, columns: list[str], suffix: str) -> None:
    taken: set[str] = set()
    for _ in range(12):
        name = pick(taken, table, columns, suffix)
        assert name not in taken
        assert len(Ident(name).name.encode()) <= 63
        taken.add(name)
