import enum
from dataclasses import dataclass

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.recordjson import decode, encode, parse_json


class State(enum.StrEnum):
    WAITING = "waiting"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Record:
    state: State
    earlier: tuple[State, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Number:
    value: float


def test_enums_are_written_by_value_and_come_back_as_members() -> None:
    record = Record(state=State.DONE, earlier=(State.WAITING,))
    written = encode(record)
    assert written == {"state": "done", "earlier": ["waiting"]}
    assert decode(Record, written) == record
    assert decode(Record, written).state is State.DONE


@pytest.mark.parametrize("value", ["gone", None, 1])
def test_no_member(value: object) -> None:
    with pytest.raises(InputError, match=r"Record\.state: expected one of 'waiting', 'done', but got"):
        decode(Record, {"state": value})


@pytest.mark.parametrize(
    "text",
    ["", "{", b"\xff", "[" * 100_000, "1" * 5_000, "NaN", "[-Infinity]", '{"a": 1e999}'],
    ids=["empty", "cut off", "no UTF-8", "deep", "long number", "NaN", "infinity", "beyond floats"],
)
def test_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises(InputError, match="JSON in UTF-8 is needed, but got"):
        parse_json(text)


def test_json_comes_back() -> None:
    assert parse_json(b'{"a": [1, -2.5e-3, null, "\xc3\xa9"]}') == {"a": [1, -0.0025, None, "\u00e9"]}


def test_a_number_beyond_floats_is_no_float() -> None:
    with pytest.raises(InputError, match=r"Number\.value: expected a number below 1\.8e308"):
        decode(Number, {"value": 10**400})
