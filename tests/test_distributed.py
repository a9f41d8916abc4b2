"""Several processes compute what one does: collectives, and four ways to divide the work."""

import math
import time

import pytest
import torch

from scratchbook.accounting import total_parameters
from scratchbook.companions.distributed_ways import (
    OURS,
    SIZES,
    go_on,
    largest_difference,
    lose_one,
    mean_loss,
    same_batches,
    same_model,
    train_way,
    train_ways,
)
from scratchbook.distributed import RanksFailed, gpipe_schedule, run_ranks, zero_bytes
from scratchbook.distributed.data_parallel import RankBatches
from scratchbook.distributed.pipeline import bubble_share
from scratchbook.training.optim import build_optimizer
from tests import rank_work

FLOAT64 = 1e-12  # 20 steps of sums in another order; float32 is judged in the parity tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def pair(folder):
    return run_ranks(rank_work.pair, 2, str(folder))


@pytest.fixture(scope="module")
def four():
    return run_ranks(train_ways, 4, OURS)


@pytest.fixture(scope="module")
def alone():
    return run_ranks(train_way, 1, "one process")[0]


def apart(one, other):
    assert one.keys() == other.keys()
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def test_the_ring_sums_as_torch_does_and_all_ranks_get_the_same_bits(pair):
    for shape, first in pair[0]["rings"]["sums"].items():
        second = pair[1]["rings"]["sums"][shape]
        assert torch.equal(first["own"], second["own"])
        assert torch.allclose(first["own"], first["expected"], atol=1e-6, rtol=0)
    rings = pair[0]["rings"]
    # two ranks: half of eight numbers to scatter, half to gather, four bytes each
    assert rings["sums"]["(8,)"]["sent"] == 2 * 4 * 4
    assert rings["gathered_sent"] == 3 * 4 and rings["scattered_sent"] == 2 * 4
    for rank, said in enumerate(pair):
        assert said["rings"]["gathered"][:, 0].tolist() == [1.0, 2.0]
        assert said["rings"]["own chunk"].tolist() == [100 + 4 * rank, 102 + 4 * rank]
    assert "not contiguous" in rings["not contiguous"]
    assert "3 chunks for 2 ranks" in rings["wrong chunks"]


def test_buckets_weigh_ranks_by_their_targets_and_parts_add_up(pair):
    model = same_model()
    batch = rank_work.Uneven().batch(0, rank_work.ROWS)
    (rank_work.mean_sum(model, batch) / rank_work.counted(batch)).backward()
    expected = rank_work.gradients_of(model)
    for said in (each["buckets"] for each in pair):
        # the loop's loss is in float32, whatever the model: its gradients are as exact as that
        assert apart(said["at once"], expected) < 1e-8
        assert apart(said["in parts"], expected) < 1e-8
        assert apart(said["under no_sync"], expected) < 1e-14
        assert not said["sent in no_sync"] and said["counted"] == rank_work.counted(batch)
    shares = [each["buckets"]["share"] for each in pair]
    assert shares[0] > shares[1] and math.isclose(sum(shares), 1)
    equal = run_mean(expected, pair)
    assert equal > 1e-3  # a plain mean of the ranks' means would be seen


def run_mean(expected, pair):
    """How far the plain mean of both halves' mean gradients is from the gradient of the whole."""
    batch = rank_work.Uneven().batch(0, rank_work.ROWS)
    halves = []
    for part in (batch.part(0, 4), batch.part(4, 8)):
        model = same_model()
        (rank_work.mean_sum(model, part) / rank_work.counted(part)).backward()
        halves.append(rank_work.gradients_of(model))
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in expected}
    return apart(mean, expected)


def test_buckets_leave_while_gradients_are_still_to_come(pair):
    launched = pair[0]["buckets"]["launched"]
    assert len(launched) > 3 and launched == sorted(launched, reverse=True)
    assert launched[0] > 20 and launched[-1] == 0


def test_what_cannot_be_divided_is_refused(pair):
    said = pair[0]["refusals"] | pair[0]["buckets"]
    for name, words in {
            "heads": "num_heads=3", "bias": "bias='none'", "alibi": "ALiBi", "stages": "1 blocks",
            "dropout": "dropout=0.1", "micro": "3 micro-batches", "masked": "mask",
            "stage": "stage=4", "muon": "whole matrices", "no gradient": "no gradient",
            "unreached": "got no gradient", "ragged": "7 rows"}.items():
        assert words in said[name], (name, said[name])
    assert said["unreached"].startswith("final_norm.weight got no gradient")


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_clips_schedules_and_accumulates_as_one_process(pair, stage):
    expected = rank_work.alone()
    for rank in (0, 1):
        found = pair[rank]["zero"][stage]
        assert apart(found["weights"], expected["weights"]) < FLOAT64
        assert found["norms"] == pytest.approx(expected["norms"], abs=1e-12)
        assert found["losses"] == pytest.approx(expected["losses"], abs=1e-12)
    assert min(expected["norms"]) > 0.5  # every step was clipped


