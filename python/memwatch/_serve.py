"""The handle of an exporter that serves a watcher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Optional, TypedDict, Union

from memwatch import _check
from memwatch._native import core, exporter


class ServeOptions(TypedDict, total=False):
    """The options of `MemoryWatcher.serve()`, all by name."""

    unix_socket: Optional[str]  # listen on this socket file, mode 0600, in place of a port
    token: Optional[str]  # 32 to 128 of A-Z a-z 0-9 _ -; random by default
    metrics_need_token: bool  # /metrics asks for the token also on this machine
    metrics_open: bool  # all of /metrics for whoever reaches the port
    metrics_users: Union[str, Iterable[object], None]  # users of this machine who see values in /metrics
    tls_cert_file: Optional[str]  # PEM; with tls_key_file
    tls_key_file: Optional[str]  # its key, PEM
    insecure: bool  # other addresses than loopback without TLS
    allowed_host: Optional[str]  # further names for the Host header, with commas between
    connection_limit: int  # connections at once, 128 by default
    feed_limit: int  # of them streaming or waiting, 32 by default
    variable_limit: int  # variables with a label of their own in /metrics, 100 by default
    heartbeat_ms: int  # a stream's sign of life, 15,000 by default
    runtime_dir: Optional[str]  # where the discovery file goes; "": nowhere
    service: Optional[str]  # names the process wherever it is shown; MEMWATCH_SERVICE
    worker: Optional[str]  # and its worker; MEMWATCH_WORKER
    labels: Union[str, Mapping[str, object], None]  # "zone=eu,tier=web"; MEMWATCH_LABELS
    sigterm: bool  # SIGTERM delivers, closes and cleans up first


OPTIONS = frozenset(ServeOptions.__annotations__)


def _labels(labels: Mapping[str, object]) -> str:
    for name, value in labels.items():
        if not isinstance(name, str) or "," in str(value):
            raise ValueError(f"labels: {name!r}: {value!r}: names are strings, and values hold no comma")
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _install_sigterm() -> None:
    from memwatch import _sigterm  # here, because few programs need it

    _sigterm.install()


class Server:
    """A running exporter: `/metrics`, the JSON feeds and the live page. A context manager."""

    def __init__(self, watcher: core.Watcher, host: str, port: Optional[int], options: dict[str, Any]) -> None:
        _check.port(port)
        unknown = set(options) - OPTIONS
        if unknown:
            raise TypeError(f"serve() has no option {sorted(unknown)[0]!r}; it has {', '.join(sorted(OPTIONS))}")
        users = options.get("metrics_users")
        if users is not None and not isinstance(users, str):
            options["metrics_users"] = ",".join(str(user) for user in users)
        self._closed = False
        self._sigterm = bool(options.pop("sigterm", False))
        if self._sigterm:
            _install_sigterm()
        if isinstance(options.get("labels"), Mapping):
            options["labels"] = _labels(options["labels"])
        self._options = {"host": host, "port": port, "port_exact": port is not None, **options}
        self._exporter = exporter()(watcher, **self._options)

    def _follow(self, watcher: core.Watcher, pid: int) -> None:
        """In a forked child: serves its watcher, at an address of its own. The token is as it was asked for."""
        options = dict(self._options)
        if options.get("unix_socket"):
            options["unix_socket"] = f"{options['unix_socket']}.{pid}"
        elif options["port"]:
            options["port"] = 0
        if self._sigterm:
            _install_sigterm()
        self._exporter = exporter()(watcher, **options)

    @property
    def url(self) -> str:
        """The live page, for one browser, once: it ends in a code, good for an hour. Each time a new one."""
        return self._exporter.url

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._exporter.port

    @property
    def token(self) -> str:
        """What all but `/metrics` and health ask for. `/metrics` shows it what the variables hold."""
        return self._exporter.token

    @property
    def discovery_file(self) -> Optional[str]:
        """The file by which tools of the same user find it; None when it could not be written, or was not wanted."""
        return self._exporter.discovery_file or None

    def close(self) -> None:
        """Stops serving. Twice is allowed."""
        self._closed = True
        self._exporter.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self._options.get("unix_socket") or f"port {self.port}"
        return f"<memwatch.Server {where}, {'closed' if self._closed else 'serving'}>"
