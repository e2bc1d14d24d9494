"""A server that says it is PostgreSQL 99: as much of the protocol as a client needs to hear that."""

from __future__ import annotations

import socket
import sys


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


READY = _message(b"Z", b"I")
COLUMN = b"answer\0" + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff" + b"\xff\xff\xff\xff" + bytes(2)
VALUE = b'{"number": 990001}'
ROW = (1).to_bytes(2, "big") + len(VALUE).to_bytes(4, "big") + VALUE
ANSWER = (
    _message(b"T", (1).to_bytes(2, "big") + COLUMN)
    + _message(b"D", ROW)
    + _message(b"C", b"SELECT 1\0")
    + READY
)
WELCOME = (
    _message(b"R", bytes(4))
    + _message(b"S", b"server_version\x0099.1\0")
    + _message(b"S", b"client_encoding\0UTF8\0")
    + READY
)


def serve(listener: socket.socket) -> None:
    """Answer every question alike, until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(WELCOME)
            while (asked := connection.recv(65536)) and not asked.startswith(b"X"):
                connection.sendall(ANSWER)


if __name__ == "__main__":
    serve(socket.create_server(("0.0.0.0", int(sys.argv[1]))))
