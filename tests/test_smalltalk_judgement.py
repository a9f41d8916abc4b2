"""The judgement of Smalltalk models: numbers by hand, controls that fall, a model that learned."""

import itertools
import json
import math
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_smalltalk_tasks import CLASSES, METHODS
from test_smalltalk_tokenizer import TOKENIZER

from scratchbook import cli
from scratchbook.companions import smalltalk_judgement, smalltalk_rivals
from scratchbook.config import ModelConfig
from scratchbook.data.smalltalk_corpus import save_corpus
from scratchbook.data.smalltalk_documents import class_documents
from scratchbook.evaluation.counting import KneserNey, Retrieval
from scratchbook.evaluation.memorising import Stretch, longest_overlaps
from scratchbook.evaluation.method_bench import (
    Bench,
    judged,
    peoples_classes,
    sample,
    spans,
    written_alone,
    written_classes,
)
from scratchbook.evaluation.method_completion import (
    CopyingCounts,
    answers,
    cut_methods,
    method_bits,
    scores_of,
)
from scratchbook.evaluation.method_measures import (
    COHERENCE,
    DEFINITIONS,
    Method,
    measure_classes,
    measures_of,
    pooled,
    pooled_difference,
    shuffled,
    tree_sitter_judge,
    validity,
)
from scratchbook.evaluation.method_samples import continue_all, only_methods
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.runtime import sha256_of
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.measures import Share
from scratchbook.smalltalk.parser import parse_method
from scratchbook.smalltalk.preparing import Funnel
from scratchbook.smalltalk.records import ClassRecord
from scratchbook.smalltalk.tasks import formatted
from scratchbook.smalltalk.viable import is_method
from scratchbook.smalltalk_model import settle
from scratchbook.training.checkpoint import save_checkpoint

WINDOW = 256  # a definition takes a third of it at most
SIZES = ModelConfig(vocab_size=TOKENIZER.vocab_size, max_seq_len=WINDOW, num_layers=2, d_model=48,
                    num_heads=2, positions="rope", norm="rms", feedforward="swiglu")
END, METHOD = (TOKENIZER.special_tokens[name] for name in (parts.END, parts.METHOD))
SPECIAL = list(TOKENIZER.special_tokens.values())


