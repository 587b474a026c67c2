"""Runs a program as another user and under a seccomp filter like those of container runtimes.

usage: confine.py none|docker|podman|kill UID|- PROGRAM ARGUMENT...

docker and podman answer EPERM and ENOSYS to what their default profiles deny of what memwatch uses; kill ends the
process for it, as systemd's SystemCallFilter= does.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

#: userfaultfd, perf_event_open, bpf
NUMBERS = {"x86_64": (323, 298, 321), "aarch64": (282, 241, 280)}
ERRNO, KILL_PROCESS, ALLOW = 0x00050000, 0x80000000, 0x7FFF0000
ANSWERS = {"docker": ERRNO | 1, "podman": ERRNO | 38, "kill": KILL_PROCESS}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
BPF_LOAD_WORD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def confine(answer: int) -> None:
    """Puts this process, and what it executes, under the filter."""
    code = instruction(BPF_LOAD_WORD, 0)
    for number in NUMBERS[platform.machine()]:
        code += instruction(BPF_JUMP_EQUAL, number, 0, 1) + instruction(BPF_RETURN, answer)
    code += instruction(BPF_RETURN, ALLOW)
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program):
        raise OSError(ctypes.get_errno(), "prctl")


def main(kind: str, user: str, *program: str) -> None:
    """Never returns."""
    if user != "-":
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    if kind != "none":
        confine(ANSWERS[kind])
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
