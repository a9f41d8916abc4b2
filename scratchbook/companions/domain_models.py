"""Do fewer tokens make a better model? Small models of chapter 01b at equal compute.

    python -m scratchbook.companions.domain_models       # about ten minutes on one core

Every tokenizer gets a model of the same shape, as many operations, and five seeds; its learning
rate is the better of two, chosen on a stretch of the training text with a seed of its own. Bits
per byte are over the same held-out bytes. What is predicted is the tokens that `encode` gives: a
bound for the text, as some other tokens may decode to it as well.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from scratchbook.accounting import forward_flops
from scratchbook.companions.domain_material import halves, library_halves, message_bpe
from scratchbook.companions.small_training import windows
from scratchbook.config import ModelConfig
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.teaching.results import record
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.domain import LogTokenizer
from scratchbook.tokenizers.folding import LINE
from scratchbook.tokenizers.hybrid import HybridTokenizer

VOCAB_SIZE = 4096
BUDGET = 5e11        # operations, forwards and backwards
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
RATES = (3e-3, 8e-3)
SEQ_LEN, BATCH = 128, 1024  # tokens: of a window, of a step
PYTHON_BYTES = 3_000_000
HELD_OUT_BYTES = 200_000
HELD_OUT_LINES = 300  # of each log
COMMAND = "python -m scratchbook.companions.domain_models"


def as_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """The ids of all texts, one behind the other."""
    return torch.tensor([token for text in texts for token in tokenizer.encode_ordinary(text)])


def shape(vocab_size: int) -> ModelConfig:
    """Two layers of 64 numbers; only the vocabulary differs."""
    return ModelConfig(vocab_size=vocab_size, d_model=64, num_layers=2, num_heads=4,
                       num_kv_heads=4, d_ff=256, max_seq_len=SEQ_LEN)


def steps_for(budget: float, vocab_size: int, seq_len: int) -> int:
    """How many steps a budget pays for: the backward pass costs twice the forward one."""
    window = sum(forward_flops(shape(vocab_size), seq_len).values())
    return int(budget / (3 * (BATCH // seq_len) * window))


def trained(ids: torch.Tensor, vocab_size: int, seq_len: int, lr: float, seed: int,
            budget: float = BUDGET) -> DecoderLM:
    """A model of two layers after so many operations on these ids."""
    torch.manual_seed(seed)
    model, generator = DecoderLM(shape(vocab_size)), named_generator(seed, "batches")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    size = BATCH // seq_len
    draw = windows(ids, seq_len, size)
    steps = steps_for(budget, vocab_size, seq_len)
    for step in range(steps):
        warmth = min(1, (step + 1) / 20) * (1 - step / steps)  # up, then down
        optimizer.param_groups[0]["lr"] = lr * warmth
        given, wanted = draw(generator)
        loss = F.cross_entropy(model(given).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


@torch.no_grad()
def bits(model: DecoderLM, ids: torch.Tensor, num_bytes: int, seq_len: int) -> float:
    """Bits per byte of the text behind the ids, read in windows; the first id of each is given.

    What is not predicted (one id in `seq_len`, and a rest) is charged at the mean of the others.
    """
    model.eval()
    count = len(ids) // seq_len
    rows, total = ids[:count * seq_len].view(count, seq_len), 0.0
    for part in rows.split(32):
        logits = model(part[:, :-1]).flatten(0, 1)  # (batch * time, vocab)
        total += F.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum").item()
    return total / math.log(2) / (count * (seq_len - 1)) * len(ids) / num_bytes


def compare(learn: Sequence[str], held_out: Sequence[str],
            contestants: Mapping[str, tuple[Tokenizer, int]]) -> dict:
    """Five models by tokenizer and window, the learning rate chosen before."""
    found, num_bytes = {}, sum(len(text.encode()) for text in held_out)
    for name, (tokenizer, seq_len) in contestants.items():
        start = time.process_time()
        ids, held = as_ids(tokenizer, learn), as_ids(tokenizer, held_out)
        fitted, tuning = ids[:-len(ids) // 10], ids[-len(ids) // 10:]
        tried = {lr: bits(trained(fitted, tokenizer.vocab_size, seq_len, lr, TUNING_SEED),
                          tuning, 1, seq_len) for lr in RATES}
        lr = min(RATES, key=lambda rate: tried[rate])
        values = [bits(trained(ids, tokenizer.vocab_size, seq_len, lr, seed), held, num_bytes,
                       seq_len) for seed in SEEDS]
        found[name] = {"bits_per_byte": values, "lr": lr, "seq_len": seq_len,
                       "vocab_size": tokenizer.vocab_size, "training_tokens": len(ids),
                       "bytes_per_token": num_bytes / len(held)}
        print(name, found[name], f"{time.process_time() - start:.0f} s", flush=True)
    return found


def on_logs() -> dict:
    """Logs: first halves to learn from, second halves held out."""
    first, second = ([*side.values()] for side in halves())
    second = ["".join(LINE.findall(text)[:HELD_OUT_LINES]) for text in second]
    plain = BPETokenizer("gpt2").train(first, VOCAB_SIZE)
    ours = LogTokenizer().train(first, VOCAB_SIZE)
    lengths = [sum(len(t.encode_ordinary(text)) for text in first) for t in (plain, ours)]
    return compare(first, second, {
        "BPE, GPT-2's cut": (plain, SEQ_LEN),
        "BPE, whole messages": (message_bpe().train(first, VOCAB_SIZE), SEQ_LEN),
        "folded": (ours, SEQ_LEN),
        "folded, a window of as many bytes": (ours, round(SEQ_LEN * lengths[1] / lengths[0]))})


def on_python() -> dict:
    """Python: packages of the standard library, a quarter of them held out."""
    learn, held_out = library_halves(PYTHON_BYTES)
    share = HELD_OUT_BYTES / sum(map(len, held_out))
    held_out = [text[:int(share * len(text))] for text in held_out]
    made = {"BPE, GPT-2's cut": BPETokenizer("gpt2"), "hybrid": HybridTokenizer("python"),
            "hybrid, identifiers as bytes": HybridTokenizer("python", identifiers="bytes")}
    return compare(learn, held_out, {name: (tokenizer.train(learn, VOCAB_SIZE), SEQ_LEN)
                                     for name, tokenizer in made.items()})


def main() -> None:
    """Compare on logs and on Python, and record."""
    torch.set_num_threads(1)
    record("01b_domain_tokenizers.models", {"budget": BUDGET, "logs": on_logs(),
                                            "Python": on_python()},
           seeds=SEEDS, command=COMMAND)


if __name__ == "__main__":
    main()
