"""The measurements of chapter 06d: texts that the models never read, sinks, names, importance.

Chapter:  chapters/06d_seeing_attention.ipynb
"""

from __future__ import annotations

import ast
import math
import random
import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from scratchbook.base_model import base_documents, load_base
from scratchbook.data.smalltalk_documents import head_ids
from scratchbook.evaluation.comparing import Interval, paired, spearman
from scratchbook.interpret.capture import capture
from scratchbook.interpret.flow import value_lengths
from scratchbook.interpret.importance import importance
from scratchbook.interpret.overlays import Declared, Overlay, Stretch, Use, align, overlay
from scratchbook.interpret.view import AttentionView
from scratchbook.model import DecoderLM
from scratchbook.runtime import data_dir
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.readers.origins import Origin
from scratchbook.smalltalk.readers.tonel import read_tonel
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.tokenizers.base import Tokenizer

LIBRARY = "Course-Collections"
LANGUAGES = ("Python", "Smalltalk")
FIRST = "recency, the first on top"


class Reader(NamedTuple):
    """A model, its tokenizer, and the ids of what stands before a text."""

    model: DecoderLM
    tokenizer: Tokenizer
    before: tuple[int, ...] = ()

    def view(self, text: str) -> AttentionView:
        """What all heads looked at in one text."""
        return AttentionView(self.model, text, self.tokenizer, before=self.before)

    def at_class_side(self) -> Self:
        """The same for methods of the class side, which a token of their own announces."""
        return self._replace(before=(self.tokenizer.special_tokens[parts.CLASS_METHOD],))


def readers() -> dict[str, Reader]:
    """The two models that ship with the course, by the language that they read."""
    smalltalk, tokenizer = load_smalltalk()
    return {"Python": Reader(*load_base()),
            "Smalltalk": Reader(smalltalk, tokenizer, (tokenizer.special_tokens[parts.METHOD],))}


def over_texts(values: Sequence[float]) -> Interval:
    """The mean over texts and its interval by Student's t.

    A dozen texts are few: intervals from redrawing them would be too narrow.
    """
    return paired(values, [0.0] * len(values))


# ---------------------------------------------------------------- texts that the models never read


def texts(language: str, reader: Reader, count: int, seed: int = 0, least: int = 20,
          most: int = 64) -> list[str]:
    """Functions of held-out files, or methods of the course's library, of a fitting length.

    Each is of another file, or another class.

    Raises:   ValueError when there are fewer than asked for
    """
    pool = list(_functions() if language == "Python" else _methods())
    random.Random(seed).shuffle(pool)
    found: dict[str, str] = {}  # by file or class
    for owner, text in pool:
        length = len(reader.tokenizer.encode_ordinary(text))
        if least <= length <= most and text not in found.values():
            found.setdefault(owner, text)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"{language} has {len(found)} texts of {least} to {most} tokens, not {count}")


def _functions() -> Iterator[tuple[str, str]]:
    for document in base_documents()[1]:
        if not document.name.endswith(".py"):
            continue
        try:
            tree = ast.parse(document.text)
        except SyntaxError:  # a file of another Python
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.decorator_list:
                lines = document.text.splitlines()[node.lineno - 1 : node.end_lineno]
                yield document.name, textwrap.dedent("\n".join(lines)) + "\n"


def _methods() -> Iterator[tuple[str, str]]:
    for each in library_records("*"):
        if isinstance(each, MethodRecord) and not each.class_side:  # that has a token of its own
            yield each.class_name, each.source


def library_records(package: str = LIBRARY) -> list:
    """Classes and methods of the course's Smalltalk library, which the model did not learn from."""
    found = []
    for path in sorted((data_dir() / "smalltalk").glob(f"{package}/*.class.st")):
        found += read_tonel(path.read_text(encoding="utf-8"), Origin(path.name))
    return found


