"""Examples to learn from: prompts that are read, answers that are learned, batches of both.

A line of the file is an object of one of four shapes, as most published sets have them:

    {"prompt": ..., "completion": ...}
    {"instruction": ..., "input": ..., "output": ...}       the input may be missing or empty
    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    {"text": ...}                                           all of it is learned

Chapter:  chapters/08_lora.ipynb
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from scratchbook.data.batches import IGNORED, Batch, hash_of
from scratchbook.data.documents import read_utf8
from scratchbook.runtime import named_generator

ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "</s>")
SHAPES = '"prompt" and "completion", "instruction" and "output", "messages", or "text"'
ROLES = ("system", "user", "assistant")


class Part(NamedTuple):
    """A stretch of an example's text, and whether it is an answer: what is to be learned."""

    text: str
    answer: bool


class Example(NamedTuple):
    """Ids, and for each of them whether it is one that the model shall learn to say."""

    ids: list[int]
    answer: list[bool]

    @property
    def targets(self) -> list[int]:
        """The id that should follow each one but the last; -100 where that is none to learn."""
        return [token if learned else IGNORED
                for token, learned in zip(self.ids[1:], self.answer[1:], strict=True)]


def load_examples(path: str | Path) -> list[list[Part]]:
    """Read the examples of a JSONL file, each as its parts in their order.

    Raises:   ValueError with the number of the first line that is none, and how many others are
    Chapter:  chapters/08_lora.ipynb
    """
    text = read_utf8(path)
    if text.lstrip().startswith("["):
        raise ValueError(f"{path} is one JSON list: write its objects one a line (JSONL), such as "
                         "for x in json.load(open(FILE)): print(json.dumps(x))")
    examples, bad = [], {}
    for number, line in enumerate(text.split("\n"), 1):  # and not at U+2028
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and "messages" in fields and fields.get("system"):
                raise ValueError("its system text stands beside the messages: put it first among "
                                 'them, {"role": "system", "content": ...}')
            examples.append(parts_of(fields))
        except (ValueError, RecursionError) as error:
            bad[number] = str(error)
    if bad:
        first, more = next(iter(bad)), len(bad) - 1
        others = f"; {more} more bad lines: {', '.join(map(str, list(bad)[1:6]))}" * bool(more)
        raise ValueError(f"{path}, line {first}: {bad[first]}{others}. Mend or remove them")
    if not examples:
        raise ValueError(f"{path} holds no example: each line is an object with {SHAPES}")
    return examples


def parts_of(fields: object) -> list[Part]:
    """The parts of one line's object.

    Raises:   ValueError naming the field that is missing, empty or no text
    """
    if not isinstance(fields, dict):
        raise ValueError(f"a JSON {type(fields).__name__} is no example: it must be an object "
                         f"with {SHAPES}")
    if "messages" in fields:
        return _conversation(fields["messages"])
    if "prompt" in fields or "completion" in fields:
        return [Part(_text(fields, "prompt", empty=True), False),
                Part(_text(fields, "completion"), True)]
    if "instruction" in fields or "output" in fields:
        prompt = f"### Instruction:\n{_text(fields, 'instruction')}\n\n"
        if fields.get("input") not in (None, ""):
            prompt += f"### Input:\n{_text(fields, 'input', empty=True)}\n\n"
        return [Part(f"{prompt}### Response:\n", False), Part(_text(fields, "output"), True)]
    if "text" in fields:
        return [Part(_text(fields, "text"), True)]
    found = ", ".join(map(repr, list(fields)[:5])) or "nothing"
    raise ValueError(f"it has {found}; an example has {SHAPES}")


