"""Mail by SMTP. TLS is never given up silently: what is demanded and not offered ends the attempt before any secret.

STARTTLS downgrade is the classic fault of mailers (RFC 3207, section 6): an attacker, or a server without it, leaves
the offer out, and a client that only asks for it sends password and text in the clear.
"""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from avalanche_backup.credentials import read_credential
from avalanche_backup.errors import NotificationFailed
from avalanche_backup.notifications.message import Message, one_line
from avalanche_contract.base import Credential
from avalanche_contract.notification import EmailChannel

TIMEOUT_SECONDS = 15.0
"""For each answer of the server: a mail server that hangs must not hold a backup."""

_WORDS: dict[type[Exception], str] = {
    smtplib.SMTPNotSupportedError: "offers no login that we know",
    smtplib.SMTPAuthenticationError: "refuses the user or the password",
    smtplib.SMTPResponseException: "refuses",
    smtplib.SMTPServerDisconnected: "closed the connection, or did not answer in time",
    ssl.SSLCertVerificationError: "has a certificate that is not trusted: name its authority in ca_file",
    ssl.SSLError: "does not speak TLS as it should",
    TimeoutError: f"did not answer within {TIMEOUT_SECONDS:.0f} seconds",
    FileNotFoundError: "cannot be trusted: the file of its authority is missing",
}
"""What each error means, the narrower kind first."""


def send_email(channel: EmailChannel, message: Message) -> None:
    """Send one mail.

    :raises NotificationFailed: it was not taken; the message says why, without secrets and without the server's words.
    :raises CredentialsMissing: user or password is missing.
    """
    server = f"mail server {channel.host}:{channel.port}"
    user = _value(channel.username)
    password = _value(channel.password)
    if password is not None and channel.tls == "None":
        raise NotificationFailed(f"{server}: a password is never sent without TLS")
    try:
        with _connected(channel) as connection:
            if user is not None and password is not None:
                connection.login(user, password)
            connection.send_message(_mail(channel, message), channel.sender, list(channel.to))
    except Exception as error:
        raise NotificationFailed(f"{server} {_explain(error)}") from None


def _connected(channel: EmailChannel) -> smtplib.SMTP:
    if channel.tls == "TLS":
        return smtplib.SMTP_SSL(
            channel.host, channel.port, timeout=TIMEOUT_SECONDS, context=_trust(channel.ca_file)
        )
    connection = smtplib.SMTP(channel.host, channel.port, timeout=TIMEOUT_SECONDS)
    try:
        if channel.tls == "StartTLS":
            connection.ehlo_or_helo_if_needed()
            if not connection.has_extn("starttls"):
                raise NotificationFailed("offers no STARTTLS: nothing was sent")
            connection.starttls(context=_trust(channel.ca_file))
    except BaseException:
        connection.close()
        raise
    return connection


def _value(credential: Credential | str | None) -> str | None:
    return read_credential(credential) if isinstance(credential, Credential) else credential


def _trust(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _mail(channel: EmailChannel, message: Message) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = one_line(message.subject)
    mail["From"] = one_line(channel.sender)
    mail["To"] = ", ".join(one_line(each) for each in channel.to)
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain="avalanche-backup.invalid")
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.body)
    return mail


def _explain(error: Exception) -> str:
    """Say what went wrong; a server's own words may repeat what was sent to it."""
    if isinstance(error, NotificationFailed):
        return error.message
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = sorted({code for code, _ in error.recipients.values()})
        return f"refuses the recipients (SMTP {', '.join(map(str, codes))})"
    code = f" (SMTP {error.smtp_code})" if isinstance(error, smtplib.SMTPResponseException) else ""
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words + code
    why = error.strerror if isinstance(error, OSError) else None
    return f"cannot be reached: {why or type(error).__name__}"
