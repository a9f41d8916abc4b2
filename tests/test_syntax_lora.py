"""Classes of Python tokens as they are read, and LoRA that is gated by them."""

import copy
import io
import keyword
import random
import sys
import token
import tokenize
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from scratchbook.attention import padding_mask
from scratchbook.config import ModelConfig
from scratchbook.data.batches import Windows
from scratchbook.finetuning.adapters import save_adapter
from scratchbook.finetuning.lora import apply_lora, lora_layers, merge
from scratchbook.finetuning.syntax_aware import (
    apply_syntax_lora,
    class_shares,
    gates_of,
    ranks_by_class,
)
from scratchbook.finetuning.syntax_files import load_syntax_lora, save_syntax_lora
from scratchbook.finetuning.token_classes import CLASSES, character_classes, token_classes
from scratchbook.generation import generate
from scratchbook.model import DecoderLM
from scratchbook.tokenizers import BPETokenizer
from scratchbook.training import TrainConfig, train
from tests.random_models import random_model

CODE = '''"""What it does."""
import re

def defaults(x, n=0x1e):  # a comment
    """Say "hi" twice."""
    text = f"a{x}" + 'b\\'c' + r"\\"
    if n >= 1.5e-3 and not x:
        return [x.y for x in (1, .5, "")]
    "another one"; x = "plain"
    pass
'''
SAMPLE = CODE * 3
TOKENIZER = BPETokenizer().train(SAMPLE, 300, ["<|end|>"])
CONFIG = ModelConfig(TOKENIZER.vocab_size, max_seq_len=400, num_layers=2, d_model=32, num_heads=4,
                     num_kv_heads=2)
GROUPS = {"keyword+operator": 2, "name": 3, "layout+comment+other+literal": 1}
IDS = TOKENIZER.encode(CODE)


def lexemes(text):
    """Where each token of Python's own tokenize ends, and its class."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    begins, inside = True, 0
    for found in tokenize.generate_tokens(io.StringIO(text).readline):
        name = token.tok_name[found.type]
        inside += (name == "FSTRING_START") - (name == "FSTRING_END")
        kind = {"NUMBER": "literal", "OP": "operator", "NEWLINE": "layout", "NL": "layout",
                "COMMENT": "comment", "STRING": "comment" if begins else "literal",
                "NAME": "keyword" if keyword.iskeyword(found.string) else "name"}.get(name)
        if kind and found.string and not inside:
            yield starts[found.end[0] - 1] + found.end[1] - 1, kind
        if name == "NEWLINE" or found.string == ";":
            begins = True
        elif name not in ("NL", "COMMENT", "INDENT", "DEDENT"):
            begins = False


def base(seed=0):
    return random_model(CONFIG, seed)


def learned(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def gated(groups=GROUPS, trained=True, **options):
    torch.manual_seed(0)
    model = apply_syntax_lora(base(), TOKENIZER, groups, **options)
    if trained:
        for layer in lora_layers(model).values():
            torch.nn.init.normal_(layer.lora_B, std=0.3)
    return model


def test_classes_of_a_small_text_by_hand():
    text = "def f(x): # no\n  return 'a'+1\n"
    short = {"keyword": "k", "name": "n", "operator": "o", "literal": "l", "layout": "_",
             "comment": "c", "other": "."}
    found = "".join(short[kind] for kind in character_classes(text))
    assert found == "nnk.nonoo.cccc___nnnnnk.lllol_"  # `de` is a name until it is `def`


def test_where_a_lexeme_ends_its_class_is_that_of_pythons_tokenize():
    folder = Path(sys.base_prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    files = sorted(folder.glob("*.py"))
    texts = [CODE] + [path.read_text(encoding="utf-8") for path in
                      random.Random(0).sample(files, 8)]
    compared = 0
    for text in texts:
        ours = list(character_classes(text))
        for end, kind in lexemes(text):
            if end < len(ours):
                assert ours[end] == kind, (text[max(0, end - 60): end + 1], ours[end], kind)
                compared += 1
    assert compared > 5000


def test_later_text_changes_no_earlier_class():
    whole = token_classes(TOKENIZER, IDS)
    for cut in range(len(IDS)):
        assert token_classes(TOKENIZER, IDS[:cut]) == whole[:cut]
    kinds = {CLASSES[place] for place in whole}
    assert kinds == set(CLASSES)  # all of them occur
    shares = class_shares(TOKENIZER, [IDS, IDS[:9]])
    assert list(shares) == list(CLASSES) and sum(shares.values()) == pytest.approx(1)


@settings(max_examples=200)
@given(st.text(st.sampled_from("ab1.e+-\"'\\#\n (){};rf_é$"), max_size=40), st.integers(0, 40))
def test_any_text_has_classes_and_they_only_look_back(text, cut):
    whole = list(character_classes(text))
    assert len(whole) == len(text) and set(whole) <= set(CLASSES)
    assert list(character_classes(text[:cut])) == whole[:cut]


def test_broken_code_is_read_on():
    def last(text):
        return list(character_classes(text))[-1]

    assert last("x = 'never closed\nif") == "keyword"  # the line's end ends it
    assert last('"""never closed\nif') == "comment"
    assert last('x = """never closed\nif') == "literal"
    assert last(")))))\n'''a") == "comment" and last("x$") == "other"
    special = TOKENIZER.special_tokens["<|end|>"]
    ids = [*TOKENIZER.encode('x = """open'), special, *TOKENIZER.encode("if")]
    classes = [CLASSES[place] for place in token_classes(TOKENIZER, ids)]
    assert classes[-3:].count("other") == 1 and classes[-1] == "keyword"
    half = "é".encode()[:1]  # a token that ends inside of a character: the class before it
    byte = next(i for i in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(i) == half)
    assert CLASSES[token_classes(TOKENIZER, [*TOKENIZER.encode("x ="), byte])[-1]] == "operator"


