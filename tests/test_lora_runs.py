"""The experiments of chapter 08 in miniature: their shapes, their pairing, runs kept on disk."""

import copy
import json

import pytest
import torch

from scratchbook.base_model import END
from scratchbook.companions import lora_bench, lora_controls, lora_runs, lora_tasks
from scratchbook.companions.lora_bench import Bench, bits, judged
from scratchbook.companions.lora_replay import Replay, joined, text_rows
from scratchbook.data.batches import IGNORED, Batch
from scratchbook.data.documents import Document
from scratchbook.finetuning import apply_syntax_lora, class_shares, trainable_count
from scratchbook.finetuning.token_classes import CLASSES
from scratchbook.generation import generate
from scratchbook.teaching.results import Result


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench([0, 1, 2], steps=2, runs=tmp_path_factory.mktemp("runs"))


# the tasks


def test_a_task_names_what_is_asked_and_its_answer():
    function = ("read_all", "path, size=3", "path, size=size")
    assert lora_tasks.example("calls", function) == {
        "prompt": "def read_all(path, size=3):\n# a call:\n",
        "completion": "read_all(path, size=size)\n"}
    assert lora_tasks.example("tests", function)["completion"] == "class TestReadAll(TestCase):\n"
    with pytest.raises(ValueError, match="there are: calls, tests"):
        lora_tasks.example("poems", function)


def test_held_out_functions_are_never_learned_from_and_the_same_for_all_seeds():
    first, second = (lora_tasks.examples("calls", 300, seed) for seed in (0, 1))
    assert first[1] == second[1] and len(first[1]) == lora_tasks.HELD_OUT
    assert first[0] != second[0]
    for train, held_out in (first, second):
        assert not {e["prompt"] for e in train} & {e["prompt"] for e in held_out}
        assert len({e["prompt"] for e in train}) == 300
    with pytest.raises(ValueError, match="functions at hand"):
        lora_tasks.examples("calls", 10**6, 0)


def test_a_written_file_is_what_the_task_trains_on(tmp_path, bench):
    path = lora_tasks.write_jsonl("tests", tmp_path / "tests.jsonl", count=5, seed=3)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    data = lora_tasks.task("tests", bench.tokenizer, 5, 3)
    assert [bench.tokenizer.decode(e.ids) for e in data.train] == [
        line["prompt"] + line["completion"] + END for line in lines]


# the bench


@pytest.mark.slow
def test_exactly_right_is_what_greedy_decoding_writes(bench):
    data = bench.task(0)
    model = bench.made(lora_runs.whole, 0)
    bench.learn(model, data, 1e-3, 0, steps=12)
    right = 0
    for example in data.validation_examples:
        start = example.answer.index(True)
        wanted = example.ids[start:]
        right += generate(model, example.ids[:start], len(wanted), temperature=0.0) == wanted
    found = judged(model, data)
    assert found["exact"] == right / len(data.validation_examples)
    assert found["bits"] == pytest.approx(bits(model, data), rel=1e-5)
    assert found["bits"] < bits(bench.base, data)


@pytest.mark.slow
def test_a_kept_run_is_read_and_another_is_made(bench):
    make = lora_runs.lora("q, v", 1)
    first = bench.run("LoRA q, v 1", make, 1e-2, 0)
    files = set(bench.runs.rglob("*.json"))
    assert bench.run("LoRA q, v 1", None, 1e-2, 0) == first     # nothing is trained again
    assert set(bench.runs.rglob("*.json")) == files
    assert bench.run("LoRA q, v 1", make, 1e-2, 1)["bits"] != first["bits"]
    assert bench.run("LoRA q, v 1", make, 1e-3, 0)["bits"] != first["bits"]
    plain = Bench([0], steps=2)
    plain.base = bench.base
    again = plain.run("LoRA q, v 1", make, 1e-2, 0)
    assert again["bits"] == first["bits"] and again["trainable"] == 6 * (2 * 512)


@pytest.mark.slow
def test_the_rate_is_chosen_by_a_seed_that_is_not_reported(bench):
    assert lora_bench.TUNING_SEED not in bench.seeds
    row = bench.tuned("LoRA q, v 1", lora_runs.lora("q, v", 1), (1e-9, 1e-2))
    assert row["rate"] == 1e-2 and list(row["tried"]) == ["1e-09", "0.01"]
    assert len(row["bits"]) == len(row["accuracy"]) == 3 and row["tried"]["0.01"] not in row["bits"]


# the experiments


@pytest.mark.slow
def test_every_way_is_measured_for_every_seed(bench, monkeypatch):
    monkeypatch.setattr(lora_runs, "RATES", {"full": (1e-3,), "LoRA": (1e-2,)})
    found = lora_runs.against(bench, counts=(1,))
    assert list(found)[0] == "base" and list(found)[2:] == ["LoRA", "full"]
    for row in found.values():
        assert len(row["bits"]) == len(row["accuracy"]) == 3
    assert len(set(found["base"]["bits"])) == 1 and found["base"]["trainable"] == 0
    assert found["full"]["trainable"] == sum(p.numel() for p in bench.base.parameters())
    assert found["LoRA"]["trainable"] < 0.1 * found["full"]["trainable"]


