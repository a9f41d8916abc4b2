"""Hooks that see what attention sees: equal to the model's own weights, and never in its way."""

import pytest
import torch
from torch import nn

from scratchbook.attention import LatentAttention, LinearAttention, MultiHeadAttention
from scratchbook.config import ModelConfig
from scratchbook.finetuning.lora import apply_lora
from scratchbook.interpret import capture
from scratchbook.interpret.capture import KINDS
from scratchbook.model import EncoderModel
from tests.random_models import random_model

SMALL = ModelConfig(vocab_size=50, max_seq_len=64, num_layers=3, d_model=32, num_heads=4, d_ff=48)
CONFIGS = {
    "plain": SMALL,
    "grouped": SMALL.with_(num_kv_heads=2),
    "one key head": SMALL.with_(num_kv_heads=1, norm="layer", layout="post"),
    "window": SMALL.with_(window=4),
    "alibi": SMALL.with_(positions="alibi", num_kv_heads=2),
    "alibi window": SMALL.with_(positions="alibi", window=5),
    "qk-norm": SMALL.with_(qk_norm=True, layout="sandwich"),
    "learned": SMALL.with_(positions="learned", bias="all", layout="parallel"),
    "latent": SMALL.with_(latent_dim=12),
    "latent unturned": SMALL.with_(latent_dim=12, positions="learned"),
}
IDS = torch.randint(50, (2, 23), generator=torch.Generator().manual_seed(1))


def weights_by_asking(model, ids):
    """What each attention itself says it looked at, layer by layer, from its own input."""
    inputs, found = [], []
    handles = [block.attention.register_forward_pre_hook(lambda m, args: inputs.append(args))
               for block in model.blocks]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    for block, args in zip(model.blocks, inputs, strict=True):
        with torch.no_grad():
            found.append(block.attention(*args, return_weights=True)[1])
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_the_output_is_the_same_bit_for_bit(name):
    model = random_model(CONFIGS[name])
    plain = model(IDS)
    with capture(model, keep=KINDS) as seen:
        watched = model(IDS)
    assert torch.equal(plain, watched)
    with torch.no_grad(), capture(model, keep=KINDS):
        assert torch.equal(plain, model(IDS))
    assert torch.equal(plain, model(IDS))
    assert sorted(seen.attention) == [0, 1, 2] and seen.calls == 1
    watched.sum().backward()  # gradients still flow
    assert all(not x.requires_grad for kind in KINDS for x in getattr(seen, kind).values())


