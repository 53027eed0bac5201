"""Hypothesis draws of damaged texts, bytes and JSON values, from sound ones or from nothing."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "\0", "\ud800", "../..", "{}", "=1", "nan", "inf", "1e999", "-0"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """Random bytes; or ``sound`` cut off, with some bytes changed, a part taken out, doubled or replaced."""
    start, end = sorted((draw(st.integers(0, len(sound))), draw(st.integers(0, len(sound)))))
    part = draw(st.binary(max_size=12) | st.sampled_from([b"[" * 3_000, b"1" * 5_000, b"\xff\xfe", b"\0", b'"', b"\n"]))
    kind = draw(st.sampled_from(["random", "cut", "without", "doubled", "replaced", "inserted"]))
    return {
        "random": part,
        "cut": sound[:end],
        "without": sound[:start] + sound[end:],
        "doubled": sound[:end] + sound[start:],
        "replaced": sound[:start] + part + sound[end:],
        "inserted": sound[:start] + part + sound[start:],
    }[kind]


@st.composite
def changed(draw: st.DrawFn, sound: Any) -> Any:
    """A JSON value with one of its parts, however deep, replaced by another value, or taken out."""
    value = copy.deepcopy(sound)
    node, place = value, None
    while isinstance(node, (dict, list)) and node and (place is None or draw(st.integers(0, 5))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        parent, place = node, draw(st.sampled_from(keys))
        node = parent[place]
    if place is None:
        return draw(JSON)
    if draw(st.booleans()):
        parent[place] = draw(JSON)
    else:
        del parent[place]
    return value


def json_of(value: Any) -> bytes:
    return json.dumps(value).encode()
