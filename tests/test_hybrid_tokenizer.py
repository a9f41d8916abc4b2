"""The hybrid tokenizer: contexts, whole words, nothing lost, ids that stay, and linear reading."""

import ast
import json
import keyword
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.data import standard_library
from scratchbook.tokenizers import BPETokenizer, Tokenizer
from scratchbook.tokenizers.hybrid import HybridTokenizer
from scratchbook.tokenizers.languages import LANGUAGES, RAILS_WORDS, Language
from scratchbook.tokenizers.token_patterns import contexts

DATA = Path(__file__).resolve().parent.parent / "data"
RAILS_FILES = sorted([*(DATA / "rails").rglob("*.rb"), *(DATA / "rails").rglob("*.erb")])
RAILS_CODE = [path.read_text(encoding="utf-8") for path in RAILS_FILES]
CODE = standard_library(300_000)
PYTHON = HybridTokenizer("python").train(CODE, 1000, special_tokens=["<|end|>"])
RAILS = HybridTokenizer("rails").train(RAILS_CODE, 1400)
any_text = st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\t\r\"'#\\%<>-=/*`(.9ag"),
                   max_size=100)
code_like = st.lists(st.sampled_from(
    ["if", " if", "(not", ".where", " <%=", "<%", "%>", " -%>", "\n    ", "):\n", '"', "'", '"""',
     "# if", "\n", "x", " 1234567", "é", "東", "//", "/*", "*/", "`", "=begin\n", "\n=end", "\\",
     "has_many", " :posts", "validates", "\x1b[0m", "\0"]), max_size=30).map("".join)


@pytest.mark.parametrize("tokenizer", [
    PYTHON, RAILS, HybridTokenizer("go"), HybridTokenizer("smalltalk", "bytes"),
    HybridTokenizer("javascript")], ids=lambda tokenizer: tokenizer.language.name)
@given(any_text | code_like)
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode_ordinary(text), errors="strict") == text
    assert "".join(chunk for _, chunk in tokenizer.split(text)) == text


# whole words


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_listed_word_is_one_token_in_code_and_none_in_prose(name):
    tokenizer = HybridTokenizer(name)
    for group, words in tokenizer.language.groups.items():
        for word in words:
            for text in [word] if word[0] == "<" else [word, f" {word}"]:
                [token] = tokenizer.encode_ordinary(text)
                assert tokenizer.group_of(token) == group
                assert tokenizer.token_bytes(token) == text.encode()
            if word.isidentifier():  # behind a mark: the mark, then the word whole
                assert tokenizer.encode_ordinary(f"({word}")[1:] == tokenizer.encode_ordinary(word)
    assert set(keyword.kwlist) <= set(PYTHON.words)


def test_the_word_in_a_comment_is_text():
    ids = PYTHON.encode_ordinary("if x:  # if not\n    return 'for ever'")
    groups = [PYTHON.token_bytes(i) for i in ids if PYTHON.group_of(i)]
    assert groups == [b"if", b"return"]


def test_ids_of_a_group_stand_together():
    for tokenizer in (PYTHON, RAILS):
        for group in tokenizer.language.groups:
            ids = [i for i in range(tokenizer.vocab_size) if tokenizer.group_of(i) == group]
            assert ids == list(range(ids[0], ids[-1] + 1))


@pytest.mark.parametrize(("text", "chunks"), [
    ("def f(self):\n    return 12345\n",
     ["def", " f", "(self", "):\n    ", "return", " ", "12", "345", "\n"]),
    ("x = 'utf-8'  # it's so\n", ["x", " =", " '", "utf", "-", "8", "'", " ", " ", "#", " it",
                                  "'s", " so", "\n"]),
    ("1000000 999 12", ["1", "000", "000", " ", "999", " ", "12"]),
])
def test_where_the_cut_falls(text, chunks):
    assert [chunk for _, chunk in PYTHON.split(text)] == chunks


def test_templates_switch_between_markup_and_code():
    text = '<h1 class="if">if <%= link_to "if so", posts_path if x -%> if</h1>\n<% end %>'
    ids = RAILS.encode_ordinary(text)
    whole = [RAILS.token_bytes(i).decode() for i in ids if RAILS.group_of(i)]
    assert whole == ["<%=", " link_to", " if", " -%>", "<%", " end", " %>"]
    assert RAILS.encode_ordinary("x)%>")[-1:] == RAILS.encode_ordinary("%>")


