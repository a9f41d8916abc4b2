"""IA3, prefix tuning and BitFit against peft's; the bottleneck against transformers' X-MOD."""

import copy
from importlib.metadata import version

import pytest
import torch
from torch.nn.functional import cross_entropy

from scratchbook.finetuning.methods import Bottleneck, bitfit, ia3
from scratchbook.finetuning.prefix_tuning import prefix
from scratchbook.generation import generate
from scratchbook.weights import load_pretrained
from tests import tiny_models

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
PEFT, TRANSFORMERS = (f"{name} {version(name)}" for name in ("peft", "transformers"))
FAMILIES = ["gpt2", "llama", "qwen3"]
IDS = torch.randint(99, (2, 12), generator=torch.Generator().manual_seed(0))
PREFIX = 6
BOUND = 2e-6  # below 1e-6 where it was recorded; another processor rounds otherwise


def pair(name, tmp_path):
    """The same weights in transformers and here, both in eval mode."""
    theirs = tiny_models.build(name)
    theirs.save_pretrained(tmp_path)
    return theirs, load_pretrained(tmp_path)


def drawn(shape, number, mean=0.0):
    generator = torch.Generator().manual_seed(number)
    return mean + 0.2 * torch.randn(shape, generator=generator)


def step(model):
    """Logits and the gradients that one loss leaves."""
    answer = model(IDS)
    logits = getattr(answer, "logits", answer)
    cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return logits.detach()


def worst(found, wanted):
    """The largest difference of logits in units of the largest logit, and of gradients."""
    errors = [(a - b).abs().max() / b.abs().max().clamp_min(1) for a, b in zip(found, wanted,
                                                                             strict=True)]
    return max(errors).item()


