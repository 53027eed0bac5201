"""The bank of prompt templates."""

from pathlib import Path

from vlmsel_auto.tasks.declaration import check_templates
from vlmsel_auto.tasks.templates import BANK, DEFAULT_TEMPLATES


def test_the_bank_begins_with_what_stands_in_where_nobody_names_templates():
    assert BANK[: len(DEFAULT_TEMPLATES)] == DEFAULT_TEMPLATES


def test_every_template_is_one_that_task_toml_could_hold_and_none_comes_twice():
    assert check_templates(list(BANK), where="the bank") == BANK
    assert len(set(BANK)) == len(BANK)


def test_the_documentation_counts_them():
    page = Path(__file__).parents[2] / "docs" / "guide" / "without-labels.md"
    assert f"the {len(BANK)} templates of" in page.read_text("utf-8").replace("\n   ", " ")
