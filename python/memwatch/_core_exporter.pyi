"""The typed surface of the exporter's extension module."""

from typing import Optional, final

from memwatch._core import Watcher

@final
class Exporter:
    """Serves a watcher. Options as in struct memwatch_exporter_options; None takes its default."""

    def __init__(
        self,
        watcher: Watcher,
        *,
        host: Optional[str] = None,
        port: Optional[int] = None,
        unix_socket: Optional[str] = None,
        token: Optional[str] = None,
        metrics_need_token: bool = False,
        tls_cert_file: Optional[str] = None,
        tls_key_file: Optional[str] = None,
        insecure: bool = False,
        connection_limit: Optional[int] = None,
        feed_limit: Optional[int] = None,
        variable_limit: Optional[int] = None,
        heartbeat_ms: Optional[int] = None,
        allowed_host: Optional[str] = None,
        runtime_dir: Optional[str] = None,
        service: Optional[str] = None,
        worker: Optional[str] = None,
        labels: Optional[str] = None,
        port_exact: bool = False,
        metrics_open: bool = False,
        metrics_users: Optional[str] = None,
    ) -> None: ...
    @property
    def url(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def token(self) -> str: ...
    @property
    def discovery_file(self) -> str: ...
    def close(self) -> None: ...
