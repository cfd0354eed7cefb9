"""`fundus-screen`: screen a pair, one eye, or a folder of pairs; look at the machine; show a demo.

The result goes to standard output, everything else to standard error. Exit status 0 means that
there is a result (an ungradable exam is one), 1 that there is none, 2 that the command was wrong.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fundus_runtime.commands.arguments import (
    PROGRAM,
    build_calibrate_gates_parser,
    build_demo_parser,
    build_doctor_parser,
    build_parser,
    usage_problem,
)
from fundus_runtime.commands.output import json_text, print_text
from fundus_runtime.commands.program import INTERRUPTED
from fundus_runtime.errors import FundusError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fundus_runtime.screener import Screener

__all__ = ["build_parser", "main"]

# by name, because __name__ is __main__ under `python -m`
_log = logging.getLogger("fundus_runtime.commands.screen")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    with _logging_to_stderr():
        try:
            return _dispatch(words)
        except UsageError as error:
            _log.error("error: %s", error)
            return 2
        except FundusError as error:
            _log.error("error: %s", error)
            return 1
        except KeyboardInterrupt:
            _log.error("interrupted; nothing was written")
            return INTERRUPTED
        except BrokenPipeError:
            return 1  # the reader of our output went away, and needs no message


def _dispatch(words: Sequence[str]) -> int:
    if words[:1] == ["doctor"]:
        return _doctor(build_doctor_parser().parse_args(words[1:]))
    if words[:1] == ["demo"]:
        arguments = build_demo_parser().parse_args(words[1:])
        from fundus_runtime.commands.demo import run_demo

        return run_demo(arguments)
    if words[:1] == ["calibrate-gates"]:
        arguments = build_calibrate_gates_parser().parse_args(words[1:])
        from fundus_runtime.commands.gates import run_calibrate_gates

        return run_calibrate_gates(arguments)
    return _screen(words)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Send the package's log to standard error for the time of one command."""
    logger = logging.getLogger("fundus_runtime")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _screen(words: Sequence[str]) -> int:
    parser = build_parser()
    arguments = parser.parse_args(words)
    if problem := usage_problem(arguments):
        parser.error(problem)
    if arguments.pairs is not None:
        return _screen_folder(arguments)
    return _screen_exam(arguments)


def _open_screener(arguments: argparse.Namespace) -> Screener:
    from fundus_runtime.screener import Screener

    return Screener.open(
        arguments.bundle,
        backend=arguments.backend,
        provider=arguments.provider,
        threads=arguments.threads,
        operating_point=arguments.operating_point,
        gates=arguments.gates,
        max_megapixels=arguments.max_megapixels,
    )


def _screen_exam(arguments: argparse.Namespace) -> int:
    from fundus_runtime.atomic import require_writable
    from fundus_runtime.table import format_result

    if arguments.report is not None:
        from fundus_runtime.report import load_template_engine, write_report

        require_writable(arguments.report, force=arguments.force)
        load_template_engine()  # its absence is told before the exam, not after
    left, right = arguments.photographs or (arguments.left_only, arguments.right_only)
    with _open_screener(arguments) as screener:
        left_frame, left_ms = _timed_photograph(left, arguments.max_megapixels)
        right_frame, right_ms = _timed_photograph(right, arguments.max_megapixels)
        result = screener.screen_prepared(
            screener.prepare("left", left_frame, color="rgb", decode_ms=left_ms),
            screener.prepare("right", right_frame, color="rgb", decode_ms=right_ms),
        )
    if arguments.report is not None:
        write_report(result, left_frame, right_frame, arguments.report, force=arguments.force)
        _log.info("wrote %s", arguments.report)
    print_text(json_text(result.to_dict()) if arguments.json else format_result(result))
    return 0


def _timed_photograph(
    path: str | None, max_megapixels: float
) -> tuple[NDArray[np.uint8] | None, float | None]:
    from fundus_runtime.engine import ms_since
    from fundus_runtime.photograph import read_photograph

    if path is None:
        return None, None
    start = time.perf_counter()
    frame = read_photograph(path, max_megapixels=max_megapixels)
    return frame, ms_since(start)


def _screen_folder(arguments: argparse.Namespace) -> int:
    from fundus_runtime.atomic import require_writable
    from fundus_runtime.commands.pairs import find_pairs, screen_pairs

    require_writable(arguments.csv, force=arguments.force)
    folder = find_pairs(arguments.pairs)
    if folder.others:
        _log.info("%d files are not named like an eye of a pair and are left out", folder.others)
    with _open_screener(arguments) as screener, _stop_signals() as stopped:
        counts = screen_pairs(
            screener,
            folder,
            arguments.csv,
            one_eye=arguments.one_eye,
            force=arguments.force,
            stopped=stopped,
        )
    summary = {"csv": arguments.csv, "pairs": len(folder.pairs)}
    summary |= {status: counts[status] for status in ("ok", "ungradable", "refused")}
    size = Path(arguments.csv).stat().st_size
    text = "{csv}: {pairs} pairs, {ok} ok, {ungradable} ungradable, {refused} refused"
    line = text.format(**summary) + f" ({size / 1000:.1f} kB)"
    print_text(json_text(summary) if arguments.json else line)
    return 0


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a question that the work asks after every row.

    An exception raised at an arbitrary point may be lost in a finaliser; this cannot. A second
    signal interrupts at once.
    """
    asked: list[int] = []

    def ask_to_stop(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {
        number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _doctor(arguments: argparse.Namespace) -> int:
    from fundus_runtime.doctor import examine, format_findings

    findings = examine(arguments.bundle)
    print_text(json_text(findings) if arguments.json else format_findings(findings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
