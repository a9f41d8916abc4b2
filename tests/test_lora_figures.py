"""The figures and tables of chapter 08 say what their data shows, whatever the data is."""

import json

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from scratchbook.cli import main
from scratchbook.companions import lora_figures as figures
from scratchbook.companions import lora_tables as tables
from scratchbook.config import ModelConfig
from scratchbook.finetuning import apply_adalora, lora_layers, settle
from scratchbook.model import DecoderLM
from scratchbook.teaching import draw
from scratchbook.weights import load_pretrained


def diagonal(*strengths: float) -> torch.Tensor:
    return torch.diag(torch.tensor(strengths))


def test_a_matrix_taken_apart_by_hand():
    parts = figures.taken_apart({"blocks.0.q_proj": diagonal(3.0, 4.0, 0.0)})
    assert figures.held_by(parts["blocks.0.q_proj"].strengths).tolist() == pytest.approx(
        [16 / 25, 1, 1])
    rows = figures.rank_rows({"blocks.0.q_proj": parts["blocks.0.q_proj"],
                              "blocks.1.q_proj": parts["blocks.0.q_proj"]}, 0.65,
                             {"blocks.0.q_proj": 3, "blocks.1.q_proj": 1})
    assert rows == [{"layer": "q_proj", "for 65%": "2 to 2", "median": 2,
                     "of the budget": "1 to 3", "its median": 2}]
    met = figures.rank_rows(parts, 0.64, {"blocks.0.q_proj": 0})  # what is met exactly is met
    assert met[0]["for 64%"] == "1 to 1"


def two_models() -> tuple[nn.Module, nn.Module]:
    sizes = ModelConfig(vocab_size=50, max_seq_len=16, num_layers=2, d_model=16, num_heads=2)
    base, tuned = DecoderLM(sizes), DecoderLM(sizes)
    tuned.load_state_dict(base.state_dict())
    with torch.no_grad():
        for number, layer in enumerate(m for m in tuned.blocks.modules()
                                       if isinstance(m, nn.Linear)):
            layer.weight += 0.1 * draw(*layer.weight.shape, name=f"change {number}")
    return base, tuned


def test_all_directions_put_in_give_the_tuned_layers():
    base, tuned = two_models()
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    found = figures.changes(base, tuned)
    parts = figures.taken_apart(found)
    for way in ("strongest", "random"):
        whole = figures.with_directions(base, parts, 10_000, way, seed=0)
        assert all(torch.allclose(weight, tuned.state_dict()[name], atol=1e-5)
                   for name, weight in whole.state_dict().items())
    one = figures.with_directions(base, parts, 1, "strongest", seed=0)
    for path, change in figures.changes(base, one).items():
        left, strengths, right = parts[path]
        assert torch.allclose(change, strengths[0] * left[:, :1] @ right[:1], atol=1e-5)
    other = figures.with_directions(base, parts, 1, "random", seed=0)
    lengths = [[m.norm() for m in figures.changes(base, model).values()] for model in (one, other)]
    assert sum(a > b + 1e-4 for a, b in zip(*lengths, strict=True)) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())


def test_spectra_know_a_planted_direction_from_its_shuffled_numbers():
    base, _ = two_models()
    layers = {path: layer for path, layer in base.named_modules()
              if isinstance(layer, nn.Linear) and path.startswith("blocks.")}
    planted = {path: draw(layer.out_features, 1, name=f"u {path}")
               @ draw(1, layer.in_features, name=f"v {path}") for path, layer in layers.items()}
    found = figures.spectra(figures.taken_apart(planted), planted, base, seed=0)
    assert found["the change"][0] > 0.999
    assert found["shuffled"][0] < 0.7
    assert all(line[-1] == pytest.approx(1) for line in found.values())


def test_the_picture_of_spectra_tells_its_lines():
    lines = {"the change": [0.5, 0.9, 1.0], "random": [0.4, 0.7, 1.0]}
    figure, alt = figures.plot_spectra(lines, (1, 2), {"strongest": [3.0, 2.5]}, 4.0, 2.0)
    assert "the change 100%, random 100%" in alt and "strongest from 3.00 to 2.50" in alt
    assert alt.endswith("base 4.00, fine-tuned 2.00.")
    plt.close(figure)


