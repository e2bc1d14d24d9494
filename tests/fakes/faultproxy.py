"""An HTTP proxy in front of a real server that does to chosen requests what networks and services do.

It speaks for one upstream, over HTTP or TLS, and leaves the ``Host`` header alone, so that signatures hold. A fault is
chosen by method, text of the URL and ordinal; every request is remembered.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

_HOP = ("connection", "transfer-encoding", "keep-alive", "proxy-connection")


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """One answer as it goes."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Fault:
    """What is done to a request.

    ``status`` answers without asking upstream; ``lost`` asks upstream and resets instead of answering; ``reset``
    resets before asking; ``cut`` sends so many bytes of the body and resets; ``flip_up`` and ``flip_down`` change one
    bit of a body; ``body`` replaces an answer's body; ``delay`` waits first; ``stale`` gives an older answer again.
    """

    status: int | None = None
    code: str = ""
    lost: bool = False
    reset: bool = False
    cut: int | None = None
    flip_up: bool = False
    flip_down: bool = False
    body: bytes | None = None
    delay: float = 0
    stale: Answer | None = None


@dataclass
class Rule:
    """Which requests meet a fault: the first ``skip`` that fit are spared, then ``times`` are hit."""

    method: str
    contains: str
    fault: Fault
    times: int = 1
    skip: int = 0
    lacks: str = ""
    header: str = ""
    hits: int = 0

    def takes(self, request: Request) -> bool:
        """Say whether this request is hit, and count it."""
        fits = request.method in self.method.split("|") and self.contains in request.url
        if self.lacks and self.lacks in request.url:
            return False
        if self.header and self.header not in str(request.headers):
            return False
        if fits and self.skip:
            self.skip -= 1
            return False
        if fits and self.hits < self.times:
            self.hits += 1
            return True
        return False


@dataclass
class FaultProxy:
    """A running proxy."""

    upstream: str
    port: int = 0
    scheme: str = "http"
    rewrite: Callable[[Request], Request] = field(default=lambda request: request)
    """What upstream is asked in place of what came."""
    rules: list[Rule] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """Give its address, with the path of the upstream's."""
        return f"{self.scheme}://127.0.0.1:{self.port}{urlsplit(self.upstream).path}"

    def fail(self, method: str, contains: str, fault: Fault, **more: object) -> Rule:
        """Add a rule."""
        rule = Rule(method, contains, fault, **more)  # type: ignore[arg-type]
        self.rules.append(rule)
        return rule

    def fault_of(self, request: Request) -> Fault:
        """Choose what happens to a request."""
        return next((rule.fault for rule in self.rules if rule.takes(request)), Fault())

    def forward(self, request: Request) -> Answer:
        """Ask upstream; addresses in the answer lead through here again."""
        target = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        try:
            asked = self.rewrite(request)
            connection.request(asked.method, asked.url, body=asked.body, headers=asked.headers)
            found = connection.getresponse()
            body = found.read()
            own = f"{self.scheme}://127.0.0.1:{self.port}"
            upstream = f"{target.scheme}://{target.netloc}"
            told = [
                (name, value.replace(upstream, own))
                for name, value in found.getheaders()
                if name.lower() not in _HOP
            ]
            return Answer(found.status, told, body)
        finally:
            connection.close()


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def handle_expect_100(self) -> bool:
            self.send_response_only(100)
            self.end_headers()
            return True

        def serve(self) -> None:
            request = Request(self.command, self.path, self._headers(), self._body())
            with lock:
                fault = proxy.fault_of(request)
                proxy.seen.append(request)
            time.sleep(fault.delay)
            if fault.reset:
                self._reset()
            elif fault.status is not None:
                self._answer(request, _refusal(fault), fault)
            else:
                self._pass(request, fault)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve  # noqa: N815

        def _pass(self, request: Request, fault: Fault) -> None:
            body = _flipped(request.body) if fault.flip_up else request.body
            answer = fault.stale or proxy.forward(Request(request.method, request.url, request.headers, body))
            proxy.answers.append(answer)
            if fault.lost:
                self._reset()
                return
            if fault.flip_down:
                answer = Answer(answer.status, answer.headers, _flipped(answer.body))
            if fault.body is not None:
                answer = Answer(answer.status, answer.headers, fault.body)
            self._answer(request, answer, fault)

        def _answer(self, request: Request, answer: Answer, fault: Fault) -> None:
            self.send_response_only(answer.status)
            length = len(answer.body)
            for name, value in answer.headers:
                if name.lower() != "content-length":
                    self.send_header(name, value)
                elif request.method == "HEAD":
                    length = int(value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if request.method != "HEAD":
                self.wfile.write(answer.body[: fault.cut])
            if fault.cut is not None:
                self._reset()

        def _headers(self) -> dict[str, str]:
            return {
                name: value for name, value in self.headers.items() if name.lower() not in (*_HOP, "expect")
            }

        def _body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                return b"".join(self._chunks())
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def _reset(self) -> None:
            """End the connection by RST, not by a polite end."""
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

    return Handler


def _refusal(fault: Fault) -> Answer:
    """Give an answer in the words of each of the services: they look only at their own."""
    code = fault.code or "Refused"
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told by the fault proxy</Message></Error>"
    )
    headers = [("Content-Type", "application/xml"), ("x-ms-error-code", code)]
    return Answer(fault.status or 500, headers, body.encode() if fault.body is None else fault.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections are reset on purpose here."""


@contextmanager
def fault_proxy(upstream: str, certificate: tuple[Path, Path] | None = None) -> Iterator[FaultProxy]:
    """Run a proxy in front of a server; with a certificate and its key by TLS."""
    proxy = FaultProxy(upstream, scheme="https" if certificate else "http")
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    proxy.port = server.server_address[1]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