def untrained(seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DecoderLM(SIZES.with_(**changes)).eval()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The library as a prepared corpus: every fifth class is a test class."""
    folder = tmp_path_factory.mktemp("corpus")
    side = {each.name: "test" if number % 5 == 0 else "validation" if number % 5 == 1 else "train"
            for number, each in enumerate(CLASSES)}
    methods = list(formatted(replace(each, project="library") for each in METHODS
                             if each.class_name in side))
    split = {name: [each for each in methods if side[each.class_name] == name]
             for name in ("train", "validation", "test")}
    classes = [(side[each.name], replace(each, project="library")) for each in CLASSES]
    save_corpus(folder, split, classes, Funnel())
    return folder


@pytest.fixture(scope="module")
def bench(corpus):
    return Bench.of(corpus, TOKENIZER, WINDOW)


@pytest.fixture(scope="module")
def counts(bench, corpus):
    """Kneser-Ney over the training documents: a writer that learned."""
    return KneserNey(training_ids(corpus), TOKENIZER.vocab_size, 5)


def training_ids(corpus, split="train"):
    from scratchbook.data.smalltalk_corpus import load_classes, load_methods

    documents = class_documents(load_classes(corpus / "classes.jsonl", split),
                                load_methods(corpus / f"{split}.jsonl"), TOKENIZER, WINDOW, 0.0)
    return np.concatenate([np.array(each) for each in documents])


# writing


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_greedy_rows_are_those_of_one_prompt_alone(positions):
    model, prompts = untrained(positions=positions), [[1, 2, 3], [9], [4, 5, 6, 7, 8]]
    found = continue_all(model, prompts, 20, [END], 0, batch_size=2, wave=7)
    for prompt, text in zip(prompts, found, strict=True):
        alone = generate(model, prompt, 20, temperature=0, stop_ids=[END])
        assert text.ids + [END] * text.finished == alone
        logits = model(torch.tensor([[*prompt, *alone]]))[0, len(prompt) - 1 : -1]
        nats = torch.nn.functional.cross_entropy(logits, torch.tensor(alone), reduction="sum")
        assert text.bits == pytest.approx(float(nats.detach()) / math.log(2), rel=1e-4)


def test_drawn_tokens_have_the_models_proportions():
    """Odds: of 2,000 draws a share is off by 0.06 with a chance below 1e-6."""
    model, hidden = untrained(), list(range(4, TOKENIZER.vocab_size))
    with torch.no_grad():
        wanted = (model(torch.tensor([[7, 8]]))[0, -1, :4] / 0.5).softmax(0)
    texts = continue_all(model, [[7, 8]] * 2000, 1, [], 0.5, hidden, seed=1)
    shares = np.bincount([text.ids[0] for text in texts], minlength=4) / 2000
    assert np.abs(shares - wanted.numpy()).max() < 0.06


def test_the_nucleus_holds_the_likeliest_tokens_alone():
    model = untrained()
    with torch.no_grad():
        likeliest = model(torch.tensor([[7, 8]]))[0, -1].topk(2).indices.tolist()
    small = continue_all(model, [[7, 8]] * 30, 1, [], top_p=1e-6, seed=0)
    assert {text.ids[0] for text in small} == {likeliest[0]}
    free = continue_all(model, [[7, 8]] * 30, 1, [], seed=0)
    assert len({text.ids[0] for text in free}) > 5


def test_no_row_is_longer_than_asked_or_than_the_window():
    model, prompts = untrained(), [[1] * (WINDOW - 28), [2] * 5]
    found = continue_all(model, prompts, 60, [], seed=3, wave=9)
    assert [len(text.ids) for text in found] == [28, 60]
    assert not any(text.finished for text in found)
    for bad in ([[1] * WINDOW], [[]]):
        with pytest.raises(ValueError, match="window|prompt"):
            continue_all(model, bad, 5, [])
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        continue_all(model, prompts, 0, [])


def test_hidden_tokens_are_not_written_and_choices_are_kept_to():
    model = untrained()
    texts = continue_all(model, [[1]] * 20, 30, [END], 3.0, SPECIAL, seed=0)
    assert not {i for text in texts for i in text.ids} & set(SPECIAL)

    def choices(row, new):
        return torch.tensor([row, 50 + row]) if len(new) < 2 else None

    found = continue_all(model, [[1], [2], [3]], 5, [], 2.0, choices=choices, seed=5)
    for row, text in enumerate(found):
        assert set(text.ids[:2]) <= {row, 50 + row} and len(text.ids) == 5


def test_a_table_of_counts_writes_by_the_same_loop(counts):
    [text] = continue_all(counts, [[METHOD]], 25, [END], 0, SPECIAL)
    ids = [METHOD]
    for token in [*text.ids, END][: len(text.ids) + text.finished]:
        probs = counts.probs(ids)
        probs[[each for each in SPECIAL if each != END]] = 0
        assert token == probs.argmax()
        ids.append(token)


def test_under_the_rule_only_methods_are_finished():
    rule = only_methods(TOKENIZER, [END])
    texts = continue_all(untrained(), [[METHOD]] * 12, 40, [END], 1.0, SPECIAL, allowed=rule,
                         seed=2)
    assert sum(text.refused for text in texts) > 12
    finished = [TOKENIZER.decode(text.ids) for text in texts if text.finished]
    assert all(map(is_method, finished))
    free = continue_all(untrained(), [[METHOD]] * 12, 40, [END], 1.0, SPECIAL, seed=2)
    assert not all(is_method(TOKENIZER.decode(text.ids)) for text in free)


def test_a_row_that_may_write_nothing_is_given_up():
    [text] = continue_all(untrained(), [[METHOD]], 9, [END], allowed=lambda row, new, token: False)
    assert text.given_up and text.ids == [] and not text.finished and text.refused == 200


# measuring


def test_validity_by_hand():
    methods = [Method("foo ^ 1", (), 5), Method("foo ^ (", (), 5), Method(None, (), 50),
               Method("bar ^ 2", (), 50), Method("baz ^ 3", (), 50)]
    found = validity(methods, {"ours": is_method, "short": lambda source: source < "f"},
                     (10, 20, 30))
    assert found["unfinished"] == 1 and found["methods"] == 5
    ours = found["ours"]
    assert (ours["value"], ours["passed"]) == (0.6, 3)
    assert (ours["low"], ours["high"]) == pytest.approx((0.2307, 0.8824), abs=1e-4)  # Wilson
    assert found["all judges"]["passed"] == 2
    quarters = found["by_quarter"]["ours"]
    assert [quarters[0]["value"], quarters[3]["value"]] == pytest.approx([1 / 2, 2 / 3])
    assert quarters[1]["value"] is None and quarters[1]["methods"] == 0
    assert found["at_training_lengths"]["ours"]["value"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert {"ours": True, "short": False, "methods": 1} in found["agreement"]
    assert sum(row["methods"] for row in found["agreement"]) == 5


def test_the_other_judge_is_one():
    pytest.importorskip("tree_sitter_pharo", reason="pip install pharo-tree-sitter")
    judge = tree_sitter_judge()
    assert judge("foo ^ self bar: #(1 $a)") and not judge("foo ^ (")


def test_measures_by_hand():
    tree = parse_method("foo: a\n\t| b c |\n\tself bar; odd: 3.\n\tb := x + y.\n\ta := 1.\n\tz do: "
                        "[ 5 ].\n\tsuper foo: a.\n\tsuper new.\n\t^ b\n\t. ^ Zork new")
    found = measures_of(tree, ["x"], frozenset({"bar", "do:", "new", "+"}))
    assert set(found) == set(DEFINITIONS)
    assert {name: tuple(share) for name, share in found.items()} == {
        "known selectors": (5, 7), "known unary": (3, 3), "known binary": (1, 1),
        "known keyword": (1, 3), "known in cascades": (1, 2), "block parameters": (0, 1),
        "declared names": (9, 11), "temporaries used": (1, 2), "parameters kept": (1, 2),
        "super to itself": (1, 2), "reachable": (0, 1), "returns": (1, 1),
        "with temporaries": (1, 1), "with blocks": (1, 1), "with cascades": (1, 1),
        "trivial": (0, 1)}


def test_shares_are_added_before_they_are_divided():
    found = pooled([Share(1, 1), Share(0, 3), Share(0, 0)])
    assert (found["value"], found["count"], found["total"]) == (0.25, 1, 4)
    assert found["low"] < 0.25 < found["high"]
    assert pooled([Share(0, 0)])["value"] is None
    ours, theirs = [Share(9, 10)] * 30, [Share(5, 10)] * 30
    gap = pooled_difference(ours, theirs)
    assert gap.value == pytest.approx(0.4) and gap.low > 0.39
    with pytest.raises(ValueError, match="nothing to count"):
        pooled_difference(ours, [Share(0, 0)])


def test_pairs_share_their_luck():
    draw = np.random.default_rng(0)
    ours = [Share(int(each), 10) for each in draw.integers(1, 10, 60)]
    theirs = [Share(each.count - 1, 10) for each in ours]
    assert pooled_difference(ours, theirs).low == pytest.approx(0.1)
    assert pooled_difference(ours, theirs[:-1]).low < 0.08


def test_the_methods_of_a_class_belong_together(bench):
    """The control: the same methods dealt out among the classes fall on every measure."""
    classes = peoples_classes(bench, 60)
    own, other = measure_classes(classes), measure_classes(shuffled(classes))
    assert len(classes) > 20
    for name in COHERENCE:
        assert pooled_difference(own[name], other[name]).low > 0, name
    together = [tree for each in classes for tree in each.methods]
    assert sorted(map(id, together)) == sorted(
        id(tree) for each in shuffled(classes) for tree in each.methods)


def test_methods_are_shuffled_within_their_project(bench):
    classes = [each._replace(project="even" if at % 2 else "odd")
               for at, each in enumerate(peoples_classes(bench, 60))]

    def of(project, some):
        return {id(tree) for each in some if each.project == project for tree in each.methods}

    for project in ("even", "odd"):
        assert of(project, shuffled(classes)) == of(project, classes)
    assert [list(map(id, each.methods)) for each in shuffled(classes)] != [
        list(map(id, each.methods)) for each in classes]


def test_every_shuffle_counts(bench):
    """Twenty shuffles have twenty times the declared variables, and the mean of their shares."""
    classes = peoples_classes(bench, 60)
    found = smalltalk_judgement._shuffled_shares(classes)["fields used"]
    each = [measure_classes(shuffled(classes, seed))["fields used"]
            for seed in range(smalltalk_judgement.SHUFFLES)]
    assert [share.count for share in found] == [sum(column) for column in zip(
        *([share.count for share in row] for row in each), strict=True)]
    assert [share.total for share in found] == [
        smalltalk_judgement.SHUFFLES * len(one.fields) for one in classes]
    assert len({sum(share.count for share in row) for row in each}) > 1


def test_where_all_are_equal_wilson_shows_the_doubt():
    found = pooled([Share(2, 2)] * 4)
    assert found["value"] == 1 and found["low"] == pytest.approx(0.51, abs=0.01)
    assert pooled([Share(0, 9)] * 4)["high"] > 0.4
    few = validity([Method("a ^ 1", (), 3)] * 5, {"ours": is_method}, [10, 20, 30])
    assert few["at_training_lengths"]["ours"]["low"] < 0.6


def test_sides_are_cut_to_as_many_valid_methods_of_each_quarter():
    bench = Bench(TOKENIZER, WINDOW, {}, [], frozenset(), [], [10, 20, 30])
    short, long = Method("a ^ 1", (), 5), Method("b ^ 2", (), 50)
    broken = Method("c ^ (", (), 5)
    ours, theirs = [broken, short, short, long], [long, long, long, short, Method(None, (), 9)]
    assert smalltalk_judgement.same_lengths(bench, ours, theirs) == [[short, long]] * 2


def test_people_are_cut_at_the_window_as_models_are(bench):
    record = max(bench.methods, key=lambda each: bench.method(each).tokens)
    room = len(bench.head(record)) + bench.method(record).tokens
    assert replace(bench, window=room).fitting(record) == bench.method(record)
    assert replace(bench, window=room - 1).fitting(record).source is None


def test_200_methods_are_judged_in_seconds(bench):
    methods = [bench.method(each) for each in itertools.islice(itertools.cycle(bench.methods), 200)]
    begin = time.process_time()
    found = judged(bench, methods, {"ours": is_method})
    assert time.process_time() - begin < 15
    assert found["validity"]["ours"]["value"] == 1


# a model that learned


@pytest.fixture(scope="module")
def trained(bench):
    """A small model that has learned four methods by heart."""
    model, heads, bodies = untrained(), *bench.texts(bench.methods[:4])
    rows = [torch.tensor([*head, *body]) for head, body in zip(heads, bodies, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.01)
    for _ in range(120):
        logits = model(ids.clamp_min(0))[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    return model.eval()


def test_a_trained_model_is_told_from_an_untrained_one(bench, trained):
    found = {}
    for name, model in (("trained", trained), ("untrained", untrained())):
        methods, cost = sample(bench, model, 40)
        found[name] = judged(bench, methods, {"ours": is_method}) | cost
    ours = {name: each["validity"]["ours"] for name, each in found.items()}
    assert ours["trained"]["low"] > ours["untrained"]["high"]
    assert found["trained"]["bits_per_character"] < 1


def test_a_nucleus_of_one_token_writes_what_the_coldest_draw_writes(bench):
    model = untrained()
    narrow, cold, wide = (sample(bench, model, 3, temperature, top_p=top_p)[0]
                          for temperature, top_p in ((1.0, 1e-9), (0.0, None), (1.0, None)))
    assert narrow == cold != wide


def test_the_fields_of_a_side_are_those_of_its_definition(bench):
    record, known = bench.methods[0], ClassRecord(
        "C", "Object", ("own",), ("Shared",), class_instance_variables=("classOwn",))
    other = replace(bench, classes={(record.project, "C"): known})
    sides = [other.fields(replace(record, class_name="C", class_side=side))
             for side in (False, True)]
    assert sides == [("own", "Shared"), ("classOwn", "Shared")]
    assert other.fields(replace(record, class_name="Unknown")) == ()


def test_bits_are_those_of_the_cross_entropy(bench, trained):
    heads, bodies = bench.texts(bench.methods[:7])
    found = method_bits(trained, heads, bodies, SPECIAL[1:3])
    for head, body, bits in zip(heads, bodies, found, strict=True):
        logits = trained(torch.tensor([[*head, *body]]))[0, len(head) - 1 : -1]
        logits[:, SPECIAL[1:3]] = -torch.inf
        nats = torch.nn.functional.cross_entropy(logits, torch.tensor(body), reduction="sum")
        assert bits == pytest.approx(float(nats.detach()) / math.log(2), rel=1e-4)
    with pytest.raises(ValueError, match="no ids"):
        method_bits(trained, [[]], [[1]])


def test_bits_of_counts_are_those_of_their_probabilities(bench, counts):
    heads, bodies = bench.texts(bench.methods[:2])
    found = method_bits(counts, heads, bodies)
    for head, body, bits in zip(heads, bodies, found, strict=True):
        ids = [*head, *body]
        wanted = -sum(math.log2(counts.probs(ids[:at])[ids[at]])
                      for at in range(len(head), len(ids)))
        assert bits == pytest.approx(wanted)
    hidden = [each for each in SPECIAL if each != END]
    [less] = method_bits(counts, heads[:1], [[END]], hidden)
    probs = counts.probs(heads[0])
    assert less == pytest.approx(-math.log2(probs[END] / (1 - probs[hidden].sum())))
    assert less < -math.log2(probs[END])


# rivals


def test_what_was_learned_by_heart_is_completed(bench, trained):
    bench = replace(bench, methods=bench.methods[:4] * 3)
    cuts, classes, _ = cut_methods(bench, 12, settle)
    assert len(cuts) == len(classes) > 3
    scores = scores_of([cut.case for cut in cuts], answers(trained, TOKENIZER, cuts, END))
    assert all(each.exact and each.tree for each in scores)
    for cut in cuts:
        assert TOKENIZER.decode(cut.ids).endswith(cut.case.prompt.removesuffix(cut.rest)[-5:])


def test_retrieval_copies_what_agrees_with_the_cut(bench, corpus):
    retrieval = Retrieval(training_ids(corpus))
    cuts, _, _ = cut_methods(bench, 40, settle)
    given = answers(retrieval, TOKENIZER, cuts, END)
    scores = scores_of([cut.case for cut in cuts], given)
    assert 0 < sum(each.exact for each in scores) < len(cuts)
    table = Retrieval([1, 2, 3, 9, 1, 2, 4, 8, 2, 5])
    assert table.copy_after([1, 2], 2) == [4, 8]
    assert table.copy_after([1, 2], 2, lambda ids: ids[0] != 4) == [3, 9]
    assert table.copy_after([1, 2], 2, lambda ids: True) == [4, 8]  # the last place, as without
    assert table.copy_after([7, 2], 1, lambda ids: True) == [5]
    assert table.copy_after([7, 2], 1, lambda ids: ids[0] != 5) == [4]  # then the one before it
    assert table.copy_after([1, 2], 2, lambda ids: ids[0] == 5) == [5]
    assert table.copy_after([1, 2], 2, lambda ids: False) == []


def test_copying_is_trusted_as_far_as_it_was_right():
    ids = [*range(20)] * 3
    copying = CopyingCounts(KneserNey(ids, 30, 2), Retrieval(ids, (1, 4)))
    assert copying.probs([5, 6]) == pytest.approx(copying.counts.probs([5, 6]))
    copying.tune([[3, 4, 5, 6, 7, 8, 25], [0, 1]])
    assert copying.trust == {4: pytest.approx(3 / 5), 1: pytest.approx(5 / 6)}
    copying.cached = 0.0
    probs = copying.probs([5, 6, 7, 8])
    assert probs.sum() == pytest.approx(1) and probs.argmax() == 9
    plain = copying.counts.probs([5, 6, 7, 8])
    assert probs[9] == pytest.approx(3 / 5 + plain[9] * 2 / 5)
    assert copying.probs([29]) == pytest.approx(copying.counts.probs([29]))


def test_what_was_read_is_copied_too():
    """In the first document 27 follows 26 twice, and once more in the second of them."""
    ids = [*range(20)] * 3
    copying = CopyingCounts(KneserNey(ids, 30, 2), Retrieval(ids, (4,)))
    copying.tune([[26, 27, 1, 26, 27, 2], [26, 27, 26, 28]])
    assert copying.own_trust == {8: 0, 4: 0, 3: 0, 2: pytest.approx(1 / 3),
                                 1: pytest.approx(1 / 2)}
    copying.cached = 0.1
    probs, plain = (each.probs([26, 27, 9, 26]) for each in (copying, copying.counts))
    assert probs.sum() == pytest.approx(1)
    assert probs[27] == pytest.approx(0.5 + 0.5 * (0.9 * plain[27] + 0.1 / 4))
    assert probs[26] == pytest.approx(0.5 * (0.9 * plain[26] + 0.1 / 2))


def test_some_methods_are_taken_out_of_the_documents():
    class_, end, method, last = 100, 101, 102, 103
    document = [class_, 1, 2, end, method, 5, 6, end, method, 7, end, last]
    lone = [method, 8, 9, end, last]
    ids = np.array([*document, *lone] * 50)
    left, (heads, bodies) = smalltalk_rivals.without_some(ids, (method,), end, last, 0.3)
    assert 20 < len(bodies) < 70
    assert len(left) == len(ids) - sum(len(body) + 1 for body in bodies)
    wanted = {((class_, 1, 2, end, method), (5, 6, end)), ((class_, 1, 2, end, method), (7, end)),
              ((method,), (8, 9, end))}
    assert {(tuple(head), tuple(body)) for head, body in zip(heads, bodies, strict=True)} == wanted
    assert (left == class_).sum() == 50 and (left == last).sum() == 100
    assert (left == method).sum() == 150 - len(bodies)


def test_the_rivals_share_everything_with_the_model(bench, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(smalltalk_rivals, "ORDERS", (2, 4))
    monkeypatch.setattr(smalltalk_rivals, "TUNED_ON", 10)
    monkeypatch.setattr(smalltalk_rivals, "SCORED", 30)
    rivals = smalltalk_rivals.train_rivals(bench, corpus, tmp_path)
    assert rivals.tuning[4] == min(rivals.tuning.values()) and rivals.counts.order == 4
    found, cuts = rivals.completion(bench, untrained(), 30)
    assert found["cases"] == len(cuts) == 30
    exact = {name: each["exact"]["right"] for name, each in found["rivals"].items()}
    assert exact["model"] < min(exact["Kneser-Ney"], exact["Kneser-Ney with copying"])
    program = found["rivals"]["a program of one line"]
    assert program["selector"]["right"] > program["exact"]["right"]
    assert sum(each["cases"] for each in found["by_project"].values()) == 30
    for name, shares in found["rivals"].items():
        of_all = sum(each["cases"] * each["shares"][name]["tree"]
                     for each in found["by_project"].values())
        assert of_all == pytest.approx(shares["tree"]["right"])
    gap = found["differences"]["Kneser-Ney"]["selector"]
    assert gap["verdict"] == "behind" and gap["high"] < 0
    bits = smalltalk_rivals.surprise(bench, untrained(), rivals)
    rates = {name: each["value"] for name, each in bits["bits_per_character"].items()}
    assert rates["Kneser-Ney"] < rates["model"]
    assert bits["differences"]["Kneser-Ney"]["verdict"] == "higher"
    assert bits["by_project"]["model"] == pytest.approx({"library": rates["model"]})
    split = smalltalk_rivals.random_split(bench, rivals)
    assert split["methods"]["random split"] <= 30 == split["methods"]["unseen projects"]
    written = {"people": [bench.method(each) for each in bench.methods[:20]],
               "training": bench.training[:20]}
    copied = smalltalk_rivals.copied(bench, written, rivals)
    assert copied["people"]["share"]["high"] < copied["training"]["share"]["low"]
    assert copied["training"]["word_for_word"]["value"] == 1
    assert "less_people" not in copied["people"]
    less = [each for each in copied["training"]["less_people"] if each]
    assert less and all(each["low"] > 0 and each["verdict"] == "higher" for each in less)
    # the model read what was kept from the rivals, and may copy it
    kept = [Method(TOKENIZER.decode(body[:-1]), (), len(body)) for body in rivals.kept[1]]
    account = smalltalk_rivals.copied(bench, {"people": [], "kept": kept}, rivals)["kept"]
    assert account["less_people"] == [None] * 4
    assert kept and account["share"]["value"] == account["word_for_word"]["value"] == 1
    assert sum(each["methods"] for each in copied["people"]["by_quarter"]) == 20


# memory


def test_a_planted_stretch_is_found():
    training = [*range(100, 200), 5, 6, 7, 8, *range(300, 330)]
    texts = [[1, 2, 5, 6, 7, 8, 9], [120, 121, 122], [999], [], [8, 300, 301, 42, 5, 6]]
    assert longest_overlaps(texts, training) == [
        Stretch(2, 4), Stretch(0, 3), Stretch(0, 0), Stretch(0, 0), Stretch(0, 3)]


def test_overlaps_are_those_of_brute_force():
    draw = np.random.default_rng(3)
    training = draw.integers(0, 4, 300).tolist()
    texts = [draw.integers(0, 5, draw.integers(0, 40)).tolist() for _ in range(30)]
    joined = "," + ",".join(map(str, training)) + ","
    for text, found in zip(texts, longest_overlaps(texts, np.array(training)), strict=True):
        runs = [(start, stop) for start in range(len(text)) for stop in range(start + 1,
                                                                            len(text) + 1)
                if "," + ",".join(map(str, text[start:stop])) + "," in joined]
        best = max((stop - start for start, stop in runs), default=0)
        assert found.length == best
        assert best == 0 or found.start == min(a for a, b in runs if b - a == best)


# classes, checkpoints, the command


def test_spans_of_methods():
    ids = [1, 2, END, METHOD, 3, 4, END, METHOD, 5, METHOD, 6, END, METHOD, 7]
    assert spans(ids, [METHOD], END) == [(4, 7), (10, 12)]


def test_written_classes_have_whole_methods_behind_one_head(bench, corpus):
    """A writer that knows the test classes by heart writes what their documents hold."""
    ids = training_ids(corpus, "test")
    model = CopyingCounts(KneserNey(ids, TOKENIZER.vocab_size, 3), Retrieval(ids))
    model.trust = dict.fromkeys(model.trust, 0.999)
    classes, own = written_classes(bench, model, 30, seed=1), peoples_classes(bench, 30)
    assert 10 < len(classes) <= 30 and all(len(each.methods) > 1 for each in classes)
    known = {tree for each in own for tree in each.methods}
    assert sum(tree in known for each in classes for tree in each.methods) > 10
    together, alone = written_alone(bench, model, classes)
    assert 5 < len(alone) == len(together) <= len(classes)
    for one, other in zip(together, alone, strict=True):
        assert one.head == other.head and len(one.methods) == len(other.methods) > 1


def test_correlation_and_its_views_without_the_trend():
    loss = [5, 4, 3, 2.5, 2.2, 2.1, 2.0, 1.9]
    found = smalltalk_judgement.correlation(loss, [0, 1, 2, 3, 4, 5, 6, 7])
    assert found["value"] == pytest.approx(-1) and found["p"] < 0.01
    assert found["late"]["value"] == pytest.approx(-1) and found["late"]["pairs"] == 4
    noise = smalltalk_judgement.correlation(loss, [3, 1, 4, 1, 5, 9, 2, 6])
    assert noise["p"] > 0.05
    assert smalltalk_judgement.correlation(loss, [1] * 8) is None
    assert smalltalk_judgement.correlation(loss, [None, *range(7)]) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory, trained):
    """A run with six checkpoints, from untrained to trained."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    TOKENIZER.save(folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps({
        "model": asdict(SIZES), "train": {"max_steps": 6}, "data": {"seq_len": WINDOW},
        "tokenizer": sha256_of(folder / "tokenizer.json")}), encoding="utf-8")
    start, stop = untrained().state_dict(), trained.state_dict()
    for step in range(1, 7):
        model = untrained()
        share = (step - 1) / 5
        model.load_state_dict({name: torch.lerp(start[name].float(), stop[name].float(), share)
                               for name in start})
        save_checkpoint(folder, step, model, torch.optim.SGD(model.parameters(), 0.1), {}, 9)
    return folder


