"""Anyone's wrapper around `nn.Linear` works everywhere: nothing reads more of a layer than its
result. Stands in for LoRA, whose matrices Muon must leave alone and whose base stays unwritten."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.fast_decoding import fast_decoding
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.training import CheckpointError, TrainConfig, open_run, train
from scratchbook.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from scratchbook.training.optim import build_optimizer

VOCAB, TIME = 19, 12
KINDS = {
    "plain": {}, "shared": {"num_kv_heads": 1}, "window": {"window": 4}, "latent":
    {"latent_dim": 6}, "alibi": {"positions": "alibi"}, "biases": {"bias": "all"},
    "qk-norm": {"qk_norm": True}, "parallel": {"layout": "parallel"}}


class Adapted(nn.Module):
    """A wrapper that shows nothing of what it holds: x W + x A B."""

    def __init__(self, inner: nn.Linear, lora_rank: int = 2):
        super().__init__()
        self.inner = inner
        self.a = nn.Parameter(0.3 * torch.randn(lora_rank, inner.in_features))
        self.b = nn.Parameter(0.3 * torch.randn(inner.out_features, lora_rank))

    def forward(self, x):
        return self.inner(x) + x @ self.a.T @ self.b.T


def plain(**changes) -> DecoderLM:
    torch.manual_seed(0)
    return DecoderLM(ModelConfig(VOCAB, max_seq_len=64, num_layers=2, d_model=16, num_heads=2,
                                 **changes))


def adapted(model: DecoderLM, freeze: bool = True) -> DecoderLM:
    torch.manual_seed(1)
    model.requires_grad_(not freeze)
    for block in model.blocks:
        for part in (block.attention, block.feedforward):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, Adapted(child))
    return model


def merged(model: DecoderLM) -> DecoderLM:
    """The same function without wrappers: A B added to the matrix."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Adapted):
                child.inner.weight.data += child.b.data @ child.a.data
                setattr(module, name, child.inner)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_model_reads_and_writes_as_its_merged_twin(kind):
    model = adapted(plain(**KINDS[kind])).eval()
    twin, ids = merged(model), torch.randint(VOCAB, (2, TIME))
    assert_close(model(ids), twin(ids), atol=1e-5, rtol=0)
    cache = model.new_cache()
    steps = torch.cat([model(part, cache=cache) for part in ids.split([5] + [1] * 7, 1)], dim=1)
    assert_close(steps, twin(ids), atol=1e-5, rtol=0)
    options = {"max_new_tokens": 20, "temperature": 0}
    assert generate(model, [1, 2, 3], **options) == generate(twin, [1, 2, 3], **options)
    with fast_decoding(model), torch.no_grad():
        assert_close(model(ids[:1, :4]), twin(ids[:1, :4]), atol=1e-5, rtol=0)


def test_fast_decoding_leaves_a_layer_with_hooks_alone():
    model, ids = plain().eval(), torch.randint(VOCAB, (1, 4))
    model.blocks[0].attention.q_proj.register_forward_hook(lambda m, x, out: out + 1)
    with torch.no_grad():
        before = model(ids)
        with fast_decoding(model):
            assert_close(model(ids), before, atol=1e-5, rtol=0)


def rules(model: nn.Module, name: str) -> dict[str, str]:
    groups = build_optimizer(model, name, lr=0.1, adamw_lr=0.01).param_groups
    found = {id(p): group["rule"] for group in groups for p in group["params"]}
    return {path: found[id(p)] for path, p in model.named_parameters() if id(p) in found}


@pytest.mark.parametrize("name", ["muon", "galore"])
def test_muon_and_galore_take_the_full_matrices_of_hidden_layers_alone(name):
    full = rules(plain(latent_dim=6), name)
    taken = {path for path, rule in full.items() if rule == name}
    assert taken == {path for path in full if path.endswith("_proj.weight")} != set()
    both = rules(adapted(plain(), freeze=False), name)
    assert {both[path] for path in both if path.endswith((".a", ".b"))} == {"adamw"}
    assert {both[path] for path in both if path.endswith("_proj.inner.weight")} == {name}
    frozen = rules(adapted(plain()), "adamw")
    assert frozen and all(path.endswith((".a", ".b")) for path in frozen)
    with pytest.raises(ValueError, match="no full matrix of a hidden layer.*use optimizer='adamw'"):
        build_optimizer(adapted(plain()), name)


class AsInPeft(nn.Module):
    """The names and the nesting of `peft.tuners.lora.Linear`: A and B are linear layers too."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})

    @property
    def weight(self):  # of the base alone, which is not what the layer multiplies with
        return self.base_layer.weight

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def test_wrappers_as_in_peft_are_told_apart_too():
    model = plain(latent_dim=6)
    for block in model.blocks:
        for name in ("q_proj", "up_proj"):
            setattr(block.attention, name, AsInPeft(getattr(block.attention, name)))
    found = rules(model, "muon")
    assert {rule for path, rule in found.items() if "lora_" in path} == {"adamw"}
    assert {rule for path, rule in found.items() if "base_layer" in path} == {"muon"}
    ids = torch.randint(VOCAB, (1, TIME))
    cache = model.eval().new_cache()
    steps = torch.cat([model(part, cache=cache) for part in ids.split(1, 1)], dim=1)
    assert_close(steps, model(ids), atol=1e-5, rtol=0)


def data() -> Windows:
    ids = torch.randint(VOCAB, (400,), generator=torch.Generator().manual_seed(0))
    return Windows(ids[:300], ids[300:], TIME)


CONFIG = TrainConfig(max_steps=6, batch_size=4, eval_every=3, checkpoint_every=3, lr=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_a_run_of_adapters_keeps_them_alone_and_goes_on(tmp_path, optimizer):
    config = replace(CONFIG, optimizer=optimizer)
    model = adapted(plain())
    train(model, data(), config, tmp_path, stop_after=3)
    file = checkpoints(tmp_path)[-1] / "model.safetensors"
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert file.stat().st_size < trained + 8000 < sum(p.nbytes for p in model.parameters())
    resumed, straight = adapted(plain()), adapted(plain())
    train(resumed, data(), config, tmp_path)
    train(straight, data(), config)
    assert all(map(torch.equal, resumed.state_dict().values(), straight.state_dict().values()))
    opened = open_run(tmp_path, "last", wrap=lambda _: adapted(plain())).model
    ids = torch.randint(VOCAB, (1, TIME))
    assert torch.equal(opened(ids), straight(ids))


def test_another_base_is_refused(tmp_path):
    train(adapted(plain()), data(), CONFIG, tmp_path)
    other = adapted(plain())
    other.lm_head.weight.data[0, 0] += 1
    with pytest.raises(CheckpointError, match="another base.*lm_head.weight"):
        open_run(tmp_path, wrap=lambda _: other)
    with pytest.raises(CheckpointError, match="give `wrap`"):
        open_run(tmp_path)


def test_buffers_are_kept_unless_they_belong_to_the_base(tmp_path):
    def counting() -> DecoderLM:
        model = adapted(plain())
        model.register_buffer("seen", torch.zeros(3))
        return model

    model, optimizer = counting(), build_optimizer(counting())
    model.seen += 5
    load_checkpoint(save_checkpoint(tmp_path, 1, model, optimizer, {}), kept := counting())
    assert torch.equal(kept.seen, model.seen)
    folder = save_checkpoint(tmp_path, 2, model, optimizer, {}, buffers=False)
    with pytest.raises(CheckpointError, match="another base.*seen"):
        load_checkpoint(folder, counting())
