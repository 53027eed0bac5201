import numpy as np

from helpers.cell_world import small
from vlmsel_auto.library.verify import verify


def test_verify_finds_what_is_wrong():
    sound = small()
    assert verify(sound) == ("c on cars failed: out of memory",)
    assert verify(sound, weights={"a": "sha-of-a", "b": "x"}, tasks={"cars": "y", "birds": "digest-of-birds"})[:2] == (
        "the weights of b are not those that its cells were made with",
        "the content of task cars is not that which its cells were made with",
    )
    sound.zero_shot[0, 0] = 1.5
    sound.activity[1][0, 0] = -1.0
    sound.activity[0][1, 1] = np.inf
    text = "\n".join(verify(sound))
    for wrong in (
        "zero_shot must lie in [0, 1]",
        "activity of b is negative",
        "activity of a is not finite",
    ):
        assert wrong in text
