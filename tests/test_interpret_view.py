"""The view of one text: numbers as the hooks saw them, spans in characters, JSON there and back."""

import json

import pytest
import torch

from scratchbook.base_model import load_base
from scratchbook.config import ModelConfig
from scratchbook.interpret import AttentionView, capture
from scratchbook.interpret.spans import byte_spans, read_text
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.tokenizers import BPETokenizer, CharTokenizer, WordPieceTokenizer
from tests import tiny_models
from tests.random_models import random_model

BYTES = ModelConfig(vocab_size=256, max_seq_len=64, num_layers=3, d_model=32, num_heads=4, d_ff=48)
TEXTS = ["def f(x):\n\treturn x", "naïve café", "汉字 🙂 ok", "👩‍💻x", "é"]


@pytest.fixture(scope="module")
def base():
    return load_base()


def test_the_grid_is_what_the_hooks_saw(base):
    model, tokenizer = base
    text = "def add(first, second):\n    return first + second\n"
    view = AttentionView(model, text, tokenizer)
    with torch.no_grad(), capture(model) as seen:
        model(torch.tensor([tokenizer.encode(text)]))
    assert view.attention.shape == (6, 8, len(view.ids), len(view.ids))
    for layer in range(6):
        assert torch.equal(view.attention[layer], seen.attention[layer][0])
    assert "".join(view.tokens) == text and view.layers == [0, 1, 2, 3, 4, 5]
    some = AttentionView(model, text, tokenizer, layers=(-1,))
    assert some.layers == [5] and torch.equal(some.attention[0], view.attention[5])
    assert repr(view) == f"AttentionView(DecoderLM: 6 layers, 8 heads, {len(view.ids)} tokens)"


@pytest.mark.parametrize("text", TEXTS)
def test_spans_cover_the_characters_of_their_tokens(text, base):
    for model, tokenizer in (base, (random_model(BYTES), None)):
        view = AttentionView(model, text, tokenizer)
        read = "".join(f"{piece!r}" for piece in view.tokens)
        assert read and len(view.spans) == len(view.tokens) == len(view.ids)
        covered = 0
        for piece, (start, end) in zip(view.tokens, view.spans, strict=True):
            assert covered - 1 <= start <= covered <= end and start < end
            covered = end
            if "\\" not in piece:
                assert text[start:end] == piece
        assert covered == len(text)


def test_spans_by_hand():
    assert byte_spans("aé", [b"a", b"\xc3", b"\xa9"]) == [(0, 1), (1, 2), (1, 2)]
    assert byte_spans("a🙂b", [b"a\xf0\x9f", b"\x99", b"\x82b"]) == [(0, 2), (1, 2), (1, 3)]
    assert byte_spans("", []) == []
    with pytest.raises(ValueError, match="are not the text"):
        byte_spans("Ab", [b"a", b"b"])


def test_special_tokens_stand_before_the_text_and_are_not_read_out_of_it():
    model, tokenizer = load_smalltalk()
    begin = tokenizer.special_tokens["<|method|>"]
    view = AttentionView(model, "size\n\t^ self '<|end|>' size", tokenizer, before=[begin])
    assert view.tokens[0] == "<|method|>" and view.spans[0] == (0, 0) and view.spans[1][0] == 0
    assert "".join(view.tokens[1:]) == view.text
    assert tokenizer.special_tokens["<|end|>"] not in view.ids
    with pytest.raises(ValueError, match="names 65"):
        AttentionView(model, "size", tokenizer, before=[65])


def test_json_comes_back_to_its_digits(base):
    model, tokenizer = base
    view = AttentionView(model, "for i in range(10):\n    print(i, 'é')", tokenizer)
    for digits in (2, 3, 5):
        written = view.to_json(digits)
        again = AttentionView.from_json(written)
        gap = (again.attention - view.attention).abs().max().item()
        assert 0 < gap <= 0.5 * 10**-digits + 1e-7
        assert again.to_json(digits) == written
        assert (again.text, again.ids, again.tokens, again.spans, again.layers, again.name) == (
            view.text, view.ids, view.tokens, view.spans, view.layers, view.name)
    rows = json.loads(view.to_json())["attention"][1][2]
    assert [len(row) for row in rows] == list(range(1, len(view.ids) + 1))
    ahead = AttentionView.from_json(view.to_json())
    ahead.attention[0, 0, 0, 3] = 0.25
    assert AttentionView.from_json(ahead.to_json()).attention[0, 0, 0, 3] == 0.25


@pytest.mark.parametrize("text", [
    "{}", "[]", "no json", '{"format":"scratchbook attention","version":2}',
    '{"format":"scratchbook attention","version":1,"ids":[1]}'])
