"""The corpus of chapter 09, prepared once from all its repositories: what its tables show.

    scratchbook smalltalk collect --output smalltalk
    python -m scratchbook.companions.smalltalk_funnel smalltalk corpus

prepares it into the folder `corpus`, and records the account without any text of the repositories.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from scratchbook.data.smalltalk_corpus import Parts, prepare, save_corpus
from scratchbook.smalltalk.collecting import load_manifest
from scratchbook.smalltalk.records import MethodRecord

LEFT_OUT = ("examples", "not_collected", "not_read")  # other people's text, this machine's paths


def account(collected: str, output: str) -> dict[str, Any]:
    """Prepare the corpus, save it, and return what the chapter shows of it."""
    start = time.process_time()
    parts, classes, funnel = prepare(load_manifest(collected), say=print)
    funnel.facts["cpu_seconds"] = time.process_time() - start
    save_corpus(output, parts, classes, funnel)
    numbers = {name: value for name, value in funnel.as_dict().items() if name not in LEFT_OUT}
    numbers["sources"] = [{name: value for name, value in source.items() if name != "error"}
                          for source in funnel.facts["sources"] if not source["error"]]
    return {**numbers, "unread": unread(funnel.facts), "other_judge": other_judge(sampled(parts))}


def unread(facts: dict[str, Any]) -> dict[str, int]:
    """How many sources were not collected, and how many files or parts were not read."""
    return {"sources": len(facts["not_collected"]),
            "files": sum(found["count"] for found in facts["not_read"].values())}


def sampled(parts: Parts, count: int = 1_000, seed: int = 0) -> list[MethodRecord]:
    """Methods drawn from all splits together."""
    every = [record for records in parts.values() for record in records]
    return random.Random(seed).sample(every, min(count, len(every)))


def other_judge(records: Sequence[MethodRecord]) -> dict[str, Any]:
    """How many of these methods a grammar that nobody here wrote refuses: tree-sitter's."""
    import tree_sitter
    import tree_sitter_pharo

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_pharo.language()))
    refused = sum(parser.parse(record.source.encode("utf-8")).root_node.has_error
                  for record in records)
    return {"name": f"pharo-tree-sitter {metadata.version('pharo-tree-sitter')}",
            "methods": len(records), "refused": refused}


if __name__ == "__main__":
    from scratchbook.teaching import record

    if len(sys.argv) != 3:
        sys.exit(__doc__)
    record("09_smalltalk.corpus", account(*sys.argv[1:]), seeds=[0],
           command="python -m scratchbook.companions.smalltalk_funnel smalltalk corpus")
