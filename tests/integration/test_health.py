"""Health and metrics over HTTP, on the addresses that `[http] listen` takes."""

import http.client
import socket

import pytest

from spoold.daemon.observe import watching
from spoold.health import HealthServer
from spoold.intake.settings import IntakeMetrics, WatchMode
from spoold.metrics import Metrics


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param("::1", marks=pytest.mark.skipif(not _has_ipv6(), reason="without IPv6")),
    ],
)
def test_it_answers_on_both_kinds_of_addresses(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(socket, "getfqdn", lambda name="": asked.append(name) or name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
    server = HealthServer((host, port), Metrics(list), list)
    server.start()
    try:
        connection = http.client.HTTPConnection(host, port, timeout=10)
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b"alive\n"
        connection.close()
    finally:
        server.stop()
    assert asked == []  # a name server that is away would hold up the start


def test_polling_that_nobody_asked_for_is_told_from_polling_that_somebody_did() -> None:
    intake = IntakeMetrics(mode=WatchMode.POLLING, mode_reason="it is why", scan_seconds=0.5)
    assert watching(intake, asked=True) == "polling: it is why; a look takes 0.500 s"
    told = watching(intake, asked=False)
    assert told == "polling instead of events: it is why; a look takes 0.500 s"
    assert watching(IntakeMetrics(), asked=False) == "not yet"
