"""A mail server of fifty lines, run inside a pod: STARTTLS demanded, one user, each mail a file. Standard library alone."""

from __future__ import annotations

import base64
import socketserver
import ssl
import sys
from pathlib import Path

FOLDER, USER, PASSWORD = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
LOGIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()


class Session(socketserver.StreamRequestHandler):
    """One connection."""

    def say(self, line: str) -> None:
        """Answer."""
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        """Talk until the other side goes."""
        secure = known = False
        self.say("220 mail.edna.example")
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "EHLO":
                self.say(f"250-mail.edna.example\r\n250 {'AUTH PLAIN' if secure else 'STARTTLS'}")
            elif word == "STARTTLS":
                self.say("220 go on")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(FOLDER / "mail.crt", FOLDER / "mail.key")
                self.connection = context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                secure = True
            elif word == "AUTH":
                known = secure and line.split()[-1] == LOGIN
                self.say("235 welcome" if known else "535 wrong")
            elif word == "DATA" and known:
                self.say("354 go on")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                (FOLDER / f"{len(list(FOLDER.glob('*.eml'))):03}.eml").write_bytes(b"".join(lines))
                self.say("250 taken")
            elif word == "QUIT":
                self.say("221 goodbye")
                return
            else:
                self.say("250 ok" if known else "530 log in first")


if __name__ == "__main__":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("0.0.0.0", 2525), Session).serve_forever()
