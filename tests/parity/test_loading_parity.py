"""A config.json as it may be found: transformers' logits, or a refusal, never others."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from scratchbook.weights import load_pretrained, save_pretrained
from tests import tiny_models

transformers = pytest.importorskip("transformers")
IDS = torch.randint(99, (2, 50), generator=torch.Generator().manual_seed(0))
LINEAR = {"rope_type": "linear", "factor": 3.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
GONE = object()
ROPES = [None, {}, LINEAR, YARN, LINEAR | {"rope_theta": 500.0}, {"type": "linear", "factor": 3.0},
         {"rope_type": "linear"}, {"rope_type": "yarn"}, {"rope_type": "yarn", "factor": 4.0},
         YARN | {"factor": None}, YARN | {"beta_fast": 0, "beta_slow": None}, GONE,
         YARN | {"truncate": None}, YARN | {"original_max_position_embeddings": None},
         tiny_models.LLAMA3, {k: v for k, v in tiny_models.LLAMA3.items() if "low" not in k},
         {"full_attention": YARN}, {"rope_type": "dynamic", "factor": 2.0}]
KINDS = ["full_attention", "sliding_attention"]
CHOICES = {
    "rope_parameters": ROPES, "rope_scaling": ROPES, "rope_theta": [500.0, GONE],
    "original_max_position_embeddings": [32, 64, None], "partial_rotary_factor": [1.0, 0.5],
    "sliding_window": [7, None, GONE], "use_sliding_window": [True, True, False, GONE],
    "layer_types": [None, GONE, [KINDS[0]] * 3, [KINDS[1]] * 3, [*KINDS, KINDS[0]]],
    "max_window_layers": [0, 1, 3, 28, GONE], "num_key_value_heads": [GONE, None],
    "head_dim": [GONE], "tie_word_embeddings": [True],
}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        answer = model(IDS)
    return getattr(answer, "logits", answer)


def theirs(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32).eval()


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3"])
def test_any_config_loads_as_in_transformers_or_is_refused(name, tmp_path, parity):
    tiny_models.build(name).save_pretrained(tmp_path)
    path, rng = tmp_path / "config.json", random.Random(name)
    usual, worst, loaded, refused = json.loads(path.read_text(encoding="utf-8")), 0.0, 0, 0
    for number in range(75):
        field = list(CHOICES)[number % len(CHOICES)]  # each in turn, and up to three others
        fields = {field, *rng.sample(list(CHOICES), rng.randrange(4))}
        changes = {field: rng.choice(CHOICES[field]) for field in sorted(fields)}
        entries = {k: v for k, v in (usual | changes).items() if v is not GONE}
        path.write_text(json.dumps(entries), encoding="utf-8")
        try:
            ours = load_pretrained(tmp_path)
        except ValueError:
            refused += 1
            continue
        try:
            want = logits(theirs(tmp_path))
        except (TypeError, ValueError):  # what transformers trips over has no other meaning
            continue
        error = (logits(ours) - want).abs().max().item()
        assert error < 1e-4, changes
        worst, loaded = max(worst, error), loaded + 1
    assert min(loaded, refused) > 15  # neither side is empty
    assert parity(f"{name}: random config.json files that load here", against="transformers",
                  error=worst, cases=loaded, bound=2e-5)


@pytest.mark.parametrize("name", ["llama 3.1", "gpt2"])
def test_a_tied_config_whose_file_ships_another_head(name, tmp_path, parity):
    tiny_models.build(name).save_pretrained(tmp_path)
    tied = logits(load_pretrained(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    [embedding] = (tensor for key, tensor in tensors.items() if key.endswith(("tokens.weight",
                                                                              "wte.weight")))
    for shift, same in ((0, True), (1, False)):
        head = embedding.roll(shift, 0).clone()
        save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors",
                  metadata={"format": "pt"})
        ours = load_pretrained(tmp_path)
        assert torch.equal(logits(ours), tied) == same == ours.config.tie_embeddings
        error = (logits(ours) - logits(theirs(tmp_path))).abs().max().item()
        assert parity(f"{name}: a head of its own, shifted by {shift}", against="transformers",
                      error=error, cases=IDS.numel(), bound=2e-5)
    again = load_pretrained(save_pretrained(ours, tmp_path / "again"))
    assert torch.equal(logits(again), logits(ours))
