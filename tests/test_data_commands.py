"""`scratchbook corpus`: from a folder to token files, and clear words when something is wrong."""

import argparse
import json

import pytest

from scratchbook.cli import corpus_commands
from scratchbook.data.token_files import read_tokens


def run(*words):
    top = argparse.ArgumentParser()
    corpus_commands.add_corpus_commands(top.add_subparsers())
    options = top.parse_args(["corpus", *map(str, words)])
    assert options.module == "corpus_commands"
    return getattr(corpus_commands, options.action)(options)


@pytest.fixture
def tree(tmp_path):
    for project in range(12):
        words = " ".join(f"word{project}x{n}" for n in range(60))
        page = f"---\ntitle: x\n---\n# Project {project}\n{words}"
        for name, text in (("README.md", page), ("main.go", f"// says {project}\nx()\n")):
            path = tmp_path / "root" / f"project{project}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    copy = (tmp_path / "root" / "project0" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "root" / "project1" / "copy.md").write_text(copy + " more", encoding="utf-8")
    return tmp_path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_from_a_folder_to_tokens(tree, capsys):
    corpus, clean = tree / "corpus.jsonl", tree / "clean.jsonl"
    assert run("collect", "--root", tree / "root", "--include", "*.md", "--output", corpus) == 0
    found = lines(corpus)
    assert len(found) == 13 and found[0]["project"] == "project0"
    assert found[0]["text"].startswith("# Project 0")
    assert run("dedupe", corpus, "--output", clean) == 0
    assert len(lines(clean)) == 12
    assert run("pack", clean, "--held-out", "0.3", "--output", tree / "tokens") == 0
    printed = capsys.readouterr().out
    assert "project1/copy.md resembles project0/README.md" in printed
    assert "without 0 equal and 1 similar" in printed
    assert "0 held-out documents share 13 words in a row with training" in printed
    parts = [read_tokens(tree / "tokens" / f"{part}.tokens")
             for part in ("train", "validation")]
    size = sum(len(document["text"].encode()) for document in lines(clean))
    assert sum(len(part.ids) for part in parts) == size
    assert 2 <= len(parts[1].lengths) <= 5


def test_a_copy_that_was_not_removed_is_a_leak(tree, capsys):
    run("collect", "--root", tree / "root", "--output", tree / "c.jsonl")
    for part in range(30):  # some split puts the copy opposite its original
        share = 0.1 + part / 50
        run("pack", tree / "c.jsonl", "--held-out", f"{share:.2f}", "--output", tree / "t")
        if "leak: project" in (printed := capsys.readouterr().out):
            assert "of its" in printed and "1 held-out documents share" in printed
            return
    raise AssertionError("no split separated the copies")


def test_comments_and_a_file_of_one_s_own(tree, capsys):
    (tree / "mine.txt").write_text("my own words\n", encoding="utf-8")
    run("collect", "--root", tree / "root", "--root", tree / "mine.txt", "--include", "*.go",
        "--comments", "--output", tree / "c.jsonl")
    texts = [d["text"] for d in lines(tree / "c.jsonl")]
    assert "says 11" in texts and "my own words\n" in texts and len(texts) == 13


def test_more_files_later_are_in_the_next_corpus(tree):
    run("collect", "--root", tree / "root", "--output", tree / "c.jsonl")
    before = len(lines(tree / "c.jsonl"))
    (tree / "root" / "new.md").write_text("added later", encoding="utf-8")
    run("collect", "--root", tree / "root", "--output", tree / "c.jsonl")
    assert len(lines(tree / "c.jsonl")) == before + 1


def test_mix_prints_three_answers(tree, capsys):
    (tree / "code.txt").write_text("x = 1\n" * 284, encoding="utf-8")
    (tree / "books.txt").write_text("A long line of prose, as books have them.\n" * 4030,
                                    encoding="utf-8")
    assert run("mix", tree / "code.txt", tree / "books.txt", "--weights", "code=3,books=1",
               "--output", tree / "mixed.jsonl") == 0
    printed = capsys.readouterr().out
    assert "17.5% (852)" in printed and "82.5% (4,030)" in printed and "2.9% (5,112)" in printed
    assert [d["name"] for d in lines(tree / "mixed.jsonl")] == ["code.txt"] * 3 + ["books.txt"]


def test_copies_of_one_name_are_counted(tree, capsys):
    (tree / "a.txt").write_text("one\n", encoding="utf-8")
    run("mix", tree / "a.txt", "--weights", "a=3", "--output", tree / "m.jsonl")
    run("dedupe", tree / "m.jsonl", "--output", tree / "c.jsonl")
    assert "c.jsonl: 1 documents, 0.00 MB, without 2 equal and 0 similar" in capsys.readouterr().out


