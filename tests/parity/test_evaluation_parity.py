"""Overlap, intervals and sampling against libraries that others wrote."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchbook.evaluation import spearman, wilson
from scratchbook.evaluation.overlap import bleu, rouge_l, rouge_n
from scratchbook.sampling import beam_search, penalise_repeats

WORDS = st.lists(st.sampled_from(["the", "cat", "Sat", "on", "a", "mat,", "x_1", "é!"]),
                 max_size=15)


def test_rouge(parity):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(
        ["rouge1", "rouge2", "rougeL"])
    cases, worst = 0, 0.0

    @settings(max_examples=300, derandomize=True)
    @given(WORDS, WORDS)
    def compare(first, second):
        nonlocal cases, worst
        first, second = " ".join(first), " ".join(second)
        theirs = scorer.score(second, first)
        ours = [rouge_n(first, second), rouge_n(first, second, 2), rouge_l(first, second)]
        for one, other in zip(ours, theirs.values(), strict=True):
            worst = max(worst, *(abs(a - b) for a, b in zip(one, other, strict=True)))
        cases += 1

    compare()
    assert parity("ROUGE-1, ROUGE-2, ROUGE-L", against="rouge-score", error=worst, cases=cases,
                  bound=1e-15)


def test_bleu(parity):
    sacrebleu = pytest.importorskip("sacrebleu")
    cases, worst = 0, 0.0

    @settings(max_examples=300, derandomize=True)
    @given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
    def compare(pairs):
        nonlocal cases, worst
        texts = [" ".join(a) for a, _ in pairs]
        references = [" ".join(b) for _, b in pairs]
        theirs = sacrebleu.corpus_bleu(texts, [references], tokenize="none", force=True).score
        worst = max(worst, abs(bleu(texts, references) - theirs))
        cases += 1

    compare()
    assert parity("BLEU", against="sacrebleu", error=worst, cases=cases, bound=5e-13)


def test_wilson_and_spearman(parity):
    stats = pytest.importorskip("scipy.stats")
    worst, draw = 0.0, torch.Generator().manual_seed(0)
    for total in (1, 7, 40, 500):
        for passed in {0, 1, total // 2, total}:
            theirs = stats.binomtest(passed, total).proportion_ci(0.95, method="wilson")
            worst = max(worst, *(abs(a - b) for a, b in zip(
                wilson(passed, total, 1.959963984540054)[1:], theirs, strict=True)))
    for size in (4, 9, 60):
        x, y = torch.randint(8, (2, size), generator=draw).double().numpy()
        worst = max(worst, abs(spearman(x, y).value - stats.spearmanr(x, y).statistic))
    assert parity("Wilson interval, Spearman", against="scipy", error=worst, cases=19, bound=2e-15)


def test_repetition_penalty(parity):
    transformers = pytest.importorskip("transformers")
    worst, cases = 0.0, 0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        logits = 5 * torch.randn(3, 40, generator=generator)
        ids = torch.randint(40, (3, 12), generator=generator)
        for penalty in (0.5, 1.0, 1.3):
            theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
            worst = max(worst, (penalise_repeats(logits, ids, penalty) - theirs).abs().max().item())
            cases += 1
    assert parity("repetition penalty", against="transformers logits processor", error=worst,
                  cases=cases)


def test_beam_search(parity):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=30, n_positions=40, n_embd=16, n_layer=2, n_head=2, initializer_range=0.4)
    model = transformers.GPT2LMHeadModel(config).eval()
    cases = wrong = 0
    for seed in range(12):
        prompt = torch.randint(29, (1, 4), generator=torch.Generator().manual_seed(seed))
        for beams in (1, 2, 5):
            for stop in (29, None):
                theirs = model.generate(prompt, max_new_tokens=8, num_beams=beams, do_sample=False,
                                        eos_token_id=stop, pad_token_id=29, early_stopping=True)
                ours = beam_search(lambda ids: model(ids).logits, prompt[0].tolist(), 8, beams,
                                   () if stop is None else (stop,))[0][1]
                found = theirs[0, 4:].tolist()
                wrong, cases = wrong + (found[: len(ours)] != ours), cases + 1
    assert parity("beam search", against="transformers", error=wrong, cases=cases)
