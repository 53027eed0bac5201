import enum
from dataclasses import dataclass

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.recordjson import decode, encode


class State(enum.StrEnum):
    WAITING = "waiting"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Record:
    state: State
    earlier: tuple[State, ...] = ()


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
