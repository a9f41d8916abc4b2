"""The explorer's data, its still pictures, its page, its widgets, its command, its app."""

import html
import json
import re
import struct
import zlib
from pathlib import Path

import pytest
import torch

from scratchbook import cli
from scratchbook.config import ModelConfig
from scratchbook.interpret import AttentionView, pictures
from scratchbook.interpret.class_graphs import class_panel
from scratchbook.interpret.overlays import overlay
from scratchbook.interpret.token_overlays import facts, send_at, token_overlay, variable_at
from scratchbook.interpret.widgets import Explorer, facts_html
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.teaching.explorer import (
    explorer_html,
    explorer_page,
    explorer_parts,
    motif_scores,
)
from tests.random_models import random_model

SMALL = ModelConfig(vocab_size=256, num_layers=2, d_model=32, num_heads=2, max_seq_len=256)
METHOD = "at: i put: v\n\t| t |\n\tt := 'grüße'.\n\t^ self foo: (t at: i) bar: [:x | x + v]; baz"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- &lt; \0\u2028 ]]>"


@pytest.fixture(scope="module")
def model():
    return random_model(SMALL)


@pytest.fixture(scope="module")
def view(model) -> AttentionView:
    return AttentionView(model, METHOD)


def data_of(page: str) -> dict:
    return json.loads(re.search(r'class="sb-data">(.*?)</script>', page, re.DOTALL)[1])


# -------------------------------------------------------------------------------- pictures

def test_edges_by_hand(view):
    one = AttentionView.from_json(view.to_json())
    one.attention = torch.tensor([[[[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.7, 0.1]]]])
    found = pictures.strongest_edges(one, 0, 0)
    assert [(edge.start, edge.stop) for edge in found] == [
        (0, 0), (2, 1), (1, 0), (1, 1), (2, 0), (2, 2)]
    assert [edge.weight for edge in pictures.strongest_edges(one, 0, 0, 2)] == pytest.approx(
        [0.7, 0.2, 0.1])
    assert [edge[:2] for edge in pictures.strongest_edges(one, 0, 0, 1, "to", 0.6)] == [(2, 1)]
    assert len(pictures.strongest_edges(one, 0, 0, most=2)) == 2


def test_at_most_twelve_edges_unless_more_are_asked_for(view):
    assert len(pictures.strongest_edges(view, 0, 0)) == 12
    assert len(pictures.strongest_edges(view, 0, 0, most=60)) == 60


def test_what_the_view_does_not_have_is_refused(view):
    for wrong in ((2, 0), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="2 layers, 2 heads"):
            pictures.strongest_edges(view, *wrong)
    with pytest.raises(ValueError, match="token=999"):
        pictures.strongest_edges(view, 0, 0, 999)
    with pytest.raises(ValueError, match="direction='up'"):
        pictures.strongest_edges(view, 0, 0, 0, "up")


def test_the_png_holds_the_weights():
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    data = pictures.map_png(weights)
    assert struct.unpack(">2I", data[16:24]) == (2, 2)
    size = struct.unpack(">I", data[33:37])[0]
    rows = zlib.decompress(data[41 : 41 + size])
    assert [rows[1 + 9 * i + 4 * j + 3] for i in (0, 1) for j in (0, 1)] == [255, 0, 128, 221]


def test_pictures_escape_names_and_count_what_they_draw(model):
    hostile = AttentionView(model, HOSTILE)
    edges = pictures.strongest_edges(hostile, 1, 0)
    for svg in (pictures.head_svg(hostile, 1, 0, 3), pictures.edges_svg(hostile, edges),
                pictures.grid_svg(hostile, (0, 1), [(1, 1)])):
        assert "<script" not in svg and "<img" not in svg
    drawn = re.findall(r'data-weight="([^"]+)"', pictures.edges_svg(hostile, edges))
    assert [float(each) for each in drawn] == pytest.approx([edge.weight for edge in edges],
                                                            rel=1e-5)
    grid = pictures.grid_svg(hostile, (0, 1), [(1, 1)])
    assert grid.count("<image") == 4 and grid.count("\u2605") == 1


