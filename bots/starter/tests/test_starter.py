"""The starter bot, as a contact meets it."""

import pytest

BOOKINGS = "SELECT name, service, date, phone, complete FROM bookings"


async def test_whoever_writes_is_greeted_by_name_with_a_menu(tester):
    await tester.send("hello")
    assert tester.last.text == "Hello Ada! What can I do for you?"
    assert [button.id for button in tester.last.buttons] == ["book", "support"]
    assert tester.state == "unstructured"


@pytest.mark.parametrize("words", ["help", "Human!", " support "])
async def test_words_lead_to_people_and_menu_leads_back(tester, words):
    await tester.send(words)
    assert (tester.state, tester.last.text[:10]) == ("support", "Of course.")
    await tester.send("my cup is broken")
    assert tester.last.text == "Thank you. Somebody will read this and answer here."
    await tester.send("Menu")
    assert (tester.state, tester.last.type) == ("unstructured", "buttons")


async def test_the_menus_buttons_work_however_late_they_are_tapped(tester):
    await tester.send("hello")
    await tester.tap("support")
    await tester.tap("support")
    assert tester.state == "support"


async def test_a_state_of_an_older_version_leads_to_the_menu(tester):
    tester.state = "questionnaire"
    await tester.send("42")
    assert (tester.state, tester.last.type) == ("unstructured", "buttons")


async def test_four_answers_make_a_booking(booking):
    await booking.send("hello")
    await booking.tap("book")
    assert (booking.state, booking.last.text) == ("collect_info", "What is your name?")
    for said, asked in (("Ada L.", "Which service"), ("Haircut", "On which day?"), ("Friday", "At which phone")):
        await booking.send(said)
        assert booking.last.text.startswith(asked)
    await booking.send(" +49 151 ")
    assert booking.last.text == "Booked: Haircut for Ada L. on Friday. We call +49 151 if anything changes."
    assert booking.state == "unstructured"
    assert [tuple(row) for row in await booking.fetch(BOOKINGS)] == [("Ada L.", "Haircut", "Friday", "+49 151", True)]


async def test_a_picture_is_no_answer_and_the_question_is_asked_again(booking):
    await booking.send("book")
    assert [reply.text for reply in await booking.send_image()] == ["Please answer with a text.", "What is your name?"]


async def test_cancelling_leaves_no_booking(booking):
    await booking.send("book")
    await booking.send("Ada")
    await booking.send("Cancel.")
    assert booking.state == "unstructured"
    assert await booking.fetch(BOOKINGS) == []


async def test_who_begins_again_is_asked_again_and_keeps_what_was_booked_before(booking):
    for said in ("book", "Ada", "Haircut", "Friday", "1"):
        await booking.send(said)
    await booking.send("appointment")
    await booking.send("Bob")
    await booking.send("hi")  # an answer, too
    await booking.send("cancel")
    assert [row["name"] for row in await booking.fetch(BOOKINGS)] == ["Ada"]
