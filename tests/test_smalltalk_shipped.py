"""The Smalltalk model that ships: whole, small enough, and as its card says."""

import math

import pytest
import torch

from scratchbook.companions import smalltalk_card, smalltalk_shipping
from scratchbook.compression import load_compressed
from scratchbook.compression.measuring import disk_bytes
from scratchbook.runtime import data_dir
from scratchbook.smalltalk.readers import Origin, read_tonel
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk.viable import is_method
from scratchbook.smalltalk_model import (
    RECIPES,
    WEIGHTS,
    load_smalltalk,
    model_folder,
    write_method,
)
from scratchbook.teaching.results import load_result

ACCOUNT = ClassRecord("Account", "Object", ("owner", "balance"), category="Bank")


@pytest.fixture(scope="module")
def shipped():
    return load_smalltalk()


def test_it_is_the_small_recipe_in_float32_with_the_window_it_learned(shipped):
    model, tokenizer = shipped
    assert {p.dtype for p in model.parameters()} == {torch.float32} and not model.training
    wanted = RECIPES["small"].with_vocabulary(tokenizer.vocab_size)
    assert model.config == wanted.model.with_(max_seq_len=wanted.data.seq_len)


def test_folder_and_record_belong_together(shipped):
    numbers = load_result("09_smalltalk.shipping").numbers
    size = disk_bytes(model_folder())
    assert size <= numbers["limit_bytes"] == 6_000_000
    row = numbers["roundings"][numbers["chosen"]]
    assert (model_folder() / WEIGHTS).stat().st_size == row["bytes"]
    assert sum(p.numel() for p in shipped[0].parameters()) == numbers["parameters"]
    card = (model_folder() / "README.md").read_text(encoding="utf-8")
    assert card == smalltalk_card.card(load_result("09_smalltalk.shipping"),
                                       *smalltalk_card.others()), (
        "write it again: python -m scratchbook.companions.smalltalk_card")


def test_it_computes_what_the_file_computes(shipped):
    model, tokenizer = shipped
    packed = load_compressed(model_folder() / WEIGHTS)
    ids = torch.tensor([tokenizer.encode_ordinary("at: index put: value\n\t^ array at: index")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), packed(ids), rtol=0, atol=1e-3)


def test_it_reads_a_library_that_it_never_saw(shipped):
    """Far fewer bits than an even choice among its tokens; shuffled tokens cost more."""
    sources = library()
    ids = [[shipped[1].special_tokens["<|method|>"], *shipped[1].encode_ordinary(source)]
           for source in sources]
    reading = smalltalk_shipping.read(*shipped, [each[:257] for each in ids])
    shuffled = [[each[0], *torch.tensor(each[1:])[torch.randperm(
        len(each) - 1, generator=torch.Generator().manual_seed(0))].tolist()][:257] for each in ids]
    even = math.log2(shipped[1].vocab_size) * sum(len(each) - 1 for each in ids)
    assert sum(reading.bits) < 0.5 * even
    assert sum(smalltalk_shipping.read(*shipped, shuffled).bits) > 1.5 * sum(reading.bits)


def library():
    folder = data_dir() / "smalltalk"
    found = []
    for path in sorted(folder.rglob("*.class.st"))[:40]:
        found += [each.source for each in read_tonel(path.read_text(encoding="utf-8"),
                                                        Origin(path.name))
                  if isinstance(each, MethodRecord)]
    assert len(found) > 100
    return found[:150]


@pytest.mark.parametrize("begun", ["balance\n\t", "deposit: anAmount\n\t", "owner: aPers", ""])
def test_what_it_writes_within_the_rule_is_a_method(shipped, begun):
    found = write_method(*shipped, ACCOUNT, begun, seed=0, constrained=True, max_new_tokens=60)
    assert found.startswith(begun) and (found == "" or is_method(found))


def test_it_knows_an_accessor(shipped):
    found = write_method(*shipped, ACCOUNT, "balance\n\t", temperature=0)
    assert found.endswith("^ balance")
