"""The JSON schema of a result, for programs that check what they receive."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["result_schema"]


def result_schema() -> dict[str, Any]:
    """The schema of `ExamResult.to_dict()`, JSON Schema draft 2020-12.

    `docs/result.md` explains it. A validator is not part of this package: jsonschema is one.
    """
    file = resources.files("fundus_runtime").joinpath("data/result.schema.json")
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema
