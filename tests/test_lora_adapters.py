"""Adapters as files that know their base, and many of them in one model."""

import copy
import json
import statistics
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from scratchbook.compression import quantize
from scratchbook.feedforward import MixtureOfExperts
from scratchbook.finetuning import (
    adapter_names,
    apply_lora,
    load_adapter,
    lora_layers,
    merge,
    mixed,
    save_adapter,
    use_adapter,
)
from scratchbook.generation import generate
from scratchbook.runtime import write_atomically
from tests.test_lora import KINDS, every_kind, ids, learning, moved, tiny

NAMES = ["first", "second", "third"]

AGES = r"(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)\9\8\7\6\5\4\3\2\1(?<!j)"  # ways to share out a path


def three(base: nn.Module | None = None) -> nn.Module:
    """A model with three adapters of different kinds, ranks and places."""
    model = tiny() if base is None else base
    for seed, (name, targets, options) in enumerate(zip(
            NAMES, (("q_proj", "v_proj"), "all-linear", "feedforward"), KINDS.values(),
            strict=True)):
        apply_lora(model, targets, lora_rank=2 + seed, name=name, **options)
        for layer in lora_layers(model).values():
            if layer.active:
                generator = torch.Generator().manual_seed(seed)
                layer.lora_B.data.normal_(std=0.3, generator=generator)
    return model


@every_kind
def test_an_adapter_comes_back_alone(tmp_path, options):
    model = moved(apply_lora(tiny(), "attention", ranks={"q_proj": 3}, **options))
    save_adapter(model, tmp_path)
    loaded = load_adapter(tiny(), tmp_path)
    assert torch.equal(loaded(ids()), model(ids())) and not learning(loaded)
    kept = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(t.numel() for t in kept.values()) == sum(p.numel() for p in learning(model).values())
    assert all(name.startswith("base_model.model.blocks.") for name in kept)
    again = load_adapter(tiny(), tmp_path, trainable=True)
    assert learning(again).keys() == learning(model).keys()
    assert all(map(torch.equal, learning(again).values(), learning(model).values()))


def test_an_adapter_on_a_packed_base(tmp_path):
    model = moved(apply_lora(quantize(tiny(), "nf4", 32, double=True), "all-linear"))
    save_adapter(model, tmp_path)
    loaded = load_adapter(quantize(tiny(), "nf4", 32, double=True), tmp_path)
    assert torch.equal(loaded(ids()), model(ids()))
    with pytest.raises(ValueError, match="trained on another base"):
        load_adapter(tiny(), tmp_path)  # in float32 it is not what the adapter has seen


def test_another_base_is_refused_by_name(tmp_path):
    save_adapter(moved(apply_lora(tiny())), tmp_path, base_name="runs/first")
    other = tiny()
    other.blocks[1].attention.k_proj.weight.data[0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"another base, runs/first: blocks.1.attention.k_proj"
                                         r".weight and 0 more.*any_base=True"):
        load_adapter(other, tmp_path)
    assert not lora_layers(other)
    load_adapter(other, tmp_path, any_base=True)
    # the other adapters of the base do not count, wrapped or not
    load_adapter(apply_lora(tiny(), "all-linear", name="mine"), tmp_path)


def spoiled(folder, what: str) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors))
    if what == "rank":
        config["r"] = 5
    elif what == "alpha":
        config.pop("lora_alpha")
    elif what == "kind":
        config["peft_type"] = "IA3"
    elif what == "bias":
        config["bias"] = "all"
    elif what == "dora":
        config["use_dora"] = True
    elif what == "fewer":
        tensors = {n: t for n, t in tensors.items() if "blocks.1" not in n}
    elif what == "half":
        tensors.pop(first)
    elif what == "foreign":
        tensors["base_model.model.lm_head.weight"] = torch.zeros(2)
    elif what == "shape":
        tensors[first] = tensors[first][:, :-1].contiguous()
    elif what == "nan":
        tensors[first][0, 0] = torch.nan
    elif what == "empty":
        tensors = {}
    (folder / "adapter_config.json").write_text(
        "{" if what == "text" else json.dumps(config))
    save_file(tensors, file)
    if what == "cut":
        file.write_bytes(file.read_bytes()[:200])
    if what == "pickle":
        file.rename(folder / "adapter_model.bin")
    if what == "gone":
        (folder / "adapter_config.json").unlink()


