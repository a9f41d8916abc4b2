"""Names that gave way to the field's own: the old one is refused and the new one said."""

import pytest

from scratchbook.cli import main
from scratchbook.runtime import RENAMED
from scratchbook.training import TrainConfig, train
from scratchbook.training.recipes import DataConfig, load_recipe

SETTINGS = {  # old name -> its part of a recipe
    "floor": "train",
    "decay_share": "train",
    "other_lr": "train",
    "recompute": "train",
    "zero_outputs": "",
    "time": "data",
}


@pytest.mark.parametrize(("old", "part"), SETTINGS.items())
def test_an_old_setting_is_refused_with_its_new_name(old, part, tmp_path, capsys):
    file, says = tmp_path / "recipe.yaml", f"{old} is now called {RENAMED[old]}"
    file.write_text(f"{part}: {{{old}: 1}}\n" if part else f"{old}: 1\n", encoding="utf-8")
    option = f"--{part}.{old}" if part else f"--{old}"
    for arguments in ([option, "1"], [f"{option}=1"], ["--config", str(file)]):
        with pytest.raises(ValueError, match=says):
            load_recipe(arguments)
    assert main(["train", "--out", str(tmp_path / "run"), option, "1"]) == 2
    assert says in capsys.readouterr().err


def test_an_old_keyword_is_refused_with_its_new_name():
    with pytest.raises(TypeError, match="floor is now called min_lr_ratio"):
        TrainConfig(floor=0.1)
    with pytest.raises(TypeError, match="time is now called seq_len"):
        DataConfig(time=8)
    with pytest.raises(TypeError, match="watch is now called on_step"):
        train(None, None, None, watch=print)
    with pytest.raises(TypeError, match="sinks is now called loggers"):
        train(None, None, None, sinks=())


def test_an_old_option_of_a_command_is_refused_with_its_new_name(capsys, tmp_path):
    assert main(["train", "--out", str(tmp_path), "--sink", "wandb"]) == 2
    assert "sink is now called logger" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path)]) == 2
    assert f"is now called `scratchbook diagnose {tmp_path}`" in capsys.readouterr().err