@pytest.mark.parametrize("name", [n for n in CONFIGS if "latent" not in n])
def test_the_weights_are_those_that_the_attention_reports(name):
    model = random_model(CONFIGS[name])
    with torch.no_grad(), capture(model) as seen:
        model(IDS)
    for layer, own in enumerate(weights_by_asking(model, IDS)):
        torch.testing.assert_close(seen.attention[layer], own, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_times_values_are_what_the_output_projection_reads(name):
    """The one law that binds everything kept to what the model computed."""
    model, read = random_model(CONFIGS[name]), []
    for block in model.blocks:
        block.attention.o_proj.register_forward_pre_hook(lambda m, args: read.append(args[0]))
    with torch.no_grad(), capture(model, keep=("attention", "values")) as seen:
        model(IDS)
    for layer, mixed in enumerate(read):
        values = seen.values[layer]
        values = values.repeat_interleave(4 // values.shape[1], dim=1)
        ours = (seen.attention[layer] @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(ours, mixed, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["plain", "grouped", "window", "latent", "qk-norm"])
@pytest.mark.parametrize("absorbed", [False, True])
def test_with_a_cache_the_rows_are_those_of_the_whole_text(name, absorbed):
    model = random_model(CONFIGS[name])
    if name == "latent":
        for block in model.blocks:
            block.attention.absorbed = absorbed
    with torch.no_grad(), capture(model, keep=("attention", "keys")) as whole:
        model(IDS)
    cache = model.new_cache()
    with torch.no_grad(), capture(model, keep=("attention", "keys")) as seen:
        model(IDS[:, :20], cache=cache)
        first = model(IDS[:, 20:22], cache=cache)
        assert seen.attention[1].shape[-2] == 2
        model(IDS[:, 22:], cache=cache)
    assert seen.calls == 3 and first.shape[1] == 2
    for layer in range(3):
        rows = whole.attention[layer][:, :, 22:]
        torch.testing.assert_close(seen.attention[layer], rows, atol=2e-5, rtol=0)
        torch.testing.assert_close(seen.keys[layer], whole.keys[layer], atol=2e-5, rtol=1e-4)


def test_padding_and_encoders():
    mask = torch.ones(2, 1, 1, 23, dtype=torch.bool)
    mask[1, ..., 17:] = False
    model = random_model(SMALL)
    with torch.no_grad(), capture(model) as seen:
        model(IDS, mask=mask)
    assert not seen.attention[2][1, :, :, 17:].any()
    torch.testing.assert_close(seen.attention[2].sum(-1), torch.ones(2, 4, 23))
    encoder = EncoderModel(SMALL.with_(positions="learned", norm="layer", layout="post")).eval()
    with torch.no_grad(), capture(encoder) as seen:
        encoder(IDS)
    assert (seen.attention[0] > 0).all()  # a reader looks ahead as well


def test_what_is_kept_has_the_shapes_that_are_promised():
    model = random_model(CONFIGS["grouped"])
    with torch.no_grad(), capture(model, keep=KINDS, layers=(-1, 0)) as seen:
        model(IDS)
    assert sorted(seen.attention) == [0, 2] and sorted(seen.residuals) == [0, 1, 2, 3]
    assert seen.attention[2].shape == (2, 4, 23, 23)
    assert seen.queries[0].shape == (2, 4, 23, 8)
    assert seen.keys[0].shape == seen.values[0].shape == (2, 2, 23, 8)
    assert seen.names == [f"blocks.{i}.attention" for i in range(3)]
    assert seen.stacked().shape == (2, 2, 4, 23, 23)
    assert seen.num_bytes == 4 * 2 * 23 * (2 * (4 * 23 + 32 + 16 + 16) + 4 * 32)
    with torch.no_grad():  # the residuals are the stream: what the last block wrote, and its sum
        assert torch.equal(model.lm_head(model.final_norm(seen.residuals[3])), model(IDS))
        assert torch.equal(seen.residuals[0], model.token_embedding(IDS))


def test_a_model_in_bfloat16_or_autocast_is_read_in_float32():
    model = random_model(SMALL).bfloat16()
    with torch.no_grad(), capture(model, keep=("attention", "values")) as seen:
        model(IDS)
    assert seen.attention[0].dtype == seen.values[0].dtype == torch.float32
    torch.testing.assert_close(seen.attention[1].sum(-1), torch.ones(2, 4, 23), atol=1e-5, rtol=0)
    model = random_model(SMALL)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(IDS)
        with capture(model) as seen:
            assert torch.equal(model(IDS), plain)
    torch.testing.assert_close(seen.attention[1].sum(-1), torch.ones(2, 4, 23), atol=1e-5, rtol=0)


def test_dropout_draws_the_same_numbers_when_watched():
    for name in ("plain", "latent"):
        model = random_model(CONFIGS[name].with_(dropout=0.2))
        targets = ("up_proj",) if name == "latent" else ("q_proj", "v_proj")
        apply_lora(model, targets, dropout=0.3)
        model.train()
        torch.manual_seed(5)
        plain = model(IDS)
        torch.manual_seed(5)
        with capture(model, keep=KINDS):
            assert torch.equal(model(IDS), plain)


def hooks_of(model):
    return [h for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks) if h]


def test_no_hook_is_left_behind():
    model = random_model(SMALL)
    with capture(model, keep=KINDS):
        assert hooks_of(model)
    assert not hooks_of(model)
    with pytest.raises(RuntimeError, match="stop"), capture(model, keep=KINDS):
        raise RuntimeError("stop")
    assert not hooks_of(model)
    with pytest.raises(IndexError), capture(model, keep=KINDS):
        model(IDS + 1000)
    assert not hooks_of(model)
    with pytest.raises(ValueError, match="layer 9"), capture(model, layers=(9,)):
        pass
    assert not hooks_of(model)


def test_memory_is_bound_before_it_is_taken():
    model = random_model(SMALL)
    table = 4 * 2 * 4 * 23 * 23
    with capture(model, max_bytes=3 * table) as seen:
        model(IDS)
        model(IDS)  # the second call takes the place of the first
    assert seen.num_bytes == 3 * table and seen.calls == 2
    with (pytest.raises(ValueError, match=f"layer 2.*max_bytes={3 * table - 1:,}"),
          capture(model, max_bytes=3 * table - 1) as seen):
        model(IDS)
    assert seen.num_bytes == 2 * table
    with capture(model, layers=(0, 1), max_bytes=3 * table - 1):
        model(IDS)
    with pytest.raises(ValueError, match="residuals of layer 0"), capture(
            model, keep=("residuals",), max_bytes=10):
        model(IDS)


def test_models_of_another_build_are_read_too():
    model = nn.ModuleDict({"one": MultiHeadAttention(16, 2), "two": LatentAttention(16, 2, 4)})
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), capture(model) as seen:
        model["two"](model["one"](x))
    assert seen.names == ["one", "two"] and seen.attention[1].shape == (1, 2, 5, 5)
    with torch.no_grad(), capture(model["one"]) as seen:
        _, own = model["one"](x, return_weights=True)
    torch.testing.assert_close(seen.attention[0], own, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("what", "message"), [
    ({"keep": "attention"}, "is one string"), ({"keep": ("weights",)}, "attention, queries"),
    ({"keep": ()}, "must name some"), ({"layers": (3,)}, "layer 3 is none of the 3"),
])
def test_what_cannot_be_is_said(what, message):
    with pytest.raises(ValueError, match=message), capture(random_model(SMALL), **what):
        pass


def test_models_without_a_table_of_weights_are_refused():
    with pytest.raises(ValueError, match="LinearAttention holds no attention"), capture(
            LinearAttention(16, 2)):
        pass
    attention = MultiHeadAttention(16, 2)
    with pytest.raises(ValueError, match="no residual stream"), capture(
            attention, keep=("residuals",)):
        pass
    assert not hooks_of(attention)
    with pytest.raises(ValueError, match="within capture"), capture(attention) as seen:
        seen.stacked()