@pytest.mark.parametrize("line", [
    "resources :books", "get '/a/:id', to: 'x#y'", "root 'books#index'", "namespace :desk do",
    "create_table :books do |t|", "add_column :books, :shelf, :string", "t.references :book",
    "has_many :loans, dependent: :destroy", "validates :title, presence: true",
    "where(due_on: nil)", "before_action :set_book", "redirect_to root_path",
])
def test_the_words_of_rails_are_whole_in_real_lines(line):
    found = [RAILS.token_bytes(i).decode().strip(" .") for i in RAILS.encode_ordinary(line)]
    listed = {word for words in RAILS_WORDS.values() for word in words.split()}
    asked = [word for word in line.replace("(", " ").replace(".", " ").replace(":", " ")
             .replace(",", " ").split() if word in listed]
    assert asked and all(word in found for word in asked)


def test_the_rails_application_comes_back_and_parses_where_python_does():
    assert len(RAILS_CODE) > 15
    for text in RAILS_CODE:
        assert RAILS.decode(RAILS.encode_ordinary(text)) == text
    for text in CODE[:10]:
        again = PYTHON.decode(PYTHON.encode_ordinary(text))
        assert ast.dump(ast.parse(again)) == ast.dump(ast.parse(text))


# contexts agree with a lexer that nobody here wrote


def agreement(language: str, texts: list[str], lexer: str) -> float:
    """The share of letters whose context, prose or code, is the one that Pygments finds."""
    equal = total = 0
    for text in texts:
        ours: list[str] = []
        for place, region in enumerate(LANGUAGES[language].regions(text)):
            ours += ["prose" if place % 2 else "code"] * len(region)
        theirs: list[str] = []
        for context, piece in contexts(text, lexer):
            label = context == "string" and " " not in piece
            theirs += ["code" if context == "code" or label else "prose"] * len(piece)
        letters = [i for i, character in enumerate(text) if character.isalpha()]
        equal += sum(ours[i] == theirs[i] for i in letters)
        total += len(letters)
    return equal / total


@pytest.mark.parametrize(("language", "lexer", "texts"), [
    ("python", "python", CODE[:12]),
    ("ruby", "ruby", [text for path, text in zip(RAILS_FILES, RAILS_CODE, strict=True)
                      if path.suffix == ".rb"]),
    ("go", "go", [p.read_text(encoding="utf-8") for p in (DATA / "code_samples").rglob("*.go")]),
])
def test_regions_agree_with_pygments(language, lexer, texts):
    assert agreement(language, texts, lexer) > 0.97


# one way to do text


def test_the_language_text_is_plain_bpe():
    prose = "Prose is prose, if it's written so: 1234567 times.\n" * 3
    hybrid = HybridTokenizer("text").train(prose, 300)
    plain = BPETokenizer("cl100k").train(prose, 300)
    assert hybrid.encode_ordinary(prose) == plain.encode_ordinary(prose)
    assert hybrid.ranks == plain.ranks


def test_identifiers_as_bytes_are_bytes():
    spelled = HybridTokenizer("python", identifiers="bytes").train(CODE[:5], 600)
    ids = spelled.encode_ordinary("value = self.value")
    assert len([i for i in ids if i < 256]) >= len("value.value")
    assert len(ids) > len(PYTHON.encode_ordinary("value = self.value"))


# ids and files


def test_a_group_of_words_is_added_in_one_line_and_no_id_moves(tmp_path):
    longer = RAILS.extended("jobs", ["perform_later", "queue_as"])
    assert longer.vocab_size == RAILS.vocab_size + 6
    assert [longer.group_of(i) for i in longer.encode_ordinary(" perform_later")] == ["jobs"]
    for text in RAILS_CODE:
        if "perform_later" not in text and "queue_as" not in text:
            assert longer.encode_ordinary(text) == RAILS.encode_ordinary(text)
    longer.save(tmp_path / "rails.json")
    again = Tokenizer.load(tmp_path / "rails.json")
    assert isinstance(again, HybridTokenizer) and again.words == longer.words
    assert again.encode_ordinary(RAILS_CODE[0]) == longer.encode_ordinary(RAILS_CODE[0])
    with pytest.raises(ValueError, match="there is a group 'jobs' already"):
        longer.extended("jobs", ["x"])
    with pytest.raises(ValueError, match="twice: a word has one group"):
        longer.extended("more", ["has_many"])


