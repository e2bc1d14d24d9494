"""A mail server in the toolbox of a scene, and what arrived there."""

from __future__ import annotations

import base64
from email import message_from_string
from email.policy import default
from pathlib import Path

from tests.e2e import objects
from tests.e2e.kubectl import Object, ticks
from tests.e2e.scene import Scene
from tests.fakes.certificates import certificate

PASSWORD = "canary-password-of-the-mail-server"
SERVER = (Path(__file__).parent / "mailserver.py").read_text()


def serve(scene: Scene, folder: Path) -> Object:
    """Run a mail server in the toolbox, and give the notification that names it."""
    scene.shell("true")  # it runs
    address = scene.kubectl.get("pod", "toolbox")["status"]["podIP"]
    made, key = certificate(folder, address)
    for name, text in (("mail.crt", made.read_text()), ("mail.key", key.read_text()), ("server.py", SERVER)):
        encoded = base64.b64encode(text.encode()).decode()
        scene.shell(f"mkdir -p /tmp/mail && echo {encoded} | base64 -d > /tmp/mail/{name}")
    scene.shell(
        f"setsid python3 /tmp/mail/server.py /tmp/mail backup {PASSWORD} >/tmp/mail/log 2>&1 </dev/null &"
    )
    scene.kubectl.apply(
        objects.secret("mail", username="backup", password=PASSWORD),
        objects.secret("mail-ca", **{"ca.crt": made.read_text()}),
    )
    email = {
        "host": address, "port": 2525, "credentialsSecretRef": {"name": "mail"}, "caSecretRef": {"name": "mail-ca"},
        "from": "backup@edna.example", "to": ["operators@edna.example"],
    }  # fmt: skip
    return {"name": "operators", "email": email}


def subjects(scene: Scene, count: int) -> list[str]:
    """Wait for so many mails, and give their subjects."""
    for _ in ticks(60):
        if int(scene.shell("ls /tmp/mail/*.eml 2>/dev/null | wc -l")) >= count:
            break
    texts = scene.shell("for each in /tmp/mail/*.eml; do cat $each; printf '\\f'; done").split("\f")
    # a long subject begins on the line after its name, and keeps the space that it is folded by
    return [message_from_string(text, policy=default)["Subject"].strip() for text in texts if text.strip()]
