"""IA3, prefixes, bottlenecks and BitFit on our decoders: counts, starts, gradients, files."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from scratchbook.attention import padding_mask
from scratchbook.compression import quantize
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.finetuning import apply_lora
from scratchbook.finetuning.budget import METHODS, Budget, equal_budget, trainable_count
from scratchbook.finetuning.method_files import load_adaptation, save_adaptation
from scratchbook.finetuning.methods import bitfit, bottleneck, ia3, merge_ia3
from scratchbook.finetuning.prefix_tuning import prefix
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.training import TrainConfig, train
from tests.random_models import random_model

VOCAB = 23
SIZES = ModelConfig(VOCAB, max_seq_len=64, num_layers=3, d_model=16, num_heads=4, num_kv_heads=2,
                    d_ff=24)
WIDE = ModelConfig(VOCAB, max_seq_len=64, num_layers=2, d_model=64, num_heads=2, d_ff=64)
KINDS = {
    "plain": {}, "gpt2": {"norm": "layer", "positions": "learned", "bias": "all",
                          "feedforward": "gelu_tanh", "tie_embeddings": True},
    "sinusoidal": {"positions": "sinusoidal"}, "alibi": {"positions": "alibi"},
    "qk-norm": {"qk_norm": True}, "parallel": {"layout": "parallel"}, "post": {"layout": "post"},
    "sandwich": {"layout": "sandwich"}, "qkv": {"bias": "qkv"}}
OPTIONS = {"ia3": {}, "prefix": {"prefix_len": 5}, "bottleneck": {"size": 3},
           "bitfit": {"add_biases": True}}
IDS = torch.randint(VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))


def base(kind="plain", seed=0, **changes):
    return random_model(SIZES.with_(**KINDS[kind] | changes), seed)


def learned(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count(model):
    return sum(p.numel() for p in learned(model).values())


def trained(method, kind="plain", seed=0, **options):
    """An adapted model, as far from its base as training would bring it."""
    model = METHODS[method](base(kind), **options or OPTIONS[method])
    generator = torch.Generator().manual_seed(seed)
    for parameter in learned(model).values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_what_learns_is_what_the_formula_says_and_nothing_else(method, kind):
    plain, options = base(kind), OPTIONS[method]
    want = trainable_count(method, plain, **options)
    model = METHODS[method](copy.deepcopy(plain), **options)
    assert count(model) == want
    cross_entropy(model(IDS).flatten(0, 1), IDS.flatten()).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == learned(model).keys()
    frozen = [(n, p) for n, p in model.named_parameters() if not p.requires_grad]
    assert len(frozen) >= len(list(plain.parameters())) - len(learned(model))


def test_counts_worked_by_hand():
    d, layers, narrow, ff = 16, 3, 8, 24
    model = base()
    assert trainable_count("ia3", model) == layers * (narrow + narrow + ff)
    assert trainable_count("prefix", model, prefix_len=7) == 2 * layers * 7 * narrow
    for places, number in (("houlsby", 2), ("pfeiffer", 1)):
        assert trainable_count("bottleneck", model, size=4, places=places) == (
            layers * number * (2 * d * 4 + 4 + d))
    assert trainable_count("bitfit", model, add_biases=True) == layers * (
        d + narrow + narrow + d + ff + ff + d)
    norms = 2 * d
    assert trainable_count("bitfit", base("gpt2")) == layers * (
        d + narrow + narrow + d + ff + d + norms)
    with torch.device("meta"):
        llama = DecoderLM(ModelConfig(128_256, num_layers=2, d_model=4096, num_heads=32,
                                      num_kv_heads=8, d_ff=14_336))
    assert trainable_count("ia3", llama) == 2 * (1024 + 1024 + 14_336)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ia3", "bottleneck", "bitfit"])
def test_at_first_they_change_nothing(method, kind):
    plain = base(kind)
    model = METHODS[method](copy.deepcopy(plain), **OPTIONS[method])
    assert torch.equal(model(IDS), plain(IDS))
    after = trained(method, kind)
    assert (after(IDS) - plain(IDS)).abs().max() > 1e-2  # and then they do


def test_adapting_draws_nothing_from_torchs_generator():
    plain = base()
    for method, options in OPTIONS.items():
        torch.manual_seed(3)
        METHODS[method](copy.deepcopy(plain), **options)
        assert torch.initial_seed() == 3
        first = torch.rand(1)
        torch.manual_seed(3)
        assert torch.equal(first, torch.rand(1)), method


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_from_a_prompt_is_the_base_that_has_read_it(kind):
    plain, prompt = base(kind), [3, 1, 4, 1, 5]
    whole = torch.cat([torch.tensor([prompt, prompt]), IDS], dim=1)
    want = plain(whole)[:, len(prompt):]
    model = prefix(copy.deepcopy(plain), prompt_ids=prompt)
    assert_close(model(IDS), want, atol=1e-5, rtol=0)
    cache = model.new_cache()
    steps = [model(part, cache=cache) for part in IDS.split([4] + [1] * 8, dim=1)]
    assert_close(torch.cat(steps, dim=1), want, atol=1e-5, rtol=0)
    assert cache[0].length == IDS.shape[1]  # the prefix is no part of it
    options = {"max_new_tokens": 9, "temperature": 0}
    for cached in (True, False):
        assert generate(model, [7, 8], cache=cached, **options) == generate(
            plain, [*prompt, 7, 8], **options)


@pytest.mark.parametrize("kind", ["plain", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_texts_are_written_alike_cached_uncached_and_in_a_padded_batch(method, kind):
    model = trained(method, kind)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10]]
    alone = [generate(model, p, 10, temperature=0) for p in prompts]
    assert alone == [generate(model, p, 10, temperature=0, cache=False) for p in prompts]
    assert alone == generate(model, prompts, 10, temperature=0)


def test_padding_on_the_right_hides_no_part_of_a_prefix():
    model = trained("prefix")
    mask = padding_mask([12, 7], 12)
    both = model(IDS, mask=mask)
    assert_close(both[1, :7], model(IDS[1:, :7])[0], atol=1e-5, rtol=0)
    _, weights = model.blocks[0].attention(torch.randn(2, 12, 16), mask, return_weights=True)
    assert weights.shape == (2, 4, 12, 5 + 12) and (weights[..., :5] > 0).all()
    assert (weights[1, ..., 5 + 7:] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_future_does_not_change_the_past(method):
    model, changed = trained(method), IDS.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % VOCAB
    assert_close(model(IDS)[:, :8], model(changed)[:, :8], atol=1e-6, rtol=0)
    assert (model(IDS)[:, 8:] - model(changed)[:, 8:]).abs().max() > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_each_learns_one_batch_and_its_base_stays(method):
    model = METHODS[method](base(), **OPTIONS[method])
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(learned(model).values(), lr=0.03, weight_decay=0.0)
    losses = []
    for _ in range(60):
        loss = cross_entropy(model(IDS[:, :-1]).flatten(0, 1), IDS[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    # a few hundred numbers move a base of random weights only so far
    assert losses[-1] < 0.96 * losses[0], losses[::10]
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in frozen.items())


@pytest.mark.parametrize("kind", ["plain", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_saved_alone_and_loaded_on_a_fresh_base(method, kind, tmp_path):
    model = trained(method, kind)
    path = save_adaptation(model, tmp_path / "adaptation.safetensors")
    assert sum(t.numel() for t in load_file(path).values()) == count(model)
    assert path.stat().st_size < 4 * count(model) + 6000
    again = load_adaptation(base(kind), path)
    assert torch.equal(again(IDS), model(IDS))
    assert learned(again).keys() == learned(model).keys()
    second = save_adaptation(again, tmp_path / "second.safetensors")
    first, second = load_file(path), load_file(second)
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_files_for_another_base_or_damaged_are_refused_and_change_nothing(tmp_path):
    path = save_adaptation(trained("ia3"), tmp_path / "a.safetensors")
    other = base(seed=1)
    with pytest.raises(ValueError, match="other weights.*any_base=True"):
        load_adaptation(other, path)
    assert count(other) == sum(p.numel() for p in other.parameters())  # still all its own
    load_adaptation(other, path, any_base=True)
    for changes in ({"num_layers": 2}, {"d_ff": 32}, {"latent_dim": 6}):
        narrow = base(**changes)
        before = list(narrow.state_dict())
        with pytest.raises(ValueError, match="this model has room for|cannot adapt"):
            load_adaptation(narrow, path, any_base=True)
        assert list(narrow.state_dict()) == before
    tensors = load_file(path)
    with pytest.raises(ValueError, match="not written by save_adaptation"):
        save_file(tensors, tmp_path / "b.safetensors")
        load_adaptation(base(), tmp_path / "b.safetensors")
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="changed since it was written"):
        load_adaptation(base(), path)
    path.write_bytes(raw[:-5])
    with pytest.raises(ValueError, match="cut short"):
        load_adaptation(base(), path)
    with pytest.raises(ValueError, match="no method adapts this model"):
        save_adaptation(base(), path)


def test_ia3_merges_into_the_weights():
    for kind in ("plain", "gpt2"):
        model = trained("ia3", kind)
        want = model(IDS)
        plain = merge_ia3(model)
        assert_close(plain(IDS), want, atol=2e-5, rtol=0)
        assert plain.state_dict().keys() == base(kind).state_dict().keys()
        ia3(plain)  # a plain model again
    with pytest.raises(ValueError, match="no IA3 factors"):
        merge_ia3(base())


@pytest.mark.parametrize("method", METHODS)
def test_in_bfloat16_small_steps_are_not_rounded_away(method):
    model = METHODS[method](base().bfloat16(), **OPTIONS[method])
    wanted = torch.bfloat16 if method == "bitfit" else torch.float32  # the base's own biases
    assert {p.dtype for p in learned(model).values()} == {wanted}
    logits = model(IDS)
    assert logits.dtype == torch.bfloat16
    cross_entropy(logits.float().flatten(0, 1), IDS.flatten()).backward()
    if method != "bitfit":
        before = [p.clone() for p in learned(model).values()]
        torch.optim.AdamW(learned(model).values(), lr=1e-4).step()
        after = learned(model).values()
        assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    full = METHODS[method](base(), **OPTIONS[method])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = full(IDS)
    assert_close(mixed.float(), full(IDS), atol=0.5, rtol=0)
    mixed.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in learned(full).values())


@pytest.mark.parametrize("method", METHODS)
def test_the_training_loop_trains_and_resumes_each(method, tmp_path):
    ids = torch.randint(VOCAB, (600,), generator=torch.Generator().manual_seed(1)).numpy()
    data = Windows(ids, ids[:100], 12)
    whole, half = (METHODS[method](base(), **OPTIONS[method]) for _ in range(2))
    config = TrainConfig(max_steps=8, batch_size=4, lr=1e-2, checkpoint_every=4, eval_every=8)
    train(whole, data, config)
    train(half, data, config, tmp_path, stop_after=4)
    again = METHODS[method](base(), **OPTIONS[method])
    train(again, data, config, tmp_path)
    for (name, one), other in zip(learned(whole).items(), learned(again).values(), strict=True):
        assert torch.equal(one, other), name
    plain = base().state_dict()
    assert all(torch.equal(tensor, plain[n]) for name, tensor in again.state_dict().items()
               if (n := name.replace("base_layer.", "").replace("base.", "")) in plain
               and name not in learned(again))


@pytest.mark.parametrize("method", METHODS)
def test_on_a_quantized_base_only_the_method_learns(method):
    plain = quantize(random_model(WIDE), "nf4", double=True)
    if method == "bitfit":
        with pytest.raises(ValueError, match="add_biases=True"):
            bitfit(plain)
    model = METHODS[method](plain, **OPTIONS[method])
    cross_entropy(model(IDS).flatten(0, 1), IDS.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned(model).values())
    if method == "ia3":
        with pytest.raises(ValueError, match="before it was quantized"):
            merge_ia3(model)


def test_what_cannot_be_adapted_is_refused_with_a_way_out():
    window, latent = base(window=8), base(latent_dim=6)
    for call, message in (
        (lambda: bitfit(base()), "no biases to learn: add_biases=True"),
        (lambda: bitfit(base("qkv"), targets=["o_proj"]), "there are q_proj, k_proj, v_proj"),
        (lambda: ia3(base(), ["c_attn"]), "c_attn; the linear layers of a block are q_proj"),
        (lambda: ia3(base(), []), "nothing; the linear"),
        (lambda: ia3(latent), "k_proj, v_proj; the linear layers"),
        (lambda: prefix(window, 4), "window=8"), (lambda: prefix(latent, 4), "LatentAttention"),
        (lambda: prefix(base()), "prefix_len=None is not within 1..63"),
        (lambda: prefix(base(), 64), "not within"), (lambda: prefix(base(), 0), "not within"),
        (lambda: prefix(base(), 3, prompt_ids=[1]), "give one of the two"),
        (lambda: prefix(base(), prompt_ids=[VOCAB]), "outside the vocabulary"),
        (lambda: bottleneck(base(), 0), "a whole number from 1 up, or 3 of them"),
        (lambda: bottleneck(base(), [1, 2]), "or 3 of them"),
        (lambda: bottleneck(base(), 2, "both"), "houlsby, pfeiffer"),
        (lambda: bottleneck(base(), 2, activation="sine"), "choose one of relu"),
        (lambda: ia3(torch.nn.Linear(2, 2)), "no DecoderLM"),
        (lambda: ia3(prefix(base(), 2)), "adapted by prefix already"),
        (lambda: bottleneck(apply_lora(base()), 2), "LoRA adapts the model already"),
        (lambda: apply_lora(ia3(base())), "wrapped already"),
        (lambda: save_adaptation(apply_lora(prefix(base(), 2)), "x"), "other parameters learn"),
        (lambda: save_adaptation(ia3(base()).requires_grad_(True), "x"), "other parameters learn"),
        (lambda: trainable_count("lorra", base()), "choose one of ia3"),
        (lambda: trainable_count("ia3", base(), targets=["up"]), "up; the linear layers"),
        (lambda: trainable_count("prefix", latent, prefix_len=2), "LatentAttention"),
        (lambda: equal_budget("prefix", base(window=8), 96), "window=8"),
        (lambda: equal_budget("bottleneck", base(), 330, places="both"), "houlsby, pfeiffer"),
        (lambda: equal_budget("lora", base(), 330, targets=["up"]), "name no linear layer"),
        (lambda: equal_budget("ia3", base(), 120, targets=["k_proj"]), "leave them out"),
        (lambda: equal_budget("bitfit", base(), 330), "add_biases=True"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert count(window) == sum(p.numel() for p in window.parameters())  # nothing was frozen
    with pytest.raises(ValueError, match="past the table"):
        prefix(base("gpt2"), 60)(IDS)


@pytest.mark.parametrize("wanted", [200, 330, 1000, 5000])
def test_equal_budgets_are_equal_within_five_percent(wanted):
    model, reached = base(), []
    for method, fixed in (("ia3", {}), ("prefix", {}), ("bottleneck", {}), ("lora", {}),
                          ("bottleneck", {"places": "pfeiffer"}), ("bitfit", {"add_biases": True})):
        try:
            budget = equal_budget(method, model, wanted, **fixed)
        except ValueError as error:
            assert "the nearest found is" in str(error)
            continue
        assert abs(budget.count - wanted) <= 0.05 * wanted
        assert budget.count == trainable_count(method, model, **budget.options)
        apply = METHODS.get(method, apply_lora)
        assert count(apply(base(), **budget.options)) == budget.count
        reached.append(method)
    assert wanted != 1000 or {"lora", "prefix", "bottleneck"} <= set(reached)


def test_a_budget_says_what_it_chose():
    model = base()
    assert equal_budget("prefix", model, 330) == Budget("prefix", 336, {"prefix_len": 7})
    assert equal_budget("ia3", model, 120).options == {"targets": ("k_proj", "v_proj", "down_proj")}
    wide = equal_budget("bottleneck", model, 330, places="pfeiffer")
    assert max(wide.options["size"]) - min(wide.options["size"]) <= 1
    ranks = equal_budget("lora", model, 430).options["ranks"]
    assert set(ranks) == {f"blocks.{n}.attention.{p}_proj" for n in range(3) for p in "qv"}
    with pytest.raises(ValueError, match="ia3 cannot learn 50,000 numbers.*nearest found is 360"):
        equal_budget("ia3", model, 50_000)
    with pytest.raises(ValueError, match="count=0"):
        equal_budget("ia3", model, 0)
