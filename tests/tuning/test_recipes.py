import pytest

from vlmsel_auto.models import catalogue
from vlmsel_auto.planning.method import Part
from vlmsel_auto.records import Candidate, ImageView
from vlmsel_auto.tuning.recipes import _read, rate_of, recipe_of


def candidate(family: str, params: int | None) -> Candidate:
    return Candidate(id="a", source="s", arch="a", tag="t", view=ImageView(size=32), params=params, family=family)


@pytest.mark.parametrize(
    ("family", "params", "part", "rate"),
    [
        ("vit", 1_000_000, Part.TOWER, 3e-4),
        ("efficientnet", 1_000_000, Part.TOWER, 1e-3),
        ("swin", 1_000_000, Part.TOWER, 5e-4),
        ("vit", 150_000_000, Part.TOWER, 1e-5),
        ("vit", None, Part.TOWER, 1e-5),
        ("resnet", 102_000_000, Part.PROJECTION, 1e-4),
        ("resnet", None, Part.PROJECTION, 1e-4),
        ("vit", 878_000_000, Part.LOW_RANK, 2e-4),
    ],
)
def test_the_first_row_that_holds_counts(family: str, params: int | None, part: Part, rate: float) -> None:
    found = candidate(family, params)
    assert (recipe_of(found).trains, rate_of(found, recipe_of(found).trains)) == (part, rate)


def test_every_row_says_where_it_is_from_and_can_hold() -> None:
    rows, _ = _read()
    for place, row in enumerate(rows):
        assert row.source
        assert recipe_of(candidate(row.family or "other", max(row.parameters, 1))) in rows[: place + 1]
    held = {recipe_of(candidate(row.family or "other", max(row.parameters, 1))).source for row in rows}
    assert held == {row.source for row in rows}


def test_the_families_of_the_file_are_of_the_catalogue_or_the_mini_zoo() -> None:
    known = {str(catalogue.architecture(arch)["family"]) for arch in catalogue.tags()} | {"efficientnet"}
    assert {row.family for row in _read()[0]} - {""} <= known
