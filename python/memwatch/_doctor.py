"""What works on this machine: which backend is taken and why not another, who can be named, what is missing."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from memwatch._native import core
from memwatch._native import missing as parts_missing

SETTINGS = {
    "kernel.perf_event_paranoid": "/proc/sys/kernel/perf_event_paranoid",
    "kernel.unprivileged_bpf_disabled": "/proc/sys/kernel/unprivileged_bpf_disabled",
}
PARTS = ("native", "exporter", "recorder")
#: The exit status by what works.
ALL, NO_WRITERS, POLLED, NOT_NATIVE = 0, 1, 3, 4

#: What a seccomp profile must let through, as an entry of its `syscalls`; docs/seccomp.md has the same.
SECCOMP_ENTRY = '{"names": ["userfaultfd", "perf_event_open"], "action": "SCMP_ACT_ALLOW"}'

_PROFILE = """\
jq '.syscalls += [{entry}]' {default} > memwatch.json"""
FIXES = {
    "docker": f"""\
# Linux 6.7 or later on the host. Either the device, for root in the container, and a capability for the writers:
docker run --device /dev/userfaultfd --cap-add PERFMON ...
# or the default profile and two system calls more:
curl -fsSLO https://raw.githubusercontent.com/moby/profiles/main/seccomp/default.json
{_PROFILE.format(entry=SECCOMP_ENTRY, default="default.json")}
docker run --security-opt seccomp=memwatch.json ...""",
    "podman": f"""\
# Linux 6.7 or later on the host. The default profile and two system calls more:
{_PROFILE.format(entry=SECCOMP_ENTRY, default="/usr/share/containers/seccomp.json")}
podman run --security-opt seccomp=memwatch.json ...""",
    "kubernetes": f"""\
# Linux 6.7 or later on the nodes. On each node, from the runtime's default profile:
{_PROFILE.format(entry=SECCOMP_ENTRY, default="default.json")}
install -D memwatch.json /var/lib/kubelet/seccomp/memwatch.json
# In the pod:
securityContext: {{ seccompProfile: {{ type: Localhost, localhostProfile: memwatch.json }} }}
# A pod without a seccompProfile, on a kubelet without seccompDefault, needs nothing of this.""",
    "systemd": """\
# In the unit, beside its own list:
[Service]
SystemCallFilter=userfaultfd perf_event_open""",
    "sysctl": """\
# For ordinary users, where writers are not known:
sysctl -w kernel.perf_event_paranoid=2
echo kernel.perf_event_paranoid=2 > /etc/sysctl.d/60-memwatch.conf""",
}


#: What comparing does on the machine of docs/performance.md.
_BYTES_A_SECOND = 6.7e9


def status(found: dict[str, Any]) -> int:
    """The exit status: 0 when changes and their writers are known, 1 without writers, 3 polled, 4 without the core."""
    if not found["native"]:
        return NOT_NATIVE
    if found["backend"] == "poll":
        return POLLED
    return ALL if found["attribution"]["available"] else NO_WRITERS


def report() -> dict[str, Any]:
    """The facts. Opens a watcher for a moment to see what it chooses."""
    found: dict[str, Any] = {
        "version": core.VERSION,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "user": os.geteuid() if hasattr(os, "geteuid") else None,
        **{part: part not in parts_missing for part in PARTS},
        "why_missing": dict(parts_missing),
        "frames": core.FRAMES,
        "frames_note": core.FRAMES_NOTE,
        "settings": _settings(),
    }
    watcher = core.Watcher()
    try:
        chosen = {backend["name"] for backend in watcher.backends() if backend["chosen"]}
        stats = watcher.stats()
    finally:
        watcher.close()
    found["backends"] = [{**backend, "chosen": backend["name"] in chosen} for backend in core.probe()]
    found["backend"] = stats["backend"]
    # As if at the usual speed: an empty watcher has measured nothing.
    found["poll_round_ms"] = round((64 << 20) / (_BYTES_A_SECOND * (stats.get("poll_budget") or 0.01)) * 1e3)
    found["attribution"] = {key: stats["attribution"].get(key) for key in ("available", "filtered", "note")}
    found["missing"] = _missing(found)
    return found


def text(found: dict[str, Any]) -> str:
    """The report for a reader."""
    lines = [f"memwatch {found['version']}, Python {found['python']}, Linux {found['kernel']} on {found['machine']}"]
    lines.append("backends, in the order in which they are tried; mprotect is not, it must be asked for:")
    for backend in found["backends"]:
        state = "taken" if backend["chosen"] else "usable" if backend["usable"] else "not usable"
        state = "by name" if backend["name"] == "mprotect" and backend["usable"] else state
        lines.append(f"  {backend['name']:<9} {state:<11} {backend['note']}".rstrip())
    attribution = found["attribution"]
    lines.append("who wrote:")
    lines.append(f"  {'known' if attribution['available'] else 'not known'}{_note(attribution['note'])}")
    if attribution["available"]:
        how = "in the kernel, by BPF" if attribution["filtered"] else "by a budget (attribution_budget)"
        lines.append(f"  ordinary page faults are told apart {how}")
    lines.append(f"  lines of Python {found['python']}: {'known' if found['frames'] else 'not known'}")
    lines.append("parts:")
    lines += [f"  {part:<9} {'there' if found[part] else 'missing'}" for part in PARTS]
    lines.append("to do:" if found["missing"] else "nothing is missing")
    lines += [f"  - {sentence}" for sentence in found["missing"]]
    return "\n".join(lines)


def _note(note: str) -> str:
    return f": {note}" if note else ""


def _settings() -> dict[str, int]:
    settings = {}
    for name, path in SETTINGS.items():
        try:
            with open(path, encoding="ascii") as file:
                settings[name] = int(file.read())
        except (OSError, ValueError):
            continue
    return settings


def _missing(found: dict[str, Any]) -> list[str]:
    """A sentence with the exact setting for each thing that could be better."""
    missing = [f"{part}: {why}" for part, why in found["why_missing"].items()]
    if not sys.platform.startswith("linux"):
        return [*missing, "Linux: elsewhere memory is polled"]
    if found["native"] and found["backend"] == "poll":
        missing.append(_polled(found))
    elif found["native"] and not found["attribution"]["available"]:
        missing.append(f"Writers are not known: {found['attribution']['note']}.")
    if not found["frames"]:
        missing.append(f"Lines of Python are not known: {found['frames_note']}.")
    return missing


def _polled(found: dict[str, Any]) -> str:
    [note] = [backend["note"] for backend in found["backends"] if backend["name"] == "uffd"]
    return (
        f"Memory is polled: {note}. Changes are told up to {found['poll_round_ms']} ms late for each 64 MiB, "
        "without their writer."
    )
