"""What can be served, and the command line that does it."""

import json
import os

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")

import torch  # noqa: E402

from scratchbook.cli import main  # noqa: E402
from scratchbook.config import ModelConfig  # noqa: E402
from scratchbook.data.batches import Windows  # noqa: E402
from scratchbook.model import DecoderLM  # noqa: E402
from scratchbook.serving import Engine, Request  # noqa: E402
from scratchbook.serving.served import TooLong, open_served  # noqa: E402
from scratchbook.training import TrainConfig, train  # noqa: E402
from scratchbook.weights import save_pretrained  # noqa: E402
from tests.local_hub import ask_there, serve  # noqa: E402
from tests.serving_home import CHATML, tiny_served  # noqa: E402


def text_of(served, ids: list[int], stops=()) -> str:
    stream = served.stream(stops)
    return "".join(stream.add(token)[0] for token in ids) + stream.end()[0]


def test_the_shipped_models():
    base = open_served("base")
    end = base.control["<|endoftext|>"]
    assert base.name == "base" and base.encode("a")[0] == end and base.stop_ids == [end]
    assert base.template is None and base.chat_stops
    assert text_of(base, [*base.tokenizer.encode_ordinary("a <|endoftext|>"), end]) == (
        "a <|endoftext|>")
    smalltalk = open_served("smalltalk")
    assert smalltalk.control["<|end|>"] in smalltalk.stop_ids
    assert smalltalk.control["<|method|>"] not in smalltalk.stop_ids
    assert smalltalk.encode("foo")[0] == smalltalk.control["<|method|>"]


def test_a_run_that_reads_bytes(tmp_path):
    ids = torch.tensor(list(("def f():\n    return 1\n" * 200).encode()))
    model = DecoderLM(ModelConfig(256, max_seq_len=96, num_layers=1, d_model=32, num_heads=2))
    train(model, Windows(ids, ids[:500], 32), TrainConfig(
        max_steps=2, batch_size=2, checkpoint_every=2, eval_every=2), tmp_path / "first")
    served = open_served(tmp_path / "first", "last")
    assert (served.name, served.window, served.stop_ids) == ("first", 96, [])
    assert served.encode("é") == [195, 169] and text_of(served, [195, 169]) == "é"
    # a conversation is the same text
    chat = served.encode_chat([{"role": "user", "content": "hi"}])
    assert bytes(chat) == b"### User:\nhi\n\n### Assistant:\n"
    with pytest.raises(ValueError, match="surrogate"):
        served.encode("\ud800")


def test_a_published_folder_with_its_template(tmp_path):
    tiny = tiny_served()
    save_pretrained(tiny.model, tmp_path)
    tiny.tokenizer.save_tokenizers(tmp_path / "tokenizer.json")
    assert open_served(tmp_path).template is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"chat_template": CHATML, "eos_token": "<|im_end|>"}), encoding="utf-8")
    served = open_served(tmp_path)
    assert served.name == tmp_path.name and served.chat_stops == ()
    assert set(served.stop_ids) == {served.control["<|im_end|>"], served.control["<|endoftext|>"]}
    talk = [{"role": "user", "content": "hi <|im_end|>"}]
    assert served.encode_chat(talk) == tiny.encode_chat(talk)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"chat_template": CHATML, "eos_token": "<|im_start|>"}), encoding="utf-8")
    assert set(open_served(tmp_path).stop_ids) == set(served.control.values())


