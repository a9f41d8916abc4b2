"""Lines of chapters 07 and 08 that were broken once without any test noticing."""

import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from scratchbook.compression.distillation import Teacher, agreement
from scratchbook.compression.gptq import gptq, quantize_gptq
from scratchbook.compression.pruning import magnitude_scores, prune_channels, prune_heads
from scratchbook.compression.quantize import Scheme, dequantize_scales, pack, quantize_scales
from scratchbook.data.batches import Batch
from scratchbook.finetuning import (
    LoRALinear,
    apply_lora,
    load_adapter,
    lora_layers,
    merge,
    mixed,
    save_adapter,
    unmerge,
)
from scratchbook.finetuning.data import (
    Example,
    FineTuningData,
    encode_example,
    load_examples,
    parts_of,
)
from scratchbook.finetuning.low_rank import DoRA
from scratchbook.finetuning.methods import bottleneck
from scratchbook.tokenizers import CharTokenizer
from tests.test_compression_pruning import build
from tests.test_lora import ids, moved, tiny


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# codes


def test_scales_far_from_zero_lose_nothing_by_that():
    """Their codes are of the difference from the mean, which an offset leaves as it is."""
    near = normal(4, 64)
    codes, absmax, mean = quantize_scales(near + 100)
    assert mean.item() == pytest.approx(100 + near.mean().item(), abs=1e-5)
    assert absmax.item() == pytest.approx((near - near.mean()).abs().max().item(), abs=1e-4)
    gap = (dequantize_scales(codes, absmax, mean) - near - 100).abs().max()
    assert gap < absmax / 32  # half a step, where the map is coarsest: 1/128 of absmax


def test_an_input_that_is_always_zero_needs_no_damping():
    x, weight = normal(64, 8), normal(5, 8, seed=1)
    x[:, 3] = weight[:, 3] = 0
    seen = [i for i in range(8) if i != 3]
    products = x.T @ x / len(x)
    codes, scales, _ = gptq(weight, products, Scheme("int8", "channel"), damping=0)
    alone, same, _ = gptq(weight[:, seen], products[seen][:, seen], Scheme("int8", "channel"),
                          damping=0)
    assert torch.equal(codes[:, seen], alone) and not codes[:, 3].any()
    assert torch.equal(scales, same)


def test_gptq_calibrates_each_block_behind_those_that_are_rounded():
    x, first, second = normal(64, 32), normal(32, 32, seed=1), normal(32, 32, seed=2)
    first[:, 0] = 20.0  # so that all other columns are rounded coarsely
    model = nn.Sequential(OrderedDict(blocks=nn.Sequential(*(
        nn.Sequential(nn.Linear(32, 32, bias=False)) for _ in range(2)))))
    model.blocks[0][0].weight.data, model.blocks[1][0].weight.data = first, second
    quantize_gptq(model, [x], "int4", "channel")
    behind = x @ model.blocks[0][0].dequantize().T
    want, without = (pack(gptq(second, y.T @ y / len(y), Scheme("int4", "channel"))[0])
                     for y in (behind, x @ first.T))
    assert torch.equal(model.blocks[1][0].packed.codes, want)
    assert not torch.equal(want, without)


# pruning


@pytest.mark.parametrize(("cut", "layer", "width", "size"), [
    (prune_heads, "attention.o_proj", 8, 1), (prune_channels, "feedforward.down_proj", 1, 1)])
def test_one_large_score_outweighs_a_larger_sum_of_small_ones(cut, layer, width, size):
    model = build()
    scores = {name: torch.zeros_like(table) for name, table in magnitude_scores(model).items()}
    for name in scores:
        if name.endswith(layer):
            scores[name][:4, 0] = 2.0                     # the norm is 4, the sum 8
            scores[name][0, width] = 5.0                  # the norm is 5, and so is the sum
    kept = cut(model, scores, size)
    assert [heads.tolist() for heads in kept] == [[1]] * 3


# students


def test_a_teacher_that_keeps_answers_obeys_every_mask():
    model, asked = tiny(), ids()
    teacher, length = Teacher(model, cache_bytes=1 << 20), asked.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    alone = torch.eye(length, dtype=torch.bool)[None, None]
    model.eval()
    for mask in (causal, alone):
        assert torch.equal(teacher(asked, mask=mask), model(asked, mask=mask))
    assert_close(teacher(asked), model(asked), atol=1e-5, rtol=0)
    assert torch.equal(teacher(asked, mask=alone), model(asked, mask=alone))


