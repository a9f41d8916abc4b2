"""Files of byte-level BPE: each format read back, and each kind of damage named."""

import base64
import json

import pytest

from scratchbook.tokenizers import BPETokenizer, CharTokenizer, bpe, bpe_files
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.bpe_training import BYTE_ORDER, byte_ranks

TEXT = bpe.__doc__ + " naïve café 東京 \x00\xad"
TOKENIZER = BPETokenizer("cl100k").train(TEXT, 330, special_tokens=["<|end|>"])


def same(one: BPETokenizer, other: BPETokenizer) -> bool:
    return (one.ranks, one.special_tokens, one.pattern, one.merges) == (
        other.ranks, other.special_tokens, other.pattern, other.merges
    )  # fmt: skip


def tiktoken_lines(ranks: dict[bytes, int]) -> bytes:
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    return b"".join(lines)


# the visible alphabet


def test_bytes_are_visible_as_in_gpt2():
    assert bpe_files.to_visible(b" the\n") == "ĠtheĊ"
    assert bpe_files.to_visible("é".encode()) == "Ã©"
    assert bpe_files.from_visible("ĠtheĊ") == b" the\n"
    assert bpe_files.to_visible(BYTE_ORDER) == "".join(sorted(bpe_files.VISIBLE.values()))
    assert len(set(bpe_files.VISIBLE.values())) == 256


# our own format


def test_a_saved_tokenizer_is_loaded_the_same(tmp_path):
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    for load in (BPETokenizer.load, Tokenizer.load):
        loaded = load(path)
        assert same(loaded, TOKENIZER)
        assert loaded.encode(TEXT + "<|end|>", "all") == TOKENIZER.encode(TEXT + "<|end|>", "all")


def test_a_saved_tokenizer_can_be_read_by_people(tmp_path):
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    text = path.read_text(encoding="utf-8")
    assert '"kind": "bpe"' in text
    assert '\n  "Ġt": ' in text  # one token a line, spelled as GPT-2 spells it


def saved(tmp_path, **changes):
    path = tmp_path / "changed.json"
    TOKENIZER.save(path)
    state = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(state), encoding="utf-8")
    return path


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": "other"}, "was not written by a tokenizer's save"),
    ({"version": 99}, "version 99"),
    ({"kind": "char"}, "use CharTokenizer.load"),
    ({"kind": "nothing"}, "known: .*bpe"),
    ({"pattern": "gpt5"}, "is damaged.*gpt5.*cl100k"),
    ({"ranks": {}}, "lacks 256 of the 256 single bytes"),
    ({"ranks": [1, 2]}, "is damaged"),
    ({"ranks": None}, "is damaged"),
    ({"special_tokens": {"<|end|>": 0}}, "id 0 stands for 2 tokens"),
    ({"special_tokens": {"<|end|>": -5}}, "not a number from 0 up"),
    ({"special_tokens": {"<|end|>": "5"}}, "not a number from 0 up"),
    ({"special_tokens": {"": 500}}, "holds an empty token"),
])  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.load(saved(tmp_path, **changes))


def test_a_file_cut_short_is_refused(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"changed.json is not readable as JSON.*save or fetch"):
        BPETokenizer.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not readable as JSON"):
        BPETokenizer.load(path)
    path.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(ValueError, match="holds a JSON list"):
        BPETokenizer.load(path)


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    path = tmp_path / "char.json"
    CharTokenizer().train("abc", 100).save(path)
    with pytest.raises(ValueError, match=r"kind 'char': use CharTokenizer.load"):
        BPETokenizer.load(path)
    assert isinstance(Tokenizer.load(path), CharTokenizer)


def test_a_missing_file_is_an_ordinary_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        BPETokenizer.load(tmp_path / "nowhere.json")


# tiktoken's files


def test_a_rank_file_is_read(tmp_path):
    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(tiktoken_lines(TOKENIZER.ranks))
    special = TOKENIZER.special_tokens
    assert same(BPETokenizer.from_tiktoken(path, "cl100k", special), TOKENIZER)


def test_a_rank_file_that_is_not_whole_is_refused(tmp_path):
    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(tiktoken_lines(TOKENIZER.ranks))
    with pytest.raises(ValueError, match=r"holds 329 ranks and .* cl100k vocabulary 100256: fetch"):
        BPETokenizer.from_tiktoken(path, "cl100k")
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(ValueError, match=r"line 329: .* cut short or damaged"):
        BPETokenizer.from_tiktoken(path, "cl100k", {})
    path.write_bytes(tiktoken_lines({b"a": 0, b"b": 1}))
    with pytest.raises(ValueError, match=r"lacks 254 of the 256 single bytes.*fetch it again"):
        BPETokenizer.from_tiktoken(path, "cl100k", {})
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds 0 ranks"):
        BPETokenizer.from_tiktoken(path, "gpt2")


def test_a_rank_file_with_another_kind_of_content_is_refused(tmp_path):
    path = tmp_path / "page.html"
    for content in ("<html>\nnot found</html>", "YQ==!! 0\n", "YQ== first\n"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="line 1"):
            BPETokenizer.from_tiktoken(path, "gpt2")


