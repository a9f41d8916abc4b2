"""From messages to ids: sandboxed templates, and control tokens that no user can spell."""

import json

import pytest

pytest.importorskip("jinja2", reason="jinja2 is not installed: pip install 'scratchbook[serve]'")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from scratchbook.finetuning.data import encode_example, parts_of  # noqa: E402
from scratchbook.serving.chat_templates import (  # noqa: E402
    ChatTemplate,
    plain_chat,
    read_template,
)
from tests.serving_home import CHATML, tiny_served  # noqa: E402

SERVED = tiny_served()
CONTROL, TOKENIZER = SERVED.control, SERVED.tokenizer
ROLES = ("system", "user", "assistant")
# whole special tokens, their beginnings and ends, and what surrounds them
HOSTILE = st.lists(st.sampled_from([*CONTROL, "<", "<|", "<|im_", "end|>", "|>", "a", " ", "\n",
                                    "é", "\ue000"]), max_size=8).map("".join)


def test_chatml_by_hand():
    messages = [{"role": "system", "content": " be brief "}, {"role": "user", "content": "hi"}]
    assert ChatTemplate(CHATML).render(messages) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ROLES), HOSTILE), min_size=1, max_size=4))
@example([("user", "<|im_"), ("assistant", "end|>")])  # one token in two messages
@example([("user", "a<"), ("user", "|im_end|>")])
def test_of_the_control_tokens_only_the_templates_are_control(turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    harmless = [{"role": role, "content": "a"} for role, _ in turns]
    for template in (CHATML, "{% for m in messages %}{{ m.content }}{% endfor %}<|endoftext|>"):
        made = ChatTemplate(template)
        ids = made.encode(messages, TOKENIZER, CONTROL)
        expected = made.encode(harmless, TOKENIZER, CONTROL)
        control = set(CONTROL.values())
        assert [i for i in ids if i in control] == [i for i in expected if i in control]
        assert TOKENIZER.decode(ids) == made.render(messages)  # and not a character is lost


def test_a_text_of_every_private_character_is_refused():
    everything = "".join(map(chr, range(0xE000, 0xF900)))
    with pytest.raises(ValueError, match="every private character"):
        ChatTemplate(CHATML).encode([{"role": "user", "content": everything}], TOKENIZER, CONTROL)


@pytest.mark.parametrize("source", [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ messages.append({}) }}",
    "{% for m in messages %}{{ m.update(a=1) }}{% endfor %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ raise_exception('only users may speak') }}",
    "{{ messages[0].content + 1 }}", "{{ 1 / 0 }}", "{{ nothing.at.all }}", "{% include 'x' %}",
    "{{ range(10 ** 9) | list }}",
])
def test_a_template_that_does_what_it_may_not_is_refused(source):
    with pytest.raises(ValueError, match="refuses these messages"):
        ChatTemplate(source).render([{"role": "user", "content": "a"}])


def test_a_template_that_cannot_be_read_names_its_line():
    with pytest.raises(ValueError, match="line 2 of the chat template"):
        ChatTemplate("\n{% for %}")


def test_where_templates_stand(tmp_path):
    assert read_template(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"eos_token": {"content": "</s>"}}', encoding="utf-8")
    assert read_template(tmp_path) is None
    entries = {"eos_token": {"content": "</s>"}, "bos_token": None,
               "chat_template": "one{{ eos_token }}"}
    config.write_text(json.dumps(entries), encoding="utf-8")
    assert read_template(tmp_path).render([]) == "one</s>"
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": "two"}]
    config.write_text(json.dumps(entries | {"chat_template": several}), encoding="utf-8")
    assert read_template(tmp_path).render([]) == "two"
    (tmp_path / "chat_template.jinja").write_text("three{{ eos_token }}", encoding="utf-8")
    assert read_template(tmp_path).render([]) == "three</s>"
    config.write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="JSON list"):
        read_template(tmp_path)


def test_without_a_template_a_chat_has_the_ids_that_fine_tuning_shows():
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  hi\n"},
            {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "<|endoftext|>"}]
    learned = encode_example(parts_of({"messages": [*talk, {"role": "assistant", "content": "!"}]}),
                             TOKENIZER).ids
    asked = plain_chat(talk, TOKENIZER)
    answer = [*TOKENIZER.encode("!"), CONTROL["<|endoftext|>"]]
    assert asked + answer == learned
    assert asked.count(CONTROL["<|endoftext|>"]) == 1  # behind the assistant's answer alone


def test_a_model_without_a_template_does_not_play_the_user():
    served = tiny_served(template=None)
    stream = served.stream(served.chat_stops)
    for token in TOKENIZER.encode("fine.\n\n### User:\nand"):
        text, _ = stream.add(token)
        assert "###" not in text
    assert stream.stopped
