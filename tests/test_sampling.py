"""Beams against every possible text, a guesser that changes nothing, a price on repeating."""

import itertools
import math

import pytest
import torch

from scratchbook.config import ModelConfig
from scratchbook.generation import eval_mode, generate
from scratchbook.model import DecoderLM
from scratchbook.sampling import _check, beam_search, penalise_repeats, speculate

VOCAB = 4


def chain(seed: int, sharp: float = 2.0):
    """A model that sees only the last token: quick enough to be asked a hundred thousand times."""
    table = sharp * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))
    return lambda ids: table[ids]


def decoder(seed: int = 0) -> DecoderLM:
    torch.manual_seed(seed)
    return DecoderLM(ModelConfig(20, max_seq_len=32, num_layers=2, d_model=16, num_heads=2)).eval()


def logprob(model, prompt, new) -> float:
    logprobs = model(torch.tensor([[*prompt, *new]]))[0].log_softmax(-1)
    return sum(logprobs[len(prompt) - 1 + i, token].item() for i, token in enumerate(new))


@pytest.mark.parametrize("seed", range(5))
def test_with_enough_beams_the_likeliest_text_is_found(seed):
    model = chain(seed)
    every = {new: logprob(model, [0], new) for new in itertools.product(range(VOCAB), repeat=4)}
    found = beam_search(model, [0], 4, beams=VOCAB**4, length_penalty=0)
    best = max(every, key=every.get)
    assert tuple(found[0][1]) == best
    assert found[0][0] == pytest.approx(every[best], abs=1e-5)
    assert len(found) == VOCAB**4


def test_one_beam_is_greedy_and_more_are_never_worse():
    model = decoder()
    for prompt in ([1], [3, 5, 7]):
        greedy = generate(model, prompt, 10, temperature=0)
        assert beam_search(model, prompt, 10, 1)[0][1] == greedy
        scores = [beam_search(model, prompt, 10, beams)[0][0] for beams in (1, 4)]
        assert scores[1] >= scores[0] - 1e-6


def test_a_text_that_stops_is_scored_by_its_own_length():
    model = chain(1)
    found = beam_search(model, [0], 6, 3, stop_ids=[2], length_penalty=1.0)
    for score, new in found:
        assert 2 not in new[:-1]
        assert score == pytest.approx(logprob(model, [0], new) / len(new), abs=1e-5)
    assert [s for s, _ in found] == sorted((s for s, _ in found), reverse=True)
    whole = beam_search(model, [0], 6, 3, stop_ids=[2], length_penalty=0)
    for score, new in whole:
        assert score == pytest.approx(logprob(model, [0], new), abs=1e-5)
    assert any(len(new) < 6 for _, new in whole)  # one at least has stopped
    assert beam_search(model, [0], 0) == [(0.0, [])]