def test_all_ranks_for_all_classes_is_plain_lora():
    torch.manual_seed(0)
    plain = apply_lora(base(), lora_rank=4, lora_alpha=8)
    model = gated({"all": 4}, trained=False, lora_alpha=8)
    for first, second in ((plain, plain), (model, model)):
        torch.manual_seed(1)
        for layer in lora_layers(first).values():
            torch.nn.init.normal_(layer.lora_B, std=0.3)
        cross_entropy(second(torch.tensor([IDS]))[0, :-1], torch.tensor(IDS[1:])).backward()
    assert torch.equal(plain(torch.tensor([IDS])), model(torch.tensor([IDS])))
    for mine, other in zip(learned(model).values(), learned(plain).values(), strict=True):
        assert_close(mine.grad, other.grad, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("groups", [GROUPS, {"all": 3, "name": 3}, {"name": 6},
                                    ranks_by_class(dict.fromkeys(CLASSES, 1), 6)])
def test_it_learns_exactly_as_many_numbers_as_plain_lora(groups):
    plain = apply_lora(base(), lora_rank=6)
    model = gated(groups)
    assert [p.shape for p in learned(model).values()] == [
        p.shape for p in learned(plain).values()]
    assert sum(p.numel() for p in learned(model).values()) == 2 * 6 * (32 + 32 + 32 + 16)


def test_at_first_nothing_changes():
    ids = torch.tensor([IDS])
    assert torch.equal(gated(trained=False)(ids), base()(ids))
    assert not torch.equal(gated()(ids), base()(ids))


def test_only_the_ranks_of_the_classes_that_were_read_get_a_gradient():
    model = gated()
    ids = TOKENIZER.encode("x y z")  # names and spaces, so no keyword and no operator
    classes = {CLASSES[place] for place in token_classes(TOKENIZER, ids)}
    assert "name" in classes and not classes & {"keyword", "operator"}
    model(torch.tensor([ids])).square().sum().backward()
    for layer in lora_layers(model).values():
        rows, columns = layer.lora_A.grad.abs().sum(1), layer.lora_B.grad.abs().sum(0)
        assert (rows[:2] == 0).all() and (columns[:2] == 0).all()  # keyword+operator
        assert (rows[2:5] > 0).all() and (columns[2:5] > 0).all()  # name
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen and all(p.grad is None for p in frozen)


def test_a_class_without_ranks_is_left_to_the_base():
    ids = TOKENIZER.encode("x y z")
    assert token_classes(TOKENIZER, ids)
    model, plain = gated({"keyword": 2}), base()
    assert torch.equal(model(torch.tensor([ids])), plain(torch.tensor([ids])))
    more = torch.tensor([TOKENIZER.encode("x y z if")])
    assert not torch.equal(model(more), plain(more))


def test_the_future_does_not_change_the_past():
    model, ids = gated(), torch.tensor([IDS])
    for cut in (1, 7, 30, 60):
        assert_close(model(ids)[:, :cut], model(ids[:, :cut]), atol=1e-5, rtol=0)


def test_cached_padded_and_copied_models_agree():
    model, ids = gated(), torch.tensor([IDS])
    want, cache = model(ids), model.new_cache()
    parts = [model(part, cache=cache) for part in ids.split([9] + [1] * 5 + [len(IDS) - 14], 1)]
    assert_close(torch.cat(parts, dim=1), want, atol=1e-5, rtol=0)
    for cut in (20, 3):  # the second one within the first string
        for layer_cache in cache:
            layer_cache.truncate(cut)
        assert_close(model(ids[:, cut:], cache=cache), want[:, cut:], atol=1e-5, rtol=0)
    prompts = [IDS[:30], IDS[:3], IDS[10:25]]
    alone = [generate(model, p, 12, temperature=0) for p in prompts]
    assert alone == [generate(model, p, 12, temperature=0, cache=False) for p in prompts]
    assert alone == generate(model, prompts, 12, temperature=0)
    right = torch.tensor([IDS[:20], IDS[:12] + [0] * 8])
    padded = model(right, mask=padding_mask([20, 12], 20))
    assert_close(padded[1, :12], model(right[1:, :12])[0], atol=1e-5, rtol=0)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(ids), want)
    twin(ids[:, :5])
    assert torch.equal(model(ids), want)  # each copy reads for itself
    foreign = base().new_cache()
    base()(ids[:, :5], cache=foreign)
    with pytest.raises(ValueError, match="read without this adapter"):
        model(ids[:, 5:], cache=foreign)


