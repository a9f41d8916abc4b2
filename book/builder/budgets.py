"""Arithmetic behind claims about long runs: what they would need, counted and never measured.

    python -m book.builder.budgets
"""

import sys

COMMAND = "python -m book.builder.budgets"
# Hoffmann et al. (2022), arXiv:2203.15556, equation 10: loss = E + A / N^a + B / D^b
E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28
RUNS = {"124M, 24 h, loss 3.2": ("gpt2", 24, 3.2), "124M, 48 h, loss 2.8": ("gpt2", 48, 2.8),
        "355M, 120 h, loss 2.5": ("gpt2-medium", 120, 2.5)}


def tokens_for(loss: float, parameters: int) -> float:
    """How many tokens the law asks for; infinite where it says that no number is enough."""
    left = loss - E - A / parameters**ALPHA
    return (B / left) ** (1 / BETA) if left > 0 else float("inf")


def long_runs() -> dict[str, float | None]:
    """Sustained TFLOP/s on one GPU with which each run would reach its loss in its hours."""
    from scratchbook.accounting import total_parameters
    from scratchbook.config import PRESETS
    from scratchbook.training.planning import training_flops_per_token

    found = {}
    for name, (preset, hours, loss) in RUNS.items():
        config = PRESETS[preset]
        tokens = tokens_for(loss, total_parameters(config))
        each = training_flops_per_token(config, config.max_seq_len)
        needed = tokens * each / (3600 * hours) / 1e12
        found[name] = needed if needed < float("inf") else None
    return found


def overlapping_windows(characters: int = 1_000_000, epochs: int = 10, hours: float = 1.5
                        ) -> float:
    """TFLOP/s for epochs over all windows of 512, each one character after the last."""
    from scratchbook.config import PRESETS
    from scratchbook.training.planning import training_flops_per_token

    config = PRESETS["char-513k"]
    tokens = epochs * (characters - config.max_seq_len) * config.max_seq_len
    return tokens * training_flops_per_token(config, config.max_seq_len) / (3600 * hours) / 1e12


def main() -> int:
    """Count and record."""
    from scratchbook.teaching import record

    numbers = {"long_runs": long_runs(), "overlapping_windows": overlapping_windows(),
               "three_to_one": 3 * 284 / 4882}
    path = record("budgets", numbers, seeds=[], command=COMMAND)
    print(path.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
