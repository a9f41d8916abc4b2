"""LoRA on a model: nothing changes at first, then only A and B, and all of it can be undone."""

import copy
import doctest

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from scratchbook.accounting import total_parameters
from scratchbook.compression import QuantizedLinear, quantize, quantize_awq
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.fast_decoding import fast_decoding
from scratchbook.finetuning import (
    PRESETS,
    LoRALinear,
    apply_lora,
    linear_layers,
    lora,
    lora_layers,
    merge,
    unmerge,
    unwrap,
    use_adapter,
)
from scratchbook.finetuning.low_rank import full_matrix
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, open_run, train
from scratchbook.training.checkpoint import checkpoints
from scratchbook.training.optim import build_optimizer
from scratchbook.weights import load_pretrained, save_pretrained
from tests.random_models import random_model
from tests.tiny_models import build

VOCAB, TIME = 61, 12
KINDS = {"LoRA": {}, "rsLoRA": {"rslora": True}, "DoRA": {"dora": True}}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def tiny(**changes) -> DecoderLM:
    sizes = {"vocab_size": VOCAB, "max_seq_len": 64, "num_layers": 2, "d_model": 32,
             "num_heads": 2, "d_ff": 64}
    return random_model(ModelConfig(**sizes | changes), std=0.15)


def moved(model: nn.Module, seed: int = 1) -> nn.Module:
    """The adapters as if they had learned."""
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        for parameter in layer.adapter.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def ids(rows: int = 2) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, TIME), generator=torch.Generator().manual_seed(2))


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: full_matrix(layer).clone() for name, layer in linear_layers(model).items()}


def test_the_example_of_the_docstring_is_true():
    names = {"DecoderLM": DecoderLM, "ModelConfig": ModelConfig, "apply_lora": apply_lora}
    test, = (t for t in doctest.DocTestFinder().find(apply_lora, "apply_lora", lora, names))
    assert len(test.examples) == 2 and doctest.DocTestRunner().run(test).failed == 0


@every_kind
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear", "feedforward"])
def test_nothing_changes_before_the_first_step(options, targets):
    plain = tiny()
    model = apply_lora(copy.deepcopy(plain), targets, **options)
    assert_close(model(ids()), plain(ids()), atol=0 if "dora" not in options else 2e-5, rtol=0)
    assert not torch.equal(moved(model)(ids()), plain(ids()))


@every_kind
def test_only_the_adapters_learn_and_get_their_gradients(options):
    model = moved(apply_lora(tiny(), "all-linear", lora_rank=3, **options))
    before = weights(model)
    found = learning(model)
    assert {name.rsplit(".", 1)[1] for name in found} == {"lora_A", "lora_B"} | (
        {"magnitude"} if "dora" in options else set())
    torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = build_optimizer(model, lr=0.1)
    F.cross_entropy(model(ids()).flatten(0, 1), ids().flatten()).backward()
    assert all(p.grad is not None and p.grad.any() for p in found.values())
    optimizer.step()
    assert all(map(torch.equal, before.values(), weights(model).values()))
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in found.values()}


def test_the_update_by_hand():
    layer = LoRALinear(nn.Linear(3, 2), lora_rank=1, lora_alpha=4)
    layer.lora_A.data, layer.lora_B.data = torch.tensor([[1.0, 2, 3]]), torch.tensor([[1.0], [-1]])
    x = torch.tensor([[1.0, 0, 1]])
    expected = layer.base_layer(x) + 4 * torch.tensor([[4.0, -4.0]])  # alpha / r = 4; x A = 4
    assert_close(layer(x), expected)
    assert_close(layer.adapter.delta(), 4 * torch.tensor([[1.0, 2, 3], [-1, -2, -3]]))


def test_the_scale_is_alpha_over_the_rank_or_over_its_root():
    model = apply_lora(tiny(), **PRESETS["journey"])
    assert {layer.scaling for layer in lora_layers(model).values()} == {4.0}
    assert {layer.adapter.dropout.p for layer in lora_layers(model).values()} == {0.1}
    assert {name.split(".")[-1] for name in lora_layers(model)} == {"q_proj", "v_proj"}
    assert LoRALinear(nn.Linear(32, 32), 16, 8).scaling == 0.5
    assert LoRALinear(nn.Linear(32, 32), 16, 8, rslora=True).scaling == 2.0


def test_the_number_of_parameters_is_the_papers_formula():
    config = ModelConfig(VOCAB, num_layers=3, d_model=64, num_heads=4, num_kv_heads=2)
    model = apply_lora(DecoderLM(config), lora_rank=4)
    assert sum(p.numel() for p in learning(model).values()) == 3 * 4 * (64 + 64 + 64 + 32)
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == (
        total_parameters(config))