def test_padding_on_the_left_is_no_part_of_a_text():
    model, [quote] = gated(), TOKENIZER.encode('"')
    [hook] = model._forward_pre_hooks.values()
    model(torch.tensor([[quote] * 4 + IDS[:8]]), mask=padding_mask([8], 12, side="left"))
    assert hook.now[0, 4:].tolist() == token_classes(TOKENIZER, IDS[:8])
    assert {CLASSES[place] for place in hook.now[0, :4].tolist()} == {"other"}


def test_it_learns_one_batch():
    model, ids = gated(trained=False, targets="all-linear"), torch.tensor([IDS])
    optimizer = torch.optim.AdamW(learned(model).values(), lr=0.02, weight_decay=0.0)
    losses = []
    for _ in range(30):
        loss = cross_entropy(model(ids)[0, :-1], ids[0, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_it_trains_in_the_loop_resumes_and_runs_in_bfloat16(tmp_path):
    ids = torch.tensor(IDS * 6).numpy()
    data = Windows(ids, ids[:100], 12)
    config = TrainConfig(max_steps=8, batch_size=4, lr=1e-2, checkpoint_every=4, eval_every=8)
    whole, half, again = (gated(trained=False) for _ in range(3))
    train(whole, data, config)
    train(half, data, config, tmp_path, stop_after=4)
    train(again, data, config, tmp_path)
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    assert any(p.abs().max() > 0 for n, p in learned(again).items() if "lora_B" in n)
    rows = torch.tensor([IDS])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = again(rows)
    assert_close(mixed.float(), again(rows), atol=0.6, rtol=0)


def test_saved_alone_and_loaded_for_its_base_and_tokenizer(tmp_path):
    model, ids = gated(), torch.tensor([IDS])
    path = save_syntax_lora(model, tmp_path / "syntax.safetensors")
    again = load_syntax_lora(base(), TOKENIZER, path)
    assert torch.equal(again(ids), model(ids))
    assert learned(again).keys() == learned(model).keys()
    other, narrow = base(seed=1), random_model(CONFIG.with_(d_model=16, head_dim=4))
    strange = BPETokenizer().train(SAMPLE + "strange", 300, ["<|end|>"])
    for call, message in (
        (lambda: load_syntax_lora(other, TOKENIZER, path), "other weights.*any_base=True"),
        (lambda: load_syntax_lora(base(), strange, path), "another tokenizer"),
        (lambda: load_syntax_lora(narrow, TOKENIZER, path, any_base=True), "load its base"),
        (lambda: save_syntax_lora(base(), path), "no gated adapter 'syntax'"),
        (lambda: save_syntax_lora(apply_lora(base()), path, "default"), "save_adapter"),
        (lambda: load_syntax_lora(base(), TOKENIZER, save_adapter(
            apply_lora(base()), tmp_path) / "adapter_model.safetensors"), "not written by"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not lora_layers(other) and not lora_layers(narrow)
    load_syntax_lora(other, TOKENIZER, path, any_base=True)
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="changed since"):
        load_syntax_lora(base(), TOKENIZER, path)


def test_ranks_follow_shares_and_keep_the_sum():
    for rank in range(1, 30):
        shares = class_shares(TOKENIZER, [IDS])
        ranks = ranks_by_class(shares, rank)
        assert sum(ranks.values()) == rank
        assert all(abs(ranks[n] - rank * shares[n]) < 1 for n in shares)
    uneven = {"name": 0.72, "operator": 0.19, "keyword": 0.09}  # due: 5.76, 1.52, 0.72
    assert ranks_by_class(uneven, 8) == {"name": 6, "operator": 1, "keyword": 1}
    assert gates_of({"name": 2, "all": 2}, 8).tolist() == [
        [0, 0, 4, 4] if name != "name" else [2, 2, 2, 2] for name in CLASSES]


def test_what_does_not_fit_is_refused(tmp_path):
    wide = DecoderLM(CONFIG.with_(vocab_size=20))
    for call, message in (
        (lambda: gated({"verb": 2}), "'verb' is no class of tokens; there are keyword, name"),
        (lambda: gated({"name": 1.5}), "rank 1.5: give a whole number"),
        (lambda: gated({"name": -1}), "rank -1"), (lambda: gated({"name": 0}), "no rank to learn"),
        (lambda: gated({}), "no rank to learn"), (lambda: gated({"name": 99}), "lora_rank=99"),
        (lambda: gated(targets="c_attn"), "target 'c_attn' names no linear layer"),
        (lambda: apply_syntax_lora(wide, TOKENIZER, GROUPS), "ids, the model 20"),
        (lambda: apply_syntax_lora(torch.nn.Linear(2, 2), TOKENIZER, GROUPS), "no DecoderLM"),
        (lambda: merge(gated()), "no change of a matrix"),
        (lambda: save_adapter(gated(), tmp_path, "syntax"), "not of LowRank or DoRA"),
        (lambda: gated().blocks[0](torch.zeros(1, 3, 32)), "not a part of it"),
        (lambda: ranks_by_class({"name": 0.0}, 4), "do not sum to 0"),
        (lambda: ranks_by_class({"name": 1.0}, 0), "lora_rank=0"),
        (lambda: class_shares(TOKENIZER, []), "no tokens to count"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
