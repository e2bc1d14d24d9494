"""Which keys a run works with: recipients to encrypt for, identities to open with. Decided before any data is moved."""

from __future__ import annotations

from collections.abc import Sequence

from avalanche_backup.catalog import Found
from avalanche_backup.credentials import read_credential
from avalanche_backup.errors import CredentialsMissing, IdentityMissing, UsageInvalid
from avalanche_backup.metadata import recipients_of
from avalanche_backup.pipeline.encryption import Identity, Recipient, parse_identities, parse_recipients
from avalanche_backup.pipeline.signing import Signer, parse_signer
from avalanche_contract.base import Credential
from avalanche_contract.request import BackupRequest, Encryption

REMEDY = "encryption.identity_file on the command line, identitySecretRef in a cluster"

NAMED_MAX = 6


def recipients_for(encryption: Encryption | None) -> tuple[Recipient, ...]:
    """Give whom a backup is encrypted for; nobody where it is not encrypted.

    :raises CredentialsMissing: the Secret or file of recipients is missing.
    :raises UsageInvalid: one of them is no age public key.
    """
    if encryption is None:
        return ()
    if encryption.recipients_file is not None:
        text = read_credential(encryption.recipients_file)
        return parse_recipients(text.splitlines(), encryption.recipients_file.described)
    return parse_recipients(encryption.recipients, "encryption.recipients")


def signer_for(request: BackupRequest) -> Signer | None:
    """Give what signs the metadata of a backup; ``None`` where it is not signed.

    :raises CredentialsMissing: the key is missing.
    :raises UsageInvalid: it is none, or those who verify would not trust what it signs (``SigningKeyNotTrusted``).
    """
    signer = signer_of(request.signing_key)
    for place in request.destinations:
        trusted = place.storage.trusted_keys
        if trusted and (signer is None or signer.public_key not in trusted):
            which = f"its public key {signer.public_key}" if signer else "no key"
            raise UsageInvalid(
                f"only backups are trusted that a key of signing.trustedKeys has signed, and this run would sign with {which}: "
                "name the key that signs, and its public half among the trusted ones",
                reason="SigningKeyNotTrusted",
            )
    return signer


def signer_of(key: Credential | None) -> Signer | None:
    """Give what signs with a key; ``None`` where none is named.

    :raises CredentialsMissing: the key is missing. :raises UsageInvalid: it is none.
    """
    return parse_signer(read_credential(key), key.described) if key is not None else None


def identities_for(
    found: Found, credential: Credential | None, *, needed: bool = True
) -> tuple[Identity, ...]:
    """Give what opens a backup; nothing where it is not encrypted, or where no identity is given nor ``needed``.

    One identity must fit each artifact: its public key is compared with those in the metadata.

    :raises IdentityMissing: there is none, or none that fits (``IdentityDoesNotFit``).
    """
    metadata = found.metadata
    recipients = recipients_of(metadata.artifacts)
    if not recipients or (credential is None and not needed):
        return ()
    sealed = f"{metadata.backup_id} is encrypted for {named(recipients)}"
    if credential is None:
        raise IdentityMissing(f"{sealed}: give the identity of one of them ({REMEDY})")
    identities = _read(credential, sealed)
    own = {each.recipient for each in identities}
    if any(own.isdisjoint(each.recipients) for each in metadata.artifacts if each.recipients):
        raise IdentityMissing(
            f"{sealed}; {credential.described} holds the identity of {named(sorted(own))}, which does not open it: "
            "give the identity of one of the former; a file may hold several",
            reason="IdentityDoesNotFit",
        )
    return identities


def named(recipients: Sequence[str]) -> str:
    """Name public keys to a person: the first of many."""
    more = len(recipients) - NAMED_MAX
    return ", ".join(recipients[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _read(credential: Credential, sealed: str) -> tuple[Identity, ...]:
    try:
        return parse_identities(read_credential(credential), credential.described)
    except CredentialsMissing as missing:
        raise IdentityMissing(f"{sealed}: {missing.message}") from None
    except UsageInvalid as invalid:
        raise IdentityMissing(f"{sealed}: {invalid.message}", reason=invalid.reason) from None
