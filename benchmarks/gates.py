"""What the gates refuse and what they let pass: graded eyes, sides, copies, faults, time.

    python benchmarks/gates.py --data DIR
    python benchmarks/gates.py --data DIR --fit

DIR holds `eyepacs/`, `odir/` and `full_resolution/`. With --fit the weights are fitted again: the
side's are written into the package, those of the quality are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from fundus_benchmarks.results.run_file import ROOT
from fundus_benchmarks.studies.gate_study import (
    Eye,
    cross_validated_quality,
    fit_quality,
    fit_side,
    graded_eyes,
    held_out_side,
    interval_95,
    odir_eyes,
)
from fundus_runtime.errors import UngradableError
from fundus_runtime.gates import GateThresholds, GateVerdict, judge, likeness
from fundus_runtime.gates.fingerprint import fingerprint
from fundus_runtime.gates.laterality import side_score
from fundus_runtime.photograph import read_photograph
from fundus_runtime.preprocess import FieldOfView, NativePreprocessor, PreprocessSpec

sys.path.append(str(ROOT / "tests" / "runtime" / "gates"))
from faults import FAULTS, MOVES, Frame, no_fundus

_SIDE_WEIGHTS = ROOT / "runtime" / "fundus_runtime" / "gates" / "side_weights.json"
_GRADES = ("good", "usable", "reject")
_EYES_WITH_FAULTS = 40
_COPIED = 150
_BOUNDS = GateThresholds()
_FINDER = NativePreprocessor(PreprocessSpec(size=32))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    args = _parser().parse_args(argv)
    graded, odir = graded_eyes(args.data), odir_eyes(args.data)
    if args.fit:
        _fit(graded, odir)
    _quality(graded)
    _side(odir)
    _odir(odir)
    _copies(args.data, odir)
    _faults(args.data, graded)
    _resolutions(args.data, graded)
    _other_things()
    _time(args.data)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="What the gates refuse and what they let pass.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--fit", action="store_true", help="fit the weights again")
    return parser


def _fit(graded: list[Eye], odir: list[Eye]) -> None:
    weights, constant = fit_quality(graded)
    print("quality: weights", np.round(weights, 2).tolist(), "constant", round(constant, 2))
    training = [eye for eye in odir if not held_out_side(eye)]
    about = (
        "16 x 8 differences of red, then of green; fitted on ODIR-5K (research use), "
        f"{len({eye.patient for eye in training})} patients whose id is no multiple of 5"
    )
    values = [round(float(w), 4) for w in fit_side(training)]
    _SIDE_WEIGHTS.write_text(json.dumps({"about": about, "weights": values}, indent=0) + "\n")


def _quality(eyes: list[Eye]) -> None:
    study = cross_validated_quality(eyes)
    print(f"\n## {len(eyes)} graded eyes")
    print(f"cross-validated: AUC {study.auc:.3f},", _shares(study.refused))
    seen = [(e.label != "reject", v) for e in eyes if (v := e.verdict(_BOUNDS)) is not None]
    alone = roc_auc_score([kept for kept, _ in seen], [_figure(v, "detail") for _, v in seen])
    print(f"detail alone, of those with a field of view: AUC {alone:.3f}")
    refusals = {g: [e.refusal(_BOUNDS) for e in eyes if e.label == g] for g in _GRADES}
    for grade, reasons in refusals.items():
        counts = Counter(reason for reason in reasons if reason)
        low, high = interval_95(counts.total(), len(reasons))
        print(
            f"default bounds: {grade}: {counts.total()} of {len(reasons)} refused "
            f"({100 * counts.total() / len(reasons):.1f} %, 95 % {100 * low:.1f}-{100 * high:.1f})",
            dict(counts),
        )


def _figure(verdict: GateVerdict, name: str) -> float:
    return next(figure.value for figure in verdict.figures if figure.name == name)


def _shares(refused: dict[str, float]) -> str:
    return "refused " + ", ".join(f"{g} {100 * s:.1f} %" for g, s in refused.items())


def _side(eyes: list[Eye]) -> None:
    held_out = [e for e in eyes if held_out_side(e) and e.readings is not None]
    scores = np.array([side_score(e.readings) for e in held_out if e.readings is not None])
    right = (scores > 0) == np.array([e.side == "left" for e in held_out])
    stated = np.abs(scores) >= _BOUNDS.min_side
    low, high = interval_95(int(right[stated].sum()), int(stated.sum()))
    print(f"\n## Side of the optic disc, {len(held_out)} eyes of held-out patients of ODIR")
    print(
        f"stated for {stated.sum()}, abstained on {100 * (1 - stated.mean()):.1f} %; "
        f"right {right[stated].sum()} ({100 * right[stated].mean():.1f} %, "
        f"95 % {100 * low:.1f}-{100 * high:.1f})"
    )


def _odir(eyes: list[Eye]) -> None:
    print("\n## ODIR, refused by the default bounds")
    for name, word in (
        ("all", ""),
        ("normal fundus", "normal fundus"),
        ("cataract", "cataract"),
        ("retinopathy", "retinopathy"),
    ):
        reasons = [e.refusal(_BOUNDS) for e in eyes if word in e.label]
        counts = Counter(reason for reason in reasons if reason)
        share = 100 * counts.total() / len(reasons)
        print(f"{name}: {counts.total()} of {len(reasons)} ({share:.1f} %)", dict(counts))


def _copies(data: Path, eyes: list[Eye]) -> None:
    seen = [eye for eye in eyes if eye.readings is not None]
    prints = {(e.patient, e.side): fingerprint(e.readings) for e in seen if e.readings is not None}
    both = sorted({p for p, side in prints if (p, "left") in prints and (p, "right") in prints})
    pairs = {p: likeness(prints[p, "left"], prints[p, "right"]) for p in both}
    alike = [p for p, like in pairs.items() if like >= _BOUNDS.min_same]
    print(f"\n## Same photograph: left against right of {len(pairs)} patients of ODIR")
    print(f"largest likeness {max(pairs.values()):.2f}; taken for the same: {alike or 'none'}")
    files = sorted((data / "eyepacs").glob("*.jpg"))[: 4 * _COPIED : 4]
    for name, change in _CHANGES.items():
        likes = [like for file in files if (like := _likeness(file, change)) is not None]
        share = 100 * float(np.mean(np.array(likes) >= _BOUNDS.min_same))
        low, middle, high = np.percentile(likes, [5, 50, 95])
        print(f"{name}: {low:.2f} {middle:.2f} {high:.2f}, taken for the same {share:.0f} %")


def _likeness(file: Path, change: Callable[[Frame], Frame]) -> float | None:
    frame = read_photograph(file)
    one, other = _verdict(frame), _verdict(np.ascontiguousarray(change(frame)))
    if not (isinstance(one, GateVerdict) and isinstance(other, GateVerdict)) or not one.usable:
        return None
    return likeness(one.fingerprint, other.fingerprint)


def _verdict(frame: Frame) -> GateVerdict | str:
    try:
        field = _FINDER.crop(frame, color="rgb").field_of_view
    except UngradableError as error:
        return error.reason
    return judge(frame, field, declared_eye=None, color="rgb")


def _jpeg(frame: Frame, quality: int) -> Frame:
    coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)


def _scaled(frame: Frame, factor: float) -> Frame:
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(frame, None, fx=factor, fy=factor, interpolation=way)


def _moved(frame: Frame, share: float, degrees: float) -> Frame:
    """The retina moved under the camera's fixed disc, as between two photographs of one eye."""
    field = _FINDER.crop(frame, color="rgb").field_of_view
    center = (field.center_x_px, field.center_y_px)
    matrix = cv2.getRotationMatrix2D(center, degrees, 1.0)
    matrix[0, 2] += 2 * share * field.radius_x_px
    size = (frame.shape[1], frame.shape[0])
    moved = cv2.warpAffine(frame, matrix, size, borderMode=cv2.BORDER_REFLECT)
    disc = np.zeros(frame.shape[:2], np.uint8)
    cv2.ellipse(disc, center, (field.radius_x_px - 1, field.radius_y_px - 1), 0, 0, 360, 1, -1)
    return moved * disc[:, :, None]