def test_corners_are_cut_and_of_few_digits():
    base, tuned = two_models()
    made = figures.corners(base, figures.changes(base, tuned), diagonal(1.0, 2.0), seed=0, size=5)
    assert [len(rows) for rows in made.values()] == [2, 5, 5, 5]
    assert made["rank two, by hand"] == [[0.5, 0.0], [0.0, 1.0]]
    assert "rank two, by hand: the fourth is 0.50" in figures.rank_still(made)
    assert len(json.dumps(made)) < 2000


def test_what_learns_is_counted():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    row = figures.trained_rows({"x": (model, 2.345)})[0]
    assert row == {"trained": "x", "numbers that learn": 10,
                   "share of base and adapter": "38.46%", "gradients and means": "0.00 MB",
                   "bits per byte after": "2.35"}


def test_a_mistake_that_passes_is_an_error(tmp_path, capsys):
    def fails():
        raise ValueError(f"{tmp_path}/first: no")
    figures.refused(fails, tmp_path)
    assert capsys.readouterr().out == "refused: FOLDER/first: no\n"
    with pytest.raises(AssertionError, match="should have been refused"):
        figures.refused(lambda: None, tmp_path)


def test_the_command_is_run_and_its_end_is_shown(tmp_path, capsys):
    figures.command(main, ["list"], tmp_path, lines=3)
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(RuntimeError, match="status 2"):
        figures.command(main, ["cost", "--model", "none such"], tmp_path)


def test_parity_has_a_row_for_each_method():
    rows = {row["method"]: row for row in figures.parity_rows("peft")}
    assert {"LoRA", "rsLoRA", "DoRA"} <= set(rows)
    assert all(row["largest difference"] < 1e-5 for row in rows.values())


def way(*bits: float, count: int = 100, rate: float | None = 0.01) -> dict:
    return {"bits": list(bits), "trainable": count, "rate": rate,
            "tried": {"0.001": 2.0, "0.01": 1.9}, "accuracy": [0.5] * len(bits),
            "seconds": [3.0] * len(bits)}


def tried(text: float, reached: bool = True) -> dict:
    return {"step": 8, "task": 0.9, "text": text, "reached": reached}


def made_up_runs() -> dict:
    """Recorded runs as JSON gives them back; LoRA is no different from full, the gate is better."""
    better, same = (1.0, 1.1, 1.0), (1.5, 1.7, 1.6)
    return {
        "measure": "bits per byte",
        "against": {"base": way(4.0, 4.1, 4.0, count=0, rate=None), "LoRA": way(*same),
                    "full": way(1.6, 1.6, 1.6, count=9000)},
        "family": {"LoRA": way(*same), "IA3": way(2.5, 2.6, 2.6)},
        "code_again": {"plain": way(*same), "gated": way(*better),
                       "gated, classes drawn": way(1.0, 1.0, 1.1)},
        "at_the_mark": {"mark": 1.0, "steps": 80, "base bits": 2.0, "tried": {
            "full": {"0.001": tried(2.2), "0.01": tried(2.5), "0.1": tried(2.9)},
            "LoRA": {"0.01": tried(2.1, False), "0.1": tried(2.2)}}},
        "older": {"grid": "2020-01-02 at commit a", "sizes": "2020-01-02 at commit a"},
        "code_aware": {"plain": way(*same), "gated": way(*better), "ranks by class": way(*same)},
        "grid": {"q,v": {"1": [2.0, 2.1, 2.0], "8": [1.5, 1.6, 1.5]},
                 "all": {"1": [1.0, 1.1, 1.0], "8": [1.0, 1.0, 1.1]}},
        "grid_trainable": {"q,v": {"1": 1000, "8": 8000}, "all": {"1": 3000, "8": 24_000}},
        "memory": [{"way": "full", "weights": 4e6, "saved, formula": 98.0,
                    "saved, measured": 100.0, "ms a step": 10.0}],
        "sizes": {"LoRA": {"25": [3.0, 3.1, 3.0], "50": [2.0, 2.1, 2.0], "1000": [1.0, 1.1, 1.0]},
                  "full": {"25": [4.0, 4.1, 4.1], "1000": [1.0, 1.0, 1.1]}},
        "forgetting": {"tasks": ["base text", "one"], "base bits": 2.0,
                       "ways": {"full": [[[0.5, 0.5, 0.6], [-1.0, -1.0, -1.0]]],
                                "full, replay": [[[0.1, 0.1, 0.2], [-0.5, -0.6, -0.5]]],
                                "LoRA": [[[0.01, 0.02, 0.01], [-1.0, -0.9, -1.0]]],
                                "LoRA, replay": [[[0.01, 0.02, 0.01], [-1.0, -1.2, -1.0]]]}}}


