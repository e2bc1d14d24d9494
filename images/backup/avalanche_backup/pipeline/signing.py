"""Signatures of metadata, by ed25519 (RFC 8032): who may write to a bucket cannot make a backup that is believed.

A signature lies within the document that it signs, so that both are committed by one create-only write. It covers every
field but itself: which run of which policy of which cluster, the ID, the times, and the SHA-256 of every object. The same
key signs the same document by the same bytes, so that copies stay alike. The library is loaded when it is needed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from avalanche_backup.errors import UsageInvalid
from avalanche_backup.metadata import BackupMetadata, MetadataInvalid, Signature, signed_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REMEDY = "make one by `openssl genpkey -algorithm ed25519`"


class SignatureInvalid(MetadataInvalid):
    """The document is signed by nobody that is trusted, or was changed since; the text says which."""

    reason = "SignatureInvalid"


class Signer:
    """A private key, and what its public half is called: 44 characters of base64."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        self._key = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = base64.b64encode(raw).decode()

    def sign(self, metadata: BackupMetadata) -> BackupMetadata:
        """Give the same metadata, signed."""
        plain = metadata.model_copy(update={"signature": None})
        signature = Signature(
            key=self.public_key, value=self._value(signed_bytes(plain.model_dump(mode="json")))
        )
        return plain.model_copy(update={"signature": signature})

    def sign_tombstone(self, document: dict[str, Any]) -> dict[str, Any]:
        """Give the same document, signed: it says that somebody who is trusted removes a backup."""
        value = self._value(signed_bytes(document, "tombstone"))
        return {**document, "signature": {"key": self.public_key, "value": value}}

    def _value(self, signed: bytes) -> str:
        return base64.b64encode(self._key.sign(signed)).decode()


def parse_signer(text: str, described: str) -> Signer:
    """Read a private key as openssl writes it.

    :raises UsageInvalid: it is none of ed25519 without a passphrase; what it holds is not repeated.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    key = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):  # of another kind, with a passphrase, unknown
        key = load_pem_private_key(text.encode(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageInvalid(
            f"{described} is no ed25519 private key without a passphrase: {REMEDY}",
            reason="SigningKeyInvalid",
        )
    return Signer(key)


def check_signature(
    data: bytes, trusted: Sequence[str], kind: Literal["metadata", "tombstone"] = "metadata"
) -> None:
    """Refuse a document that no trusted key has signed.

    :raises SignatureInvalid: there is no signature, it is of another key, or the document was changed.
    :raises MetadataInvalid: it is no document of ours.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        document = json.loads(data)
        signed = signed_bytes(document, kind)
    except RecursionError:
        raise MetadataInvalid("nested far too deep") from None
    found = document.get("signature")
    if not isinstance(found, dict):
        raise SignatureInvalid("it is not signed, and only signed backups are trusted here")
    key, value = str(found.get("key")), str(found.get("value"))
    if key not in trusted:
        raise SignatureInvalid(f"it is signed by {key[:64]!r}, which is not among the trusted keys")
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))
        public.verify(base64.b64decode(value, validate=True), signed)
    except (InvalidSignature, ValueError, binascii.Error):
        raise SignatureInvalid("its signature does not fit: it was changed after it was signed") from None