# -------------------------------------------------------------------------------- overlay

def test_places_are_counted_in_tokens(view):
    found = token_overlay(view, "smalltalk")
    assert len(found["classes"]) == len(found["roles"]) == len(view.tokens)
    source = overlay(METHOD, "smalltalk")
    for ours, node in zip(found["nodes"], source.nodes, strict=True):
        spans = view.spans[ours["first"]:ours["last"]]
        assert spans[0][0] <= node.start and spans[-1][1] >= node.stop
        assert ours["first"] <= ours["head"] < ours["last"]
    # a letter of two bytes is two tokens, both of the string
    at = view.spans.index((METHOD.index("ü"), METHOD.index("ü") + 1))
    assert found["classes"][at] == found["classes"][at + 1] == "string"
    assert token_overlay(view, None) is None


def test_five_things_to_look_up(view):
    """Answers that a reader finds in the overlay alone; the page shows the same `facts`."""
    found = token_overlay(view, "smalltalk")

    def said(word: str, offset: int = 0) -> dict:
        start = METHOD.index(word) + offset
        return dict(facts(found, [a for a, _ in view.spans].index(start)))

    assert said("bar:")["Argument of bar:"] == "[:x | x + v]"        # what fills this keyword?
    assert said("baz")["Receiver"] == "self"                         # whom does the cascade go to?
    assert said("baz")["Cascade"] == "foo:bar:; baz, all to self"
    assert said("x + v")["Variable"].startswith("x: parameter of the block")  # where does x live?
    assert said("x + v", 4)["Variable"].startswith("v: parameter of the method at:put:")
    assert said("t at:")["Role"].startswith("receiver")              # which part does t play?
    assert said("at: i)")["Path"] == "t \u2192 at:"                  # which path do messages take?
    assert facts(None, 0) == [] and send_at(found, len(view.tokens)) is None
    assert variable_at(found, [a for a, _ in view.spans].index(METHOD.index("self"))) is None


# -------------------------------------------------------------------------------- figure

def test_the_figures_data_is_the_view(view):
    data, still, scripts = explorer_parts(view, "smalltalk", ["A method"], layer=1, head=1)
    assert data["views"][0]["view"] == json.loads(view.to_json())
    back = AttentionView.from_json(json.dumps(data["views"][0]["view"]))
    assert (back.attention - view.attention).abs().max() <= 0.0005 + 1e-7
    assert still.startswith("<svg") and "Layer 1, head 1" in still
    assert data["views"][0]["title"] == "A method" and "explorer_data" in scripts
    assert data_of(explorer_html(view, language="smalltalk", titles=["A method"], layer=1,
                                 head=1)) == json.loads(json.dumps(data))


def test_the_docstring_s_cell_shows_the_figure(model, capsys):
    """The five lines at the head of the module, as a notebook runs them."""
    pytest.importorskip("IPython")
    from scratchbook.teaching import explorer

    lines = [line[4:] for line in explorer.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) == 4
    names = {"model": model, "source": METHOD, "tokenizer": None}
    exec("\n".join(lines), names)
    assert "HTML" in capsys.readouterr().out
    assert len(names["view"].ids) == 82


def test_wrong_calls_are_refused(view):
    for options, said in (({"views": []}, "is empty"), ({"layer": 2}, "layer=2, head=0"),
                          ({"titles": ["a", "b"]}, "1 views, 2 titles"),
                          ({"language": "rust"}, "language='rust'"),
                          ({"language": ["python", None]}, "2 languages")):
        with pytest.raises(ValueError, match=said):
            explorer_parts(**({"views": view} | options))
    with pytest.raises(ValueError, match="scores belong to one view"):
        explorer_parts([view, view], scores={"x": {}})


