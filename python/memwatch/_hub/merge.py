"""Many scrapes as one: families once, a service and a worker on each series, counters of the dead kept.

DESIGN  A scrape of an exporter of ours is a list of blocks, one a family: TYPE, UNIT, HELP, then the samples, each line
beginning with the family's name. So a worker's labels are put in by replacing bytes at the beginnings of lines, without
looking at the lines one by one: sixteen workers of a thousand series take some milliseconds. Only where a worker that
is gone had the same place, its numbers are added line by line.

A counter of a place never falls: it is what the worker that has the place now counts, plus what all before it had
counted when they were last asked.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple, Optional, Union

Number = Union[int, float]
Kept = dict[bytes, dict[bytes, Number]]
"""What the dead had counted, by family and sample."""

KEPT_MAX = 20_000
"""Samples of one family that are kept for one place; what is more is counted under one label."""

OVERFLOW = b'variable="__overflow__"'
OWN_LABELS = b"memwatch_process_info", b"memwatch_process"
"""The family that has a service and a worker itself, in both formats: the hub writes its own."""

_SUFFIXES = {b"histogram": (b"_bucket", b"_sum", b"_count")}
_SUFFIXES_OPENMETRICS = {**_SUFFIXES, b"counter": (b"_total",), b"info": (b"_info",)}


class Block(NamedTuple):
    """One family of one scrape."""

    name: bytes
    kind: bytes
    head: bytes
    """From after "# TYPE " to the end of HELP."""
    samples: bytes
    """A line end before each, none behind the last."""


def blocks(scrape: bytes) -> list[Block]:
    """The families of a scrape. What is none of ours gives none."""
    found = []
    for part in (b"\n" + scrape).removesuffix(b"# EOF\n").split(b"\n# TYPE ")[1:]:
        end = part.find(b"\n", part.find(b"\n# HELP ") + 1)
        first = part.partition(b"\n")[0].split(b" ")
        if len(first) == 2:
            head, samples = (part, b"") if end < 0 else (part[:end], part[end:])
            found.append(Block(first[0], first[1], head, samples.rstrip(b"\n")))
    return found


def suffixes(kind: bytes, openmetrics: bool) -> tuple[bytes, ...]:
    """What a family's samples have behind its name."""
    return (_SUFFIXES_OPENMETRICS if openmetrics else _SUFFIXES).get(kind, (b"",))


def labelled(block: Block, labels: bytes, openmetrics: bool) -> bytes:
    """The samples, with these labels first."""
    samples = block.samples
    for suffix in suffixes(block.kind, openmetrics):
        name = b"\n" + block.name + suffix
        samples = samples.replace(name + b"{", name + b"{" + labels + b",")
        samples = samples.replace(name + b" ", name + b"{" + labels + b"} ")
    return samples


def number(text: bytes) -> Optional[Number]:
    """A sample's value."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


def _text(value: Number) -> bytes:
    return b"%d" % value if isinstance(value, int) else repr(value).encode()


def never_falls(block: Block) -> bool:
    """Whether its numbers only grow."""
    return block.kind in (b"counter", b"histogram")


def counts(scrapes: Iterable[tuple[bytes, bool]]) -> Kept:
    """The counters of one worker by its last scrapes: of each number the highest, which is the newest. Each scrape is
    its text and whether that is OpenMetrics."""
    found: Kept = {}
    for scrape, openmetrics in scrapes:
        for block in blocks(scrape):
            if never_falls(block):
                _take_highest(found.setdefault(_counted(block, openmetrics), {}), block)
    return found


def _take_highest(family: dict[bytes, Number], block: Block) -> None:
    for line in block.samples[1:].split(b"\n"):
        sample, _, text = line.rpartition(b" ")
        value = number(text)
        if sample and value is not None:
            family[sample] = max(value, family.get(sample, value))


def keep(kept: Kept, more: Kept, times: int = 1) -> Kept:
    """Adds the counters of a worker that is gone; what went where. `times` -1, of that: it was not, after all."""
    done: Kept = {}
    for name, numbers in more.items():
        family = kept.setdefault(name, {})
        to = done.setdefault(name, {})
        for sample, value in numbers.items():
            if sample not in family and len(family) >= KEPT_MAX:
                sample = name + b"{" + OVERFLOW + b"}"
            family[sample] = family.get(sample, 0) + times * value
            to[sample] = to.get(sample, 0) + value
    return done


def added(block: Block, kept: dict[bytes, Number]) -> Block:
    """The block with what the dead had counted. `kept` has the samples' names of that block's format."""
    lines, left = [], dict(kept)
    for line in block.samples[1:].split(b"\n") if block.samples else []:
        sample, _, text = line.rpartition(b" ")
        before = left.pop(sample, None)
        value = None if before is None else number(text)
        lines.append(line if value is None or before is None else sample + b" " + _text(value + before))
    lines += [sample + b" " + _text(value) for sample, value in left.items()]
    return block._replace(samples=b"".join(b"\n" + line for line in lines))


class Place(NamedTuple):
    """What one worker's place has to say."""

    labels: bytes
    """As they stand in a sample."""
    scrape: bytes
    """Of the worker that has it now; empty: nobody."""
    kept: Kept


