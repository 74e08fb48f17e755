"""The booking bot, as a contact meets it. It is Monday, 5 January 2026: the tester's clock stands still."""

from uuid import uuid4

SOLD = "INSERT INTO bookings (contact_id, day, hour, people) SELECT $1, '2026-01-06', hour, 2 FROM unnest($2::int[]) AS hour"
BOOKINGS = "SELECT day::text, hour, people FROM bookings ORDER BY day, hour"


async def ask_for_times(tester):
    for said in ("book", "2026-01-06"):
        await tester.send(said)
    await tester.tap("4")


def times(tester):
    return [row.title for row in tester.last.rows]


async def test_two_questions_and_a_list_make_a_booking(tester):
    await tester.send("hello")
    await tester.tap("book")
    assert tester.last.text == "Which day? Please write it like 2026-12-31."
    await tester.send("2026-01-06")
    assert (tester.last.text, [button.title for button in tester.last.buttons]) == ("How many are you?", ["Two", "Four", "Six"])
    await tester.tap("4")
    assert times(tester) == ["18:00", "19:00", "20:00", "21:00"]
    await tester.pick("slot:2026-01-06/19/4")
    assert tester.last.text == "Booked: 06 January, 19:00, for 4. See you!"
    assert [tuple(row) for row in await tester.fetch(BOOKINGS)] == [("2026-01-06", 19, 4)]


async def test_a_day_that_will_not_do_is_asked_for_again_and_three_are_enough(tester):
    await tester.send("book")
    assert [reply.text for reply in await tester.send("soon")] == ["Please write the day like 2026-12-31."]
    assert [reply.text for reply in await tester.send("2026-01-05")] == ["We take bookings from tomorrow on, 60 days ahead. Which day?"]
    assert [reply.text for reply in await tester.send("1815-12-10")] == ["Never mind. Write 'book' to begin anew."]


async def test_stop_ends_the_questions(tester):
    await tester.send("book")
    await tester.send("Stop!")
    assert tester.last.text == "Never mind. Write 'book' to begin anew."
    await tester.send("2026-01-06")
    assert tester.last.text == "Hello Ada! What can I do for you?"


async def test_only_free_times_are_offered(tester):
    await tester.fetch(SOLD, uuid4(), [18, 20])
    await ask_for_times(tester)
    assert times(tester) == ["19:00", "21:00"]


async def test_a_day_without_a_free_time_is_full(tester):
    await tester.fetch(SOLD, uuid4(), [18, 19, 20, 21])
    await ask_for_times(tester)
    assert tester.last.text == "We are full on 06 January. Write 'book' for another day."
    assert await tester.advance(hours=1) == (), "there is nothing to be reminded of"


async def test_of_two_who_want_one_time_the_second_sees_what_is_left(tester):
    await ask_for_times(tester)
    await tester.fetch(SOLD, uuid4(), [19])
    assert (await tester.pick("slot:2026-01-06/19/4"))[0].text == "19:00 is taken by now."
    assert times(tester) == ["18:00", "20:00", "21:00"]


async def test_who_does_not_choose_is_reminded_once(tester):
    await ask_for_times(tester)
    await tester.advance(minutes=29)
    assert tester.replies == ()
    await tester.advance(minutes=1)
    assert [reply.text for reply in tester.replies] == ["Are you still there? Nothing is booked yet.", "On 06 January we have:"]
    assert await tester.advance(days=1) == ()


async def test_who_chooses_is_not_reminded(tester):
    await ask_for_times(tester)
    await tester.pick("slot:2026-01-06/18/4")
    assert await tester.advance(hours=1) == ()


async def test_a_list_of_last_week_books_nothing(tester):
    await ask_for_times(tester)
    await tester.advance(days=7)
    await tester.pick("slot:2026-01-06/18/4")
    assert tester.last.text == "That list is too old. Write 'book' for another day."
    assert await tester.fetch(BOOKINGS) == []


async def test_bookings_are_listed_and_cancelled_once(tester):
    await ask_for_times(tester)
    await tester.pick("slot:2026-01-06/18/4")
    cancel = tester.last.buttons[0].id
    await tester.send("hi")
    await tester.tap("mine")
    assert tester.last.text == "06 January, 18:00, for 4"
    assert [(await tester.tap(cancel))[0].text for _ in range(2)] == ["Your booking is cancelled.", "There is no such booking any more."]
    await tester.tap("mine")
    assert tester.last.text == "You have no bookings."


async def test_bookings_of_others_are_neither_listed_nor_cancelled(tester):
    await ask_for_times(tester)
    await tester.pick("slot:2026-01-06/18/4")
    await tester.fetch("UPDATE bookings SET contact_id = $1", uuid4())
    await tester.tap("cancel:1")
    assert tester.last.text == "There is no such booking any more."
    await tester.send("hi")
    await tester.tap("mine")
    assert tester.last.text == "You have no bookings."
    assert len(await tester.fetch(BOOKINGS)) == 1


async def test_a_booking_that_is_over_is_neither_listed_nor_cancelled(tester):
    await ask_for_times(tester)
    await tester.pick("slot:2026-01-06/18/4")
    await tester.advance(days=2)
    await tester.tap("cancel:1")
    assert tester.last.text == "There is no such booking any more."
    await tester.send("hi")
    await tester.tap("mine")
    assert tester.last.text == "You have no bookings."