def test_hostile_text_cannot_leave_its_place(model):
    hostile = AttentionView(model, HOSTILE)
    page = explorer_page(hostile, title=HOSTILE, language="python", titles=[HOSTILE])
    assert "alert(2)>" not in page.replace("\\u003c", "") or "<img" not in page
    assert page.count("<script") == 2 == page.count("</script>")  # the data and the code
    assert "<img" not in page and "<!--" not in page
    assert data_of(page)["views"][0]["view"]["text"] == HOSTILE
    assert html.escape(HOSTILE.split("\0")[0]) in page


def test_a_page_names_no_other_host(view):
    page = explorer_page(view)
    assert re.findall(r"https?://[^\s\"'<]+", page) == [
        found for found in re.findall(r"https?://[^\s\"'<]+", page)
        if found.startswith("http://www.w3.org/")]
    assert "default-src 'none'" in page


def test_scores_of_the_motifs_of_code(view):
    found = motif_scores(view, "smalltalk")
    time = len(view.ids)
    by_hand = [view.attention[1, 0, i, i - 2].item() for i in range(3, time)]
    assert found["two back"]["values"][1][0] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-6)
    assert f"{time - 3} of {time} tokens" in found["two back"]["about"]
    assert "previous token" not in found
    page = explorer_html(view, language="smalltalk", scores=found)
    assert set(data_of(page)["scores"]) == set(found)


def test_a_class_panel():
    records = [ClassRecord("A", "Object"), ClassRecord("B", "A"),
               MethodRecord("go ^ self stop", "A", False), MethodRecord("stop ^ 1", "B", False)]
    panel = class_panel(records, "A", "go")
    assert panel["rows"] == [[0, "Object"], [1, "A"], [2, "B"]]
    assert panel["around"]["sends"] == [{"selector": "stop", "implementors": ["B >> stop"]}]
    assert class_panel(records, "B")["around"] is None
    made = MethodRecord("make ^ self new", "B", True)
    assert class_panel([*records, made], "B class", "make") == {
        "here": "B", "rows": [[0, "Object"], [1, "A"], [2, "B"]],
        "around": {"method": "B class >> make", "senders": [],
                   "sends": [{"selector": "new", "implementors": []}]}}


# -------------------------------------------------------------------------------- widgets

def test_widgets_draw_what_is_chosen(view):
    widgets = pytest.importorskip("ipywidgets")
    from scratchbook.interpret.widgets import attention_widget

    box = attention_widget(view, "smalltalk")
    assert isinstance(box, widgets.VBox)
    before = box.pictures["map"].value
    box.controls["layer"].value = 1
    assert "Layer 1, head 0" in box.pictures["map"].value != before
    assert box.pictures["graph"].value.count("<line") <= 12
    assert box.pictures["facts"].value == ""
    token = view.spans.index((METHOD.index("baz"), METHOD.index("baz") + 1))
    box.controls["token"].value = token
    assert "foo:bar:; baz, all to self" in box.pictures["facts"].value
    drawn = re.findall(r'data-weight="([^"]+)"', box.pictures["graph"].value)
    wanted = pictures.strongest_edges(view, 1, 0, token, threshold=0.05)
    assert [float(each) for each in drawn] == pytest.approx([e.weight for e in wanted], rel=1e-5)
    box.controls["threshold"].value = 1.0
    assert "<line" not in box.pictures["graph"].value
    box.controls["mark"].value = 0.0
    assert box.pictures["grid"].value.count("\u2605") == 4
    assert all(control.description for control in box.controls.values())


def test_the_explorers_scores_and_marks(model):
    found = Explorer(AttentionView(model, "ab"))
    found.chosen.mark = 0.0
    assert len(found.marked()) == 4
    assert found.previous_token_scores()[1][0] == pytest.approx(
        found.view.attention[1, 0, 1, 0].item())
    assert Explorer(AttentionView(model, "a")).previous_token_scores() == [[0.0, 0.0]] * 2
    assert found.tokens()[0] == ("none", -1) and found.facts() == []
    assert facts_html([("<a>", "<b>")]) == "<b>&lt;a&gt;</b>: &lt;b&gt;"


