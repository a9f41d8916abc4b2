"""Pruning: scores by hand, masks that stay, structure that really goes, honest bytes."""

import copy
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from scratchbook.compression.files import digest
from scratchbook.compression.pruning import (
    apply_masks,
    lowest_dropped,
    magnitude_scores,
    masks_kept,
    masks_of_lowest,
    movement_scores,
    n_of_m_masks,
    prune_channels,
    prune_heads,
    sparsity_of,
    wanda_scores,
)
from scratchbook.compression.sparse_files import (
    load_sparse,
    pack_sparse,
    save_sparse,
    sparse_bytes,
    unpack_sparse,
)
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.runtime import named_generator
from scratchbook.training import TrainConfig, train
from scratchbook.weights import load_pretrained, save_pretrained
from tests.random_models import random_model

CONFIG = ModelConfig(vocab_size=29, max_seq_len=32, num_layers=3, d_model=24, num_heads=6,
                     num_kv_heads=3, d_ff=40)
FEW = settings(max_examples=25)
GPT2_LIKE = ModelConfig(vocab_size=29, max_seq_len=32, num_layers=2, d_model=24, num_heads=6,
                        feedforward="gelu", norm="layer", positions="learned", bias="all",
                        tie_embeddings=True)


def build(config: ModelConfig = CONFIG) -> DecoderLM:
    return random_model(config, std=0.3)


def ids(rows: int = 4, length: int = 12, name: str = "ids") -> torch.Tensor:
    return torch.randint(29, (rows, length), generator=named_generator(0, name))


def windows() -> Windows:
    stream = ids(1, 400)[0]
    return Windows(stream[:300], stream[300:], seq_len=12)


def test_the_lowest_of_a_row_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 9.0]])
    assert lowest_dropped(scores, 2).tolist() == [[True, False, False, True]]


@FEW
@given(st.floats(0, 0.99), st.sampled_from(["row", "layer", "global"]))
def test_masks_drop_the_share_that_was_asked_and_nothing_higher_than_what_stays(share, scope):
    scores = magnitude_scores(build())
    masks = masks_of_lowest(scores, share, scope)
    groups = {"row": [(r, m) for n in scores for r, m in zip(scores[n], masks[n], strict=True)],
              "layer": [(scores[n].flatten(), masks[n].flatten()) for n in scores],
              "global": [(torch.cat([t.flatten() for t in scores.values()]),
                          torch.cat([t.flatten() for t in masks.values()]))]}[scope]
    for values, mask in groups:
        assert int((~mask).sum()) == min(round(share * len(mask)), len(mask) - 1)
        if 0 < mask.sum() < len(mask):
            assert values[~mask].max() <= values[mask].min()


def test_global_and_per_layer_differ_where_layers_differ_in_size() -> None:
    model = build()
    with torch.no_grad():
        model.blocks[0].attention.q_proj.weight.mul_(10)
    masks = masks_of_lowest(magnitude_scores(model), 0.5, "global")
    kept = {name: mask.float().mean().item() for name, mask in masks.items()}
    assert kept["blocks.0.attention.q_proj"] > 0.9 > 0.6 > kept["blocks.1.attention.q_proj"]


@FEW
@given(st.sampled_from([(2, 4), (1, 4), (3, 4), (4, 8), (1, 1)]))
def test_two_of_four_keep_two_of_every_four(pattern: tuple[int, int]) -> None:
    n, m = pattern
    for name, mask in n_of_m_masks(magnitude_scores(build()), n, m).items():
        assert (mask.unflatten(-1, (-1, m)).sum(-1) == n).all(), name


def test_wanda_is_weight_times_norm_of_input() -> None:
    model = build()
    inputs = []
    layer = model.blocks[1].feedforward.down_proj
    hook = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    scores = wanda_scores(model, [ids(), ids(name="more")])
    hook.remove()
    norm = torch.cat([x.flatten(0, 1) for x in inputs]).norm(dim=0)
    assert_close(scores["blocks.1.feedforward.down_proj"], layer.weight.abs() * norm)
    assert not layer._forward_pre_hooks and model.training is False


