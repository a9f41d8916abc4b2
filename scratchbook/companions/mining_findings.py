"""The tables and sentences of chapter 06e that its numbers write.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scratchbook.companions.mining_figures import best_excess
from scratchbook.companions.mining_heads import controls_for, told
from scratchbook.evaluation.comparing import (
    NO_DIFFERENCE,
    Interval,
    mean_and_spread,
    spearman,
    verdict_on,
)
from scratchbook.interpret.mining import FLOOR, Find
from scratchbook.teaching.results import load_result

NAME = "06e_pattern_mining"


def recorded(part: str) -> Mapping[str, Any]:
    """The numbers of one recorded part."""
    return load_result(f"{NAME}.{part}").numbers


def provenance(part: str) -> str:
    """Where they come from."""
    return load_result(f"{NAME}.{part}").provenance()


def head_name(layer: int, head: int) -> str:
    """A head as the tables call it: layer.head."""
    return f"{layer}.{head}"


def motif_rows(finds: Sequence[Find]) -> list[dict[str, object]]:
    """A row for each motif: how many heads are significant and found, and the strongest."""
    rows = []
    for motif in dict.fromkeys(find.motif for find in finds):
        own = [find for find in finds if find.motif == motif]
        best = max(own, key=lambda find: -1.0 if np.isnan(find.excess) else find.excess)
        rows.append({"motif": motif, "texts": best.texts,
                     "significant": sum(find.significant for find in own),
                     "found": sum(find.found for find in own),
                     "strongest": head_name(best.layer, best.head), "on targets": best.score,
                     "excess": best.excess, "p, Holm": best.p_holm})
    return rows


def finds_line(language: str, finds: Sequence[Find]) -> str:
    """What was found in a model, and what was not."""
    motifs = dict.fromkeys(find.motif for find in finds)
    counts = {motif: sum(f.found for f in finds if f.motif == motif) for motif in motifs}
    yes = ", ".join(f"{motif} ({count})" for motif, count in counts.items() if count)
    small = {motif: sum(f.significant for f in finds if f.motif == motif) for motif in motifs}
    no = ", ".join(f"{motif} ({small[motif]})" for motif, count in counts.items() if not count)
    return (f"{language.capitalize()}"
            f", {len(finds)} tests: heads found for {yes or 'no motif'}. None found (and how many "
            f"are significant, but smaller than {FLOOR:g}): {no or 'no motif'}.")


def cluster_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """The groups as a table."""
    return [{"heads": row["heads"], "name": row["motif"] or "none of ours",
             "mean excess": f"{row['excess']:.2f} ({row['nearest']})",
             "silhouette": row["silhouette"], "central": head_name(*row["central"]),
             "looks at": "; ".join(row["exemplars"])} for row in rows]


def clusters_line(language: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many groups have none of our names, and how many heads they hold."""
    unnamed = [row for row in rows if not row["motif"]]
    if not unnamed:
        return f"{language.capitalize()}: {len(rows)} groups of heads, each with one of our names."
    heads = sum(row["heads"] for row in unnamed)
    return (f"{language.capitalize()}"
            f": of {len(rows)} groups of heads, {len(unnamed)} without one of our names, "
            f"with {heads} of {sum(row['heads'] for row in rows)} heads.")


# over the checkpoints -------------------------------------------------------------------------