@pytest.mark.parametrize(("what", "message"), [
    ("rank", r"blocks.0.attention.q_proj: by its config.*lora_A.: \(5, 32\).*\(8, 32\)"),
    ("alpha", "adapter_config.json is no config of a LoRA adapter.*lora_alpha"),
    ("text", "adapter_config.json is no config"), ("kind", "peft_type='IA3' is not read here"),
    ("bias", "bias='all' is not read here"), ("dora", "magnitude"),
    ("fewer", r"chooses \['q_proj', 'v_proj'\].*differ on blocks.1.attention.q_proj"),
    ("half", "should consist of"), ("foreign", "lm_head.weight is no part of a LoRA adapter"),
    ("shape", "should consist of"), ("nan", "blocks.0.attention.q_proj.*not finite"),
    ("empty", "is empty"),
    ("cut", "adapter_model.safetensors.*cut short"),
    ("pickle", "adapter_model.bin alone: a pickle"),
    ("gone", "adapter_config.json is not there")])
def test_a_damaged_or_foreign_adapter_is_refused(tmp_path, what, message):
    save_adapter(moved(apply_lora(tiny())), tmp_path)
    spoiled(tmp_path, what)
    model = tiny()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_adapter(model, tmp_path)
    assert not lora_layers(model)


@pytest.mark.parametrize(("entries", "message"), [
    ({"init_lora_weights": "pissa"}, "took a part out of the base"),
    ({"init_lora_weights": "olora"}, "took a part out of the base"),
    ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens=.* is not read here"),
    ({"use_bdlora": {"nblocks": 2}}, "use_bdlora=.* is not read here"),
    ({"alpha_pattern": {"q_proj": "16"}}, "pattern 'q_proj' has '16', which is no number"),
    ({"rank_pattern": ["q_proj"]}, "rank_pattern=.* is none of peft's"),
    ({"rank_pattern": {"((": 8}}, "is no regular expression"),
    ({"target_modules": "(("}, "is no regular expression"),
    ({"target_modules": AGES}, "needs more than 1 s on blocks.0.attention"),
    ({"rank_pattern": {AGES: 4}}, "is no regular expression: cannot refer to an open group"),
    ({"target_modules": 5}, "target_modules=5 is none of peft's"),
    ({"lora_dropout": "0.1"}, "lora_dropout='0.1' is none of peft's"),
    ({"use_dora": "false"}, "use_dora='false' is none of peft's")])
def test_a_config_that_peft_would_not_write_or_that_means_another_function(tmp_path, entries,
                                                                           message):
    save_adapter(moved(apply_lora(tiny())), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | entries))
    with pytest.raises(ValueError, match=message):
        load_adapter(tiny(), tmp_path)


def test_what_is_null_or_initialised_otherwise_in_a_config_is_read(tmp_path):
    model = moved(apply_lora(tiny()))
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    more = {"lora_dropout": None, "use_rslora": None, "init_lora_weights": "gaussian"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | more))
    assert torch.equal(load_adapter(tiny(), tmp_path)(ids()), model(ids()))


def test_nested_configs_numbers_of_other_types_and_damaged_hashes_are_refused(tmp_path):
    file = tmp_path / "adapter_model.safetensors"
    save_adapter(moved(apply_lora(tiny())), tmp_path)
    tensors = load_file(file)
    for dtype in (torch.int32, torch.complex64):
        save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, file)
        with pytest.raises(ValueError, match="not floats"):
            load_adapter(tiny(), tmp_path)
    save_file(tensors, file, {"base": "[1]"})
    with pytest.raises(ValueError, match="hashes of its base are damaged"):
        load_adapter(tiny(), tmp_path)
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is no config"):
        load_adapter(tiny(), tmp_path)


