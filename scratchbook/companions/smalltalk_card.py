"""The card of the shipped Smalltalk model, written from what was recorded of it.

    python -m scratchbook.companions.smalltalk_card

writes it again, after `09_smalltalk.judgement` was recorded.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scratchbook.companions.smalltalk_costs import drawn_line
from scratchbook.companions.smalltalk_tables import (
    MISSING,
    equal_line,
    percent,
    recorded,
)
from scratchbook.runtime import write_atomically
from scratchbook.smalltalk_model import model_folder
from scratchbook.teaching.results import Result, load_result

SHIPPING, JUDGEMENT = "09_smalltalk.shipping", "09_smalltalk.judgement"
NORMS = {"rms": "RMSNorm", "rms_no_gain": "RMSNorm without gains"}
COMMANDS = """scratchbook smalltalk collect --output smalltalk
scratchbook smalltalk prepare smalltalk --format --output CORPUS
scratchbook smalltalk train CORPUS --out RUN --train.precision bf16
python -m scratchbook.companions.smalltalk_shipping RUN CORPUS"""


def write_card(folder: Path | None = None) -> Path:
    """Write README.md beside the weights."""
    return write_atomically((folder or model_folder()) / "README.md",
                            card(load_result(SHIPPING), *others()))


def others() -> list[Result | None]:
    """What else is recorded: the judgement, the run, rounding on the test projects."""
    return [recorded(name) for name in ("judgement", "training", "rounded")]


def card(shipping: Result, judgement: Result | None = None, training: Result | None = None,
         tested: Result | None = None) -> str:
    """What the model is, what it read, how it was trained, what it is not for."""
    numbers = shipping.numbers
    return f"""# The Smalltalk model

A language model of {numbers["parameters"]:,} parameters that writes Smalltalk: given the definition
of a class and the beginning of a method, it writes the rest of the method. Chapter 09 builds it.

```python
from scratchbook.smalltalk.records import ClassRecord
from scratchbook.smalltalk_model import load_smalltalk, write_method

model, tokenizer = load_smalltalk()
print(write_method(model, tokenizer, ClassRecord("Stack", "Object", ("items",)), "isEmpty"))
```

or `scratchbook smalltalk complete "isEmpty" --class Stack --fields items`. It was made by this
repository alone:

```console
{COMMANDS}
```

## The model

{made(shipping, training)}

{rounded(numbers, tested)}

{window(numbers)}

## The text

{text_read(numbers["corpus"])}

## How it writes

{writing(judgement)}

## Limits

It learned from one layout, the printer's, and in Pharo's dialect; comments in English. It knows
the classes of its training projects from reading, not from an image: that a message exists it
cannot know, and nothing that it writes was run. It follows no instructions. It can repeat text
that it read, which stands under the licences below.

## The sources

