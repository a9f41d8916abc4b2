"""Which of two answers is better: one question, asked of a rented model or of one on this machine.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from scratchbook.evaluation.comparing import Interval, wilson
from scratchbook.serving.served import ServedModel

ASKED = """Which answer to the question is better? Say A or B, and nothing else.

Question: {question}

A: {first}

B: {second}
"""


class Judge(Protocol):
    """Whoever can say which of two answers is better."""

    def prefers(self, question: str, first: str, second: str) -> float:
        """1 for the first answer, 0 for the second, 0.5 where there is no telling."""


@dataclass(frozen=True)
class LikelihoodJudge:
    """A model on this machine: the better answer is the one that it finds likelier, token by token.

    It needs no key and no network. What it likes is its own style: a stand-in, no arbiter.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    served: ServedModel

    def prefers(self, question: str, first: str, second: str) -> float:
        """1 for the first answer, 0 for the second, 0.5 for equally likely ones.

        Raises:   ValueError for an answer without text, or one that the window does not hold
        """
        a, b = (self.likelihood(question, answer) for answer in (first, second))
        return 0.5 if a == b else float(a > b)

    @torch.no_grad()
    def likelihood(self, question: str, answer: str) -> float:
        """Mean log-probability of the answer's tokens behind the question, in nats."""
        before = self.served.encode_chat([{"role": "user", "content": question}])
        encode = getattr(self.served.tokenizer, "encode_ordinary", self.served.tokenizer.encode)
        ids = encode(answer)
        if not ids:
            raise ValueError("an answer without text cannot be judged")
        if (size := len(before) + len(ids)) > self.served.window:
            raise ValueError(f"question and answer have {size} tokens, the window of this judge "
                             f"{self.served.window}: shorten them")
        scores = self.served.model(torch.tensor([[*before, *ids]]))[0, len(before) - 1 : -1]
        chosen = scores.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
        return float(chosen.mean())


@dataclass(frozen=True)
class ApiJudge:
    """A model behind OpenAI's API, ours included, asked twice: each answer is named first once.

    A judge that always says A has told nothing: 0.5. The key is read from `OPENAI_API_KEY`.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """

    url: str
    model: str

    def prefers(self, question: str, first: str, second: str) -> float:
        """1, 0, or 0.5 where the two orders, or words that are neither A nor B, leave it open.

        Raises:   ImportError with the command that installs openai; its own errors
        """
        forth = self._first_wins(question, first, second)
        back = self._first_wins(question, second, first)
        return (forth + 1 - back) / 2

    def _first_wins(self, question: str, first: str, second: str) -> float:
        try:
            import openai
        except ImportError:
            raise ImportError("a judge behind an API is asked by: pip install openai") from None
        with openai.OpenAI(base_url=self.url,
                           api_key=os.environ.get("OPENAI_API_KEY", "none")) as client:
            said = client.chat.completions.create(
                model=self.model, temperature=0, max_tokens=4, messages=[{
                    "role": "user",
                    "content": ASKED.format(question=question, first=first, second=second)}])
        found = re.match(r"\W*([AB])\b", said.choices[0].message.content or "")
        return 0.5 if found is None else float(found[1] == "A")


def win_rate(judge: Judge, cases: Sequence[tuple[str, str, str]]) -> Interval:
    """How often the first of two answers wins, over (question, first, second); half for a tie.

    Raises:   ValueError when there is no case
    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    return wilson(sum(judge.prefers(*case) for case in cases), len(cases))
