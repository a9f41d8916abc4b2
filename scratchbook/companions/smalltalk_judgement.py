"""The Smalltalk model judged: is what it writes valid, does it complete, does it copy?

    python -m scratchbook.companions.smalltalk_judgement CORPUS RUN --plain FOLDER

CORPUS is a folder that `scratchbook smalltalk prepare --format` wrote, RUN one of `scratchbook
smalltalk train` with all its checkpoints, FOLDER is where the training text without holes is kept
once it is packed. All text that is judged stands behind classes of the test projects.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scratchbook.companions.smalltalk_rivals import (
    COUNTING,
    MODEL,
    PEOPLE,
    Rivals,
    complete_all,
    copied,
    random_split,
    surprise,
    train_rivals,
)
from scratchbook.data.smalltalk_corpus import load_classes, load_methods
from scratchbook.evaluation.comparing import (
    Interval,
    bound_verdict,
    spearman,
    verdict_on,
)
from scratchbook.evaluation.method_bench import (
    Bench,
    judged,
    peoples_classes,
    sample,
    written_alone,
    written_classes,
)
from scratchbook.evaluation.method_completion import method_bits
from scratchbook.evaluation.method_measures import (
    COHERENCE,
    DEFINITIONS,
    ClassMethods,
    Judge,
    Method,
    as_dict,
    measure_classes,
    measure_methods,
    pooled,
    pooled_difference,
    shuffled,
    tree_of,
    tree_sitter_judge,
)
from scratchbook.model import DecoderLM
from scratchbook.smalltalk.viable import is_method
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.teaching.results import record
from scratchbook.training.checkpoint import checkpoints

OURS, THEIRS, BOTH = "ours", "pharo-tree-sitter", "all judges"
CONSTRAINED, WHOLE = "model, constrained", "a training method, whole"
SHUFFLES = 20
VALID = 0.9  # the share that was aimed at
CHECKPOINTS = 12


def judges() -> dict[str, Judge]:
    """Our parser and pharo-tree-sitter.

    Raises:   ValueError where the latter is not installed
    """
    theirs = tree_sitter_judge()
    if theirs is None:
        raise ValueError("the record needs both judges: pip install pharo-tree-sitter tree-sitter")
    return {OURS: is_method, THEIRS: theirs}


def untrained(model: DecoderLM, seed: int = 0) -> DecoderLM:
    """A model of the same sizes whose weights are still by chance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DecoderLM(model.config).eval()


