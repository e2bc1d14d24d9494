"""Telling people: ``decide`` what and ``message`` how are pure; ``send`` is the one sender, by ``email`` and ``urls``.

May import the contract, errors and credentials. Knows no store and no verb, and never changes the outcome of a run.
"""