def test_a_rank_for_each_layer_the_first_that_fits():
    model = apply_lora(tiny(), "all-linear", lora_rank=2, ranks={
        "blocks.0.attention.q_proj": 5, "q_proj": 3, "feedforward": 0})
    found = {name: layer.adapter.lora_rank for name, layer in lora_layers(model).items()}
    assert found["blocks.0.attention.q_proj"] == 5 and found["blocks.1.attention.q_proj"] == 3
    assert found["blocks.0.attention.k_proj"] == 2 and not any("feedforward" in n for n in found)
    assert all(layer.lora_A.shape[0] == found[n] for n, layer in lora_layers(model).items())


def test_all_linear_leaves_the_head_out_and_a_target_can_name_it():
    head = apply_lora(tiny(), "lm_head")
    assert list(lora_layers(head)) == ["lm_head"]
    assert not any("lm_head" in name for name in lora_layers(apply_lora(tiny(), "all-linear")))
    gpt2 = apply_lora(build("gpt2"), "all-linear")
    assert {n.split(".")[-1] for n in lora_layers(gpt2)} == {"c_attn", "c_proj", "c_fc"}


REFUSED = {
    "an unknown target": (("q_prjo",), {}, "target 'q_prjo' names no linear layer.*q_proj.*all-"),
    "an embedding": (("token_embedding",), {}, "'token_embedding' names no linear layer"),
    "no target": ((), {}, "target '' names no linear"),
    "a rank too large": (("q_proj",), {"lora_rank": 33}, "blocks.0.attention.q_proj: lora_rank=33 "
                         "is not a whole number from 1 to 32"),
    "a rank of zero": (("q_proj",), {"lora_rank": 0}, "no layer is left"),
    "a negative rank": (("q_proj",), {"lora_rank": -1}, "lora_rank=-1 is not"),
    "half a rank": (("q_proj",), {"lora_rank": 2.5}, "lora_rank=2.5 is not"),
    "no alpha": (("q_proj",), {"lora_alpha": 0}, "lora_alpha=0 must be above 0"),
    "full dropout": (("q_proj",), {"dropout": 1.0}, "dropout=1.0 is not within"),
    "a rank for nobody": (("q_proj",), {"ranks": {"v_proj": 2}}, "ranks names 'v_proj'"),
    "a bad name": (("q_proj",), {"name": "a.b"}, "cannot be called 'a.b'"),
    "a name of torch's": (("q_proj",), {"name": "keys"}, "cannot be called 'keys'")}


