"""Chapter 06d's scores and measurements: by hand, on planted heads, and verdicts in both ways."""

import math

import pytest
import torch

from scratchbook.companions import seeing_experiments as experiments
from scratchbook.companions import seeing_figures as figures
from scratchbook.companions import seeing_tables as tables
from scratchbook.evaluation.comparing import Interval
from scratchbook.interpret import AttentionView, capture
from scratchbook.interpret.class_graphs import class_tree
from scratchbook.interpret.overlays import overlay
from scratchbook.smalltalk.records import ClassRecord
from scratchbook.teaching import load_result


@pytest.fixture(scope="module")
def readers():
    return experiments.readers()


def view_of(attention, tokens):
    """A view with given numbers; its text is what the tokens spell."""
    view = AttentionView.__new__(AttentionView)
    ends = [sum(map(len, tokens[: i + 1])) for i in range(len(tokens))]
    spans = [(end - len(token), end) for token, end in zip(tokens, ends, strict=True)]
    view._fill("".join(tokens), list(range(len(tokens))), list(tokens), spans, attention,
               list(range(len(attention))), "planted")
    return view


def planted(time, *places):
    """One layer; each head looks at one given place of every query (a function of the query)."""
    maps = torch.zeros(1, len(places), time, time)
    for head, place in enumerate(places):
        for query in range(time):
            maps[0, head, query, min(place(query), query)] = 1
    return maps


def test_three_scores_by_hand():
    maps = planted(4, lambda q: max(q - 1, 0), lambda q: 0)
    maps[0, 1, 3] = torch.tensor([0.25, 0.25, 0.25, 0.25])
    assert torch.equal(figures.previous_score(maps), torch.tensor([[1.0, (1 + 0 + 0.25) / 3]]))
    torch.testing.assert_close(figures.entropy_bits(maps), torch.tensor([[0.0, 2 / 4]]))
    assert figures.even_previous(4) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    even = torch.ones(1, 1, 4, 4).tril()
    even = even / even.sum(-1, keepdim=True)
    assert figures.previous_score(even).item() == pytest.approx(figures.even_previous(4))


def test_brackets_are_matched_and_those_within_one_token_left_out():
    tokens = ["f", "(", "[", "x", "]", "())", "{"]
    maps = planted(7, lambda q: {4: 2, 5: 1}.get(q, 0), lambda q: q)
    score, count = figures.bracket_score(maps, tokens)
    assert count == 2 and torch.equal(score, torch.tensor([[1.0, 0.0]]))
    assert figures.bracket_score(maps, ["a"] * 7)[1] == 0


def test_leaders_are_the_extremes():
    scores = {"entropy": torch.tensor([[3.0, 1.0], [2.0, 4.0]]),
              "previous": torch.tensor([[0.1, 0.2], [0.9, 0.3]])}
    assert figures.leaders(scores) == {"entropy": (0, 1, 1.0),
                                       "previous": (1, 0, pytest.approx(0.9))}


def test_edges_are_the_largest_weights_between_two_tokens():
    maps = torch.zeros(1, 1, 3, 3)
    maps[0, 0] = torch.tensor([[1.0, 0, 0], [0.3, 0.7, 0], [0.2, 0.5, 0.3]])
    view = view_of(maps, ["a", "b", "c"])
    assert [(q, k) for q, k, _ in figures.strongest(view, 0, 0)] == [(2, 1), (1, 0), (2, 0)]
    assert len(figures.strongest(view, 0, 0, most=2)) == 2
    assert len(figures.strongest(view_of(torch.rand(1, 1, 30, 30), ["x"] * 30), 0, 0)) == 12


