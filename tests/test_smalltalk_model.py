"""The Smalltalk model: how it is loaded, what it reads, what it writes."""

from dataclasses import replace

import pytest
import torch

from scratchbook import smalltalk_model
from scratchbook.compression import quantize, save_compressed
from scratchbook.data.packing import PackedDocuments
from scratchbook.data.smalltalk_documents import class_documents
from scratchbook.smalltalk import parts
from scratchbook.smalltalk.records import ClassRecord, MethodRecord
from scratchbook.smalltalk.viable import is_method
from scratchbook.smalltalk_model import (
    RECIPES,
    load_smalltalk,
    prompt_ids,
    settle,
    write_method,
)
from scratchbook.tokenizers import BPETokenizer
from scratchbook.tokenizers.smalltalk import SmalltalkSplitter
from scratchbook.training import train
from tests.tiny_smalltalk import SOURCE, STACK, by_heart, shipped, small_tokenizer, tiny


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny(tokenizer.vocab_size)


@pytest.mark.parametrize("class_side", [False, True])
@pytest.mark.parametrize("record", [STACK, None, ClassRecord("Big", comment="long " * 400)])
def test_a_prompt_is_how_a_document_begins(tokenizer, record, class_side):
    name = "Stack" if record is None else record.name
    method = MethodRecord(SOURCE, name, class_side)
    known = [] if record is None else [record]
    [document] = class_documents(known, [method], tokenizer, 256, fill_in_share=0)
    end, last = (tokenizer.special_tokens[t] for t in (parts.END, parts.END_OF_TEXT))
    assert prompt_ids(tokenizer, record, SOURCE, class_side) == document[:-2]
    assert document[-2:] == [end, last]
    assert prompt_ids(tokenizer, record, "", class_side) == document[:-2][
        :-len(tokenizer.encode_ordinary(SOURCE))]


def test_what_is_settled_no_continuation_changes():
    split = SmalltalkSplitter().split
    whole = split(SOURCE)
    for cut in range(len(SOURCE) + 1):
        settled, rest = settle(SOURCE[:cut])
        assert settled + rest == SOURCE[:cut] and len(split(rest)) <= 2
        assert whole[:len(split(settled))] == split(settled)
    assert settle("foo ^ sel") == ("foo", " ^ sel") and settle("foo") == ("", "foo")


@pytest.mark.parametrize("constrained", [False, True])
def test_a_method_begins_with_its_beginning_wherever_that_ends(model, tokenizer, constrained):
    for cut in range(0, len(SOURCE), 7):
        found = write_method(model, tokenizer, STACK, SOURCE[:cut], max_new_tokens=6, seed=cut,
                             constrained=constrained)
        assert found.startswith(SOURCE[:cut]) or (constrained and found == "")
        assert not constrained or found == "" or is_method(found)
        assert "<|" not in found


def test_what_the_model_knows_by_heart_it_writes_from_half_a_token(tokenizer):
    """After learning one method each of its beginnings leads to it, cut tokens too."""
    model = by_heart()
    for cut in range(3, len(SOURCE), 19):
        assert write_method(model, tokenizer, STACK, SOURCE[:cut], temperature=0,
                            constrained=cut % 2 == 1) == SOURCE


def test_a_beginning_is_written_again_in_its_own_tokens_or_in_a_longer_one(tokenizer):
    """No other spelling: after `d`, `e`, `po` a model is where training never brought it."""
    own, end = tokenizer.encode_ordinary(" anObj"), tokenizer.special_tokens[parts.END]
    whole, free = tokenizer.encode_ordinary(" anObject"), 1 + len(tokenizer.ranks)
    assert len(own) > 1 == len(whole)
    choices = smalltalk_model._choices(tokenizer, end, " anObj")
    assert set(choices([]).tolist()) == {own[0], *whole}
    for k, token in enumerate(own):
        left = tokenizer.decode(own[k:])
        found = {tokenizer.decode([i]) for i in choices(own[:k]).tolist()}
        assert found == {tokenizer.decode([token])} | {
            text for i in tokenizer.ranks.values() if (text := tokenizer.decode([i])) and
            text.startswith(left)}
    assert [len(choices(new)) for new in (own, whole, [*own, 5])] == [free] * 3


