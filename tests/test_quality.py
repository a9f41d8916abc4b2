"""Measures of a tokenizer: by hand on small cases, and the detector of broken spacing."""

import random
import unicodedata

import pytest

from scratchbook.data import python_manual, standard_library
from scratchbook.tokenizers import (
    BPETokenizer,
    CharTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
    quality,
)
from scratchbook.tokenizers.quality import looks_space_broken

BROKEN = "O n ce u p on a t i me"
CORRECT = {
    "English": "I am in a bus to go to my job; it is up to us to do it, or so he says to me.",
    "German": "Es war einmal ein kleines Mädchen, das so lieb war, dass es jeder gern hatte.",
    "French": "Il y a là un chat qui a bu de l'eau et il a vu ce que tu as à me dire.",
    "Spanish": "Yo no sé si a él le va bien o mal, y a mí me da lo mismo si se va a su casa.",
    "Polish": "W tym domu i w ogrodzie o świcie z psem i kotem bawi się małe dziecko.",
    "Czech": "V lese u řeky s ním k nám šel i pes, o kterém se v kraji dlouho mluvilo.",
    "Russian": "Утром я иду к реке и смотрю, как солнце встаёт над лесом и над полем.",
    "Greek": "Το σπίτι μου είναι κοντά στη θάλασσα και το πρωί βλέπω τα πλοία να φεύγουν.",
    "Vietnamese": "Tôi đi ra chợ mua cá và rau, rồi về nhà nấu cơm cho cả nhà ăn từ lâu.",
    "Korean": "나는 오늘 아침에 학교에 가서 친구를 만나고 같이 밥을 먹고 집에 왔다",
    "Hindi": "मैं आज सुबह अपने घर से बाजार गया और वहाँ से फल और सब्जी लेकर वापस आया",
    "Arabic": "ذهبت في الصباح إلى السوق مع أمي واشترينا الخبز والجبن ثم عدنا إلى البيت",
    "Chinese": "从前有一个小姑娘，她住在森林边上的一座小房子里，每天都去看望她的外婆。",
    "Japanese": "昔々あるところに、小さな女の子がいました。みんながその子を大好きでした。",
    "Turkish": "Bir varmış bir yokmuş, evvel zaman içinde küçük ve iyi bir kız yaşarmış.",
    "Python": "for i in range(n):\n    x = a + b * c\n    if x in seen or x is None:\n"
    "        return x\n",
    "table": "a | b | c\n--+---+--\n1 | 2 | 3\nx | y | z\n",
}


def samples(text, size, number=400):
    rng = random.Random(0)
    starts = [rng.randrange(len(text) - size) for _ in range(number)]
    return [text[start : start + size] for start in starts]


def share_broken(text, size):
    found = [looks_space_broken(sample) for sample in samples(text, size)]
    return sum(found) / len(found)


def test_the_famous_line_is_broken_and_the_right_one_is_not():
    assert looks_space_broken(BROKEN)
    assert not looks_space_broken("Once upon a time")
    assert not looks_space_broken("Once upon a time there lived a girl in a small house by a wood.")


@pytest.mark.parametrize("language", CORRECT)
def test_correct_text_of_many_kinds_passes(language):
    assert not looks_space_broken(CORRECT[language])
    assert not looks_space_broken("\n".join([CORRECT[language]] * 5))
    # accents as characters of their own do not cut a word
    decomposed = unicodedata.normalize("NFD", CORRECT[language])
    assert not looks_space_broken("\n".join([decomposed] * 5))


@pytest.mark.parametrize("language", ["English", "German", "Czech", "Russian", "Greek", "Turkish"])
def test_the_same_text_in_pieces_is_found(language):
    tokenizer = UnigramTokenizer().train([*CORRECT.values()] * 2, 500)
    pieces = tokenizer.segment(CORRECT[language].replace(" ", "▁"))
    assert looks_space_broken(" ".join(pieces).replace("▁", ""))
    assert looks_space_broken(" ".join(CORRECT[language].replace(" ", "")))


def test_a_few_words_prove_nothing():
    assert not looks_space_broken("")
    assert not looks_space_broken("x y z")
    assert not looks_space_broken("to be or not to be")
    # one pair of single letters is a list of two, not a symptom
    assert not looks_space_broken("is it up to us or is a b on it")
    assert looks_space_broken("is i t up to us or is a b on it")


