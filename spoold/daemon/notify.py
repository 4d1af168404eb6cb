"""sd_notify(3): tell systemd how the service stands."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send one state, such as `READY=1`; nothing happens where no service manager listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket, unix(7)
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
