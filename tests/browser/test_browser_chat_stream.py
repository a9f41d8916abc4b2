"""The conversation in a page: a model loaded on a click, its stream beside it, from file://."""

import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")

from scratchbook.companions.chat_in_page import chat_html  # noqa: E402
from scratchbook.companions.live_weights import PAGE_WEIGHTS  # noqa: E402
from scratchbook.serving.openai_api import sse  # noqa: E402
from tests.browser import visits  # noqa: E402

CSS = (Path(__file__).resolve().parents[2] / "book/_static/scratchbook.css").read_text("utf-8")
QUESTION = "What is a <loop>?"
STREAMED = b"".join(sse({"choices": [{"delta": {"content": text}}]}) for text in (
    "", "A ", "loop ", "& more ", "of ", "it")) + b"data: [DONE]\n\n"
SMALL = """() => [...document.querySelectorAll('.sb-chat :is(button, select, input[type=text])')]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44)
  .map(e => e.outerHTML.slice(0, 80))"""


def write_page(folder: Path, weights: bool = True) -> Path:
    page = (f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width"><title>Chat</title><style>{CSS}'
            'body{margin:0 10px;background:var(--sb-paper)}</style></head><body><main>'
            '<article class="bd-article"><h1>Chat</h1><h2>A model</h2><h3>That streams</h3>'
            f"{chat_html(QUESTION, STREAMED)}</article></main></body></html>")
    for name in ("chapters", "live"):
        (folder / name).mkdir()
    if weights:
        shutil.copy(PAGE_WEIGHTS, folder / "live")
    path = folder / "chapters" / "page.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def page(browser, page_file):
    """A page that has loaded its model by keyboard, and what it asked for and complained of."""
    with visits.browser_context(browser) as context:
        page = visits.open_watched(context, page_file)
        page.asked_before = list(page.asked)
        page.still = page.locator(".sb-chat").inner_text()
        button(page, "Load the model").focus()
        page.keyboard.press("Enter")
        wait_for(page, "ready")
        yield page
        assert page.complaints == []
        assert visits.outside(page) == []


def button(page, name: str):
    return page.get_by_role("button", name=name)


def wait_for(page, phase: str) -> None:
    page.wait_for_function("phase => document.querySelector('[data-live]').dataset.liveState"
                           ".split(':')[1] === phase", arg=phase)


def said(page) -> str:
    return page.locator(".sb-chat p[role=status]").inner_text()


def wire(page) -> tuple[dict, list[str]]:
    """The request's body and the data of each event."""
    asked, _, events = page.locator(".sb-chat-wire").text_content().partition("\n\n")
    assert asked.startswith("POST /v1/chat/completions\n")
    parts = events.split("\n\n")
    assert parts.pop() == "" and all(part.startswith("data: ") for part in parts)
    return json.loads(asked.partition("\n")[2]), [part[6:] for part in parts]


def log(page) -> list[str]:
    """What was said, with its author."""
    return page.locator(".sb-chat-log > div").evaluate_all(
        "all => all.map(e => [...e.children].map(c => c.textContent))")


def send(page, text: str | None = None, pace: str = "no limit") -> None:
    page.get_by_label("held back to").select_option(pace)
    field = page.get_by_label("Your message")
    if text is not None:
        field.fill(text)
    field.press("Enter")


def answer(page, text: str | None = None) -> None:
    send(page, text)
    wait_for(page, "ready")


def test_the_model_comes_on_a_click_and_the_still_stands_until_then(page):
    assert not [url for url in page.asked_before if "weights" in url]
    assert len([url for url in page.asked if url.endswith(f"live/{PAGE_WEIGHTS.name}")]) == 1
    assert f"Asked “{QUESTION}”, a server answered “A loop & more of it”, in 7 " in page.still
    assert "(2 more events)" in page.still and page.still.count("data: ") == 5
    assert page.evaluate("document.activeElement.labels[0].textContent") == "Your message"
    assert "never learned to chat" in said(page)


def test_an_answer_and_its_events_are_the_same_text(page):
    answer(page)
    (you, question), (model, text) = log(page)
    assert (you, question, model) == ("You", QUESTION, "Model")
    asked, events = wire(page)
    assert asked["messages"] == [{"role": "user", "content": QUESTION}] and asked["stream"]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1]]
    assert "".join(pieces) == text and len(pieces) > 20
    usage = chunks[-1]["usage"]
    assert chunks[-2]["choices"][0]["finish_reason"] in ("stop", "length")
    counts = page.locator(".sb-chat-counts").inner_text()
    numbers = re.match(r"(\d+) tokens read; the first text came after (\d+) ms, then ([\d,]+) a "
                       r"second \(the model alone: [\d,]+\)\. (\d+) tokens "
                       r"written, (\d+) bytes of text; over the wire (\d+) events, "
                       r"([\d,]+) bytes\.$", counts)
    read, _, rate, written, size, count, sent = (int(n.replace(",", "")) for n in numbers.groups())
    assert (read, written) == (usage["prompt_tokens"], usage["completion_tokens"])
    whole = page.locator(".sb-chat-wire").text_content().partition("\n\n")[2]
    assert sent == len(whole.encode()) and size == len(text.encode()) and rate > 20
    assert count == len(events) + 1