def test_a_sharded_run_goes_on_with_another_number_of_ranks(pair, folder):
    assert pair[0]["first"]["began"] == 0
    later = run_ranks(go_on, 3, str(folder), 3, 5)
    assert [each["began"] for each in later] == [3, 3, 3]
    last = run_ranks(go_on, 1, str(folder), 1, 6)[0]
    model = same_model()
    optimizer = build_optimizer(model, **rank_work.OPTIONS)
    for step in range(6):
        optimizer.zero_grad()
        mean_loss(model, same_batches().batch(step, 12)).backward()
        optimizer.step()
    expected = {name: p.detach() for name, p in model.named_parameters()}
    assert last["began"] == 5 and apart(last["weights"], expected) < FLOAT64
    assert apart(later[0]["weights"], expected) > 1e-4  # a step is seen


def test_ranks_decide_alike_when_to_stop_and_which_weights_were_best(pair, tmp_path):
    alone = rank_work.run_with_patience(str(tmp_path / "run"), ranks_apart=False)
    assert alone["stop_reason"] == "out of patience" and alone["best"] < alone["step"] < 40
    for rank in (0, 1):
        found = pair[rank]["patience"]
        assert [found[key] for key in ("stop_reason", "best", "step")] == [
            alone[key] for key in ("stop_reason", "best", "step")]
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-5)  # float32
        assert apart(found["weights"], alone["weights"]) < 1e-3
    assert apart(pair[0]["patience"]["weights"], pair[1]["patience"]["weights"]) == 0


def test_ranks_draw_their_dropout_apart_and_the_same_at_every_start():
    drawn = []
    for rank in (0, 1, 1):
        torch.manual_seed(5)
        RankBatches(same_batches(), rank, 2).batch(0, 8)
        drawn.append(torch.rand(4).tolist())
    torch.manual_seed(5)
    assert drawn[0] == torch.rand(4).tolist()  # rank 0 draws as one process does
    assert drawn[0] != drawn[1] == drawn[2]


def test_a_run_goes_on_with_other_ranks_only_on_the_same_data():
    prints = {RankBatches(same_batches(), rank, ranks).fingerprint()
              for rank, ranks in ((0, 1), (0, 2), (3, 4))}
    assert prints == {same_batches().fingerprint()}


def test_shared_heads_and_their_norms_are_cut_right(pair):
    sizes = SIZES.with_(num_kv_heads=2, qk_norm=True, bias="qkv")
    model = same_model(sizes)
    loss = mean_loss(model, same_batches(sizes).batch(0, rank_work.ROWS))
    loss.backward()
    whole = rank_work.gradients_of(model)
    for rank in (0, 1):
        found = pair[rank]["gqa"]
        assert found["loss"] == pytest.approx(loss.item(), abs=1e-13)
        for name, gradient in found["gradients"].items():
            expected = whole[name]
            if expected.shape != gradient.shape:
                dim = next(d for d in (0, 1) if expected.shape[d] != gradient.shape[d])
                expected = expected.chunk(2, dim)[rank]
            assert torch.allclose(gradient, expected, atol=1e-14, rtol=0), name


def test_a_pipeline_of_untied_ends(pair):
    sizes = SIZES.with_(tie_embeddings=False, positions="learned", norm="layer")
    model = same_model(sizes)
    mean_loss(model, same_batches(sizes).batch(0, rank_work.ROWS)).backward()
    whole = rank_work.gradients_of(model)
    both = pair[0]["untied"]["gradients"] | pair[1]["untied"]["gradients"]
    assert apart(both, whole) < 1e-14
    assert not pair[0]["untied"]["gradients"].keys() & pair[1]["untied"]["gradients"].keys()


def test_micro_batches_weigh_by_their_targets(pair):
    model = same_model()
    batch = rank_work.Uneven().batch(0, rank_work.ROWS)
    loss = rank_work.mean_sum(model, batch) / rank_work.counted(batch)
    loss.backward()
    whole = rank_work.gradients_of(model)
    first, last = (each["uneven pipeline"]["gradients"] for each in pair)
    tied = last.pop("lm_head.weight")  # stands at both ends, with the sum of both
    assert torch.equal(tied, first["token_embedding.weight"])
    assert apart(first | last, whole) < 1e-14
    for each in pair:
        assert each["uneven pipeline"]["loss"] == pytest.approx(loss.item(), abs=1e-13)


