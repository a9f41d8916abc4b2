"""The figures and tables of chapter 02b say what their data shows; its sums are right."""

import json
import math

import matplotlib.pyplot as plt
import pytest
import torch

from scratchbook.attention import (
    LatentAttention,
    LinearAttention,
    MultiHeadAttention,
    attend,
    causal_mask,
)
from scratchbook.cache import KVCache, StateCache, WindowCache
from scratchbook.companions import variants_figures as figures
from scratchbook.companions import variants_tables as tables
from scratchbook.positions import RotaryEmbedding

SIZES = {"layers": 3, "heads": 8, "kv_heads": 2, "head_dim": 4, "latent": 12, "rope": 6,
         "window": 5, "context": 90, "batch": 2, "size": 4}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize(("kind", "layer", "cache"), [
    ("MHA", lambda: MultiHeadAttention(32, 8), lambda: KVCache(90)),
    ("GQA", lambda: MultiHeadAttention(32, 8, 2), lambda: KVCache(90)),
    ("MQA", lambda: MultiHeadAttention(32, 8, 1), lambda: KVCache(90)),
    ("window", lambda: MultiHeadAttention(32, 8, 2, window=5), lambda: WindowCache(5)),
    ("latent", lambda: LatentAttention(32, 8, 12, rope_dim=6, rotary=RotaryEmbedding(6)),
     lambda: KVCache(90)),
    ("linear", lambda: LinearAttention(32, 8, RotaryEmbedding(4)), StateCache),
])
def test_the_formula_equals_the_tensors(kind, layer, cache):
    layers, total = [layer() for _ in range(3)], 0
    for each in layers:
        kept = cache()
        each(torch.zeros(2, 90, 32), cache=kept)
        total += figures.measured_bytes(kept)
    assert figures.cache_bytes(kind, **SIZES) == total


def test_the_state_does_not_grow_and_the_window_stops():
    def at(kind, context):
        return figures.cache_bytes(kind, **SIZES | {"context": context})

    assert at("linear", 10) == at("linear", 10_000) == 3 * 2 * 4 * 8 * 4 * 5
    assert at("window", 1000) == at("window", 10_000) < at("GQA", 1000)


def test_slopes_of_power_laws():
    assert figures.slope({n: 3 * n**1.7 for n in (10, 20, 80)}) == pytest.approx(1.7)
    assert figures.middles({"5": [3.0, 1.0, 2.0]}) == {5: 2.0}


def test_bytes_at_once_forgets_what_was_let_go():
    def one_after_the_other():
        for _ in range(5):
            torch.zeros(1000)

    def together():
        return [torch.zeros(1000) for _ in range(5)]

    assert figures.peak_bytes(one_after_the_other) in (4000, 8000)
    assert figures.peak_bytes(together) == 20_000
    q, k, v = torch.randn(3, 1, 1, 256, 4)
    assert figures.peak_bytes(lambda: attend(q, k, v, causal_mask(256))) > 2 * 4 * 256**2


def test_the_kept_bytes_of_a_mixture_are_those_of_its_layers():
    kinds = {"GQA": ["GQA"] * 2, "mixed": ["window", "MHA"], "wide latent": ["wide latent"] * 2,
             "latent": ["latent"] * 2}
    kept = figures.kept_bytes(kinds, heads=4, head_dim=16, window=16)
    assert kept["GQA"] == 2 * 4 * 2 * 2 * 16 * 1024
    assert kept["mixed"] == 4 * 2 * 4 * 16 * (1024 + 15 + 64)
    assert (kept["latent"], kept["wide latent"]) == (2 * 4 * 24 * 1024, 2 * 4 * 72 * 1024)


def test_decoding_leaves_the_past_as_it_was():
    state = figures.decode_seconds(LinearAttention(8, 2), lambda _: StateCache(), 20, repeats=2)
    assert len(state) == 2
    found = figures.decode_seconds(MultiHeadAttention(8, 2), KVCache, 20, batch=3, repeats=4)
    assert len(found) == 4 and min(found) > 0


def numbers(worse: float = 0.3) -> dict:
    names = ("MHA", "GQA, half", "GQA, quarter", "MQA", "window", "latent")
    runs = [1.0, 1.01, 0.99, 1.0, 1.02]
    decode = {name: {"512": runs, "2048": [2 * r for r in runs]} for name in names}
    decode["latent"]["2048"] = [r / 2 for r in runs]
    square = {"512": [1.0] * 3, "1024": [4.0] * 3}
    line = {"512": [0.1, 0.11, 0.1], "1024": [0.2, 0.21, 0.2]}
    quality = {name: [3.0 + i * worse, 3.1 + i * worse, 3.05 + i * worse]
               for i, name in enumerate(("MHA", "GQA", "MQA", "latent", "window", "linear"))}
    return {"bytes": dict(zip(names, (800, 400, 200, 100, 160, 125), strict=True)),
            "decode": decode, "decode 8": dict.fromkeys(names, runs),
            "prefill": {"table": square, "tiles": square, "band": line,
                        "torch's kernel": {"512": [0.1, 0.11, 0.1], "1024": [0.3, 0.31, 0.3]}},
            "memory": {"table": {"512": 1, "1024": 4}, "tiles": {"512": 1, "1024": 2},
                       "band": {"512": 1, "1024": 2}}, "quality": quality, "off_by_one": 0.02,
            "costs": {"rows of one query": runs, "keys copied": [2 * run for run in runs],
                      "absorbed, one word": runs, "unpacked, one word": runs[::-1],
                      "absorbed, a prompt": [2 * run for run in runs],
                      "unpacked, a prompt": runs}}


