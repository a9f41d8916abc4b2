"""Ways to train on several ranks, beside torch's own: DDP, FSDP2, DTensor, its pipeline."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scratchbook.accounting import forward_flops
from scratchbook.companions.distributed_ways import (
    OURS,
    SIZES,
    TORCHS,
    largest_difference,
    train_way,
    train_ways,
)
from scratchbook.config import ModelConfig
from scratchbook.distributed import run_ranks
from scratchbook.model import DecoderLM
from scratchbook.training.planning import training_flops_per_token

TORCH = f"torch {torch.__version__.split('+')[0]}"
BESIDE = {"DDP": "torch DDP", "ZeRO-1": "torch DDP", "ZeRO-2": "torch FSDP2",
          "ZeRO-3": "torch FSDP2", "tensor parallel": "torch DTensor", "GPipe": "torch GPipe"}


@pytest.fixture(scope="module")
def ways():
    return run_ranks(train_ways, 2, (*OURS, *TORCHS))


@pytest.mark.parametrize("way", BESIDE)
def test_weights_after_twenty_steps_equal_torch(ways, way, parity):
    error = max(largest_difference(rank[way], rank[BESIDE[way]]) for rank in ways)
    name = BESIDE[way].removeprefix("torch ")
    # in float64: sums in another order, twenty times through AdamW
    assert parity(f"{way} on 2 processes, weights after 20 steps (float64), beside {name}",
                  against=TORCH, error=error, cases=20, bound=1e-12)


def test_float32_gradients_and_losses_equal_one_process(parity):
    one = run_ranks(train_way, 1, "one process", 20, SIZES, torch.float32)[0]
    two = run_ranks(train_ways_in_float32, 2)[0]
    for way in ("DDP", "torch DDP"):  # AdamW lets weights differ by more than that in float32
        errors = [abs(a - b) for a, b in zip(two[way]["losses"], one["losses"], strict=True)]
        assert max(errors) < 1e-6
    assert parity("DDP on 2 processes, weights after 20 steps (float32), beside DDP",
                  against=TORCH, error=largest_difference(two["DDP"], two["torch DDP"]), cases=20,
                  bound=1e-6)


def train_ways_in_float32():
    return train_ways(("DDP", "torch DDP"), dtype=torch.float32)


@pytest.mark.parametrize("changes", [
    {}, {"num_kv_heads": 2}, {"latent_dim": 16}, {"feedforward": "gelu", "tie_embeddings": True}])
def test_operations_of_a_step_equal_the_counter(changes, parity):
    config = ModelConfig(300, 64, 2, 64, 4, **changes)
    model = DecoderLM(config)
    for block in model.blocks:
        block.attention.impl = "eager"  # torch's counter does not know the CPU's fused kernel
    ids = torch.randint(300, (2, 48), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as forward:
        logits = model(ids)
    with FlopCounterMode(display=False) as backward:
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    counted = forward.get_total_flops(), backward.get_total_flops()
    ours = 2 * sum(forward_flops(config, 48).values())
    errors = [abs(counted[0] / ours - 1),
              abs(sum(counted) / (96 * training_flops_per_token(config, 48)) - 1)]
    assert parity("Operations of a training step, as a share", against=TORCH, error=max(errors),
                  cases=2, bound=0.0)
