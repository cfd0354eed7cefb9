"""Evaluation reports as text for people: every figure with its 95 % interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["text_of_calibration", "text_of_evaluation", "text_of_grades", "text_of_points"]

_PATIENT_FIGURES = (
    ("exact match", "exact_match"),
    ("micro precision", "micro_precision"),
    ("micro recall", "micro_recall"),
    ("micro F1", "micro_f1"),
    ("kappa, flattened", "kappa"),
    ("AUC, flattened", "auc"),
    ("challenge score", "challenge_score"),
    ("macro AUC", "macro_auc"),
    ("calibration error", "ece"),
)
_EYE_FIGURES = tuple(pair for pair in _PATIENT_FIGURES if pair[1] != "challenge_score")


def text_of_evaluation(report: Mapping[str, Any], classes: Mapping[str, str]) -> str:
    """An evaluation as tables.

    Args:
        report: what `evaluate` returned, with the data set's `split` in `data` if known.
        classes: names by letter.
    """
    data, plain = report["data"], report["uncalibrated"]
    parts = [
        f"{data['patients']} patients{_of_split(data)}, {data['both_eyes']} with both eyes, "
        f"{data['without_gradable_eye']} more left out without a gradable eye; "
        f"{report['probabilities']} probabilities, {_resampled(report)}",
        *_caution_lines(data),
        "",
        "Patients, calls at 0.5",
        *_figure_lines(report["patient"], _PATIENT_FIGURES),
        f"  the challenge score is the mean of kappa, AUC and per-label accuracy "
        f"({report['patient']['challenge_f1']['value']:.3f})",
        f"  without calibration: challenge score {_number(plain['challenge_score'])}, exact match "
        f"{_number(plain['exact_match'])}, calibration error {_number(plain['ece'])}",
        "",
        *_class_lines(report["patient"], classes),
    ]
    for name, point in report["operating_points"]["points"].items():
        default = " (default)" if name == report["operating_points"]["default"] else ""
        parts += ["", f"Operating point {name}{default}", *_point_lines(point)]
    eye = report["eye"]
    if eye is not None:
        parts += ["", f"Eyes ({eye['rows']} labelled), calls at 0.5"]
        parts += [*_figure_lines(eye, _EYE_FIGURES), "", *_class_lines(eye, classes)]
        default = eye["operating_points"]["default"]
        parts += ["", f"Eyes, operating point {default}"]
        parts += _share_lines(eye["operating_points"]["points"][default]["classes"])
    return "\n".join(parts)


def text_of_grades(report: Mapping[str, Any]) -> str:
    """An evaluation on DR grades as a table."""
    data = report["data"]
    refused = ", ".join(f"{k} {n}" for k, n in data["ungradable_eyes_by_quality"].items())
    rows: list[tuple[str, ...]] = [("", "cases", "positives", "AUC", "95 % interval")]
    for unit in ("eye", "patient"):
        if report[unit] is not None:
            rows.append((unit, *_area_cells(report[unit])))
            rows += [
                (f"  {quality}", *_area_cells(area))
                for quality, area in report[unit]["by_quality"].items()
            ]
    return "\n".join(
        [
            f"class {report['class']} for {report['positive']}: {data['patients']} patients, "
            f"{data['ungradable_eyes']} of {data['eyes']} eyes ungradable"
            + (f" ({refused})" if refused else ""),
            _resampled(report),
            "",
            *_table(rows),
        ]
    )


def text_of_calibration(before_and_after: Mapping[str, Mapping[str, float]]) -> str:
    """Calibration errors before and after a fit, a row for patients and one for eyes."""
    rows: list[tuple[str, ...]] = [("calibration error", "before", "after", "after, cross-fitted")]
    rows += [
        (unit, *(_number(errors[key]) for key in ("before", "after", "cross_fitted")))
        for unit, errors in before_and_after.items()
    ]
    return "\n".join(_table(rows))


def text_of_points(points: Mapping[str, Any]) -> str:
    """Thresholds of `OperatingPoints.to_dict()`, a row a class, and the default point's rules."""
    names = list(points["points"])
    default = points["points"][points["default"]]
    header = ("", *(f"{name}*" if name == points["default"] else name for name in names))
    rows = [header]
    rows += [
        (letter, *(f"{points['points'][name][letter]['threshold']:.3f}" for name in names))
        for letter in default
    ]
    rules = [f"  {letter}: {entry['rule']}" for letter, entry in default.items()]
    return "\n".join([*_table(rows), "* the default; its rules:", *rules])


def _caution_lines(data: Mapping[str, Any]) -> list[str]:
    trained = data.get("patients_trained_on", 0)
    if not trained:
        return []
    return [f"TOO GOOD TO BE EVIDENCE: the model was trained on {trained} of these patients"]


def _of_split(data: Mapping[str, Any]) -> str:
    return f" of split {data['split']!r}" if "split" in data else ""


def _resampled(report: Mapping[str, Any]) -> str:
    count = report["bootstrap"]["resamples"]
    return f"95 % intervals from {count} resamples of patients" if count else "no intervals"


def _figure_lines(figures: Mapping[str, Any], wanted: Iterable[tuple[str, str]]) -> list[str]:
    return _table([(name, *_figure_cells(figures[key])) for name, key in wanted])


def _class_lines(figures: Mapping[str, Any], classes: Mapping[str, str]) -> list[str]:
    rows = [("class", "", "positives", "AUC", "95 % interval", "calibration error")]
    rows += [
        (
            letter,
            classes.get(letter, letter),
            str(figures["positives"][letter]),
            *_figure_cells(area),
            _number(figures["ece_per_class"][letter]),
        )
        for letter, area in figures["auc_per_class"].items()
    ]
    return _table(rows)


def _point_lines(point: Mapping[str, Any]) -> list[str]:
    referral = point["referral"]
    outcomes = ", ".join(f"{name} {count}" for name, count in point["outcomes"].items())
    sensitivity, specificity = (
        " ".join(_figure_cells(referral[key])) for key in ("sensitivity", "specificity")
    )
    exact, kappa = (" ".join(_figure_cells(point["figures"][k])) for k in ("exact_match", "kappa"))
    return [
        *_share_lines(point["classes"]),
        f"  exact match {exact}, kappa {kappa}",
        f"  outcomes: {outcomes}",
        f"  referral of {referral['patients_with_findings']} patients with findings: "
        f"sensitivity {sensitivity}, specificity {specificity}",
    ]


def _share_lines(classes: Mapping[str, Any]) -> list[str]:
    rows = [("", "threshold", "sensitivity", "95 % interval", "specificity", "95 % interval")]
    rows += [
        (
            letter,
            f"{entry['threshold']:.3f}",
            *_figure_cells(entry["sensitivity"]),
            *_figure_cells(entry["specificity"]),
        )
        for letter, entry in classes.items()
    ]
    return _table(rows)


def _area_cells(area: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(area["cases"]), str(area["positives"]), *_figure_cells(area["auc"]))


def _figure_cells(figure: Mapping[str, float | None]) -> tuple[str, str]:
    low, high = figure["low"], figure["high"]
    interval = "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
    return _number(figure["value"]), interval


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in aligned columns, words to the left and numbers to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(_aligned(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _aligned(cell: str, width: int) -> str:
    is_number = cell[:1].isdigit() or cell in ("undefined", "AUC", "cases", "positives")
    return cell.rjust(width) if is_number else cell.ljust(width)
