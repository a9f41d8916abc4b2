"""The tables and drawings of chapter 01b; what they say is worked out from the numbers.

Chapter:  chapters/01b_domain_tokenizers.ipynb
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from scratchbook.companions.domain_material import (
    code_files,
    library_halves,
    rails_app,
    service_log,
)
from scratchbook.companions.domain_models import BATCH, BUDGET, steps_for
from scratchbook.evaluation.comparing import Interval, bootstrap, bound_verdict, verdict_on, wilson
from scratchbook.runtime import data_dir
from scratchbook.smalltalk.readers import Origin, read_tonel
from scratchbook.smalltalk.records import MethodRecord
from scratchbook.teaching.figures import palette, show, table, table_html
from scratchbook.teaching.live_figures import living
from scratchbook.teaching.verdicts import Comparison, comparisons
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.base import Tokenizer
from scratchbook.tokenizers.domain import LogTokenizer
from scratchbook.tokenizers.token_patterns import (
    Odds,
    assertions,
    case_style,
    count_by_context,
    is_test,
    jensen_shannon,
)

HALF, TWO_THIRDS = 0.5, 0.67  # of cl100k's tokens, and of those of a BPE learned from the same logs
FAIR = ("BPE, GPT-2's cut", "BPE, GPT-4's cut", "BPE, whole messages")


def smalltalk_files() -> dict[str, list[str]]:
    """The methods of each class file of the course's Smalltalk library, by path."""
    return {name: [record.source for record in read_tonel(text, Origin(name))
                   if isinstance(record, MethodRecord)]
            for name, text in code_files(data_dir() / "smalltalk", (".class.st",))}


def smalltalk_counts() -> dict[str, list[Counter[str]]]:
    """Words by context, a counter per class file: methods are read one by one and summed."""
    counts: dict[str, list[Counter[str]]] = {}
    for name, methods in smalltalk_files().items():
        found = count_by_context([(name, method) for method in methods], "smalltalk")
        for context, parts in found.items():
            counts.setdefault(context, []).append(sum(parts, Counter()))
    return counts


def code_by_language(max_bytes: int = 200_000) -> dict[str, list[tuple[str, str]]]:
    """(path, text) in five languages: the standard library, and what this course wrote."""
    samples = data_dir() / "code_samples"
    learn, _ = library_halves(max_bytes)
    methods = [(name, method) for name, found in smalltalk_files().items() for method in found]
    return {"python": [(f"{n}.py", text) for n, text in enumerate(learn)],
            "go": code_files(samples, (".go",)), "vue": code_files(samples, (".vue",)),
            "ruby": [file for file in rails_app() if file[0].endswith(".rb")],
            "smalltalk": methods[::8]}


def odds_table(odds: Mapping[str, Odds], p: Mapping[str, float], caption: str) -> None:
    """The words asked for, the likeliest in the first context on top."""
    table([{"word": word, "log ratio": f"{odds[word].log_ratio:+.2f}", "z": f"{odds[word].z:+.1f}",
            "p, corrected": f"{chance:.3f}", "verdict": "differs" if chance <= 0.05 else
            "no clear difference"}
           for word, chance in sorted(p.items(), key=lambda item: -odds[item[0]].z)],
          caption=caption)


def alarms(tried: Sequence[Mapping[str, float]]) -> str:
    """What `tried` says of false alarms: a dict per shuffle, with its `z` and its `p`."""
    by_z, by_p = (float(np.mean([one[name] for one in tried])) for name in ("z", "p"))
    return (f"files dealt at random, {len(tried)} times: |z| above 1.96 for {100 * by_z:.0f} % of "
            f"the words; one alarm or more by the permutation test in {100 * by_p:.0f} % of the "
            "deals")


