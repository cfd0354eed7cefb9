"""`fundus-export check`: prove that graphs keep the rules of their dialect, with no engine at hand.

Each finding names the graph, the node, the rule and the mend; docs/export.md lists the rules. The
exit status is 0 when there is none, 1 when there is one, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fundus_export.quantise.scheme import DIALECTS

if TYPE_CHECKING:
    from fundus_export.dialect_check.bundles import CheckedGraph

__all__ = ["add_parser", "run"]

_ONNX = ".onnx"


def add_parser(subparsers: Any) -> None:
    """Add the command's parser, whose `run` default is the function below."""
    parser = subparsers.add_parser(
        "check",
        help="check graphs against their dialect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "graphs", type=Path, metavar="BUNDLE_OR_ONNX", help="a bundle's folder, or an .onnx file"
    )
    parser.add_argument(
        "--dialect",
        choices=DIALECTS,
        metavar="D",
        help=f"{', '.join(DIALECTS)}; an .onnx file needs it (default: all that the bundle has)",
    )
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print what was found.

    Raises:
        FundusError: there is nothing at that place that could be checked.
    """
    checked = _check(args.graphs, args.dialect)
    print(_as_json(checked) if args.json else "\n".join(_lines(checked)))
    return int(any(graph.findings for graph in checked))


def _check(path: Path, dialect: str | None) -> list[CheckedGraph]:
    from fundus_export.dialect_check.bundles import check_bundle, check_bytes
    from fundus_export.errors import ExportError
    from fundus_runtime.bundle import Bundle
    from fundus_runtime.errors import UsageError

    if path.is_dir():
        # whether anybody vouches for it is for robots to ask; here it is only read
        return list(check_bundle(Bundle.open(path, require_trust=False), dialect))
    if path.suffix != _ONNX:
        raise UsageError(f"{path} is neither a bundle's folder nor an {_ONNX} file; name one")
    if dialect is None:
        raise UsageError(f"{path} does not say which dialect it is to keep; add --dialect D")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error}; check name and rights") from error
    return [check_bytes(data, path.name, dialect)]


def _lines(checked: Sequence[CheckedGraph]) -> list[str]:
    lines = []
    for graph in checked:
        lines += [str(finding) for finding in graph.findings]
        if graph.raised:
            layers = f"{len(graph.raised)} layers not quantised: {', '.join(graph.raised)}"
            lines.append(f"{graph.graph}: {layers}")
        lines.append(f"{graph.graph}: {graph.dialect}: {_counted(len(graph.findings))}")
    return lines


def _counted(findings: int) -> str:
    if findings == 0:
        return "keeps its dialect"
    return f"{findings} finding{'s' if findings > 1 else ''}"


def _as_json(checked: Sequence[CheckedGraph]) -> str:
    graphs = [
        {
            "graph": graph.graph,
            "dialect": graph.dialect,
            "findings": [dataclasses.asdict(finding) for finding in graph.findings],
            "not_quantised": list(graph.raised),
        }
        for graph in checked
    ]
    clean = not any(graph.findings for graph in checked)
    return json.dumps({"clean": clean, "graphs": graphs}, indent=2)
