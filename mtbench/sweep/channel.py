"""Messages between the runner and a worker: JSON over a socket pair of their own, so that whatever a backend
prints goes to the worker's log and disturbs nothing."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Channel"]


class Channel:
    """One end."""

    def __init__(self, handle: int) -> None:
        self._connection = Connection(handle)

    def send(self, message: dict[str, Any]) -> None:
        """Raises OSError where the other end is gone."""
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """The next message; blocks. Raises EOFError or OSError where the other end is gone."""
        message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return message

    def waiting(self, seconds: float) -> bool:
        """Whether a message, or the end, comes within so many seconds."""
        return self._connection.poll(seconds)

    def close(self) -> None:
        """The other end sees the end."""
        self._connection.close()
