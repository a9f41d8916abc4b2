"""Two judges behind one interface: a model here by likelihood, one behind an API by its word."""

import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
openai = pytest.importorskip("openai", reason="openai is not installed: pip install openai")

from scratchbook.base_model import base_documents  # noqa: E402
from scratchbook.serving import Engine  # noqa: E402
from scratchbook.serving.judges import ApiJudge, LikelihoodJudge, win_rate  # noqa: E402
from scratchbook.serving.served import open_served  # noqa: E402
from tests.serving_home import serving, tiny_served  # noqa: E402


def test_a_local_judge_measures_the_mean_of_log_probabilities():
    served = tiny_served()
    judge = LikelihoodJudge(served)
    before = served.encode_chat([{"role": "user", "content": "the hat"}])
    ids = served.tokenizer.encode("the cat sat")
    with torch.no_grad():
        by_hand = [float(served.model(torch.tensor([[*before, *ids[:n]]]))[0, -1].log_softmax(-1)
                         [ids[n]]) for n in range(len(ids))]
    assert judge.likelihood("the hat", "the cat sat") == pytest.approx(sum(by_hand) / len(ids),
                                                                       abs=1e-5)
    first, second = (judge.likelihood("the hat", each) for each in ("the cat", "on mats"))
    assert judge.prefers("the hat", "the cat", "on mats") == float(first > second)
    assert judge.prefers("the hat", "on mats", "the cat") == float(second > first)
    assert judge.prefers("the hat", "the cat", "the cat") == 0.5


def test_answers_that_cannot_be_judged_are_refused():
    judge = LikelihoodJudge(tiny_served())
    with pytest.raises(ValueError, match="without text"):
        judge.prefers("a", "", "b")
    room = 128 - len(judge.served.encode_chat([{"role": "user", "content": "a"}]))
    assert judge.likelihood("a", "x" * room) < 0
    with pytest.raises(ValueError, match="have 129 tokens, .* this judge 128: shorten"):
        judge.prefers("a", "b", "x" * (room + 1))
    with pytest.raises(ValueError):
        win_rate(judge, [])


def test_a_local_judge_prefers_what_people_wrote_to_the_same_words_shuffled():
    judge = LikelihoodJudge(open_served("base"))
    cases = []
    for number, document in enumerate(base_documents()[1][:12]):
        words = document.text[:400].split(" ")
        order = torch.randperm(len(words), generator=torch.Generator().manual_seed(number))
        cases.append(("Go on.", " ".join(words), " ".join(words[at] for at in order)))
    rate = win_rate(judge, cases)
    assert rate.low > 0.5 and 0 <= rate.low <= rate.value <= rate.high <= 1


class Scripted:
    """openai's client, as far as it is asked here, with a rule for what it says."""

    def __init__(self, rule, seen):
        self.rule, self.seen = rule, seen
        self.chat = SimpleNamespace(completions=self)

    def __call__(self, base_url, api_key):
        assert (base_url, api_key) == ("http://x/v1", "from-environment")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def create(self, messages, model, temperature, max_tokens):
        assert (model, temperature) == ("m", 0) and max_tokens < 10
        self.seen.append(messages[0]["content"])
        message = SimpleNamespace(content=self.rule(messages[0]["content"]))
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])


@pytest.mark.parametrize(("rule", "expected"), [
    (lambda text: "A" if text.index("good") < text.index("bad") else "B", 1.0),
    (lambda text: " **B**." if text.index("good") < text.index("bad") else "A", 0.0),
    (lambda text: "A", 0.5), (lambda text: "B", 0.5),  # a place is no opinion
    (lambda text: "Apples", 0.5), (lambda text: "", 0.5), (lambda text: None, 0.5),
    (lambda text: "A" if text.index("good") < text.index("bad") else "?", 0.75),
])
def test_a_judge_behind_an_api_is_asked_in_both_orders(monkeypatch, rule, expected):
    seen = []
    monkeypatch.setattr(openai, "OpenAI", Scripted(rule, seen))
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    assert ApiJudge("http://x/v1", "m").prefers("why?", "good", "bad") == expected
    assert len(seen) == 2 and all("Question: why?" in each for each in seen)
    assert seen[0].index("good") < seen[0].index("bad")
    assert seen[1].index("bad") < seen[1].index("good")


def test_a_judge_behind_our_own_server(monkeypatch):
    served = tiny_served(window=512)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(served, Engine(served.model)) as home:
        judge = ApiJudge(f"{home.url}/v1", "tiny")
        assert judge.prefers("the hat", "the cat", "on mats") == 0.5  # it has no opinion
        with pytest.raises(openai.NotFoundError):
            ApiJudge(f"{home.url}/v1", "another").prefers("a", "b", "c")


def test_without_openai_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match="pip install openai"):
        ApiJudge("http://x/v1", "m").prefers("a", "b", "c")
