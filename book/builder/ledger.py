"""Measure what the claims page needs and no chapter records: characters, GPT's tokenizers, sizes.

    python -m book.builder.ledger
"""

import sys

COMMAND = "python -m book.builder.ledger"
PUBLISHED = {"gpt2": "r50k_base", "cl100k": "cl100k_base", "o200k": "o200k_base"}


def characters() -> dict[str, float]:
    """The character tokenizer on Python's manual: its vocabulary, and ids for each megabyte."""
    from scratchbook.data import python_manual
    from scratchbook.tokenizers import CharTokenizer

    text = python_manual()
    tokenizer = CharTokenizer().train(text, vocab_size=10_000)
    ids = tokenizer.encode(text)
    return {"distinct": len(set(text)), "ids_per_megabyte": len(ids) / len(text.encode()) * 1e6}


def own_bpe(vocab_size: int = 8192) -> dict[str, float]:
    """A BPE of 8,192 tokens, trained on prose and code, measured on text that it has not seen."""
    from scratchbook.data import python_manual, standard_library
    from scratchbook.tokenizers import BPETokenizer
    from scratchbook.tokenizers.quality import chars_per_token

    manual, code = python_manual(), "".join(standard_library(1_000_000))
    prose_cut, code_cut = len(manual) * 9 // 10, len(code) * 9 // 10
    tokenizer = BPETokenizer("gpt2").train([manual[:prose_cut], code[:code_cut]], vocab_size)
    return {"prose": chars_per_token(tokenizer, manual[prose_cut:]),
            "code": chars_per_token(tokenizer, code[code_cut:]),
            "both": chars_per_token(tokenizer, manual[prose_cut:] + code[code_cut:])}


def published() -> dict[str, dict[str, float]]:
    """The vocabularies of GPT-2, GPT-4 and GPT-4o on Python's manual."""
    from scratchbook.data import fetch, python_manual
    from scratchbook.tokenizers import BPETokenizer
    from scratchbook.tokenizers.quality import chars_per_token, fertility

    manual, found = python_manual(), {}
    for pattern, name in PUBLISHED.items():
        tokenizer = BPETokenizer.from_tiktoken(fetch(name), pattern)
        found[pattern] = {"ranks": len(tokenizer.ranks),
                          "chars_per_token": chars_per_token(tokenizer, manual),
                          "words_per_100_tokens": 100 / fertility(tokenizer, manual)}
    return found


def models() -> dict[str, dict[str, float]]:
    """The presets' exact sizes: parameters, megabytes of float32, gigabytes of bfloat16."""
    from scratchbook.accounting import total_parameters, weight_bytes
    from scratchbook.config import PRESETS

    return {name: {"parameters": total_parameters(config),
                   "float32_megabytes": weight_bytes(config, "fp32") / 1e6,
                   "bfloat16_gigabytes": weight_bytes(config, "bf16") / 1e9}
            for name, config in PRESETS.items()}


def main() -> int:
    """Measure and record."""
    from scratchbook.teaching import record

    numbers = {"characters": characters(), "own_bpe": own_bpe(), "published": published(),
               "models": models()}
    path = record("claims", numbers, seeds=[], command=COMMAND)
    print(path.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
