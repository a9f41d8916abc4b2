"""Programs that try to get out of the sandbox, each in its own way; and HumanEval's own answers."""

import os
import subprocess
import sys
import time
from math import comb
from pathlib import Path

import pytest

from scratchbook.evaluation import jail
from scratchbook.evaluation.sandbox import pass_at_k, read_problems, run_program, solve

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the sandbox needs POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")


def test_an_honest_program_runs():
    outcome = run_program("import json, math, random, hashlib\nopen('own.txt', 'w').write('x')\n"
                          "import os; os.rename('own.txt', 'other')\nprint(math.pi)")
    assert outcome.passed and outcome.reason == "passed" and outcome.output == "3.141592653589793\n"
    assert outcome.seconds < 2


def test_a_program_is_a_module_of_its_own():
    assert run_program("import pickle, sys, typing\nclass A:\n    b: 'B'\nclass B: pass\n"
                       "assert isinstance(pickle.loads(pickle.dumps(A())), A)\n"
                       "assert typing.get_type_hints(A) == {'b': B}\n"
                       "assert not hasattr(sys.modules['__main__'], 'jail')").passed


def test_folders_in_folders_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = run_program("import os\nos.mkdir('closed', 0o300)\nopen('closed/file', 'w').close()\n"
                          "for i in range(2000):\n    os.mkdir('d')\n    os.chdir('d')", 20)
    assert outcome.passed, outcome.reason
    assert not list(tmp_path.iterdir())


@linux
def test_the_kernel_holds_the_locks():
    assert run_program("").locks[-1] == "audit hook"
    if "landlock" in run_program("").locks:
        assert "seccomp" in run_program("").locks


