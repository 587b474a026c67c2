"""Who is answered: the rules of an exporter (docs/http.md), in the hub's words."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import socket
import time
from typing import Optional

CODE_S = 3600.0
CODES = 8
TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")
PROXY = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
OVERFLOW_UID = 65534
_TCP_TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}


class Refusal(Exception):
    """A status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Headers(dict[str, list[str]]):
    """By name in small letters, as often as each came."""

    def one(self, name: str) -> Optional[str]:
        """The first."""
        return self.get(name, [None])[0]


class Access:
    """What this hub lets through."""

    def __init__(
        self, host: str, *, token: str, local: bool, tls: bool, allowed: list[str], users: list[str], need_token: bool
    ) -> None:
        self.token = token
        self.local = local
        self.port = 0
        self._host, self._tls, self._need_token = host, tls, need_token
        self._allowed = allowed
        self._uids = {0, os.geteuid(), *(_uid(user) for user in users)}
        self._codes: dict[str, float] = {}

    # --- codes --------------------------------------------------------------------------------------------------------

    def new_code(self) -> str:
        """Good once, for an hour."""
        code = secrets.token_hex(16)
        self._codes[code] = time.monotonic() + CODE_S
        for oldest in list(self._codes)[:-CODES]:
            del self._codes[oldest]
        return code

    def takes_code(self, headers: Headers) -> bool:
        """Whether it brings a code that is good; it is not any more."""
        kind, _, code = (headers.one("authorization") or "").partition(" ")
        if kind.lower() != "memwatch-code" or len(headers["authorization"]) != 1:
            return False
        known = next((each for each in self._codes if _same(each, code.strip())), None)
        return known is not None and self._codes.pop(known) > time.monotonic()

    # --- checks -------------------------------------------------------------------------------------------------------

    def check(self, headers: Headers, navigable: bool) -> None:
        """Raises `Refusal` for what no page of another site, and no name that was pointed here, may ask."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not hosts[0]:
            raise Refusal(400, "A request needs exactly one Host header, and not an empty one.")
        if not self._names_us(hosts[0].lower()):
            raise Refusal(421, "This hub does not answer to that Host: use localhost or --allowed-host.")
        self.check_site(headers, navigable)

    def check_site(self, headers: Headers, navigable: bool) -> None:
        """The part of it that health has, too, which is asked by any address."""
        origins, scheme = headers.get("origin", []), "https://" if self._tls else "http://"
        host = (headers.one("host") or "").lower()
        if len(origins) > 1 or (origins and origins[0].lower() != scheme + host):
            raise Refusal(403, "Requests of other origins are refused.")
        site = headers.one("sec-fetch-site")
        if site not in (None, "same-origin", "none") and not (
            navigable and headers.one("sec-fetch-mode") == "navigate"
        ):
            raise Refusal(403, "Requests of other sites are refused.")

    def _names_us(self, host: str) -> bool:
        own = ("localhost", "127.0.0.1", "[::1]", self._host.lower())
        usual = 443 if self._tls else 80
        for name in (*own, *self._allowed):
            if host == f"{name}:{self.port}" or (host == name and (self.port == usual or name in self._allowed)):
                return True
        return False

    def has_token(self, headers: Headers) -> bool:
        """Whether it brings the token."""
        given = headers.get("authorization", [])
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return kind.lower() == "bearer" and _same(self.token, token.strip())

    def may_scrape(self, headers: Headers, peer: socket.socket) -> Optional[bool]:
        """Whether it may have /metrics, and with what variables hold; None: it may not."""
        if self.has_token(headers):
            return True
        if self._need_token or not self.local:
            return None
        if any(name in headers for name in PROXY):
            return False
        return peer_uid(peer) in self._uids


def _same(secret: str, given: str) -> bool:
    return hmac.compare_digest(secret.encode(), given.encode())


def _uid(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        import pwd  # Windows has none, and the command line imports this

        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"--metrics-users: there is no user {user!r} on this machine") from None


def peer_uid(peer: socket.socket) -> Optional[int]:
    """Whose process is at the other end of a connection over loopback; None where that is not certain."""
    try:
        theirs, ours = _in_table(peer.getpeername()), _in_table(peer.getsockname())
        with open(_TCP_TABLES[peer.family], encoding="ascii") as table:
            for line in table:
                fields = line.split()
                if fields[1] == theirs and fields[2] == ours:
                    uid = int(fields[7])
                    return None if fields[9] == "0" or uid == OVERFLOW_UID else uid
    except (OSError, ValueError, IndexError, KeyError):
        return None
    return None


def _in_table(address: tuple[str, int]) -> str:
    """As the kernel prints it: words of the machine's own order, in hexadecimal."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    packed = socket.inet_pton(family, address[0])
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, 'little'):08X}" for word in words) + f":{address[1]:04X}"
