"""`fundus-screen --pairs` against the number of pairs: time, pairs a second, peak memory.

The command runs in a fresh process, as on the robot, on drawn frames of 5 megapixels in JPEG. A few
different pairs stand under many names, which the command reads and decodes anew each time.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from fundus_benchmarks.contenders.models import edge_bundle
from fundus_benchmarks.growth.curves import Curve, Effort, Point
from fundus_benchmarks.growth.measured_run import MeasuredRun, run_measured
from fundus_runtime.labels import EYES
from fundus_runtime.latency.frames import camera_frames

__all__ = ["PAIRS", "curves_of", "draw_pairs", "folder_of", "screen_folder", "throughput"]

PAIRS = (8, 16, 32, 64, 128)
_DRAWN_PAIRS = 8
_QUALITY = 90
_TIMEOUT_S = 600.0

_LOG = logging.getLogger(__name__)


def throughput(effort: Effort, counts: Sequence[int] = PAIRS) -> list[Curve]:
    """Screen folders of each size in turn with the edge model, each at least once.

    Args:
        effort: how long, and on how many threads.
        counts: pairs in each folder.

    Raises:
        RuntimeError: the command failed, or refused a pair.
    """
    runs: dict[int, list[MeasuredRun]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as place:
        drawn = draw_pairs(Path(place, "drawn"), min(_DRAWN_PAIRS, max(counts)))
        folders = {count: folder_of(drawn, count, Path(place, str(count))) for count in counts}
        megabytes = sum(path.stat().st_size for path in drawn) / len(drawn) / 1e6
        end = time.perf_counter() + effort.seconds
        while not runs[counts[-1]] or time.perf_counter() < end:
            for count, folder in folders.items():
                run = screen_folder(folder, count, threads=effort.threads)
                runs[count].append(run)
                _LOG.info("%d pairs: %.1f s, %.0f MB", count, run.wall_s, run.peak_mb)
    settings = {"threads": effort.threads, "photograph_mb": round(megabytes, 2)}
    return curves_of(runs, settings)


def draw_pairs(folder: Path, count: int) -> list[Path]:
    """Write drawn frames of so many pairs as JPEG files: left and right eyes in turn."""
    folder.mkdir(parents=True)
    paths = []
    for place, frame in enumerate(camera_frames(2 * count)):
        path = folder / f"{place // 2}_{EYES[place % 2]}.jpg"
        Image.fromarray(frame).save(path, quality=_QUALITY)
        paths.append(path)
    return paths


def folder_of(drawn: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder with so many pairs, links to the drawn ones in turn."""
    folder.mkdir(parents=True)
    for pair in range(count):
        for side, eye in enumerate(EYES):
            source = drawn[(2 * pair + side) % len(drawn)]
            os.link(source, folder / f"{pair:04d}_{eye}.jpg")
    return folder


def screen_folder(folder: Path, count: int, *, threads: int) -> MeasuredRun:
    """Run the command; every pair must get its result.

    Raises:
        RuntimeError: it failed, or a pair has none.
    """
    table = folder.with_name(f"{folder.name}.csv")
    run = run_measured(
        [
            *(sys.executable, "-m", "fundus_runtime.commands.screen", "--pairs", str(folder)),
            *("--csv", str(table), "--force", "--json"),
            *("--bundle", str(edge_bundle().bundle), "--threads", str(threads)),
        ],
        timeout_s=_TIMEOUT_S,
    )
    summary = json.loads(run.output)
    if summary["ok"] != count:
        raise RuntimeError(f"of {count} drawn pairs {summary['ok']} got a result: {summary}")
    return run


def curves_of(
    runs: Mapping[int, Sequence[MeasuredRun]], settings: Mapping[str, Any]
) -> list[Curve]:
    """Time, throughput and memory by the number of pairs, medians over the runs.

    Time is what grows in a line: a start, and then so much a pair, which its row states. Pairs a
    second follow from it and level off at one over the slope, so that they have no line.
    """
    walls = {count: statistics.median(run.wall_s for run in found) for count, found in runs.items()}
    peaks = {
        count: statistics.median(run.peak_mb for run in found) for count, found in runs.items()
    }

    def curve(name: str, what: str, y: str, unit: str, values: Mapping[int, float]) -> Curve:
        points = [Point(count, round(value, 3)) for count, value in values.items()]
        title = f"{what} of fundus-screen --pairs against the number of pairs"
        return Curve(name, title, "edge", "pairs", "pairs", points, y, unit, settings)

    walls_ms = {count: 1e3 * wall_s for count, wall_s in walls.items()}
    rates = {count: count / wall_s for count, wall_s in walls.items()}
    return [
        _with_start(curve("pairs_time", "time", "wall time", "ms", walls_ms)),
        replace(
            curve("pairs_throughput", "throughput", "throughput", "pairs/s", rates), fitted=False
        ),
        curve("pairs_memory", "peak memory", "peak memory", "MB", peaks),
    ]


def _with_start(time: Curve) -> Curve:
    """The same with what its line says: milliseconds a pair, and the start in seconds.

    The start is not timed: it is where the line meets no pair, and None where that is below nought.
    """
    slope, intercept = time.line.slope, time.line.intercept
    start_s = None if intercept is None or intercept < 0 else intercept / 1e3
    said = {"ms_per_pair": slope, "start_s": start_s}
    return replace(time, settings={**(time.settings or {}), **said})