{sources(numbers["corpus"])}
"""


def made(shipping: Result, training: Result | None) -> str:
    """The table of sizes, recipe and cost."""
    run = shipping.numbers["run"]
    model, train = run["model"], run["train"]
    epochs = run["tokens"] / run["train_tokens"]
    rows = {
        "Architecture": f"{model['num_layers']} layers of width {model['d_model']}, "
                        f"{model['num_heads']} heads, SwiGLU of {model['d_ff']}, "
                        f"{NORMS.get(model['norm'], model['norm'])}, rotary positions, "
                        "tied embeddings",
        "Tokenizer": f"byte-pair encoding of {model['vocab_size']:,} over a first cut that knows "
                     "Smalltalk; `09_smalltalk.tokenizers` compares it",
        "Training": f"{run['steps']:,} steps of {train['batch_size']} windows of {run['seq_len']} "
                    f"tokens: {run['tokens']:,} tokens, {epochs:.2f} times the training text; "
                    f"{train['optimizer']} at {train['lr']:g} (AdamW at {train['adamw_lr']:g} for "
                    f"the rest), {train['schedule']}, {train['precision']}, seed {train['seed']}",
        "Rows": drawn_line(training.numbers) if training else MISSING,
        "Cost": f"{run['cpu_seconds'] / 3600:.1f} hours of one processor",
        "torch": shipping.environment["versions"]["torch"].split("+")[0]}
    return "\n".join(["| What | Value |", "|---|---|",
                      *(f"| {name} | {value} |" for name, value in rows.items())])


def rounded(numbers: Mapping[str, Any], tested: Result | None) -> str:
    """What the shipped copy is, what it lost, and on which text its way of rounding was chosen."""
    plain, row = numbers["roundings"]["float32"], numbers["roundings"][numbers["chosen"]]
    ways = len(numbers["roundings"]) - 1
    return (f"The shipped copy is rounded ({numbers['chosen']}): {row['bytes']:,} bytes, of "
            f"{plain['bytes']:,}. On {numbers['documents']:,} whole documents of the validation "
            f"projects it needs {row['bits_per_character']:.3f} bits per character, the trained "
            f"weights {plain['bits_per_character']:.3f} ({_change(row['change'])}). It was chosen "
            f"among {ways} ways on these same documents. {rounded_on_test(tested)}")


def rounded_on_test(tested: Result | None) -> str:
    """What rounding costs on documents that did not choose its way."""
    if tested is None:
        return f"What it costs on others is {MISSING}."
    found = tested.numbers
    return (f"On {found['documents']:,} documents of the test projects, which chose nothing, it "
            f"needs {found['rounded']:.3f}, the trained weights {found['trained']:.3f} "
            f"({_change(found['change'])}).")


def _change(gap: Mapping[str, Any]) -> str:
    return (f"change {gap['value']:+.4f}, 95 % {gap['low']:+.4f} to {gap['high']:+.4f}: "
            f"{gap['verdict']}")


def window(numbers: Mapping[str, Any]) -> str:
    """What was measured behind the trained window, and what follows."""
    size = numbers["run"]["seq_len"]
    rows = "\n".join(
        f"| {row['from']} to {row['to'] - 1} | {row['all_in_view']:.2f} | "
        f"{row['window_in_view']:.2f} | {row['cost']['verdict']} |"
        for row in numbers["beyond_the_window"])
    return f"""It was trained on windows of {size} tokens. Bits per token of longer documents, with
all text before a token in view and with the last {size} tokens only:

| Places | all in view | {size} in view | all against {size} |
|---|---|---|---|
{rows}

`load_smalltalk` therefore gives it a window of {size}; what does not fit is refused."""


def text_read(corpus: Mapping[str, Any]) -> str:
    """The three splits, in whole projects."""
    rows = "\n".join(
        f"| {name} | {split['projects']} | {split['methods']:,} | {split['bytes'] / 1e6:.1f} MB | "
        + "; ".join(f"{licence}: {count:,}" for licence, count
                    in sorted(split["methods_by_licence"].items())) + " |"
        for name, split in ((name, corpus["splits"][name])
                            for name in ("train", "validation", "test")))
    return f"""Methods and class definitions of public repositories, each under a permissive
licence. The splits are whole projects; copies, generated code and data were dropped.

| Split | projects | methods | text | methods by licence |
|---|---|---|---|---|
{rows}

