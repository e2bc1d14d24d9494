"""What the answer to a question of a drill must be."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_contract.expectation import check_expectation, meets


@pytest.mark.parametrize(
    ("answer", "expect", "met"),
    [
        ("1200", "1200", True),
        ("1200", "= 1200", True),
        ("1200.0", "1200", False),
        (">5", "= >5", True),
        ("", "", True),
        (None, "", False),
        ("0", "!= 0", False),
        ("1", "!=0", True),
        (None, "!= 0", True),
        ("1", "> 0", True),
        ("0", "> 0", False),
        ("10", "<= 10", True),
        ("9", "< 10", True),
        ("10.01", "<=10", False),
        ("many", "> 0", False),
        ("NaN", "> 0", False),
        (None, "< 10", False),
    ],
)
def test_an_expectation_is_met_or_not(answer: str | None, expect: str, met: bool) -> None:
    assert meets(answer, expect) is met


@given(st.decimals(allow_nan=False, allow_infinity=False), st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_are_compared_as_numbers(answer: Decimal, limit: Decimal) -> None:
    assert meets(str(answer), f"> {limit}") is (answer > limit)
    assert meets(str(answer), f"<= {limit}") is (answer <= limit)


@given(st.text())
def test_every_text_can_be_expected_behind_a_sign(text: str) -> None:
    assert meets(text.strip(), f"= {text}")


@pytest.mark.parametrize("expect", ["> many", ">", "<= ", "< NaN", "> Infinity"])
def test_a_comparison_with_what_is_no_number_is_refused(expect: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        check_expectation(expect)


@pytest.mark.parametrize("expect", ["== 5", "=> 5", "=< 5", "<> 5", "!== 5", ">> 5", "=~ x", " ==5"])
def test_a_sign_that_is_none_is_refused_and_the_known_ones_are_named(expect: str) -> None:
    with pytest.raises(ValueError, match=r"no comparison: write =, !=, >, >=, <, <="):
        check_expectation(expect)