# -------------------------------------------------------------------------------- command

def test_the_command_writes_a_page(tmp_path, capsys):
    page, kept = tmp_path / "page.html", tmp_path / "view.json"
    assert cli.main(["view", "smalltalk", "--text", "double ^ self * 2", "--layers", "0", "2",
                     "--output", str(page), "--json", str(kept)]) == 0
    assert "2 layers of 8 heads" in capsys.readouterr().out
    found = data_of(page.read_text(encoding="utf-8"))["views"][0]
    assert found["view"]["layers"] == [0, 2] and found["view"]["tokens"][0] == "<|method|>"
    assert found["overlay"]["language"] == "smalltalk" and found["overlay"]["error"] == ""
    assert AttentionView.from_json(kept.read_text(encoding="utf-8")).ids == found["view"]["ids"]


def test_the_command_reads_a_file_and_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    source = tmp_path / "x.py"
    source.write_text("def f(x):\n    return '</script>'\n", encoding="utf-8")
    page = tmp_path / "page.html"
    assert cli.main(["view", "base", "--file", str(source), "--output", str(page)]) == 0
    assert data_of(page.read_text(encoding="utf-8"))["views"][0]["overlay"]["language"] == "python"
    assert page.read_text(encoding="utf-8").count("</script>") == 2
    assert "two back" in data_of(page.read_text(encoding="utf-8"))["scores"]
    assert cli.main(["view", "nothing", "--text", "a"]) == 2
    assert "name base, smalltalk, or the folder of a run" in capsys.readouterr().err
    monkeypatch.setattr("scratchbook.cli.view_commands.MOST_BYTES", 1000)
    assert cli.main(["view", "base", "--text", "a b", "--output", str(tmp_path / "no.html")]) == 2
    assert "shorten the text" in capsys.readouterr().err
    assert not (tmp_path / "no.html").exists()


# -------------------------------------------------------------------------------- app

APP = Path(pictures.__file__).with_name("streamlit_app.py")


@pytest.fixture
def app(view, tmp_path, monkeypatch):
    pytest.importorskip("streamlit", reason="streamlit is not installed: "
                        "pip install 'scratchbook[streamlit]'")
    from streamlit.testing.v1 import AppTest

    kept = tmp_path / "view.json"
    kept.write_text(view.to_json(), encoding="utf-8")

    def start(*arguments: str):
        monkeypatch.setattr("sys.argv", ["streamlit_app.py", *arguments])
        return AppTest.from_file(str(APP), default_timeout=60).run()

    start.kept = str(kept)
    return start


def pictures_of(page) -> str:
    return "".join(each.proto.body for each in page.get("html"))


def test_the_app_draws_what_is_chosen(app, view):
    page = app(app.kept, "smalltalk")
    assert not page.exception and "Layer 0, head 0" in pictures_of(page)
    assert len(page.table[0].value) <= 12
    page.sidebar.selectbox[0].select(1).run()
    assert "Layer 1, head 0" in pictures_of(page)
    token = view.spans.index((METHOD.index("baz"), METHOD.index("baz") + 1))
    page.sidebar.selectbox[2].select(token).run()
    assert "foo:bar:; baz, all to self" in pictures_of(page)
    page.sidebar.slider[0].set_value(1.0).run()
    assert not page.exception and "<line" not in pictures_of(page)
    names = [*page.sidebar.selectbox, *page.sidebar.radio, *page.sidebar.slider,
             *page.sidebar.number_input]
    assert len(names) == 7 and all(each.label for each in names)


def test_the_app_says_what_is_missing(app, tmp_path):
    assert "Name a view" in app().error[0].value
    assert "nothing.json" in app(str(tmp_path / "nothing.json")).error[0].value
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}", encoding="utf-8")
    assert "no view that" in app(str(wrong)).error[0].value
    assert "language='rust'" in app(app.kept, "rust").error[0].value