def test_an_unknown_pattern_is_refused_before_the_vocabulary(tmp_path):
    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(tiktoken_lines(TOKENIZER.ranks))
    with pytest.raises(ValueError, match="'p50k' is unknown"):
        BPETokenizer.from_tiktoken(path, "p50k")


# GPT-2's files


def gpt2_files(tmp_path, merges, extra=()):
    ranks = bpe_files.ranks_of_merges(merges)
    encoder = {bpe_files.to_visible(token): rank for token, rank in ranks.items()} | dict(extra)
    lines = [" ".join(map(bpe_files.to_visible, merge)) for merge in merges]
    (tmp_path / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    vocab = "\n".join(["#version: 0.2", *lines, ""])
    (tmp_path / "vocab.bpe").write_text(vocab, encoding="utf-8")
    return tmp_path / "encoder.json", tmp_path / "vocab.bpe"


def test_gpt2s_two_files_are_read(tmp_path):
    trained = BPETokenizer("gpt2").train(TEXT, 320)
    paths = gpt2_files(tmp_path, trained.merges, {"<|endoftext|>": 320})
    loaded = BPETokenizer.from_gpt2(*paths)
    assert loaded.ranks == trained.ranks
    assert loaded.special_tokens == {"<|endoftext|>": 320}


def test_gpt2_files_that_do_not_belong_together_are_refused(tmp_path):
    merges = BPETokenizer("gpt2").train(TEXT, 320).merges
    encoder, vocab = gpt2_files(tmp_path, merges)
    lines = vocab.read_text(encoding="utf-8").splitlines()
    for changed in (lines[:-1], [lines[0], *reversed(lines[1:])]):
        vocab.write_text("\n".join(changed), encoding="utf-8")
        with pytest.raises(ValueError, match=r"encoder.json is damaged.*vocab.bpe make"):
            BPETokenizer.from_gpt2(encoder, vocab)
    vocab.write_text("\n".join([*lines, "three are many"]), encoding="utf-8")
    with pytest.raises(ValueError, match="vocab.bpe is damaged"):
        BPETokenizer.from_gpt2(encoder, vocab)
    with pytest.raises(ValueError, match="no vocab.bpe"):
        BPETokenizer.from_gpt2(encoder, encoder)


# tokenizer.json


@pytest.mark.parametrize("pattern", bpe_files.PATTERNS)
def test_a_tokenizer_json_is_read_back(tmp_path, pattern):
    trained = BPETokenizer(pattern).train(TEXT, 320, ["<|end|>", "<|pad|>"])
    trained.save_tokenizers(tmp_path / "tokenizer.json")
    assert same(BPETokenizer.from_tokenizers(tmp_path / "tokenizer.json"), trained)


def changed_document(tmp_path, change):
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save_tokenizers(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def swap_last_merges(document):
    merges = document["model"]["merges"]
    merges[-2:] = merges[:-3:-1]


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d["model"].update(type="WordPiece"), "model is WordPiece"),
    (lambda d: d["model"].update(dropout=0.1), "model.dropout"),
    (lambda d: d["model"].update(byte_fallback=True), "model.byte_fallback"),
    (lambda d: d.update(normalizer={"type": "NFC"}), "normalizer"),
    (lambda d: d.update(post_processor={"type": "TemplateProcessing"}), "post_processor"),
    (lambda d: d["added_tokens"][0].update(lstrip=True), r"lstrip of <\|end\|>"),
    (lambda d: d.update(pre_tokenizer={"type": "Whitespace"}), "none of.*gpt2"),
    (lambda d: d.pop("model"), "is damaged"),
    (lambda d: d["model"]["vocab"].pop("Ġ"), "lacks 1 of the 256 single bytes"),
    (lambda d: d["model"]["vocab"].update({"東": 9999}), "not supported here: .*'東' spells no"),
    (lambda d: d.update(pre_tokenizer=None), "not supported here: it splits text by {}"),
    (swap_last_merges, "another order than its ids"),
    (lambda d: d["model"]["merges"].append(["a", "b"]), "merges that no training gives"),
    (lambda d: d["model"]["merges"].pop(), "another order"),
    (lambda d: d["model"].update(merges=d["model"]["merges"][:-1], ignore_merges=False),
     "some tokens come from no merge"),
])  # fmt: skip
def test_a_tokenizer_json_that_would_encode_otherwise_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.from_tokenizers(changed_document(tmp_path, change))


def test_merges_may_be_written_as_strings(tmp_path):
    def join(document):
        document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]

    assert same(BPETokenizer.from_tokenizers(changed_document(tmp_path, join)), TOKENIZER)


def test_ids_need_not_begin_at_zero():
    ranks = {token: rank + 2 for token, rank in byte_ranks().items()} | {b"ab": 258}
    tokenizer = BPETokenizer.from_ranks(ranks, "gpt2", {"<s>": 0, "</s>": 1})
    assert tokenizer.encode("<s>ab</s>", "all") == [0, 258, 1]
    assert tokenizer.vocab_size == 259


def test_ids_may_have_gaps():
    # OpenAI's do: cl100k ends with 100255, and its special tokens begin with 100257
    tokenizer = BPETokenizer.from_ranks(byte_ranks(), "gpt2", {"<|end|>": 300})
    assert tokenizer.vocab_size == 301
    with pytest.raises(ValueError, match="id 299 is not in"):
        tokenizer.decode([299])
