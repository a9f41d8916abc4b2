"""Ranks read from a spectrum, and ranks that a budget moves to where they are needed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from scratchbook.finetuning import (
    AdaLoRA,
    RankBudget,
    apply_adalora,
    apply_lora,
    energy_rank,
    load_adapter,
    lora_layers,
    merge,
    orthogonality,
    ranks_by_budget,
    ranks_by_energy,
    save_adapter,
    settle,
    unmerge,
    unwrap,
    weight_changes,
)
from scratchbook.finetuning.ranks import mask_to_budget
from scratchbook.training import TrainConfig, train
from tests.test_lora import data, ids, learning, moved, tiny


def planted(rank: int, rows: int = 24, columns: int = 40, noise: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    left, right = (torch.linalg.qr(torch.randn(n, rows, generator=generator))[0][:, :rank]
                   for n in (rows, columns))
    return left @ right.T + noise * torch.randn(rows, columns, generator=generator)


def test_the_rank_of_a_share_of_the_energy_by_hand():
    matrix = torch.diag(torch.tensor([3.0, 4.0, 0.0]))  # energies 16 and 9 of 25
    assert [energy_rank(matrix, share) for share in (0.5, 0.64, 0.65, 0.99, 1.0)] == [1, 1, 2, 2, 2]
    assert energy_rank(torch.zeros(3, 5)) == 0
    for wrong in (0.0, 1.5, -1):
        with pytest.raises(ValueError, match="energy="):
            energy_rank(matrix, wrong)


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_planted_ranks_are_recovered(noise):
    matrices = {f"layer {rank}": planted(rank, noise=noise) for rank in (1, 2, 5, 9)}
    assert ranks_by_energy(matrices, 0.99) == {f"layer {rank}": rank for rank in (1, 2, 5, 9)}
    assert ranks_by_budget(matrices, 17) == {f"layer {rank}": rank for rank in (1, 2, 5, 9)}
    matrices["layer 1"] = 100 * planted(1)  # one direction, however strong
    assert ranks_by_budget(matrices, 17)["layer 1"] == 1
    with pytest.raises(ValueError, match="total=97 is not within 1..96"):
        ranks_by_budget(matrices, 97)


def test_the_rank_of_what_a_training_changed_is_found_and_can_be_applied():
    base, tuned = tiny(), tiny()
    apply_lora(tuned, "attention", lora_rank=2, ranks={"q_proj": 3, "o_proj": 0})
    merge(moved(tuned))
    ranks = ranks_by_energy(weight_changes(unwrap(tuned), base), 0.9999)
    expected = {"q_proj": 3, "k_proj": 2, "v_proj": 2}
    assert {path: expected.get(path.split(".")[-1], 0) for path in ranks} == ranks
    model = apply_lora(base, "all-linear", ranks={p: r for p, r in ranks.items() if "lm" not in p})
    assert len(lora_layers(model)) == 6


def test_adalora_starts_as_the_base_and_its_update_is_p_lambda_q():
    model = apply_adalora(tiny(), "all-linear", lora_rank=4)
    assert torch.equal(model(ids()), tiny()(ids()))
    assert {name.split(".")[-1] for name in learning(model)} == {"lora_A", "lora_E", "lora_B"}
    layer = lora_layers(moved(model))["blocks.0.attention.q_proj"]
    adapter, x = layer.adapter, torch.randn(3, 32)
    by_hand = adapter.lora_B @ torch.diag(adapter.lora_E[:, 0]) @ adapter.lora_A * 16 / 4
    assert_close(adapter.delta(), by_hand)
    assert_close(layer(x), layer.base_layer(x) + x @ by_hand.T, atol=1e-5, rtol=1e-5)
    plain = model(ids())
    merge(model)
    assert_close(model(ids()), plain, atol=2e-5, rtol=1e-5)
    unmerge(model)
    assert torch.equal(model(ids()), plain)


def test_the_budget_falls_along_a_cube():
    model = apply_adalora(tiny(), lora_rank=12)  # 4 layers: from 48 directions to 8
    budget = RankBudget(model, target_rank=2, total_steps=100, warmup=20, final_steps=20)
    assert [budget.budget(step) for step in (0, 20, 50, 80, 90, 100)] == [48, 48, 13, 8, 8, 8]


def test_only_the_most_important_directions_are_kept():
    model = apply_adalora(tiny(), lora_rank=3)
    for number, layer in enumerate(lora_layers(model).values()):
        layer.adapter.lora_E.data.fill_(1.0)
        scores = torch.tensor([[3.0], [1.0], [2.0]]) + (10 if number == 2 else 0)
        layer.adapter.sensitivity_lora_E.copy_(scores)
        layer.adapter.uncertainty_lora_E.fill_(1.0)
    kept = list(mask_to_budget(model, 6).values())
    assert [k.tolist() for k in kept] == [[True, False, False]] * 2 + [[True] * 3] + [
        [True, False, False]]
    for layer, mask in zip(lora_layers(model).values(), kept, strict=True):
        assert torch.equal(layer.adapter.lora_E[:, 0] != 0, mask)
    assert all(mask.all() for mask in mask_to_budget(model, 12).values())


class Three(nn.Module):
    """Three layers side by side, so that only what was planted needs an update."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(part(x[..., i, :]) for i, part in enumerate(self.parts))


