"""The exact counts of LoRA on Llama-3-8B, on the meta device and by hand."""

import doctest

import pytest

from scratchbook import cli
from scratchbook.config import PRESETS
from scratchbook.finetuning import ledger
from scratchbook.finetuning.ledger import count_adapter, llama_claims, ways_to_tune

LLAMA = PRESETS["llama-3-8b"]


def test_queries_and_values_of_llama():
    found = count_adapter(LLAMA)
    # 32 layers: a query matrix of 4096 x 4096 and, of 8 heads for keys and values, 1024 x 4096
    assert found.learned == 32 * 8 * ((4096 + 4096) + (4096 + 1024)) == 3_407_872
    assert found.base == 8_030_261_248
    assert round(100 * found.share, 3) == 0.042
    assert found.adapter_bytes == 6_815_744 and round(found.adapter_bytes / 1e6, 1) == 6.8


def test_all_linear_layers_of_llama():
    found = count_adapter(LLAMA, "all-linear")
    attention = 2 * (4096 + 4096) + 2 * (4096 + 1024)
    assert found.learned == 32 * 8 * (attention + 3 * (4096 + 14_336)) == 20_971_520
    assert round(100 * found.share, 2) == 0.26
    assert round(found.adapter_bytes / 1e6, 1) == 41.9


def test_the_claims_beside_the_counts():
    claims = {claim.said: claim for claim in llama_claims()}
    by_share = {claim.claimed: claim.factor for claim in claims.values() if claim.unit == "%"}
    assert by_share == {0.1: pytest.approx(2.356, abs=1e-3), 0.5: pytest.approx(11.78, abs=1e-2)}
    assert claims["about 40M parameters learn"].counted == pytest.approx(3.407872)
    assert claims["40 MB of LoRA weights"].factor == pytest.approx(5.869, abs=1e-3)
    assert claims["16 GB of base weights"].factor == pytest.approx(0.996, abs=1e-3)
    # two of the claims contradict each other: 40M of 8.03 billion is 0.5 %, five times 0.1 %
    assert 40e6 / count_adapter(LLAMA).base == pytest.approx(0.005, rel=0.01)


def test_what_tuning_eight_billion_takes_before_it_starts(capsys):
    asked = ["cost", "--finetune", "llama-3-8b", "--train.batch_size", "1", "--data.seq_len", "512",
             "--train.max_steps", "300", "--memory", "24", "--speed", "100", "--rate", "2"]
    assert cli.main(asked) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    # 16 bytes a number: the weight, its gradient and two means in float32
    assert "weights 32.12, gradients 32.12, optimizer 64.24" in lines["full"]
    assert "does not fit" in lines["full"] and "weights 16.07" in lines["LoRA"]
    assert "3,407,872 numbers learn" in lines["QLoRA"] and ", fits: weights 5." in lines["QLoRA"]
    found = ways_to_tune(LLAMA, 1, 512)
    assert found["LoRA"]["saved"] == found["QLoRA"]["saved"] < found["full"]["saved"]
    for more, said in ((["--finetune", "gpt9"], "model 'gpt9' is unknown"),
                       (["--finetune", "gpt2", "--targets", "query"], "target 'query'"),
                       (["--finetune", "gpt2", "--rank", "-1"], "lora_rank=-1")):
        assert cli.main(["cost", *more]) == 2
        assert said in capsys.readouterr().err


def test_another_rank_is_in_proportion_and_bad_targets_are_named():
    assert count_adapter(LLAMA, lora_rank=16).learned == 2 * count_adapter(LLAMA).learned
    with pytest.raises(ValueError, match="'query' names no linear layer"):
        count_adapter(LLAMA, "query")
    assert doctest.testmod(ledger).failed == 0
