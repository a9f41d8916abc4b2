"""The inside of `sandbox.py`: a script that locks the door behind itself, then runs a program.

It is started twice, as `python -I -S jail.py program FD FD` and `... judge FD FD FD`, each with
a JSON request on standard input, and needs nothing but the standard library. The program's
process holds nothing that decides: it answers calls with plain values over a pipe. The judge
holds the tests. Linux's own locks come first (Landlock for files, seccomp for system calls); an
audit hook inside Python refuses the same things where there are none.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

import contextlib
import ctypes
import functools
import json
import os
import platform
import resource
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path

# Refused system calls, each with its numbers on x86_64 and on aarch64 (- where it has none).
REFUSED = """
socket 41 198, socketpair 53 199, connect 42 203, sendto 44 206, bind 49 200,
clone 56 220, fork 57 -, vfork 58 -, execve 59 221, execveat 322 281,
kill 62 129, tkill 200 130, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240,
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272,
setpgid 109 154, setsid 112 157, setpriority 141 140, ioprio_set 251 30,
sched_setparam 142 118, sched_setscheduler 144 119, sched_setaffinity 203 122,
sched_setattr 314 274, migrate_pages 256 238, move_pages 279 239,
setrlimit 160 164, prlimit64 302 261,
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452,
chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54,
utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88,
setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7, setxattrat 463 463,
removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16, removexattrat 466 466,
mknod 133 -, mknodat 259 33, name_to_handle_at 303 264, open_by_handle_at 304 265,
shmget 29 194, semget 64 190, msgget 68 186, mq_open 240 180,
chroot 161 51, pivot_root 155 41, mount 165 40, umount2 166 39, unshare 272 97, setns 308 268,
open_tree 428 428, move_mount 429 429, fsopen 430 430, mount_setattr 442 442,
quotactl 179 60, quotactl_fd 443 443, acct 163 89, swapon 167 224, swapoff 168 225,
settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, clock_adjtime 305 266,
sethostname 170 161, setdomainname 171 162, vhangup 153 58, syslog 103 116, reboot 169 142,
iopl 172 -, ioperm 173 -, kexec_load 246 104, kexec_file_load 320 294,
init_module 175 105, finit_module 313 273, delete_module 176 106,
add_key 248 217, request_key 249 218, keyctl 250 219,
perf_event_open 298 241, bpf 321 280, userfaultfd 323 282, fanotify_init 300 262,
pidfd_send_signal 424 424, pidfd_open 434 434, pidfd_getfd 438 438, clone3 435 435,
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427
"""
# fcntl is needed, but not what sends a signal of one's choice to a process of one's choice, and
# not what makes others wait for a file: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY.
FCNTL, SIGNALLING = {"x86_64": 72, "aarch64": 25}, (8, 10, 15, 1024, 1026)
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # as seccomp spells them
SYSTEM = ("/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
          "/dev/null", "/dev/urandom")
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
             "os.spawn", "os.kill", "os.putenv", "ctypes.", "resource.", "pty.", "signal.", "gc.",
             "syslog.", "webbrowser.", "urllib.", "ftplib.", "smtplib.", "sys.setprofile", "fcntl.",
             "os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
           "shutil.", "tempfile.")
LOOKS = ("open", "os.listdir", "os.scandir", "os.chdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER_MODE = 38, 22, 2
KINDS = {kind.__name__: kind for kind in (list, tuple, set, frozenset, dict, bytes, complex)}
RAISED = {kind.__name__: kind for kind in (
    ValueError, TypeError, KeyError, IndexError, ZeroDivisionError, OverflowError, AttributeError,
    RuntimeError, NotImplementedError)}
PACKAGES = ("site-packages", "dist-packages")
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT, READING = 444, 445, 446, 0b1100


def limit(seconds: int, memory: int, written: int) -> None:
    """Bound processor time, memory, size of files, open files and processes."""
    for name, most in (("CPU", seconds), ("AS", memory), ("FSIZE", written), ("NOFILE", 32),
                       ("NPROC", 0), ("CORE", 0)):
        kind = getattr(resource, f"RLIMIT_{name}")
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # macOS knows not all of them
            continue


def lock_files(libc: ctypes.CDLL, readable: list[str], own: str) -> bool:
    """Landlock: reading below `readable`, everything below `own`, nothing else."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    handled = (1 << min(12 + version, 15)) - 1
    request = struct.pack("Q", handled)
    rules = libc.syscall(LANDLOCK_CREATE, request, len(request), 0)
    for path, allowed in [*((path, READING) for path in readable), (own, handled)]:
        if not Path(path).exists():
            continue
        place = os.open(path, os.O_PATH)
        allowed = allowed if Path(path).is_dir() else allowed & 0b110
        libc.syscall(LANDLOCK_ADD, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    done = libc.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return done


def lock_calls(libc: ctypes.CDLL) -> bool:
    """Seccomp: the calls of REFUSED fail with "operation not permitted"."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    column = 1 + list(ARCHITECTURES).index(machine)
    numbers = [call.split()[column] for call in REFUSED.split(",")]
    tests = [("if", FCNTL[machine], 0, 2 + len(SIGNALLING)), ("load", 24),  # its second argument
             *(("if", command, "refuse", 0) for command in SIGNALLING), ("allow",),
             *(("if", int(number), "refuse", 0) for number in numbers if number != "-")]
    program = [("load", 4), ("if", ARCHITECTURES[machine], 0, "refuse"), ("load", 0),
               ("from", 0x40000000, "refuse", 0),  # the 32-bit spelling of x86's calls
               *tests, ("allow",), ("refuse",)]
    raw = ctypes.create_string_buffer(b"".join(
        _instruction(line, len(program) - 2 - at) for at, line in enumerate(program)))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(raw))
    return libc.prctl(PR_SET_SECCOMP, FILTER_MODE, header, 0, 0) == 0


def _instruction(line: tuple, to_the_end: int) -> bytes:
    """One line of a seccomp filter; a jump says how many lines it leaves out."""
    code, result = {"load": (0x20, 0), "if": (0x15, 0), "from": (0x35, 0),
                    "allow": (0x06, 0x7FFF0000), "refuse": (0x06, 0x00050001)}[line[0]]
    value, *jumps = line[1:] or [result]
    yes, no = [to_the_end if jump == "refuse" else jump for jump in jumps] or (0, 0)
    return struct.pack("HBBI", code, yes, no, value)


def watch(readable: list[str], own: str) -> None:
    """Refuse inside Python, too; hooks of this kind cannot be taken off again."""
    real, forbidden, changing, looking, writing = (  # for good: the program cannot change them
        os.path.realpath, FORBIDDEN, CHANGES, LOOKS, WRITING)

    def below(roots: list[str]) -> tuple[str, ...]:
        return tuple(real(root) + "/" for root in roots)

    to_read, to_change = below([own, *readable]), below([own, "/dev/null"])

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(forbidden):
            raise PermissionError(f"{event} is not allowed in the sandbox")
        changes = event.startswith(changing) or (event == "open" and arguments[2] & writing)
        if changes or event in looking:
            paths = (real(os.fsdecode(a)) for a in arguments[:2] if isinstance(a, str | bytes))
            for path in paths if event != "open" else [next(paths, own)]:
                if not (path + "/").startswith(to_change if changes else to_read):
                    raise PermissionError(f"{event}: {path} is outside of the sandbox")

    sys.addaudithook(hook)


def python_files() -> list[str]:
    """What `import` reads of Python: all but the installed packages, which may hold the tests."""
    library = Path(os.__file__).resolve().parent
    found = [entry.path for entry in os.scandir(library) if entry.name not in PACKAGES]
    shared = Path(sys.base_prefix, "lib").glob("*.so*")
    return sorted(map(os.path.realpath, [*SYSTEM, *found, *shared]))


def lock(own: str, request: dict) -> list[str]:
    """Close all doors but the folder `own`; returns the names of the locks that hold."""
    limit(request["seconds"], request["memory"], request["written"])
    locks, readable = [], python_files()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        locks += ["landlock"] * lock_files(libc, readable, own)
        locks += ["seccomp"] * lock_calls(libc)
    watch(readable, own)
    os.environ.clear()
    return [*locks, "audit hook"]


class Channel:
    """JSON lines over two pipes."""

    def __init__(self, reading: int, writing: int):
        self.reading, self.writing = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")

    def send(self, message: object) -> None:
        """Write one line."""
        self.writing.write(json.dumps(message).encode() + b"\n")
        self.writing.flush()

    def receive(self) -> object:
        """Read one line; EOFError when the other side is gone."""
        line = self.reading.readline()
        if not line:
            raise EOFError("nobody answers")
        return json.loads(line)


def pack(value: object, number_of: Callable[[object], int]) -> object:
    """Plain data as JSON can hold it, of Python's own types whatever subclass it was.

    What is no plain data stays where it is, and goes by the number that `number_of` gives it.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    for name, kind in KINDS.items():
        if isinstance(value, kind):
            items = value.items() if isinstance(value, dict) else value
            return {name: [pack(item, number_of) for item in items]}
    return {"object": number_of(value)}


def unpack(packed: object, find: Callable[[int], object]) -> object:
    """The value that was packed; `find` knows the one behind a number."""
    if not isinstance(packed, dict):
        return packed
    ((name, held),) = packed.items()
    if name == "object":
        return find(held)
    items = [unpack(item, find) for item in held]
    return complex(*items) if name == "complex" else KINDS[name](items)


def run(source: str, locks: list[str], channel: Channel) -> None:
    """The program's process: run it, then answer the judge's calls until nobody asks."""
    program = sys.modules["__main__"] = types.ModuleType("__main__")
    objects: list = [program]

    def number_of(value: object) -> int:
        objects.append(value)
        return len(objects) - 1

    def answer(work: Callable[[], object]) -> None:
        try:
            reply = {"value": pack(work(), number_of)}
        except BaseException as error:
            reply = {"error": [type(error).__name__, str(error)[:500]]}
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed by the program
            sys.stdout.flush()
        channel.send(reply)

    channel.send(locks)
    answer(lambda: exec(compile(source, "<program>", "exec"), vars(program)))
    while True:
        kind, number, *rest = channel.receive()
        target, values = objects[number], [unpack(value, objects.__getitem__) for value in rest]
        answer(functools.partial(getattr, target, *values) if kind == "get" else
               functools.partial(target, *values[0], **values[1]))


class Proxy:
    """Something of the program's, known to the judge by a number only; equal to nothing else."""

    def __init__(self, ask: Callable, number: int):
        self.__dict__.update(_ask=ask, _number=number)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask("get", self._number, name)

    def __call__(self, *arguments: object, **named: object) -> object:
        return self._ask("call", self._number, arguments, named)


def judge(tests: str, channel: Channel) -> str:
    """Run the tests here, where the program cannot reach; returns why they fail, or nothing.

    Raises:   EOFError when the program is gone
    """
    def number_of(value: object) -> int:
        if isinstance(value, Proxy):
            return value._number
        raise TypeError(f"a test can hand over plain values, not {value!r}")

    def ask(*question: object) -> object:
        channel.send([pack(part, number_of) for part in question])
        reply = channel.receive()
        if "error" not in reply:
            return unpack(reply["value"], lambda number: Proxy(ask, number))
        name, text = reply["error"]
        raise RAISED[name](text) if name in RAISED else RuntimeError(f"{name}: {text}")

    loaded = channel.receive()
    if "error" in loaded:
        return "{}: {}".format(*loaded["error"])
    try:
        exec(compile(tests, "<tests>", "exec"), {"program": Proxy(ask, 0)})
    except (EOFError, BrokenPipeError):
        raise EOFError("the program is gone") from None
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:500]
    return ""


def main() -> None:
    """Lock, then be the program or its judge, as the arguments say."""
    role, reading, writing, *verdict = sys.argv[1:]
    del sys.argv[1:]
    request, channel = json.loads(sys.stdin.read()), Channel(int(reading), int(writing))
    sys.set_int_max_str_digits(0)
    locks = lock(str(Path.cwd()), request)
    with contextlib.suppress(EOFError, BrokenPipeError):
        if role == "program":
            run(request["source"], locks, channel)
        os.write(int(verdict[0]), json.dumps(channel.receive()).encode() + b"\n")
        os.write(int(verdict[0]), json.dumps(judge(request["tests"], channel)).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main()