@pytest.mark.parametrize("name", FAMILIES)
def test_ia3_equals_pefts(name, tmp_path, parity):
    theirs, ours = pair(name, tmp_path)
    down = "mlp.c_proj" if name == "gpt2" else "down_proj"
    keys = ["c_attn"] if name == "gpt2" else ["k_proj", "v_proj"]
    theirs = peft.get_peft_model(theirs, peft.IA3Config(
        target_modules=[*keys, down], feedforward_modules=[down],
        fan_in_fan_out=name == "gpt2")).eval()
    # peft scales all that GPT-2's c_attn gives, queries too
    ours = ia3(ours, ("q_proj", "k_proj", "v_proj", "down_proj") if name == "gpt2" else
               ("k_proj", "v_proj", "down_proj"))
    scales = [(n, p) for n, p in theirs.named_parameters() if p.requires_grad]
    for number, (_, scale) in enumerate(scales):
        scale.data = drawn(scale.shape, number, mean=1.0)
    mine = {}
    for number, block in enumerate(ours.blocks):
        find = {n: p for n, p in scales if f".{number}." in n}
        for place, scale in find.items():
            if "c_attn" in place:
                parts = [block.attention.q_proj, block.attention.k_proj, block.attention.v_proj]
            elif "k_proj" in place or "v_proj" in place:
                parts = [getattr(block.attention, place.split("self_attn.")[1].split(".")[0])]
            else:
                parts = [block.feedforward.down_proj]
            for layer, part in zip(parts, scale.data.flatten().chunk(len(parts)), strict=True):
                layer.scale.data.copy_(part)
            mine[place] = [layer.scale for layer in parts]
    logits, want = step(ours), step(theirs)
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == (
        theirs.get_nb_trainable_parameters()[0])
    found = [torch.cat([scale.grad for scale in mine[place]]) for place, _ in scales]
    wanted = [scale.grad.flatten() for _, scale in scales]
    assert min(grad.abs().max() for grad in wanted) > 1e-4  # there is something to compare
    error = worst([logits, *found], [want, *wanted])
    assert parity(f"{name}: IA3, logits and gradients", against=PEFT, error=error,
                  cases=logits.numel() + sum(g.numel() for g in found), bound=BOUND)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefix_equals_pefts(name, tmp_path, parity):
    theirs, ours = pair(name, tmp_path)
    attention = ours.blocks[0].attention
    heads, width = attention.num_kv_heads, attention.head_dim
    theirs = peft.get_peft_model(theirs, peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=PREFIX, num_attention_heads=heads,
        token_dim=heads * width)).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    table.data = drawn(table.shape, 0)
    ours = prefix(ours, PREFIX)
    # (prefix_len, layers, 2, kv_heads, head_dim)
    parts = table.data.view(PREFIX, len(ours.blocks), 2, heads, width)
    for number, block in enumerate(ours.blocks):
        block.attention.keys.data = parts[:, number, 0].transpose(0, 1).clone()
        block.attention.values.data = parts[:, number, 1].transpose(0, 1).clone()
    logits, want = step(ours), step(theirs)
    grads = table.grad.view(PREFIX, len(ours.blocks), 2, heads, width)
    found = [p.grad for block in ours.blocks for p in (block.attention.keys,
                                                       block.attention.values)]
    wanted = [grads[:, number, kind].transpose(0, 1) for number in range(len(ours.blocks))
              for kind in range(2)]
    assert sum(g.numel() for g in found) == theirs.get_nb_trainable_parameters()[0]
    assert min(grad.abs().max() for grad in wanted) > 1e-4
    error = worst([logits, *found], [want, *wanted])
    assert parity(f"{name}: prefix tuning, logits and gradients", against=PEFT, error=error,
                  cases=logits.numel() + table.numel(), bound=BOUND)
    prompt = IDS[0, :5].tolist()
    text = theirs.generate(input_ids=torch.tensor([prompt]), max_new_tokens=20, do_sample=False,
                           attention_mask=torch.ones(1, 5, dtype=torch.long), pad_token_id=0)
    wrong = sum(a != b for a, b in zip(generate(ours, prompt, 20, temperature=0),
                                       text[0, 5:].tolist(), strict=True))
    assert parity(f"{name}: prefix tuning, greedy tokens that differ", against=PEFT, error=wrong,
                  cases=20)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_bitfit_learns_what_peft_learns_by_bias_all(name, tmp_path, parity):
    theirs, ours = pair(name, tmp_path)
    target = ["q_proj"] if name == "qwen2" else ["c_attn"]
    # LoRA that starts at zero and trains all biases: BitFit, once its matrices are left out
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(
        r=1, target_modules=target, bias="all", fan_in_fan_out=name == "gpt2")).eval()
    biases = {n: p for n, p in theirs.named_parameters()
              if p.requires_grad and "lora" not in n and "ln_f" not in n}
    ours = bitfit(ours)
    mine = {n: p for n, p in ours.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in mine.values()) == sum(p.numel() for p in biases.values())
    logits, want = step(ours), step(theirs)
    names = {"ln_1": ["attention_norm"], "ln_2": ["feedforward_norm"], "attn.c_proj":
             ["attention.o_proj"], "mlp.c_fc": ["feedforward.up_proj"], "mlp.c_proj":
             ["feedforward.down_proj"], "q_proj": ["attention.q_proj"], "k_proj":
             ["attention.k_proj"], "v_proj": ["attention.v_proj"], "c_attn":
             ["attention.q_proj", "attention.k_proj", "attention.v_proj"]}
    found, wanted = [], []
    for place, bias in biases.items():
        number = next(word for word in place.split(".") if word.isdigit())
        [parts] = [parts for key, parts in names.items() if f".{key}." in place]
        found.append(torch.cat([mine[f"blocks.{number}.{part}.bias"].grad for part in parts]))
        wanted.append(bias.grad)
    error = worst([logits, *found], [want, *wanted])
    assert parity(f"{name}: BitFit, logits and gradients of biases", against=PEFT, error=error,
                  cases=logits.numel() + sum(g.numel() for g in found), bound=BOUND)


def test_a_bottleneck_equals_the_one_of_xmod(parity):
    from transformers.models.xmod.modeling_xmod import XmodAdapter

    config = transformers.XmodConfig(hidden_size=32, adapter_reduction_factor=4,
                                     hidden_act="gelu")
    theirs, ours = XmodAdapter(config), Bottleneck(32, 8, "gelu")
    for number, (a, b) in enumerate(zip(theirs.parameters(), ours.parameters(), strict=True)):
        a.data = b.data = drawn(a.shape, number)
    x = drawn((3, 7, 32), 9)
    mine, other = (copy.deepcopy(x).requires_grad_() for _ in range(2))
    got, want = ours(mine), other + theirs(other)
    for result in (got, want):
        result.square().sum().backward()
    found = [got, mine.grad, *(p.grad for p in ours.parameters())]
    wanted = [want, other.grad, *(p.grad for p in theirs.parameters())]
    assert parity("Bottleneck, with gradients", against=TRANSFORMERS, error=worst(found, wanted),
                  cases=sum(t.numel() for t in wanted), bound=1e-6)