def test_weight_along_messages_by_hand():
    """`bar` asks from token 3 and its receiver is token 1; `+` asks from 5, of tokens 1 to 3."""
    tokens = ["foo\n\t^", " self", " ", "bar", " ", "+", " 1"]
    view = view_of(planted(7, lambda q: 1, lambda q: q - 1), tokens)
    found = overlay("".join(tokens), "smalltalk")
    score, right_before = figures.along_messages(view, found)
    assert torch.equal(score, torch.tensor([[1.0, 0.0]])) and right_before == 0
    near = view_of(planted(3, lambda q: q - 1), ["foo\n\t^", " self", " bar"])
    assert figures.along_messages(near, overlay(near.text, "smalltalk"))[1] == 1
    with pytest.raises(ValueError, match="no message"):
        figures.along_messages(view, overlay("foo\n\t^ 1", "smalltalk"))


def test_every_figure_says_its_numbers(readers):
    from matplotlib import pyplot as plt

    reader = readers["Python"]
    text = "def f(alpha, beta):\n    return alpha\n"
    view = reader.view(text)
    score = figures.previous_score(view.attention)
    drawn = [figures.plot_grid(view, score, 0.3), figures.plot_head(view, 2, 6, "a badge"),
             figures.plot_code(view, overlay(text, "python"), 1, 4),
             figures.plot_two_maps(torch.tensor([0.2, 0.8]), torch.tensor([1.0, 0.0])),
             figures.plot_agreement({"recency": Interval(0.25, 0.1, 0.4)}, 7)]
    for figure, alt in drawn:
        assert len(alt) > 40
        plt.close(figure)
    assert "0.80 above and 0.00 below; 1 weights are zero" in drawn[3][1]
    assert "recency 0.25 (0.10 to 0.40)" in drawn[4][1]
    outlined = drawn[0][1].split(": ")[1]
    assert outlined.count("(") == int((score >= 0.3).sum())


def test_a_head_that_looks_at_declarations_is_found():
    """Head 1 of a planted view looks from a use to its declaration, head 0 at one of two rivals."""
    text = "def f(alpha, beta):\n    return alpha\n"
    tokens = ["def", " f", "(", "alpha", ",", " beta", "):\n", "    return", " alpha", "\n"]

    class Planted:
        def view(self, text):
            return view_of(planted(10, lambda q: 1, lambda q: 3, lambda q: q), tokens)

    gaps = experiments.declaration_gaps(Planted(), text, "Python")
    assert torch.equal(gaps, torch.tensor([[-0.5, 1.0, 0.0]]))
    found = experiments.declarations(Planted(), [text] * 4, "Python")
    assert (found["layer"], found["head"]) == (0, 1)
    assert found["gaps"] == {"names": [1, 1], "declarations": [1, 1], "uses": [],
                             "all heads": [pytest.approx(1 / 6)] * 2}
    assert experiments.declaration_gaps(Planted(), "f(x)\n", "Python") is None
    with pytest.raises(ValueError, match="choose one of names, declarations, uses"):
        experiments.declaration_gaps(Planted(), text, "Python", "else")


def test_an_earlier_use_is_a_rival_of_the_declaration():
    """Head 0 looks at the declaration, head 1 at the first use, head 2 at the parameter beside."""
    text = "def f(x, y):\n    return x + x\n"
    tokens = ["def", " f", "(", "x", ",", " y", "):\n", "    return", " x", " +", " x", "\n"]

    class Planted:
        def view(self, text):
            return view_of(planted(12, lambda q: 3, lambda q: 8, lambda q: 5), tokens)

    gaps = experiments.declaration_gaps(Planted(), text, "Python", "uses")
    assert torch.equal(gaps, torch.tensor([[1.0, -1.0, 0.0]]))  # of the second use alone
    gaps = experiments.declaration_gaps(Planted(), text, "Python", "declarations")
    assert torch.equal(gaps, torch.tensor([[1.0, 0.0, -1.0]]))