ESCAPES = {
    "fork bomb": ("import os\nwhile True: os.fork()", "os.fork"),
    "fork without an event": (
        "import _posixsubprocess as p, os\np.fork_exec([b'/bin/true'], [b'/bin/true'], True, (),"
        "None, None, -1, -1, -1, -1, -1, -1, *os.pipe(), True, True, -1, None, None, None, -1,"
        "None, True)" if sys.version_info[:2] == (3, 11) else "import os\nos.forkpty()", ""),
    "threads": ("import threading\nwhile True: threading.Thread(target=input).start()", ""),
    "a shell": ("import os\nassert os.system('echo hi') == 0", "os.system"),
    "a program": ("import subprocess\nsubprocess.run(['true'])", "subprocess"),
    "network": ("import socket\nsocket.create_connection(('127.0.0.1', 80))", "socket"),
    "download": ("import urllib.request as r\nr.urlopen('http://localhost')", ""),
    "a file outside": ("open('/etc/passwd').read()", "outside"),
    "a link outside": ("import os\nos.symlink('/etc/passwd', 'l')\nopen('l').read()", "outside"),
    "the environment of another": ("open(f'/proc/{__import__(\"os\").getppid()}/environ')", ""),
    "a folder outside": ("import os\nos.listdir('/')", "outside"),
    "memory": ("x = bytearray(10**10)", "MemoryError"),
    "more memory": ("x = []\nwhile True: x.append(' ' * 10**8)", "MemoryError"),
    "endless loop": ("while True: pass", "stopped after"),
    "endless sleep": ("import time\ntime.sleep(1000)", "stopped after"),
    "endless output": ("while True: print('x' * 1000)", "too large"),
    "large file": ("open('big', 'w').write('x' * 10**8)", "too large"),
    "many open files": ("k = [open(f'f{i}', 'w') for i in range(1000)]", "Too many open files"),
    "killing the parent": ("import os\nos.kill(os.getppid(), 9)", "os.kill"),
    "killing the group": ("import os\nos.killpg(0, 9)", "os.kill"),
    "a signal by way of a pipe": (  # the owner of a pipe is told of its input, by SIGKILL if asked
        "import fcntl, os\nread, write = os.pipe()\n"
        "fcntl.fcntl(read, fcntl.F_SETOWN, os.getppid())", "fcntl"),
    "the clock": ("import time as t\nt.clock_settime(t.CLOCK_REALTIME, t.time())", ""),
    "a device": ("import os, stat\nos.mknod('m', stat.S_IFCHR | 0o600, os.makedev(1, 5))", ""),
    "rights by number": ("import os\nfd = os.open(os.__file__, os.O_RDONLY)\n"
                         "os.fchmod(fd, os.fstat(fd).st_mode & 0o777)", "os.chmod"),
    "dates by number": ("import os\nfd = os.open(os.__file__, os.O_RDONLY)\nos.utime(fd, (1, 1))",
                        "os.utime"),
    "attributes": ("import os\nos.setxattr('/dev/null', 'user.x', b'')", ""),
    "others' turns": ("import os\nos.sched_setscheduler(os.getppid(), os.SCHED_OTHER, "
                      "os.sched_param(0))", ""),
    "disarming the hook": ("import __main__ as jail\njail.FORBIDDEN = jail.CHANGES = ('none',)\n"
                           "import ctypes\nctypes.CDLL(None)", "ctypes"),
    "raising the limits": ("import resource as r\nr.setrlimit(r.RLIMIT_CPU, (99, 99))", "resource"),
    "loading a library": ("import ctypes\nctypes.CDLL(None)", "ctypes"),
    "printing the verdict": ("print('passed')\nraise SystemExit(0)", "SystemExit"),
    "leaving early": ("import os\nprint('passed')\nos._exit(0)", "left with status 0"),
    "closing everything": ("import os\nos.closerange(0, 99)\nassert False", ""),
    "catching everything": ("try: assert False\nfinally: import os; os._exit(0)", "left with"),
    "writing all pipes": ("import os\nfor fd in range(3, 20):\n  try: os.write(fd, b'passed')\n"
                          "  except OSError: pass\nos._exit(0)", ""),
    "deep recursion": ("def f(): f()\nf()", "RecursionError"),
    "no Python": ("def f(:", "SyntaxError"), "null byte": ("\0", "null byte"),
    "surrogate": ("x = '\ud800'", ""),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes(name):
    program, reason = ESCAPES[name]
    start = time.monotonic()
    outcome = run_program(program, seconds=4.0 if "memory" in name else 1.0)
    assert not outcome.passed
    assert reason in outcome.reason, outcome.reason
    assert time.monotonic() - start < 15
    assert len(outcome.output) <= 2**20


# The tests run elsewhere, and only values come back

@pytest.mark.parametrize("tests", [
    "assert program.same(None) is None and program.same(True) is True",
    "assert program.same(2**70000) == 2**70000 and program.same(-0.5) == -0.5",
    "assert program.same(float('inf')) == float('inf') and program.same(1e300) == 1e300",
    "x = program.same(float('nan')); assert x != x",
    "assert program.same('\\ud800 \\n') == '\\ud800 \\n' and program.same(b'\\xff') == b'\\xff'",
    "x = program.same((1, [2, {3}], {(4, 5): frozenset()}, 2 + 1j))\n"
    "assert x == (1, [2, {3}], {(4, 5): frozenset()}, 2 + 1j) and type(x) is tuple",
    "assert program.same(a := [1]) == a and program.same(a) is not a",
    "box = program.Box(7)\nassert box.held == 7 and box.get(times=2) == 14 and box != 7",
    "assert program.same(program.Box(3)).held == 3",
    "try: program.fails(ValueError('no'))\nexcept TypeError: pass\nelse: assert False",
    "try: program.fails([])\nexcept IndexError as error: assert 'range' in str(error)",
    "try: program.leaves()\nexcept RuntimeError as error: assert 'SystemExit' in str(error)",
    "assert not hasattr(program, 'nothing') and program.counts() + program.counts() == 3",
])
def test_values_come_back_as_they_are(tests):
    source = ("class Box:\n    def __init__(self, held): self.held = held\n"
              "    def get(self, times): return self.held * times\n"
              "def same(x): return x\ndef fails(x): return x[0]\ndef leaves(): raise SystemExit\n"
              "def counts(seen=[]):\n    print('called')\n    seen.append(1)\n"
              "    return len(seen)\n")
    outcome = run_program(source, seconds=5.0, tests=tests)
    assert outcome.passed, outcome.reason
    assert outcome.output == "called\n" * tests.count("counts")


# Each tries to pass `assert program.f(20) == 41 ...` without knowing what is asked of it.
LIAR = "class Liar({base}):\n    {body}\ndef f(x): return Liar({value})\n"
ALWAYS = ("__eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n"
          "    __hash__ = {base}.__hash__\n    __bool__ = lambda self: True\n"
          "    __repr__ = __str__ = lambda self: '41'\n"
          "    __class__ = property(lambda self: {base})")
SPEAK = ("import json, os\ndef speak(*words):\n    for fd in range(64):\n"
         "        for word in words:\n            try: os.write(fd, word)\n"
         "            except OSError: pass\n")
CLAIMS = ("b'passed', b'\\n\"\"\\n', b'[]\\n\"\"\\n', b'{\"value\": null}\\n', "
          "b'{\"value\": true}\\n' * 50")
CHEATS = {
    "lying object": LIAR.format(base="object", value="", body=ALWAYS.format(base="object")),
    "lying int": LIAR.format(base="int", value="0", body=ALWAYS.format(base="int")),
    "lying text": LIAR.format(base="str", value="''", body=ALWAYS.format(base="str")),
    "lying list": LIAR.format(base="list", value="", body=ALWAYS.format(base="object")),
    "the jail's secret": (
        "import os, sys\nheld = sys._getframe(1).f_locals\n"
        "os.write(held['verdict'], held['secret'].encode())\nos._exit(0)"),
    "the caller's frames": SPEAK + (
        "import sys\ndef f(x):\n    found, frame = [], sys._getframe()\n    while frame:\n"
        "        found += [*frame.f_locals.values(), *frame.f_globals.values()]\n"
        "        frame = frame.f_back\n    words = [v.encode() for v in found if type(v) is str]\n"
        f"    speak(*words, {CLAIMS})\nf(0)"),
    "all objects": SPEAK + (
        "import gc\ndef f(x): return 0\nwords = []\nfor held in gc.get_objects():\n"
        "    words += [v.encode() for v in (held.values() if type(held) is dict else [])\n"
        "              if type(v) is str and len(v) < 99]\nspeak(*words[:2000])"),
    "a traceback's frames": SPEAK + (
        "import sys\ndef f(x): return 0\ntry: 1 / 0\nexcept ZeroDivisionError as error:\n"
        "    frame = error.__traceback__.tb_frame.f_back\n"
        "    frame.f_locals.get('answer', print)(lambda: True)\n"
        f"    speak({CLAIMS})"),
    "the pipe itself": (
        "import sys\nframe = sys._getframe(1)\nwhile 'channel' not in frame.f_locals:\n"
        "    frame = frame.f_back\nchannel = frame.f_locals['channel']\n"
        "while True:\n    channel.send({'value': True})\n    channel.receive()"),
    "the pipe's other messages": (
        "import sys\nframe = sys._getframe(1)\nwhile 'channel' not in frame.f_locals:\n"
        "    frame = frame.f_back\nchannel = frame.f_locals['channel']\n"
        "for word in ([['x'], ''], '', {'value': {'object': 'x'}}, {'error': ['', '']}):\n"
        "    channel.send(word)"),
    "an end of iteration": "def f(x): raise StopIteration",
    "modules": ("import sys\nfor module in list(sys.modules.values()):\n"
                "    for name in ('judge', 'run', 'main', 'unpack', 'Proxy', 'RAISED'):\n"
                "        if hasattr(module, name): setattr(module, name, lambda *a: '')\n"
                "def f(x): return 0"),
    "every file": SPEAK + f"def f(x): return 0\nspeak({CLAIMS})\nos._exit(0)",
    "every file, late": SPEAK + f"def f(x): speak({CLAIMS}); os._exit(0)",
    "reading every file": (
        "import os, re\nseen = b''\nfor fd in range(3):\n    try: seen += os.pread(fd, 10**6, 0)\n"
        "    except OSError: pass\nprint(seen)\nassert b'43' + b'21' not in seen\n"
        "def f(x): return 0"),
    "builtins": ("import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\n"
                 "builtins.exec = builtins.compile = lambda *a: None\n"
                 "builtins.all = lambda *a: True\n"
                 "builtins.int = builtins.isinstance = lambda *a: True\ndef f(x): return 0"),
    "json": ("import json\njson.dumps = lambda *a, **k: '{\"value\": true}'\n"
             "json.loads = lambda *a: ['call', 0]\ndef f(x): return 0"),
    "pickle": ("import pickle\nclass R:\n    def __reduce__(self): return (print, ('x',))\n"
               "def f(x): return pickle.dumps(R())"),
    "code as a value": "class R(str): pass\ndef f(x): return R('__import__(\"os\")._exit(0)')",
    "at the end": SPEAK + (f"import atexit\natexit.register(speak, {CLAIMS})\n"
                           "def f(x): raise SystemExit(0)"),
    "a thread": SPEAK + (f"import threading\ndef f(x): return 0\n"
                         f"threading.Thread(target=speak, args=({CLAIMS},)).start()"),
    "a signal": SPEAK + ("import signal\nsignal.signal(signal.SIGALRM, lambda *a: speak("
                         f"{CLAIMS}))\nsignal.alarm(1)\ndef f(x): return 0"),
    "leaving": "def f(x): raise SystemExit(0)",
    "leaving at once": "import os\ndef f(x): os._exit(0)",
    "ptrace": ("import ctypes, os\nlibc = ctypes.CDLL(None)\nlibc.ptrace(16, os.getppid(), 0, 0)\n"
               "def f(x): return 0"),
    "memory of the parent": ("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')\n"
                             "def f(x): return 0"),
    "its own memory": "open('/proc/self/mem', 'rb')\ndef f(x): return 0",
    "its descriptors": ("import os\nfor name in os.listdir('/proc/self/fd'):\n"
                        "    open(f'/proc/self/fd/{name}', 'w').write('passed')\n"
                        "def f(x): return 0"),
    "a tracer": ("import sys\nsys.settrace(lambda *a: None)\n"
                 "sys.excepthook = sys.unraisablehook = lambda *a: None\ndef f(x): return 0"),
    "an importer": ("import sys\nclass All:\n    def find_spec(self, *a): return None\n"
                    "sys.meta_path.insert(0, All())\nsys.path.insert(0, '.')\n"
                    "open('json.py', 'w').write('loads = dumps = lambda *a: 41')\n"
                    "def f(x): return 0"),
    "a huge answer": "def f(x): return [0] * 10**8",
    "a deep answer": "x = []\nfor _ in range(10**5): x = [x]\ndef f(y): return x",
    "a slow answer": "def f(x): return '9' * 10**6 and 10**200_000",
    "an endless answer": "import sys\ndef f(x):\n    while True: pass",
}
QUESTIONS = "import os\nassert program.f(20) == 41 and program.f(2160) == 4321, 'another value'"


@pytest.mark.parametrize("name", CHEATS)
def test_nothing_that_decides_is_in_reach(name):
    start = time.monotonic()
    outcome = run_program(CHEATS[name], seconds=2.0, tests=QUESTIONS)
    assert not outcome.passed and outcome.reason != "passed"
    assert time.monotonic() - start < 30
    assert run_program("def f(x): return 2 * x + 1", seconds=5.0, tests=QUESTIONS).passed


def test_the_tests_of_the_book_cannot_be_read():
    from scratchbook.runtime import data_dir

    for path in (data_dir() / "code_tests.json", Path(pytest.__file__)):
        outcome = run_program(f"open({str(path)!r}).read()")
        assert not outcome.passed and "PermissionError" in outcome.reason, outcome.reason
    assert not any(Path(entry).name in jail.PACKAGES for entry in jail.python_files())


def test_a_test_that_cannot_run_is_no_pass():
    honest = "def f(x): return x"
    for tests in ("assert f(1) == 1", "assert (", "import os; os._exit(0)", "program.f(print)",
                  "raise SystemExit(0)"):
        assert not run_program(honest, tests=tests).passed, tests


def test_helpers_of_the_prompt_are_the_prompt_s_own():
    problem = {"prompt": "def double(x):\n    return 2 * x\n\ndef f(x):\n    \"\"\"Half.\"\"\"\n",
               "entry_point": "f",
               "test": "def check(candidate):\n    assert candidate(double(5)) == 5"}
    assert solve(problem, "    return x // 2\n").passed
    assert not solve(problem, "    return x\ndef double(x): return x\n").passed


def test_nothing_is_written_outside(tmp_path):
    place = repr(str(tmp_path / "x"))
    for how in (f"open({place}, 'w')", f"os.mkdir({place})", f"os.rename('a', {place})",
                f"os.open({place}, os.O_CREAT | os.O_WRONLY)"):
        assert not run_program(f"import os\nopen('a', 'w').close()\n{how}").passed
    assert not list(tmp_path.iterdir())


def test_no_secret_of_the_environment(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    outcome = run_program("import os\nprint(dict(os.environ), os.getcwd(), os.listdir('.'))")
    assert outcome.passed and "hunter2" not in outcome.output
    assert outcome.output.startswith("{}") and outcome.output.rstrip().endswith("[]")


def test_a_program_that_closes_its_output_is_still_judged():
    assert run_program("import os\nos.close(1)\nos.close(2)").passed
    assert not run_program("import sys\nsys.stdout.close()\nassert False").passed


def test_nothing_survives_the_time_limit():
    outcome = run_program("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)", 1.0)
    assert outcome.seconds < 30  # killed, and not waited for
    pid = int(outcome.output)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


KERNEL_ONLY = """
import ctypes, fcntl, os, platform, signal, socket, sys, tempfile, threading, time
sys.path.insert(0, sys.argv[1])
import jail
own = tempfile.mkdtemp()
os.chdir(own)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
if not (jail.lock_files(libc, [sys.base_prefix, *jail.SYSTEM], own) and jail.lock_calls(libc)):
    sys.exit(77)
fcntl.fcntl(0, fcntl.F_GETFL)  # nothing to refuse
def queue_a_signal():
    if libc.syscall(129 if platform.machine() == "x86_64" else 138, os.getppid(), 0, bytes(128)):
        raise OSError(ctypes.get_errno(), "refused")
calls = [os.fork, socket.socket, lambda: open("/etc/passwd"), lambda: os.listdir("/tmp"), os.setsid,
         lambda: os.kill(os.getppid(), 0), lambda: os.execv("/bin/true", ["true"]),
         lambda: open(sys.argv[2] + "/x", "w"), lambda: os.rename("own", sys.argv[2] + "/own"),
         lambda: os.posix_spawn("/bin/true", ["true"], {}), lambda: os.mkfifo("pipe"),
         lambda: os.chmod("own", 0o600), lambda: os.utime("own"),
         lambda: os.setxattr("own", "user.x", b""), lambda: fcntl.fcntl(0, fcntl.F_SETOWN, 1),
         lambda: fcntl.fcntl(0, 10, 9), lambda: time.clock_settime(0, time.time()),
         lambda: signal.pthread_kill(threading.get_ident(), 0), queue_a_signal]
open("own", "w").close()
for call in calls:
    try:
        call()
    except PermissionError:
        continue
    sys.exit(1)
"""


@linux
def test_the_kernel_alone_refuses_without_the_hook(tmp_path):
    folder = str(Path(jail.__file__).parent)
    run = subprocess.run([sys.executable, "-c", KERNEL_ONLY, folder, str(tmp_path)], timeout=60,
                         capture_output=True, text=True, check=False)
    if run.returncode == 77:
        pytest.skip("this kernel has no Landlock or seccomp")
    assert run.returncode == 0, run.stderr
    assert not list(tmp_path.iterdir())


HOOK_ONLY = """
import os, sys, tempfile
sys.path.insert(0, sys.argv[1])
import jail
os.chdir(own := tempfile.mkdtemp())
os.symlink("/etc", "way-out")
jail.watch([sys.base_prefix, *jail.SYSTEM], own)
import socket, subprocess
for call in (os.fork, socket.socket, lambda: open("/etc/passwd"), lambda: os.listdir("/tmp"),
             lambda: os.kill(os.getppid(), 0), lambda: os.system("true"),
             lambda: open(sys.argv[2] + "/x", "w"), lambda: os.mkdir(sys.argv[2] + "/y"),
             lambda: open("way-out/passwd"), lambda: subprocess.run(["true"]),
             lambda: os.remove("/etc/passwd")):
    try:
        call()
    except PermissionError as error:
        assert "sandbox" in str(error), error
        continue
    sys.exit(1)
"""


def test_the_hook_alone_refuses_without_the_kernel(tmp_path):
    folder = str(Path(jail.__file__).parent)
    run = subprocess.run([sys.executable, "-c", HOOK_ONLY, folder, str(tmp_path)], timeout=60,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not list(tmp_path.iterdir())


# pass@k

@pytest.mark.parametrize(("tries", "passed", "k"), [(5, 2, 1), (5, 2, 3), (10, 0, 10), (4, 4, 2)])
def test_pass_at_k_counts_the_choices(tries, passed, k):
    assert pass_at_k(tries, passed, k) == 1 - comb(tries - passed, k) / comb(tries, k)
    assert pass_at_k(tries, passed, 1) == passed / tries


def test_pass_at_k_is_unbiased():
    share, tries, k = 0.3, 6, 3
    expected = sum(comb(tries, c) * share**c * (1 - share)**(tries - c) * pass_at_k(tries, c, k)
                   for c in range(tries + 1))
    assert expected == pytest.approx(1 - (1 - share)**k, abs=1e-12)
    for wrong in ((5, 6, 1), (5, 1, 6), (5, 1, 0), (5, -1, 1)):
        with pytest.raises(ValueError, match="makes no sense"):
            pass_at_k(*wrong)


def test_every_answer_of_humaneval_passes_and_an_empty_one_fails(dataset):
    problems = read_problems(dataset("humaneval"))
    assert len(problems) == 164
    failed = {p["task_id"]: outcome.reason for p in problems
              if not (outcome := solve(p, p["canonical_solution"], seconds=10)).passed}
    assert not failed
    assert not any(solve(p, "    pass\n").passed for p in problems[:10])
