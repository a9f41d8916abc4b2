"""Whole models: what may look where, how they start, what they refuse, and that they can learn."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from scratchbook.attention import assert_no_future_leak, padding_mask
from scratchbook.config import PRESETS, ModelConfig
from scratchbook.model import DecoderLM, EncoderModel

SMALL = {"vocab_size": 99, "max_seq_len": 64, "num_layers": 2, "d_model": 32, "num_heads": 4}
IDS = torch.randint(99, (2, 16), generator=torch.Generator().manual_seed(0))
KINDS = {
    "plain": {}, "post, learned": {"layout": "post", "positions": "learned", "norm": "layer"},
    "parallel, alibi": {"layout": "parallel", "positions": "alibi", "norm": "rms_no_gain"},
    "sandwich, sinusoidal": {"layout": "sandwich", "positions": "sinusoidal", "bias": "all"},
    "window": {"window": 5, "num_kv_heads": 2}, "latent": {"latent_dim": 8},
    "no norms": {"norm": "none", "positions": "none"}, "qk-norm": {"qk_norm": True},
}


def build(kind=DecoderLM, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(ModelConfig(**SMALL | changes)).eval()


@pytest.mark.parametrize("name", KINDS)
def test_no_decoder_sees_the_future(name):
    assert_no_future_leak(build(**KINDS[name]), vocab_size=99)


def test_an_encoder_sees_both_sides_and_no_padding():
    encoder = build(EncoderModel, layout="post", positions="learned", norm="layer")
    changed = IDS.clone()
    changed[:, 8] = (changed[:, 8] + 1) % 99
    with torch.no_grad():
        moved = (encoder(changed) - encoder(IDS)).abs().amax(-1)
        assert (moved > 1e-4).all()
        mask = padding_mask([16, 8], 16)
        masked = encoder(IDS, mask)
        assert_close(masked[1, :8], encoder(IDS[1:, :8])[0])
        pairs = encoder(IDS, segments=(torch.arange(16) >= 8).long().expand(2, 16))
    assert (pairs - encoder(IDS)).abs().max() > 0.01


@pytest.mark.parametrize("name", ["gpt2-xl", "llama-3-8b", "minilm"])
def test_models_of_any_size_are_built_on_the_meta_device(name):
    kind = EncoderModel if name == "minilm" else DecoderLM
    with torch.device("meta"):
        model = kind(PRESETS[name])
    assert all(p.is_meta for p in [*model.parameters(), *model.buffers()])


def test_weights_start_as_gpt2s():
    config = PRESETS["gpt2"].with_(vocab_size=500, num_layers=8, d_model=256, num_heads=4,
                                   head_dim=64, num_kv_heads=4, d_ff=1024)
    model = DecoderLM(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif weight.dim() == 2:
            writes = "o_proj" in name or "down_proj" in name
            want = 0.02 / math.sqrt(2 * 8) if writes else 0.02
            assert weight.std().item() == pytest.approx(want, rel=0.02), name  # 65,536 draws
    with torch.no_grad():
        ids = torch.randint(500, (4, 64), generator=torch.Generator().manual_seed(0))
        targets = ids.roll(-1, 1)
        loss = F.cross_entropy(model.eval()(ids).transpose(1, 2), targets).item()
    assert loss == pytest.approx(math.log(500), rel=0.05)  # it begins by knowing nothing


def test_dropout_is_for_training_alone():
    model = build(dropout=0.3)
    assert torch.equal(model(IDS), model(IDS))
    model.train()
    assert not torch.equal(model(IDS), model(IDS))


def test_tied_ends_are_one_parameter():
    model = build(tie_embeddings=True)
    assert model.lm_head.weight is model.token_embedding.weight
    assert len(list(model.parameters())) == len(list(build().parameters())) - 1


@pytest.mark.parametrize(("ids", "message"), [
    (torch.zeros(5, dtype=torch.long), r"\(5,\); one text is ids\[None\]"),
    (torch.zeros(1, 5), "torch.float32"),
])
def test_what_are_no_ids_is_named(ids, message):
    with pytest.raises(ValueError, match=message):
        build()(ids)


@pytest.mark.parametrize("name", ["plain", "post, learned", "latent"])
def test_a_model_learns_one_batch_by_heart(name):
    model = build(**KINDS[name]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(model(IDS[:, :-1]).transpose(1, 2), IDS[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 < math.log(99)