def test_rows_of_declarations_say_which_rival_and_what_was_not_tested():
    names = {"Python": {"layer": 4, "head": 7, "gaps": {
        "names": [0.1, 0.12, 0.11], "declarations": [-0.1, 0.1, 0.0], "uses": [0.3],
        "all heads": [-0.1, -0.12, -0.11]}}}
    rows = tables.declaration_rows(names)
    assert [(row["who"], row["beside"], row["texts"], row["verdict"]) for row in rows] == [
        ("head 4.7", "the names around it", 3, "looks at it"),
        ("head 4.7", "another of its scope", 3, "no clear difference"),
        ("head 4.7", "an earlier use of the name", 1, "not tested"),
        ("all heads", "the names around it", 3, "looks away from it")]


def test_a_receiver_that_stands_apart_is_told_from_the_token_before():
    """`+` asks from token 4; its receiver is token 1, the token right before it token 3."""
    tokens = ["foo\n\t^", " self", " ", " ", "+", " 1"]

    class Planted:
        def __init__(self, place):
            self.place = place

        def view(self, text):
            return view_of(planted(6, self.place), tokens)

    source = "".join(tokens)
    for place, receiver, before, word in ((lambda q: 1, 1, 0, "the receiver gets more"),
                                          (lambda q: q - 1, 0, 1, "right before gets more")):
        found = experiments.receivers_apart(Planted(place), [source] * 3, 0, 0)
        assert found == {"receiver": [receiver] * 3, "right before": [before] * 3, "messages": 3}
        line = tables.apart_line(0, 0, found)
        assert line.endswith(word) and "(3 messages of 3 other methods)" in line
    near = {"receiver": [0.1, 0.5, 0.2], "right before": [0.2, 0.3, 0.3], "messages": 4}
    assert tables.apart_line(0, 0, near).endswith("no clear difference")


def test_methods_of_the_class_side_are_announced_by_their_own_token(readers):
    library = experiments.library_records("*")
    source = experiments.source_of(library, "ConsList class", "withAll:")
    assert source.startswith("withAll: aCollection")
    view = readers["Smalltalk"].at_class_side().view(source)
    assert view.tokens[0] == "<|classmethod|>"
    assert readers["Smalltalk"].view(source).tokens[0] == "<|method|>"
    sides = {each.source: each.class_side for each in library if hasattr(each, "class_side")}
    assert not any(sides[text] for _, text in experiments._methods())
    with pytest.raises(ValueError, match="ConsList >> withAll: is in none"):
        experiments.source_of(library, "ConsList", "withAll:")


def test_the_answers_of_the_tasks(readers):
    from scratchbook.interpret.class_graphs import class_panel

    library = experiments.library_records("*")
    reader = readers["Smalltalk"]
    listed = reader.at_class_side().view(
        experiments.source_of(library, "ConsList class", "withAll:"))
    sent = reader.view("add: anObject times: aNumber\n\taNumber timesRepeat: [ :each | self add: "
                       "anObject; changed ].\n\t^ anObject printString size")
    area = readers["Python"].view("def area(width, height):\n    return width * height\n")
    told = tables.looked_up(listed, sent, area,
                            class_panel(library, "ConsList class", "withAll:"))
    assert told[:5] == [
        "(1) [ :list :each | list prepend: each ]",
        "(2) each: parameter of the block (tokens 16 to 25), at token 19",
        "(3) ConsList >> prepend:; inherited by EmptyConsList",
        "(4) add:; changed, all to self", "(5) anObject \u2192 printString \u2192 size"]
    assert [line[:4] for line in told[5:]] == ["(6) ", "(7) "]
    assert f"{sent.attention[1, 4, -1].max():.2f}" in told[5]
    assert f"{area.attention[4, 7, 10].max():.2f}; the parameter width" in told[6]


def test_texts_are_new_to_the_models_and_fit(readers):
    for language in experiments.LANGUAGES:
        found = experiments.texts(language, readers[language], 6, seed=1)
        assert len(set(found)) == 6
        assert found == experiments.texts(language, readers[language], 6, 1)
        for text in found:
            assert 20 <= len(readers[language].tokenizer.encode_ordinary(text)) <= 64
            assert not overlay(text, language.lower()).error
    with pytest.raises(ValueError, match="not 100000"):
        experiments.texts("Smalltalk", readers["Smalltalk"], 100_000)


