r"""What the hybrid tokenizer knows of a language: which text is prose, and which words are whole.

A language is a table. `prose` is one regular expression for comments and strings; of the strings
those count that hold a space, `"utf-8"` stays code. `groups` are words that always become one
token in code. To add a language, add a row; to add words, see `HybridTokenizer.extended`.

The expressions are short and know less than a compiler: a Ruby heredoc counts as code. How often
they agree with the lexers of Pygments is measured by the tests. Each reads every character once,
so reading stays linear; what is not closed goes on to the end of its line or of the text. One text
does not stay linear: a long run of tabs with neither a space nor a line end behind it, which the
cut for code tries anew at each tab (40,000 of them take seconds).

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

Groups = Mapping[str, tuple[str, ...]]

KEYWORDS = ("keywords", "fixed")  # groups whose words never follow a full stop
_LETTER = r"A-Za-z_\x80-\U0010ffff"
# the marks of a template; a name with the space or the mark before it; digits in threes from the
# right; marks with the line's end and the indentation of the next line; other white space
CODE = re.compile(
    r" ?-?%>|<%[=#-]?"
    rf"|(?: |[^\s0-9{_LETTER}])?[{_LETTER}][0-9{_LETTER}]*(?:[?!](?!=))?"
    r"|[0-9]{1,3}(?=(?:[0-9]{3}){0,6}(?![0-9]))|[0-9]{3}"
    rf"| ?(?:[^\s0-9%{_LETTER}-]|(?!-?%>)[%-])+(?:\n[ \t]*)?"
    r"|[ \t]*\n[ \t\n]*|[ \t]+(?= )|\s")
NAME = re.compile(rf"(?: |[^\s0-9{_LETTER}])?[{_LETTER}][0-9{_LETTER}]*[?!]?")

_ONE_LINE = r'"(?:\\[\s\S]|[^"\\\n])*"?|' + r"'(?:\\[\s\S]|[^'\\\n])*'?"
_SLASHES = r"/(?:/[^\n]*|\*[\s\S]*?(?:\*/|\Z))"
_BACKTICKS = r"|`(?:\\[\s\S]|[^`\\])*`?"


@dataclass(frozen=True)
class Language:
    """One row of the table.

    `templates` says that code stands between `<%` and `%>` where a text has such marks, and
    around them HTML, which is read as text.

    Raises:   ValueError for a word that stands in two places, or that `CODE` never finds whole
    """

    name: str
    prose: str
    groups: Groups = field(default_factory=dict)
    templates: bool = False

    def __post_init__(self) -> None:
        words = [word for group in self.groups.values() for word in group]
        if loose := [group for group, members in self.groups.items() if isinstance(members, str)]:
            raise ValueError(f"the group {loose[0]!r} is one string: write a list of words")
        if unfit := [word for word in words if not is_one_piece(word)]:
            raise ValueError(f"{self.name} lists {unfit[0]!r}, which the cut for code never finds "
                             "whole, so its ids would lie idle: list a name (letters, digits and "
                             "_, maybe ? or ! behind it) or marks alone, without white space")
        if twice := {word for word in words if words.count(word) > 1}:
            raise ValueError(f"{self.name} lists {sorted(twice)} twice: a word has one group")

    @cached_property
    def _prose(self) -> re.Pattern[str]:
        return re.compile(f"({self.prose})")

    def regions(self, text: str) -> list[str]:
        """Cut a text into code, at even places, and prose, at odd ones; either may be empty."""
        if not self.prose:
            return ["", text]
        if not self.templates or "<%" not in text:
            return with_labels(self._prose.split(text))
        regions: list[str] = [""]
        for place, part in enumerate(ERB.split(text)):
            if place % 2:
                within = with_labels(self._prose.split(part))
                regions[-1] += within[0]
                regions += within[1:]
            else:
                regions += [part, ""]
        return regions


def is_one_piece(word: str) -> bool:
    """Whether `CODE` finds a word whole; a name brings no mark or space along, marks no name."""
    if CODE.findall(word) != [word] or re.search(r"\s", word):
        return False
    return bool(NAME.fullmatch(word[1:])) <= bool(re.match(f"[{_LETTER}]", word))


# A piece of Ruby in a template, with its marks.
ERB = re.compile(r"(<%[\s\S]*?(?:%>|\Z))")


def with_labels(parts: list[str]) -> list[str]:
    """Put strings without a space back into the code around them: they are names, not prose."""
    regions: list[str] = []
    code = parts[:1]
    for prose, behind in zip(parts[1::2], parts[2::2], strict=True):
        if prose[0] in "\"'`" and " " not in prose:
            code += [prose, behind]
        else:
            regions += ["".join(code), prose]
            code = [behind]
    return [*regions, "".join(code)]


_RUBY = ("alias and begin break case class def defined? do else elsif end ensure false for if in "
         "module next nil not or redo rescue retry return self super then true undef unless until "
         "when while yield require require_relative attr_reader attr_accessor private")
_GO = ("break case chan const continue default defer else fallthrough for func go goto if import "
       "interface map package range return select struct switch type var nil true false")
_JAVASCRIPT = ("async await break case catch class const continue debugger default delete do else "
               "export extends false finally for function if import in instanceof let new null of "
               "return static super switch this throw true try typeof undefined var void while "
               "with yield")

# Rails: what a reader of an application takes in at one glance. A line is a group.
RAILS_WORDS = {
    "verbs": "get post put patch delete head options",
    "routes": "resources resource root namespace scope member collection mount constraints "
              "concern concerns draw redirect",
    "migrations": "create_table drop_table add_column remove_column change_column rename_column "
                  "add_index remove_index add_reference remove_reference add_foreign_key "
                  "change_column_null change_table timestamps references null default foreign_key",
    "types": "string text integer bigint float decimal datetime date time boolean binary json "
             "jsonb uuid",
    "models": "belongs_to has_many has_one has_and_belongs_to_many validates validate presence "
              "uniqueness length numericality inclusion format before_save after_save "
              "before_validation before_create after_create after_commit enum delegate dependent "
              "through class_name has_secure_password",
    "database": "where find find_by find_each create update destroy save all first last order "
                "limit joins includes left_joins group having pluck count sum exists? transaction "
                "new build reload update! create! save! destroy! find_or_create_by",
    "controllers": "before_action after_action skip_before_action params permit render "
                   "redirect_to respond_to session flash cookies request response "
                   "rescue_from notice alert status",
    "helpers": "link_to button_to form_with form_for fields_for label text_field text_area "
               "submit check_box select image_tag content_tag tag content_for csrf_meta_tags "
               "stylesheet_link_tag javascript_include_tag number_to_currency time_ago_in_words "
               "pluralize truncate partial locals",
    "erb": "<% <%= <%- %> -%>",
}

LANGUAGES = {row.name: row for row in [
    Language("text", ""),
    Language("python", r"""#[^\n]*|\"{3}[\s\S]*?(?:\"{3}|\Z)|'{3}[\s\S]*?(?:'{3}|\Z)|"""
             + _ONE_LINE, {"keywords": tuple(keyword.kwlist), "fixed": ("self", "cls")}),
    Language("ruby", rf"#(?!\{{)[^\n]*|{_ONE_LINE}",
             {"keywords": tuple(_RUBY.split())}),
    Language("go", _SLASHES + "|" + _ONE_LINE + r"|`[^`]*`?", {"keywords": tuple(_GO.split())}),
    Language("javascript", _SLASHES + "|" + _ONE_LINE + _BACKTICKS,
             {"keywords": tuple(_JAVASCRIPT.split())}),
    Language("smalltalk", r'"[^"]*"?|' + r"'[^']*'?",
             {"fixed": ("self", "super", "true", "false", "nil", "thisContext")}),
]}
LANGUAGES["rails"] = Language(
    "rails", LANGUAGES["ruby"].prose,
    {**LANGUAGES["ruby"].groups,
     **{group: tuple(words.split()) for group, words in RAILS_WORDS.items()}}, templates=True)