def test_added_tokens_that_are_words_are_text(tmp_path):
    """A published tokenizer.json may add words, which are no control tokens."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    tiny, library = tiny_served(), tokenizers.Tokenizer(tokenizers.models.WordLevel(
        {"<unk>": 0, "the": 1, "cat": 2}, unk_token="<unk>"))
    library.add_special_tokens(["<|im_end|>"])
    library.add_tokens(["mat"])
    save_pretrained(tiny.model, tmp_path)
    library.save(str(tmp_path / "tokenizer.json"))
    served = open_served(tmp_path)
    assert served.control == {"<|im_end|>": 3} and served.stop_ids == [3]
    assert text_of(served, [4, 3]) == "mat"


def test_a_run_on_ids_alone_cannot_be_served(tmp_path):
    ids = torch.arange(2000) % 50
    model = DecoderLM(ModelConfig(50, max_seq_len=32, num_layers=1, d_model=8, num_heads=1))
    train(model, Windows(ids, ids[:500], 16), TrainConfig(
        max_steps=1, batch_size=2, checkpoint_every=1, eval_every=1), tmp_path / "ids")
    with pytest.raises(ValueError, match="was trained on ids"):
        open_served(tmp_path / "ids", "last")


def test_json_begins_with_a_brace_and_control_tokens_are_none_of_its_text():
    tiny = tiny_served()
    texts = [tiny.tokenizer.token_bytes(i) for i in range(tiny.tokenizer.vocab_size)]
    opens, inside = tiny.json_masks([]), tiny.json_masks(tiny.tokenizer.encode('{"a'))
    assert [texts[i][:1] for i in opens.nonzero().flatten()] == [b"{"] * int(opens.sum())
    assert opens[tiny.tokenizer.encode("{")].all() and inside[tiny.tokenizer.encode("b")].all()
    assert not inside[list(tiny.control.values())].any()


def test_a_model_from_the_hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder, tiny = tmp_path / "there", tiny_served()
    sizes = transformers.GPT2Config(vocab_size=tiny.tokenizer.vocab_size, n_positions=64, n_embd=32,
                                    n_layer=2, n_head=2)
    theirs = transformers.GPT2LMHeadModel(sizes).eval()
    theirs.save_pretrained(folder)
    tiny.tokenizer.save_tokenizers(folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    with serve({"someone/gpt2": folder}) as (address, _):
        ask_there(address, tmp_path / "cache", monkeypatch)
        served = open_served("someone/gpt2")
    assert (served.name, served.window) == ("someone/gpt2", 64)
    talk = [{"role": "user", "content": "the cat"}]
    ids = served.encode_chat(talk)
    assert ids == tiny.encode_chat(talk)
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=5, do_sample=False, pad_token_id=0,
                           eos_token_id=None)[0, len(ids) :].tolist()
    assert Engine(served.model).run([Request(ids, 5)]) == [made]


def test_a_text_that_can_never_fit_is_refused_before_it_is_encoded(monkeypatch):
    tiny = tiny_served(window=128)
    longest = max(len(tiny.tokenizer.token_bytes(i)) for i in range(tiny.tokenizer.vocab_size))
    assert tiny.most_bytes == 128 * longest
    fits = "é" * (tiny.most_bytes // 2)
    assert tiny.encode(fits) and tiny.encode_chat([{"role": "user", "content": fits}])
    monkeypatch.setattr(type(tiny.tokenizer), "_encode_ordinary", lambda *given: 1 / 0)
    for ask in (lambda text: tiny.encode(text), lambda text: tiny.encode_chat(
            [{"role": "user", "content": text[:9]}, {"role": "user", "content": text[9:]}])):
        with pytest.raises(ValueError, match="window of this model is 128 tokens"):
            ask(fits + "aa")
    with pytest.raises(TooLong, match="129 messages: leave the oldest out"):
        tiny.encode_chat([{"role": "user", "content": ""}] * 129)


def test_ids_that_no_token_has_show_nothing():
    tiny = tiny_served()
    model = DecoderLM(ModelConfig(tiny.tokenizer.vocab_size + 5, num_layers=1, d_model=16,
                                  num_heads=1, max_seq_len=8))
    wider = type(tiny)("wide", model, tiny.tokenizer, control=tiny.control)
    assert text_of(wider, [tiny.tokenizer.vocab_size + 4, *tiny.tokenizer.encode("a")]) == "a"
    assert wider.text_of(tiny.tokenizer.vocab_size + 4) == "" and wider.text_of(
        tiny.tokenizer.encode("A")[0]) == "A"
    gap = tiny_served()
    del gap.tokenizer._tokens[7]  # as in cl100k, where no token has the id 100256
    with pytest.raises(ValueError, match="id 7 is not"):
        gap.tokenizer.decode([7])
    assert text_of(gap, [7, *gap.tokenizer.encode("a")]) == "a" and gap.text_of(7) == ""


@pytest.mark.parametrize(("words", "said"), [
    (["no/such/folder/at/all"], "no/such"), (["base", "--host", "0.0.0.0"], "give a key"),
    (["base", "--max-open", "0"], "at least 1"), (["base", "--key-file", "nowhere"], "nowhere"),
])
def test_mistakes_end_in_one_line(words, said, capsys, monkeypatch):
    monkeypatch.delenv("SCRATCHBOOK_API_KEY", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["serve", *words]) == 2
    captured = capsys.readouterr().err
    assert said in captured and "Traceback" not in captured


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    from scratchbook.serving import app

    seen = []

    class Stopped(app.Server):
        def __init__(self, made, settings, say):
            seen.append(settings)

        def run(self):
            pass

    monkeypatch.setattr(app, "Server", Stopped)
    file = tmp_path / "key"
    file.write_text("from-file\n", encoding="utf-8")
    monkeypatch.setitem(os.environ, "SCRATCHBOOK_API_KEY", "from-environment")
    words = ["serve", "base", "--host", "0.0.0.0", "--max-tokens", "9"]
    assert main(words) == main([*words, "--key-file", str(file)]) == 0
    assert [each.key for each in seen] == ["from-environment", "from-file"]
    assert seen[0].limits.max_new_tokens == 9
