"""A real SMTP server with TLS and login, and servers that misbehave; what arrives is kept to be read back."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from avalanche_contract.base import Credential
from avalanche_contract.notification import EmailChannel
from tests.fakes.certificates import certificate

USER, PASSWORD = "backup", "mail-canary pa$$:word"
ENV_PASSWORD = "TEST_SMTP_PASSWORD"


@dataclass
class Mail:
    """A running server, and what it took."""

    port: int
    ca_file: Path | None = None
    received: list[tuple[str, list[str], EmailMessage]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refuse_recipients: bool = False

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        """Take a recipient, or not."""
        del server, session, options
        if self.refuse_recipients:
            return f"550 no such user {address}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Keep a mail."""
        del server, session
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.received.append((envelope.mail_from, envelope.rcpt_tos, message))
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """Let the one user in."""
        del server, session, envelope, mechanism
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=good, handled=False)

    def channel(self, **more: Any) -> EmailChannel:
        """Give the channel to this server."""
        password = Credential(described=ENV_PASSWORD, environment=ENV_PASSWORD)
        values: dict[str, Any] = {
            "name": "mail", "host": "127.0.0.1", "port": self.port, "username": USER, "password": password,
            "sender": "backup@edna.example", "to": ("a@edna.example", "b@edna.example"),
            "ca_file": str(self.ca_file) if self.ca_file else None,
        }  # fmt: skip
        return EmailChannel(**{**values, **more})


class _Controller(Controller):
    """aiosmtpd with our options, also where the whole connection is TLS."""

    def __init__(self, mail: Mail, options: dict[str, Any], context: ssl.SSLContext | None) -> None:
        self._options = options
        super().__init__(mail, hostname="127.0.0.1", port=0, ssl_context=context)

    def factory(self) -> SMTP:
        """Make the protocol of one connection."""
        return SMTP(self.handler, **self._options)


@contextmanager
def server(folder: Path, *, offers: str = "StartTLS", login: bool = True) -> Iterator[Mail]:
    """Run a server that offers ``StartTLS`` (and demands it), ``TLS`` from the start, or nothing (``None``)."""
    mail = Mail(0)
    context = None
    if offers != "None":
        mail.ca_file, key = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(mail.ca_file, key)
    options: dict[str, Any] = {"hostname": "mail.edna.example"}
    if login:
        options |= {"authenticator": mail.authenticate, "auth_required": True}
        options |= {"auth_require_tls": offers == "StartTLS"}
    if offers == "StartTLS":
        options |= {"tls_context": context, "require_starttls": True}
    controller = _Controller(mail, options, context if offers == "TLS" else None)
    with _bound(controller) as port:
        mail.port = port
        yield mail


@contextmanager
def _bound(controller: Controller) -> Iterator[int]:
    """Start on a port of the system's choice; aiosmtpd's own start-up knocks at the port that it was told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        controller.port = free.getsockname()[1]
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextmanager
def silent() -> Iterator[Mail]:
    """Take connections and never say a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield Mail(int(listener.getsockname()[1]))


@contextmanager
def webhook(answer: int = 200) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Take JSON by POST; gives the port and what arrived."""
    arrived: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            del words

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield running.server_address[1], arrived
    finally:
        with suppress(Exception):
            running.shutdown()
        running.server_close()
