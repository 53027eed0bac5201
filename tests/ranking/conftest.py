"""A drawn world whose true order is known, and the library of its tasks."""

import pytest

from helpers.zoo_world import World


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def library(world):
    return world.library()
