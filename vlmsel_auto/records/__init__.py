"""Frozen records that pass between the rooms: numpy arrays and plain values, no behaviour beyond look-ups.

Shapes: n images, M candidates, S source tasks, B visual blocks, C channels of a block, K classes, D embedding width.
"""

from vlmsel_auto.records.ranking import *  # noqa: F403 - each name in them is for all rooms
from vlmsel_auto.records.task import *  # noqa: F403 - each name in them is for all rooms
from vlmsel_auto.records.trial import *  # noqa: F403 - each name in them is for all rooms