def test_silence_takes_what_one_head_reads_of_some_tokens(readers):
    model = readers["Smalltalk"].model
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), capture(model, keep=("attention", "values")) as seen:
        whole = model(ids)
        with experiments.silenced(model.blocks[1].attention, 4, [0, 2]):
            model(ids)
        assert torch.equal(model(ids), whole)  # the hook is gone
        plain = seen.values[1].clone()
        with experiments.silenced(model.blocks[1].attention, 4, [0, 2]), capture(
                model, keep=("values",)) as hushed:
            model(ids)
    zero = hushed.values[1] == 0
    assert zero[0, 4, [0, 2]].all() and zero.sum() == 2 * plain.shape[-1]
    assert torch.equal(hushed.values[1][0, :4], plain[0, :4])


def test_measurements_of_a_sink(readers):
    reader = readers["Smalltalk"]
    sources = experiments.texts("Smalltalk", reader, 6)
    found, second = experiments.sinks(reader, sources)
    assert found["texts"] == 3 and 0.3 < found["weight"].value < 1
    assert 0 < found["bare"].value < found["weight"].value
    assert found["weight"] == experiments.over_texts(
        [experiments.first_token(reader, text)[0][found["layer"], found["head"]].item()
         for text in sources[3:]])
    assert all(each.value > 0 for each in found["moved"].values())
    weight, ratio = experiments.first_token(reader, sources[0])
    assert weight.shape == ratio.shape == (6, 8) and (weight <= 1).all() and (ratio > 0).all()
    rows = tables.sink_rows([found, second])
    heads = [f"head {each['layer']}.{each['head']}" for each in (found, second)]
    assert all(list(row) == ["measured", *heads] for row in rows) and heads[0] != heads[1]
    assert rows[0][heads[0]] == tables.between(found["weight"])
    assert rows[3][heads[1]] == tables.between(second["moved"]["the first"], 4)
    chosen = torch.stack([experiments.first_token(reader, text)[0] for text in sources[:3]]).mean(0)
    assert sorted(chosen.flatten().tolist())[-2:] == [
        chosen[each["layer"], each["head"]].item() for each in (second, found)]
    apart = experiments.place_or_token(reader, found["layer"], found["head"], 3)
    assert [len(each) for each in apart.values()] == [3, 3, 3]
    assert min(apart["<|method|>"]) > max(apart["its neighbours"])
    known = [text for _, text in experiments._methods()]
    assert not any(experiments.place_or_token(reader, 1, 4, 3, known=known).values())


def test_texts_are_of_files_and_classes_of_their_own(readers):
    for language, pool in (("Python", experiments._functions()),
                           ("Smalltalk", experiments._methods())):
        found, owners = set(experiments.texts(language, readers[language], 30)), set()
        for name, text in pool:
            owners |= {name} if text in found else set()
        assert len(found) == 30 <= len(owners)


def test_rows_whose_favourite_brings_less():
    weights = torch.zeros(1, 1, 4, 4)
    weights[0, 0, 1:, 0] = 1
    brought = weights.clone()
    assert tables.misread_share([brought], {0: weights}) == 0
    brought[0, 0, 3, 2] = 2
    assert tables.misread_share([brought], {0: weights}) == pytest.approx(1 / 3)


def test_agreement_is_told_from_disagreement():
    def measure(model, ids):
        truth = torch.arange(len(ids) - 1.0).flip(0)
        return {"same": truth.exp(), "turned": -truth, "ablation": -truth}

    class Fake:
        model = None

    experiments_windows = [torch.arange(8)] * 5
    original = experiments.windows
    experiments.windows = lambda *arguments: experiments_windows
    try:
        found = experiments.agreement(Fake(), 5, 8, measure=measure)
    finally:
        experiments.windows = original
    assert found == {"same": [pytest.approx(1)] * 5, "turned": [pytest.approx(-1)] * 5,
                     "recency": [pytest.approx(-1)] * 5,
                     experiments.FIRST: [pytest.approx(-0.25)] * 5}  # 6 places, 70 of squares
    rows = tables.beyond_rows(found)
    assert [(row["measure"], row["than recency"]) for row in rows] == [
        ("same", "more"), ("turned", "no clear difference")]
    assert tables.beyond_both(found) == (["same"], ["turned"])
    assert tables.beats(found, [("same", "recency")]) == [
        "same against recency: agrees more with ablation (+2.00, +2.00 to +2.00)"]
    assert "agrees less" in tables.beats(found, [("turned", "same")])[0]
    assert "no clear difference" in tables.beats(found, [("turned", "recency")])[0]


