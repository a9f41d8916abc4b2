"""A small Smalltalk model that knows one method by heart, and where it is kept."""

from functools import cache
from pathlib import Path

import torch

from scratchbook.compression import quantize, save_compressed
from scratchbook.model import DecoderLM
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.records import ClassRecord
from scratchbook.smalltalk_model import RECIPES, prompt_ids
from scratchbook.tokenizers.smalltalk import SmalltalkTokenizer

STACK = ClassRecord("Stack", "Object", ("items",), comment="Last in, first out.", category="Demo")
SOURCE = ("push: anObject\n\t\"Answer anObject.\"\n\n\titems isNil\n\t\tifTrue: [ items := "
          "OrderedCollection new ].\n\titems\n\t\taddLast: anObject;\n\t\tyourself.\n\t^ self foo: "
          "#at:put: with: $a with: 'é' , #(1 16r1F) max: 2.5")


@cache
def small_tokenizer() -> SmalltalkTokenizer:
    """All bytes, the special tokens, and a few pieces of one method."""
    return SmalltalkTokenizer().train([SOURCE] * 3, 256 + len(parts.SPECIAL_TOKENS) + 40)


def tiny(vocab_size: int, seed: int = 0, **changes) -> DecoderLM:
    """The small recipe's model, smaller still."""
    torch.manual_seed(seed)
    sizes = {"num_layers": 2, "d_model": 32, "num_heads": 2, "num_kv_heads": None,
             "head_dim": None, "d_ff": 80, "max_seq_len": 256, "vocab_size": vocab_size}
    return DecoderLM(RECIPES["small"].model.with_(**sizes | changes)).eval()


@cache
def by_heart() -> DecoderLM:
    """It has learned `SOURCE` behind `STACK`."""
    tokenizer = small_tokenizer()
    model = tiny(tokenizer.vocab_size, d_model=64)
    ids = [*prompt_ids(tokenizer, STACK, SOURCE), tokenizer.special_tokens[parts.END]]
    row, optimizer = torch.tensor([ids]), torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(row)[0, :-1], row[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    return model.eval()


def shipped(folder: Path, model: DecoderLM) -> Path:
    """A folder such as the one that ships."""
    small_tokenizer().save(folder / "tokenizer.json")
    copy = DecoderLM(model.config)
    copy.load_state_dict(model.state_dict())
    save_compressed(quantize(copy, "int8", group_size=16), folder / "model.safetensors")
    return folder
