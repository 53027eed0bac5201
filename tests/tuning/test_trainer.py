"""What Lightning may not do to the user's process."""

import logging

import pytest

from vlmsel_auto.tuning.trainer import quiet_lightning


def test_its_exit_is_an_interrupt_again_and_its_loggers_are_as_before() -> None:
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [each.level for each in loggers]
    levels = []

    def leave() -> None:
        with quiet_lightning():
            levels.extend(each.level for each in loggers)
            raise SystemExit(1)

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert levels == 2 * [logging.ERROR]
    assert [each.level for each in loggers] == before
