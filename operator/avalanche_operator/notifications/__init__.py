"""Telling what only the operator sees: tries that ran out, lost pods, missed slots; once, by a Job that holds the password.

``build``, ``decide`` and ``missed`` are pure; ``run`` starts and reads the Job. May import the API models and ``jobs``.
"""
