"""One id, however it was written; and what only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.ids import identifier, identifier_of, number

# Forms of 10000032 that spreadsheets, pandas, R and JSON make.
SAME = (
    *(
        "10000032",
        "10000032.0",
        "10000032.00",
        "10000032.",
        "10000032,0",
        "10000032.000000",
        " 10000032 ",
        "10000032\u00a0",
    ),
    *("10,000,032", "10,000,032.0", "10.000.032", "10.000.032,00", "10 000 032", "10\u202f000\u202f032", "10'000'032"),
    *("1.0000032e7", "1.0000032E+07", "1,0000032E+07", "1.000003200000000000e+07", '="10000032"', '"10000032"'),
    *("'10000032", "\ufeff10000032", "10000032\u200b", "'10000032.0'"),
)
NONE = ("", " ", "nan", "NaN", "None", "null", "NULL", "NA", "N/A", "#N/A", "<NA>", "NaT", '=""')
# Digits are hidden, or two numbers may be meant, or it is no whole number, or no number.
AS_IT_IS = (
    "1.00E+07",
    "1e+07",
    "100.000",
    "100,000",
    "1.5",
    "10000032.5",
    "007",
    "v1.0",
    "p10000032",
    "1.2.840.10008.1",
)


@pytest.mark.parametrize("form", SAME)
def test_forms_of_a_number_are_the_number(form):
    assert identifier(form) == identifier_of(form) == number(form) == "10000032"


@pytest.mark.parametrize("form", NONE)
def test_nothing_is_no_id(form):
    assert identifier(form) == identifier_of(form) == number(form) == ""


@pytest.mark.parametrize("form", AS_IT_IS)
def test_other_ids_stay(form):
    assert identifier(form) == form


def test_values_of_json():
    for value in (10000032, 10000032.0, 1.0000032e7, "10000032.0"):
        assert identifier_of(value) == "10000032"
    assert identifier_of(None) == identifier_of(float("nan")) == ""
    for value in (True, False, 1.5, float("inf"), 1e300, [1], {"id": 1}):
        assert identifier_of(value) is None


def test_ids_that_are_numbers():
    for form in ("s50414267", "S50414267", "50414267", "s50414267.0", "050414267"):
        assert number(form) == "50414267"
    assert number("p10000032") == "10000032"
    for form in ("../../x", "v1.0", "-7", "s", "1.00E+07"):
        assert number(form) == form


@given(st.integers(0, 10**15))
def test_every_number_is_found_in_every_form(value):
    for form in (f"{value}", f"{value}.0", f"{value},0", repr(float(value)), f"{value:.18e}", f' ="{value}"'):
        assert identifier(form) == str(value)
    assert identifier_of(float(value)) == identifier_of(value) == str(value)
    if value >= 10**6:
        assert identifier(f"{value:,}") == str(value)