class HalfCounts:
    """Held-out text of which every other target counts."""

    def validation(self, size):
        targets = torch.where(torch.arange(ids().shape[1]) % 2 == 0, ids(), -100)
        yield Batch(ids(), targets)


def test_two_models_are_compared_where_targets_count():
    one, other = tiny().eval(), tiny().eval()
    other.lm_head.weight.data += 0.3 * normal(*other.lm_head.weight.shape)
    found = agreement(one, other, HalfCounts())
    ours, theirs = (model(ids())[:, ::2].log_softmax(-1) for model in (one, other))
    want = F.kl_div(ours.flatten(0, 1), theirs.flatten(0, 1), reduction="batchmean",
                    log_target=True)
    assert want > 1e-3 and found["kl"] == pytest.approx(want.item(), rel=1e-4)
    assert found["agreement"] == pytest.approx((ours.argmax(-1) == theirs.argmax(-1)).float()
                                               .mean().item())


# adapters


def test_the_length_that_dora_divides_by_is_a_constant_for_its_gradient():
    layer, x = nn.Linear(6, 5, bias=False), normal(7, 6)
    layer.weight.data = normal(5, 6, seed=2)
    adapter = DoRA(layer, lora_rank=2, lora_alpha=2)
    adapter.lora_B.data = normal(5, 2, seed=1)
    adapter(x, layer(x), layer).square().sum().backward()
    a, b = (p.detach().clone().requires_grad_() for p in (adapter.lora_A, adapter.lora_B))
    turned = layer.weight.detach() + b @ a
    constant = turned.norm(dim=1).detach()
    wanted = x @ (turned * (adapter.magnitude.detach() / constant)[:, None]).T
    wanted.square().sum().backward()
    assert_close(adapter.lora_A.grad, a.grad, atol=1e-4, rtol=1e-5)
    assert_close(adapter.lora_B.grad, b.grad, atol=1e-4, rtol=1e-5)


def test_what_a_merged_layer_keeps_is_cast_with_it():
    model = moved(apply_lora(tiny()))
    before = {path: layer.base_layer.weight.clone() for path, layer in lora_layers(model).items()}
    merge(model)
    model.double()
    assert {layer.kept.dtype for layer in lora_layers(model).values()} == {torch.float64}
    unmerge(model)
    for path, layer in lora_layers(model).items():
        assert torch.equal(layer.base_layer.weight, before[path].double())


@pytest.mark.parametrize("training", [True, False])
def test_an_adapter_drops_out_where_its_model_is_in_training_mode(training):
    model = moved(apply_lora(tiny().train(training), dropout=0.5))
    assert torch.equal(model(ids()), model(ids())) is not training
    layer = LoRALinear(nn.Linear(4, 4), 0).train(training)
    layer.add("one", DoRA(layer.base_layer, 2, dropout=0.5))
    assert layer.adapters["one"].dropout.training is training


def test_rows_are_those_of_the_outer_block_again_behind_an_inner_one():
    model = moved(apply_lora(tiny()))
    alone = model(ids())
    with mixed(model, [None, "default"]):
        outer = model(ids())
        with mixed(model, ["default", None]):
            inner = model(ids())
        assert torch.equal(model(ids()), outer)
    assert torch.equal(model(ids()), alone)
    assert not torch.equal(inner, outer) and not torch.equal(outer, alone)


def test_vectors_beside_attention_weights_go_through_the_bottleneck_too():
    model, x = bottleneck(tiny(), 4), normal(2, 5, 32)
    part = model.blocks[0].attention
    part.adapter.up.weight.data = normal(32, 4)
    changed, weights = part(x, return_weights=True)
    plain, same = part.base(x, return_weights=True)
    assert torch.equal(weights, same) and torch.equal(changed, part.adapter(plain))
    assert (changed - plain).abs().max() > 1e-3


def test_no_two_bottlenecks_begin_alike():
    drawn = [part.adapter.down.weight for block in bottleneck(tiny(), 4).blocks
             for part in (block.attention, block.feedforward)]
    assert len(drawn) == 4
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    again = bottleneck(tiny(), 4).blocks[1].attention.adapter.down.weight
    assert torch.equal(drawn[2], again)