def test_files_left_out_of_two_folders_are_counted(tree, capsys):
    for folder in ("x", "y"):
        (tree / folder).mkdir()
        (tree / folder / "empty.md").write_text("", encoding="utf-8")
    run("collect", "--root", tree / "x", "--root", tree / "y", "--root", tree / "root",
        "--output", tree / "c.jsonl")
    assert "2 files left out" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["dedupe", "pack", "mix"])
def test_a_file_that_cannot_be_read_is_said(tree, capsys, command):
    more = ["--weights", "root=1"] if command == "mix" else []
    (tree / "root" / "latin.txt").write_bytes("café".encode("latin-1"))
    assert run(command, tree / "root", *more, "--output", tree / "out") == 0
    assert "left out of" in (out := capsys.readouterr().out)
    assert "latin.txt (not utf-8: byte 3)" in out
    with pytest.raises(ValueError, match=r"holds no document: latin.txt \(not utf-8: byte 3\)"):
        run(command, tree / "root" / "latin.txt", *more, "--output", tree / "out")


def test_a_share_that_cannot_be_held_out_is_said(tree, capsys):
    (tree / "big.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (
        "x" * 1_000_000, "a few words")), encoding="utf-8")
    run("pack", tree / "big.jsonl", "--output", tree / "tokens")
    assert "0.0% of the bytes are held out, not 10.0%" in capsys.readouterr().out
    assert len(read_tokens(tree / "tokens" / "train.tokens").ids) == 1_000_000


def test_with_a_tokenizer(tree, capsys):
    from scratchbook.tokenizers import BPETokenizer

    run("collect", "--root", tree / "root", "--output", tree / "c.jsonl")
    texts = [d["text"] for d in lines(tree / "c.jsonl")]
    tokenizer = BPETokenizer().train(texts, 300)
    tokenizer.save_tokenizers(tree / "t.json")
    for _ in range(2):  # the second time from the cache
        run("pack", tree / "c.jsonl", "--tokenizer", tree / "t.json", "--output", tree / "tokens")
    train = read_tokens(tree / "tokens" / "train.tokens")
    decoded = {tokenizer.decode(ids.tolist()) for ids in train.documents()}
    assert decoded <= set(texts) and train.header["vocab_size"] == 300


@pytest.mark.parametrize(("words", "message"), [
    (["collect"], "nothing to collect: give --root"),
    (["collect", "--root", "nowhere"], "nowhere does not exist"),
    (["collect", "--root", "ROOT", "--include", "*.vue"], "no document among 0 files"),
    (["collect", "--dataset", "moby"], "no dataset is named 'moby'"),
    (["dedupe", "nowhere"], "does not exist"),
    (["dedupe", "ROOT", "--threshold", "2"], "is not a share"),
    (["mix", "ROOT", "--weights", "root"], "write name=number, such as code=3,books=1"),
    (["mix", "ROOT", "--weights", "root=inf"], "for ever"),
    (["mix", "ROOT", "--weights", "code=3"], "weights are for code, the sources are root"),
    (["mix", "ROOT", "--weights", "root=0"], "one above 0"),
    (["mix", "ROOT", "--weights", "root=1,root=2"], "root is weighted twice"),
    (["mix", "ROOT", "other/ROOT", "--weights", "root=1"], "two sources are called root"),
    (["mix", "ROOT", "--weights", "root=1e9"], r"would be [\d,]+ GB"),
    (["mix", "ROOT", "--weights", "root=1.5"], "give whole weights"),
    (["pack", "ROOT", "--held-out", "1"], "within 0..1"),
    (["pack", "ROOT", "--tokenizer", "nowhere"], "no file nowhere"),
])
def test_mistakes_are_explained(tree, words, message, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(ValueError, match=message):
        run(*[word.replace("ROOT", "root") for word in words])


def test_a_mistake_ends_in_one_line_and_status_two(tree, capsys):
    from scratchbook.cli import main

    assert main(["corpus", "collect", "--root", str(tree / "nowhere")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("scratchbook: ") and printed.count("\n") == 1
    assert main(["corpus", "collect", "--root", str(tree / "root"), "--output",
                 str(tree / "c.jsonl")]) == 0
    (tree / "c.jsonl").write_text("not json\n", encoding="utf-8")
    assert main(["corpus", "dedupe", str(tree / "c.jsonl")]) == 2
    assert "line 1: " in capsys.readouterr().err
