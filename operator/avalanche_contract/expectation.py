"""What the answer to a question must be: a text, or a number on one side of another. Pure.

======================  =============================================================
``1200``, ``= 1200``    the answer, as text, is just this; ``=`` for a text that begins like a comparison
``!= 0``                it is another text
``> 0``  ``>= 0``       it is a number, and so large
``< 10``  ``<= 10``     it is a number, and so small
======================  =============================================================

Space around the sign does not count. An answer that is NULL is no text and no number: it meets nothing but ``!=``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation

_SIGNED = re.compile(r"^\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*$", re.DOTALL)
_LOOKS_SIGNED = re.compile(r"^\s*([!<>=][!<>=~]+)")
_SIGNS = ("=", "!=", ">", ">=", "<", "<=")
_ORDERS: Mapping[str, Callable[[Decimal, Decimal], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def check_expectation(expect: str) -> str:
    """Give an expectation back where it can be met.

    :raises ValueError: it compares with what is no number, or by a sign that is none.
    """
    sign, wanted = _split(expect)
    if (found := _LOOKS_SIGNED.match(expect)) and found[1] not in _SIGNS:
        raise ValueError(
            f"{expect!r} begins with {found[1]}, which is no comparison: write {', '.join(_SIGNS)}, or = and a space before a "
            "text that begins so"
        )
    if sign in _ORDERS and _number(wanted) is None:
        raise ValueError(f"{expect!r} compares with what is no number; write = before a text that begins so")
    return expect


def meets(answer: str | None, expect: str) -> bool:
    """Say whether an answer is what was expected; ``None`` is NULL."""
    sign, wanted = _split(expect)
    if sign == "!=":
        return answer != wanted
    if answer is None:
        return False
    if sign not in _ORDERS:
        return answer == wanted
    number, limit = _number(answer), _number(wanted)
    return number is not None and limit is not None and _ORDERS[sign](number, limit)


def _split(expect: str) -> tuple[str, str]:
    found = _SIGNED.match(expect)
    return (found[1], found[2]) if found else ("=", expect)


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
