"""The order bot, as a contact meets it, and its schedules. It is Monday, 5 January 2026: the tester's clock stands still."""

from datetime import date
from uuid import UUID, uuid4

ORDER = "INSERT INTO orders (number, contact_id, item, status, due_on) VALUES ($1, $2, $3, $4, $5)"
SOMEBODY = UUID(int=7)


async def add(tester, number, *, contact=None, item="Green tea", status="open", due="2026-01-08"):
    await tester.fetch(ORDER, number, contact or tester.contact.id, item, status, date.fromisoformat(due))


async def say(tester, text):
    return (await tester.send(text))[0].text


async def test_whoever_writes_is_told_how_to_ask_in_the_shops_name(tester):
    assert (await say(tester, "hi")).startswith("This is The Tea Shop.")
    tester.config["shop"] = "Leaves"
    assert (await say(tester, "hi")).startswith("This is Leaves.")


async def test_an_order_tells_how_it_stands(tester):
    await add(tester, 17)
    await add(tester, 18, status="delivered")
    assert await say(tester, "/order 17") == "Order 17 (Green tea) is being packed. It is due on 08 January."
    await tester.fetch("UPDATE orders SET status = 'sent' WHERE number = 17")
    assert await say(tester, "/order 17") == "Order 17 (Green tea) is on its way. It is due on 08 January."
    assert await say(tester, "/order 18") == "Order 18 (Green tea) was delivered."


async def test_an_order_of_somebody_else_is_as_one_that_is_not_there(tester):
    await add(tester, 17, contact=SOMEBODY)
    assert await say(tester, "/order 17") == "You have no order 17 with us."
    assert await say(tester, "/order 99") == "You have no order 99 with us."


async def test_what_is_no_number_is_asked_for_again(tester):
    for said in ("/order", "/order tea", "/order 99999999999"):
        assert await say(tester, said) == "Which one? Write it like '/order 17'."


async def test_open_orders_are_listed(tester):
    assert await say(tester, "/orders") == "No order of yours is open."
    await add(tester, 17)
    await add(tester, 18, item="Cups", status="sent")
    await add(tester, 19, status="delivered")
    await add(tester, 20, contact=SOMEBODY)
    assert await say(tester, "/orders") == "17: Green tea is being packed\n18: Cups is on its way"


async def test_too_many_questions_wait_for_an_hour(tester):
    await add(tester, 17)
    tester.config["questions_an_hour"] = 2
    said = [await say(tester, "/order 17") for _ in range(3)]
    assert said[2] == "That is a lot of questions. Please come back in an hour."
    await tester.advance(hours=1)
    assert await say(tester, "/order 17") == said[0]


async def test_who_waits_too_long_is_told_once(tester):
    await add(tester, 17, due="2026-01-04")
    await add(tester, 18, due="2026-01-05")
    await add(tester, 19, due="2026-01-04", status="delivered")
    await add(tester, 20, due="2026-01-02", contact=SOMEBODY, item="Cups")
    assert [reply.text for reply in await tester.run_schedule("late_orders")] == [
        "Your order 17 (Green tea) is late. We are sorry, and we are on it."
    ]
    assert [contact for contact, _ in tester.sent] == [SOMEBODY]
    assert await tester.run_schedule("late_orders") == ()
    tester.advance(days=1)
    assert "order 18" in (await tester.run_schedule("late_orders"))[0].text


async def test_the_summary_goes_to_who_has_the_code(tester):
    tester.secrets["summary_code"] = "t0morrow"
    await add(tester, 17, due="2026-01-04")
    await add(tester, 18, status="sent", contact=uuid4())
    assert await say(tester, "/summary guess") == "You get no summary."
    assert await tester.run_schedule("daily_summary") == ()
    assert await say(tester, "/summary t0morrow") == "You get the summary every evening."
    await tester.run_schedule("late_orders")
    assert [reply.text for reply in await tester.run_schedule("daily_summary")] == [
        "The Tea Shop: 1 open, 1 sent, 1 late; 1 told that it is late so far."
    ]
    assert await say(tester, "/summary") == "You get no summary."
    assert await tester.run_schedule("daily_summary") == ()


async def test_without_a_code_nobody_gets_the_summary(tester):
    assert await say(tester, "/summary") == "You get no summary."
    assert await say(tester, "/summary x") == "You get no summary."
    tester.secrets["summary_code"] = ""
    assert await say(tester, "/summary") == "You get no summary."


async def test_who_guesses_the_code_may_do_so_five_times_a_day(tester):
    tester.secrets["summary_code"] = "t0morrow"
    for _ in range(5):
        await tester.send("/summary guess")
    assert await say(tester, "/summary t0morrow") == "You get no summary."
    tester.advance(days=1)
    assert await say(tester, "/summary t0morrow") == "You get the summary every evening."
