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
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scratchbook.base_model import base_documents, load_base
from scratchbook.data.smalltalk_documents import head_ids
from scratchbook.evaluation.comparing import Interval, bootstrap, spearman
from scratchbook.interpret.capture import capture
from scratchbook.interpret.flow import value_lengths
from scratchbook.interpret.importance import importance
from scratchbook.interpret.overlays import Overlay, align, overlay
from scratchbook.interpret.view import AttentionView
from scratchbook.model import DecoderLM
from scratchbook.runtime import data_dir
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


def readers() -> dict[str, Reader]:
    """The two models that ship with the course, by the language that they read."""
    smalltalk, tokenizer = load_smalltalk()
    return {"Python": Reader(*load_base()),
            "Smalltalk": Reader(smalltalk, tokenizer, (tokenizer.special_tokens["<|method|>"],))}


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
        if isinstance(each, MethodRecord):
            yield each.class_name, each.source


def library_records(package: str = LIBRARY) -> list:
    """Classes and methods of the course's Smalltalk library, which the model did not learn from."""
    found = []
    for path in sorted((data_dir() / "smalltalk").glob(f"{package}/*.class.st")):
        found += read_tonel(path.read_text(encoding="utf-8"), Origin(path.name))
    return found


# ---------------------------------------------------------------------- a name and its declaration


def declaration_gaps(reader: Reader, text: str, language: str) -> Tensor | None:
    """How much more each head looks from a name to its declaration than to other names.

    For every use of a variable: the weight on the tokens of its declaration, minus the mean weight
    on the nearest other names on both its sides, all per token. None without such a use.

    Shapes:   -> (layers, heads), averaged over the uses
    """
    view, found = reader.view(text), overlay(text, language.lower())
    gaps = []
    for nodes in _names_between(found):
        (query, _), *places = align(view.spans, nodes)
        if all(query >= stop > start for start, stop in places):
            rows = view.attention[:, :, query]  # (layers, heads, time)
            own, before, behind = (rows[..., slice(*place)].mean(-1) for place in places)
            gaps.append(own - (before + behind) / 2)
    return torch.stack(gaps).mean(0) if gaps else None


def _names_between(found: Overlay) -> Iterator[tuple]:
    """A use, its declaration, and the other names nearest to that on either side, before the use.
    """
    names = [*found.uses, *(each for scope in found.scopes for each in scope.declares)]
    for use in found.uses:
        declares = found.scopes[use.scope].declares if use.scope >= 0 else ()
        for declared in declares:
            if declared.name != use.name or declared.stop > use.start:
                continue
            others = [each for each in names if each.name != use.name and each.stop <= use.start]
            before = [each for each in others if each.stop <= declared.start]
            behind = [each for each in others if each.start >= declared.stop]
            if before and behind:
                yield (use, declared, max(before, key=lambda each: each.start),
                       min(behind, key=lambda each: each.start))


def declarations(reader: Reader, sources: Sequence[str], language: str) -> dict:
    """The head that looks most at declarations in one half of the texts, judged on the other half.

    The mean over all heads is there for comparison.
    """
    gaps = [each for text in sources
            if (each := declaration_gaps(reader, text, language)) is not None]
    half = len(gaps) // 2
    best = int(torch.stack(gaps[:half]).mean(0).argmax())
    heads = gaps[0].shape[1]
    return {"layer": best // heads, "head": best % heads, "texts": len(gaps) - half,
            "gap": bootstrap([each.flatten()[best].item() for each in gaps[half:]]),
            "all heads": bootstrap([each.mean().item() for each in gaps[half:]])}


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


def sinks(reader: Reader, sources: Sequence[str]) -> dict:
    """The head with most weight on the first token, chosen on one half, measured on the other."""
    half = len(sources) // 2
    chosen = torch.stack([first_token(reader, text)[0] for text in sources[:half]]).mean(0)
    layer, head = divmod(int(chosen.argmax()), chosen.shape[1])
    rows = [first_token(reader, text) for text in sources[half:]]
    moved = [moved_by_silence(reader, text, layer, head) for text in sources[half:]]
    return {"layer": layer, "head": head, "texts": len(rows),
            "weight": bootstrap([weight[layer, head].item() for weight, _ in rows]),
            "length": bootstrap([ratio[layer, head].item() for _, ratio in rows]),
            "moved": {name: bootstrap([each[name] for each in moved]) for name in moved[0]},
            "others": [each["all others"] for each in moved],
            "first": [each["the first"] for each in moved]}


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
        if owner is None or each.source in known:
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
    """The mean correlation of each measure, with an interval from redrawing the texts."""
    return {name: bootstrap(values) for name, values in found.items()}
