"""LoRA, rsLoRA and DoRA against peft's: outputs, gradients, and files in both directions."""

import copy
import json
import warnings
from importlib.metadata import version

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scratchbook.config import ModelConfig
from scratchbook.finetuning import (
    apply_lora,
    load_adapter,
    lora_layers,
    merge,
    save_adapter,
)
from tests.random_models import random_model
from tests.tiny_models import build

PEFT = f"peft {version('peft')}"
KINDS = {"LoRA": {}, "rsLoRA": {"rslora": True}, "DoRA": {"dora": True}}
SIZES = {"vocab_size": 99, "max_seq_len": 64, "num_layers": 2, "d_model": 32, "num_heads": 4,
         "d_ff": 48}
TARGETS = {"ours": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"],
           "llama": ["q_proj", "v_proj"], "qwen3": ["q_proj", "k_proj", "gate_proj"]}
BOUNDS = {"LoRA": 1e-6, "rsLoRA": 1e-6, "DoRA": 1e-13}
RANKS = {"gpt2": {"c_fc": 5}}
every_kind = pytest.mark.parametrize("kind", KINDS)
IDS = torch.randint(99, (2, 9), generator=torch.Generator().manual_seed(0))


def base(family: str, kind: str = "LoRA") -> nn.Module:
    """DoRA's norms add up in another order than peft's, so it is compared in float64."""
    model = random_model(ModelConfig(**SIZES), std=0.15) if family == "ours" else build(family)
    return model.double() if kind == "DoRA" else model


def logits(model: nn.Module) -> torch.Tensor:
    out = model(IDS)
    return out if isinstance(out, torch.Tensor) else out.logits