def test_only_text_and_the_end_are_drawn(tokenizer):
    model = tiny(tokenizer.vocab_size)
    with torch.no_grad():  # nothing but special tokens is likely
        model.token_embedding.weight[list(tokenizer.special_tokens.values())] *= 50
    found = write_method(model, tokenizer, None, "foo", max_new_tokens=40, temperature=3, seed=1)
    assert found.startswith("foo") and "<|" not in found


def test_one_seed_one_method(model, tokenizer):
    write = [write_method(model, tokenizer, STACK, "foo", seed=s, temperature=1) for s in (1, 1, 2)]
    assert write[0] == write[1] != write[2]


def test_no_token_stands_beyond_the_window(model, tokenizer):
    long = "foo\n\t" + "^ self bar. " * 200
    with pytest.raises(ValueError, match="window of 256"):
        write_method(model, tokenizer, STACK, long)
    seen = []
    hook = model.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    write_method(model, tokenizer, STACK, SOURCE, max_new_tokens=10_000, seed=0)
    hook.remove()
    assert sum(seen) < 256
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        write_method(model, tokenizer, STACK, "foo", max_new_tokens=0)


def test_what_is_unfinished_is_said(model, tokenizer):
    said = []
    write_method(by_heart(), tokenizer, STACK, SOURCE[:20], temperature=0, say=said.append)
    assert said == []
    cut = write_method(by_heart(), tokenizer, STACK, SOURCE[:20], temperature=0,
                       max_new_tokens=60, say=said.append)
    assert SOURCE.startswith(cut) and said[0].startswith("unfinished after ")
    kept = write_method(by_heart(), tokenizer, STACK, SOURCE[:20], temperature=0, constrained=True,
                        max_new_tokens=60, say=said.append)
    assert cut.startswith(kept) and kept != cut and is_method(kept)
    whole = "foo\n\t^ 1.\n"
    assert write_method(model, tokenizer, None, whole, constrained=True, max_new_tokens=3,
                        seed=1).startswith(whole)
    assert f": {len(cut) - len(kept)} characters behind the last whole method" in said[1]


def test_a_run_and_its_checkpoints_are_loaded(tokenizer, tmp_path):
    ids = [prompt_ids(tokenizer, STACK, SOURCE)] * 6
    data = PackedDocuments(ids, ids, 64, 0, 3.0)
    config = replace(RECIPES["small"].train, max_steps=3, warmup_steps=0, batch_size=2,
                     checkpoint_every=1, eval_every=3, precision="fp32", keep_last=3)
    trained = tiny(tokenizer.vocab_size, max_seq_len=1024)
    run = tmp_path / "run"
    train(trained, data, config, run, tokenizer=tokenizer, source={"seq_len": 64})
    model, found = load_smalltalk(run)
    assert model.config.max_seq_len == 64 and found.vocab_size == tokenizer.vocab_size
    assert all(map(torch.equal, model.state_dict().values(), trained.state_dict().values()))
    first, _ = load_smalltalk(run / "checkpoints" / "step_000001")
    assert not torch.equal(first.lm_head.weight, model.lm_head.weight)
    (run / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="Put the file back"):
        load_smalltalk(run)


def test_a_beginning_without_a_future_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="nothing makes a method"):
        write_method(model, tokenizer, STACK, "foo ^ ( ]", constrained=True)


def test_a_shipped_folder_comes_back_in_float(tokenizer, tmp_path):
    model = tiny(tokenizer.vocab_size)
    loaded, found = load_smalltalk(shipped(tmp_path, model))
    assert found.vocab_size == tokenizer.vocab_size and not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.lm_head.weight is loaded.token_embedding.weight
    ids = torch.tensor([[1, 2, 3]])
    assert loaded(ids).sub(model(ids)).abs().max() < 0.1


def test_what_is_no_smalltalk_model_is_refused(tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="smalltalk train CORPUS"):
        load_smalltalk(tmp_path)
    save_compressed(quantize(tiny(400), "int4", group_size=16), tmp_path / "model.safetensors")
    tokenizer.save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="tokens and a model of 400"):
        load_smalltalk(tmp_path)
    BPETokenizer().train("a b", 300).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="SmalltalkTokenizer|BPETokenizer"):
        load_smalltalk(tmp_path)
