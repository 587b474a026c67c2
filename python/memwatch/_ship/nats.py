"""NATS JetStream: each record a message, whose Nats-Msg-Id lets the server drop what it has already.

DESIGN  nats-py, an extra (`pip install memwatch[nats]`), on an event loop in a thread of its own. A message counts as
delivered when the stream has acknowledged it. Up to WINDOW messages wait for that at a time; who waits in vain is sent
again with the same id. When the connection ends all that waits fails and is sent again on another one. Within the
stream's duplicate window (two minutes by default) the server drops what came twice; after longer outages the id tells.
What is larger than server or stream take is refused for good, and holds up nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
from typing import Any, Optional

from memwatch._ship.numbers import Numbers
from memwatch._ship.record import Origin, Record
from memwatch._ship.retry import Stopped, Waiting
from memwatch._ship.sink import Say

WINDOW, ACK_S, CONNECT_S = 256, 5.0, 5.0
TOO_LARGE = 10054  # JetStream's error code: the stream's max_msg_size
HEADER = "Nats-Msg-Id"
HEADER_BYTES = len(f"NATS/1.0\r\n{HEADER}: \r\n\r\n")


class TooLarge(Exception):
    """More than the server takes in one message."""


def _check_credentials(path: str) -> None:
    """Before the first try: what is missing here is missing for ever."""
    with open(path, "rb"):
        pass
    if importlib.util.find_spec("nkeys") is None:
        raise ValueError("--nats-creds needs nkeys: pip install nkeys")


class Nats:
    """One server, or several of a cluster with commas between."""

    def __init__(self, url: str, subject: str, credentials: Optional[str], numbers: Numbers, say: Say) -> None:
        try:
            import nats
        except ImportError:
            raise ValueError("NATS needs nats-py: pip install memwatch[nats]") from None
        if credentials is not None:
            _check_credentials(credentials)
        self._nats: Any = nats
        self._servers = [each if "://" in each else f"nats://{each}" for each in url.split(",")]
        self._subject, self._credentials = subject, credentials
        self._numbers, self._say = numbers, say
        self._client: Any = None
        self._loop = asyncio.new_event_loop()
        self._connecting = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="memwatch-ship-nats", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the connection and the thread."""
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(CONNECT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONNECT_S)
        if not self._loop.is_running():
            self._loop.close()

    def send(self, origin: Origin, records: list[Record], stop: threading.Event, give_up_s: Optional[float]) -> None:
        """Publishes them and waits for the stream's word on each."""
        messages = [(record.id, record.line(origin)) for record in records]
        waiting = Waiting(stop, give_up_s)
        while True:
            future = asyncio.run_coroutine_threadsafe(self._publish(messages), self._loop)
            while not _done(future):
                if stop.is_set():
                    future.cancel()
                    raise Stopped
            messages, sentence, reason = future.result()
            if not messages:
                return
            self._numbers.failed(reason, sentence)
            self._numbers.add("retries")
            self._say(sentence)
            waiting.pause(sentence)

    # --- on the loop ---

    async def _publish(self, messages: list[tuple[str, bytes]]) -> tuple[list[tuple[str, bytes]], str, str]:
        """What has to be sent again, why, and what kind of failure that was."""
        try:
            stream = await self._stream()
        except Exception as error:
            return messages, f"{self._place} cannot be reached: {_said(error)}", "unreachable"
        left: list[tuple[str, bytes]] = []
        sentence = ""
        for first in range(0, len(messages), WINDOW):
            window = messages[first : first + WINDOW]
            results = await asyncio.gather(*(self._one(stream, *each) for each in window), return_exceptions=True)
            failed = [(each, result) for each, result in zip(window, results) if isinstance(result, BaseException)]
            failed = [(each, error) for each, error in failed if not self._is_refused(each[0], error)]
            left += [each for each, _ in failed]
            sentence = f"{self._place}: {_said(failed[0][1])}" if failed and not sentence else sentence
            if failed:
                left += messages[first + WINDOW :]
                break
        if left and (self._client is None or not self._client.is_connected):
            await self._disconnect()
            return left, sentence, "unreachable"
        return left, sentence, "answer"

    async def _one(self, stream: Any, id: str, line: bytes) -> None:
        size, most = HEADER_BYTES + len(id) + len(line), self._client.max_payload
        if size > most:  # the server would end the connection
            raise TooLarge(f"{size} bytes with its header, and the server takes {most}")
        await stream.publish(self._subject, line, timeout=ACK_S, headers={HEADER: id})

    def _is_refused(self, id: str, error: BaseException) -> bool:
        """Counts what is refused for good."""
        if not isinstance(error, TooLarge) and getattr(error, "err_code", None) != TOO_LARGE:
            return False
        sentence = f"{self._place}: record {id} is too large: {_said(error)}"
        self._numbers.failed("refused", sentence)
        self._numbers.add("rejected_events")
        self._say(f"{sentence}; it is not sent again")
        return True

    async def _stream(self) -> Any:
        async with self._connecting:
            if self._client is None or not self._client.is_connected:
                await self._disconnect()
                options: dict[str, Any] = {"user_credentials": self._credentials} if self._credentials else {}
                self._client = await asyncio.wait_for(
                    self._nats.connect(
                        self._servers,
                        name="memwatch ship",
                        allow_reconnect=False,
                        connect_timeout=CONNECT_S,
                        error_cb=_ignore,
                        **options,
                    ),
                    2 * CONNECT_S,
                )
            return self._client.jetstream(timeout=ACK_S)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), CONNECT_S)

    @property
    def _place(self) -> str:
        return ", ".join(each.rpartition("@")[2] if "@" in each else each for each in self._servers)


def _done(future: Any) -> bool:
    try:
        future.exception(timeout=0.2)
    except TimeoutError:
        return bool(future.done())
    return True


async def _ignore(error: Exception) -> None:
    """What goes wrong is seen by who waits for an acknowledgement."""


def _said(error: BaseException) -> str:
    kind = type(error).__name__
    if kind == "NoStreamResponseError":
        return "no stream takes that subject: nats stream add, or --subject"
    return str(error).strip() or kind
