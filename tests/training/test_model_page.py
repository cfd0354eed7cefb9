"""What docs/model.md states of the model is so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fundus_training.models import ModelConfig

PAGE = Path(__file__).parents[2] / "docs" / "model.md"


def blocks_of_python() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_tables_are_what_their_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks_of_python()[1], str(PAGE), "exec"), {})

    printed = capsys.readouterr().out.splitlines()
    page = PAGE.read_text(encoding="utf-8")
    assert len(printed) == 8
    for counts, cost in zip(printed[::2], printed[1::2], strict=True):
        assert counts in page
        name, encoder, head = re.findall(r"`.+?`|[\d,]+ M", cost)
        assert re.search(rf"\| {name} \| {encoder}[^|]* \| {head} \|", page)


def test_the_example_runs() -> None:
    names: dict[str, object] = {}
    exec(compile(blocks_of_python()[0], str(PAGE), "exec"), names)

    assert names["logits"].shape == (4, 8)  # type: ignore[attr-defined]


def test_every_option_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert [field.name for field in fields(ModelConfig) if f"`{field.name}`" not in page] == []