def test_a_table_says_how_the_rate_was_chosen():
    rows = {row["way"]: row for row in tables.against_rows(made_up_runs()["against"])}
    assert rows["base"]["rate"] == "none"
    assert rows["LoRA"]["rate"] == "0.01 of 0.001, 0.01"
    assert rows["LoRA"]["bits"].startswith("1.600 ± ") and rows["LoRA"]["CPU s"] == "3"


def test_verdicts_are_written_by_the_numbers():
    runs = made_up_runs()
    one, other = tables.code_verdicts(runs["code_aware"])
    assert str(one).startswith("gated against plain: better (-0.5")
    assert other.word == "no clear difference"
    ia3 = tables.family_rows(runs["family"])[1]
    assert ia3["against LoRA"].startswith("worse (+0.9")
    lines = tables.forgetting_verdicts(runs["forgetting"])
    assert [line.split(" (")[0] for line in lines[:4]] == [
        "LoRA against full: forgets less",
        "LoRA, replay against full, replay: no clear difference",
        "LoRA, replay against LoRA: no clear difference",
        "full, replay against full: forgets less"]
    assert [line.rsplit(": ", 1)[1] for line in lines[4:]] == [
        "missed", "not settled", "met", "met"]


def test_a_rate_at_the_end_of_those_tried_is_said():
    rates = {"0.001": 3.0, "0.01": 2.0, "0.1": 2.5}
    assert tables.edge(rates, 0.01) == "0.01 of 0.001, 0.01, 0.1"
    assert tables.edge(rates, 0.1).endswith(", the highest")
    assert tables.edge(rates, 0.001).endswith(", the lowest")


def test_fresh_seeds_are_compared_with_plain_and_with_drawn_classes():
    rows = {row["compared"]: row["verdict"] for row in tables.again_rows(
        made_up_runs()["code_again"])}
    assert rows == {"gated against plain": "better", "gated against gated, classes drawn":
                    "no clear difference", "gated, classes drawn against plain": "better"}


def test_a_limit_is_met_missed_or_not_settled_by_the_interval():
    said = "x: the base's own text moves by +2.0%, 2% were asked for: not settled"
    assert tables.kept_line("x", [0.01, 0.1, 0.01], 2.0) == said
    assert tables.kept_line("x", [0.01, 0.02, 0.01], 2.0).endswith(": met")
    assert tables.kept_line("x", [0.5, 0.5, 0.6], 2.0).endswith(": missed")


def test_forgetting_by_rate_is_drawn_for_what_came_to_the_mark():
    figure, alt = tables.plot_rates(made_up_runs()["at_the_mark"])
    assert "full: +10.0 % at 0.001 in 8 steps, +25.0 % at 0.01 in 8 steps" in alt
    assert alt.endswith("LoRA: +10.0 % at 0.1 in 8 steps.")
    assert tables.rate_lines(made_up_runs()["at_the_mark"]) == [
        "full, near the same score (0.90 to 0.90 bits): own text +10.0% at rate 0.001, "
        "+45.0% at 0.1",
        "LoRA, near the same score (0.90 to 0.90 bits): own text +10.0% at rate 0.1, "
        "+10.0% at 0.1"]
    plt.close(figure)


def test_the_first_task_says_whether_scores_are_equal():
    lines = tables.first_task_lines(made_up_runs()["forgetting"])
    assert lines[0].startswith("LoRA against full: forgets less (-0.52")
    assert lines[0].endswith("; the task itself: no clear difference")
    assert lines[1].endswith("+0.7%, 2% were asked for: met") and lines[2].endswith("missed")
    assert lines[3].endswith("; the task itself: better")


def test_an_hour_and_older_parts_are_said():
    runs = made_up_runs()
    assert tables.hour_line(runs["against"]).endswith("took 3 CPU seconds, an hour was the limit: "
                                                      "met")
    assert tables.hour_line({"LoRA": {"seconds": [4000.0, 4001.0, 4000.0]}}).endswith("missed")
    assert tables.older_line(runs) == "of 2020-01-02 at commit a are grid, sizes"
    assert [line.split(" (")[0] for line in tables.size_verdicts(runs["sizes"])] == [
        "25 examples, LoRA against full: better",
        "1000 examples, LoRA against full: no clear difference"]