def test_movement_is_minus_weight_times_gradient_summed_over_micro_batches() -> None:
    model, x, y = build(), ids(), ids(name="targets")
    loss = nn.CrossEntropyLoss()
    with movement_scores(model) as scores:
        for part in (slice(0, 2), slice(2, 4)):
            loss(model(x[part]).flatten(0, 1), y[part].flatten()).backward()
    for name, score in scores.items():
        weight = model.get_submodule(name).weight
        assert_close(score, -weight.detach() * weight.grad)
    before = {name: score.clone() for name, score in scores.items()}
    loss(model(x).flatten(0, 1), y.flatten()).backward()  # outside of the block nothing is added
    assert all(torch.equal(before[name], score) for name, score in scores.items())


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lion"])
def test_masks_stay_under_training_and_in_its_checkpoints(optimizer: str, tmp_path) -> None:
    model = build()
    masks = masks_of_lowest(magnitude_scores(model), 0.5)
    config = TrainConfig(max_steps=4, batch_size=4, optimizer=optimizer, lr=0.01, eval_every=3,
                         checkpoint_every=2)
    start = model.blocks[0].attention.q_proj.weight.detach().clone()
    with masks_kept(model, masks):
        train(model, windows(), config, tmp_path / "run", stop_after=2)
    again = build()
    with masks_kept(again, masks):
        train(again, windows(), config, tmp_path / "run")
    for name, mask in masks.items():
        weight = again.get_submodule(name).weight
        assert not weight[~mask].any() and weight[mask].all(), name
    assert not torch.equal(again.blocks[0].attention.q_proj.weight, start)
    assert sparsity_of(again) == pytest.approx(0.5, abs=1e-3)
    whole = build()
    with masks_kept(whole, masks):
        train(whole, windows(), config)
    for (name, a), (_, b) in zip(again.named_parameters(), whole.named_parameters(), strict=True):
        assert torch.equal(a, b), f"{name}: resuming a masked run is not the run without a break"
    train(whole, windows(), config)  # outside of the block zeros learn again
    assert sparsity_of(whole) < 0.01


@pytest.mark.parametrize("config", [CONFIG, GPT2_LIKE], ids=["grouped", "gpt2"])
def test_heads_that_are_cut_out_equal_heads_that_are_masked(config: ModelConfig, tmp_path) -> None:
    model = build(config)
    small, masked = copy.deepcopy(model), copy.deepcopy(model)
    kept = prune_heads(small, wanda_scores(model, [ids()]), 2)
    group = config.num_heads // config.num_kv_heads
    for block, heads in zip(masked.blocks, kept, strict=True):
        gone = [h for h in range(config.num_kv_heads) if h not in heads]
        for head in gone:  # what a head writes passes these columns, and no others
            width = group * config.head_dim
            block.attention.o_proj.weight.data[:, head * width : (head + 1) * width] = 0
    assert_close(small(ids()), masked(ids()), atol=1e-6, rtol=0)
    assert small.blocks[0].attention.k_proj.weight.shape == (2 * config.head_dim, config.d_model)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    prompt = [3, 1, 4]
    assert generate(small, prompt, 8, temperature=0.0) == generate(
        masked, prompt, 8, temperature=0.0, cache=False)
    back = load_pretrained(save_pretrained(small, tmp_path))  # its config says what it is
    assert torch.equal(back(ids()), small(ids()))


@pytest.mark.parametrize("config", [CONFIG, GPT2_LIKE], ids=["gated", "gpt2"])
def test_channels_that_are_cut_out_equal_channels_that_are_masked(config, tmp_path) -> None:
    model = build(config)
    small, masked = copy.deepcopy(model), copy.deepcopy(model)
    kept = prune_channels(small, magnitude_scores(model), 16)
    for block, channels in zip(masked.blocks, kept, strict=True):
        gone = [c for c in range(config.d_ff) if c not in channels]
        block.feedforward.down_proj.weight.data[:, gone] = 0
    assert_close(small(ids()), masked(ids()), atol=1e-6, rtol=0)
    assert small.blocks[1].feedforward.up_proj.weight.shape == (16, config.d_model)
    back = load_pretrained(save_pretrained(small, tmp_path))
    assert torch.equal(back(ids()), small(ids()))


def test_the_head_that_writes_nothing_goes_first() -> None:
    model = build()
    with torch.no_grad():
        model.blocks[1].attention.o_proj.weight[:, 8:16] = 0  # what key/value head 1 leads to
    assert prune_heads(model, magnitude_scores(model), 2)[1].tolist() == [0, 2]


def test_a_cut_model_trains(tmp_path) -> None:
    model = build()
    prune_heads(model, magnitude_scores(model), 1)
    prune_channels(model, magnitude_scores(model), 8)
    trained = train(model, windows(), TrainConfig(max_steps=12, batch_size=8, lr=0.01))
    assert trained.losses[-1] < trained.losses[0]


@FEW
@given(st.integers(1, 70), st.floats(0, 1), st.sampled_from(
    [torch.float32, torch.float16, torch.bfloat16]))
