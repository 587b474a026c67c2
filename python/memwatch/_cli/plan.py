"""What to watch in a program that was not written for it: from arguments and a TOML file to one plan.

DESIGN  A plan is plain data, so that it can be handed to another process as JSON. All of it is checked where it is
typed: what the program's own process finds out later can only be said, not refused. Errors of a file name file and
line.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, NoReturn, Optional

from memwatch import _config
from memwatch._check import port as check_port
from memwatch._cli import arguments
from memwatch._cli.frame import Failure

PARTS = ("watcher", "exporter", "variables")
#: The options of an entry of `variables`, as watch_attr() takes them, and what each has to be.
OPTIONS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "values": ((str,), 'one of "full", "preview", "hash", "none"'),
    "when": ((str, list), 'a condition, such as "changed" or ["outside", 0, 100]'),
    "max_rate": ((int, float), "events a second, 0 for no limit"),
    "metric": ((bool,), "true or false"),
    "deep": ((bool,), "true or false"),
    "track": ((str,), '"value" or "binding"'),
    "stack_depth": ((int,), "a number of frames"),
}
_VALUES = ("full", "preview", "hash", "none")
_CONDITIONS = {"changed": 0, "any_nan": 0, "outside": 2, "inside": 2, "delta_gt": 1}
_CONDITIONS |= dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), 1)
_SERVE = {"port": int, "connection_limit": int, "feed_limit": int, "variable_limit": int, "heartbeat_ms": int}
_SERVE_FLAGS = ("metrics_need_token", "metrics_open", "insecure", "sigterm")

_HEADER = re.compile(r"\s*\[\[?\s*([\w.\-\"']+)\s*\]\]?\s*(?:#.*)?$")
_ASSIGNED = re.compile(r"\s*[\"']?([\w\-]+)[\"']?\s*=")
_KINDS = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "a table"}


def split(text: str) -> tuple[str, str]:
    """MODULE:VARIABLE; ValueError when it is not."""
    module, colon, variable = text.partition(":")
    parts = [*module.split("."), *variable.split(".")]
    if not colon or not all(re.fullmatch(r"[\w*?\[\]!-]+", part) for part in parts):
        dotted, _, last = text.rpartition(".")
        meant = f": did you mean {dotted}:{last}?" if dotted and not colon else ", such as app.settings:limit or app:*"
        raise ValueError(f"{text!r} is not MODULE:VARIABLE{meant}")
    return module, variable


def empty() -> dict[str, Any]:
    """A plan that watches nothing."""
    return {"watcher": {}, "exporter": {}, "variables": []}


# --- files ------------------------------------------------------------------------------------------------------------


class File:
    """A TOML file whose mistakes are told with their line."""

    def __init__(self, path: str) -> None:
        import tomllib  # here, because most command lines name no file

        self.path = path
        try:
            with open(path, "rb") as file:
                self._text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            raise Failure(f"{path}:1: this is no text in UTF-8") from None
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None
        try:
            self.content = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            sentence = str(error)
            place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", sentence)
            line = (place and place[1]) or self._text.count("\n") + 1
            raise Failure(f"{path}:{line}: {sentence[: place.start()] if place else sentence}") from None
        except (ValueError, RecursionError) as error:  # a number without end, brackets without end
            raise Failure(f"{path}:1: this cannot be read: {error}") from None

    def wrong(self, sentence: str, table: str, number: int = 0, key: Optional[str] = None) -> NoReturn:
        """Ends with the line of a key, or of its table (the `number`th of that name)."""
        raise Failure(f"{self.path}:{self._line(table, number, key)}: {sentence}")

    def _line(self, table: str, number: int, key: Optional[str]) -> int:
        current, seen, found = "", -1, 1
        for at, line in enumerate(self._text.splitlines(), 1):
            header = _HEADER.match(line)
            if header:
                current = header[1].strip("\"'")
                seen += current == table
                if current == table and seen == number:
                    found = at
            assigned = _ASSIGNED.match(line)
            if assigned is None or key is None or assigned[1] != key:
                continue
            if (current == table and seen == number) or not table:
                return at
        return found


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date or a time")


def _watcher_options(file: File, table: Any) -> dict[str, Any]:
    options = {}
    for key, value in table.items():
        try:
            options[key] = _config.checked(key, value)
        except KeyError:
            file.wrong(f"[watcher] has no {key!r}; it has {', '.join(_config.OPTIONS)}", "watcher", key=key)
        except ValueError as error:
            file.wrong(f"{key}: {error}", "watcher", key=key)
    return options


def _exporter_options(file: File, table: Any) -> dict[str, Any]:
    from memwatch._serve import OPTIONS as KNOWN

    known = {*KNOWN, "host", "port", "serve"}
    for key, value in table.items():
        if key not in known:
            file.wrong(f"[exporter] has no {key!r}; it has {', '.join(sorted(known))}", "exporter", key=key)
        wanted: Any = bool if key in _SERVE_FLAGS or key == "serve" else _SERVE.get(key, str)
        if key == "labels":
            wanted = (str, dict)
        if key == "metrics_users":
            wanted = (str, list)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            file.wrong(f"{key}: {_kind(value)} is not what it takes", "exporter", key=key)
        if key == "port":
            _refuse_port(file, value)
        elif wanted is int and value < 0:
            file.wrong(f"{key}: it is not below 0", "exporter", key=key)
    return dict(table)


def _refuse_port(file: File, value: Any) -> None:
    try:
        check_port(value)
    except ValueError as error:
        file.wrong(str(error), "exporter", key="port")


def _when(value: Any) -> Any:
    name, numbers = (value, []) if isinstance(value, str) else (value[0] if value else "", value[1:])
    if name not in _CONDITIONS or len(numbers) != _CONDITIONS[name]:
        raise ValueError(f'there are {", ".join(_CONDITIONS)}, with their numbers, such as ["outside", 0, 100]')
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers):
        raise ValueError("the bounds are numbers")
    return value


def _variable(file: File, number: int, entry: Any) -> dict[str, Any]:
    """One entry of `variables`."""

    def wrong(sentence: str, key: Optional[str] = None) -> NoReturn:
        file.wrong(sentence, "variables", number, key)

    if "watch" not in entry:
        wrong('an entry of variables says what to watch: watch = "app.settings:limit"')
    for key, value in entry.items():
        if key in ("watch", "exclude"):
            texts = value if isinstance(value, list) else [value]
            if not texts or not all(isinstance(text, str) for text in texts):
                wrong(f"{key}: a text or a list of texts", key)
            continue
        if key not in OPTIONS:
            wrong(f"a variable has no {key!r}; it has watch, exclude, {', '.join(OPTIONS)}", key)
        kinds, what = OPTIONS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wrong(f"{key}: {what}, not {_kind(value)}", key)
        try:
            _check(key, value, what)
        except ValueError as error:
            wrong(f"{key}: {error}", key)
    watch = entry["watch"] if isinstance(entry["watch"], list) else [entry["watch"]]
    exclude = entry.get("exclude", [])
    options = {key: value for key, value in entry.items() if key in OPTIONS}
    try:
        names = [split(text) for text in watch]
    except ValueError as error:
        wrong(str(error), "watch")
    return {"watch": names, "exclude": exclude if isinstance(exclude, list) else [exclude], "options": options}


def _check(key: str, value: Any, what: str) -> None:
    if key == "when":
        _when(value)
    elif (key == "values" and value not in _VALUES) or (key == "track" and value not in ("value", "binding")):
        raise ValueError(f"{what}, not {value!r}")
    elif key in ("max_rate", "stack_depth") and value < 0:
        raise ValueError(f"{what}, not {value}")


def read(path: str) -> dict[str, Any]:
    """The plan that a file says."""
    file = File(path)
    plan = empty()
    for key, value in file.content.items():
        if key not in PARTS:
            file.wrong(f"there is no {key!r}; there are [watcher], [exporter] and [[variables]]", key, key=None)
        if key == "variables":
            if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
                file.wrong("variables are a list of tables: [[variables]], each with its watch =", key)
            plan[key] = [_variable(file, number, entry) for number, entry in enumerate(value)]
        elif not isinstance(value, dict):
            file.wrong(f"{key} is a table: [{key}]", "", key=key)
        else:
            plan[key] = (_watcher_options if key == "watcher" else _exporter_options)(file, value)
    return plan


# --- arguments --------------------------------------------------------------------------------------------------------


def add_arguments(parser: Any) -> None:
    """The options by which a command is told what to watch."""
    parser.add_argument(
        "--watch", action="append", default=[], metavar="MODULE:VAR", help="watch this variable; globs; repeatable"
    )
    parser.add_argument("--all", action="append", default=[], metavar="MODULE", help="watch all variables of it")
    parser.add_argument("--config", metavar="FILE", help="a TOML file: variables, policies, exporter, budgets")
    parser.add_argument("--port", type=arguments.port, metavar="N", help="of the exporter (10764, or a free one)")
    parser.add_argument("--service", metavar="NAME", help="how the process is called in ps, metrics and on the page")
    parser.add_argument("--record", metavar="FILE", help="keep events and values in a recording")
    parser.add_argument("--no-serve", action="store_true", help="start no exporter")


def made(options: Any) -> dict[str, Any]:
    """The plan that was typed."""
    plan = read(options.config) if options.config else empty()
    for text in options.watch:
        for each in text.split(","):
            try:
                plan["variables"].append({"watch": [split(each)], "exclude": [], "options": {}})
            except ValueError as error:
                options.parser.error(f"--watch {error}")
    for module in options.all:
        if not re.fullmatch(r"[\w.*?]+", module):
            options.parser.error(f"--all {module!r} is not a module's name, such as app.settings")
        plan["variables"].append({"watch": [(module, "*")], "exclude": [], "options": {}})
    if not plan["variables"]:
        options.parser.error("nothing to watch: --watch MODULE:VAR, --all MODULE, or --config FILE with [[variables]]")
    if options.port is not None:
        plan["exporter"]["port"] = options.port
    if options.service is not None:
        plan["exporter"]["service"] = options.service
    if options.record is not None:
        plan["watcher"]["history_path"] = options.record
    if options.no_serve:
        plan["exporter"]["serve"] = False
    return plan
