"""tokenizer.json against the library that defines it: equal ids, or a refusal, for any file."""

import json
import random
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Tokenizer

from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import NotSupported
from scratchbook.tokenizers.bpe_files import PATTERNS, PUBLISHED
from scratchbook.tokenizers.bpe_training import byte_ranks, learn_merges

RUST = f"tokenizers {tokenizers.__version__}"
PIECES = ["the", " the", "cat", " ", "  ", "    ", "\n", "\r", "\r\n", "\t", "\xa0", "'ll", "'LL",
          "123456", "é", "東京", "<s>", "<|end|>", "<|end|>s", "a", "xabc", "abc", "def", "()"]
OLD_CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
              r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def texts(rng, number: int) -> list[str]:
    return ["".join(rng.choices(PIECES, k=rng.randint(1, 12))) for _ in range(number)]


def written(path: Path, document: dict) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def small_document(path: Path, pattern: str = "gpt2") -> dict:
    """A vocabulary learned without a pattern: a cut at another place shows in the ids."""
    chunks = {text.encode(): 1 for text in texts(random.Random(2), 400) if "<" not in text}
    ranks = learn_merges(chunks, 150)
    special = {"<|end|>": len(ranks), "<s>": len(ranks) + 1}
    BPETokenizer.from_ranks(ranks, pattern, special).save_tokenizers(path)
    return json.loads(path.read_text(encoding="utf-8"))


def added(content: str, token_id: int, **changes) -> dict:
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True} | changes


# what we write

@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("special", [
    {"<|b|>": 300, "<|a|>": 270}, {"<|a|>": 256, "<|b|>": 257}, {"<|b|>": 256, "<|a|>": 257},
])
def test_special_ids_with_gaps_and_in_any_order_are_kept(tmp_path, pattern, special):
    ours = BPETokenizer.from_ranks(byte_ranks(), pattern, special)
    ours.save_tokenizers(tmp_path / "t.json")
    theirs = Tokenizer.from_file(str(tmp_path / "t.json"))
    text = "x<|a|> <|b|><|b|>y"
    assert theirs.encode(text).ids == ours.encode(text, "all")
    assert BPETokenizer.from_tokenizers(tmp_path / "t.json").special_tokens == special


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_the_published_special_ids_are_kept(tmp_path, pattern, parity):
    first, special = PUBLISHED[pattern]
    ranks = byte_ranks() | {b"in": first - 1}  # the vocabulary ends where OpenAI's does
    ours = BPETokenizer.from_ranks(ranks, pattern, special)
    ours.save_tokenizers(tmp_path / "t.json")
    theirs = Tokenizer.from_file(str(tmp_path / "t.json"))
    wrong = sum(theirs.encode(f"in{token}in").ids != ours.encode(f"in{token}in", "all")
                for token in special)
    assert parity(f"special ids written, {pattern}", against=RUST, error=wrong, cases=len(special))


def test_a_token_with_a_smaller_id_than_its_parts_is_not_written(tmp_path):
    ranks = byte_ranks() | {b"JKL": 256, b"JK": 257}
    ours = BPETokenizer.from_ranks(ranks)
    with pytest.raises(NotSupported, match="b'JKL' has no merge although two tokens make it"):
        ours.save_tokenizers(tmp_path / "t.json")
    document = small_document(tmp_path / "t.json")
    document["model"]["vocab"] |= {"JKL": 500, "JK": 501}
    document["model"]["merges"].append(["J", "K"])
    path = written(tmp_path / "t.json", document)
    assert 500 not in Tokenizer.from_file(str(path)).encode("xJKL").ids  # and by ranks it would be
    with pytest.raises(NotSupported, match="b'JKL' has no merge although two tokens make it"):
        BPETokenizer.from_tokenizers(path)


def test_a_special_token_that_is_an_ordinary_one_too_is_not_written(tmp_path):
    ours = BPETokenizer.from_ranks(byte_ranks(), "gpt2", {"a": 256})
    assert ours.encode_ordinary("a") != ours.encode("a", "all") == [256]
    with pytest.raises(NotSupported, match="'a' is a special token and an ordinary one"):
        ours.save_tokenizers(tmp_path / "t.json")


# what we read

def split(**changes):
    def change(document):
        document["pre_tokenizer"]["pretokenizers"][0].update(changes)
    return change


def add(*tokens):
    return lambda document: document["added_tokens"].extend(tokens)


