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
import types
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
    real, inside = os.path.realpath, (lambda path, roots: any(
        path == root or path.startswith(root + "/") for root in roots))
    own, readable = real(own), [real(path) for path in readable]
    forbidden, changing, looking, writing = FORBIDDEN, CHANGES, LOOKS, WRITING  # for good

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(forbidden):
            raise PermissionError(f"{event} is not allowed in the sandbox")
        changes = event.startswith(changing) or (event == "open" and arguments[2] & writing)
        if changes or event in looking:
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
    program = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(request["source"], "<program>", "exec"), vars(program))
    except BaseException as error:
        os.write(verdict, f"{type(error).__name__}: {error}"[:500].encode())
    else:
        os.write(verdict, secret.encode())
    with contextlib.suppress(OSError, ValueError):  # the program may have closed it
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