@pytest.mark.parametrize(("targets", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_and_nothing_changes(targets, options, message):
    model = tiny()
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=message):
        apply_lora(model, targets, **options)
    assert dict(model.named_modules()) == before
    assert all(p.requires_grad for p in model.parameters())


def test_a_wrapped_model_is_not_wrapped_again_under_the_same_name():
    model = apply_lora(tiny())
    with pytest.raises(ValueError, match="holds an adapter called 'default' already"):
        apply_lora(model, "all-linear")
    apply_lora(model, "all-linear", name="second")
    assert all(layer.active == "second" for layer in lora_layers(model).values())
    assert all(".second." in name for name in learning(model))
    import peft

    wrapped = peft.get_peft_model(build("llama"), peft.LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="q_proj is wrapped already, as peft"):
        apply_lora(wrapped)
    with pytest.raises(ValueError, match="no linear layer inside of Linear"):
        apply_lora(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="Embedding is no linear layer"):
        LoRALinear(nn.Embedding(4, 4))


@every_kind
@pytest.mark.parametrize("family", ["ours", "gpt2", "llama 3.1", "qwen3"])
def test_a_merged_model_is_the_same_function_and_comes_back_bit_for_bit(family, options):
    model = tiny() if family == "ours" else build(family)
    run = model if family == "ours" else lambda x: model(x).logits
    before = copy.deepcopy(model.state_dict())
    apply_lora(model, "all-linear", lora_rank=4, **options)
    moved(model)
    adapted = run(ids())
    names = list(learning(model))
    lost = merge(model)
    assert lost.keys() == lora_layers(model).keys() and 0 < max(lost.values()) < 1e-6
    assert_close(run(ids()), adapted, atol=2e-5, rtol=1e-5)
    assert not learning(model)
    unmerge(model)
    assert list(learning(model)) == names
    assert torch.equal(run(ids()), adapted)
    unwrap(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_merging_loses_in_bfloat16_is_said():
    def merged(size: float) -> float:
        model = apply_lora(tiny().bfloat16())
        for layer in lora_layers(model).values():
            layer.lora_B.data.normal_(std=size)
        before = weights(model)
        lost = merge(model)
        unmerge(model)
        assert all(map(torch.equal, before.values(), weights(model).values()))
        return max(lost.values())

    assert lora_layers(apply_lora(tiny().bfloat16()))["blocks.0.attention.q_proj"
                                                      ].lora_A.dtype == torch.float32
    large, small = merged(0.1), merged(1e-4)
    assert 1e-3 < large < 0.05 < 0.3 < small  # a small change falls between two numbers


def test_the_share_that_is_lost_is_that_of_the_change():
    layer = LoRALinear(nn.Linear(8, 8, bias=False).bfloat16(), 2, 2)
    layer.lora_B.data.normal_(std=1e-2)
    before = layer.base_layer.weight.detach().double()
    exact = before + layer.lora_B.double() @ layer.lora_A.double()
    lost = layer.merge()
    error = layer.base_layer.weight.double() - exact
    assert lost == pytest.approx((error.norm() / (exact - before).norm()).item(), rel=1e-6)


def test_what_cannot_be_merged_is_refused_and_nothing_changes():
    tied = moved(apply_lora(tiny(tie_embeddings=True), ("q_proj", "lm_head")))
    before = weights(tied)
    assert tied(ids()).isfinite().all()  # beside the weight an adapter is no problem
    with pytest.raises(ValueError, match="lm_head shares its weight.*untie"):
        merge(tied)
    packed = apply_lora(quantize(tiny(), "nf4", 32, skip="blocks.0"))
    with pytest.raises(ValueError, match=r"blocks.1.*packed as nf4.*beside it"):
        merge(packed)
    broken = apply_lora(tiny())
    lora_layers(broken)["blocks.1.attention.v_proj"].lora_B.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match="blocks.1.attention.v_proj.*not finite"):
        merge(broken)
    for model in (tied, packed, broken):
        assert all(layer.kept is None for layer in lora_layers(model).values())
    assert all(map(torch.equal, before.values(), weights(tied).values()))
    with pytest.raises(ValueError, match="holds no adapter"):
        merge(tiny())
    with pytest.raises(ValueError, match="no adapter is active"):
        merge(use_adapter(apply_lora(tiny()), None))
    with pytest.raises(ValueError, match="nothing is merged"):
        unmerge(apply_lora(tiny()))
    merge(model := apply_lora(tiny()))
    for change in (merge, lambda m: apply_lora(m, name="b"), lambda m: use_adapter(m, None)):
        with pytest.raises(ValueError, match="unmerge"):
            change(model)


def test_a_cast_while_merged_moves_what_is_kept():
    model = moved(apply_lora(tiny()))
    twin = copy.deepcopy(model).bfloat16()
    merge(model)
    model.bfloat16()
    unmerge(model)
    assert torch.equal(model(ids()), twin(ids()))


def test_merged_and_unwrapped_it_is_saved_as_any_model(tmp_path):
    model = moved(apply_lora(tiny(), "all-linear"))
    adapted = model(ids())
    merge(model)
    save_pretrained(unwrap(model), tmp_path)
    assert_close(load_pretrained(tmp_path)(ids()), adapted, atol=2e-5, rtol=1e-5)


def test_a_layer_at_two_places_is_wrapped_once():
    linear = nn.Linear(8, 8)
    model = apply_lora(nn.Sequential(linear, nn.ReLU(), linear), ("0", "2"))
    assert model[0] is model[2] and isinstance(model[0], LoRALinear)
    merge(model)
    assert unwrap(model)[0] is model[2] is linear


@every_kind
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_on_a_packed_base_only_the_adapters_learn(kind, options):
    model = quantize(tiny(), kind, 32)
    plain = model(ids())
    apply_lora(model, "all-linear", **options)
    assert all(isinstance(layer.base_layer, QuantizedLinear)
               for layer in lora_layers(model).values())
    assert_close(model(ids()), plain, atol=2e-5, rtol=1e-5)
    F.cross_entropy(model(ids()).flatten(0, 1), ids().flatten()).backward()
    assert all(p.grad is not None for p in learning(model).values())
    # quantized afterwards, the base below the adapter is packed too
    after = quantize(moved(apply_lora(tiny(), **options)), kind, 32)
    kinds = {type(layer.base_layer) for layer in lora_layers(after).values()}
    assert kinds == {QuantizedLinear} and after(ids()).isfinite().all()


def test_dora_of_a_scaled_packed_layer_starts_as_the_layer():
    model = quantize_awq(tiny(), [ids(4)], "int4", 32)
    plain = model(ids())
    assert any(getattr(m, "input_scale", None) is not None for m in model.modules())
    assert_close(apply_lora(model, "all-linear", dora=True)(ids()), plain, atol=1e-4, rtol=1e-4)


@every_kind
def test_dropout_falls_on_the_adapters_path_alone(options):
    layer = LoRALinear(nn.Linear(64, 64), 8, 8, dropout=0.5, **options)
    layer.lora_B.data.normal_()
    x = torch.randn(1, 64)
    torch.manual_seed(0)
    dropped = layer.train()(x)
    torch.manual_seed(0)
    seen = F.dropout(x, 0.5)
    base, adapter = layer.base_layer, layer.adapter
    update = adapter.scaling * seen @ adapter.lora_A.T @ adapter.lora_B.T
    expected = base(x) + update
    if "dora" in options:
        ratio = adapter.magnitude / (base.weight + adapter.delta()).norm(dim=1)
        expected = base(x) + (ratio - 1) * F.linear(seen, base.weight) + ratio * update
    assert_close(dropped, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(layer.eval()(x), dropped)


@every_kind
@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 1}, {"latent_dim": 6}, {"window": 4}],
                         ids=str)