def source_of(records: Sequence, owner: str, selector: str) -> str:
    """The source of one method; its owner is "ConsList", or "ConsList class" for the class side.

    Raises:   ValueError when no record is that method
    """
    for each in records:
        if (isinstance(each, MethodRecord) and each.class_name + " class" * each.class_side == owner
                and parse_method(each.source).selector == selector):
            return each.source
    raise ValueError(f"{owner} >> {selector} is in none of the records")


# ---------------------------------------------------------------------- a name and its declaration


RIVALS = ("names", "declarations", "uses")


def declaration_gaps(reader: Reader, text: str, language: str, rivals: str = "names"
                     ) -> Tensor | None:
    """How much more each head looks from a name to its declaration than to rivals of that.

    For every use of a variable: the weight on the tokens of its declaration, minus the mean weight
    on its rivals, all per token. Rivals stand before the use: the nearest other "names" on both
    sides of the declaration, the nearest other of the "declarations" of its scope, or the last of
    the earlier "uses" of the same variable. None without such a use.

    Shapes:   -> (layers, heads), averaged over the uses
    Raises:   ValueError for unknown rivals
    """
    if rivals not in RIVALS:
        raise ValueError(f"rivals={rivals!r}: choose one of {', '.join(RIVALS)}")
    view, found = reader.view(text), overlay(text, language.lower())
    gaps = []
    for use, declared in _declared_uses(found):
        chosen = _rivals(found, use, declared, rivals)
        (query, _), *places = align(view.spans, [use, declared, *chosen])
        if chosen and all(query >= stop > start for start, stop in places):
            rows = view.attention[:, :, query]  # (layers, heads, time)
            own, *others = (rows[..., slice(*place)].mean(-1) for place in places)
            gaps.append(own - sum(others) / len(others))
    return torch.stack(gaps).mean(0) if gaps else None


def _declared_uses(found: Overlay) -> Iterator[tuple]:
    """Every use of a variable behind its declaration, with that."""
    for use in found.uses:
        for declared in found.scopes[use.scope].declares if use.scope >= 0 else ():
            if declared.name == use.name and declared.stop <= use.start:
                yield use, declared


def _rivals(found: Overlay, use: Use, declared: Declared, kind: str) -> list:
    """What a declaration is compared with, all before the use; [] where one is missing."""
    declarations = [each for scope in found.scopes for each in scope.declares]
    if kind == "uses":
        return [each for each in found.uses if (each.name, each.scope) == (use.name, use.scope)
                and declared.stop <= each.start and each.stop <= use.start][-1:]
    own = found.scopes[use.scope].declares
    pool = own if kind == "declarations" else [*found.uses, *declarations]
    others = [each for each in pool if each.name != use.name and each.stop <= use.start]
    if kind == "declarations":
        return sorted(others, key=lambda each: abs(each.start - declared.start))[:1]
    before = [each for each in others if each.stop <= declared.start]
    behind = [each for each in others if each.start >= declared.stop]
    return [max(before, key=lambda each: each.start),
            min(behind, key=lambda each: each.start)] if before and behind else []


def declarations(reader: Reader, sources: Sequence[str], language: str) -> dict:
    """The head that looks most at declarations in one half of the texts, judged on the other half.

    "gaps" holds, for each kind of rivals, what it gives the declaration more than those, text by
    text, and under "all heads" the mean over all heads beside the nearest names.
    """
    half = len(sources) // 2

    def measured(texts: Sequence[str], rivals: str = "names") -> list[Tensor]:
        return [each for text in texts
                if (each := declaration_gaps(reader, text, language, rivals)) is not None]

    chosen = torch.stack(measured(sources[:half])).mean(0)
    layer, head = divmod(int(chosen.argmax()), chosen.shape[1])
    judged = {rivals: measured(sources[half:], rivals) for rivals in RIVALS}
    gaps = {rivals: [each[layer, head].item() for each in found]
            for rivals, found in judged.items()}
    return {"layer": layer, "head": head,
            "gaps": gaps | {"all heads": [each.mean().item() for each in judged["names"]]}}


