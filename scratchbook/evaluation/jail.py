"""The inside of `sandbox.py`: a script that locks the door behind itself, then runs a program.

It is started as `python -I -S jail.py FD`, with a JSON request on standard input, and needs
nothing but the standard library. Linux's own locks come first (Landlock for files, seccomp for
system calls); an audit hook inside Python refuses the same things where there are none.

Chapter:  chapters/06c_evaluation_and_sampling.ipynb
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import struct
import sys
from pathlib import Path

# Numbers of refused system calls, and how each processor spells its name for seccomp. Refused:
# sockets, new processes and programs, signals to others, tracing, limits, namespaces, mounts.
REFUSED = {
    "x86_64": (0xC000003E, (41, 42, 44, 49, 53, 56, 57, 58, 59, 62, 101, 109, 112, 141, 142, 155,
                            160, 161, 165, 166, 169, 175, 200, 203, 234, 246, 248, 249, 250, 272,
                            298, 302, 303, 304, 308, 310, 311, 313, 321, 322, 323)),
    "aarch64": (0xC00000B7, (39, 40, 41, 51, 97, 104, 105, 117, 118, 119, 122, 129, 130, 131, 140,
                             142, 154, 157, 164, 198, 199, 200, 203, 206, 217, 218, 219, 220, 221,
                             241, 261, 264, 265, 268, 270, 271, 273, 280, 281, 282)),
}
REFUSED_EVERYWHERE = (424, 425, 426, 427, 428, 429, 430, 434, 435, 438, 442, 443)
SYSTEM = ("/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
          "/dev/null", "/dev/urandom")
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
             "os.spawn", "os.kill", "os.putenv", "ctypes.", "resource.", "pty.", "signal.", "gc.",
             "syslog.", "webbrowser.", "urllib.", "ftplib.", "smtplib.", "sys.setprofile")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
           "os.chown", "os.truncate", "os.utime", "shutil.", "tempfile.")
LOOKS = ("open", "os.listdir", "os.scandir", "os.chdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER_MODE = 38, 22, 2
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
    if platform.machine() not in REFUSED:
        return False
    arch, calls = REFUSED[platform.machine()]
    calls = (*calls, *REFUSED_EVERYWHERE)
    end = len(calls)  # every jump says how many lines it leaves out; the last line refuses
    program = [(0x20, 0, 0, 4), (0x15, 0, end + 3, arch), (0x20, 0, 0, 0),
               (0x35, end + 1, 0, 0x40000000),  # the 32-bit spelling of x86's calls
               *((0x15, end - i, 0, call) for i, call in enumerate(calls)),
               (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)]
    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(raw))
    return libc.prctl(PR_SET_SECCOMP, FILTER_MODE, header, 0, 0) == 0


def watch(readable: list[str], own: str) -> None:
    """Refuse inside Python, too; hooks of this kind cannot be taken off again."""
    real, inside = os.path.realpath, (lambda path, roots: any(
        path == root or path.startswith(root + "/") for root in roots))
    own, readable = real(own), [real(path) for path in readable]

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"{event} is not allowed in the sandbox")
        changes = event.startswith(CHANGES) or (event == "open" and arguments[2] & WRITING)
        if changes or event in LOOKS:
            paths = (real(os.fsdecode(a)) for a in arguments[:2] if isinstance(a, str | bytes))
            roots = [own, "/dev/null"] if changes else [own, *readable]
            for path in paths if event != "open" else [next(paths, own)]:
                if not inside(path, roots):
                    raise PermissionError(f"{event}: {path} is outside of the sandbox")

    sys.addaudithook(hook)


def main() -> None:
    """Lock, run, and only when the program came to its end, say so with the request's secret."""
    verdict, request = int(sys.argv.pop()), json.loads(sys.stdin.read())
    own, secret = str(Path.cwd()), request.pop("secret")
    found = [sys.base_prefix, Path(os.__file__).parent, *filter(os.path.isdir, sys.path)]
    readable = sorted({*SYSTEM, *map(os.path.realpath, found)})
    limit(request["seconds"], request["memory"], request["written"])
    locks = []
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        locks += ["landlock"] * lock_files(libc, readable, own)
        locks += ["seccomp"] * lock_calls(libc)
    watch(readable, own)
    os.environ.clear()
    os.write(verdict, f"{','.join([*locks, 'audit hook'])}\n".encode())
    try:
        exec(compile(request["source"], "<program>", "exec"), {"__name__": "__main__"})
    except BaseException as error:
        os.write(verdict, f"{type(error).__name__}: {error}"[:500].encode())
    else:
        os.write(verdict, secret.encode())
    with contextlib.suppress(OSError, ValueError):  # the program may have closed it
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