def correlation_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Spearman's correlation of each motif's best excess with the loss, trained checkpoints only.

    The interval is Fisher's, which takes checkpoints for independent; those of one run are not.
    """
    trained = rows[1:]
    losses, found = [row["loss"] for row in trained], []
    for name, best in best_excess(trained).items():
        if len(set(best)) < 2:
            continue
        rho = spearman(best, losses)
        found.append({"motif": name, "first": best[0], "last": best[-1], "rho": rho.value,
                      "low": rho.low, "high": rho.high,
                      "verdict": verdict_on(rho, "higher where the loss is lower",
                                            "higher where the loss is higher")})
    return found


def order_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """At which checkpoint the best head of each motif first has half of its highest excess."""
    found = []
    for name, best in best_excess(rows).items():
        if max(best) >= FLOOR:
            at = next(place for place, value in enumerate(best) if value >= max(best) / 2)
            found.append((rows[at]["step"], name))
    return "First checkpoint with half of the highest excess: " + ", ".join(
        f"{name} {step}" for step, name in sorted(found)) + "."


def seed_correlations(runs: Sequence[Mapping[str, Any]]) -> Interval:
    """Spearman of score and loss within each planted run; its mean over seeds, an interval."""
    each = [spearman(run["best"], run["losses"]).value for run in runs]
    mean, half = mean_and_spread(each)
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half))


def planted_line(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How the planted runs and their controls ended, seed by seed."""
    parts = []
    for name, runs in found.items():
        ends = [run["best"][-1] for run in runs]
        parts.append(f"{name} {min(ends):.2f} to {max(ends):.2f} (above 0.4 in "
                     f"{sum(end > 0.4 for end in ends)} of {len(ends)})")
    return "Best induction score at the end, over seeds: " + "; ".join(parts) + "."


# ablation -------------------------------------------------------------------------------------


def effect_rows(part: Mapping[str, Any], how: str, most: int = 8) -> list[dict[str, Any]]:
    """The strongest found heads, without each of them, beside those of its layer not found.

    A head that is found for several motifs stands once, under its largest excess. The control of
    a text is the mean over all controls, and `gap` the difference on the same texts.
    """
    heads = len(part["excess"][part["motifs"][0]][0])
    found: dict[tuple[int, int], Mapping[str, Any]] = {}
    for find in sorted(part["finds"], key=lambda find: -find["excess"]):
        if find["excess"] >= FLOOR:
            found.setdefault((find["layer"], find["head"]), find)
    rows = []
    for place, find in list(found.items())[:most]:
        effects = np.array(part["ablation"][how]).reshape(-1, heads, len(part["ablation"][how][0]))
        own = effects[place]
        other = np.mean([effects[each] for each in controls_for(place, list(found), heads)], axis=0)
        rows.append({"head": f"{head_name(*place)} {find['motif']}", "effect": told(own),
                     "control": told(other), "gap": told(own - other)})
    return rows


def effects_line(language: str, rows: Sequence[Mapping[str, Any]], how: str) -> str:
    """In how many cases taking a found head away costs more than its control."""
    costs = sum(row["effect"]["verdict"] == "higher" for row in rows)
    more, less = (sum(row["gap"]["verdict"] == word for row in rows)
                  for word in ("higher", "lower"))
    return (f"{language.capitalize()}"
            f", {how} ablation: of the {len(rows)} found heads with the largest excess {costs} "
            f"raise the loss when taken away; {more} more than the heads of the layer that were "
            f"not found, {less} less, {len(rows) - more - less} {NO_DIFFERENCE}.")


def cost_line(language: str, part: Mapping[str, Any], how: str = "mean") -> str:
    """Whether a high score means a high cost, over all heads; and what depth alone says."""
    best = np.nanmax(np.array([part["excess"][motif] for motif in part["motifs"]], float), axis=0)
    cost = np.mean(part["ablation"][how], axis=1)
    depth = np.repeat(np.arange(best.shape[0]), best.shape[1])
    (score, place), within = (spearman(each.ravel().tolist(), cost.tolist())
                              for each in (best, depth)), []
    for layer, row in zip(best, cost.reshape(best.shape), strict=True):
        within.append(spearman(row.tolist(), layer.tolist()).value)
    return (f"{language.capitalize()}: rank correlation over {cost.size} heads of the largest "
            f"excess with the cost {score.value:.2f} ({score.low:.2f} to {score.high:.2f}), of the "
            f"layer's number with the cost {place.value:.2f} ({place.low:.2f} to {place.high:.2f})"
            f"; within a layer {np.mean(within):.2f} on average (from {min(within):.2f} to "
            f"{max(within):.2f}).")


