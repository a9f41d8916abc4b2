"""What a review found at the edges of fine-tuning: wrapped models, files without entries, ties."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from scratchbook.compression import quantize
from scratchbook.compression.files import digest
from scratchbook.finetuning import (
    apply_adalora,
    apply_lora,
    apply_syntax_lora,
    load_adaptation,
    load_adapter,
    load_syntax_lora,
    merge,
    save_adaptation,
    save_adapter,
    save_syntax_lora,
    unwrap,
    weight_changes,
)
from scratchbook.finetuning.methods import ia3
from scratchbook.finetuning.ranks import mask_to_budget
from scratchbook.weights import load_pretrained, save_pretrained
from tests.test_finetuning_commands import base, pairs, tune  # noqa: F401  two are fixtures
from tests.test_lora import ids, moved, tiny
from tests.test_syntax_lora import GROUPS, TOKENIZER, gated
from tests.test_syntax_lora import base as reader


@pytest.mark.parametrize("wrap", [apply_lora, ia3, lambda model: quantize(model, "int8"),
                                  lambda model: merge(moved(apply_lora(model))) and model])
def test_a_wrapped_model_is_not_saved_as_a_plain_one(tmp_path, wrap):
    save_pretrained(tiny(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = wrap(tiny())
    with pytest.raises(ValueError, match="more tensors are not those of a plain model"):
        save_pretrained(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_merged_and_unwrapped_model_is_saved(tmp_path):
    model = moved(apply_lora(tiny()))
    merge(model)
    save_pretrained(unwrap(model), tmp_path)
    assert torch.equal(load_pretrained(tmp_path)(ids()), model(ids()))


def test_the_change_of_a_model_is_not_read_beside_its_adapter():
    model = moved(apply_lora(tiny()))
    with pytest.raises(ValueError, match=r"merge\(model\) first"):
        weight_changes(model, tiny())
    merge(model)
    changes = weight_changes(model, tiny())
    assert changes["blocks.0.attention.q_proj"].norm() > 0
    assert changes["blocks.0.attention.k_proj"].norm() == 0


def test_of_equally_important_directions_the_budget_keeps_as_many_as_it_says():
    model = apply_adalora(tiny(), lora_rank=4)
    kept = mask_to_budget(model, 5)
    assert sum(int(each.sum()) for each in kept.values()) == 5


def test_a_gated_adapter_is_not_saved_while_another_is_merged(tmp_path):
    model = apply_lora(gated(), name="plain")
    merge(model)
    with pytest.raises(ValueError, match=r"unmerge\(model\) first"):
        save_syntax_lora(model, tmp_path / "syntax.safetensors")


def rewritten(path, change):
    """The file with another plan or other numbers, and hashes that fit them."""
    with safe_open(path, framework="pt") as opened:
        plan = json.loads(opened.metadata()["plan"])
    tensors = load_file(path)
    change(plan, tensors)
    text = json.dumps(plan)
    save_file(tensors, path, {"plan": text, "sha256": digest(tensors, text)})
    return path


def without(entry):
    return lambda plan, tensors: plan.pop(entry)


def not_finite(plan, tensors):
    next(iter(tensors.values())).view(-1)[0] = float("nan")


@pytest.mark.parametrize(("change", "message"), [
    (without("version"), "not written by"), (without("options"), "not written by"),
    (without("base"), "not written by"), (not_finite, "not finite")])
def test_an_adaptation_that_lacks_an_entry_is_named(tmp_path, change, message):
    path = rewritten(save_adaptation(ia3(tiny()), tmp_path / "a.safetensors"), change)
    with pytest.raises(ValueError, match=message):
        load_adaptation(tiny(), path)


@pytest.mark.parametrize(("change", "message"), [
    (without("classes"), "not written by"), (without("groups"), "not written by"),
    (without("tokenizer"), "not written by"), (not_finite, "not finite")])
def test_a_gated_adapter_that_lacks_an_entry_is_named(tmp_path, change, message):
    model = apply_syntax_lora(reader(), TOKENIZER, GROUPS)
    path = rewritten(save_syntax_lora(model, tmp_path / "a.safetensors"), change)
    with pytest.raises(ValueError, match=message):
        load_syntax_lora(reader(), TOKENIZER, path)


class Twice(nn.Module):
    """A layer that stands at two places, as tied projections do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 8)
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("targets", [("first", "second"), ("first",), "all-linear"])
def test_a_layer_at_two_places_comes_back(tmp_path, targets):
    model = moved(apply_lora(Twice(), targets, lora_rank=2))
    x = torch.randn(3, 8)
    again = load_adapter(Twice(), save_adapter(model, tmp_path))
    assert torch.equal(model(x), again(x))


def test_an_older_merged_model_is_told(base, pairs, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    assert tune(base, pairs, out, "--merge") == 0
    assert "a plain model" in capsys.readouterr().out
    assert tune(base, pairs, out) == 0
    assert "of an earlier start: --merge writes it anew" in capsys.readouterr().out
