"""The phone page in a real browser: a message typed, the bot's reply and its ticks seen."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.system.world import World

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no system Chromium: apt-get install chromium")]


@pytest.fixture
async def browser() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        await started.close()


async def open_phone(browser: Browser, world: World, number: str) -> tuple[Page, list[str]]:
    page = await browser.new_page(viewport={"width": 1100, "height": 900})
    foreign: list[str] = []
    page.on("request", lambda request: None if request.url.startswith((world.simulator, "data:")) else foreign.append(request.url))
    await page.goto(f"{world.simulator}/?number={number}&contact=4915155501{number[-3:]}&name=Anna")
    return page, foreign


async def test_a_message_typed_is_answered_and_ticks_turn_blue(browser: Browser, world: World) -> None:
    number = await world.number(await world.project("phone"))
    page, foreign = await open_phone(browser, world, number)
    await page.get_by_label("Message").fill("hello")
    await page.get_by_label("Send").click()
    reply = page.locator(".bubble.in").first
    await expect(reply).to_contain_text("Hello Anna!", timeout=20_000)
    await expect(page.locator(".bubble.out").first).to_contain_text("hello")
    await expect(page.locator(".bubble.in[data-status=read] .ticks.read").first).to_be_visible(timeout=20_000)
    await page.get_by_role("button", name="Book").click()
    await expect(page.locator(".bubble.in").nth(2)).to_contain_text("What is your name?", timeout=20_000)
    assert foreign == []


async def test_what_a_contact_writes_is_text_and_never_markup(browser: Browser, world: World) -> None:
    number = await world.number(await world.project("hostile phone"))
    page, _ = await open_phone(browser, world, number)
    await page.get_by_label("Message").fill("<img src=x onerror=\"document.title='owned'\">")
    await page.get_by_label("Send").click()
    await expect(page.locator(".bubble.out").first).to_contain_text("<img src=x")
    assert await page.title() == "Loquat phone"
