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
    "vm.unprivileged_userfaultfd": "/proc/sys/vm/unprivileged_userfaultfd",
    "kernel.unprivileged_bpf_disabled": "/proc/sys/kernel/unprivileged_bpf_disabled",
}
PARTS = ("native", "exporter", "recorder")


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
    found["attribution"] = {key: stats["attribution"].get(key) for key in ("available", "filtered", "note")}
    found["missing"] = _missing(found)
    return found


def text(found: dict[str, Any]) -> str:
    """The report for a reader."""
    lines = [f"memwatch {found['version']}, Python {found['python']}, Linux {found['kernel']} on {found['machine']}"]
    lines.append("backends, in the order in which they are tried:")
    for backend in found["backends"]:
        state = "taken" if backend["chosen"] else "usable" if backend["usable"] else "not usable"
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
    usable = {backend["name"]: backend["usable"] for backend in found["backends"]}
    if found["native"] and not usable.get("uffd", False):
        missing.append(_missing_uffd())
    if found["native"] and not found["attribution"]["available"]:
        missing.append(_missing_perf(found["settings"].get("kernel.perf_event_paranoid")))
    elif found["native"] and not found["attribution"]["filtered"]:
        missing.append(
            "who wrote, without a budget: Linux 6.10, CAP_BPF and CAP_PERFMON (docker: --cap-add BPF --cap-add PERFMON)"
        )
    if not found["frames"]:
        missing.append(f"lines of Python: {found['frames_note']}")
    return missing


def _missing_uffd() -> str:
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())
    if release < (6, 7):
        return f"backend uffd: Linux 6.7 or later (this is {platform.release()})"
    return (
        "backend uffd: allow userfaultfd(2): `sysctl vm.unprivileged_userfaultfd=1`, and in a container "
        "a seccomp profile that has it (docker: --security-opt seccomp=PROFILE.json, to try: seccomp=unconfined)"
    )


def _missing_perf(paranoid: Any) -> str:
    if isinstance(paranoid, int) and paranoid > 2 and os.geteuid() != 0:
        return f"who wrote: `sysctl kernel.perf_event_paranoid=2` (it is {paranoid})"
    return (
        "who wrote: allow perf_event_open(2): in a container give CAP_PERFMON (docker: --cap-add PERFMON) "
        "and a seccomp profile that has it; outside of a debugger"
    )