@pytest.mark.parametrize("way", ["ZeRO-1", "ZeRO-3", "tensor parallel"])
def test_ranks_that_begin_apart_take_the_weights_of_rank_0(pair, way):
    expected = {name: p.detach() for name, p in same_model().named_parameters()}
    for each in pair:
        assert apart(each["begun apart"][way], expected) == 0


def test_a_schedule_goes_on_where_the_shards_were_saved(pair):
    for each in pair:
        assert each["rates"] == pytest.approx([0.125] * len(each["rates"]))
        assert len(each["rates"]) == 2


@pytest.mark.parametrize("way", OURS)
def test_four_processes_train_as_one(four, alone, way):
    for rank in range(4):
        assert largest_difference(four[rank][way], alone) < FLOAT64
        assert four[rank][way]["losses"] == pytest.approx(alone["losses"], abs=FLOAT64)
    assert alone["losses"][-1] < alone["losses"][0] - 0.05  # something was learned


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_rank_holds_what_the_formula_says(four, stage):
    predicted = zero_bytes(total_parameters(SIZES), 4, stage, itemsize=8)
    for rank in range(4):
        held = four[rank]["DDP" if stage == 0 else f"ZeRO-{stage}"]["held"]
        for part, size in predicted.items():
            assert size <= held[part] <= size * 1.01  # shards are padded to equal lengths


def test_the_fullest_moment_grows_by_one_layer_not_by_all(four):
    whole = total_parameters(SIZES) * 8
    outside = 8 * 64 * 32 + 8 * 32  # embeddings and final norm stay whole for a step
    layer = (whole - outside) // 4
    at_rest = [sum(zero_bytes(total_parameters(SIZES), 4, stage, itemsize=8).values())
               for stage in range(4)]
    for rank in range(4):
        most = {stage: four[rank][f"ZeRO-{stage}"]["most"] for stage in (1, 2, 3)}
        # stage 2: gradients of one layer, and of what is outside, before they are summed
        assert at_rest[2] < most[2] <= 1.01 * at_rest[2] + layer + outside < most[1]
        # stage 3: its weights too
        assert at_rest[3] < most[3] <= 1.01 * at_rest[3] + 2 * (layer + outside)
        assert 1.01 * at_rest[3] + 2 * (layer + outside) < at_rest[3] + whole


def test_slices_and_stages_hold_their_share(four):
    whole = total_parameters(SIZES) * 8
    blocks = whole - 8 * 64 * 32 - 8 * 32 - 8 * 4 * 2 * 32  # embeddings and norms stay whole
    held = [each["tensor parallel"]["held"]["parameters"] for each in four]
    assert held == [whole - blocks + blocks // 4] * 4
    stages = [each["GPipe"]["held"]["parameters"] for each in four]
    assert sum(stages) == whole + 8 * 64 * 32  # the tied matrix stands at both ends


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 3), (2, 1), (2, 4), (4, 4), (4, 16)])
def test_the_bubble_is_what_the_paper_says(stages, micro_batches):
    assert bubble_share(stages, micro_batches) == pytest.approx(
        (stages - 1) / (micro_batches + stages - 1))
    schedule = gpipe_schedule(stages, micro_batches)
    begins = [{(slot.micro_batch, slot.backward): slot.begins for slot in slots}
              for slots in schedule]
    for m in range(micro_batches):  # no one reads what is not yet there
        for s in range(1, stages):
            assert begins[s][m, False] > begins[s - 1][m, False]
            assert begins[s - 1][m, True] > begins[s][m, True]
        assert begins[-1][m, True] > begins[-1][m, False]
    for slots in schedule:  # and does two things at once
        assert len({slot.begins for slot in slots}) == 2 * micro_batches


def test_a_rank_that_dies_ends_the_others_within_seconds():
    began = time.monotonic()
    with pytest.raises(RanksFailed, match="rank 1 of 2 was ended by SIGKILL; the others were"):
        run_ranks(lose_one, 2, 1)
    assert time.monotonic() - began < 30  # start included, on a busy machine


def test_the_first_error_is_the_one_that_is_told():
    with pytest.raises(RanksFailed, match="rank 0 of 2 failed.*a batch of stones") as found:
        run_ranks(rank_work.failing, 2)
    assert "rank_work.py" in found.value.__notes__[0]


def test_ranks_that_wait_for_ever_are_named():
    with pytest.raises(RanksFailed, match=r"ranks \[0, 1\] of 2 did not end within 4 s"):
        run_ranks(rank_work.waiting, 2, seconds=4)
    with pytest.raises(ValueError, match="nproc=0"):
        run_ranks(rank_work.waiting, 0)
