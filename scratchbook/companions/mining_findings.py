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
from scratchbook.interpret.mining import FLOOR, Find, Mined
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


def motif_rows(finds: Sequence[Find], table: Mined, elsewhere: Mined) -> list[dict[str, object]]:
    """A row for each motif: how many heads are significant and found, and the strongest.

    The strongest is chosen on every second text, and told on the others: its attention on targets,
    its excess, and its excess `elsewhere`, where motifs are another text's.
    """
    chosen, judged = (table.of(slice(start, None, 2)) for start in (0, 1))
    scores, excess = judged.mean_targets(), judged.excess()
    other, rows = elsewhere.of(slice(1, None, 2)).excess(), []
    for motif, choice in chosen.excess().items():
        own = [find for find in finds if find.motif == motif]
        place = np.unravel_index(np.nan_to_num(choice, nan=-1.0).argmax(), choice.shape)
        best = next(find for find in own if (find.layer, find.head) == place)
        rows.append({"motif": motif, "texts": best.texts,
                     "significant": sum(find.significant for find in own),
                     "found": sum(find.found for find in own), "strongest": head_name(*place),
                     "on targets": float(scores[motif][place]),
                     "excess": float(excess[motif][place]),
                     "by another text": float(other[motif][place]), "p, Holm": best.p_holm})
    return rows


def kind_rows(language: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Found delimiter and method heads: how many times their neighbours the last two get."""
    return [{"head": f"{language[:2]} {head_name(row['layer'], row['head'])} {row['motif']}",
             "texts": row["texts"], "the last, times": _area(row["last"]),
             "the one before, times": _area(row["before"]),
             "the one before is liked": "yes" if row["before"][1] > 1 else "not clearly",
             "the last": _against_before(row)} for row in rows]


def _against_before(row: Mapping[str, Any]) -> str:
    return verdict_on(Interval(*(value - 1 for value in row["ratio"])), "less", "more")


def kinds_line(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Of how many found delimiter and method heads the one before the last is liked too."""
    rows = [row for part in parts.values() for row in part["kinds"]]
    words = [_against_before(row) for row in rows]
    return (f"Of {len(rows)} found delimiter and method heads "
            f"{sum(row['before'][1] > 1 for row in rows)} look at the one before the last as well; "
            f"beside the neighbours of each, {words.count('more')} more at the last, "
            f"{words.count('less')} less, {words.count(NO_DIFFERENCE)} {NO_DIFFERENCE}.")


def earlier_line(language: str, found: Mapping[str, Any]) -> str:
    """What the induction heads are without the strongest previous-token head before them."""
    others = found["others"]
    return (f"{language.capitalize()}: the mean excess of {found['induction heads']} induction "
            f"heads is {found['whole']:.2f}; it is {found['without']:.2f} without previous-token "
            f"head {head_name(*found['head'])}, and {min(others):.2f} to {max(others):.2f} without "
            f"another head of its layer (the first against these: "
            f"{found['against others']['verdict']}).")


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


def clusters_line(language: str, rows: Sequence[Mapping[str, Any]], agree: float) -> str:
    """How many groups have none of our names, how many heads they hold, and whether they last."""
    unnamed = [row for row in rows if not row["motif"]]
    heads = sum(row["heads"] for row in unnamed)
    named = (f"{len(unnamed)} without one of our names, with {heads} of "
             f"{sum(row['heads'] for row in rows)} heads" if unnamed
             else "each with one of our names")
    return (f"{language.capitalize()}: of {len(rows)} groups of heads, {named}; the groups by one "
            f"half of the texts and by the other agree to {agree:.2f}.")


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
        parts.append(f"{name} ({runs[0]['parameters']:,} parameters) {min(ends):.2f} to "
                     f"{max(ends):.2f} (above 0.4 in {sum(end > 0.4 for end in ends)} of "
                     f"{len(ends)})")
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
                          f"to {max(row['chance runs']):.2f}", "draws as good": _as_good(row),
             "by norm": _interval(row["by norm"]),
             "against chance": row["evidence against chance"]["verdict"],
             "against norm": row["evidence against norm"]["verdict"],
             "parameters": f"{row['parameters'][1] / row['parameters'][0]:.0%}",
             "time of a pass": _time(row)} for row in rows]


