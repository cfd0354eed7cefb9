"""What `fundus-screen` can be told, and which combinations make no sense.

Nothing heavy is imported here, so that --help and a wrong command answer at once.
"""

from __future__ import annotations

import argparse
import math

from fundus_runtime.version import __version__

__all__ = [
    "BACKENDS",
    "MAX_MEGAPIXELS",
    "PROGRAM",
    "PROVIDERS",
    "add_engine_options",
    "build_calibrate_gates_parser",
    "build_demo_parser",
    "build_doctor_parser",
    "build_parser",
    "usage_problem",
]

PROGRAM = "fundus-screen"
# the same as photograph.DEFAULT_MAX_MEGAPIXELS, which would bring OpenCV along
MAX_MEGAPIXELS = 64.0
# the same as those of fundus_runtime.backends, which would bring NumPy along
BACKENDS = ("onnxruntime", "tensorrt")
PROVIDERS = ("cpu", "cuda", "tensorrt")

_EPILOG = """\
other commands:
  fundus-screen doctor [--bundle DIR] [--json]   engines, GPU, CPU features, bundle, versions
  fundus-screen demo --out DIR                   screen the photograph that comes with the package
  fundus-screen calibrate-gates DIR --out FILE   fit the gates' thresholds to a camera

Without --bundle: $FUNDUS_BUNDLE, else the bundle that ships with the package.
For research only. Not a medical device.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-screen` without `doctor` and `demo`, which have their own."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Screen photographs of both eyes of a patient, offline.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} LEFT RIGHT [options]\n"
        f"       {PROGRAM} (--left-only FILE | --right-only FILE) [options]\n"
        f"       {PROGRAM} --pairs DIR --csv OUT [--one-eye] [options]\n"
        f"       {PROGRAM} doctor | demo | calibrate-gates",
        allow_abbrev=False,
    )
    parser.add_argument(
        "photographs", nargs="*", type=path_text, metavar="LEFT RIGHT", help="JPEG or PNG files"
    )
    parser.add_argument(
        "--left-only", type=path_text, metavar="FILE", help="screen the left eye alone"
    )
    parser.add_argument(
        "--right-only", type=path_text, metavar="FILE", help="screen the right eye alone"
    )
    parser.add_argument(
        "--pairs",
        type=path_text,
        metavar="DIR",
        help="screen a folder of <id>_left.* and <id>_right.*",
    )
    parser.add_argument(
        "--csv", type=path_text, metavar="OUT", help="with --pairs: the CSV file to write"
    )
    parser.add_argument(
        "--one-eye",
        action="store_true",
        help="with --pairs: screen an eye whose partner is missing; never normal",
    )
    parser.add_argument(
        "--report", type=path_text, metavar="FILE", help="also write an HTML page of the result"
    )
    parser.add_argument("--force", action="store_true", help="replace existing output files")
    _add_model_options(parser)
    parser.add_argument(
        "--max-megapixels",
        type=positive_number,
        default=MAX_MEGAPIXELS,
        metavar="N",
        help="refuse larger photographs before decoding (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_version(parser)
    return parser


def build_doctor_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-screen doctor`."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} doctor", description="Look at this machine and the bundle."
    )
    parser.add_argument("--bundle", type=path_text, metavar="DIR", help="the bundle to look at")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    _add_version(parser)
    return parser


def build_demo_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-screen demo`."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} demo",
        description="Screen the CC0 photograph that comes with the package; its mirror image "
        "stands in for the right eye.",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=path_text,
        metavar="DIR",
        help="folder for result.json and report.html",
    )
    _add_model_options(parser)
    _add_version(parser)
    return parser


def build_calibrate_gates_parser() -> argparse.ArgumentParser:
    """The parser of `fundus-screen calibrate-gates`."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} calibrate-gates",
        description="Fit the gates' thresholds to a camera, from photographs that people sorted.",
    )
    parser.add_argument(
        "folder",
        type=path_text,
        metavar="DIR",
        help="photographs in the folders good, usable and reject; without these, good ones",
    )
    parser.add_argument(
        "--out", required=True, type=path_text, metavar="FILE", help="the JSON file to write"
    )
    parser.add_argument(
        "--refuse-good",
        type=_percent,
        default=2.0,
        metavar="PERCENT",
        help="good photographs that too little quality may refuse (default: %(default)g)",
    )
    parser.add_argument(
        "--gates",
        type=path_text,
        metavar="FILE",
        help="earlier thresholds, of which those for side and copies are kept",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--max-megapixels",
        type=positive_number,
        default=MAX_MEGAPIXELS,
        metavar="N",
        help="refuse larger photographs before decoding (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    _add_version(parser)
    return parser


def _percent(text: str) -> float:
    value = positive_number(text)
    if value > 50:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 50 percent")
    return value


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=path_text, metavar="DIR", help="the model bundle")
    parser.add_argument(
        "--gates",
        type=path_text,
        metavar="FILE",
        help="the gates' thresholds, fitted to the camera (default: $FUNDUS_GATES, else built in)",
    )
    parser.add_argument(
        "--operating-point", metavar="NAME", help="thresholds to use (default: the bundle's)"
    )
    add_engine_options(parser)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Which engine runs the model, on what, with how many threads."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=BACKENDS[0],
        help="the inference engine (default: %(default)s)",
    )
    parser.add_argument(
        "--provider",
        choices=PROVIDERS,
        default=PROVIDERS[0],
        help="what onnxruntime runs on (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="threads of the engine (default: by the physical cores, at most 4)",
    )


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")


def path_text(text: str) -> str:
    """A path that is not empty: an unset variable in a script must not mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def positive_integer(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return value


def positive_number(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def usage_problem(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the combination of arguments, or None."""
    count = len(arguments.photographs)
    modes = [
        count > 0,
        arguments.left_only is not None,
        arguments.right_only is not None,
        arguments.pairs is not None,
    ]
    if sum(modes) != 1:
        return "give LEFT RIGHT, or --left-only FILE, or --right-only FILE, or --pairs DIR"
    if count not in (0, 2):
        return (
            f"{count} photograph{'' if count == 1 else 's'} given, but a pair is LEFT RIGHT; "
            "for one eye use --left-only FILE or --right-only FILE"
        )
    if (arguments.pairs is None) != (arguments.csv is None):
        return "--pairs DIR and --csv OUT belong together"
    if arguments.pairs is None and arguments.one_eye:
        return "--one-eye belongs to --pairs"
    if arguments.pairs is not None and arguments.report is not None:
        return "--report is for one exam, not for --pairs"
    return None
