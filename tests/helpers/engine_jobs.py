"""Jobs of the engines' contract tests: workers find them here by name."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.engines.engine import Channel, Shared


@dataclass(frozen=True, kw_only=True)
class Square:
    """Squares a number after some seconds."""

    number: int
    seconds: float = 0.0

    def run(self, channel: Channel) -> int:
        time.sleep(self.seconds)
        return self.number**2


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Ends when a file is there."""

    file: Path

    def run(self, channel: Channel) -> None:
        while not self.file.exists():
            time.sleep(0.01)


@dataclass(frozen=True, kw_only=True)
class Raising:
    """Raises."""

    def run(self, channel: Channel) -> None:
        raise OSError(28, "no space left")


@dataclass(frozen=True, kw_only=True)
class Unpicklable:
    """Cannot travel, nor can what it returns."""

    inward: bool

    def __reduce__(self):
        if self.inward:
            raise TypeError("this job cannot be pickled")
        return super().__reduce__()

    def run(self, channel: Channel) -> object:
        return threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Deadly:
    """Kills its process the first ``kills`` times that it is begun; each time leaves a mark."""

    folder: Path
    kills: int

    def run(self, channel: Channel) -> int:
        begun = len(list(self.folder.iterdir()))
        (self.folder / f"{begun}-{os.getpid()}").touch()
        channel.tell(begun)
        if begun < self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return begun + 1


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Tells one number after the other until it is asked to stop."""

    most: int
    pause: float = 0.02

    def run(self, channel: Channel) -> int:
        for number in range(self.most):
            channel.tell(number)
            if channel.stopping:
                return number
            time.sleep(self.pause)
        return self.most


@dataclass(frozen=True, kw_only=True)
class Summing:
    """Sums a shared array, and says in which process and with how many threads."""

    shared: Shared

    def run(self, channel: Channel) -> tuple[float, int, int]:
        import torch

        return float(self.shared.get().sum()), os.getpid(), torch.get_num_threads()


@dataclass(frozen=True, kw_only=True)
class Alternating:
    """Asks for shared values in turn, and says whether they stay the same objects."""

    shared: tuple[Shared, ...]

    def run(self, channel: Channel) -> bool:
        first, again = ([each.get() for each in self.shared] for _ in range(2))
        return all(one is other for one, other in zip(first, again, strict=True))


@dataclass(frozen=True, kw_only=True)
class Marking:
    """Writes its process and threads into a file of its name, or fails."""

    name: str
    folder: Path
    fault: str = ""

    def run(self, channel: Channel) -> None:
        import torch

        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "raise":
            raise OSError("no luck")
        (self.folder / self.name).write_text(f"{os.getpid()} {torch.get_num_threads()}")
