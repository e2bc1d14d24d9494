"""A TCP proxy in front of a real server that cuts a connection in the middle of what the server says."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER of nothing: closing resets the connection."""


class TcpProxy:
    """Forwards connections to a port of this machine; ``cut_after`` bytes from the server one of them is reset, and no more after it."""

    def __init__(self, upstream: int) -> None:
        self.cut_after: int | None = None
        self.cut_for_good = False
        """Whether nobody gets through any more after that."""
        self.most = 0
        """How many bytes the server said in the longest connection."""
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Take connections until the proxy is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        said = 0
        with suppress(OSError):
            while data := server.recv(4096):
                said += len(data)
                if self._is_cut(said):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                    break
                client.sendall(data)
        self.most = max(self.most, said)
        for each in (client, server):
            # The other thread may be reading it: only a shutdown wakes that up.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RD)
            each.close()

    def _is_cut(self, said: int) -> bool:
        with self._lock:
            if self.cut_after is None or said < self.cut_after:
                return False
            self.cut_after = None
            if self.cut_for_good:
                self.close()
            return True


@contextmanager
def tcp_proxy(upstream: int) -> Iterator[TcpProxy]:
    """Run a proxy in front of a port."""
    proxy = TcpProxy(upstream)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)