def test_claims_are_judged_by_the_numbers():
    rows = {(row["said"], row["measured"]): row["verdict"] for row in tables.claim_rows(numbers())}
    found = [verdict for (said, _), verdict in rows.items() if said.startswith("MLA: much")]
    assert found == ["much faster (4.00 times as fast)", "no clear difference (1.00 times as fast)"]
    assert rows["GQA: 2 to 4 times less memory", "2.0 and 4.0 times"] == "holds"
    assert rows["MLA: 3 to 5 times less memory", "6.4 times"] == "more"
    assert rows["Window: linear memory", "slope 1.00"] == "holds"
    # a prompt in bands is held against torch's kernel too, not against the readable table alone
    fast = [verdict for (said, where), verdict in rows.items()
            if said == "Window: much faster" and ("table" in where or "kernel" in where)]
    assert fast == ["much faster (20.00 times as fast)", "faster (1.50 times as fast)"]
    best = rows["Standard: best quality", "5 others"]
    assert best == "clearly better than 5, clearly worse than 0"
    same = {row["said"]: row["verdict"] for row in tables.claim_rows(numbers(worse=0.0))}
    assert same["GQA: slightly lower quality"] == "no clear difference"
    assert same["Standard: best quality"] == "clearly better than 0, clearly worse than 0"


def test_box_summary_and_tables_tell_the_same():
    for worse, word in ((0.3, "worse"), (0.0, "no clear difference")):
        told = json.loads(json.dumps(numbers(worse)))
        lines = tables.findings(told)
        assert f"GQA {word}, MQA {word}" in lines[5] and "latent: 1/6.4" in lines[0]
        assert f"{word}: GQA, MQA, latent, window, linear." in tables.summary_lines(told)[1]
        rows = tables.quality_rows(told["quality"], dict.fromkeys(told["quality"], 2048))
        assert [row["than MHA"] for row in rows] == ["itself"] + [word] * 5
        assert rows[0]["KiB of cache"] == 2
    assert tables.decode_line(told["decode"]) == lines[2] == tables.summary_lines(told)[0]
    assert "latent much faster (4.00 times as fast)" in lines[2]
    words = [one.word for one in tables.compare_costs(told["costs"])]
    assert words == ["faster", "no clear difference", "slower"]
    assert "keys copied: faster" in lines[3] and "unpacked, a prompt: slower" in lines[3]


def test_the_recorded_table_says_which_run_it_is(monkeypatch, tmp_path):
    assert "scratchbook run 02b_attention_variants --profile full" in tables.recorded_caption()
    monkeypatch.setattr("scratchbook.teaching.results.results_dir", lambda: tmp_path)
    monkeypatch.setattr("scratchbook.teaching.results.own_results_dir", lambda: tmp_path)
    assert tables.recorded_caption() == "The same, in a full run"
    assert tables.recorded_rows()[0]["said"] == "not recorded"


def test_the_picture_of_sharing_says_what_is_kept():
    figure, alt = figures.plot_sharing(4)
    assert [ax.get_title() for ax in figure.axes] == ["MHA", "GQA", "MQA", "latent"]
    boxes = [[t.get_text() for t in ax.texts].count("k v") for ax in figure.axes]
    assert boxes == [4, 2, 1, 4] and "MHA: 4 keys" in alt and "GQA: 2" in alt
    ends = [{line.get_xdata()[1] for line in ax.lines[:4]} for ax in figure.axes]
    assert [len(found) for found in ends] == [4, 2, 1, 4]


def test_alternative_texts_carry_the_numbers():
    _, alt = figures.plot_powers({"seconds": {"a": {1: 1.0, 2: 4.0}}})
    assert "seconds, a: slope 2.00" in alt
    _, alt = figures.plot_masks({"all": causal_mask(3), "two": causal_mask(2)})
    assert "all: 6 of 9 filled, the last row 3" in alt
    _, alt = figures.plot_quality({"a": [1.0, 2.0, 3.0]}, {"a": 2048}, 10)
    assert "a 2.000 ± 2.484 with 2 KiB" in alt
    _, alt = figures.plot_windows({"put on": {2: [3.0, 5.0], 96: [1.0, 1.0]}})
    assert "put on, 2: 4.000" in alt and "put on, 96: 1.000" in alt
    data = json.loads(json.dumps(figures.live_data()))
    assert figures.calculator_still(data).startswith("<svg")
    assert all(math.log2(s[k]).is_integer() for s in data["presets"].values()
               for k in ("context", "window", "batch")), "the sliders move by powers of two"


def test_each_kernel_is_tried():
    q, k, v = torch.randn(3, 1, 2, 8, 16)
    mask = causal_mask(8)
    want = attend(q, k, v, mask)
    rows = {row["kernel"]: row for row in tables.backend_rows(q, k, v, mask, want)}
    assert set(rows) == {"math", "flash", "efficient", "cudnn"}
    assert rows["math"]["causal"].startswith("yes, off by")