def test_what_adalora_left_is_counted_for_each_kind_of_layer():
    sizes = ModelConfig(vocab_size=50, max_seq_len=16, num_layers=2, d_model=16, num_heads=2)
    model = apply_adalora(DecoderLM(sizes), ("q_proj", "v_proj"), lora_rank=4)
    wanted = {"blocks.0.attention.q_proj": 4, "blocks.1.attention.q_proj": 3,
              "blocks.0.attention.v_proj": 1, "blocks.1.attention.v_proj": 0}
    for path, count in wanted.items():
        lora_layers(model)[path].adapter.lora_E.data[:count] = 1.0
    rows, line = figures.kept_rows(settle(model), {**wanted, "blocks.0.attention.q_proj": 2})
    assert rows == [{"layer": "q_proj", "AdaLoRA kept": "3 to 4, median 3.5",
                     "the change's budget": "2 to 3, median 2.5"},
                    {"layer": "v_proj", "AdaLoRA kept": "0 to 1, median 0.5",
                     "the change's budget": "0 to 1, median 0.5"}]
    assert line.startswith("8 directions are left; rank correlation of the two budgets +0.80 ")


def test_shards_are_read_as_the_one_file_is(tmp_path):
    base, _ = two_models()
    assert figures.in_shards(base, tmp_path, most=5000) > 3
    assert not (tmp_path / "model.safetensors").exists()
    read = load_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, read[name]) for name, tensor in base.state_dict().items())


def test_the_best_cell_is_compared_in_its_row_and_its_column():
    rows = tables.grid_rows(made_up_runs()["grid"])
    assert [row["compared"] for row in rows] == ["all, rank 1 against all, rank 8",
                                                 "all, rank 1 against q,v, rank 1",
                                                 "q,v, rank 8 against q,v, rank 1"]
    assert [row["verdict"] for row in rows] == ["no clear difference", "better", "better"]


def test_memory_says_how_far_the_formula_is_off():
    row = tables.memory_rows(made_up_runs()["memory"])[0]
    assert row["ms forward and backward"] == "10" and row["formula off by"] == "-2.0%"
    assert row["weights"] == "4.00"


def test_pictures_of_the_runs_are_told():
    runs = made_up_runs()
    for (figure, alt), words in (
            (tables.plot_grid(runs["grid"], runs["grid_trainable"], runs["measure"]),
             "q,v, rank 8: 1.533"),
            (tables.plot_sizes(runs["sizes"], runs["measure"]),
             "LoRA: 3.033 with 25, 2.033 with 50, 1.033 with 1000"),
            (tables.plot_forgetting(runs["forgetting"], runs["measure"]),
             "full, after all of it: base text +0.53, one -1.00")):
        assert words in alt
        plt.close(figure)


def test_the_closing_sentences_say_what_the_tables_say():
    runs = made_up_runs()
    numbers = {"lora_rank": 8, "held": {"the change": 0.7, "random": 0.1},
               "regained": {"strongest": 0.9, "random": 0.2}, "lost": {"float32": 1e-8},
               "first_step": {"1": {1: 1.0, 64: 8.0}, "8 / r": {1: 8.0, 64: 1.0}}}
    said = [*tables.findings(numbers), *tables.run_findings(runs)]
    assert said[0].startswith("8 of 256 directions held 70% of the change")
    assert "times 8 with scale 1, times 0.12 with scale 8 / r" in said[1]
    assert any(line.startswith("gated against plain: better") for line in said)
    summary = tables.summary_lines(runs)
    assert "LoRA against full, 200 examples: no clear difference" in summary[0]
    assert "; 25 examples: better (-1.0" in summary[0]
    assert "A hint, three seeds: IA3 against LoRA: worse" in "".join(said)
    assert "gated against plain: better" in summary[1] and "drawn: no clear" in summary[1]
    assert summary[2].startswith("Of the base's own text after one task: LoRA against full")
    assert summary[3].startswith("After both tasks: LoRA against full: forgets less (-0.5")
    assert "; LoRA, replay against full, replay: no clear difference" in summary[3]
    assert ": none of 1 intervals\nnone was tried" in tables.hint_line(runs["family"])
    close = {"LoRA": way(1.0, 1.0, 1.0), "IA3": way(1.0, 1.1, 1.2), "x": way(1.2, 1.2, 1.3)}
    assert tables.hint_line(close, 0.2).startswith("ends within 0.2 of zero: IA3; x of 2")
    assert tables.hint_line(close, 0.1).startswith("ends within 0.1 of zero: x of 2")
