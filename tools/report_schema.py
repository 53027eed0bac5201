"""Make the JSON schema of report.json.

python -m tools.report_schema
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from vlmsel_auto.reporting import report

PATH = Path(report.__file__).with_name("report.schema.json")


class _Schema(GenerateJsonSchema):
    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """A number that is not finite is written as null (`vlmsel_auto.recordjson`)."""
        del schema
        return {"type": ["number", "null"]}

    def field_title_should_be_set(self, schema: object) -> bool:
        """Names need no titles."""
        del schema
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Every field is written, so defaults say nothing; one of them is no JSON."""
        return self.generate_inner(schema["schema"])


def schema_text() -> str:
    """The schema as the text of its file."""
    adapter = TypeAdapter(report.SearchReport)
    made = adapter.json_schema(mode="serialization", schema_generator=_Schema)
    made["properties"]["schema"] = {"const": report.SCHEMA}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"report.json of vlmsel-auto, schema {report.SCHEMA}",
        "description": "What a search writes beside report.html. A float that is not finite is null.",
    }
    return json.dumps({**made, **head}, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PATH.write_text(schema_text(), encoding="utf-8")
    print(PATH)
