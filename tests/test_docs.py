"""What the pages say can be typed, and the tables that restate code are what the code says."""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import fields
from pathlib import Path

import pytest

from fundus_runtime import shipped
from fundus_runtime.commands import arguments, pairs
from fundus_runtime.manifest import _OPTIONAL, _REQUIRED
from fundus_runtime.preprocess import FieldOfView, PreprocessSpec
from fundus_runtime.signature import parse_signature

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# Where pages of this repository lie; what tools and environments bring along is not ours to check.
ALL_MARKDOWN = sorted(
    {
        *ROOT.glob("*.md"),
        *(
            page
            for folder in ("docs", "runtime", "training", "export", "bundles", "tests")
            for page in (ROOT / folder).rglob("*.md")
        ),
    }
)
PROGRAMS = ("fundus-screen", "fundus-train", "fundus-export")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def commands(page: Path) -> Iterator[list[str]]:
    """Every fundus-* command of the page's bash blocks as words, shell variables replaced."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(re.sub(r"\$\{?\w+\}?", "value", line), comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                del words[0]
            if words and Path(words[0]).name in PROGRAMS:
                yield [Path(words[0]).name, *words[1:]]


def command_id(command: object) -> str:
    return " ".join(command) if isinstance(command, list) else str(command)


def screen_parser(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    others = {"doctor": arguments.build_doctor_parser, "demo": arguments.build_demo_parser}
    if words[0] in others:
        return others[words[0]](), words[1:]
    return arguments.build_parser(), words


def parser_of(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    if words[0] == "fundus-screen":
        return screen_parser(words[1:])
    from fundus_export.commands import export
    from fundus_training.commands import train

    build = {"fundus-train": train.build_parser, "fundus-export": export.build_parser}[words[0]]
    return build(), words[1:]


def parsed(words: list[str]) -> argparse.Namespace:
    parser, rest = parser_of(words)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parser.parse_args(rest)
    except SystemExit:
        pytest.fail(f"{shlex.join(words)}: {said.getvalue()}")


@pytest.mark.parametrize(
    ("page", "words"),
    [pytest.param(p, w, id=f"{p.name}: {command_id(w)}") for p in PAGES for w in commands(p)],
)
def test_every_command_on_a_page_is_one(page: Path, words: list[str]) -> None:
    found = parsed(words)
    if words[0] == "fundus-screen" and words[1] not in ("doctor", "demo"):
        assert arguments.usage_problem(found) is None


def test_the_pages_show_every_program() -> None:
    assert {words[0] for page in PAGES for words in commands(page)} == set(PROGRAMS)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {
        option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }


def subparser(build: Callable[[], argparse.ArgumentParser], name: str) -> argparse.ArgumentParser:
    for action in build()._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: argparse.ArgumentParser = action.choices[name]
            return found
    raise AssertionError(f"no subcommand {name}")


def test_every_option_is_on_its_page() -> None:
    from fundus_export.commands import export
    from fundus_training.commands import train

    expected = {
        "run.md": options(arguments.build_parser()),
        "export.md": {
            option
            for name in ("bundle", "check")
            for option in options(subparser(export.build_parser, name))
        },
        "engines.md": options(subparser(export.build_parser, "engine")),
        "signing.md": {
            option
            for name in ("keygen", "sign", "verify")
            for option in options(subparser(export.build_parser, name))
        },
        "train.md": options(subparser(train.build_parser, "fit")),
    }
    assert {
        name: sorted(o for o in wanted if o not in (DOCS / name).read_text("utf-8"))
        for name, wanted in expected.items()
    } == {name: [] for name in expected}


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", ALL_MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", ["run.md", "preprocessing.md"])
def test_python_on_the_page_compiles(name: str) -> None:
    found = blocks(DOCS / name, "python")

    assert found
    for block in found:
        ast.parse(block)


def test_the_screening_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shipped.BUNDLE_VARIABLE, raising=False)
    if not any((place / "manifest.json").is_file() for place in shipped.shipped_places()):
        pytest.skip("the example opens the shipped bundle, which is not there")
    (example,) = (b for b in blocks(DOCS / "run.md", "python") if "Screener" in b)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in ("normal", "findings", "uncertain")


def test_the_signature_on_the_page_is_one() -> None:
    (example,) = blocks(DOCS / "signing.md", "json")

    assert parse_signature(example.encode("ascii")).to_bytes() == example.encode("ascii")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json_on_the_page_is_json(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block)


def cells(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, without its head, backticks dropped."""
    text = page.read_text("utf-8")
    after = text[text.index(f"\n{heading}\n") :]
    table = re.search(r"(^\|.*\n)+", after, flags=re.MULTILINE)
    assert table is not None
    lines = table.group().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(page: Path, heading: str) -> list[str]:
    """What stands between backticks in the first column."""
    return [name for row in cells(page, heading) for name in re.findall(r"`([^`]+)`", row[0])]


def test_table_of_the_spec_is_the_spec() -> None:
    on_page = {
        row[0].strip("`"): json.loads(row[1].strip("`"))
        for row in cells(DOCS / "preprocessing.md", "## The spec")
    }

    assert on_page == PreprocessSpec().to_dict()


def test_every_figure_of_the_field_of_view_is_explained() -> None:
    page = (DOCS / "preprocessing.md").read_text("utf-8")

    assert [f.name for f in fields(FieldOfView) if f"`{f.name}`" not in page] == []


def test_table_of_the_csv_has_its_columns_in_order() -> None:
    expected = [*pairs.FIRST_COLUMNS, "N", "O", *pairs.EXTRA_COLUMNS]

    assert names(DOCS / "run.md", "### A folder of pairs") == expected


def test_table_of_the_manifest_has_every_key() -> None:
    page = (DOCS / "export.md").read_text("utf-8")
    table = page[page.index("| Manifest key |") : page.index("Unknown keys and a newer schema")]
    rows = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)

    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == _REQUIRED | _OPTIONAL


def test_table_of_rules_is_the_dialect_checkers() -> None:
    from fundus_export.dialect_check.dialects import ALL_RULES, RULES

    def column(rule: object) -> str:
        dialects = [dialect for dialect, rules in RULES.items() if rule in rules]
        if len(dialects) == len(RULES):
            return "all"
        if dialects == [dialect for dialect in RULES if dialect.startswith("int8")]:
            return "all INT8"
        return ", ".join(f"`{dialect}`" for dialect in dialects)

    expected = [[f"`{rule.id}`", column(rule), rule.demand] for rule in ALL_RULES]
    assert cells(DOCS / "export.md", "## The dialect checker") == expected


def test_table_of_presets_is_the_presets() -> None:
    from fundus_training.presets import PRESETS

    table = cells(DOCS / "train.md", "## Presets")

    for column, config in enumerate(PRESETS.values(), start=1):
        model, train = config.model, config.train
        assert {row[0]: row[column] for row in table} == {
            "trunk": model.trunk,
            "side, px": str(model.image_size),
            "illumination window, px": str(config.preprocess.illumination_window_px),
            "dropout": str(model.dropout),
            "epochs": str(train.epochs),
            "batch size × accumulated": f"{train.batch_size} × {train.accumulate}",
            "learning rate": str(train.learning_rate),
            "trunk's share of it": str(train.trunk_rate_factor),
            "weight decay": str(train.weight_decay),
            "EMA decay": str(train.ema_decay),
            "weight of the per-eye loss": str(train.eye_loss_weight),
        }
