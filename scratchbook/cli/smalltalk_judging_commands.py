"""`scratchbook smalltalk eval`: what a Smalltalk model writes, judged beside what people wrote.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

from scratchbook.cli.chapter_commands import as_table
from scratchbook.runtime import write_atomically

KNOWN_FROM = 40_000  # training methods that make the known selectors: ten seconds
FREE, CONSTRAINED, PEOPLE = "model", "model, constrained", "people"


def add_smalltalk_judging_commands(add) -> None:
    """Add `eval` to `scratchbook smalltalk`; `add(name, text)` makes one of this file."""
    found = add("eval", "judge what a model writes behind classes of the test projects: syntax, "
                        "messages, names, completion, coherence; people's methods beside it")
    found.add_argument("model", metavar="MODEL",
                       help="a run of `smalltalk train`, a checkpoint of one, a folder with the "
                            "files of the shipped model, or the word shipped")
    found.add_argument("corpus", metavar="CORPUS", help="what prepare --format wrote")
    found.add_argument("--samples", type=int, default=200, metavar="N",
                       help="methods to be written, and cases to be completed (default: 200)")
    found.add_argument("--constrained", action="store_true",
                       help="also write as many under the parser's rule")
    found.add_argument("--temperature", type=float, default=1.0, metavar="T")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--json", metavar="FILE", help="also write all numbers to FILE")


def eval_smalltalk(options: argparse.Namespace) -> int:
    """Write, judge, print a table with intervals and the definitions below it."""
    from scratchbook.data.smalltalk_documents import files_of
    from scratchbook.evaluation.method_bench import Bench
    from scratchbook.smalltalk_model import load_smalltalk

    if options.samples < 1 or not options.temperature > 0:
        raise ValueError(f"--samples {options.samples} and --temperature {options.temperature:g} "
                         "must both be above 0")
    corpus = Path(options.corpus)
    files_of(corpus)
    if not (corpus / "test.jsonl").is_file():
        raise FileNotFoundError(f"{corpus / 'test.jsonl'} is missing: first run scratchbook "
                                "smalltalk prepare")
    if options.json and not Path(options.json).absolute().parent.is_dir():
        raise FileNotFoundError(f"{options.json} is in a folder that does not exist: create it")
    model, tokenizer = load_smalltalk(None if options.model == "shipped" else options.model)
    bench = Bench.of(corpus, tokenizer, model.config.max_seq_len, KNOWN_FROM, seed=options.seed)
    numbers = judge(bench, model, options)
    if options.json:
        write_atomically(Path(options.json), json.dumps(numbers, indent=1, allow_nan=False) + "\n")
    print(report(numbers))
    return 0


def judge(bench: Any, model: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Samples, completion and coherence of one model, and of people where there is a control."""
    from scratchbook.evaluation.comparing import wilson
    from scratchbook.evaluation.method_bench import (
        judged,
        peoples_classes,
        sample,
        written_classes,
    )
    from scratchbook.evaluation.method_completion import answers, cut_methods, scores_of
    from scratchbook.evaluation.method_measures import (
        COHERENCE,
        DEFINITIONS,
        as_dict,
        measure_classes,
        pooled,
        shuffled,
        tree_sitter_judge,
    )
    from scratchbook.smalltalk.completing import Scores
    from scratchbook.smalltalk.viable import is_method
    from scratchbook.smalltalk_model import settle

    theirs, count = tree_sitter_judge(), options.samples
    judges = {"ours": is_method} | ({"pharo-tree-sitter": theirs} if theirs else {})
    found = {PEOPLE: judged(bench, [bench.method(each) for each in bench.methods[:count]], judges)}
    for name in (FREE, CONSTRAINED)[: 1 + options.constrained]:
        methods, cost = sample(bench, model, count, options.temperature, name == CONSTRAINED,
                               options.seed)
        found[name] = judged(bench, methods, judges) | cost
    cuts, _, _ = cut_methods(bench, count, settle)
    scores = scores_of([cut.case for cut in cuts],
                       answers(model, bench.tokenizer, cuts, bench.end)) if cuts else []
    classes = {FREE: written_classes(bench, model, count, options.seed),
               PEOPLE: peoples_classes(bench, count, options.seed)}
    return {"samples": found, "definitions": DEFINITIONS | COHERENCE, "judges": list(judges),
            "completion": {kind: as_dict(wilson(sum(getattr(each, kind) for each in scores),
                                                len(scores)), cases=len(scores))
                           for kind in Scores._fields if scores},
            "classes": {writer: {name: {each: pooled(shares)
                                        for each, shares in measure_classes(own).items()}
                                 for name, own in (("together", some), ("shuffled",
                                                                        shuffled(some)))}
                        for writer, some in classes.items()}}


def report(numbers: dict[str, Any]) -> str:
    """The tables that a person reads."""
    samples = numbers["samples"]
    names = [name for name in (FREE, CONSTRAINED, PEOPLE) if name in samples]
    rows = [{"share of methods, % (95 % interval)": f"valid: {judge}",
             **{name: percent(samples[name]["validity"][judge]) for name in names}}
            for judge in (*numbers["judges"], "all judges")]
    rows += [{"share of methods, % (95 % interval)": f"valid: all judges, {text}",
              **{name: percent(pick(samples[name]["validity"])) for name in names}}
             for text, pick in (
                 ("at training lengths", lambda found: found["at_training_lengths"]["all judges"]),
                 *((f"quarter {at + 1} of lengths",
                    lambda found, at=at: found["by_quarter"]["all judges"][at])
                   for at in range(4)))]
    rows.append({"share of methods, % (95 % interval)": "not finished (count as invalid)",
                 **{name: str(samples[name]["validity"]["unfinished"]) for name in names}})
    rows.append({"share of methods, % (95 % interval)": "tokens, mean",
                 **{name: f"{samples[name]['tokens']['mean']:.0f}" for name in names}})
    measures = [{"of valid methods, %": measure, **{
        name: percent(samples[name]["measures"][measure]) for name in names}}
        for measure in samples[FREE]["measures"]]
    completion = [{"completion, %": kind, FREE: percent(found)}
                  for kind, found in numbers["completion"].items()]
    coherence = [{"of classes, %": measure, **{
        f"{writer}, {how}": percent(found[how][measure])
        for writer, found in numbers["classes"].items() for how in found}}
        for measure in numbers["classes"][FREE]["together"]]
    words = [textwrap.fill(f"{name}: {text}", 100, subsequent_indent="    ")
             for name, text in numbers["definitions"].items()]
    return "\n\n".join([*(as_table(each) for each in (rows, measures, completion, coherence)
                          if each), "\n".join(words)])


def percent(found: dict[str, Any]) -> str:
    """A share with its interval, in percent."""
    if found["value"] is None:
        return "nothing to count"
    return (f"{100 * found['value']:.1f} ({100 * found['low']:.1f} to "
            f"{100 * found['high']:.1f})")
