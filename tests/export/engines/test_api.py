"""What our code asks of TensorRT is there, in every version whose bindings were recorded.

The stand-in refuses whatever a version lacks, so that its runs prove the names on the ways that are
walked. Here the source itself is read, and what differs between versions is compared with the
record of each.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fundus_export.tensorrt
import fundus_runtime.backends.tensorrt
from fundus_export.errors import ExportError
from fundus_export.tensorrt.builder import build_engine
from fundus_export.tensorrt.features import probe
from fundus_export.tensorrt.machine import Machine
from fundus_export.tensorrt.options import PRECISIONS, EngineOptions
from fundus_export.tensorrt.strategy import choose_strategy
from fundus_runtime.bundle import Bundle

API = Path(__file__).with_name("api")
VERSIONS = sorted(file.stem for file in API.glob("*.json"))
SOURCES = [
    *Path(fundus_export.tensorrt.__path__[0]).glob("*.py"),
    *Path(str(fundus_runtime.backends.tensorrt.__file__)).parent.glob("tensorrt*.py"),
]
# Names that some version lacks; each is behind a field of `Features` or a hasattr.
GUARDED = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "IProgressMonitor",
}


def record(version: str) -> dict[str, Any]:
    return dict(json.loads((API / f"{version}.json").read_text("utf-8")))


def names_of(version: str) -> set[str]:
    """Every name of a version: of the module, of enum members, of classes' attributes."""
    found = record(version)
    names = set(found["module"])
    for part in ("enums", "classes"):
        for owner, members in found[part].items():
            names |= {f"{owner}.{member}" for member in members}
    return names


def asked_of_the_module() -> Iterator[str]:
    """`X` and `X.Y` of every `trt.X.Y` in the source."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            chain = []
            while isinstance(node, ast.Attribute):
                chain.insert(0, node.attr)
                node = node.value
            ends_at_module = isinstance(node, ast.Name) and node.id == "trt"
            if ends_at_module and chain and not chain[0].startswith("_"):
                yield ".".join(chain[:2]) if chain[1:2] != ["__members__"] else chain[0]


def test_versions_of_every_kind_are_recorded_with_their_source() -> None:
    assert {version.split(".")[0] for version in VERSIONS} == {"8", "10", "11"}
    for version in VERSIONS:
        source = record(version)["source"]
        assert version in source["wheel"]
        assert len(source["sha256"]) == 64


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_in_the_source_exists_unless_it_is_guarded(version: str) -> None:
    asked = set(asked_of_the_module())

    assert {"Builder", "OnnxParser", "Runtime", "MemoryPoolType.WORKSPACE"} <= asked
    inherited = {"ILogger.__init__", "IProgressMonitor.__init__"}  # of classes that we derive from
    assert asked - names_of(version) - GUARDED - inherited == set()


def test_what_is_guarded_is_really_missing_somewhere() -> None:
    for name in GUARDED:
        assert any(name not in names_of(version) for version in VERSIONS), name


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.5.3.1", {"explicit_batch", "layer_precision"}),
        ("8.6.1", {"explicit_batch", "layer_precision", "optimization_level"}),
        (
            "10.3.0",
            {
                *("explicit_batch", "layer_precision", "optimization_level", "strong_typing"),
                *("progress_monitor", "parser_names_nodes"),
            },
        ),
        (
            "10.16.1.11",
            {
                *("explicit_batch", "layer_precision", "optimization_level", "strong_typing"),
                *("progress_monitor", "parser_names_nodes"),
            },
        ),
        (
            "11.4.0.106",
            {"optimization_level", "strong_typing", "progress_monitor", "parser_names_nodes"},
        ),
    ],
)
def test_features_are_found_by_looking(
    stand_in: Callable[..., Any], version: str, expected: set[str]
) -> None:
    features = probe(stand_in(version))

    assert {k for k, value in features.to_dict().items() if value is True} - {"tf32"} == expected
    assert features.tf32
    assert bool(features.precision_flags) == (not version.startswith("11."))
    assert features.version == version


def test_the_version_decides_nothing(stand_in: Callable[..., Any]) -> None:
    trt = stand_in("8.6.1")
    trt.__version__ = "11.4.0"

    assert choose_strategy(probe(trt), "int8").dialect == "int8-trt8"


def test_a_tensorrt_with_neither_types_nor_flags_is_refused(stand_in: Callable[..., Any]) -> None:
    trt = stand_in("8.6.1")
    trt.BuilderFlag = trt.TacticSource

    with pytest.raises(ExportError, match="FP16, INT8; use TensorRT"):
        choose_strategy(probe(trt), "int8")


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_the_builder_touches_is_recorded(
    bundle: Bundle, machine: Callable[..., Machine], version: str
) -> None:
    touched: set[str] = set()
    for precision in PRECISIONS:
        made = machine(version)
        build_engine(bundle, EngineOptions(precision), made)
        touched |= {entry.removesuffix(" =") for entry in made.trt._world.log}

    assert len(touched) > 30
    assert touched <= names_of(version)
    # plans are executable: what lets them run code on the host stays as it is, which is off
    assert "Runtime.engine_host_code_allowed" not in touched


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_in_has_what_the_version_has_and_nothing_else(
    stand_in: Callable[..., Any], version: str
) -> None:
    trt, recorded = stand_in(version), record(version)

    for kind, attributes in recorded["classes"].items():
        offered = {name for name in dir(getattr(trt, kind)) if not name.startswith("_")}
        assert offered == set(attributes) - {"__init__"}
    for name, members in recorded["enums"].items():
        assert {k: int(m) for k, m in getattr(trt, name).__members__.items()} == members
    with pytest.raises(AttributeError):
        _ = trt.no_such_thing
    with pytest.raises(NotImplementedError):
        _ = trt.Refitter


def test_the_stand_in_refuses_arguments_that_the_bindings_lack(
    stand_in: Callable[..., Any],
) -> None:
    trt = stand_in("10.3.0")
    builder = trt.Builder(trt.ILogger())

    with pytest.raises(TypeError, match="do not fit"):
        builder.create_network(flag=1)
    with pytest.raises(TypeError, match="do not fit"):
        builder.create_builder_config(1)
    with pytest.raises(AttributeError):
        builder.max_workspace_size = 1
    assert sys.modules["tensorrt"] is trt
