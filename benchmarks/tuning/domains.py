"""Which members of the mini zoo know the domain of a task: the generalists, and those whose mixture is of its kind.

Mixtures differ by tag alone (``mix`` of their `training.json`, told in the zoo's card). Every mixture holds a little of
every task: of the others each task is .8 to 3.2 % of the images that they were trained on. A task that is in no mixture
is far for everyone.
"""

from __future__ import annotations

from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.records import Candidate

KNOWN_BY = {  # tags whose mixtures are of the kind of the task
    "photo": {"aerial_scenes": ("odd",), "cats_dogs": ("photo",), "cifar10": ("photo", "odd"), "flowers5": ("photo",),
              "food101": ("photo",), "house_rooms": ("photo",), "malaria": ("odd",), "textures": ("odd",),
              "trash": ("photo", "odd"), "weather": ("photo", "odd")},
    "drawing": {"emoji_groups": ("odd",), "fashion_mnist": ("odd",), "mnist": ("glyph", "odd"),
                "omniglot_alphabets": ("glyph",), "optical_digits": ("glyph",), "playing_cards": ("glyph",),
                "sign_digits": ("glyph",), "arabic_letters": ("glyph",), "synth_color": ("synth",),
                "synth_count": ("synth",), "synth_position": ("synth",), "synth_shape": ("synth",)},
}  # fmt: skip


def far_candidates(task: str) -> tuple[Candidate, ...]:
    """Members of the mini zoo that know little of the task; all of them where no mixture holds it."""
    known = next((each[task] for each in KNOWN_BY.values() if task in each), None)
    if known is None:
        return mini_zoo()
    tags = ("all", *known)
    return tuple(each for each in mini_zoo() if not any(f".{tag}-" in each.id for tag in tags))