def test_the_whole_judgement(run, corpus, tmp_path, monkeypatch):
    """Every number that the chapter prints is there, and JSON can hold it."""
    pytest.importorskip("tree_sitter_pharo", reason="pip install pharo-tree-sitter")
    monkeypatch.setattr(smalltalk_rivals, "ORDERS", (3,))
    monkeypatch.setattr(smalltalk_rivals, "TUNED_ON", 5)
    monkeypatch.setattr(smalltalk_rivals, "SCORED", 20)
    found = smalltalk_judgement.measure(corpus, run, tmp_path, 20, 20)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["model"]["step"] == 6 and found["checkpoints"]["steps"] == [1, 2, 3, 4, 5, 6]
    people = found["samples"]["people"]["validity"]
    assert people["all judges"]["value"] == 1 - people["unfinished"] / 20
    assert "people" not in found["aim"] and found["aim"]["model"] == "missed"
    assert found["samples"]["a training method, whole"]["validity"]["all judges"]["value"] == 1
    assert found["samples"]["people"]["judging"]["methods"] == 20
    free, ruled = (found["samples"][name] for name in ("model", "model, constrained"))
    assert free["refused_draws"] == 0 < ruled["refused_draws"]
    ours = ruled["validity"]
    assert ours["ours"]["passed"] == ours["methods"] - ours["unfinished"]
    # what learned four methods by heart is valid more often, and worse on held-out text
    assert found["checkpoints"]["correlation"]["valid"]["value"] > 0.5
    assert len(smalltalk_judgement.lines(found)) == len(found["samples"]) + len(
        found["completion"]["differences"])
    measures = {*free["measures"], *found["classes"]["people"]["shuffled"]}
    assert measures == set(found["definitions"])