def distances(counts: Mapping[str, Counter[str]], words: int, seed: int = 0) -> dict:
    """Jensen-Shannon distances between languages, each cut to as many words drawn at random.

    The diagonal compares two draws of one language: so far apart are equal vocabularies.
    """
    draw, names = np.random.default_rng(seed), list(counts)

    def sample(counter: Counter[str]) -> list[Counter[str]]:
        every = list(counter.elements())
        order = draw.permutation(len(every))[:2 * words]
        if len(order) < 2 * words:
            raise ValueError(f"{len(every)} words are too few for two draws of {words}")
        return [Counter(every[i] for i in part) for part in (order[:words], order[words:])]

    halves = {name: sample(counts[name]) for name in names}
    return {one: {other: jensen_shannon(halves[one][0], halves[other][1]) for other in names}
            for one in names}


def heat_map(values: Mapping[str, Mapping[str, float]], label: str, said: str, caption: str,
             digits: int = 2, by_column: bool = False) -> None:
    """Rows and columns by name, darker for larger (in its column), each number in its field."""
    rows, columns = list(values), list(next(iter(values.values())))
    grid = np.array([[values[row][column] for column in columns] for row in rows])
    fig, ax = plt.subplots(figsize=(6.4, 0.9 + 0.42 * len(rows)), layout="constrained")
    shade = grid / grid.max(0) if by_column else grid
    image = ax.imshow(shade, cmap="Blues", aspect="auto")
    middle = (shade.min() + shade.max()) / 2
    for i, j in np.ndindex(grid.shape):
        ax.text(j, i, f"{grid[i, j]:.{digits}f}", ha="center", va="center", fontsize=9,
                color="white" if shade[i, j] > middle else "black")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    fig.colorbar(image, ax=ax, label=label)
    show(fig, said, caption)


def distances_map(found: Mapping[str, Mapping[str, float]], words: int) -> None:
    """The distances as a heat map, with the nearest two languages in the text alternative."""
    pairs = {(a, b): (found[a][b] + found[b][a]) / 2 for a in found for b in found if a < b}
    near, own = min(pairs, key=pairs.get), max(found[name][name] for name in found)
    heat_map(found, "distance", f"Jensen-Shannon distances between the words of code in "
             f"{len(found)} languages, {words} words each. Nearest: {near[0]} and {near[1]}, "
             f"{pairs[near]:.2f}; two draws of one language are at most {own:.2f} apart.",
             f"0 is equal, 1 has no word in common. {words} words of code each; on the diagonal "
             "two draws of one language.")


def names_table(words: Mapping[str, Counter[str]]) -> None:
    """How distinct names are written, by language, with Wilson intervals."""
    rows = []
    for language, counter in words.items():
        styles = Counter(case_style(word) for word in counter)
        total = sum(styles.values())
        row = {"language": language, "names": total}
        for style in ("lower", "snake_case", "camelCase", "PascalCase", "UPPER_CASE"):
            share = wilson(styles[style], total)
            row[style] = f"{100 * share.value:.0f} % ({100 * share.low:.0f}–{100 * share.high:.0f})"
        rows.append(row)
    table(rows, caption="Distinct words of code by how they are written, with 95 % intervals")


