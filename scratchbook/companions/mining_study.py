"""Chapter 06e's recorded results: every head of both models, the run over its checkpoints, errors.

    python -m scratchbook.companions.mining_study heads
    python -m scratchbook.companions.mining_study errors
    python -m scratchbook.companions.mining_study planted
    python -m scratchbook.companions.mining_study evolution RUN

RUN is a run of `scratchbook smalltalk train`.

Chapter:  chapters/06e_pattern_mining.ipynb
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from scratchbook.companions import mining_controls, mining_errors, mining_heads
from scratchbook.companions.mining_controls import false_finds, untrained
from scratchbook.companions.mining_material import (
    Material,
    mined,
    python_material,
    smalltalk_material,
)
from scratchbook.companions.mining_planted import AS_LARGE, grow
from scratchbook.interpret.ablation import text_losses
from scratchbook.interpret.mining import find_heads
from scratchbook.model import DecoderLM
from scratchbook.smalltalk_model import load_smalltalk
from scratchbook.teaching.results import record

MODULE = "python -m scratchbook.companions.mining_study"
TEXTS, TIME = 24, 128
ABLATED, ABLATED_TIME = 16, 96  # texts, tokens
SEEDS = (0, 1, 2)
CHANCES = range(39)  # draws of heads that are pruned by chance
KEPT = (6, 4)        # heads of a layer that pruning leaves


def materials(texts: int = TEXTS) -> list[tuple[Material, Tensor]]:
    """Both models with texts that they have not read, and as many others as ablation needs twice.

    Shapes:   of the others (2 * ABLATED, TIME): none of them is among those that are mined
    """
    found = []
    for make in (python_material, smalltalk_material):
        material = make(texts, TIME)
        mined_rows = set(map(tuple, material.ids.tolist()))
        more = make(texts + 2 * ABLATED, TIME).ids
        found.append((material, more[[tuple(row) not in mined_rows for row in more.tolist()]]))
    return found


def of_one_model(material: Material, others: Tensor) -> dict[str, Any]:
    """Finds, groups, ablations and pruning of one model.

    Heads are found, and averages taken, on the material; a head's worth is measured on the first
    half of the other texts, and pruning judged on their second half.
    """
    motifs = material.motifs()
    table = mined(material.model, material.ids, motifs)
    finds = find_heads(table)
    ids, judged = others[:, :ABLATED_TIME].split(ABLATED)
    heads = mining_heads.every_head(material.model)
    effects = mining_heads.ablations(material, heads, ids, material.ids[:, :ABLATED_TIME])
    layers, per_layer = material.model.config.num_layers, material.model.config.num_heads
    worth: Tensor = effects["mean"].mean(1).view(layers, per_layer)
    return {
        "motifs": table.motifs, "texts": len(material.ids), "time": material.ids.shape[1],
        "excess": {name: each.round(4).tolist() for name, each in table.excess().items()},
        "finds": [mining_heads.round_find(find) for find in finds if find.significant],
        "tests": len(finds),
        "clusters": mining_heads.clusters_of(table, material),
        "halves agree": mining_controls.halves_agree(table, mining_heads.MOST,
                                                     mining_heads.FEWEST),
        "habits": mining_heads.habits(material).round(3).tolist(),
        "ablation": {how: [[round(value, 5) for value in row] for row in rows.tolist()]
                     for how, rows in effects.items()},  # for each head, text by text
        "ablated": {"texts": ABLATED, "time": ABLATED_TIME},
        "untrained": {shared: false_finds(material, motifs, SEEDS, shared)
                      for shared in mining_controls.SHARED},
        "kinds": mining_controls.last_or_every(material, finds),
        "without earlier": mining_controls.without_earlier(material, finds, judged),
        "pruning": mining_heads.pruning(material, worth, judged, KEPT, CHANCES),
    }


def errors_of(material: Material, damaged: list) -> dict[str, Any]:
    """Areas at injected errors, with one example."""
    found = mining_errors.error_areas(material, damaged)
    return found | {"example": mining_errors.spelled_error(material, damaged[0])}


def errors() -> dict[str, Any]:
    """Injected errors in both languages, and the probe for methods of Python."""
    python, smalltalk = python_material(56, TIME), smalltalk_material(8, TIME)
    return {"python": errors_of(python, mining_errors.damaged_python(python, 56)),
            "smalltalk": errors_of(smalltalk, mining_errors.damaged_smalltalk(smalltalk, 80)),
            "probe": mining_errors.method_probe(python)}


def evolution(run: Path) -> dict[str, Any]:
    """Each checkpoint of a Smalltalk run: the loss, and the highest excess of each motif."""
    places = sorted((run / "checkpoints").glob("step_*"))
    if not places:
        raise ValueError(f"{run} holds no checkpoints: name a run of `scratchbook smalltalk train`")
    material = smalltalk_material(16, TIME)
    motifs, rows = material.motifs(), []
    models = [(0, untrained(material.model, 0))]
    for step, model in models + [(int(p.name.split("_")[1]), p) for p in places]:
        model = model if isinstance(model, DecoderLM) else load_smalltalk(model)[0]
        table = mined(model, material.ids, motifs)
        loss = text_losses(model, material.ids).mean().item()
        rows.append({"step": step, "loss": loss, "excess": {
            name: each.round(4).tolist() for name, each in table.excess().items()}})
    return {"rows": rows, "texts": len(material.ids), "time": TIME}


def planted(seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """The planted task with its controls over seeds: losses and best scores by step."""
    ways = {"two layers": {}, "one layer": {"num_layers": 1}, "no repetition": {"repeated": False},
            "one layer as large": {"num_layers": 1, "d_ff": AS_LARGE}}
    found: dict[str, list] = {name: [] for name in ways}
    for seed in seeds:
        for name, way in ways.items():
            grown = grow(seed=seed, **way)
            found[name].append({"seed": seed, "steps": grown.steps, "losses": grown.losses,
                                "best": grown.best, "parameters": sum(
                                    p.numel() for p in grown.model.parameters())})
    return found


def main(arguments: list[str]) -> None:
    """Compute one part and record it.

    Raises:   ValueError for an unknown part, or `evolution` without a run
    """
    what = arguments[0] if arguments else ""
    if what == "heads":
        numbers = {material.language: of_one_model(material, others)
                   for material, others in materials()}
        record("06e_pattern_mining.heads", numbers, seeds=SEEDS, command=f"{MODULE} heads")
    elif what == "errors":
        record("06e_pattern_mining.errors", errors(), seeds=[0], command=f"{MODULE} errors")
    elif what == "planted":
        record("06e_pattern_mining.planted", planted(), seeds=SEEDS, command=f"{MODULE} planted")
    elif what == "evolution" and len(arguments) == 2:
        record("06e_pattern_mining.evolution", evolution(Path(arguments[1])), seeds=[0],
               command=f"{MODULE} evolution RUN")
    else:
        raise ValueError(f"{arguments} names no part: heads, errors, planted, or evolution RUN")


if __name__ == "__main__":
    main(sys.argv[1:])