{equal_line(corpus)}"""


def writing(judgement: Result | None) -> str:
    """What was recorded of its writing, line by line."""
    if judgement is None:
        return ("How well it writes, and how much of what it writes it copies from its training "
                f"text, has not been recorded yet (`{JUDGEMENT}`).")
    from scratchbook.companions.smalltalk_judgement import lines

    numbers = judgement.numbers
    head = (f"Judged were the trained weights of step {numbers['model']['step']:,}, before they "
            "were rounded, on classes of the test projects; where no temperature is named it is "
            f"{numbers['samples']['model']['temperature']:g}.")
    found = [*lines(numbers), *copied(numbers["copied"])]
    return "\n".join([head, "", *(f"* {line}" for line in found), "",
                      f"All of it stands in `book/results/{JUDGEMENT}.json`."])


def page_rows(shipping: Mapping[str, Any], run: Mapping[str, Any],
              judgement: Mapping[str, Any] | None, tested: Result | None = None
              ) -> list[dict[str, str]]:
    """The card on the chapter's page: data, licences, size, training, figures, limits."""
    read, row = shipping["corpus"]["splits"]["train"], shipping["roundings"][shipping["chosen"]]
    licences = ", ".join(f"{name}: {count:,} methods"
                         for name, count in sorted(read["methods_by_licence"].items()))
    rows = [("learned from", f"{read['methods']:,} methods, {read['bytes'] / 1e6:.1f} MB, of "
             f"{read['projects']} projects, in one style"),
            ("licences", licences), ("held-out text in it", equal_line(shipping["corpus"])),
            ("size", f"{run['parameters']:,} weights, windows of {run['seq_len']} tokens"),
            ("training", f"{run['steps']:,} steps, {run['tokens']:,} tokens, "
             f"{run['cpu_seconds'] / 3600:.1f} hours of a processor. {drawn_line(run)}"),
            ("the file beside this page", f"rounded ({shipping['chosen']}), chosen on the "
             "validation documents; bits per character there: "
             f"{_change(row['change'])}. {rounded_on_test(tested)}")]
    if judgement:
        model = judgement["samples"]["model"]
        bits = judgement["surprise"]["bits_per_character"]["model"]
        rows += [("judged", f"the weights of step {judgement['model']['step']:,}, not rounded"),
                 ("valid, both parsers, temperature 1", "; ".join(
                     f"{name} {percent(judgement['samples'][name]['validity']['all judges'], 1)}"
                     for name in ("model", "people", "a training method, whole"))
                  + "; model, at training lengths " + percent(
                      model["validity"]["at_training_lengths"]["all judges"], 1)),
                 ("statements completed, the same tokens", ", ".join(
                     f"{name} {100 * found['exact']['value']:.1f} %"
                     for name, found in judgement["completion"]["rivals"].items())),
                 (f"bits per character, {judgement['surprise']['methods']} methods of unseen "
                  "projects behind their heads",
                  f"{bits['value']:.3f} ({bits['low']:.3f} to {bits['high']:.3f})"),
                 ("word for word from training", "; ".join(
                     f"{name} {percent(judgement['copied'][name]['word_for_word'], 1)}"
                     for name in ("model", "people")))]
    else:
        rows.append(("judged", MISSING))
    rows += [("good for", "showing how such a model is made, what it costs and where it stands"),
             ("not good for", "code that somebody relies on: nothing was run, and what a method "
              "means was not judged")]
    return [{"": name, "what": what} for name, what in rows]


def copied(found: Mapping[str, Any]) -> list[str]:
    """How much of what each writer wrote the training text has: memorisation, beside people's."""
    return [f"copied, {name}: {100 * row['word_for_word']['value']:.1f} % of {row['methods']} "
            f"methods stand in the training text word for word (95 % "
            f"{100 * row['word_for_word']['low']:.1f} to {100 * row['word_for_word']['high']:.1f})"
            f"; the longest stretch of a method that stands there is "
            f"{100 * row['share']['value']:.0f} % of it on average, at least {row['p90']:.0f} "
            "tokens in one of ten" for name, row in found.items()]


def sources(corpus: Mapping[str, Any]) -> str:
    """Every repository with its commit, licence and split."""
    return "\n".join(["| Source | commit | licence | split |", "|---|---|---|---|",
                      *(f"| {row['name']} | `{row['commit'][:12]}` | {row['licence']} | "
                        f"{row['split']} |" for row in corpus["sources"])])


if __name__ == "__main__":
    print(write_card())