def receivers_apart(reader: Reader, sources: Sequence[str], layer: int, head: int) -> dict:
    """What a head gives a receiver that stands apart from its selector, and the token before that.

    Both are means over the messages of a text; `messages` counts them all.
    """
    found: dict = {"receiver": [], "right before": [], "messages": 0}
    for text in sources:
        view, known = reader.view(text), overlay(text, "smalltalk")
        pairs = []
        for send in known.sends:
            if send.receiver[0] < 0:
                continue
            (_, end), (first, last) = align(view.spans, [
                Stretch("selector", *send.words[-1]), Stretch("receiver", *send.receiver)])
            if first < last < end - 1:
                row = view.attention[layer, head, end - 1]
                pairs.append((row[first:last].sum().item(), row[end - 2].item()))
        if pairs:
            found["messages"] += len(pairs)
            for name, values in zip(("receiver", "right before"), zip(*pairs, strict=True),
                                    strict=True):
                found[name].append(statistics.fmean(values))
    return found


# ------------------------------------------------------------------------------------------- sinks


def first_token(reader: Reader, text: str) -> tuple[Tensor, Tensor]:
    """Of each head: the weight on the first token, and how long its value is beside the others'.

    Shapes:   -> (layers, heads) averaged over later queries, (layers, heads) as a ratio to the
              median of the other tokens
    """
    ids = torch.tensor([[*reader.before, *reader.tokenizer.encode_ordinary(text)]])
    with torch.no_grad(), capture(reader.model, keep=("attention", "values")) as seen:
        reader.model(ids)
    weight = torch.stack([seen.attention[i][0, :, 1:, 0].mean(-1) for i in seen.attention])
    lengths = torch.stack([value_lengths(seen, i)[0] for i in seen.attention])
    return weight, lengths[..., 0] / lengths[..., 1:].median(-1).values


@contextmanager
def silenced(attention: nn.Module, head: int, places: Sequence[int]) -> Iterator[None]:
    """While the block runs, one head's values of some tokens are zero: looked at, they bring
    nothing."""
    width = attention.head_dim

    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, places, head * width : (head + 1) * width] = 0
        return output

    handle = attention.v_proj.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def moved_by_silence(reader: Reader, text: str, layer: int, head: int) -> dict[str, float]:
    """How far the predictions move when a head gets nothing from its first token, nothing from all
    of the others, or nothing at all; and the median over the other heads of its layer when one
    of those gets nothing: the Kullback-Leibler divergence, in bits per token."""
    ids = torch.tensor([[*reader.before, *reader.tokenizer.encode_ordinary(text)]])
    attention, whole = reader.model.blocks[layer].attention, reader.model(ids)[0].log_softmax(-1)

    def without(silent: int, places: Sequence[int]) -> float:
        with silenced(attention, silent, places):
            changed = reader.model(ids)[0].log_softmax(-1)
        return max((whole.exp() * (whole - changed)).sum(-1).mean().item(), 0.0) / math.log(2)

    every = list(range(ids.shape[1]))
    rest = [without(other, every) for other in range(attention.num_heads) if other != head]
    return {"the first": without(head, [0]), "all others": without(head, every[1:]),
            "all of them": without(head, every), "another head": statistics.median(rest)}