@pytest.mark.parametrize("words", [
    ["foo", " foo"], [".foo", "foo"], [""], ["two words"], ["foo-bar"], ["9a"], [":foo"], ["\n"],
    ["\t"], [" "], ["<|x"], [" =>"]])
def test_a_word_that_is_never_found_whole_is_refused(words, tmp_path):
    with pytest.raises(ValueError, match="never finds whole|twice"):
        PYTHON.extended("more", words)
    PYTHON.save(tmp_path / "p.json")
    state = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    state["groups"]["more"] = words
    (tmp_path / "p.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        Tokenizer.load(tmp_path / "p.json")


def test_one_string_is_no_list_of_words():
    with pytest.raises(ValueError, match="is one string"):
        PYTHON.extended("more", "perform")
    with pytest.raises(ValueError, match="is one string"):
        Language("x", "", {"a": "foo"})


@given(st.lists(st.text(st.sampled_from("ab9_?!.:=> <%-é東\n\t"), max_size=4), max_size=4,
                unique=True), any_text | code_like)
@settings(max_examples=300, deadline=None)
def test_whatever_words_are_accepted_are_whole_and_lose_nothing(words, text):
    try:
        longer = HybridTokenizer("go").extended("more", words)
    except ValueError:
        return
    assert longer.vocab_size == len(set(longer.words.values())) + 256
    for word in words:
        assert [longer.group_of(i) for i in longer.encode_ordinary(word)] == ["more"]
    for each in (text, *(f"{mark}{word}" for word in words for mark in ("", " ", ".", "  "))):
        assert longer.decode(longer.encode_ordinary(each), errors="strict") == each


def test_special_tokens_keep_their_places(tmp_path):
    text = "if a:<|end|>"
    assert PYTHON.encode(text, allowed_special="all")[-1] == PYTHON.special_tokens["<|end|>"]
    with pytest.raises(ValueError, match="spells the special token"):
        PYTHON.encode(text)
    assert PYTHON.vocab_size == 1000
    PYTHON.save(tmp_path / "p.json")
    again = HybridTokenizer.load(tmp_path / "p.json")
    assert again.encode(text, allowed_special="all") == PYTHON.encode(text, allowed_special="all")


@pytest.mark.parametrize(("change", "message"), [
    ({"tokens": ["a"]}, "is damaged.*single bytes"), ({"language": "cobol"}, "is damaged.*cobol"),
    ({"identifiers": "x"}, "is damaged.*must be 'pairs'"),
    ({"groups": {"a": ["b", "b"]}}, "twice")])
def test_damaged_files_are_refused(tmp_path, change, message):
    path = tmp_path / "p.json"
    PYTHON.save(path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change),
                    encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(path)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: HybridTokenizer("cobol"), "cobol.*python"),
    (lambda: HybridTokenizer(identifiers="words"), "must be 'pairs' or 'bytes'"),
    (lambda: Language("x", "", {"a": ("b",), "c": ("b",)}), "a word has one group"),
    (lambda: HybridTokenizer().train("x", 300), "256 bytes, .* words"),
    (lambda: HybridTokenizer().train([], 900), "the corpus is empty"),
    (lambda: PYTHON.token_bytes(1000), "not in this vocabulary"),
])
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("unit", ['"', "'", "\\", '"""', "<%", "%>", "#", "/*", "a", "1", " ", "\n",
                                  "`", "=", "é", "\n=begin", "-"])
@pytest.mark.parametrize("name", ["python", "rails", "go"])
def test_reading_is_linear(name, unit):
    language = LANGUAGES[name]
    tokenizer = HybridTokenizer(language)

    def seconds(size: int) -> float:
        text, start = unit * (size // len(unit)), time.process_time()
        tokenizer.split(text)
        return time.process_time() - start

    # four times the text: four times the time, sixteen if it were quadratic
    small = min(seconds(20_000) for _ in range(3))
    assert min(seconds(80_000) for _ in range(2)) < 9 * small + 0.02