@pytest.mark.slow
def test_adapters_that_know_syntax_learn_as_many_numbers(bench, monkeypatch):
    monkeypatch.setattr(lora_runs, "RATES", {"full": (1e-3,), "LoRA": (1e-2,)})
    found = lora_runs.code_aware(bench, every=1)
    assert len({row["trainable"] for row in found.values()}) == 1
    for row in found.values():
        assert [len(curve) for curve in row["curves"]] == [2, 2, 2]
        assert all(1 <= step <= 3 for step in row["steps"])


@pytest.mark.slow
def test_the_family_learns_about_as_many_numbers(bench, monkeypatch):
    monkeypatch.setattr(lora_runs, "SMALL_RATES", dict.fromkeys(lora_runs.SMALL_RATES, (1e-2,)))
    monkeypatch.setattr(bench, "seeds", [0])
    found = lora_runs.family(bench)
    counts = {name: row["trainable"] for name, row in found.items()}
    assert max(counts.values()) <= 1.1 * min(counts.values()), counts


@pytest.mark.slow
def test_each_run_stops_where_the_task_is_at_the_mark(bench, monkeypatch):
    monkeypatch.setattr(lora_runs, "MARK_RATES", {"full": (1e-9, 5e-4), "LoRA": (3e-3,)})
    found = lora_runs.at_the_mark(bench, part=0.8, steps=12, every=3)
    never = found["tried"]["full"].pop("1e-09")
    assert never["step"] == 12 and not never["reached"] and never["task"] > found["mark"]
    for run in (found["tried"]["full"]["0.0005"], found["tried"]["LoRA"]["0.003"]):
        assert run["reached"] and run["task"] <= found["mark"]
        assert run["step"] in (3, 6, 9)  # of twelve that it might have taken
        assert run["text"] > found["base bits"] > 1


@pytest.mark.slow
def test_forgetting_has_a_row_for_each_task_and_a_column_for_each_text(bench, monkeypatch):
    monkeypatch.setattr(lora_runs, "RATES", {"full": (5e-4,), "LoRA": (3e-3,)})
    monkeypatch.setattr(bench, "steps", 6)  # after two the sign is the processor's rounding
    monkeypatch.setattr(bench, "seeds", [0])
    found = lora_runs.forgetting(bench)
    assert found["tasks"] == ["base text", "calls", "tests"] and len(found["ways"]) == 4
    for rows in found["ways"].values():
        assert [len(row) for row in rows] == [3, 3]
        learned = rows[0][1][0], rows[1][2][0]
        assert max(learned) < -0.3, rows  # each was 0.66 or more when this was written


@pytest.mark.slow
def test_memory_by_formula_is_near_what_was_measured(bench):
    rows = {row["way"]: row for row in lora_runs.memory(bench, rounds=1)}
    for row in rows.values():
        assert row["saved, formula"] == pytest.approx(row["saved, measured"], rel=0.05)
    assert rows["QLoRA"]["weights"] < rows["full"]["weights"] / 3
    assert rows["LoRA"]["optimizer"] < 0.1 * rows["full"]["optimizer"]


def test_what_seemed_better_is_tried_again_on_other_seeds(bench, monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "run", lambda way, make, lr, seed: asked.append((way, lr, seed)) or {
        "bits": seed / 10, "trainable": 7})
    found = lora_runs.code_again(bench)
    assert list(found) == ["plain", "gated", "gated, classes drawn"]
    assert found["gated"]["bits"] == [0.3, 0.4, 0.5] and found["gated"]["seeds"] == [3, 4, 5]
    assert len(asked) == 9 and {lr for _, lr, _ in asked} == {3e-3}


class Recorder(Bench):
    """A bench that trains nothing and notes what it was asked for."""

    def __init__(self):
        self.seeds, self.steps, self.asked = [0, 1, 2, 3, 4], 40, []

    def tuned(self, way, make, rates, seeds=None, every=None):
        self.asked.append((way, tuple(rates), tuple(seeds or self.seeds)))
        return {"bits": [0.5] * len(seeds or self.seeds), "trainable": 7, "rate": rates[0]}

    def run(self, way, make, lr, seed, count=200, steps=None, every=None):
        self.asked.append((way, lr, seed, count, steps))
        return {"bits": count / 1000 + seed}


def test_a_row_of_the_grid_is_run_at_one_rate():
    recorder = Recorder()
    found = lora_runs.grid(recorder)
    assert set(found) == {"grid", "grid_trainable", "grid_rates"}
    assert found["grid"]["q, v"] == {"1": [0.5] * 3, "8": [0.5] * 3, "16": [0.5] * 3}
    assert found["grid_rates"]["all layers"] == dict.fromkeys(("1", "8", "16"), 1e-3)
    assert [row for row in recorder.asked if row[0] == "LoRA q, v 16"] == [
        ("LoRA q, v 16", (1e-3,), (0, 1, 2))]