def test_the_command(run, corpus, tmp_path, capsys):
    words = ["smalltalk", "eval", str(run), str(corpus), "--samples", "15"]
    assert cli.main([*words, "--constrained", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    for text in ("valid: ours", "model, constrained", "people", "quarter 4", "exact",
                 "selectors shared", *DEFINITIONS):
        assert text in printed
    numbers = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert numbers["samples"]["people"]["validity"]["ours"]["value"] == 1
    assert max(map(len, printed.splitlines())) <= 140
    assert cli.main(words) == 0
    again = capsys.readouterr().out
    assert "constrained" not in again and "(95 % interval)" in again


@pytest.mark.parametrize(("words", "complaint"), [
    (["--samples", "0"], "--samples 0"), (["--temperature", "0"], "--temperature 0"),
    (["--samples", "100000"], "ask for 1 to"), (["--json", "nowhere/x.json"], "does not exist")])
def test_what_the_command_refuses(run, corpus, capsys, words, complaint):
    assert cli.main(["smalltalk", "eval", str(run), str(corpus), *words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_corpus_or_model_that_is_none_is_refused(run, corpus, tmp_path, capsys):
    for model, folder, complaint in ((run, tmp_path, "smalltalk prepare"),
                                     (tmp_path, corpus, "is no run")):
        assert cli.main(["smalltalk", "eval", str(model), str(folder)]) == 2
        assert complaint in capsys.readouterr().err