def learned(model: nn.Module) -> nn.Module:
    """Adapters that have moved from where they started."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "magnitude" in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def theirs(family: str, kind: str) -> nn.Module:
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[family],
                             use_rslora=kind == "rsLoRA", use_dora=kind == "DoRA",
                             rank_pattern=RANKS.get(family, {"q_proj": 3}),
                             fan_in_fan_out=family == "gpt2")
    torch.manual_seed(0)
    return learned(peft.get_peft_model(base(family, kind), config)).eval()


def reopened(folder, family: str, kind: str = "LoRA") -> nn.Module:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return peft.PeftModel.from_pretrained(base(family, kind), folder,
                                              is_trainable=True).eval()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    F.cross_entropy(logits(model).flatten(0, 1), IDS.flatten()).backward()
    clean = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            for old, new in (("base_model.model.", ""), (".adapters.default", ""), (".default", ""),
                             (".weight", ""), ("lora_magnitude_vector", "magnitude")):
                name = name.replace(old, new)
            clean[name] = parameter.grad
    return clean


def difference(ours: nn.Module, reference: nn.Module) -> float:
    """The largest of all outputs and gradients."""
    error = (logits(ours) - logits(reference)).abs().max().item()
    first, second = gradients(ours), gradients(reference)
    assert first.keys() == second.keys() and first
    return max(error, *((first[name] - second[name]).abs().max().item() for name in first))


@every_kind
def test_pefts_adapters_load_here_with_the_same_outputs_and_gradients(parity, tmp_path, kind):
    errors = []
    for family in TARGETS:
        reference = theirs(family, kind)
        reference.save_pretrained(tmp_path / family)
        ours = load_adapter(base(family, kind), tmp_path / family, trainable=True)
        errors.append(difference(ours, reference))
    assert parity(f"{kind} from peft's file: outputs and gradients of {', '.join(TARGETS)}",
                  against=PEFT, error=max(errors), cases=len(errors), bound=BOUNDS[kind])


@every_kind
def test_our_adapters_load_in_peft_with_the_same_outputs_and_gradients(parity, tmp_path, kind):
    errors = []
    for family in TARGETS:
        ours = learned(apply_lora(base(family, kind), TARGETS[family], lora_rank=4, lora_alpha=6,
                                  ranks=RANKS.get(family, {"q_proj": 3}),
                                  rslora=kind == "rsLoRA", dora=kind == "DoRA"))
        save_adapter(ours, tmp_path / family)
        errors.append(difference(ours, reopened(tmp_path / family, family, kind)))
    assert parity(f"{kind} to peft's file: outputs and gradients of {', '.join(TARGETS)}",
                  against=PEFT, error=max(errors), cases=len(errors), bound=BOUNDS[kind])


@every_kind
def test_merged_weights_equal_pefts(parity, tmp_path, kind):
    errors = []
    for family in TARGETS:
        reference = theirs(family, kind)
        reference.save_pretrained(tmp_path / family)
        ours = load_adapter(base(family, kind), tmp_path / family)
        merge(ours)
        merged = reference.merge_and_unload().state_dict()
        errors += [(layer.base_layer.weight - merged[f"{path}.weight"]).abs().max().item()
                   for path, layer in lora_layers(ours).items()]
    assert parity(f"{kind}, merged weights", against=PEFT, error=max(errors), cases=len(errors),
                  bound=BOUNDS[kind])


@every_kind
def test_a_file_of_theirs_and_one_of_ours_hold_the_same(tmp_path, kind):
    from safetensors.torch import load_file

    theirs("llama", kind).save_pretrained(tmp_path / "theirs")
    save_adapter(load_adapter(base("llama", kind), tmp_path / "theirs"), tmp_path / "ours")
    first, second = (load_file(tmp_path / who / "adapter_model.safetensors")
                     for who in ("theirs", "ours"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    first, second = (json.loads((tmp_path / who / "adapter_config.json").read_text())
                     for who in ("theirs", "ours"))
    chosen = ("peft_type", "lora_alpha", "use_rslora", "use_dora", "bias", "fan_in_fan_out")
    assert {entry: first[entry] for entry in chosen} == {entry: second[entry] for entry in chosen}
    assert sorted(first["target_modules"]) == second["target_modules"]


def test_names_of_all_linear_layers_are_those_that_peft_chooses():
    import peft

    for family in ("gpt2", "llama", "qwen3"):
        wrapped = peft.get_peft_model(base(family), peft.LoraConfig(target_modules="all-linear"))
        chosen = {name.removeprefix("base_model.model.") for name, module
                  in wrapped.named_modules() if hasattr(module, "base_layer")}
        assert lora_layers(apply_lora(base(family), "all-linear")).keys() == chosen


def test_two_adapters_of_one_base_are_told_apart(tmp_path):
    model = base("llama")
    plain = copy.deepcopy(model)
    for name in ("first", "second"):
        torch.manual_seed(len(name))
        save_adapter(learned(apply_lora(model, name=name)), tmp_path / name, name)
    outputs = [logits(reopened(tmp_path / name, "llama")) for name in ("first", "second")]
    assert not torch.allclose(*outputs) and not torch.allclose(outputs[0], logits(plain))


def test_adaloras_importances_and_masks_equal_pefts(parity):
    """Forty steps of the same model under both, each with its own budget."""
    import peft

    from scratchbook.finetuning import RankBudget, apply_adalora, orthogonality
    from scratchbook.finetuning.ranks import mask_to_budget

    config = peft.AdaLoraConfig(
        init_r=6, target_r=2, tinit=5, tfinal=10, deltaT=2, total_step=40, lora_alpha=6,
        target_modules=["q_proj", "v_proj"], orth_reg_weight=0.1)
    torch.manual_seed(0)
    reference = peft.get_peft_model(base("llama").double(), config)
    ours = apply_adalora(base("llama").double(), lora_rank=6, lora_alpha=6)
    pairs = []
    for path, layer in lora_layers(ours).items():
        module = reference.base_model.model.get_submodule(path)
        layer.adapter.scaling = 6 / (torch.tensor(6.0) + 1e-5).item()  # peft's guard against 0
        for part in ("lora_A", "lora_E", "lora_B"):
            parameter = getattr(module, part)["default"]
            parameter.data = parameter.data.double()
            getattr(layer.adapter, part).data.copy_(parameter.data)
            pairs.append((getattr(layer.adapter, part), parameter))
    budget = RankBudget(ours, 2, total_steps=40, warmup=5, final_steps=10, every=2, penalty=0)
    errors = []
    for step in range(1, 41):
        ids = torch.randint(99, (4, 9), generator=torch.Generator().manual_seed(step))
        out = reference.base_model(ids, labels=ids)  # the outer forward leaves the penalty out
        out.loss.backward()
        loss = F.cross_entropy(ours(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        penalty = orthogonality(ours)
        (loss + 0.1 * penalty).backward()
        errors.append(abs((loss + 0.1 * penalty - out.loss).item()))
        for pair in pairs:
            for parameter in pair:
                parameter.data -= 0.5 * parameter.grad
        reference.base_model.update_and_allocate(step)
        budget(step, ours)
        errors += [(a - b).abs().max().item() for a, b in pairs]
        for parameter in (p for pair in pairs for p in pair):
            parameter.grad = None
    masks = torch.cat([a[:, 0] != 0 for a, _ in pairs[1::3]])
    assert int(masks.sum()) == 2 * len(pairs) // 3
    assert torch.equal(masks, torch.cat(list(mask_to_budget(ours, int(masks.sum())).values())))
    assert parity("AdaLoRA: penalty, weights and masks of 40 steps", against=PEFT,
                  error=max(errors), cases=len(errors), bound=1e-6)
