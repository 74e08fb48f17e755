"""The support bot, as a contact meets it. People who hold the conversation are played by the tester."""

from pathlib import Path

import pytest
from loquat import Answer, HttpFailed
from loquat.testing import BotTester

TICKETS = {"https://tickets.example/v1/7": Answer.of({"status": "in work"}), "https://tickets.example/v1/8": Answer.of({"state": "?"})}


@pytest.fixture
def tester():
    made = BotTester.load(Path(__file__).parent, http=lambda request: TICKETS.get(request.url, Answer.of({}, status=404)))
    made.contact.language = "en"
    return made


async def say(tester, text):
    return [reply.text for reply in await tester.send(text)]


async def test_the_bot_speaks_the_language_that_the_contact_chose(tester):
    tester.contact.language = None
    await tester.send("hi")
    await tester.tap("language:de")
    assert tester.last.text.startswith("Wie können wir helfen?")
    assert tester.contact.language == "de"
    assert await say(tester, "Mensch") == ["Es wird Ihnen hier jemand schreiben."]


async def test_who_asks_for_a_person_is_the_bots_again_when_they_have_handed_back(tester):
    assert await say(tester, "Person!") == ["Somebody will write to you here."]
    assert (tester.held.holder, tester.held.note) == ("people", "asks for a person")
    assert await say(tester, "are you there?") == []
    tester.hand_back()
    assert await say(tester, "thanks") == ["Did that help?"]
    await tester.tap("helped:yes")
    assert (tester.last.text, tester.closed) == ("Glad to hear it!", True)


async def test_where_nobody_comes_the_bot_is_back_after_a_day_in_the_office(tester):
    await tester.send("person")
    await tester.advance(hours=7)
    assert await say(tester, "hello?") == []
    await tester.advance(hours=1)
    assert await say(tester, "hello?") == ["Did that help?"]


async def test_who_was_not_helped_is_handed_over_with_what_the_bot_has_seen(tester):
    for said in ("person", "my cup", "it leaks"):
        await tester.send(said)
    tester.hand_back()
    await tester.send("hm")
    await tester.tap("helped:no")
    assert (tester.held.holder, tester.held.note) == ("people", "was not helped, after 2 messages")


@pytest.mark.parametrize("said", ["I want a REFUND.", "es ist kaputt", "the cup is broken!"])
async def test_what_is_urgent_goes_to_people_at_once_and_is_marked(tester, said):
    await tester.send(said)
    assert tester.held.note.endswith(f": {said}")
    assert tester.contact.attributes["urgent"] is True


async def test_when_it_helped_nothing_of_it_stays(tester):
    for message in ("a refund please", "now"):
        await tester.send(message)
    assert (tester.contact.attributes["urgent"], tester.contact_memory["said to people"]) == (True, 1)
    tester.hand_back()
    await tester.send("thanks")
    await tester.tap("helped:yes")
    assert ("urgent" in tester.contact.attributes, "said to people" in tester.contact_memory) == (False, False)


async def test_words_that_only_hold_an_urgent_one_are_not_urgent(tester):
    await tester.send("unbroken cups?")
    assert tester.held.holder == "bot"


async def test_tickets_are_looked_up_elsewhere(tester):
    assert await say(tester, "What about ticket 7?") == ["Ticket 7: in work"]
    assert await say(tester, "ticket 9") == ["There is no ticket 9."]


async def test_an_answer_that_makes_no_sense_leads_to_people(tester):
    assert await say(tester, "ticket 8") == ["That did not work. Somebody will write to you here."]
    assert tester.held.note == "the bot failed: KeyError"
    assert "KeyError: 'status'" in tester.log[-1].text


async def test_a_ticket_system_that_is_away_is_asked_again_by_the_platform(tester):
    tester.http = lambda request: Answer.of({}, status=503)
    with pytest.raises(HttpFailed):
        await tester.send("ticket 7")
    assert (tester.replies, tester.held.holder) == ((), "bot")