def test_a_size_is_read_once_at_least():
    recorder = Recorder()
    found = lora_runs.sizes(recorder)
    assert found["LoRA"]["250"] == [0.25, 1.25, 2.25]
    assert set(found["full"]) < set(found["LoRA"]) and found["full"]["25"] == found["LoRA"]["25"]
    assert {row[3]: row[4] for row in recorder.asked if len(row) == 5} == {
        25: 40, 50: 40, 100: 40, 250: 40, 500: 63, 1000: 125}


def test_some_experiments_are_renewed_and_the_others_say_how_old_they_are():
    same = {"base": "b", "steps": 40, "batch": 8, "held out": 64}
    recorded = Result("x", same | {"family": 1, "grid": 2, "sizes": 3,
                                   "older": {"sizes": "2020 at commit a"}},
                      [0], "python -m x", "c" * 40, "2021-02-03T00:00", {}, "")
    found = lora_runs.renewed(same | {"family": 5}, ["family"], recorded)
    assert found == same | {"family": 5, "grid": 2, "sizes": 3, "older": {
        "sizes": "2020 at commit a", "grid": "2021-02-03 at commit cccccccccc"}}
    with pytest.raises(ValueError, match="steps: 20 here, 40 in what is recorded"):
        lora_runs.renewed(same | {"steps": 20}, ["family"], recorded)
    with pytest.raises(ValueError, match="'poems'; there are: against"):
        lora_runs.everything([0], only=["poems"])


# controls


def test_drawn_classes_are_as_many_and_know_no_syntax(bench):
    texts = [example.ids for example in bench.task(0).train[:20]]
    shares, groups = class_shares(bench.tokenizer, texts), {"all": 1, "name": 1, "operator": 2}
    models = [copy.deepcopy(bench.base) for _ in range(2)]
    apply_syntax_lora(models[0], bench.tokenizer, groups)
    lora_controls.apply_drawn(models[1], bench.tokenizer, groups, shares, seed=3)
    assert len({lora_bench.trainable(model) for model in models}) == 1
    again = copy.deepcopy(models[1])  # a copy draws the same
    seen = []
    for model in (*models, again):
        hooks = list(model._forward_pre_hooks.values())
        assert len(hooks) == 1
        model(torch.tensor([texts[0], texts[0]]))
        seen.append(hooks[0].now)
    assert torch.equal(seen[1], seen[2]) and not torch.equal(seen[0], seen[1])
    by_token = {}
    for token, kind in zip(texts[0], seen[1][0].tolist(), strict=True):
        assert by_token.setdefault(token, kind) == kind  # wherever it stands
    table = torch.tensor(hooks[0].table)
    for place, name in enumerate(CLASSES):
        assert (table == place).float().mean().item() == pytest.approx(shares[name], abs=0.05)


def test_dora_learns_as_many_numbers_with_its_lengths(bench):
    lora = trainable_count("lora", bench.base, ranks=lora_controls.dora_ranks(bench.base, 15872))
    assert lora == 15872 - 6 * 2 * 256  # the lengths
    model = lora_controls.apply_dora(copy.deepcopy(bench.base), 15872)
    assert lora_bench.trainable(model) == 15872
    assert sorted(lora_controls.dora_ranks(bench.base, 15872).values()) == [2] * 11 + [3]
    with pytest.raises(ValueError, match="count=9000 leaves no rank for each of 12 layers: give 9"):
        lora_controls.dora_ranks(bench.base, 9000)


# replay


def test_half_of_the_rows_are_old_and_none_is_lost(bench):
    data = bench.task(0, 20)
    old = [text_rows([Document("a.py", "x = 1\n" * 50, "here")], bench.tokenizer, 1, 8)]
    replay = Replay(data, old)
    batch = replay.batch(0, 8)
    rows = [row[row != IGNORED].tolist() for row in batch.targets]
    assert rows[4:] == [old[0][0].ids[1:]] * 4
    fresh = data.batch(0, 4)
    assert rows[:4] == [row[row != IGNORED].tolist() for row in fresh.targets]
    assert replay.fingerprint() != data.fingerprint()
    with pytest.raises(ValueError, match="each past hold an example"):
        Replay(data, [[]])


def test_joined_batches_keep_their_rows():
    one = Batch(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    two = Batch(torch.tensor([[4, 5, 6]]), torch.tensor([[5, 6, 7]]))
    both = joined(one, two)
    assert both.ids.tolist() == [[1, 2, 0], [4, 5, 6]]
    assert both.targets.tolist() == [[2, 3, IGNORED], [5, 6, 7]]


def test_judging_leaves_the_model_alone(bench):
    model = copy.deepcopy(bench.base).train()
    judged(model, bench.task(0))
    assert model.training
