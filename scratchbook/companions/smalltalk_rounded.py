"""What rounding the shipped Smalltalk model costs on documents that did not choose its way.

    python -m scratchbook.companions.smalltalk_rounded RUN CORPUS    # two minutes of a processor

`smalltalk_shipping` chose among its ways on documents of the validation projects, so the loss of
the chosen one is too low there, if by little. Here run and shipped file read the test projects.

Chapter:  chapters/09_smalltalk_model.ipynb
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from scratchbook.companions.smalltalk_shipping import JUDGED, change, documents_of, read
from scratchbook.smalltalk_model import load_smalltalk


def on_test(run: Path, corpus: Path, folder: Path | None = None) -> dict[str, Any]:
    """Bits per character of the trained and of the rounded weights (of `folder`), and the change.

    Raises:   ValueError when run and folder hold models of two vocabularies
    """
    (model, tokenizer), (small, words) = load_smalltalk(run), load_smalltalk(folder)
    if tokenizer.ranks != words.ranks:
        raise ValueError(f"the tokenizers of {run} and of {folder or 'the shipped model'} differ: "
                         "name the run that the shipped model was made of")
    documents = documents_of(corpus, "test", tokenizer, model.config.max_seq_len, JUDGED)
    before, after = (read(each, tokenizer, documents) for each in (model, small))
    return {"documents": len(documents), "characters": sum(before.characters),
            "trained": before.bits_per_character, "rounded": after.bits_per_character,
            "change": change(before, after)}


if __name__ == "__main__":
    from scratchbook.teaching import record

    if len(sys.argv) != 3:
        sys.exit(__doc__)
    record("09_smalltalk.rounded", on_test(Path(sys.argv[1]), Path(sys.argv[2])), seeds=[0],
           command="python -m scratchbook.companions.smalltalk_rounded RUN CORPUS")
