"""A loader that takes its process with it."""

import os
import signal

from helpers.study_world import NAMES
from vlmsel_auto.models import zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate


def deadly_load(candidate: Candidate) -> LoadedModel:
    if candidate.id == NAMES[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return zoo.load(candidate)