def _text(fields: dict, name: str, empty: bool = False) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        said = "is missing" if name not in fields else f"is no text but {str(value)[:40]!r}"
        raise ValueError(f"its {name} {said}")
    if not empty and not value.strip():
        raise ValueError(f"its {name} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"its {name} holds half a pair of surrogates, which is no text") from None
    return value


def _conversation(messages: object) -> list[Part]:
    """Every answer of the assistant is learned; who speaks stands before each message."""
    if not isinstance(messages, list) or not messages:
        raise ValueError("its messages are no list with a message")
    parts = []
    for number, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise ValueError(f"message {number} has the role {role!r}, not {' or '.join(ROLES)}")
        try:
            content = _text(message, "content")
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from None
        heading, answer = f"### {role.capitalize()}:\n", role == "assistant"
        parts += [Part(heading, False), Part(content, answer)]
        if number < len(messages):
            parts.append(Part("\n\n", False))
    if not any(part.answer for part in parts):
        raise ValueError("no message is the assistant's: there is no answer to learn")
    return parts


def end_ids(tokenizer: object) -> list[int]:
    """The id that ends a text, where the tokenizer has a special token for that; else none."""
    special = getattr(tokenizer, "special_tokens", {})
    return next(([special[name]] for name in ENDS if name in special), [])


def encode_example(parts: Sequence[Part], tokenizer: object) -> Example:
    """Turn each part into ids by itself, so that a prompt has the ids it has when it is asked.

    An answer ends with `end_ids`, which are learned too. Special tokens spelled in the text
    are plain text.

    Raises:   ValueError for a text that the tokenizer cannot encode
    Chapter:  chapters/08_lora.ipynb
    """
    encode = getattr(tokenizer, "encode_ordinary", tokenizer.encode)
    ids, answer = [], []
    for part in parts:
        found = list(encode(part.text)) + (end_ids(tokenizer) if part.answer else [])
        ids += found
        answer += [part.answer] * len(found)
    return Example(ids, answer)


class FineTuningData:
    """Examples as batches for `scratchbook.training.train`: the same two methods as `Windows`.

    Every example is read once in each epoch, in an order that depends on the seed and the number
    of the epoch alone. Rows are filled up on the right, where no earlier place can look, and
    nothing there is a target. `bytes_per_token` turns the loss into bits per byte of the answers.

    Raises:   ValueError when there is nothing to train on or nothing held out
    Chapter:  chapters/08_lora.ipynb
    """

    def __init__(self, train: Sequence[Example], validation: Sequence[Example], seed: int = 0,
                 bytes_per_token: float | None = None):
        for name, examples in (("train", train), ("validation", validation)):
            if not examples or not all(any(e.answer[1:]) for e in examples):
                raise ValueError(f"{name} must hold an example, and each example an answer to "
                                 "learn behind its first id")
        self.train, self.validation_examples = list(train), list(validation)
        self.seed, self.bytes_per_token = seed, bytes_per_token
        self._epoch: tuple[int, list[int]] = -1, []

    def fingerprint(self) -> str:
        """A hash of every id, what is learned of it, and the seed: equal hashes, equal batches."""
        digests = []
        for examples in (self.train, self.validation_examples):
            lengths = torch.tensor([len(e.ids) for e in examples])
            ids, answer = (torch.tensor([x for e in examples for x in e[part]]) for part in (0, 1))
            digests.append(hash_of(lengths, ids, answer))
        return hash_of(note=f"{self.seed} {digests}")

    def batch(self, step: int, size: int) -> Batch:
        """The next `size` examples at this step, padded to the longest of them.

        Shapes:   -> ids and targets (size, time)
        """
        count = len(self.train)
        return padded([self.train[self._order(place // count)[place % count]]
                       for place in range(step * size, (step + 1) * size)])

    def validation(self, size: int) -> Iterator[Batch]:
        """All held-out examples in order, `size` at a time."""
        for start in range(0, len(self.validation_examples), size):
            yield padded(self.validation_examples[start : start + size])

    def longest(self, size: int) -> Batch:
        """The batch that needs the most memory: the longest examples of training.

        Shapes:   -> ids and targets (up to size, time)
        """
        return padded(sorted(self.train, key=lambda e: -len(e.ids))[:size])

    def steps(self, epochs: float, size: int) -> int:
        """How many batches of `size` make so many epochs; 1 at least."""
        return max(1, math.ceil(epochs * len(self.train) / size))

    def _order(self, epoch: int) -> list[int]:
        if self._epoch[0] != epoch:
            generator = named_generator(self.seed, f"epoch {epoch}")
            self._epoch = epoch, torch.randperm(len(self.train), generator=generator).tolist()
        return self._epoch[1]


def padded(examples: Sequence[Example]) -> Batch:
    """Examples as rows; what fills the shorter ones up is no target.

    Shapes:   -> ids and targets (examples, longest - 1)
    Chapter:  chapters/08_lora.ipynb
    """
    width = max(len(example.ids) for example in examples) - 1
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    targets = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        length = len(example.ids) - 1
        ids[row, :length] = torch.tensor(example.ids[:-1])
        targets[row, :length] = torch.tensor(example.targets)
    return Batch(ids, targets)


def finetuning_data(path: str | Path, tokenizer: object, max_seq_len: int, seed: int = 0,
                    validation_share: float = 0.1, validation_path: str | Path | None = None
                    ) -> FineTuningData:
    """Read a JSONL file, hold a part of it out (or read that from another file), and encode both.

    Examples with the same prompt stay on one side. One that is longer than `max_seq_len` ids and
    their targets is cut; one whose answer lies beyond that is left out. A warning counts both.

    Raises:   ValueError naming the file and the line, or saying that nothing is left
    Chapter:  chapters/08_lora.ipynb
    """
    examples = load_examples(path)
    if validation_path is not None:
        train, held_out = examples, load_examples(validation_path)
    else:
        train, held_out = _split(examples, validation_share, seed, path)
    encoded = [_fitting([encode_example(parts, tokenizer) for parts in some], max_seq_len, name)
               for some, name in ((train, path), (held_out, validation_path or path))]
    return FineTuningData(*encoded, seed, bytes_of_answers(encoded[1], tokenizer))


def _split(examples: list[list[Part]], share: float, seed: int, path: str | Path
           ) -> tuple[list[list[Part]], list[list[Part]]]:
    """By prompts, or texts without one: no held-out prompt is trained on with another answer."""
    if not 0 < share < 1:
        raise ValueError(f"validation_share={share} is not within 0..1")
    groups: dict[str, list[list[Part]]] = {}
    for parts in examples:
        prompt = "\0".join(part.text for part in parts if not part.answer)
        groups.setdefault(prompt.strip() or parts[-1].text, []).append(parts)
    if len(groups) < 2:
        raise ValueError(f"{path} has one prompt alone, so that nothing can be held out: add "
                         "examples, or give those to validate with in a file of their own")
    keys = list(groups)
    order = torch.randperm(len(keys), generator=named_generator(seed, "held out")).tolist()
    held, wanted = set(), max(1, round(share * len(examples)))
    for place in order[:-1]:
        held.add(keys[place])
        if sum(len(groups[key]) for key in held) >= wanted:
            break
    return ([parts for key in keys if key not in held for parts in groups[key]],
            [parts for key in keys if key in held for parts in groups[key]])


def _fitting(examples: list[Example], max_seq_len: int, name: str | Path) -> list[Example]:
    room = max_seq_len + 1  # the last id is a target alone
    cut = [Example(e.ids[:room], e.answer[:room]) for e in examples]
    kept = [example for example in cut if any(example.answer[1:])]
    long, lost = sum(len(e.ids) > room for e in examples), len(examples) - len(kept)
    if not kept:
        raise ValueError(f"{name}: no answer begins within max_seq_len={max_seq_len} ids: shorten "
                         "the prompts, or allow more ids where the model does")
    if long or lost:
        warnings.warn(f"{name}: {long} of {len(examples)} examples are longer than {max_seq_len} "
                      f"ids and were cut there; {lost} were left out: nothing of their answer is "
                      "to be learned before that",
                      stacklevel=3)
    return kept


def bytes_of_answers(examples: Sequence[Example], tokenizer: object) -> float | None:
    """Bytes of text for each id that is learned; None where the ids spell no text."""
    ends = set(end_ids(tokenizer))
    size = count = 0
    for example in examples:
        learned = [token for token in example.targets if token != IGNORED]
        count += len(learned)
        size += len(tokenizer.decode([t for t in learned if t not in ends]).encode("utf-8"))
    return size / count if size else None
