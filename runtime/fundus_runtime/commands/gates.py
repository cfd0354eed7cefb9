"""`fundus-screen calibrate-gates DIR`: fits the gates' thresholds to a camera.

DIR holds photographs in folders `good/`, `usable/` and `reject/`, or, without these, good ones.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from tqdm import tqdm

from fundus_runtime.atomic import atomic_text, require_writable
from fundus_runtime.commands.output import json_text, print_text
from fundus_runtime.errors import ImageError, UngradableError, UsageError
from fundus_runtime.gates.figures import EyeFigures, figures_of
from fundus_runtime.gates.native import measure
from fundus_runtime.gates.refit import GRADES, Grade, GradedEye, Refit, refit
from fundus_runtime.gates.thresholds import GateThresholds, read_thresholds
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import NativePreprocessor, PreprocessSpec

__all__ = ["run_calibrate_gates"]

_log = logging.getLogger(__name__)
_ENDINGS = (".jpg", ".jpeg", ".png")
# the least that the preprocessing makes; only the field of view is wanted
_SPEC = PreprocessSpec(size=32)


def run_calibrate_gates(arguments: argparse.Namespace) -> int:
    """Measure the photographs, fit, write the file, and say what it refuses."""
    require_writable(arguments.out, force=arguments.force)
    start = GateThresholds() if arguments.gates is None else read_thresholds(arguments.gates)
    files = _graded_files(Path(arguments.folder))
    eyes = _measured(files, arguments.max_megapixels)
    fitted = refit(eyes, refuse_good=arguments.refuse_good / 100, start=start)
    with atomic_text(arguments.out, force=arguments.force) as stream:
        json.dump(fitted.thresholds.to_dict(), stream, indent=2, allow_nan=False)
        stream.write("\n")
    unreadable = len(files) - len(eyes)
    summary = _summary(fitted, arguments.out, unreadable)
    print_text(json_text(summary) if arguments.json else _text(fitted, arguments.out, unreadable))
    return 0


def _graded_files(folder: Path) -> list[tuple[Path, Grade]]:
    try:
        if any((folder / grade).is_dir() for grade in GRADES):
            found = [(path, grade) for grade in GRADES for path in _photographs(folder / grade)]
        else:
            found = [(path, "good") for path in _photographs(folder)]
    except OSError as error:
        raise UsageError(
            f"{folder} is no folder that can be read ({error.strerror or error}); give a folder of "
            "photographs, or one with the folders good, usable and reject"
        ) from error
    return found


def _photographs(folder: Path) -> list[Path]:
    # a grade that nobody gave is no fault, a folder that is missing altogether is
    if folder.name in GRADES and not folder.exists():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS)


def _measured(files: list[tuple[Path, Grade]], max_megapixels: float) -> list[GradedEye]:
    finder = NativePreprocessor(_SPEC)
    eyes = []
    for path, grade in tqdm(files, desc="measuring", unit="photograph", disable=None):
        try:
            figures = _figures(path, finder, max_megapixels)
        except ImageError as error:
            _log.warning("left out: %s", error)
            continue
        eyes.append(GradedEye(str(path), grade, figures))
    return eyes


def _figures(path: Path, finder: NativePreprocessor, max_megapixels: float) -> EyeFigures | None:
    frame = read_photograph(path, max_megapixels=max_megapixels)
    try:
        field = finder.crop(frame, color="rgb").field_of_view
    except UngradableError:
        return None
    return figures_of(measure(frame, field, color="rgb"), field)


def _summary(fitted: Refit, out: str, unreadable: int) -> dict[str, object]:
    return {
        "file": out,
        "photographs": fitted.counts,
        "unreadable": unreadable,
        "refused": fitted.refused,
        "refused_cross_validated": fitted.cross_validated,
        "thresholds": fitted.thresholds.to_dict(),
    }


def _text(fitted: Refit, out: str, unreadable: int) -> str:
    lines = [
        f"{grade}: {fitted.counts[grade]} photographs, {100 * fitted.refused[grade]:.1f} % refused "
        f"({100 * fitted.cross_validated[grade]:.1f} % of those that the fit had not seen)"
        for grade in GRADES
        if fitted.counts[grade]
    ]
    if unreadable:
        lines.append(f"{unreadable} files are no photographs and were left out")
    lines.append(f"wrote {out} ({Path(out).stat().st_size} bytes); use it: --gates {out}")
    return "\n".join(lines)
