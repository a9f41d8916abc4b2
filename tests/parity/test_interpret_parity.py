"""Captured attention against transformers' own report, and bertviz's data against ours."""

import pytest
import torch
import transformers

from scratchbook.interpret import capture
from tests import tiny_models

LIBRARY = f"transformers {transformers.__version__}"
BOUND = 1e-6
IDS = torch.randint(99, (2, 21), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama 3.1", "mistral", "qwen2", "qwen3"])
def test_transformers_attention_is_read_as_it_reports_it(name, parity):
    model = tiny_models.build(name)
    with torch.no_grad():
        plain = model(IDS, output_attentions=True, output_hidden_states=True)
        with capture(model, keep=("attention", "residuals")) as seen:
            watched = model(IDS)
        assert torch.equal(plain.logits, watched.logits)
        model.set_attn_implementation("sdpa")
        fast = model(IDS)
        with capture(model) as of_sdpa:
            assert torch.equal(model(IDS).logits, fast.logits)
    error = max((seen.attention[i] - theirs).abs().max().item()
                for i, theirs in enumerate(plain.attentions))
    for layer, theirs in enumerate(plain.attentions):
        torch.testing.assert_close(of_sdpa.attention[layer], theirs, atol=2e-5, rtol=0)
    for layer, stream in enumerate(plain.hidden_states[:-1]):  # the last one is normed there
        assert torch.equal(seen.residuals[layer], stream)
    assert parity(f"capture of {name}", against=LIBRARY, error=error, cases=3 * 2 * 4, bound=BOUND)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("impl", ["eager", "sdpa"])
def test_transformers_with_a_cache_and_padding(name, impl):
    model = tiny_models.build(name)
    model.set_attn_implementation(impl)
    mask = torch.ones_like(IDS)
    mask[1, :6] = 0
    with torch.no_grad(), capture(model) as seen:
        model(IDS, attention_mask=mask)
    whole = dict(seen.attention)
    assert not whole[0][1, :, 6:, :6].any()
    with torch.no_grad(), capture(model, keep=("attention", "keys")) as seen:
        first = model(IDS[:, :20], attention_mask=mask[:, :20], use_cache=True)
        model(IDS[:, 20:], attention_mask=mask, past_key_values=first.past_key_values)
    for layer, table in seen.attention.items():
        assert table.shape == (2, 4, 1, 21) and seen.keys[layer].shape[2] == 21
        torch.testing.assert_close(table, whole[layer][:, :, 20:], atol=1e-5, rtol=0)