def test_it_streams_at_a_pace_and_stops(page):
    send(page, "Tell me", pace="20 tokens a second")
    page.wait_for_function(
        "() => document.querySelector('.sb-chat-wire').textContent.length > 1500")
    assert button(page, "Stop").is_visible() and not button(page, "Send").is_visible()
    assert page.locator(".sb-chat-log").get_attribute("aria-busy") == "true"
    before = log(page)[1][1]
    page.wait_for_function("n => document.querySelector('[data-live]').dataset.liveState"
                           ".split(':')[2] > n", arg=len("Tell me") + len(before))
    button(page, "Stop").click()
    assert said(page).startswith("Stopped after")
    text, events = log(page)[1][1], wire(page)[1]
    assert 0 < len(before) < len(text) < 160 and "[DONE]" not in events
    state = page.locator("[data-live]").get_attribute("data-live-state")
    page.wait_for_timeout(300)
    assert page.locator("[data-live]").get_attribute("data-live-state") == state
    assert button(page, "Send").is_visible()
    assert "(held back; the model alone: " in page.locator(".sb-chat-counts").inner_text()


def test_regenerate_and_a_second_message_and_a_new_conversation(page):
    again = button(page, "Regenerate")
    assert again.get_attribute("aria-disabled") == "true"
    again.press("Enter")
    assert log(page) == []
    answer(page, "Hello")
    first = log(page)
    again.click()
    wait_for(page, "ready")
    assert len(log(page)) == 2 and log(page)[0] == first[0] and log(page)[1] != first[1]
    assert wire(page)[0]["seed"] == 2
    answer(page, "And now")
    roles = [message["role"] for message in wire(page)[0]["messages"]]
    assert roles == ["user", "assistant", "user"] and len(log(page)) == 4
    button(page, "New").click()
    assert log(page) == [] and page.locator(".sb-chat-wire").text_content() == ""
    send(page, "  ")
    assert said(page) == "Write a message first." and log(page) == []


def test_regenerate_while_it_writes_leaves_one_answer(page):
    send(page, "Hello", pace="20 tokens a second")
    page.wait_for_timeout(250)
    button(page, "Regenerate").click()
    page.get_by_label("held back to").select_option("no limit")
    page.wait_for_timeout(250)
    button(page, "Stop").click()
    (_, _), (_, text) = log(page)
    chunks = [json.loads(event) for event in wire(page)[1]]
    assert "".join(each["choices"][0]["delta"]["content"] for each in chunks) == text
    assert len({each["id"] for each in chunks}) == 1


def test_temperature_0_repeats_and_the_settings_are_asked(page):
    page.get_by_label("temperature").fill("0")
    page.get_by_label("top-p").fill("0.5")
    answer(page, "Hello")
    first = log(page)[1]
    button(page, "Regenerate").click()
    wait_for(page, "ready")
    assert log(page)[1] == first
    asked, _ = wire(page)
    assert asked["temperature"] == 0 and asked["top_p"] == 0.5
    assert asked["stream_options"] == {"include_usage": True}


def test_what_is_typed_is_text(page):
    answer(page, "<img src=x onerror=alert(1)> é😀")
    assert log(page)[0][1] == "<img src=x onerror=alert(1)> é😀"
    assert page.locator(".sb-chat img").count() == 0
    assert said(page).endswith("Not in its alphabet, left out: é 😀")


def test_the_server_takes_what_the_page_asks(page):
    httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")
    from tests.serving_home import ScriptedEngine, serving, tiny_served

    answer(page)
    asked, events = wire(page)
    served = tiny_served(window=400)
    with serving(served, ScriptedEngine(served.tokenizer.encode("the cat"))) as home:
        answered = httpx.post(f"{home.url}/v1/chat/completions", json=asked)
    assert answered.status_code == 200, answered.text
    theirs = [part.removeprefix("data: ") for part in answered.text.split("\n\n")[:-1]]
    assert theirs[-1] == events[-1] == "[DONE]"
    for mine, other in ((events[place], theirs[place]) for place in (0, 1, -3, -2)):
        mine, other = json.loads(mine), json.loads(other)
        assert list(mine) == list(other) and len(mine["choices"]) == len(other["choices"])


def test_it_fits_a_phone_and_a_finger_and_axe_finds_nothing_grave(page):
    from axe_playwright_python.sync_playwright import Axe

    answer(page)
    page.set_viewport_size({"width": 360, "height": 780})
    assert page.evaluate(visits.OVERFLOW) == [] and page.evaluate(SMALL) == []
    found = []
    for theme, options in (("light", visits.AXE), ("dark", visits.DARK)):
        page.evaluate(visits.THEME, theme)
        found += visits.grave(Axe(), page, options)
    assert not found, "\n".join(found)


def test_missing_weights_are_said_and_may_come_later(browser, tmp_path):
    page_file = write_page(tmp_path, weights=False)
    with visits.browser_context(browser) as context:
        page = visits.open_page(context, page_file)
        button(page, "Load the model").click()
        wait_for(page, "broken")
        assert "lies beside the published page" in said(page)
        shutil.copy(PAGE_WEIGHTS, tmp_path / "live")
        button(page, "Load the model").click()
        wait_for(page, "ready")


def test_an_exchange_stands_there_without_scripts(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    try:
        page = visits.open_page(context, page_file)
        shown = page.locator(".sb-still").inner_text()
        assert "a server answered “A loop & more of it”" in shown and "data: [DONE]" in shown
    finally:
        context.close()


@pytest.mark.parametrize("streamed", [
    b"", b"data: [DONE]", b"data: x\n\ndata: [DONE]\n\n", STREAMED[:-16],
    b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'])
def test_what_is_no_whole_stream_is_refused(streamed):
    with pytest.raises(ValueError, match="is no whole stream of chat chunks"):
        chat_html(QUESTION, streamed)