def samples(bench: Bench, model: DecoderLM, run: Path, rivals: Rivals, count: int
            ) -> tuple[dict[str, list[Method]], dict[str, Any]]:
    """What each writer wrote, and the judgement of it."""
    early = load_smalltalk(checkpoints(run)[0])[0]
    few = max(1, count // 5)
    wanted = {  # the writer, how many methods, temperature, the rule, top_p
        MODEL: (model, count, 1.0, False), "model, temperature 0.7": (model, count, 0.7, False),
        "model, top-p 0.9": (model, count, 1.0, False, 0.9),
        CONSTRAINED: (model, count, 1.0, True), COUNTING: (rivals.counts, count, 1.0, False),
        f"{COUNTING}, temperature 0.7": (rivals.counts, count, 0.7, False),
        f"{COUNTING}, top-p 0.9": (rivals.counts, count, 1.0, False, 0.9),
        "first checkpoint": (early, few, 1.0, False),
        "untrained": (untrained(model), few, 1.0, False)}
    written, found = {PEOPLE: list(map(bench.fitting, bench.methods[:count])),
                      WHOLE: [method._replace(fields=bench.fields(record)) for method, record
                              in zip(bench.training, bench.methods[:count], strict=False)]}, {}
    for name, (writer, number, temperature, constrained, *top_p) in wanted.items():
        written[name], cost = sample(bench, writer, number, temperature, constrained,
                                     top_p=top_p[0] if top_p else None)
        found[name] = cost | {"temperature": temperature}
        print(name, f"{cost['seconds']:.0f} s", flush=True)
    both, begin = judges(), time.process_time()
    judged(bench, written[PEOPLE][:200], both)
    seconds = time.process_time() - begin
    report = {name: judged(bench, methods, both) | found.get(name, {})
              for name, methods in written.items()}
    report[PEOPLE]["judging"] = {"methods": len(written[PEOPLE][:200]), "seconds": seconds}
    print({name: each["validity"][BOTH]["value"] for name, each in report.items()}, flush=True)
    return written, report


def differences(bench: Bench, written: Mapping[str, Sequence[Method]]) -> dict[str, Any]:
    """How the model's measures differ from the rivals', at the same lengths, with a verdict each.

    Only valid methods say something, and of the model those are the shorter ones: so both sides
    are cut to as many of each quarter of lengths. `methods` says how many are left.
    """
    found = {}
    for other in (PEOPLE, COUNTING, CONSTRAINED, WHOLE):
        some = same_lengths(bench, written[MODEL], written[other])
        ours, theirs = (measure_methods(methods, bench.known) for methods in some)
        found[other] = {name: _differs(ours[name], theirs[name]) for name in DEFINITIONS}
        found[other]["methods"] = len(some[0])
    return found


def same_lengths(bench: Bench, *sides: Sequence[Method]) -> list[list[Method]]:
    """The first valid methods of each side, as many of each quarter of lengths as all have."""
    sorted_out = []
    for methods in sides:
        quarters: list[list[Method]] = [[], [], [], []]
        for each in methods:
            if tree_of(each.source):
                quarters[int(np.searchsorted(bench.quartiles, each.tokens))].append(each)
        sorted_out.append(quarters)
    fewest = [min(map(len, of_all)) for of_all in zip(*sorted_out, strict=True)]
    return [[each for quarter, most in zip(quarters, fewest, strict=True)
             for each in quarter[:most]] for quarters in sorted_out]


def _differs(first: Sequence, second: Sequence) -> dict[str, Any] | None:
    """The difference of two shares; None where one has nothing to count."""
    if not sum(each.total for each in first) or not sum(each.total for each in second):
        return None
    found = pooled_difference(first, second)
    return as_dict(found, verdict=verdict_on(found))


def class_coherence(bench: Bench, model: DecoderLM, rivals: Rivals, count: int) -> dict[str, Any]:
    """Coherence of written and of people's classes, beside the same methods dealt out anew.

    `alone` are the model's methods beside as many that it wrote behind the same heads one by one:
    what is left of the difference is what methods gain from seeing those before them.
    """
    writers: dict[str, list[ClassMethods]] = {
        MODEL: written_classes(bench, model, count),
        COUNTING: written_classes(bench, rivals.counts, count),
        PEOPLE: peoples_classes(bench, count)}
    found: dict[str, Any] = {}
    for name, classes in writers.items():
        own, other = measure_classes(classes), _shuffled_shares(classes)
        found[name] = {
            "classes": len(classes), "methods": sum(len(each.methods) for each in classes),
            "measures": {each: pooled(own[each]) for each in COHERENCE},
            "shuffled": {each: pooled(other[each]) for each in COHERENCE},
            "above_shuffled": {each: _differs(own[each], other[each]) for each in COHERENCE}}
    pairs = written_alone(bench, model, writers[MODEL])
    own, other = map(measure_classes, pairs)
    found[MODEL]["alone"] = {
        "classes": len(pairs[0]), "methods": sum(len(each.methods) for each in pairs[0]),
        "measures": {each: pooled(other[each]) for each in COHERENCE},
        "above": {each: _differs(own[each], other[each]) for each in COHERENCE}}
    return found


def _shuffled_shares(classes: Sequence[ClassMethods]) -> dict[str, list]:
    """The shares of each class, added up over all shuffles."""
    each = [measure_classes(shuffled(classes, seed)) for seed in range(SHUFFLES)]
    return {name: [sum(shares[1:], shares[0]) for shares in zip(*(one[name] for one in each),
                                                                strict=True)]
            for name in COHERENCE}


def step_of(folder: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(folder.name.removeprefix("step_"))


def over_checkpoints(bench: Bench, run: Path, corpus: Path, cuts: Sequence, count: int
                     ) -> dict[str, Any]:
    """Every measure at several checkpoints, and how its rank goes with that of the loss."""
    every = checkpoints(run)
    chosen = sorted({round(at) for at in np.linspace(0, len(every) - 1, CHECKPOINTS)})
    rows, both, held, steps = [], judges(), validation(bench, corpus), []
    for folder in (every[at] for at in chosen):
        steps.append(step_of(folder))
        model = load_smalltalk(folder)[0]
        methods, _ = sample(bench, model, count)
        report = judged(bench, methods, both)
        done = complete_all(bench, {MODEL: model}, cuts)[MODEL]
        rows.append({
            "loss": sum(method_bits(model, *held, bench.hidden())) / sum(
                bench.characters(held[1])),
            "valid": report["validity"][BOTH]["value"],
            "valid at training lengths": report["validity"]["at_training_lengths"][BOTH]["value"],
            "completion, exact": float(np.mean([each.exact for each in done])),
            "completion, selector": float(np.mean([each.selector for each in done])),
            **{name: each["value"] for name, each in report["measures"].items()}})
        print("step", steps[-1], rows[-1]["loss"], rows[-1]["valid"], flush=True)
    values = {name: [row[name] for row in rows] for name in rows[0]}
    return {"steps": steps, "samples": count, "cases": len(cuts), "values": values,
            "correlation": {name: correlation(values["loss"], found)
                            for name, found in values.items() if name != "loss"},
            "remark": "Checkpoints of one run are not independent: whatever rises with time "
                      "correlates with a loss that falls with time. `late` looks at the second "
                      "half alone, `changes` at the steps from one checkpoint to the next."}


def validation(bench: Bench, corpus: Path, count: int = 200
               ) -> tuple[list[list[int]], list[list[int]]]:
    """Heads and methods of the validation projects, as ids."""
    classes = {(each.project, each.name): each
               for each in load_classes(corpus / "classes.jsonl", "validation")}
    methods = load_methods(corpus / "validation.jsonl")
    random.Random(0).shuffle(methods)
    bench = Bench(bench.tokenizer, bench.window, classes, methods, frozenset(), [], [])
    return bench.texts(methods[:count])


def correlation(loss: Sequence[float], values: Sequence[float | None]) -> dict[str, Any] | None:
    """Spearman's with its interval, how often chance reaches it, and two views without the trend.

    None where a value is missing, or nothing ever changes.
    """
    if None in values or len(values) < 4:
        return None
    try:
        found = spearman(loss, values)
    except ValueError:
        return None
    draw = np.random.default_rng(0)
    by_chance = [abs(spearman(loss, draw.permutation(values)).value) for _ in range(2_000)]
    half = len(loss) // 2
    return as_dict(found, p=(1 + sum(each >= abs(found.value) for each in by_chance)) / 2_001,
                   late=_rank(loss[half:], values[half:]),
                   changes=_rank(np.diff(loss), np.diff(values)))


def _rank(loss: Sequence[float], values: Sequence[float]) -> dict[str, Any] | None:
    try:
        return as_dict(spearman(loss, values), pairs=len(loss))
    except ValueError:
        return None


def measure(corpus: Path, run: Path, plain: Path, count: int, cases: int) -> dict[str, Any]:
    """The whole judgement of the last checkpoint of a run."""
    begin, clock = time.process_time(), {}

    def lap(name: str) -> None:
        clock[name] = time.process_time() - begin - sum(clock.values())
        print(name, f"{clock[name]:.0f} CPU seconds", flush=True)

    model, tokenizer = load_smalltalk(run)
    bench = Bench.of(corpus, tokenizer, model.config.max_seq_len)
    lap("reading the corpus")
    rivals = train_rivals(bench, corpus, plain)
    lap("counting")
    written, report = samples(bench, model, run, rivals, count)
    lap("samples")
    numbers: dict[str, Any] = {
        "model": {"step": step_of(checkpoints(run)[-1]), "window": bench.window,
                  "parameters": sum(each.numel() for each in model.parameters())},
        "definitions": DEFINITIONS | COHERENCE, "training": bench.account(),
        "samples": report, "differences": differences(bench, written),
        "aim": {name: bound_verdict(_interval(found["validity"][BOTH]), at_least=VALID)
                for name, found in report.items() if name not in (PEOPLE, WHOLE)}
        | {"share": VALID}}
    numbers["completion"], cuts = rivals.completion(bench, model, cases)
    lap("completion")
    numbers["surprise"] = surprise(bench, model, rivals)
    lap("surprise")
    numbers["classes"] = class_coherence(bench, model, rivals, count)
    lap("classes")
    numbers["copied"] = copied(bench, written, rivals)
    lap("overlap")
    numbers["random_split"] = random_split(bench, rivals)
    lap("random split")
    del rivals
    numbers["checkpoints"] = over_checkpoints(bench, run, corpus, cuts[:300], max(20, count // 2))
    lap("checkpoints")
    numbers["examples"] = {name: [each.source for each in methods[:12]]
                           for name, methods in written.items()}
    return numbers | {"cpu_seconds": clock}


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(found["value"], found["low"], found["high"])


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences that the numbers write."""
    said = [f"{name}: {100 * found['validity'][BOTH]['value']:.1f} % of "
            f"{found['validity']['methods']} valid by both judges (95 % "
            f"{100 * found['validity'][BOTH]['low']:.1f} to "
            f"{100 * found['validity'][BOTH]['high']:.1f}); {100 * VALID:.0f} %: "
            f"{numbers['aim'].get(name, 'a control')}"
            for name, found in numbers["samples"].items()]
    for other, found in numbers["completion"]["differences"].items():
        said.append(f"completion, model less {other}: " + ", ".join(
            f"{kind} {100 * each['value']:+.1f} points ({100 * each['low']:+.1f} to "
            f"{100 * each['high']:+.1f}; {each['verdict']})" for kind, each in found.items()))
    return said


def read_options() -> argparse.Namespace:
    """The corpus, the run, and how much is sampled."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, help="a folder that `smalltalk prepare` wrote")
    parser.add_argument("run", type=Path, help="a run of `smalltalk train`")
    parser.add_argument("--plain", type=Path, required=True, metavar="FOLDER",
                        help="where the training text without holes is kept")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--cases", type=int, default=1_200)
    return parser.parse_args()


if __name__ == "__main__":
    options = read_options()
    numbers = measure(options.corpus, options.run, options.plain, options.samples, options.cases)
    record("09_smalltalk.judgement", numbers, seeds=[0],
           command="python -m scratchbook.companions.smalltalk_judgement CORPUS RUN --plain FOLDER"
                   f" --samples {options.samples} --cases {options.cases}")
    print(*lines(numbers), sep="\n")
