"""The table of sizes: what stands for None, what is refused, which models have a name."""

from dataclasses import FrozenInstanceError, fields

import pytest

from scratchbook.accounting import total_parameters
from scratchbook.config import PRESETS, ModelConfig, RopeSettings

NAMED = {"tiny-1m": 1e6, "tiny-2m": 2e6, "base-10m": 10e6, "mini-27m": 27.26e6,
         "mini-46m": 46.14e6, "smalltalk-89m": 89.08e6}


def test_twenty_fields_at_most_and_frozen():
    assert len(fields(ModelConfig)) <= 20
    with pytest.raises(FrozenInstanceError):
        PRESETS["gpt2"].d_model = 1


def test_numbers_stand_where_none_was_given():
    plain = ModelConfig(99, d_model=96, num_heads=6, feedforward="gelu")
    assert (plain.num_kv_heads, plain.head_dim, plain.d_ff) == (6, 16, 384)
    assert ModelConfig(99, d_model=96).d_ff == 256  # 8/3 of it
    assert ModelConfig(99, d_model=100, num_heads=5).d_ff == 272  # 266.7, up to a multiple of 8
    own = ModelConfig(99, d_model=96, num_heads=6, num_kv_heads=2, head_dim=20, d_ff=7)
    assert (own.num_kv_heads, own.head_dim, own.d_ff) == (2, 20, 7)
    assert own.with_(window=5).window == 5 and own.window is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"norm": "batch"}, "norm='batch' is unknown; choose one of rms, "),
    ({"layout": "behind"}, "layout='behind'"), ({"positions": "rotary"}, "positions='rotary'"),
    ({"feedforward": "swish"}, "feedforward='swish'"), ({"bias": True}, "bias=True"),
    ({"d_model": 100}, "d_model=100 is not divisible by num_heads=8"),
    ({"num_kv_heads": 3}, "num_heads=8 is not divisible by num_kv_heads=3"),
    ({"head_dim": 9}, "head_dim=9 must be even"), ({"num_layers": 0}, "num_layers=0"),
    ({"vocab_size": 0}, "vocab_size=0"), ({"window": 0}, "window=0"), ({"dropout": 1}, "dropout=1"),
    ({"num_heads": 0}, "num_heads=0"), ({"vocab_size": "99"}, "vocab_size='99' is no int"),
    ({"d_model": 64.0}, "d_model=64.0 is no int"), ({"num_layers": True}, "num_layers=True"),
    ({"num_layers": None}, "num_layers=None"), ({"window": 3.5}, "window=3.5"),
    ({"dropout": float("nan")}, "dropout=nan"), ({"norm_eps": -1}, "norm_eps=-1"),
    ({"rope": {"base": 3}}, "rope={'base': 3} is no RopeSettings"),
    ({"tie_embeddings": "no"}, "tie_embeddings='no' is no bool"),
    ({"latent_dim": 8, "window": 4}, "latent_dim=8: latent attention knows neither window"),
    ({"latent_dim": 8, "qk_norm": True}, "latent_dim=8"),
    ({"latent_dim": 8, "positions": "alibi"}, "latent_dim=8"),
])
def test_what_cannot_be_built_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"vocab_size": 99} | changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"scaling": "dynamic"}, "scaling='dynamic'"), ({"factor": 0.5}, "factor=0.5"),
    ({"base": 1.0}, "base=1.0"), ({"base": float("nan")}, "base=nan"),
    ({"factor": float("inf")}, "factor=inf"), ({"base": "1e4"}, "base='1e4' is no float"),
    ({"original_max_seq_len": 0}, "original_max_seq_len=0"),
])
def test_rope_settings_that_make_no_sense_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        RopeSettings(**changes)


@pytest.mark.parametrize("name", NAMED)
def test_models_are_as_large_as_their_names_say(name):
    tolerance = 0.02 if name.startswith(("tiny", "base")) else 5e-4
    assert total_parameters(PRESETS[name]) == pytest.approx(NAMED[name], rel=tolerance)


def test_models_for_smalltalk_stay_under_a_hundred_million():
    found = {name: total_parameters(c) for name, c in PRESETS.items() if "smalltalk" in name}
    assert found and max(found.values()) < 100e6