def sinks(reader: Reader, sources: Sequence[str], most: int = 2) -> list[dict]:
    """The heads with most weight on the first token, chosen on one half, measured on the other.

    "bare" is the weight on the first token when the text stands alone, nothing before it.
    """
    half = len(sources) // 2
    chosen = torch.stack([first_token(reader, text)[0] for text in sources[:half]]).mean(0)
    judged = sources[half:]
    rows = [first_token(reader, text) for text in judged]
    bare = [first_token(reader._replace(before=()), text)[0] for text in judged]
    found = []
    for place in chosen.flatten().topk(most).indices.tolist():
        at = layer, head = divmod(place, chosen.shape[1])
        moved = [moved_by_silence(reader, text, layer, head) for text in judged]
        found.append({"layer": layer, "head": head, "texts": len(judged),
                      "weight": over_texts([weight[at].item() for weight, _ in rows]),
                      "bare": over_texts([weight[at].item() for weight in bare]),
                      "length": over_texts([ratio[at].item() for _, ratio in rows]),
                      "moved": {name: over_texts([each[name] for each in moved])
                                for name in moved[0]},
                      "others": [each["all others"] for each in moved],
                      "first": [each["the first"] for each in moved]})
    return found


def place_or_token(reader: Reader, layer: int, head: int, count: int, known: Sequence[str] = (),
                   seed: int = 0) -> dict[str, list[float]]:
    """The weight that a head's later queries give to place 0, `<|method|>` and its neighbours.

    A class definition stands before the method here, so that the first two are not the same token;
    the neighbours are the mean of the tokens on its two sides, as near as it is. One method of each
    class, none of those in `known`.
    """
    found: dict[str, list[float]] = {"place 0": [], "<|method|>": [], "its neighbours": []}
    pool = library_records("*")
    classes = {each.name: each for each in pool if isinstance(each, ClassRecord)}
    random.Random(seed).shuffle(pool)
    for each in pool:
        owner = classes.get(each.class_name) if isinstance(each, MethodRecord) else None
        if owner is None or each.class_side or each.source in known:
            continue
        head_part = head_ids(owner, reader.tokenizer, 256)
        ids = [*head_part, *reader.before, *reader.tokenizer.encode_ordinary(each.source)]
        at = len(head_part)
        if not at or not at + 3 < len(ids) <= 128:
            continue
        del classes[owner.name]
        with torch.no_grad(), capture(reader.model, layers=(layer,)) as seen:
            reader.model(torch.tensor([ids]))
        weights = seen.attention[layer][0, head, at + 2 :].mean(0)
        for name, weight in zip(found, (weights[0], weights[at], weights[[at - 1, at + 1]].mean()),
                                strict=True):
            found[name].append(weight.item())
        if len(found["place 0"]) == count:
            break
    return found


# -------------------------------------------------------------------------------------- importance


def windows(reader: Reader, count: int, length: int, seed: int = 0) -> list[Tensor]:
    """Stretches of held-out code, each of another file, that begin somewhere: (length,) each."""
    found, draw = [], random.Random(seed)
    for document in base_documents()[1]:
        if document.name.endswith(".py"):
            ids = reader.tokenizer.encode_ordinary(document.text)
            if len(ids) >= 2 * length:
                begin = draw.randrange(len(ids) - length)
                found.append(torch.tensor(ids[begin : begin + length]))
    draw.shuffle(found)
    if len(found) < count:
        raise ValueError(f"{len(found)} held-out files are long enough, not {count}")
    return found[:count]


def agreement(reader: Reader, count: int, length: int, seed: int = 0,
              measure: Callable[..., Mapping[str, Tensor]] = importance) -> dict[str, list[float]]:
    """Spearman's correlation of each measure with ablation, text by text.

    Two controls know no model: "recency", the place of the token, and the same with the first
    token on top.
    """
    found: dict[str, list[float]] = {}
    for ids in windows(reader, count, length, seed):
        scores = dict(measure(reader.model, ids))
        truth = scores.pop("ablation").abs().tolist()
        scores["recency"] = torch.arange(len(truth), dtype=torch.float32)
        scores[FIRST] = scores["recency"].clone()
        scores[FIRST][0] = len(truth)
        for name, values in scores.items():
            found.setdefault(name, []).append(spearman(values.tolist(), truth).value)
    return found


def intervals(found: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """The mean correlation of each measure over the texts, with its interval."""
    return {name: over_texts(values) for name, values in found.items()}
