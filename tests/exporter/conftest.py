"""Fixtures of the exporter's tests: each service is ended in good order, and must have lived until then."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .service import Service


@pytest.fixture
def start() -> Iterator[Callable[..., Service]]:
    """Starts services with the options given; all of them must end with status 0."""
    services: list[Service] = []

    def make(**options: object) -> Service:
        service = Service(**options)
        services.append(service)
        assert service.hello[:1] == ["ok"], service.hello
        return service

    yield make
    assert [service.close() for service in services] == [0] * len(services)


@pytest.fixture
def service(start: Callable[..., Service]) -> Service:
    """A service with default options."""
    return start()