@pytest.mark.parametrize("size", [80, 200, 1000])
def test_the_manual_and_the_library_pass(size):
    assert share_broken(python_manual(), size) == 0
    # code has lines such as "a b c d e f": one sample in two hundred may be called broken; the
    # compiler's flags ("-I. -I..") that a system's build left behind are not code
    library = [text for text in standard_library(2_000_000) if "build_time_vars = {" not in text]
    assert share_broken("".join(library), size) < 0.005


def test_tokens_joined_by_spaces_are_found():
    text = python_manual()[:150_000]
    tokenizer = WordPieceTokenizer().train(text, 300)
    joined = " ".join(tokenizer.token_bytes(i).decode() for i in tokenizer.encode(text))
    assert share_broken(joined, 80) > 0.9
    assert share_broken(joined, 1000) > 0.98


# measures

TOKENIZER = CharTokenizer().train("abé ", special_tokens=["<s>"])


def test_lengths_by_hand():
    assert quality.chars_per_token(TOKENIZER, "aé bb") == 1
    assert quality.bytes_per_token(TOKENIZER, "aé bb") == 6 / 5
    assert quality.fertility(TOKENIZER, "aé bb") == 5 / 2
    bpe = BPETokenizer().train("abab", 257)
    assert quality.chars_per_token(bpe, "ababé") == 5 / 4
    assert quality.bytes_per_token(bpe, "ababé") == 6 / 4


def test_round_trips_count_the_texts_that_come_back():
    assert quality.round_trips(TOKENIZER, ["ab", "axb", "é", "z"]) == 1 / 2
    assert quality.round_trips(TOKENIZER, "ab") == 1
    # a text that cannot be encoded at all does not come back either
    strict = CharTokenizer(unknown="error").train("ab")
    assert quality.round_trips(strict, ["ab", "axb", "a", "b"]) == 3 / 4


def test_unused_share_leaves_special_tokens_out():
    assert quality.unused_share(TOKENIZER, ["a", "b"]) == 3 / 5  # <unk>, space and é
    assert quality.unused_share(TOKENIZER, "aabé x") == 0


def test_the_report_agrees_with_each_measure():
    texts = ["the cat sat on the mat", "the hat, naïve", "a 漢 <s>"]
    tokenizer = UnigramTokenizer().train(texts, 300, special_tokens=["<s>"])
    report = quality.report(tokenizer, iter(texts))
    one = UnigramTokenizer().train(texts, 300, special_tokens=["<s>"])
    single = quality.report(one, texts[0])
    assert single["chars_per_token"] == quality.chars_per_token(one, texts[0])
    assert single["bytes_per_token"] == quality.bytes_per_token(one, texts[0])
    assert single["fertility"] == quality.fertility(one, texts[0])
    assert report["unused_share"] == quality.unused_share(tokenizer, texts)
    assert report["round_trips"] == quality.round_trips(tokenizer, texts) == 1
    assert (report["texts"], report["vocab_size"]) == (3, tokenizer.vocab_size)
    num_tokens = sum(len(tokenizer.encode_ordinary(text)) for text in texts)
    assert report["tokens"] == num_tokens
    assert report["fertility"] == num_tokens / 12
    assert report["bytes_per_token"] == sum(len(text.encode()) for text in texts) / num_tokens
    assert report["space_broken"] is False


def test_the_report_sees_broken_spacing():
    text = python_manual()[:20_000]
    tokenizer = BPETokenizer().train(text, 300)
    assert quality.report(tokenizer, text)["space_broken"] is False
    tokenizer._decode = lambda ids, errors: " ".join(
        tokenizer.token_bytes(i).decode(errors="replace").strip() for i in ids)
    report = quality.report(tokenizer, text)
    assert report["space_broken"] is True
    assert report["round_trips"] == 0
    # text that was broken before is not the tokenizer's fault
    assert quality.report(CharTokenizer().train(BROKEN), BROKEN)["space_broken"] is False


def test_a_vocabulary_of_8192_reaches_three_characters_a_token():
    text = python_manual() + "".join(standard_library(1_000_000))
    tokenizer = BPETokenizer().train(text, 8192)
    report = quality.report(tokenizer, text)
    assert report["chars_per_token"] >= 3
    assert report["round_trips"] == 1


def test_nothing_to_measure_is_an_error():
    for measure in (quality.chars_per_token, quality.bytes_per_token, quality.fertility):
        with pytest.raises(ValueError, match="nothing to measure"):
            measure(TOKENIZER, "")
    with pytest.raises(ValueError, match="nothing to measure"):
        quality.fertility(TOKENIZER, "  ")
    for measure in (quality.round_trips, quality.report):
        with pytest.raises(ValueError, match="nothing to measure"):
            measure(TOKENIZER, [])
