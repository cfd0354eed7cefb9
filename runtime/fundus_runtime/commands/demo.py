"""Screens the photograph that comes with the package, and shows everything a result holds."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from fundus_runtime.atomic import atomic_text
from fundus_runtime.commands.output import print_text
from fundus_runtime.errors import ResultError
from fundus_runtime.photograph import decode_photograph
from fundus_runtime.report import render_report
from fundus_runtime.screener import Screener
from fundus_runtime.table import format_result

__all__ = ["DEMO_NOTE", "run_demo"]

DEMO_NOTE = (
    "demonstration: the left eye is a photograph by Mikael Häggström (CC0); the right eye is its "
    "mirror image and no photograph of a right eye, so this is no exam of a patient"
)

_log = logging.getLogger(__name__)


def run_demo(arguments: argparse.Namespace) -> int:
    """Screen the demonstration pair and write `result.json` and `report.html`."""
    out = Path(arguments.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(f"the folder {out} cannot be made: {error}; choose another") from error
    source = resources.files("fundus_runtime").joinpath("data/retina.jpg")
    left = decode_photograph(source.read_bytes(), name="retina.jpg")
    right = np.ascontiguousarray(left[:, ::-1])
    with Screener.open(
        arguments.bundle,
        backend=arguments.backend,
        provider=arguments.provider,
        threads=arguments.threads,
        operating_point=arguments.operating_point,
        gates=arguments.gates,
    ) as screener:
        screened = screener.screen(left, right, color="rgb")
    result = replace(screened, warnings=(DEMO_NOTE, *screened.warnings))
    page = render_report(result, left, right)
    # these two are the demo's own files, so that running it again may replace them
    with atomic_text(out / "result.json", force=True) as stream:
        json.dump(result.to_dict(), stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
    with atomic_text(out / "report.html", force=True) as stream:
        stream.write(page)
    print_text(format_result(result))
    for name in ("result.json", "report.html"):
        _log.info("wrote %s (%d kB)", out / name, (out / name).stat().st_size // 1000)
    return 0