def _as_good(row: Mapping[str, Any]) -> str:
    """How many draws of heads by chance cost no more than those chosen by evidence."""
    runs = row["chance runs"]
    return f"{sum(run <= row['by evidence']['mean'] for run in runs)} of {len(runs)}"


def _time(row: Mapping[str, Any]) -> str:
    """The smaller model's share of the time, round by round: median and middle half."""
    low, middle, high = np.quantile(np.divide(*row["seconds"][::-1]), (0.25, 0.5, 0.75))
    return f"{middle:.0%} ({low:.0%} to {high:.0%})"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


def pruning_line(language: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What pruning by evidence costs beside pruning by chance, and saves."""
    return f"{language.capitalize()}: " + "; ".join(
        f"with {row['keep']} of {row['of']} heads the loss rises by "
        f"{row['by evidence']['mean']:.2f} by evidence, {row['by chance']['mean']:.2f} by chance ("
        f"{row['evidence against chance']['verdict']}; {_as_good(row)} draws as good), "
        f"{row['by norm']['mean']:.2f} by the norm of what a head writes "
        f"({row['evidence against norm']['verdict']}), and a pass takes {_time(row)} of the time"
        for row in rows) + "."


# errors and methods ---------------------------------------------------------------------------


def error_rows(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """Areas at injected errors: the best head against the plain loss."""
    return [{"language": language, "texts judged": part["texts"],
             "head chosen on others": f"{head_name(*part['head'])}, {part['looked at']}",
             "area, that head": _area(part["head area"]), "area, loss": _area(part["loss area"]),
             "area, rarity": _area(part["rarity area"])}
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

    def against(name: str) -> str:
        value, low, high = found[f"last against {name}"]
        word = verdict_on(Interval(value, low, high), "less", "more")
        return f"{value:+.2f}, 95 % over texts {low:+.2f} to {high:+.2f}: {word}"

    return (f"A linear probe at {found['judged']} ends of lines tells whether a method comes next "
            f"with an area of {last:.2f} behind the last layer; with labels of other texts "
            f"{np.mean(shuffled):.2f} on average, at most {max(shuffled):.2f} "
            f"(p = {found['p']:.3f}). The last layer against the token's embedding "
            f"({found['by layer']['0']:.2f}): {against('embedding')}; against the count of line "
            f"breaks ({found['line breaks']:.2f}): {against('line breaks')}.")


# untrained models -----------------------------------------------------------------------------


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


def shared_rows(language: str, found: Mapping[str, Sequence[Mapping[str, Any]]]
                ) -> list[dict[str, object]]:
    """Holm's finds in untrained models by motif, by where equal tokens have equal vectors."""
    ways = {shared: [row["by motif"] for row in rows] for shared, rows in found.items()}
    motifs = dict.fromkeys(motif for rows in ways.values() for row in rows for motif in row)
    return [{"language": language, "motif": motif} | {
        shared: sum(row.get(motif, 0) for row in rows) for shared, rows in ways.items()}
        for motif in motifs]


def shared_line(language: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How many finds are left when equal tokens no longer have equal vectors."""
    parts = []
    for shared, rows in found.items():
        tests = sum(row["tests"] for row in rows)
        parts.append(f"{shared} {sum(row['holm'] for row in rows)} "
                     f"({sum(row['alone'] for row in rows) / tests:.1%} at 5 % each)")
    return (f"{language.capitalize()}, {len(rows)} untrained models: finds by Holm where equal "
            f"tokens have equal vectors {', '.join(parts)}.")