def test_verdicts_come_out_either_way():
    base = {"layer": 1, "head": 4, "texts": 4}
    one, other = [0.1, 0.2, 0.15, 0.12], [0.5, 0.6, 0.55, 0.7]
    assert "tokens moves the predictions more than" in tables.sink_line(
        base | {"first": one, "others": other})
    assert "tokens moves the predictions less than" in tables.sink_line(
        base | {"first": other, "others": one})
    assert "neither clearly" in tables.sink_line(base | {"first": one, "others": one[::-1]})
    line = tables.place_line(base, {"place 0": one, "<|method|>": other,
                                    "its neighbours": other[::-1]})
    assert "more than place 0 (0.4" in line and "no clear difference (" in line
    line = tables.place_line(base, {"place 0": other, "<|method|>": one, "its neighbours": other})
    assert "less than place 0 (" in line and "less than the tokens on its sides (" in line
    assert [tables.declaration_word(gap) for gap in ((1, 0.5, 2), (-1, -2, -0.5), (0, -1, 1))] == [
        "looks at it", "looks away from it", "no clear difference"]


def test_maps_by_lot_move_as_much_and_stay_shares():
    row, other = torch.tensor([0.1, 0.6, 0.3]), torch.tensor([0.4, 0.2, 0.4])
    moved = tables.random_map(row, other, seed=3)
    assert moved.sum().item() == pytest.approx(1) and moved[1].item() == pytest.approx(0.2)
    assert (moved - row).abs().sum().item() / 2 == pytest.approx(0.4)
    assert not torch.equal(moved, tables.random_map(row, other, seed=4))


def test_rollout_of_even_maps_is_a_control():
    even = torch.ones(2, 1, 5, 5).tril()
    even = even / even.sum(-1, keepdim=True)
    flat, alike = tables.even_rollout(view_of(even, list("abcde")))
    assert alike == pytest.approx(1) and flat.sum().item() == pytest.approx(1)


def test_the_table_of_speeds_keeps_each_verdict():
    numbers = load_result("attention_explorer_speed").numbers
    rows = tables.speed_rows(numbers)
    assert [row["verdict"] for row in rows] == [each["verdict"] for each in numbers["rows"]]
    assert all(row["fastest"] <= row["median, ms"] <= row["slowest"] for row in rows)


def test_lines_about_the_code():
    found = overlay("foo\n\t^ self bar; baz: [ :each | each ]", "smalltalk")
    assert tables.path_lines(found) == ["self → bar", "self → baz:", "method foo declares nothing",
                                        "  block declares each"]
    records = [ClassRecord("A", "Object"), ClassRecord("B", "A"), ClassRecord("C", "Object")]
    assert tables.tree_line(class_tree(records)) == "3 classes; the deepest: Object > A > B"
    view = view_of(torch.eye(3)[None, None], ["x", " =", " 1"])
    rows = tables.node_rows(view, overlay("x = 1", "python"))
    assert rows[0]["tokens"].startswith("0 to 2") and rows[0]["characters"] == "0 to 5"


def test_the_lens_settles_at_the_model_itself():
    logits = torch.zeros(3, 4, 5)
    logits[2, :, 1] = 1
    logits[1, :3, 1] = 1
    assert figures.settled(logits) == [0.0, 0.75, 1.0]
    assert math.isclose(figures.settled(logits)[-1], 1)
