"""The chat page in a real browser, over its own server: by mouse, by keyboard, narrow and dark."""

import json
import re
from dataclasses import replace

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")

from tests.browser import visits  # noqa: E402
from tests.serving_home import ScriptedEngine, serving, tiny_served, until  # noqa: E402

SERVED = tiny_served(window=512)
SAYS = "the cat sat 👋 <b>on</b> the mat, "
MINUTES = 40_000  # milliseconds, of a busy machine
SMALL = """() => [...document.querySelectorAll('button, select, input, textarea, summary')]
  .filter(e => e.checkVisibility()).filter(e => { const box = e.getBoundingClientRect();
    return box.height < 24 || box.width < 24; }).map(e => e.outerHTML.slice(0, 100))"""
OVERFLOW = visits.OVERFLOW


def wait(page, expression: str) -> None:
    """Until it is true; the browser's own way of waiting needs eval, which the page forbids."""
    until(lambda: page.evaluate(expression))


class Home:
    """The server, its engine and an open page."""

    def __init__(self, home, page):
        self.home, self.page, self.engine = home, page, home.engine

    def say(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def wait_written(self) -> str:
        """The last answer's text, when it is whole."""
        self.page.wait_for_selector("#log[aria-busy='false']")
        return self.page.locator("#log article.assistant .text").last.text_content()

    def kept(self) -> list[dict]:
        return [json.loads(text) for text in self.page.evaluate(
            "() => Object.keys(localStorage).filter(k => k.startsWith('scratchbook.chat.'))"
            ".sort().reverse().map(k => localStorage[k])")]


@pytest.fixture(scope="module")
def server():
    with serving(SERVED, ScriptedEngine(SERVED.tokenizer.encode(SAYS * 40))) as home:
        yield home


@pytest.fixture
def chat(browser, server):
    """A fresh browser profile on the page; whatever it asks elsewhere is refused and remembered."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light",
                                  reduced_motion="reduce")
    context.set_default_timeout(MINUTES)
    outside, complaints = [], []
    context.route(re.compile("^(?!" + re.escape(server.url) + "/)(https?|wss?):"),
                  lambda route: (outside.append(route.request.url), route.abort()))
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    server.engine.pause = 0.0
    page.goto(server.url)
    wait(page, "document.getElementById('model').textContent === 'tiny'")
    assert page.is_hidden("#choice")  # there is nothing to choose
    found = Home(server, page)
    found.complaints = complaints
    yield found
    context.close()
    assert outside == []
    until(lambda: server.engine.idle and server.worker.open == 0)


def test_a_message_is_answered_and_counted(chat):
    chat.say("hello <i>you</i>")
    text = chat.wait_written()
    assert text.startswith(SAYS) and "\ufffd" not in text
    assert chat.page.locator("#log article").count() == 2
    assert chat.page.locator("#log b, #log i").count() == 0  # what they write is text, not markup
    note = chat.page.locator("#log article.assistant footer").text_content()
    read = len(SERVED.encode_chat([{"role": "user", "content": "hello <i>you</i>"}]))
    assert re.search(rf"{read} tokens read, \d+ written", note)
    assert chat.page.input_value("#text") == ""
    # the page is there again after a reload: it is kept in this browser
    chat.page.reload()
    assert chat.page.locator("#log article.assistant .text").text_content() == text
    assert chat.complaints == []


def test_text_comes_piece_by_piece_and_stops(chat):
    chat.engine.pause = 0.05
    chat.page.fill("#max-tokens", "200")
    chat.say("go on")
    answer = chat.page.locator("#log article.assistant .text")
    wait(chat.page, "document.querySelector('article.assistant .text')?.textContent.length > 8")
    first = answer.text_content()
    assert chat.page.is_enabled("#stop") and chat.page.is_disabled("#send")
    until(lambda: len(answer.text_content()) > len(first))
    chat.page.click("#stop")
    stopped = chat.wait_written()
    assert len(first) < len(stopped) < len(SAYS) * 4
    until(lambda: chat.engine.idle and chat.home.worker.open == 0)  # the slot is free
    assert "stopped" in chat.page.locator("#log article.assistant footer").text_content()
    assert chat.kept()[0]["messages"][1]["content"] == stopped


def test_regenerate_and_edit(chat):
    chat.say("first")
    chat.wait_written()
    chat.say("second")
    chat.wait_written()
    asked = len(chat.engine.seen)
    assert chat.page.get_by_role("button", name="Regenerate this answer").count() == 1
    chat.page.get_by_role("button", name="Regenerate this answer").click()
    until(lambda: len(chat.engine.seen) == asked + 1)
    chat.wait_written()
    assert [m["content"] for m in chat.kept()[0]["messages"][::2]] == ["first", "second"]
    chat.page.get_by_role("button", name="Edit message 1").click()
    area = chat.page.get_by_label("New text of message 1")
    assert area.input_value() == "first"
    area.fill("other")
    chat.page.get_by_role("button", name="Send again").click()
    until(lambda: len(chat.engine.seen) == asked + 2)
    chat.wait_written()
    (kept,) = chat.kept()
    assert [m["content"] for m in kept["messages"][::2]] == ["other"]  # what followed it is gone
    prompt = SERVED.tokenizer.decode(chat.engine.seen[-1].prompt_ids)
    assert "other" in prompt and "first" not in prompt and "second" not in prompt


def test_settings_reach_the_engine_and_are_kept(chat):
    for field, value in (("temperature", "1.3"), ("top-p", "0.5")):
        chat.page.eval_on_selector(f"#{field}", "(e, v) => { e.value = v; "
                                                "e.dispatchEvent(new Event('input')); }", value)
    chat.page.fill("#max-tokens", "5")
    chat.say("a")
    chat.wait_written()
    request = chat.engine.seen[-1]
    assert (request.temperature, request.top_p, request.max_new_tokens) == (1.3, 0.5, 5)
    note = chat.page.locator("#log article.assistant footer").text_content()
    assert "5 written" in note and "cut at the limit" in note
    chat.page.reload()
    assert chat.page.text_content("#temperature-value") == "1.3"
    assert chat.page.input_value("#max-tokens") == "5"


def test_several_conversations_by_keyboard_alone(chat):
    page = chat.page
    page.focus("#text")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line")
    page.keyboard.press("Enter")
    chat.wait_written()
    page.keyboard.press("Alt+n")
    assert page.evaluate("document.activeElement.id") == "text"
    assert page.locator("#log article").count() == 0
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    chat.wait_written()
    assert [each["title"] for each in chat.kept()] == ["two", "one\nline"]
    chat.engine.pause = 0.05
    page.keyboard.type("three")
    page.keyboard.press("Enter")
    page.wait_for_selector("#log[aria-busy='true']")
    page.keyboard.press("Escape")
    chat.wait_written()
    page.locator("#conversations button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#log article.user .text").first.text_content() == "one\nline"
    assert page.locator("#conversations [aria-current='true']").text_content() == "one\nline"
    page.focus("#delete")
    page.keyboard.press("Enter")
    assert [each["title"] for each in chat.kept()] == ["two"]


def test_what_is_deleted_while_it_is_written_stays_deleted(chat):
    chat.engine.pause = 0.05
    chat.say("forget me")
    chat.page.wait_for_selector("#log[aria-busy='true']")
    # the end of an answer draws the page anew: what is typed into an open message would be lost
    assert chat.page.get_by_role("button", name="Edit message 1").is_disabled()
    chat.page.click("#delete")
    until(lambda: chat.engine.idle and chat.home.worker.open == 0)
    chat.page.wait_for_timeout(300)
    assert chat.kept() == []
    chat.engine.pause = 0.0
    chat.say("remember me")
    chat.wait_written()
    assert chat.page.get_by_role("button", name="Edit message 1").is_enabled()
    assert [each["title"] for each in chat.kept()] == ["remember me"]


def test_the_transcript_is_a_file(chat):
    chat.say("keep this")
    text = chat.wait_written()
    with chat.page.expect_download() as caught:
        chat.page.get_by_role("button", name="Export transcript").click()
    made = caught.value.path().read_text(encoding="utf-8")
    assert caught.value.suggested_filename == "transcript.md"
    assert made == f"# keep this\n\n## You\n\nkeep this\n\n## tiny\n\n{text}\n"


def test_a_refusal_is_said_and_nothing_is_lost(chat):
    chat.say("the " * 600)
    chat.page.wait_for_selector("#log[aria-busy='false']")
    wait(chat.page, "document.getElementById('problem').textContent")
    assert "window of this model is 512 tokens" in chat.page.text_content("#problem")
    assert chat.page.get_by_role("alert").count() == 1
    assert [m["role"] for m in chat.kept()[0]["messages"]] == ["user"]
    chat.page.get_by_role("button", name="Edit message 1").click()
    chat.page.get_by_label("New text of message 1").fill("shorter")
    chat.page.get_by_role("button", name="Send again").click()
    assert chat.wait_written().startswith("the cat")
    assert chat.page.text_content("#problem") == ""


def test_one_of_several_models_is_chosen_and_signs_its_answers(browser):
    wide, narrow = SERVED, replace(tiny_served(window=64), name="<b>narrow</b>")
    engines = [ScriptedEngine(SERVED.tokenizer.encode(SAYS * 20)) for _ in range(2)]
    with serving(wide, engines[0], more=[(narrow, engines[1])]) as home:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(MINUTES)
        page.goto(home.url)
        wait(page, "document.querySelectorAll('#choice option').length === 2")
        chat = Home(home, page)
        chat.say("one")
        chat.wait_written()
        page.get_by_label("Model").select_option("<b>narrow</b>")
        assert page.text_content("#model") == "<b>narrow</b>"
        assert page.get_attribute("#max-tokens", "max") == "64"
        assert page.input_value("#max-tokens") == "32"
        page.keyboard.press("Alt+n")
        chat.say("two")
        chat.wait_written()
        assert [len(engine.seen) for engine in engines] == [1, 1]
        page.locator("#conversations button").nth(1).click()
        # what one model wrote is not signed by the other
        assert page.locator("article.assistant h2").text_content() == "tiny"
        page.reload()
        wait(page, "document.getElementById('model').textContent === '<b>narrow</b>'")
        assert page.locator("article.assistant h2").text_content() == "<b>narrow</b>"
        context.close()


def test_a_key_is_asked_for_once(browser):
    engine = ScriptedEngine(SERVED.tokenizer.encode(SAYS * 20))
    with serving(SERVED, engine, key="sesame") as home:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(MINUTES)
        page.goto(home.url)
        page.wait_for_selector("#key", state="visible")
        assert "API key" in page.text_content("#problem")
        page.fill("#key", "sesame")
        page.press("#key", "Tab")
        wait(page, "document.getElementById('model').textContent === 'tiny'")
        page.fill("#text", "a")
        page.press("#text", "Enter")
        page.wait_for_selector("#log[aria-busy='false'] article.assistant")
        assert page.evaluate("Object.values(localStorage).some(v => v.includes('sesame'))") is False
        context.close()


def test_scripts_of_others_do_not_run(chat):
    """The policy of the server, not only our care: a script in the page is refused."""
    chat.page.evaluate("""() => { const s = document.createElement('script');
        s.textContent = 'window.hit = 1'; document.body.append(s);
        const i = document.createElement('img'); i.setAttribute('onerror', 'window.hit = 2');
        i.src = 'https://elsewhere.example/x.png'; document.body.append(i); }""")
    chat.page.wait_for_timeout(200)
    assert chat.page.evaluate("window.hit") is None
    assert len(chat.complaints) >= 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_wide_narrow_light_and_dark_for_everybody(chat, theme):
    from axe_playwright_python.sync_playwright import Axe

    page = chat.page
    page.emulate_media(color_scheme=theme)
    chat.say("a_word_without_an_end_" * 12)
    chat.wait_written()
    chat.say("b")
    chat.wait_written()
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 780})
        assert page.evaluate(OVERFLOW) == []
        assert page.evaluate(SMALL) == []
        found = Axe().run(page, options=visits.AXE).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found] == []
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}")
                  for name in ("color", "backgroundColor"))
    assert (int(re.search(r"\d+", paper)[0]) < 60) == (theme == "dark") != (
        int(re.search(r"\d+", ink)[0]) < 60)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.click("#theme")  # the other one, whatever the system likes
    other = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", other)[0]) < 60) == (theme == "light")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == other
