"""Headings: what counts as one, and that the controls stand where they should."""

import pytest

from scratchbook.cli import main
from scratchbook.evaluation.code_tests import NGram, only_closing
from scratchbook.evaluation.headings import heading_rates, looks_like_heading

PAGES = "".join(f"# Page {name}\n\nThe {name} purrs.\n\n## About the {name}\n\nIt sleeps.\n\n"
                for name in ("cat", "dog", "fox", "owl", "hen", "cow"))


@pytest.mark.parametrize(("text", "right"), [
    ("About the cat\n\nIt sleeps.", True), ("About the cat", False),
    ("\nAbout the cat\n\nx", False), ("About the zebra\n\nIt", False), ("About the cat\n\n", False),
    ("## cat\n\nx", False),
    ("12\n\nx", False), ("cat " * 30 + "\n\nx", False), (" cat\n\nx", False)])
def test_what_is_a_heading(text, right):
    assert looks_like_heading(text, {"about", "the", "cat"}) == right


def test_authors_pass_and_tricks_do_not():
    def blind(prompts, length):
        return ["cat" * length] * len(prompts)

    rates = heading_rates(PAGES, {"n-gram": NGram(PAGES), "only )": only_closing, "blind": blind})
    assert rates["their authors"]["share"] == 1 and rates["their authors"]["total"] == 12
    assert rates["only )"]["share"] == rates["blind"]["share"] == 0
    assert rates["n-gram"]["passed"] > 6  # it has read these very pages
    assert rates["their authors"]["first"] == "Page cat"
    assert len(heading_rates(PAGES, {}, count=5)["their authors"]) == 6
    with pytest.raises(ValueError, match="1 Markdown headings"):
        heading_rates("# One\n\ntext", {})


def test_eval_counts_them_in_a_text_that_has_some(tmp_path, capsys):
    page = tmp_path / "pages.md"
    page.write_text(PAGES * 3, encoding="utf-8")
    run = str(tmp_path / "run")
    main(["train", "--quiet", "--out", run, "--data.text", str(page), "--model.num_layers", "1",
          "--model.d_model", "32", "--model.num_heads", "2", "--train.max_steps", "4",
          "--train.batch_size", "2", "--data.seq_len", "16"])
    capsys.readouterr()
    assert main(["eval", run, "--text", str(page)]) == 0
    assert "headings" in capsys.readouterr().out
    plain = tmp_path / "plain.txt"
    plain.write_text("no heading here. " * 20, encoding="utf-8")
    assert main(["eval", run, "--text", str(plain)]) == 0
    assert "headings" not in capsys.readouterr().out