def test_new_numbers_never_lie_beside_an_older_config(tmp_path, monkeypatch):
    save_adapter(moved(apply_lora(tiny(), lora_alpha=1)), tmp_path)

    def killed(path, content):
        write_atomically(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr("scratchbook.finetuning.adapters.write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        save_adapter(moved(apply_lora(tiny(), lora_alpha=100)), tmp_path)
    with pytest.raises(FileNotFoundError, match="adapter_config.json is not there"):
        load_adapter(tiny(), tmp_path)


def test_an_adapter_for_another_model_is_refused(tmp_path):
    save_adapter(moved(apply_lora(tiny())), tmp_path)
    with pytest.raises(ValueError, match="should consist of"):
        load_adapter(tiny(d_model=64), tmp_path)
    with pytest.raises(ValueError, match=r"it adapts blocks.1.attention.q_proj and 1 more"):
        load_adapter(tiny(num_layers=1), tmp_path)
    with pytest.raises(ValueError, match=r"differ on blocks.2.attention.q_proj"):
        load_adapter(tiny(num_layers=3), tmp_path)


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no adapter 'default'; there are none: apply_lora"):
        save_adapter(tiny(), tmp_path)
    with pytest.raises(ValueError, match="no adapter 'b'; there are default"):
        save_adapter(apply_lora(tiny()), tmp_path, "b")
    merge(model := moved(apply_lora(tiny())))
    with pytest.raises(ValueError, match=r"unmerge\(model\) first"):
        save_adapter(model, tmp_path)


def test_the_file_says_what_it_stands_on_in_its_own_metadata(tmp_path):
    save_adapter(apply_lora(tiny()), tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        base = json.loads(file.metadata()["base"])
    assert base.keys() == tiny().state_dict().keys()  # the names before the wrapping


def test_every_one_of_several_is_what_it_is_alone(tmp_path):
    model, base = three(), tiny()
    for name in NAMES:
        save_adapter(model, tmp_path / name, name)
    for name in NAMES:
        use_adapter(model, name)
        alone = load_adapter(tiny(), tmp_path / name)
        assert torch.equal(model(ids()), alone(ids()))
    assert torch.equal(use_adapter(model, None)(ids()), base(ids()))
    assert adapter_names(model) == ["first", "second", "third"]
    with pytest.raises(ValueError, match="no adapter 'fourth'; there are first, second, third"):
        use_adapter(model, "fourth")


def test_which_one_learns_is_said():
    model = use_adapter(three(), "first")
    assert not learning(model)
    use_adapter(model, "first", trainable=True)
    assert learning(model) and all(".first." in name for name in learning(model))


def test_switching_takes_less_than_ten_milliseconds():
    model = three(tiny(num_layers=12))
    taken = []
    for name in NAMES * 10:
        began = time.process_time()
        use_adapter(model, name)
        taken.append(time.process_time() - began)
    assert statistics.median(taken) < 0.01


def test_the_rows_of_a_batch_are_those_of_separate_runs():
    model, names = three(), ["second", None, "first", "third", "second"]
    rows = ids(5)
    with mixed(model, names):
        together = model(rows)
        written = generate(model, rows[:, :5], max_new_tokens=8, temperature=0)
    for row, name in enumerate(names):
        use_adapter(model, name)
        assert_close(together[row], model(rows[row : row + 1])[0], atol=1e-6, rtol=1e-6)
        alone = generate(model, rows[row : row + 1, :5], max_new_tokens=8, temperature=0)
        assert torch.equal(torch.as_tensor(written[row]), torch.as_tensor(alone[0]))
    assert not any(layer.rows for layer in lora_layers(model).values())


def test_gradients_of_a_mixed_batch_reach_the_adapters_that_are_in_it():
    model = use_adapter(three(), None)
    for layer in lora_layers(model).values():
        layer.adapters.requires_grad_(True)
    with mixed(model, ["first", "second"]):
        model(ids(2)).square().sum().backward()
    got = {name.split(".adapters.")[1].split(".")[0] for name, p in model.named_parameters()
           if p.grad is not None and p.grad.any()}
    assert got == {"first", "second"}


def test_nothing_is_merged_where_rows_have_adapters_of_their_own():
    model = three()
    with mixed(model, NAMES), pytest.raises(ValueError, match="merge outside of mixed"):
        merge(model)
    assert all(layer.kept is None for layer in lora_layers(model).values())


def test_a_batch_of_another_size_or_of_loose_tokens_is_refused():
    model = three()
    with mixed(model, ["first", "second"]), pytest.raises(ValueError, match="named for 2 texts"):
        model(ids(3))
    with pytest.raises(ValueError, match="no adapter 'fourth'"), mixed(model, ["fourth"]):
        pass
    experts = apply_lora(MixtureOfExperts(16, 16, 2, 1), "all-linear", 2)
    with mixed(experts, ["default"]), pytest.raises(ValueError, match="one name for each row"):
        experts(torch.randn(1, 1, 16))
    use_adapter(model, "first")
    merge(model)
    with pytest.raises(ValueError, match="unmerge"), mixed(model, ["first"]):
        pass


def test_a_copy_holds_its_own_adapters():
    model = three()
    twin = copy.deepcopy(model)
    use_adapter(twin, "first")
    assert {layer.active for layer in lora_layers(model).values()} == {None, "third"}
    assert torch.equal(use_adapter(model, "first")(ids()), twin(ids()))