DIFFERS = {
    "truncation": lambda d: d.update(truncation={
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}),
    "padding": lambda d: d.update(padding={
        "strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "!"}),
    "Removed": split(behavior="Removed"),
    "Contiguous": split(behavior="Contiguous"),
    "first spelling of cl100k": split(pattern={"Regex": OLD_CL100K}),
    "id past a gap": add(added("京", 500)),
    "id unlike the vocabulary": lambda d: d["added_tokens"][0].update(id=500),
    "plain token": add(added("    ", 408, special=False)),
    "overlapping": add(added("<|end|>s", 408, normalized=True)),
}


@pytest.mark.parametrize("what", DIFFERS)
def test_a_file_that_the_library_reads_otherwise_is_not_supported(tmp_path, what):
    document = small_document(tmp_path / "t.json", "cl100k")
    before = Tokenizer.from_file(str(tmp_path / "t.json"))
    DIFFERS[what](document)
    path = written(tmp_path / "t.json", document)
    after, cases = Tokenizer.from_file(str(path)), texts(random.Random(1), 400)
    if "id" in what.split() or what == "overlapping":  # the library never gives the id it says
        said = 408 if what == "overlapping" else 500
        assert not any(said in after.encode(text).ids for text in cases)
    else:
        assert any(after.encode(text).ids != before.encode(text).ids for text in cases)
    with pytest.raises(NotSupported, match=r"t\.json is not supported here: ") as caught:
        BPETokenizer.from_tokenizers(path)
    assert "fetch" not in str(caught.value)


@pytest.mark.parametrize("options", [
    {"behavior": "Removed", "invert": True}, {"behavior": "Isolated", "invert": True},
])
def test_other_ways_to_say_the_same_split_are_read(tmp_path, options):
    document = small_document(tmp_path / "t.json", "cl100k")
    split(**options)(document)
    path = written(tmp_path / "t.json", document)
    ours, theirs = BPETokenizer.from_tokenizers(path), Tokenizer.from_file(str(path))
    for text in texts(random.Random(0), 200):
        assert ours.encode(text, "all") == theirs.encode(text).ids


def mutate(document: dict, rng: random.Random) -> None:
    """Change one thing about a tokenizer.json; often to something that is the same after all."""
    model, tokens = document["model"], document["added_tokens"]
    vocab, merges = model["vocab"], model["merges"]
    steps = document["pre_tokenizer"]["pretokenizers"]
    ids = [0, 7, len(vocab), len(vocab) + 1, max(vocab.values()) + 1, 500]
    content = rng.choice([*PIECES, "", *rng.sample(sorted(vocab), 3)])

    def swap_ids():
        one, other = rng.sample(sorted(vocab), 2)
        vocab[one], vocab[other] = vocab[other], vocab[one]

    def add_token():
        number = vocab.get(content, len(vocab) + sum(t["content"] not in vocab for t in tokens))
        tokens.append(added(content, rng.choice([number, number, number, *ids]), **{
            name: rng.random() < 0.2 for name in ("single_word", "lstrip", "normalized")},
            special=rng.random() < 0.7))

    rng.choice([
        add_token, add_token, add_token, swap_ids,
        lambda: vocab.update({content: rng.choice(ids)}),
        lambda: vocab.pop(content, None),
        lambda: vocab.update({"abcd": max(vocab.values()) + 1}),
        lambda: merges.pop(rng.randrange(len(merges))),
        lambda: merges.insert(rng.randrange(len(merges)), ["a", "t"]),
        lambda: rng.shuffle(merges) if rng.random() < 0.2 else merges.reverse(),
        lambda: tokens.reverse(),
        lambda: tokens.pop() if tokens else None,
        lambda: tokens and rng.choice(tokens).update(normalized=True),
        lambda: model.update(ignore_merges=False),
        lambda: model.update({rng.choice(["dropout", "unk_token", "continuing_subword_prefix",
                                          "end_of_word_suffix"]): None}),
        lambda: model.update(rng.choice([
            {"byte_fallback": True}, {"fuse_unk": True}, {"unk_token": "a"},
            {"continuing_subword_prefix": "t"}, {"end_of_word_suffix": "</w>"}])),
        lambda: document.update(post_processor=rng.choice([None, {
            "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}])),
        lambda: document.update(normalizer={"type": rng.choice(["NFC", "Lowercase"])}),
        lambda: rng.choice(list(DIFFERS.values()))(document),
        lambda: steps[0].update(behavior=rng.choice(["Isolated", "Removed", "Contiguous"]),
                                invert=rng.random() < 0.5),
        lambda: steps[0].update(pattern=rng.choice([
            {"Regex": rng.choice([*PATTERNS.values(), OLD_CL100K])}, {"String": " "}])),
        lambda: steps[-1].update({rng.choice(["add_prefix_space", "use_regex"]): True}),
        lambda: steps[-1].pop("use_regex", None),
        lambda: len(steps) > 1 and steps[-1].get("use_regex") is not None and steps.pop(0),
        lambda: steps.append({"type": "Digits", "individual_digits": True}),
    ])()


def test_any_variation_of_a_file_gives_equal_ids_or_is_refused(tmp_path, parity):
    rng = random.Random(9)
    documents = [small_document(tmp_path / "t.json", pattern) for pattern in PATTERNS]
    wrong = loaded = refused = 0
    for _ in range(1_000):
        document = json.loads(json.dumps(rng.choice(documents)))
        try:
            for _ in range(rng.randint(1, 2)):
                mutate(document, rng)
        except (IndexError, KeyError):  # what was to be changed is gone already
            continue
        path = written(tmp_path / "t.json", document)
        try:
            ours = BPETokenizer.from_tokenizers(path)
        except ValueError as error:
            assert "damaged" not in str(error) or "stands for 2 tokens" in str(error), error
            refused += 1
            continue
        theirs = Tokenizer.from_file(str(path))  # never before: some of what is refused aborts it
        loaded += 1
        cases = texts(rng, 15)
        differ = [text for text in cases if ours.encode(text, "all") != theirs.encode(text).ids]
        wrong += len(differ)
        assert not differ, (differ[0], document["added_tokens"], document["pre_tokenizer"])
    assert min(loaded, refused) > 100  # neither side is empty
    assert parity("random tokenizer.json files that load here", against=RUST, error=wrong,
                  cases=loaded)