def assertions_table(files: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """The commonest assertions in the tests of each language."""
    rows = []
    for language, texts in files.items():
        found: Counter[str] = sum((assertions(text, language) for name, text in texts
                                   if is_test(name)), Counter())
        rows.append({"language": language, "assertions": sum(found.values()),
                     "commonest": ", ".join(f"{n} {c}" for n, c in found.most_common(4)) or "none"})
    table(rows, caption="Assertions in the code of tests")


def saved(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Our tokens over theirs, with an interval from redrawing blocks or files."""
    return bootstrap([a / b for a, b in zip(ours, theirs, strict=True)], theirs)


def _percent(share: Interval) -> str:
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f}–{100 * share.high:.0f})"


def code_rows(counts: Mapping, baseline: str = FAIR[0]) -> list[dict]:
    """Tokens of every contestant beside the baseline's, with intervals over files."""
    rows = []
    base = counts["tokens"][baseline]
    for name, tokens in counts["tokens"].items():
        share = saved(tokens, base)
        rows.append({"tokenizer": name, "bytes per token": sum(counts["bytes"]) / sum(tokens),
                     "tokens beside the baseline": _percent(share),
                     "verdict": "the baseline" if name == baseline else
                     verdict_on(Interval(*(value - 1 for value in share)), "fewer", "more")})
    return rows


def code_line(where: str, counts: Mapping, name: str = "hybrid", baseline: str = FAIR[0]) -> str:
    """One sentence: how the hybrid did beside plain BPE of its size."""
    share = saved(counts["tokens"][name], counts["tokens"][baseline])
    word = verdict_on(Interval(*(value - 1 for value in share)), "fewer tokens", "more tokens")
    return f"{where}: {name} against {baseline}: {word}, {_percent(share)} of them"


def strongest(tokens: Mapping[str, Sequence[int]]) -> str:
    """The best of the three plain BPEs that learned from the same logs."""
    return min(FAIR, key=lambda name: sum(tokens[name]))


def log_rows(systems: Mapping[str, Mapping]) -> list[dict]:
    """By system: our tokens beside cl100k's and the strongest plain BPE's, and both bounds."""
    rows = []
    for system, found in systems.items():
        tokens = found["tokens"]
        rival = strongest(tokens)
        published, fair = (saved(tokens["ours"], tokens[name]) for name in ("cl100k", rival))
        rows.append({"system": system, "of cl100k": _percent(published),
                     "at most 50 %": bound_verdict(published, at_most=HALF),
                     "of BPE": _percent(fair), "cut": rival.removeprefix("BPE, "),
                     "at most 67 %": bound_verdict(fair, at_most=TWO_THIRDS)})
    return rows


def logs_table(counts: Mapping[str, Mapping]) -> None:
    """Both settings of the study as two tables."""
    for setting, systems in counts.items():
        table(log_rows(systems), caption=f"Our tokens, {setting}: shares with 95 % intervals over "
              "blocks of 50 lines")


def logs_dots(counts: Mapping[str, Mapping]) -> None:
    """Our share of cl100k's tokens by system, in both settings, and the line asked for."""
    systems = sorted(counts["left out"], key=lambda name: sum(counts["left out"][name]["tokens"][
        "ours"]) / sum(counts["left out"][name]["tokens"]["cl100k"]))
    fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    said = []
    for row, (setting, of_setting) in enumerate(counts.items()):
        shares = [saved(of_setting[name]["tokens"]["ours"], of_setting[name]["tokens"]["cl100k"])
                  for name in systems]
        middle, low, high = (100 * np.array(values) for values in zip(*shares, strict=True))
        ax.errorbar(middle, np.arange(len(systems)) + 0.14 * (1 - 2 * row),
                    xerr=[middle - low, high - middle], fmt="os"[row], ms=4, capsize=3,
                    color=palette()[row], label=setting)
        said.append(f"{setting}: " + ", ".join(f"{name} {value:.0f} %" for name, value in
                                               zip(systems, middle, strict=True)))
    ax.axvline(100 * HALF, color="#888888", ls="--", lw=1)
    ax.set_yticks(range(len(systems)), systems)
    ax.set(xlabel="our tokens, % of cl100k's", xlim=(0, None))
    ax.legend()
    show(fig, f"Our share of cl100k's tokens. {'; '.join(said)}.",
         "Dots with 95 % intervals over blocks of 50 lines. The dashed line is what was asked for.")


def total(counts: Mapping[str, Mapping], setting: str, name: str) -> int:
    """All tokens of one tokenizer in one setting."""
    return sum(sum(found["tokens"][name]) for found in counts[setting].values())


def causes_table(counts: Mapping[str, Mapping]) -> None:
    """What the saving comes from: one part taken away at a time, all systems together."""
    rows = []
    for name in ("ours", "ours, no templates learned", "ours over cl100k", *FAIR, "cl100k"):
        row: dict[str, object] = {"tokenizer": name}
        for setting in counts:
            size, theirs = (total(counts, setting, each) for each in (name, "cl100k"))
            row[f"tokens, {setting}"] = size
            row[f"of cl100k, {setting}"] = f"{100 * size / theirs:.0f} %"
        rows.append(row)
    table(rows, caption="All nine systems together")


def squeezed(counts: Mapping[str, Mapping], vocab_size: int = 4096) -> str:
    """Our tokens at equal bits each, beside what gzip makes of the same logs."""
    bits = int(vocab_size - 1).bit_length()
    ours = total(counts, "second halves", "ours") * bits / 8
    packed = sum(found["gzip_bytes"] for found in counts["second halves"].values())
    return (f"at {bits} bits a token ours are {ours / 1000:,.0f} kB, gzip -9 makes "
            f"{packed / 1000:,.0f} kB: {'more' if ours > packed else 'fewer'} than gzip")


def vocabulary_line(counts: Mapping[str, Mapping]) -> str:
    """Folding over cl100k beside folding over our own vocabulary, block by block."""
    lines = []
    for setting, systems in counts.items():
        ours, theirs = ([count for found in systems.values() for count in found["tokens"][name]]
                        for name in ("ours over cl100k", "ours"))
        share = saved(ours, theirs)
        word = verdict_on(Interval(*(value - 1 for value in share)), "fewer", "more")
        lines.append(f"{setting}: {word} ({_percent(share)} of ours)")
    return "folding over cl100k, " + "; ".join(lines)


def matrix_map(found: Mapping[str, Mapping[str, float]]) -> None:
    """Bytes per token, tokenizers down, corpora across."""
    columns = list(next(iter(found.values())))
    best = {column: max(found, key=lambda row: found[row][column]) for column in columns}
    heat_map(found, "share of the column's most",
             "Bytes per token of each tokenizer on each corpus. Most on " + "; ".join(
                 f"{column}: {row}, {found[row][column]:.1f}" for column, row in best.items()),
             "Rows: 4,096 tokens learned from the named corpus, plain or with its own tokenizer. "
             "Columns: held-out text. Numbers: bytes per token.", digits=1, by_column=True)


def transfer_lines(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What transfers: for each corpus what the best stranger keeps of its own BPE's length."""
    lines = []
    for column in next(iter(found.values())):
        own = found[f"BPE of {column}"][column]
        strangers = {row: values[column] for row, values in found.items()
                     if row.startswith("BPE") and not row.endswith(column)}
        near = max(strangers, key=strangers.get)
        far = min(strangers, key=strangers.get)
        lines.append(f"{column}: {near} keeps {100 * strangers[near] / own:.0f} % of the bytes per "
                     f"token of its own BPE, {far} {100 * strangers[far] / own:.0f} %")
    return lines


def model_comparisons(runs: Mapping[str, Mapping], against: str = FAIR[0]) -> list[Comparison]:
    """Every tokenizer's models with those of plain BPE, seed by seed."""
    return comparisons({name: run["bits_per_byte"] for name, run in runs.items()}, against=against,
                       unit="bits per byte", low="better", high="worse")


def models_table(corpora: Mapping[str, Mapping[str, Mapping]]) -> None:
    """Bits per byte at equal compute, and who is better, for each corpus."""
    for corpus, runs in corpora.items():
        words = {each.name: f"{each.word} ({each.gap})" for each in model_comparisons(runs)}
        table([{"tokenizer": name, "window, tokens": run["seq_len"],
                "bytes/token": run["bytes_per_token"],
                "passes over the text": passes(run), "learning rate": run["lr"],
                "bits/byte": float(np.mean(run["bits_per_byte"])),
                "beside GPT-2's cut": words.get(name, "")} for name, run in runs.items()],
              caption=f"{corpus}: five seeds each, the same number of operations")


def passes(run: Mapping) -> str:
    """How often the training text was read."""
    seq_len = run["seq_len"]
    steps = steps_for(BUDGET, run["vocab_size"], seq_len)
    return f"{steps * (BATCH // seq_len) * seq_len / run['training_tokens']:.1f}"


def speed_lines(speed: Mapping) -> list[str]:
    """How fast ours encode beside plain BPE on the same text, and what they add to a process."""
    rows, lines = {(row["task"], row["who"]): row for row in speed["rows"]}, []
    for task, who in (("Python", "hybrid"), ("logs", "logs")):
        ours, plain = rows[task, who], rows[task, "plain BPE"]
        apart = ours["fastest"] > plain["slowest"] or ours["slowest"] < plain["fastest"]
        times = ours["seconds"] / plain["seconds"]
        lines.append(f"{task}: {ours['megabytes_per_second']:.1f} MB/s, plain BPE "
                     f"{plain['megabytes_per_second']:.1f}: "
                     + (f"{times:.1f} times the time" if apart else "no clear difference")
                     + f"; {speed['megabytes'][who]:.0f} MB of memory, code and tables")
    return lines


def _bpe_data(bpe: BPETokenizer) -> dict:
    return {"pattern": bpe.pattern, "alphabet": list(b"".join(map(bpe.token_bytes, range(256)))),
            "merges": [bpe.ranks[half] for pair in bpe.merges for half in pair]}


def live_log(ours: LogTokenizer, plain: BPETokenizer, text: str) -> None:
    """The living figure: paste a log, see its tokens beside those of a plain BPE."""
    samples = {"Shop": text, "Recursion": service_log(3, seed=8) + "  File \"a.py\", line 7, in f\n"
               "    return f(n - 1)\n" * 30,
               "Prose": "This is no log. It has no line that looks like another one.\n"}
    counts = [len(tokenizer.encode_ordinary(text)) for tokenizer in (ours, plain)]
    still = [{"tokenizer": "plain BPE", "tokens": counts[1]}, {"tokenizer": "ours",
                                                                "tokens": counts[0]}]
    living("logs", {"text": text, "samples": samples, "templates": ours.templates,
                    "ours": _bpe_data(ours.bpe), "plain": _bpe_data(plain)},
           still=table_html(still, caption="A log of the shop"), also=("tokens",))


def pieces(tokenizer: Tokenizer, text: str) -> str:
    """The tokens of a text between bars, white space made visible."""
    found = [tokenizer.describe(i) if isinstance(tokenizer, LogTokenizer)
             else tokenizer.token_bytes(i).decode("utf-8", "replace")
             for i in tokenizer.encode_ordinary(text)]
    return "|".join(piece.replace(" ", "␣").replace("\n", "⏎") for piece in found)


def findings(numbers: Mapping) -> list[str]:
    """The chapter's own runs in sentences."""
    shop = numbers["shop"]
    return [alarms(numbers["alarms"]) + ".",
            code_line("Python, held-out packages", numbers["python"]) + ".",
            code_line("Python", numbers["python"], "hybrid, identifiers as bytes") + ".",
            f"A made-up log: our tokens are {_percent(saved(shop['ours'], shop['plain']))} of "
            "those of a plain BPE of the same size and text."]


def closing(logs: Mapping | None, models: Mapping | None) -> list[str]:
    """What the recorded studies say, in as many words as their verdicts have."""
    lines = []
    for setting, systems in (logs or {}).items():
        rows = log_rows(systems)
        counts = {bound: Counter(row[bound] for row in rows)
                  for bound in ("at most 50 %", "at most 67 %")}
        lines.append(f"Real logs, {setting}, {len(rows)} systems: " + "; ".join(
            f"{bound} of {'cl100k' if '50' in bound else 'the strongest plain BPE'}: " + ", ".join(
                f"{word} on {number}" for word, number in found.items())
            for bound, found in counts.items()) + ".")
    for corpus in ("logs", "Python") if models else ():
        lines += [f"Small models, {corpus}: {each}." for each in model_comparisons(models[corpus])]
    return lines
