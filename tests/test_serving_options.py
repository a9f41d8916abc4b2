"""What a request may ask beyond a text: JSON, likely tokens, tools, one of several models."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'scratchbook[serve]'")
openai = pytest.importorskip("openai", reason="openai is not installed: pip install openai")
ollama = pytest.importorskip("ollama", reason="ollama is not installed: pip install ollama")
httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

import torch  # noqa: E402

from scratchbook.serving import Engine, Request  # noqa: E402
from scratchbook.serving.app import create_app  # noqa: E402
from scratchbook.serving.top_tokens import TopEngine  # noqa: E402
from tests.serving_home import ScriptedEngine, serving, tiny_served  # noqa: E402

TALK = [{"role": "user", "content": "the cat"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def served_as(name: str, window: int = 128):
    return replace(tiny_served(window=window), name=name)


@pytest.fixture(scope="module")
def home():
    served, other = tiny_served(window=256), served_as("other", 64)
    with serving(served, TopEngine(served.model), more=[(other, TopEngine(other.model))]) as found:
        yield found


@pytest.fixture(scope="module")
def client(home):
    with openai.OpenAI(base_url=f"{home.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def reads_as_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def test_an_answer_in_json_is_an_object_or_was_cut(home, client):
    """A random model would hit upon no object in 200 years: what closes was led there by masks."""
    ended = 0
    for seed in range(12):
        ask = {"model": "tiny", "messages": TALK, "max_tokens": 120, "temperature": 1.5,
               "seed": seed, "response_format": {"type": "json_object"}}
        choice = client.chat.completions.create(**ask).choices[0]
        assert choice.message.content.startswith("{")
        assert choice.finish_reason in ("stop", "length")
        assert reads_as_object(choice.message.content) == (choice.finish_reason == "stop")
        ended += choice.finish_reason == "stop"
        if seed < 3:
            chunks = client.chat.completions.create(**ask, stream=True)
            text = "".join(c.choices[0].delta.content or "" for c in chunks)
            assert text == choice.message.content
    assert ended >= 3
    plain = client.chat.completions.create(**ask | {"response_format": {"type": "text"}})
    assert not reads_as_object(plain.choices[0].message.content)


def test_ollamas_json(home):
    asker, ended = ollama.Client(home.url), 0
    for seed in range(12):
        options = {"num_predict": 120, "temperature": 1.5, "seed": seed, "top_k": 0, "top_p": 1.0}
        texts = [asker.generate("tiny", "the cat", format="json", options=options),
                 asker.chat("tiny", TALK, format="json", options=options)]
        for made, text in zip(texts, (texts[0].response, texts[1].message.content), strict=True):
            assert text.startswith("{")
            assert reads_as_object(text) == (made.done_reason == "stop")
            ended += made.done_reason == "stop"
    assert ended >= 3


def test_a_model_that_cannot_write_json_says_so():
    with serving(replace(tiny_served(), stop_ids=()), ScriptedEngine([1])) as home:
        answer = httpx.post(f"{home.url}/v1/completions", json={
            "model": "tiny", "prompt": "a", "response_format": {"type": "json_object"}})
        assert answer.status_code == 400
        assert "no token ends its texts" in answer.json()["error"]["message"]
        assert answer.json()["error"]["param"] == "response_format"


def true_logprobs(home, prompt: list[int], new: list[int]) -> torch.Tensor:
    with torch.no_grad():
        scores = home.served.model(torch.tensor([prompt + new]))[0].log_softmax(-1)
    return scores[len(prompt) - 1 : -1]  # (new, vocab)


def written(home, ids: list[int], count: int, temperature: float, seed: int | None) -> list[int]:
    """The tokens that the model writes, those without a text included."""
    return TopEngine(home.served.model).run([Request(
        ids, count, temperature, stop_ids=home.served.stop_ids, seed=seed)])[0]


def test_the_likeliest_tokens_are_the_models_in_a_chat(home, client):
    tokenizer, ids = home.served.tokenizer, home.served.encode_chat(TALK)
    made = client.chat.completions.create(model="tiny", messages=TALK, max_tokens=8, seed=1,
                                          temperature=1.3, logprobs=True, top_logprobs=4)
    new = written(home, ids, 8, 1.3, 1)
    content, true = made.choices[0].logprobs.content, true_logprobs(home, ids, new)
    shown = [(i, row) for i, row in zip(new, true, strict=True)
             if i not in home.served.control.values()]
    assert len(content) == len(shown) >= 4
    for (token, row), each in zip(shown, content, strict=True):
        best = row.topk(4)
        assert bytes(each.bytes) == tokenizer.token_bytes(token)
        assert each.logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert [other.logprob for other in each.top_logprobs] == pytest.approx(
            best.values.tolist(), abs=1e-4)
        assert [bytes(other.bytes) for other in each.top_logprobs] == [
            tokenizer.token_bytes(i) for i in best.indices.tolist()]


def test_the_likeliest_tokens_of_a_completion(home, client):
    served = home.served
    ids = served.tokenizer.encode("the cat")
    made = client.completions.create(model="tiny", prompt=ids, max_tokens=6, temperature=0,
                                     logprobs=3)
    new = written(home, ids, 6, 0, None)
    found, true = made.choices[0].logprobs, true_logprobs(home, ids, new)
    assert len(found.top_logprobs) == len(found.tokens) >= 4
    for row, token, logprob, top in zip(true, new, found.token_logprobs, found.top_logprobs,
                                        strict=False):
        assert logprob == pytest.approx(float(row[token]), abs=1e-4)
        best, expected = row.topk(3), {}
        for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            expected.setdefault(served.tokenizer.decode([i]), value)
        assert top == pytest.approx(expected, abs=1e-4)
    unlikely = client.completions.create(model="tiny", prompt=ids, max_tokens=6, temperature=2,
                                         logprobs=1, seed=0).choices[0].logprobs
    assert any(len(top) == 2 for top in unlikely.top_logprobs)  # the chosen one is there, too
    for text, logprob, top in zip(unlikely.tokens, unlikely.token_logprobs,
                                  unlikely.top_logprobs, strict=True):
        assert top[text] >= logprob  # another token may have the same text
        assert list(top.values()) == sorted(top.values(), reverse=True)
    none = client.completions.create(model="tiny", prompt=ids, max_tokens=2, logprobs=0)
    assert none.choices[0].logprobs.top_logprobs is None


def test_likeliest_tokens_need_logprobs_and_an_engine_that_tells(client):
    with pytest.raises(openai.BadRequestError, match="needs logprobs"):
        client.chat.completions.create(model="tiny", messages=TALK, top_logprobs=2)
    with pytest.raises(openai.BadRequestError, match="less than or equal to 20"):
        client.chat.completions.create(model="tiny", messages=TALK, logprobs=True, top_logprobs=21)
    served = tiny_served()
    with serving(served, Engine(served.model)) as home:
        answer = httpx.post(f"{home.url}/v1/completions", json={"model": "tiny", "prompt": "a",
                                                                "logprobs": 1})
        assert answer.status_code == 400 and "TopEngine" in answer.json()["error"]["message"]


def test_tools_are_refused_with_the_reason(home, client):
    refused = "tools is not supported: the models here were not trained to call any"
    with pytest.raises(openai.BadRequestError, match=refused) as caught:
        client.chat.completions.create(model="tiny", messages=TALK, tools=TOOLS)
    assert caught.value.param == "tools"
    with pytest.raises(ollama.ResponseError, match=refused):
        ollama.Client(home.url).chat("tiny", TALK, tools=TOOLS)
    with pytest.raises(openai.BadRequestError, match="tool_choice is not supported"):
        client.chat.completions.create(model="tiny", messages=TALK, tool_choice="required")
    assert client.chat.completions.create(model="tiny", messages=TALK, tools=[], max_tokens=1,
                                          tool_choice="none")
    with pytest.raises(openai.BadRequestError, match="tool_calls is not supported"):
        client.chat.completions.create(model="tiny", messages=[{
            "role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {
                "name": "add", "arguments": "{}"}}]}])


def test_a_request_picks_its_model_by_name(home, client):
    assert [each.id for each in client.models.list()] == ["tiny", "other"]
    assert client.models.retrieve("other").max_model_len == 64
    tags = ollama.Client(home.url)
    assert [each.model for each in tags.list().models] == ["tiny:latest", "other:latest"]
    with pytest.raises(openai.BadRequestError, match="window of this model is 64 tokens"):
        client.completions.create(model="other", prompt="the", max_tokens=64)
    with pytest.raises(openai.NotFoundError, match="'tiny', 'other' are served here") as caught:
        client.completions.create(model="gpt-4", prompt="the")
    assert caught.value.code == "model_not_found"
    engines = {name: worker.engine for name, worker in home.workers.items()}
    before = {name: engine.stats.new_tokens for name, engine in engines.items()}
    assert client.completions.create(model="other", prompt="the", max_tokens=3).model == "other"
    tags.chat("tiny", TALK, options={"num_predict": 2})
    after = {name: engine.stats.new_tokens for name, engine in engines.items()}
    assert 1 <= after["other"] - before["other"] <= 3 and 1 <= after["tiny"] - before["tiny"] <= 2
    text = httpx.get(f"{home.url}/metrics").text
    assert f'scratchbook_tokens_total{{kind="new",model="other"}} {after["other"]}.0' in text
    assert httpx.get(f"{home.url}/health").json()["models"] == ["tiny", "other"]


def test_one_model_that_fails_leaves_the_other_at_work():
    served, other = tiny_served(), served_as("other")
    with serving(served, ScriptedEngine([1] * 9, fails_at=2),
                 more=[(other, ScriptedEngine([1] * 9))]) as home:
        def ask(name: str) -> int:
            return httpx.post(f"{home.url}/v1/completions", json={
                "model": name, "prompt": "a", "max_tokens": 5}).status_code

        assert [ask("tiny"), ask("tiny"), ask("other")] == [500, 503, 200]
        health = httpx.get(f"{home.url}/health")
        assert health.status_code == 503 and health.json()["status"].startswith("tiny: Arith")


def test_two_models_of_one_name_are_refused():
    served = tiny_served()
    with pytest.raises(ValueError, match="different names"):
        create_app(served, ScriptedEngine([1]), more=[(served, ScriptedEngine([1]))])