@pytest.mark.parametrize("where", [0, 1, 2])
def test_the_budget_moves_to_the_layer_where_a_change_was_planted(where):
    teacher, model = Three(), apply_adalora(Three(), ("parts",), lora_rank=6, lora_alpha=6)
    teacher.parts[where].weight.data += 2 * planted(4, 16, 16)
    budget = RankBudget(model, target_rank=2, total_steps=200, warmup=20, final_steps=60)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 201):
        x = torch.randn(64, 3, 16, generator=generator)
        loss = F.mse_loss(model(x), teacher(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        budget(step, model)
    left = [int((layer.adapter.lora_E != 0).sum()) for layer in lora_layers(model).values()]
    assert sum(left) == 6 and left[where] >= 4 and left[where] > 2 * max(
        number for i, number in enumerate(left) if i != where)
    assert loss < 0.05 * F.mse_loss(Three()(x), teacher(x))


def test_it_trains_in_the_loop_and_settles_as_plain_lora(tmp_path):
    torch.manual_seed(0)
    model = apply_adalora(tiny(), lora_rank=6)
    budget = RankBudget(model, target_rank=2, total_steps=12, warmup=2, final_steps=4)
    before = orthogonality(model).item()
    config = TrainConfig(max_steps=12, batch_size=4, eval_every=6, lr=0.02)
    train(model, data(), config, on_step=budget)
    assert orthogonality(model).item() < before
    model.eval()
    adapted = model(ids())
    settle(model)
    assert not any(isinstance(m, AdaLoRA) for m in model.modules())
    assert_close(model(ids()), adapted, atol=2e-6, rtol=1e-5)
    assert sum(layer.adapter.lora_rank for layer in lora_layers(model).values()
               if layer.active) == 2 * 4
    assert learning(model)
    save_adapter(model, tmp_path)
    assert torch.equal(load_adapter(tiny(), tmp_path)(ids()), model(ids()))


@pytest.mark.parametrize("stop_after", [2, 5, 6, 10])
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(tmp_path, stop_after):
    config = TrainConfig(max_steps=12, batch_size=4, eval_every=6, checkpoint_every=1, lr=0.02)

    def run(folder=None, **options):
        torch.manual_seed(0)
        model = apply_adalora(tiny(), lora_rank=6)
        budget = RankBudget(model, target_rank=2, total_steps=12, warmup=2, final_steps=4)
        train(model, data(), config, folder, on_step=budget, **options)
        return {name: tensor for name, tensor in model.state_dict().items()
                if "lora_" in name}

    run(tmp_path, stop_after=stop_after)
    resumed, straight = run(tmp_path), run()
    assert len(straight) == 12 * 4 and resumed.keys() == straight.keys()
    assert [name for name in straight if not torch.equal(resumed[name], straight[name])] == []


def test_gradients_of_another_run_are_not_taken_into_a_new_one():
    model = apply_adalora(tiny(), lora_rank=6)
    train(model, data(), TrainConfig(max_steps=2, batch_size=4, eval_every=2, lr=0.02))
    state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    RankBudget(model, target_rank=2, total_steps=12, warmup=2, final_steps=4)(0, model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_layer_without_a_direction_left_has_no_adapter_any_more(tmp_path):
    model = moved(apply_adalora(tiny(), lora_rank=3))
    layers = lora_layers(model)
    layers["blocks.0.attention.q_proj"].adapter.lora_E.data.zero_()
    layers["blocks.1.attention.v_proj"].adapter.lora_E.data[1] = 0
    adapted = model(ids())
    with pytest.raises(ValueError, match="consists of AdaLoRA.*settle"):
        save_adapter(model, tmp_path)
    settle(model)
    assert_close(model(ids()), adapted, atol=2e-6, rtol=1e-5)
    assert layers["blocks.0.attention.q_proj"].active is None
    save_adapter(model, tmp_path)
    loaded = load_adapter(tiny(), tmp_path)
    assert torch.equal(loaded(ids()), model(ids()))
    assert sorted(layer.adapter.lora_rank for layer in lora_layers(loaded).values()) == [2, 3, 3]
    assert torch.equal(copy.deepcopy(model)(ids()), model(ids()))


@pytest.mark.parametrize(("options", "message"), [
    ({"target_rank": 13}, "target_rank=13 is not within"),
    ({"target_rank": 0}, "target_rank=0 is not within"),
    ({"warmup": 80}, "no step of total_steps=100 is left"),
    ({"every": 0}, "every=0")])
def test_a_budget_that_cannot_be_is_refused(options, message):
    model = apply_adalora(tiny(), lora_rank=12)
    usual = {"target_rank": 2, "total_steps": 100, "warmup": 20, "final_steps": 20}
    with pytest.raises(ValueError, match=message):
        RankBudget(model, **usual | options)
    for plain in (tiny(), apply_lora(tiny())):
        with pytest.raises(ValueError, match="apply_adalora first"):
            RankBudget(plain, **usual)
        with pytest.raises(ValueError, match="apply_adalora first"):
            settle(plain)
