"""Confining the calling process on Linux, without root: resource limits, Landlock, seccomp. Standard library alone."""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig

from system_calls import CLONE, CLONE3, DENIED, IOCTL, KILL, TGKILL, UNREVIEWED

MEMORY = 512 << 20  # bytes of address space
FILE_SIZE = 1 << 20
STACK = 64 << 20
DESCRIPTORS = 32

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of DENIED, AUDIT_ARCH
_CLONE_THREAD = 0x10000
_X32 = 0x40000000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _READ_FILE, _READ_DIR = 1, 4, 8
# Rights of files that each ABI knows: 13 in the first, then refer, truncate, and ioctl of devices.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_BPF_LOAD, _BPF_EQUAL, _BPF_AT_LEAST, _BPF_BITS, _BPF_RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NR, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_abi() -> int:
    """Landlock's version in this kernel; 0 where it has none."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        return 0
    return max(0, _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def has_seccomp() -> bool:
    """Whether a filter of system calls can be set here."""
    return (
        sys.platform == "linux" and platform.machine() in _ARCHITECTURES and os.path.exists("/proc/sys/kernel/seccomp")
    )


def hide_memory() -> None:
    """Let no process of the same account read this one's memory."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit(cpu_seconds: int) -> None:
    """Hard limits, which no child raises again; ``cpu_seconds`` of processor time, then SIGXCPU, a second on SIGKILL.

    The signal tells a spent limit from any other death. Measured time does not: the kernel ends a process by counted
    ticks, which on a busy machine come to a second before 0.9 seconds were used.
    """
    for name, soft, most in (
        (resource.RLIMIT_AS, MEMORY, MEMORY),
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_FSIZE, FILE_SIZE, FILE_SIZE),
        (resource.RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_STACK, STACK, STACK),
    ):
        hard = resource.getrlimit(name)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (min(soft, most), most))


def confine(landlock: bool, seccomp: bool) -> None:
    """No privileges to gain, none kept; then Landlock and seccomp where asked for. Raises `OSError` where one fails."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))
    if landlock:
        _restrict_files()
    if seccomp:
        _filter_calls()


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def readable_folders() -> list[str]:
    """Where the interpreter's own code and libraries are: all that a confined process reads."""
    paths = sysconfig.get_paths()
    found = [paths["stdlib"], paths["platstdlib"], os.path.join(sys.base_prefix, "lib"), "/usr/lib", "/lib", "/lib64"]
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


def _restrict_files() -> None:
    abi = landlock_abi()
    rights = (1 << _FILE_RIGHTS.get(abi, 16)) - 1
    # handled_access_fs, handled_access_net (TCP bind and connect), scoped (abstract sockets, signals)
    attributes = [rights, *([3] if abi >= 4 else []), *([3] if abi >= 6 else [])]
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = _check(_libc.syscall(_LANDLOCK_CREATE, packed, ctypes.c_size_t(len(packed)), 0))
    for path in readable_folders():
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _EXECUTE | _READ_FILE | _READ_DIR, folder)
        _check(_libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0))
        os.close(folder)
    _check(_libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)


def _filter_calls() -> None:
    column, architecture = _ARCHITECTURES[platform.machine()]
    refuse = (_BPF_RETURN, 0, 0, _ERRNO | errno.EPERM)
    allow = (_BPF_RETURN, 0, 0, _ALLOW)
    program = [(_BPF_LOAD, 0, 0, _ARCH), (_BPF_EQUAL, 1, 0, architecture), (_BPF_RETURN, 0, 0, _KILL)]
    program += [(_BPF_LOAD, 0, 0, _NR), (_BPF_AT_LEAST, 0, 1, _X32), (_BPF_RETURN, 0, 0, _KILL)]
    for numbers in DENIED.values():
        if numbers[column] is not None:
            program += [(_BPF_EQUAL, 0, 1, numbers[column]), refuse]
    # glibc falls back to clone, whose flags can be read, where there is no clone3.
    missing = (_BPF_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    program += [(_BPF_EQUAL, 0, 1, CLONE3[column]), missing, (_BPF_AT_LEAST, 0, 1, UNREVIEWED), missing]
    # It sets flags of files that can only be read. What asks whether a file is a terminal takes this for a no.
    program += [(_BPF_EQUAL, 0, 1, IOCTL[column]), (_BPF_RETURN, 0, 0, _ERRNO | errno.ENOTTY)]
    checked = [(CLONE, (_BPF_BITS, 1, 0, _CLONE_THREAD))]
    checked += [(call, (_BPF_EQUAL, 1, 0, os.getpid())) for call in (KILL, TGKILL)]
    for numbers, test in checked:
        program += [(_BPF_EQUAL, 0, 4, numbers[column]), (_BPF_LOAD, 0, 0, _ARGUMENT), test, refuse, allow]
    program.append(allow)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0))