def merged(places: Iterable[Place], own: bytes, openmetrics: bool) -> bytes:
    """One scrape of all places. `own`: the hub's blocks, in the same format, without EOF."""
    heads: dict[bytes, bytes] = {}
    samples: dict[bytes, list[bytes]] = {}
    for place in places:
        left = dict(place.kept)
        for block in blocks(place.scrape):
            if block.name in OWN_LABELS:
                continue
            kept = left.pop(_counted(block, openmetrics), None)
            block = block if kept is None else added(block, kept)
            heads.setdefault(block.name, block.head)
            samples.setdefault(block.name, []).append(labelled(block, place.labels, openmetrics))
        for name, kept in left.items():  # nobody has the place, or the family is none of the new worker's
            block = _block_of_the_dead(name, kept, openmetrics)
            heads.setdefault(block.name, block.head)
            samples.setdefault(block.name, []).append(labelled(block, place.labels, openmetrics))
    text = b"".join(
        b"".join((b"# TYPE ", head, *samples[name], b"\n")) for name, head in heads.items() if any(samples[name])
    )
    return text + own + (b"# EOF\n" if openmetrics else b"")


def _counted(block: Block, openmetrics: bool) -> bytes:
    """The family's name in the format 0.0.4, by which it is kept."""
    return block.name + b"_total" if openmetrics and block.kind == b"counter" else block.name


def _block_of_the_dead(name: bytes, kept: dict[bytes, Number], openmetrics: bool) -> Block:
    counter = name.endswith(b"_total")
    kind = b"counter" if counter else b"histogram"
    shown = name.removesuffix(b"_total") if openmetrics and counter else name
    head = shown + b" " + kind + b"\n# HELP " + shown + b" Of workers that are gone."
    return added(Block(shown, kind, head, b""), kept)


def label(value: str) -> bytes:
    """The inside of a label value. Control characters are none: names are shown clean by who gives them."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode("utf-8", "replace")


def family(name: str, kind: str, text: str, samples: Iterable[tuple[bytes, Number]], openmetrics: bool) -> bytes:
    """A block of the hub's own; each sample is its labels and its number."""
    if openmetrics:
        base = name.removesuffix("_total") if kind == "counter" else name.removesuffix("_info")
    else:
        base, kind = name, "gauge" if kind == "info" else kind
    unit = next((word for word in ("seconds",) if openmetrics and base.endswith("_" + word)), None)
    lines = [f"# TYPE {base} {kind}", *([f"# UNIT {base} {unit}"] if unit else []), f"# HELP {base} {text}"]
    shown = [
        name.encode() + (b"{" + labels + b"} " if labels else b" ") + _text(value) + b"\n" for labels, value in samples
    ]
    return "".join(line + "\n" for line in lines).encode() + b"".join(shown)
