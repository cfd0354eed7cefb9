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
from fundus_runtime.graph_choice import CPU, CPU_WITHOUT_DOT_PRODUCT, CUDA, TENSORRT
from fundus_runtime.manifest import SCHEMA_VERSION
from fundus_runtime.manifest_parser import _GRAPH_KEYS, _GRAPH_OPTIONS, _OPTIONAL, _REQUIRED
from fundus_runtime.plans import PLANS_SCHEMA_VERSION
from fundus_runtime.preprocess import FieldOfView, PreprocessSpec
from fundus_runtime.signature import SIGNATURE_SCHEMA_VERSION, parse_signature
from fundus_runtime.version import __version__

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# Where pages of this repository lie; what tools and environments bring along is not ours to check.
ALL_MARKDOWN = sorted(
    {
        *ROOT.glob("*.md"),
        *(
            page
            for folder in (
                *("benchmarks", "bundles", "docs", "export", "runtime", "tests", "training"),
            )
            for page in (ROOT / folder).rglob("*.md")
        ),
    }
)
PROGRAMS = ("fundus-screen", "fundus-train", "fundus-export")
SCREEN_COMMANDS = ("doctor", "demo", "calibrate-gates")


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
    others = {
        "doctor": arguments.build_doctor_parser,
        "demo": arguments.build_demo_parser,
        "calibrate-gates": arguments.build_calibrate_gates_parser,
    }
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
    if words[0] == "fundus-screen" and words[1] not in SCREEN_COMMANDS:
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
            for name in ("bundle", "certify", "check")
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


@pytest.mark.parametrize("name", ["run.md", "result.md", "preprocessing.md"])
def test_python_on_the_page_compiles(name: str) -> None:
    found = blocks(DOCS / name, "python")

    assert found
    for block in found:
        ast.parse(block)


def test_the_screening_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shipped.BUNDLE_VARIABLE, raising=False)
    if not any((place / "manifest.json").is_file() for place in shipped.shipped_places()):
        pytest.skip("the example opens the shipped bundle, which is not there")
    examples = [b for b in blocks(DOCS / "run.md", "python") if "Screener" in b]

    done = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", one], capture_output=True, text=True, check=False
        )
        for one in examples
    ]

    assert [one.stderr for one in done] == ["", ""]
    outcomes = {one.stdout.split()[0] for one in done}
    assert len(outcomes) == 1
    assert outcomes < {"normal", "findings", "uncertain"}


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


def keys_by_need(heading: str) -> dict[str, list[str]]:
    """Keys of a table of the bundle's format by what its column `Required` says, sorted."""
    found: dict[str, list[str]] = {"yes": [], "no": []}
    for row in cells(DOCS / "bundle-format.md", heading):
        found[row[2]] += re.findall(r"`([^`]+)`", row[0])
    return {need: sorted(keys) for need, keys in found.items()}


def test_table_of_the_manifest_has_every_key() -> None:
    expected = {"yes": sorted(_REQUIRED), "no": sorted(_OPTIONAL)}

    assert keys_by_need("## The manifest") == expected


def test_table_of_graphs_has_every_key() -> None:
    expected = {"yes": sorted(_GRAPH_KEYS), "no": sorted(_GRAPH_OPTIONS)}

    assert keys_by_need("## Graphs") == expected


def test_example_of_graphs_is_an_entry() -> None:
    (example,) = (json.loads(block) for block in blocks(DOCS / "bundle-format.md", "json"))

    assert _GRAPH_KEYS <= set(example) <= _GRAPH_KEYS | _GRAPH_OPTIONS


def test_table_of_default_graphs_has_every_kind() -> None:
    kinds = names(DOCS / "bundle-format.md", "### Default graphs")

    assert kinds == [CPU, CPU_WITHOUT_DOT_PRODUCT, CUDA, TENSORRT]


def test_table_of_the_recipe_has_every_key() -> None:
    from fundus_export.quantise.recipe import _KEYS

    assert sorted(names(DOCS / "bundle-format.md", "## The recipe")) == sorted(_KEYS)


def test_table_of_the_certificate_has_every_key_in_order() -> None:
    from fundus_export.certificate.certificate import _DERIVED, Certificate

    expected = [*(field.name for field in fields(Certificate)), *_DERIVED]
    assert names(DOCS / "bundle-format.md", "## Certificates") == expected


def test_table_of_golden_tolerances_is_the_exports() -> None:
    from fundus_export.golden import PROBABILITY_TOLERANCES

    page = (DOCS / "bundle-format.md").read_text("utf-8")
    table = page[page.index("| Precision | Tolerance |") : page.index("## Certificates")]
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", table, flags=re.MULTILINE)

    assert {name: float(tolerance) for name, tolerance in rows} == PROBABILITY_TOLERANCES


def test_table_of_versions_ends_with_this_one() -> None:
    from fundus_export.quantise.recipe import _SCHEMA_VERSION as RECIPE

    versions = (SCHEMA_VERSION, SIGNATURE_SCHEMA_VERSION, RECIPE, PLANS_SCHEMA_VERSION)
    minor = ".".join(__version__.split(".")[:2])

    last = cells(DOCS / "bundle-format.md", "## Compatible versions")[-1]
    assert last == [minor, *map(str, versions)]


def test_table_of_dialects_is_the_quantisers() -> None:
    from fundus_export.opsets import SOURCE_OPSET
    from fundus_export.quantise.scheme import DIALECTS, INT8_DIALECTS, scheme_of

    table = cells(DOCS / "export.md", "## Dialects")

    assert [row[0].strip("`") for row in table] == list(DIALECTS)
    assert [int(row[2]) for row in table] == [
        scheme_of(name).opset if name in INT8_DIALECTS else SOURCE_OPSET for name in DIALECTS
    ]


def test_table_of_precisions_is_what_the_export_carries() -> None:
    from fundus_export.quantise.scheme import DIALECTS_OF_PRECISION

    page = (DOCS / "export.md").read_text("utf-8")
    table = page[page.index("| `--precision` | carries |") : page.index("## How INT8 is made")]
    rows = re.findall(r"^\| `(fp32|fp16|int8)` \| ([^:|]+)", table, flags=re.MULTILINE)

    assert {
        precision: tuple(re.findall(r"`([^`]+)`", carried)) for precision, carried in rows
    } == DIALECTS_OF_PRECISION


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


def test_table_of_gates_is_the_gates() -> None:
    from fundus_runtime.gates import GATES, GateThresholds

    defaults = GateThresholds()
    expected = [
        [
            f"`{gate.figure}`",
            f"`{gate.threshold}`",
            f"{getattr(defaults, gate.threshold):g}",
            f"`{gate.reason}`",
        ]
        for gate in GATES
    ]
    assert [row[:4] for row in cells(DOCS / "gates.md", "## What is asked")] == expected
