"""make.py: installs once, says what is wrong, and removes nothing that it did not make."""

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def make(tmp_path, monkeypatch):
    """make.py over an empty repository of its own."""
    spec = importlib.util.spec_from_file_location("make", ROOT / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("# nothing\n", encoding="utf-8")
    venv = tmp_path / ".venv"
    for name, value in {"ROOT": tmp_path, "VENV": venv, "STAMP": venv / "scratchbook.stamp",
                        "INSTALL_LOG": venv / "install.log",
                        "SITE": tmp_path / "_build" / "html"}.items():
        monkeypatch.setattr(module, name, value)
    return module


@pytest.fixture
def calls(make, monkeypatch):
    """The pip commands and environments that a test would have made."""
    made = []
    monkeypatch.setattr(make, "pip", lambda *words: made.append(words[:2]))
    monkeypatch.setattr(make, "create_venv", lambda: (made.append("venv"), make.VENV.mkdir()))
    monkeypatch.setattr(make, "venv_works", lambda: make.VENV.is_dir())
    return made


def test_a_second_run_installs_nothing(make, calls):
    make.setup()
    assert len(calls) == 3
    make.setup()
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_changed_requirements_are_installed_into_the_same_environment(make, calls, name):
    make.setup()
    (make.ROOT / name).write_text("changed", encoding="utf-8")
    make.setup()
    assert calls.count("venv") == 1
    assert len(calls) == 5


def test_a_moved_repository_gets_a_new_environment(make, calls, tmp_path):
    make.setup()
    place, content = make.STAMP.read_text(encoding="utf-8").split()
    make.STAMP.write_text(f"{'0' * len(place)} {content}", encoding="utf-8")
    make.create_venv = lambda: calls.append("venv")
    make.setup()
    assert calls.count("venv") == 2


def test_an_installation_that_broke_off_is_taken_up_again(make, calls, monkeypatch):
    make.setup()
    (make.ROOT / "requirements.txt").write_text("changed", encoding="utf-8")

    def fail(*words):
        raise make.Stop("no network")

    with monkeypatch.context() as patch:
        patch.setattr(make, "pip", fail)
        with pytest.raises(make.Stop):
            make.setup()
    (make.ROOT / "requirements.txt").write_text("# nothing\n", encoding="utf-8")
    make.setup()
    assert len(calls) == 5, "the stamp of the old state no longer counts"


def test_a_real_environment_is_made_and_recognised(make):
    assert not make.venv_works()
    make.create_venv()
    assert make.venv_works()
    assert make.run(["-c", "import sys; sys.exit(sys.prefix == sys.base_prefix)"]) == 0


@pytest.mark.parametrize(("log", "way_out"), [
    ("WARNING: Retrying ... NewConnectionError\nERROR: No matching distribution found for torch",
     "check the network"),
    ("ERROR: Could not find a version that satisfies torch==9", "try Python 3.11 to 3.13"),
    ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full"),
    ("", "no message"),
])
def test_a_failed_installation_names_the_way_out(make, log, way_out):
    assert way_out in make.why_pip_failed(log)


def test_without_the_venv_module(make, monkeypatch, capsys):
    monkeypatch.setattr(make.importlib.util, "find_spec", lambda name: None)
    assert make.main(["setup"]) == 2
    assert "apt install python3." in capsys.readouterr().err


def test_an_old_python_is_refused_or_replaced(tmp_path):
    code = ("import sys, runpy; sys.version_info = (3, 9, 2); sys.argv = ['make.py', 'list'];"
            f"runpy.run_path({str(ROOT / 'make.py')!r}, run_name='__main__')")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            env={**os.environ, "PATH": str(tmp_path)}, check=False)
    assert answer.returncode == 1
    assert "needs Python 3.11 or newer" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_script_is_readable_by_an_old_python_and_needs_no_package():
    tree = ast.parse((ROOT / "make.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
               for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in modules} <= sys.stdlib_module_names


def test_clean_removes_outputs_and_nothing_else(make):
    kept = ["book/results/x.json", "chapters/00.ipynb", ".venv/pyvenv.cfg", "data/registry.toml"]
    gone = ["_build/html/index.html", "build/runs/01.ipynb", "scratchbook/__pycache__/a.pyc",
            "tests/deep/__pycache__/a.pyc", "chapters/.ipynb_checkpoints/a.ipynb"]
    for name in kept + gone:
        path = make.ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert make.main(["clean"]) == 0
    assert all((make.ROOT / name).exists() for name in kept)
    assert not any((make.ROOT / name).exists() for name in gone)
    assert make.main(["clean", "--all"]) == 0
    assert not (make.ROOT / ".venv").exists()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_clean_never_follows_a_link(make, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious.txt").touch()
    (make.ROOT / "_build").symlink_to(elsewhere)
    (make.ROOT / "chapters").symlink_to(elsewhere)
    (elsewhere / "__pycache__").mkdir()
    assert make.main(["clean"]) == 0
    assert (elsewhere / "precious.txt").exists()
    assert (elsewhere / "__pycache__").exists()
    assert not (make.ROOT / "_build").exists()


def test_serve_takes_the_first_free_port(make, monkeypatch, capsys):
    (make.SITE).mkdir(parents=True)
    (make.SITE / "index.html").write_text("the book", encoding="utf-8")
    servers = []

    class Recorded(make.LocalServer):
        def serve_forever(self, poll_interval=0.05):
            servers.append(self)
            super().serve_forever(poll_interval)

    monkeypatch.setattr(make, "LocalServer", Recorded)
    threads = [threading.Thread(target=make.main, args=(["serve", "--port", "18431"],))
               for _ in range(2)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        while len(servers) < number:
            thread.join(timeout=0.05)
    ports = [server.server_port for server in servers]
    assert len(set(ports)) == 2
    for server in servers:
        assert server.server_address[0] == "127.0.0.1"
        page = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=5)
        assert page.read() == b"the book"
        server.shutdown()
    for thread in threads:
        thread.join(timeout=5)
    assert f"http://127.0.0.1:{ports[0]}/" in capsys.readouterr().out


def test_serve_without_a_book(make, capsys):
    assert make.main(["serve"]) == 2
    assert "make book" in capsys.readouterr().err


def test_options_of_other_programs_are_handed_on(make, calls, monkeypatch):
    ran = []
    monkeypatch.setattr(make, "run", lambda words, **_: ran.append(words) or 0)
    make.main(["run", "01", "--profile", "full", "-p", "SEED=3", "--help"])
    make.main(["test", "--", "-k", "bpe"])
    make.main(["list", "--json"])
    (make.ROOT / "tests").mkdir()
    make.main(["test", "tests/::name"])
    (make.ROOT / "tests" / "bench").mkdir()
    (make.ROOT / "tests" / "bench" / "bench_speed.py").touch()
    make.main(["bench", "--quick"])
    assert ran[-1] == ["-m", "tests.bench.bench_speed", "--quick"]
    assert ran[0][-7:] == ["run", "01", "--profile", "full", "-p", "SEED=3", "--help"]
    assert ran[2][-4:] == ["tests", "chapters", "-k", "bpe"]
    assert ran[5][-1] == "tests/::name"
    assert "chapters" not in ran[5]
    assert ran[3][-2:] == ["list", "--json"]


def test_a_failed_lint_fails_the_tests(make, calls, monkeypatch):
    monkeypatch.setattr(make, "run", lambda words, **_: int("ruff" in words))
    assert make.main(["test"]) == 1


def test_the_tests_can_run_without_the_environment(make, calls, monkeypatch):
    pythons = []
    monkeypatch.setattr(make, "run", lambda words, python, **_: pythons.append(str(python)) or 0)
    assert make.main(["test", "--here"]) == 0
    assert pythons == [sys.executable] * 2
    assert calls == []


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to a child alone on Windows")
def test_ctrl_c_lets_a_program_end_in_its_own_time(tmp_path):
    program = ("import time, pathlib\npathlib.Path('started').touch()\n"
               "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    time.sleep(1)\n"
               "    pathlib.Path('saved').touch()\n    raise SystemExit(130)")
    code = (f"import runpy, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"make = runpy.run_path({str(ROOT / 'make.py')!r})\n"
            f"make['run'].__globals__['ROOT'] = {str(tmp_path)!r}\n"
            f"sys.exit(make['run'](['-c', {program!r}], python=make['Path'](sys.executable)))")
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert (tmp_path / "saved").exists()


def test_the_makefile_only_calls_the_script(make):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.search(r"^COMMANDS = (.+)$", text, re.MULTILINE)[1].split()
    script = subprocess.run([sys.executable, str(ROOT / "make.py"), "--help"],
                            capture_output=True, text=True, check=True).stdout
    assert set(commands) == set(re.findall(r"^    (\w+) ", script, re.MULTILINE))
    recipes = [line.strip() for line in text.splitlines() if line.startswith("\t")]
    assert all(line.startswith("@$(PYTHON) make.py ") for line in recipes)


def test_the_build_machine_runs_the_same_command():
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").rstrip().endswith("\nmake test")
    if os.name != "nt":
        assert os.access(script, os.X_OK)
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    for name in ("test", "weekly", "publish"):
        workflow = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
        assert re.search(r"python make\.py test|make book", workflow)
