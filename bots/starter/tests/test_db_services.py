"""The helpers over the project's tables."""

import pytest
from db_services import contacts_with, delete, find_contact, insert, last_messages, look_up_contacts, query, record, update
from loquat import Bot
from loquat.testing import BotTester

TABLE = 'CREATE TABLE "an ""odd"" name" (id int GENERATED ALWAYS AS IDENTITY, guest text, people int, note text)'
ODD = 'an "odd" name'


def doing(handler, database):
    """A tester whose bot does one thing."""
    bot = Bot()
    bot.fallback(handler)
    return BotTester(bot, database=database)


async def test_rows_are_inserted_queried_updated_and_deleted_by_their_columns(database):
    async def handle(ctx):
        await ctx.db.execute(TABLE)
        ada = await insert(ctx, ODD, guest="Ada", people=2)
        await insert(ctx, ODD, guest="Bob'; DROP TABLE x", people=4)
        await insert(ctx, ODD)
        assert [r["people"] for r in await query(ctx, ODD, order_by="people", descending=True)] == [None, 4, 2]
        assert [r["people"] for r in await query(ctx, ODD, guest="Bob'; DROP TABLE x")] == [4]
        assert len(await query(ctx, ODD, guest=None, people=None)) == 1
        assert len(await query(ctx, ODD, limit=2)) == 2
        changed = await update(ctx, ODD, ada["id"], people=3, note="by the window")
        assert (changed["guest"], changed["people"], changed["note"]) == ("Ada", 3, "by the window")
        assert await update(ctx, ODD, 99, people=3) is None
        assert (await delete(ctx, ODD, guest="Ada"), await delete(ctx, ODD, guest="Ada")) == (1, 0)
        with pytest.raises(ValueError, match="would delete everything"):
            await delete(ctx, ODD)

    with doing(handle, database) as tester:
        await tester.send("hi")


async def test_contacts_are_looked_up_and_what_is_recorded_of_them_is_found_with_the_next_message(database):
    async def handle(ctx):
        ctx.reply_text(f"{len(await contacts_with(ctx, vip=True))} {len(await look_up_contacts(ctx, 'ADA'))} {len(await last_messages(ctx))}")
        assert await find_contact(ctx, "+49") is None
        assert await look_up_contacts(ctx, "%") == []
        await record(ctx, name="Ada L.", language="de", vip=True)

    with doing(handle, database) as tester:
        assert (await tester.send("hi"))[0].text == "0 1 1"
        assert (await tester.send("hi"))[0].text == "1 1 3"
        assert (tester.contact.name, tester.contact.language, dict(tester.contact.attributes)) == ("Ada L.", "de", {"vip": True})