# adapters' files


def edited(folder, **entries):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


@pytest.mark.parametrize(("piece", "fits"), [
    ("proj", False), ("j", False), ("tion.q_proj", False), ("q_proj", True),
    ("attention.q_proj", True), ("blocks.0.attention.q_proj|blocks.1.attention.q_proj", True)])
def test_a_pattern_fits_whole_names_at_the_end_of_a_path(tmp_path, piece, fits):
    model = moved(apply_lora(tiny(), "q_proj", lora_rank=4, lora_alpha=8))
    save_adapter(model, tmp_path)
    loaded = load_adapter(tiny(), edited(tmp_path, alpha_pattern={piece: 24}))
    assert {layer.scaling for layer in lora_layers(loaded).values()} == {6.0 if fits else 2.0}


@pytest.mark.parametrize("entries", [{"layers_to_transform": [0]},
                                     {"exclude_modules": ["blocks.1.attention.q_proj"]}])
def test_a_config_may_choose_more_layers_and_leave_some_out(tmp_path, entries):
    model = moved(apply_lora(tiny(), "blocks.0.attention.q_proj"))
    save_adapter(model, tmp_path)
    edited(tmp_path, target_modules=["q_proj"])
    with pytest.raises(ValueError, match=r"differ on blocks\.1"):
        load_adapter(tiny(), tmp_path)
    loaded = load_adapter(tiny(), edited(tmp_path, **entries))
    assert torch.equal(loaded(ids()), model(ids()))
    with pytest.raises(ValueError, match=r"differ on blocks\.0"):  # never more than it chooses
        load_adapter(tiny(), edited(tmp_path, target_modules=["k_proj"]))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_an_adapter_of_no_numbers_is_not_loaded(tmp_path, number, part):
    model = moved(apply_lora(tiny()))
    file = save_adapter(model, tmp_path) / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[f"base_model.model.blocks.1.attention.v_proj.{part}.weight"][0, 1] = number
    save_file(tensors, file)
    fresh = tiny()
    with pytest.raises(ValueError, match=r"blocks\.1\.attention\.v_proj.*not finite"):
        load_adapter(fresh, tmp_path)
    assert not lora_layers(fresh)


# examples


def test_a_special_token_that_is_spelled_out_is_plain_text():
    end = "<|endoftext|>"
    tokenizer = CharTokenizer().train("ab<|endoftx>", special_tokens=[end])
    example = encode_example(parts_of({"prompt": f"a{end}", "completion": f"{end}b"}), tokenizer)
    special = tokenizer.special_tokens[end]
    assert len(example.ids) == 2 * (len(end) + 1) + 1
    assert [token == special for token in example.ids] == [False] * (len(example.ids) - 1) + [True]
    assert tokenizer.decode(example.ids[:-1]) == f"a{end}{end}b"


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_a_line_ends_where_json_lines_do_and_nowhere_else(tmp_path, mark):
    path = tmp_path / "examples.jsonl"
    lines = [{"prompt": "a", "completion": "b"}, {"prompt": f"c{mark}", "completion": "d"}]
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text(text, encoding="utf-8", newline="\n")
    assert [parts[0].text for parts in load_examples(path)] == ["a", f"c{mark}"]


def whole(*lengths):
    numbers = iter(range(100))
    return [Example([next(numbers) for _ in range(length)], [True] * length)
            for length in lengths]


def test_the_same_ids_in_other_examples_have_another_fingerprint():
    held = whole(2)
    prints = {FineTuningData(whole(*lengths), held).fingerprint()
              for lengths in ((2, 3), (3, 2), (5,))}
    prints.add(FineTuningData(held, whole(3, 2)).fingerprint())
    prints.add(FineTuningData(held, whole(2, 3)).fingerprint())
    assert len(prints) == 5
    assert FineTuningData(whole(2, 3), held).fingerprint() in prints


@pytest.mark.parametrize(("epochs", "size", "steps"), [
    (1, 4, 3), (1, 3, 3), (1, 9, 1), (2, 4, 5), (0.5, 4, 2), (0.01, 4, 1)])
def test_epochs_end_with_the_step_that_reads_their_last_example(epochs, size, steps):
    assert FineTuningData(whole(*[2] * 9), whole(2)).steps(epochs, size) == steps