def test_it_writes_as_its_merged_twin(options, changes):
    model = moved(apply_lora(tiny(**changes), "all-linear", 4, **options))
    twin = copy.deepcopy(model)
    merge(twin)
    unwrap(twin)
    choices = {"max_new_tokens": 20, "temperature": 0}
    prompts = [[1, 2, 3], [4]]
    assert generate(model, prompts, **choices) == generate(twin, prompts, **choices)
    cache = model.new_cache()
    steps = torch.cat([model(p, cache=cache) for p in ids().split([5] + [1] * 7, 1)], dim=1)
    assert_close(steps, twin(ids()), atol=5e-5, rtol=1e-5)
    with fast_decoding(model), torch.no_grad():
        assert_close(model(ids(1)[:, :4]), twin(ids(1)[:, :4]), atol=5e-5, rtol=1e-5)


@every_kind
def test_copies_casts_and_the_compiler(options):
    model = moved(apply_lora(tiny(), **options))
    copied = copy.deepcopy(model)
    moved(model, seed=3)
    assert not torch.equal(copied(ids()), model(ids()))
    exact = model(ids())
    assert_close(torch.compile(model, backend="eager", fullgraph=True)(ids()), exact)
    assert_close(copy.deepcopy(model).double()(ids()).float(), exact, atol=2e-5, rtol=1e-5)
    assert model.bfloat16()(ids()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        out = copied(ids())
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), copied(ids()), atol=0.5, rtol=0.1)


def test_on_the_meta_device_nothing_is_allocated():
    with torch.device("meta"):
        model = apply_lora(DecoderLM(ModelConfig(VOCAB, num_layers=2, d_model=64, num_heads=4)),
                           dora=True)
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("optimizer", ["muon", "galore"])
def test_optimizers_of_full_matrices_leave_a_and_b_alone(optimizer):
    model = apply_lora(tiny())
    with pytest.raises(ValueError, match="no full matrix of a hidden layer that learns"):
        build_optimizer(model, optimizer)
    model.requires_grad_(True)  # a full fine-tuning with adapters beside
    groups = build_optimizer(model, optimizer).param_groups
    rules = {id(p): group["rule"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if ".adapters." in name:
            assert rules[id(parameter)] == "adamw"
        if name.endswith("q_proj.base_layer.weight"):
            assert rules[id(parameter)] == optimizer


def data() -> Windows:
    stream = torch.randint(VOCAB, (400,), generator=torch.Generator().manual_seed(0))
    return Windows(stream[:300], stream[300:], TIME)


@every_kind
def test_a_run_keeps_the_adapter_alone_and_goes_on_as_if_never_stopped(tmp_path, options):
    config = TrainConfig(max_steps=6, batch_size=4, eval_every=3, checkpoint_every=3, lr=0.01)

    def adapted() -> DecoderLM:
        torch.manual_seed(1)
        return apply_lora(tiny(), dropout=0.1, **options)

    train(model := adapted(), data(), config, tmp_path, stop_after=3)
    kept = checkpoints(tmp_path)[-1] / "model.safetensors"
    own = sum(p.nbytes for p in learning(model).values())
    assert own < kept.stat().st_size < own + 4000 < sum(p.nbytes for p in model.parameters()) / 3
    train(resumed := adapted(), data(), config, tmp_path)
    result = train(straight := adapted(), data(), config)
    assert all(map(torch.equal, resumed.state_dict().values(), straight.state_dict().values()))
    assert result.evaluations[-1][1] < result.losses[0]
    opened = open_run(tmp_path, "last", wrap=lambda _: adapted()).model
    assert torch.equal(opened.eval()(ids()), straight.eval()(ids()))