def pruning_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Heads taken out: by evidence, by chance, and what is saved."""
    return [{"heads kept": f"{row['keep']} of {row['of']}",
             "more loss, by evidence": _interval(row["by evidence"]),
             "by chance": f"{_interval(row['by chance'])}, draws {min(row['chance runs']):.2f} "
                          f"to {max(row['chance runs']):.2f}",
             "by norm": _interval(row["by norm"]),
             "against chance": row["evidence against chance"]["verdict"],
             "against norm": row["evidence against norm"]["verdict"],
             "parameters": f"{row['parameters'][1] / row['parameters'][0]:.0%}",
             "time of a pass": f"{row['seconds'][1] / row['seconds'][0]:.0%}"} for row in rows]


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


def pruning_line(language: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What pruning by evidence costs beside pruning by chance, and saves."""
    return f"{language.capitalize()}: " + "; ".join(
        f"with {row['keep']} of {row['of']} heads the loss rises by "
        f"{row['by evidence']['mean']:.2f} by evidence, {row['by chance']['mean']:.2f} by chance ("
        f"{row['evidence against chance']['verdict']}), {row['by norm']['mean']:.2f} by the norm "
        f"of what a head writes ({row['evidence against norm']['verdict']}), and a pass takes "
        f"{row['seconds'][1] / row['seconds'][0]:.0%} of the time" for row in rows) + "."


# errors and methods ---------------------------------------------------------------------------


def error_rows(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """Areas at injected errors: the best head against the plain loss."""
    return [{"language": language, "texts judged": part["texts"],
             "head chosen on others": f"{head_name(*part['head'])}, {part['looked at']}",
             "area, that head": _area(part["head area"]), "area, loss": _area(part["loss area"])}
            for language, part in found.items() if language != "probe"]


def _area(found: Sequence[float]) -> str:
    value, low, high = found
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def errors_line(language: str, part: Mapping[str, Any]) -> str:
    """Whether the head, and the loss, tell a broken text from a whole one, and which better."""
    (head, low, high), (loss, loss_low, loss_high) = part["head area"], part["loss area"]
    word = "clearly more" if loss_low > high else "clearly less" if loss_high < low else (
        "no clear difference from the head")
    chance = "above chance" if low > 0.5 else "not clearly above chance"
    return (f"{language.capitalize()}"
            f": at an injected error, its place known, the best head has an area of {head:.2f} "
            f"({chance}), the plain loss {loss:.2f} ({word}).")


def probe_line(found: Mapping[str, Any]) -> str:
    """What the probe for methods reads, beside its controls."""
    last, shuffled = found["by layer"][str(found["last"])], found["shuffled"]
    return (f"A linear probe at {found['judged']} ends of lines tells whether a method comes next "
            f"with an area of {last:.2f} behind the last layer, {found['by layer']['0']:.2f} on "
            f"the token's embedding, {found['line breaks']:.2f} by counting line breaks; with "
            f"shuffled labels {np.mean(shuffled):.2f} on average, at most {max(shuffled):.2f} "
            f"(p = {found['p']:.2f}).")


# the end --------------------------------------------------------------------------------------


def false_rows(rows: Sequence[Mapping[str, int]]) -> list[dict[str, object]]:
    """Untrained models: what each rule finds."""
    return [{"untrained model": number, "tests": row["tests"], "p at most 5 %": row["alone"],
             "Holm": row["holm"], f"Holm, and excess at least {FLOOR:g}": row["found"]}
            for number, row in enumerate(rows)]


def false_line(rows: Sequence[Mapping[str, int]]) -> str:
    """How many false finds each rule makes."""
    tests = sum(row["tests"] for row in rows)
    total = {key: sum(row[key] for row in rows) for key in ("alone", "holm", "found")}
    return (f"Untrained models, {tests} tests: {total['alone']} at 5 % each "
            f"({total['alone'] / tests:.0%}), {total['holm']} with Holm, "
            f"{total['found']} that are large enough besides.")