def test_penalty_by_hand():
    logits, ids = torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[0, 1, 1]])
    assert penalise_repeats(logits, ids, 2.0).tolist() == [[1.0, -4.0, 1.0]]
    assert torch.equal(penalise_repeats(logits, ids, 1.0), logits)
    for wrong in (0, -1, math.nan):
        with pytest.raises(ValueError, match="penalty"):
            penalise_repeats(logits, ids, wrong)


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """The statistic of Pearson's test over a 64-cell table, as a normal deviate.

    Wilson and Hilferty's cube root; above 4.5 by chance once in 300,000 tests.
    """
    keep = expected > 0
    freedom = int(keep.sum()) - 1
    x = float(((counts - expected)[keep] ** 2 / expected[keep]).sum())
    return ((x / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


def distribution(model) -> torch.Tensor:
    triples = itertools.product(range(VOCAB), repeat=3)
    return torch.tensor([math.exp(logprob(model, [0], new)) for new in triples])


def frequencies(target, draft, guesses, draws=6000):
    generator, counts = torch.Generator().manual_seed(7), torch.zeros(VOCAB**3)
    for _ in range(draws):
        a, b, c = speculate(target, draft, [0], 3, guesses, generator=generator)[0]
        counts[a * VOCAB * VOCAB + b * VOCAB + c] += 1
    return counts


@pytest.mark.parametrize(("draft", "guesses"), [(2, 1), (2, 3), (1, 2), (9, 5)])
def test_speculation_keeps_the_distribution(draft, guesses):
    target = chain(1, sharp=1.0)
    counts = frequencies(target, chain(draft, sharp=1.0), guesses)
    # four cases: one false alarm in 75,000 runs of this file
    assert chi_square(counts, distribution(target) * counts.sum()) < 4.5


def test_the_chi_square_sees_a_wrong_rule(monkeypatch):
    def draws_from_the_target(p, q, guessed, generator):  # and not from what is left
        for place, token in enumerate(guessed.tolist()):
            if torch.rand((), generator=generator) * q[place][token] > p[place, token]:
                return place, torch.multinomial(p[place], 1, generator=generator)
        return len(guessed), torch.multinomial(p[-1], 1, generator=generator)

    monkeypatch.setattr("scratchbook.sampling._check", draws_from_the_target)
    target = chain(1, sharp=1.0)
    counts = frequencies(target, chain(2, sharp=1.0), 3)
    assert chi_square(counts, distribution(target) * counts.sum()) > 10


def test_a_perfect_guesser_is_always_believed():
    model = decoder()
    new, reads = speculate(model, model, [1, 2], 20, guesses=4,
                           generator=torch.Generator().manual_seed(0))
    assert len(new) == 20 and reads == 4  # five tokens a read
    _, reads = speculate(chain(1, 9.0), chain(2, 9.0), [0], 20, guesses=4)
    assert 4 < reads <= 20


def test_a_guess_refused_by_rounding_alone_leaves_something_to_draw(monkeypatch):
    p = torch.tensor([[0.5, 0.5 - 2**-25, 0.0], [1.0, 0.0, 0.0]])
    q = [torch.tensor([0.5, 0.5, 0.0])]
    monkeypatch.setattr(torch, "rand", lambda *size, **options: torch.tensor(1.0))
    assert _check(p, q, torch.tensor([1]), None)[0] == 0


def test_cold_speculation_is_greedy():
    target, draft = decoder(0), decoder(1)
    new, _ = speculate(target, draft, [4], 12, temperature=1e-4)
    assert new == generate(target, [4], 12, temperature=0)


def drawn(target, draft):
    return speculate(target, draft, [1, 2], 12, 3, generator=torch.Generator().manual_seed(3))


def test_in_training_mode_they_write_as_in_eval_mode_and_give_every_module_its_mode_back():
    torch.manual_seed(0)
    config = ModelConfig(20, max_seq_len=32, num_layers=2, d_model=16, num_heads=2, dropout=0.5)
    model, draft = DecoderLM(config).eval(), DecoderLM(config).eval()
    wanted = beam_search(model, [1, 2], 12), drawn(model, draft), generate(model, [1], 9, 0)
    model.train(), draft.train()
    model.blocks[0].eval()  # as one does with frozen layers
    modes = [m.training for m in model.modules()]
    assert (beam_search(model, [1, 2], 12), drawn(model, draft), generate(model, [1], 9, 0)
            ) == wanted
    assert [m.training for m in model.modules()] == modes and draft.training
    with pytest.raises(RuntimeError), eval_mode(model):
        raise RuntimeError
    assert [m.training for m in model.modules()] == modes


class Elsewhere(torch.nn.Module):
    """Its parameters are on another device, where it wants its ids."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))

    def forward(self, ids):
        assert ids.device == self.weight.device
        return torch.ones(*ids.shape, VOCAB)


def test_ids_go_to_the_models_device():
    assert len(beam_search(Elsewhere(), [0], 3)[0][1]) == 3
    for pair in ((Elsewhere(), chain(0)), (chain(0), Elsewhere())):
        assert len(speculate(*pair, [0], 5)[0]) == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_writes_what_the_cpu_does():
    here, there = decoder(), decoder().cuda()
    assert [new for _, new in beam_search(there, [1], 9)] == [
        new for _, new in beam_search(here, [1], 9)]
    assert speculate(there, here, [1], 9, temperature=1e-4)[0] == generate(here, [1], 9, 0)


@pytest.mark.parametrize("token", [20, -1, 10**6])
def test_an_id_outside_the_vocabulary_is_named(token):
    message = f"id {token} is outside the vocabulary, 0 to 19"
    for call in (lambda: beam_search(decoder(), [1, token], 3),
                 lambda: speculate(decoder(), decoder(), torch.tensor([1, token]), 3),
                 lambda: speculate(chain(0), decoder(), [token], 3),
                 lambda: penalise_repeats(torch.zeros(1, 20), torch.tensor([[1, token]]), 2.0)):
        with pytest.raises(ValueError, match=message):
            call()
    other = DecoderLM(decoder().config.with_(vocab_size=21))
    with pytest.raises(ValueError, match="needs one vocabulary, not those of {20, 21} ids"):
        speculate(decoder(), other, [1], 3)


@pytest.mark.parametrize("call", [
    lambda: beam_search(chain(0), [], 3), lambda: beam_search(chain(0), [[0], [1]], 3),
    lambda: beam_search(decoder(), [1] * 30, 3),
    lambda: beam_search(decoder(), [1], -1), lambda: speculate(decoder(), chain(0), [1] * 30, 3),
    lambda: speculate(chain(0), decoder(), [1] * 30, 3),
    lambda: speculate(chain(0), chain(0), [0], -1),
    lambda: beam_search(chain(0), [0], 3, beams=0),
    lambda: speculate(chain(0), chain(0), [], 3), lambda: speculate(chain(0), chain(0), [0], 3, 0),
    lambda: speculate(chain(0), chain(0), [0], 3, temperature=0),
])
def test_hostile_input(call):
    with pytest.raises(ValueError, match="prompt"):
        call()
