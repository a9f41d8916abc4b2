"""Unigram against `tokenizers` and SentencePiece: the same pieces for the same probabilities."""

import io
import random
import struct

import pytest
import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers

from scratchbook.data import python_manual, standard_library
from scratchbook.tokenizers import UnigramTokenizer

TOKENIZERS = f"tokenizers {tokenizers.__version__}"
SENTENCEPIECE = f"sentencepiece {sentencepiece.__version__}"
LETTERS = "abcdefghijklmnopqrstuvwxyz   ABCXYZ0123.,='éßñжд漢字😀\u0301\t"


def random_texts(number, seed):
    rng = random.Random(seed)
    return ["".join(rng.choices(LETTERS, k=rng.randint(1, 60))) for _ in range(number)]


def all_texts():
    """Random ones, every word of the manual, its lines, its topics, and code; none is empty."""
    manual = python_manual()
    code = "".join(standard_library(300_000))
    texts = random_texts(3_000, 0) + sorted(set(manual.split())) + manual.splitlines()
    texts += manual.split("\n\n") + code.split("\n\n")
    return [text for text in texts if text and "▁" not in text]


TEXTS = all_texts()


@pytest.fixture(scope="module", params=[True, False], ids=["bytes", "unk"])
def trained(request):
    return UnigramTokenizer(request.param).train(python_manual()[:200_000], 1_500)


def library(tokenizer):
    """The same pieces in the Rust library, with its own way of marking spaces."""
    model = models.Unigram(
        tokenizer.pieces, unk_id=0, byte_fallback=tokenizer.byte_fallback)
    built = tokenizers.Tokenizer(model)
    built.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="never", split=True)])
    return built


def test_ids_equal_those_of_tokenizers(trained, parity):
    assert len(TEXTS) > 10_000
    rust = library(trained)
    # Metaspace puts no second "▁" before a text that begins with a space: SentencePiece does
    error = sum(rust.encode(" " + text).ids != trained.encode(text) for text in TEXTS)
    kind = "byte fallback" if trained.byte_fallback else "unknown token"
    assert parity(f"Unigram ids, {kind}", against=TOKENIZERS, error=error, cases=len(TEXTS))


@pytest.mark.parametrize("seed", range(20))
def test_segmentation_with_random_vocabularies(seed):
    """Few letters, overlapping pieces, missing characters, and many exact ties."""
    rng = random.Random(seed)
    pieces = {"".join(rng.choices("abcd▁", k=rng.randint(1, 5))) for _ in range(30)}
    scored = [("<unk>", 0.0), *((piece, -rng.randint(4, 40) / 4) for piece in sorted(pieces))]
    tokenizer = UnigramTokenizer.from_pieces(scored, byte_fallback=False, space_prefix=False)
    model = models.Unigram(scored, unk_id=0)
    for _ in range(300):
        text = "".join(rng.choices("abcd ", k=rng.randint(1, 25)))
        ids = [token.id for token in model.tokenize(text.replace(" ", "▁"))]
        assert tokenizer.encode(text) == ids, text


# SentencePiece reads a model as a protocol buffer: a field is its number, its kind, its content


def varint(number):
    high = number >> 7
    return bytes([number & 127 | 128]) + varint(high) if high else bytes([number])


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def sentencepiece_model(tokenizer):
    """Our pieces and log-probabilities as a SentencePiece model, without normalisation."""
    kinds = {"<unk>": 2} | {f"<0x{byte:02X}>": 6 for byte in range(256)}
    model = b""
    for piece, logprob in tokenizer.pieces:
        content = message(1, piece.encode()) + b"\x15" + struct.pack("<f", logprob)
        model += message(1, content + b"\x18" + varint(kinds.get(piece, 1)))
    trainer = varint(35 << 3) + varint(tokenizer.byte_fallback)
    flags = {3: tokenizer.space_prefix, 4: False, 5: True}  # prefix, squeeze, mark the spaces
    normaliser = message(1, b"identity")
    normaliser += b"".join(varint(field << 3) + varint(on) for field, on in flags.items())
    model += message(2, trainer) + message(3, normaliser)
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def test_ids_and_decoding_equal_those_of_sentencepiece(trained, parity):
    google = sentencepiece_model(trained)
    assert google.vocab_size() == trained.vocab_size
    error = 0
    for text in TEXTS:
        ids = google.encode(text)
        error += trained.encode(text) != ids
        error += trained.byte_fallback and trained.decode(ids) != google.decode(ids)
    kind = "byte fallback" if trained.byte_fallback else "unknown token"
    assert parity(f"Unigram ids, {kind}", against=SENTENCEPIECE, error=error, cases=len(TEXTS))


def test_without_the_prefix_too():
    tokenizer = UnigramTokenizer(space_prefix=False).train(python_manual()[:50_000], 700)
    google = sentencepiece_model(tokenizer)
    for text in TEXTS[:4000]:
        assert tokenizer.encode(text) == google.encode(text)


def test_a_model_that_sentencepiece_trained(parity):
    """Its log-probabilities are any 32-bit numbers, added up in 32 bits: where two paths differ
    by no more than that rounding, it may take the other one. Nowhere else."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(python_manual()[:300_000].splitlines()), model_writer=written,
        vocab_size=1_500, model_type="unigram", byte_fallback=True, num_threads=1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    google = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    pieces = [(google.id_to_piece(i), google.get_score(i)) for i in range(google.vocab_size())]
    tokenizer = UnigramTokenizer.from_pieces(pieces, special_tokens=["<s>", "</s>"])
    wrong = ties = 0
    for text in TEXTS:
        ours, theirs = tokenizer.encode_ordinary(text), google.encode(text)
        if ours != theirs:
            gap = abs(sum(pieces[i][1] for i in ours) - sum(pieces[i][1] for i in theirs))
            ties += gap < 1e-5 * sum(-pieces[i][1] for i in ours)
            wrong += gap >= 1e-5 * sum(-pieces[i][1] for i in ours)
    assert ties < len(TEXTS) / 100
    assert parity("Unigram ids, a model trained by SentencePiece (ties aside)",
                  against=SENTENCEPIECE,
                  error=wrong, cases=len(TEXTS))


def test_ours_compresses_as_well_as_theirs():
    """Not parity: the trainers differ. With the same size, ours must not be worse by 5 %."""
    text = python_manual()[:300_000]
    lines = [line for line in text.splitlines() if line]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, vocab_size=2_000,
        model_type="unigram", byte_fallback=True, num_threads=1, character_coverage=1.0,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    google = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    ours = UnigramTokenizer().train(lines, 2_000)
    num_ours = sum(len(ours.encode(line)) for line in lines)
    assert num_ours < 1.05 * sum(len(google.encode(line)) for line in lines)