def test_foreign_json_is_refused(text):
    with pytest.raises(ValueError, match=r"no view that AttentionView\.to_json"):
        AttentionView.from_json(text)


def test_damaged_views_are_refused(base):
    model, tokenizer = base
    state = json.loads(AttentionView(model, "x = 1", tokenizer).to_json())
    for name, value in (("tokens", state["tokens"][:-1]), ("layers", [0]), ("spans", []),
                        ("attention", state["attention"][:2]), ("scale", "many")):
        with pytest.raises(ValueError, match="no view"):
            AttentionView.from_json(json.dumps(state | {name: value}))


def test_the_model_is_as_it_was():
    model = random_model(BYTES.with_(dropout=0.5)).train()
    first, second = (AttentionView(model, "abc") for _ in range(2))
    assert model.training and torch.equal(first.attention, second.attention)


def test_what_cannot_be_seen_is_refused(base):
    model, tokenizer = base
    with pytest.raises(ValueError, match="no tokens"):
        AttentionView(model, "", tokenizer)
    with pytest.raises(ValueError, match="the model reads 64"):
        AttentionView(random_model(BYTES), "x" * 65)
    with pytest.raises(ValueError, match="vocab_size=4096: only a model of 256"):
        AttentionView(model, "x")
    with pytest.raises(ValueError, match="bytes have no special"):
        read_text("x", None, [0], 256)
    with pytest.raises(ValueError, match="max_bytes=100"):
        AttentionView(model, "x = 1", tokenizer, max_bytes=100)
    with pytest.raises(ValueError, match="digits=0"):
        AttentionView(model, "x = 1", tokenizer).to_json(0)
    with pytest.raises(ValueError, match="str is neither"):
        AttentionView(model, "x", "gpt2")
    with pytest.raises(ValueError, match="are not the text"):
        read_text("Hello there", WordPieceTokenizer().train("hello there " * 5, 60))
    assert read_text("ab", CharTokenizer().train("ab"))[2] == [(0, 1), (1, 2)]


def test_a_model_and_a_tokenizer_of_transformers(tmp_path):
    from transformers import PreTrainedTokenizerFast

    ours = BPETokenizer().train("def f(x): return x + 1 naïve " * 3, 99 + 190)
    ours.save_tokenizers(tmp_path / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    model = tiny_models.build("gpt2")
    model.resize_token_embeddings(ours.vocab_size)
    text = "def naïve(x): return x"
    view, own = AttentionView(model, text, tokenizer), read_text(text, ours)
    assert view.ids == own[0] and view.attention.shape[:2] == (3, 4)
    assert "".join(view.tokens) == text and view.spans == own[2]


def test_bertviz_holds_our_numbers_once_and_asks_nobody(base):
    import html
    import re

    model, tokenizer = base
    view = AttentionView(model, "def f(x):\n    return '</script>', x", tokenizer, layers=(0, 3))
    for kind in ("head", "model"):
        frame = view.to_bertviz(kind)
        assert frame == view.to_bertviz(kind)  # nothing drawn at random
        page = html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1])
        assert "http" not in page.replace("http://www.w3.org", "")
        assert "PYTHON_PARAMS" not in page and page.count('"attn"') == 1
        params = json.loads(re.search(r"const params = (.*);", page)[1].replace("<\\/", "</"))
        data = params["attention"][0]
        gap = (torch.tensor(data["attn"]) - view.attention).abs().max().item()
        assert gap <= 0.5e-3 + 1e-7
        assert "".join(data["left_text"]) == view.text.replace("\n", "⏎")
        assert params["include_layers"] == [0, 3]
    assert len(view.to_bertviz("head", layers=[3])) < len(view.to_bertviz("head"))
    for arguments, message in ((("heads",), "'heads' is unknown"), (("neuron",), "no queries"),
                               (("head", [1]), "layer 1 is none")):
        with pytest.raises(ValueError, match=message):
            view.to_bertviz(*arguments)
    with pytest.raises(ValueError, match="65 tokens"):
        AttentionView(random_model(BYTES.with_(max_seq_len=99)), "x" * 65).to_bertviz()


def test_bertvizs_own_function_would_embed_the_same(base):
    import re

    from bertviz import head_view

    model, tokenizer = base
    view = AttentionView(model, "x = f(y)", tokenizer)
    theirs = head_view(list(view.attention[:, None]), view.tokens, html_action="return",
                       prettify_tokens=False).data
    params = json.loads(re.search(r"const params = (\{.*?\}); // HACK", theirs)[1])
    assert torch.equal(torch.tensor(params["attention"][0]["attn"]), view.attention)
    assert params["include_layers"] == view.layers
