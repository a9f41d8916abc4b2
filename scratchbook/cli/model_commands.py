"""`scratchbook sizes` and `scratchbook model show`: what models cost, without building them.

Counts are exact. Bytes of int8 and int4 leave out the scales of a real format, and the tokens
per second are what reading the weights allows: no machine gives more to a single text.
"""

import argparse
import json

from scratchbook import accounting
from scratchbook.cli.chapter_commands import as_table
from scratchbook.config import ENCODERS, PRESETS, ModelConfig

ALIASES = {"llama3-8b": "llama-3-8b"}


def sizes(options: argparse.Namespace) -> int:
    """Print one line for each preset, smallest first."""
    chosen = sorted((find_preset(name) for name in options.config or decoders()),
                    key=lambda pair: accounting.total_parameters(pair[1]))
    rows = [costs(name, config, options.bandwidth, options.context) for name, config in chosen]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(as_table([as_words(row) for row in rows]))
    print(f"\nKV: bytes kept for each token read, in bf16. tok/s: the most for one text at "
          f"{options.bandwidth:g} GB/s\nwith {options.context} tokens read, all weights and their "
          "keys and values read once per token.")
    return 0


def costs(name: str, config: ModelConfig, bandwidth: float, context: int) -> dict[str, float]:
    """Every number of one line; bandwidth in gigabytes (1e9 bytes) per second."""
    row: dict[str, float | str] = {
        "model": name, "parameters": accounting.total_parameters(config),
        "flops_per_token": accounting.decoding_flops_per_token(config),
        "kv_bytes": accounting.kv_bytes_per_token(config)}
    row |= {dtype: accounting.weight_bytes(config, dtype) for dtype in accounting.BYTES}
    for dtype in ("bf16", "int4"):
        row[f"tokens_per_second_{dtype}"] = accounting.tokens_per_second(
            config, bandwidth * 1e9, dtype, context)
    return row


def as_words(row: dict[str, float]) -> dict[str, str]:
    """One line as it is printed: counts in full, bytes with a unit."""
    words = {"model": row["model"], "parameters": f"{row['parameters']:,}",
             "FLOPs/token": f"{row['flops_per_token']:.3g}", "KV": with_unit(row["kv_bytes"])}
    words |= {dtype: with_unit(row[dtype]) for dtype in accounting.BYTES}
    words |= {f"tok/s {dtype}": f"{row[f'tokens_per_second_{dtype}']:,.0f}"
              for dtype in ("bf16", "int4")}
    widths = {name: max(len(name), 13 if name == "parameters" else 8) for name in words}
    name = words.pop("model")
    return {"model": name} | {key.rjust(widths[key]): text.rjust(widths[key])
                              for key, text in words.items()}


def with_unit(count: float) -> str:
    """Bytes with three digits and the unit that fits: 16.1 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes any number")


def show(options: argparse.Namespace) -> int:
    """Build one preset on the meta device, which allocates nothing, and count what it holds."""
    name, config = find_preset(options.config)
    parts = accounting.count_parameters(config)
    total = built_size(config)
    print(f"{name}: {config.num_layers} layers, d_model {config.d_model}, {config.num_heads} heads "
          f"({config.num_kv_heads} for keys and values), d_ff {config.d_ff} {config.feedforward},\n"
          f"  {config.norm} norm, {config.layout} layout, {config.positions} positions, "
          f"{config.vocab_size:,} tokens{', tied' if config.tie_embeddings else ''}")
    for part, count in parts.items():
        if count:
            print(f"  {part.ljust(16)}{count:>16,}  {count / total:>4.0%}")
    print(f"  {'parameters'.ljust(16)}{total:>16,}")
    for dtype in accounting.BYTES:
        print(f"  {dtype.ljust(16)}{with_unit(accounting.weight_bytes(config, dtype)):>16}")
    return 0


def built_size(config: ModelConfig) -> int:
    """The number of parameters of the built model, not of a formula."""
    import torch

    from scratchbook.model import DecoderLM

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DecoderLM(config).parameters())


def find_preset(name: str) -> tuple[str, ModelConfig]:
    """The preset of this name, or an error that lists them all."""
    name = ALIASES.get(name, name)
    if name not in decoders():
        raise ValueError(f"no config is called {name!r}; there are: {', '.join(decoders())}")
    return name, PRESETS[name]


def decoders() -> list[str]:
    """The names of the configs that make language models."""
    return [name for name in PRESETS if name not in ENCODERS]