def test_packing_is_undone_and_its_bytes_are_those_that_are_counted(size, share, dtype) -> None:
    generator = named_generator(size, f"{share}")
    weight = torch.randn(size, 3, generator=generator).to(dtype)
    weight[torch.rand(size, 3, generator=generator) < share] = 0
    bitmap, values = pack_sparse(weight)
    assert torch.equal(unpack_sparse(bitmap, values, weight.shape), weight)
    assert bitmap.nbytes + values.nbytes == sparse_bytes(weight)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 32), (torch.float16, 16),
                                             (torch.int8, 8)])
def test_from_which_share_of_zeros_sparse_is_smaller(dtype: torch.dtype, bits: int) -> None:
    weight = torch.ones(64, 64, dtype=dtype)
    zeros = math.floor(weight.numel() / bits)
    weight.view(-1)[:zeros] = 0
    assert sparse_bytes(weight) == weight.nbytes  # one zero in `bits` values: equal
    weight.view(-1)[zeros] = 0
    assert sparse_bytes(weight) < weight.nbytes


@pytest.mark.parametrize("config", [CONFIG, GPT2_LIKE], ids=["untied", "tied"])
def test_a_sparse_file_is_smaller_and_reads_back_exactly(config: ModelConfig, tmp_path) -> None:
    model = build(config)
    dense = save_sparse(model, tmp_path / "dense.safetensors").stat().st_size
    apply_masks(model, masks_of_lowest(magnitude_scores(model), 0.75))
    path = save_sparse(model, tmp_path / "sparse.safetensors")
    counted = sum(min(sparse_bytes(p), p.nbytes) for p in model.parameters())
    assert path.stat().st_size < dense
    assert counted <= path.stat().st_size < counted + 10_000  # the rest names the tensors
    back = load_sparse(path)
    assert torch.equal(back(ids()), model(ids())) and not back.training
    assert (back.lm_head.weight is back.token_embedding.weight) == config.tie_embeddings


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path) -> None:
    model = build()
    apply_masks(model, masks_of_lowest(magnitude_scores(model), 0.5))
    path = save_sparse(model, tmp_path / "model.safetensors")
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-40] ^= 1
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=r"model\.safetensors has changed"):
        load_sparse(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors \(.* bytes\) is cut short"):
        load_sparse(path)
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors was not written by save_sparse"):
        load_sparse(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        load_sparse(tmp_path / "nothing.safetensors")


def test_bad_input_is_refused_with_the_way_out() -> None:
    model = build()
    scores = magnitude_scores(model)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="is not within 0..1"):
            masks_of_lowest(scores, share)
    with pytest.raises(ValueError, match="scope='rows' is unknown; choose one of row"):
        masks_of_lowest(scores, 0.5, "rows")
    with pytest.raises(ValueError, match="no scores"):
        masks_of_lowest({}, 0.5)
    with pytest.raises(ValueError, match="NaN or infinite"):
        masks_of_lowest({"a": torch.tensor([[1.0, torch.nan]])}, 0.5)
    with pytest.raises(ValueError, match="in_features=6, which groups of m=4"):
        n_of_m_masks({"a": torch.ones(2, 6)})
    with pytest.raises(ValueError, match="n=5 is not within 1..m=4"):
        n_of_m_masks({"a": torch.ones(2, 8)}, 5)
    with pytest.raises(ValueError, match="saw no input"):
        wanda_scores(model, [])
    with pytest.raises(ValueError, match="fits no weight"):
        apply_masks(model, {"blocks.9.attention.q_proj": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="fits no weight"):
        apply_masks(model, {"blocks.0.attention.q_proj": torch.ones(24, 24)})
    with pytest.raises(ValueError, match="no nn.Linear"):
        magnitude_scores(nn.Embedding(3, 3))
    with pytest.raises(ValueError, match="num_kv_heads=4 is not within 1..3"):
        prune_heads(model, scores, 4)
    with pytest.raises(ValueError, match="d_ff=0 is not within 1..40"):
        prune_channels(model, scores, 0)
    with pytest.raises(ValueError, match="there is no score for blocks.0.attention.o_proj"):
        prune_heads(model, {}, 1)
    with pytest.raises(ValueError, match="LatentAttention"):
        latent = DecoderLM(CONFIG.with_(latent_dim=8, num_kv_heads=6))
        prune_heads(latent, magnitude_scores(latent), 1)
    with pytest.raises(ValueError, match="does not describe"):
        unpack_sparse(torch.tensor([255], dtype=torch.uint8), torch.ones(3), (2, 4))
    assert model.config == CONFIG  # a refusal changes nothing
    assert torch.equal(model(ids()), build()(ids()))


def test_transformers_models_are_pruned_too() -> None:
    from tests import tiny_models

    model = tiny_models.build("llama")
    apply_masks(model, masks_of_lowest(wanda_scores(model, [ids()]), 0.5, "row"))
    assert sparsity_of(model) == 0.5
    with pytest.raises(ValueError, match="Conv1D"):
        magnitude_scores(tiny_models.build("gpt2"))


def test_no_row_is_emptied_by_a_share_near_one() -> None:
    masks = masks_of_lowest({"layer": torch.rand(4, 8)}, 0.99, "row")
    assert masks["layer"].sum(-1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("cut", [lambda model, scores, size: prune_heads(model, scores, size),
                                 lambda model, scores, size: prune_channels(model, scores, size)])
def test_scores_made_before_a_cut_are_refused_after_it(cut) -> None:
    model = build()
    scores = magnitude_scores(model)
    cut(model, scores, 2)
    with pytest.raises(ValueError, match="before this model was cut"):
        cut(model, scores, 1)
    cut(model, magnitude_scores(model), 1)


def test_scores_with_a_sign_have_no_norm_to_rank_heads_by() -> None:
    model = build()
    scores = {name: -table for name, table in magnitude_scores(model).items()}
    with pytest.raises(ValueError, match="below zero"):
        prune_heads(model, scores, 1)
    with pytest.raises(ValueError, match="below zero"):
        prune_channels(model, scores, 4)


def test_a_sparse_file_whose_config_was_edited_is_refused(tmp_path) -> None:
    path = save_sparse(build(), tmp_path / "model.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(metadata["config"]) | {"norm_eps": 0.5}
    save_file(tensors, path, metadata | {"config": json.dumps(config)})
    with pytest.raises(ValueError, match="has changed since it was written"):
        load_sparse(path)


def test_layers_are_skipped_by_a_name_too() -> None:
    assert magnitude_scores(build(), "lm_head").keys() == magnitude_scores(build()).keys()
    assert "blocks.0.attention.o_proj" in magnitude_scores(build(), "d")  # no name ends in d


def test_movement_is_summed_in_float32_and_asks_for_layers_that_learn() -> None:
    model = build().bfloat16()
    with movement_scores(model) as scores:
        for part in ids().split(1):
            model(part).float().logsumexp(-1).sum().backward()
    assert {score.dtype for score in scores.values()} == {torch.float32}
    layer = model.blocks[0].attention.o_proj
    layer.weight.requires_grad_(False)
    with (pytest.raises(ValueError, match=r"blocks\.0\.attention\.o_proj and 0 more layers are "
                        "frozen"), movement_scores(model)):
        pass
    assert not any(linear.weight._backward_hooks for linear in model.modules()
                   if isinstance(linear, nn.Linear) and linear is not layer)


def test_wanda_does_not_round_its_scores_to_the_type_of_the_weights() -> None:
    model = build().bfloat16()
    scores = wanda_scores(model, [ids()])["blocks.1.feedforward.down_proj"]
    assert scores.dtype == torch.float32 and len(scores.unique()) > 0.9 * scores.numel()


def test_a_dense_checkpoint_that_is_loaded_within_is_masked_at_the_end() -> None:
    model, dense = build(), copy.deepcopy(build().state_dict())
    masks = masks_of_lowest(magnitude_scores(model), 0.5)
    with masks_kept(model, masks):
        model.load_state_dict(dense)
    assert sparsity_of(model) == pytest.approx(0.5, abs=0.01)


def rewritten(path, edit, tensors: dict | None = None) -> None:
    """The same file with an edited config or other tensors, and the hash that belongs to them."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    found |= tensors or {}
    config = json.dumps(json.loads(metadata["config"]) | edit)
    save_file(found, path, metadata | {"config": config, "sha256": digest(found, config)})


@pytest.mark.parametrize(("edit", "tensors", "message"), [
    ({"d_ff": 48}, {}, "has shape"), ({"num_layers": 10**9}, {}, "1000000000 layers in"),
    ({}, {"stray": torch.ones(2)}, "stray is no tensor of it")], ids=["width", "layers", "extra"])
def test_a_sparse_file_that_is_not_what_it_says_is_refused(tmp_path, edit, tensors, message):
    path = save_sparse(build(), tmp_path / "model.safetensors")
    rewritten(path, edit, tensors)
    with pytest.raises(ValueError, match=rf"model\.safetensors does not hold .*{message}"):
        load_sparse(path)


def test_a_bitmap_is_a_row_of_bytes() -> None:
    bitmap, values = pack_sparse(torch.eye(8))
    for wrong in (bitmap[None], bitmap.int()):
        with pytest.raises(ValueError, match="a bitmap is a row of uint8"):
            unpack_sparse(wrong, values, (8, 8))