_CHANGES: dict[str, Callable[[Frame], Frame]] = {
    "the very same": lambda f: f,
    "JPEG 90": lambda f: _jpeg(f, 90),
    "JPEG 50": lambda f: _jpeg(f, 50),
    "scaled by 0.7, JPEG 75": lambda f: _jpeg(_scaled(f, 0.7), 75),
    "scaled by 0.5": lambda f: _scaled(f, 0.5),
    "scaled by 1.7": lambda f: _scaled(f, 1.7),
    "mirror image": lambda f: f[:, ::-1],
    "retake, moved 2 % of the disc": lambda f: _moved(f, 0.02, 0),
    "retake, moved 4 %": lambda f: _moved(f, 0.04, 0),
    "retake, moved 3 %, turned 2 degrees": lambda f: _moved(f, 0.03, 2),
}


def _faults(data: Path, graded: list[Eye]) -> None:
    good = [e for e in graded if e.label == "good" and e.refusal(_BOUNDS) is None]
    files = [data / "eyepacs" / f"{e.patient}_{e.side}.jpg" for e in good]
    frames = [read_photograph(f) for f in files[:: max(len(files) // _EYES_WITH_FAULTS, 1)]]
    print(f"\n## Faults in {len(frames)} good eyes: strength, refused, median of the figure")
    for name, (fault, strengths) in FAULTS.items():
        figure = MOVES[name][0]
        print(f"{name} ({figure}):", end=" ")
        for strength in strengths:
            verdicts = [_verdict(fault(f, _field(f), strength)) for f in frames]
            judged = [v for v in verdicts if isinstance(v, GateVerdict)]
            refused = np.mean([not (isinstance(v, GateVerdict) and v.usable) for v in verdicts])
            value = np.median([_figure(v, figure) for v in judged] or [0.0])
            print(f"{strength:g}: {100 * refused:.0f} % {value:.3g}", end="; ")
        reasons = Counter(v.reason if isinstance(v, GateVerdict) else v for v in verdicts)
        print("at the last:", dict(reasons))


def _resolutions(data: Path, graded: list[Eye]) -> None:
    good = [e for e in graded if e.label == "good"]
    files = [data / "eyepacs" / f"{e.patient}_{e.side}.jpg" for e in good[::3]]
    print(f"\n## Detail of {len(files)} good eyes at other sizes, of that at 400 px: median")
    for factor in (256 / 400, 300 / 400, 800 / 400, 1944 / 400):
        shares = []
        for frame in map(read_photograph, files):
            one, other = _verdict(frame), _verdict(_scaled(frame, factor))
            if isinstance(one, GateVerdict) and isinstance(other, GateVerdict):
                shares.append(_figure(other, "detail") / _figure(one, "detail"))
        print(f"{400 * factor:.0f} px: {np.median(shares):.3f}", end="; ")
    print()


def _field(frame: Frame) -> FieldOfView:
    return _FINDER.crop(frame, color="rgb").field_of_view


def _other_things() -> None:
    print("\n## No fundus")
    for name, frame in no_fundus().items():
        verdict = _verdict(frame)
        print(f"{name}:", verdict.reason if isinstance(verdict, GateVerdict) else verdict)


def _time(data: Path) -> None:
    photograph = read_photograph(sorted((data / "full_resolution").glob("*.jpg"))[0])
    inner = cv2.resize(photograph, (2200, 1880), interpolation=cv2.INTER_AREA)
    frames = [np.zeros((1944, 2592, 3), np.uint8) for _ in range(10)]
    for shift, frame in enumerate(frames):
        frame[32:1912, 150 + 5 * shift : 2350 + 5 * shift] = inner
    fields = [_field(frame) for frame in frames]
    times = []
    for turn in range(300):
        frame, field = frames[turn % 10], fields[turn % 10]
        start = time.perf_counter()
        judge(frame, field, declared_eye="left", color="rgb")
        times.append(1e3 * (time.perf_counter() - start))
    p50, p90 = np.percentile(times[50:], [50, 90])
    print(f"\n## Time of `judge`, 2592 x 1944, one thread: p50 {p50:.2f} ms, p90 {p90:.2f} ms")


if __name__ == "__main__":
    sys.exit(main())
