"""bertviz's views in Chromium with the network off: they draw, and draw our numbers."""

import pytest
import torch

from scratchbook.config import ModelConfig
from scratchbook.interpret import AttentionView, capture
from scratchbook.interpret.bertviz_views import bertviz_frame
from tests.random_models import random_model

SMALL = ModelConfig(vocab_size=256, num_layers=3, d_model=32, num_heads=4, d_ff=48)
TEXT = "a = f(b)\n<é>"


@pytest.fixture(scope="module")
def view():
    return AttentionView(random_model(SMALL), TEXT)


@pytest.fixture
def shown(browser, tmp_path):
    """A function that opens HTML from a file with no network, and the errors that it met."""
    context = browser.new_context()
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:")
                  else route.abort())
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))

    def open_(html):
        path = tmp_path / "page.html"
        path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{html}", encoding="utf-8")
        page.goto(path.as_uri())
        page.wait_for_selector("iframe")
        frame = page.frames[1]
        frame.wait_for_selector("svg")
        return frame

    yield open_, errors
    context.close()


def opacities(frame, selector="line"):
    return torch.tensor(frame.eval_on_selector_all(
        selector, "all => all.map(line => +line.getAttribute('stroke-opacity'))"))


def test_the_head_view_draws_our_numbers(view, shown):
    open_, errors = shown
    frame = open_(view.to_bertviz("head"))
    time = len(view.ids)
    drawn = opacities(frame).reshape(4, time, time) * 4  # shared among four active heads
    assert (drawn - view.attention[0]).abs().max() <= 0.5e-3 + 1e-6
    frame.select_option("#layer", "2")
    drawn = opacities(frame).reshape(4, time, time) * 4
    assert (drawn - view.attention[2]).abs().max() <= 0.5e-3 + 1e-6
    texts = frame.eval_on_selector_all("#left text", "all => all.map(each => each.textContent)")
    assert texts == [token.replace("\n", "⏎") for token in view.tokens]
    # a click on the first square turns head 0 off
    frame.click("#vis svg > g:last-child rect:first-child")
    drawn = opacities(frame).reshape(4, time, time) * 3
    assert not drawn[0].any()
    assert (drawn[1:] - view.attention[2, 1:]).abs().max() <= 0.5e-3 + 1e-6
    assert not errors


def test_the_model_view_draws_every_head(view, shown):
    open_, errors = shown
    frame = open_(view.to_bertviz("model", layers=[0, 2]))
    time = len(view.ids)
    drawn = opacities(frame).reshape(2, 4, time, time)
    assert (drawn - view.attention[[0, 2]]).abs().max() <= 0.5e-3 + 1e-6
    frame.eval_on_selector("#vis svg > g > rect:last-child", "r => r.onclick()")
    assert frame.query_selector("text.detail").text_content() == "Layer 0, Head 0"
    assert not errors


def test_the_neuron_view_multiplies_queries_and_keys(view, shown):
    open_, errors = shown
    model = random_model(SMALL)
    with torch.no_grad(), capture(model, keep=("attention", "queries", "keys")) as seen:
        model(torch.tensor([view.ids]))
    frame = open_(bertviz_frame("neuron", view.tokens, seen.attention[1], [1],
                                seen.queries[1], seen.keys[1]))
    assert len(frame.query_selector_all("#collapsed line")) >= len(view.ids)
    assert not errors


@pytest.mark.parametrize("kind", ["head", "model", "neuron"])
@pytest.mark.parametrize(("scheme", "said", "dark"), [
    ("light", "", False), ("dark", "", True), ("light", '<html data-theme="dark">', True),
    ("dark", '<html data-theme="light">', False), ("dark", '<html theme="dark">', True),
    ("light", '<html><body data-jp-theme-light="false">', True),
    ("dark", '<html><body data-jp-theme-light="true">', False)])
def test_a_dark_page_gets_a_dark_picture_that_can_be_read(view, browser, tmp_path, kind, scheme,
                                                          said, dark):
    """The background follows the reader's theme, and something on it stands out."""
    image = pytest.importorskip("PIL.Image")
    path, part = tmp_path / "page.html", torch.rand(3, 4, len(view.tokens), 8)
    frame = bertviz_frame(kind, view.tokens, view.attention, range(3), part, part)
    path.write_text(f"<!DOCTYPE html>{said}<meta charset=utf-8>{frame}", encoding="utf-8")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(path.as_uri())
    page.frames[1].wait_for_selector("svg")
    picture = tmp_path / "picture.png"
    page.locator("iframe").screenshot(path=picture)
    context.close()
    grey = image.open(picture).convert("L")
    levels = grey.histogram()
    usual = max(range(256), key=levels.__getitem__)
    assert usual < 64 if dark else usual > 192
    assert max(abs(level - usual) for level in range(256) if levels[level]) > 128
