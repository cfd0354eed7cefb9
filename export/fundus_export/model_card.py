"""The model card: what a model was trained on, how well it does, and what it is not for.

Markdown, written from the checkpoint and its evaluations; no figure is typed by hand. What a
checkpoint cannot know, such as where the initial weights come from, is added as notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fundus_runtime.labels import ClassList
from fundus_training.checkpoint import Checkpoint

__all__ = ["INTENDED_USE", "model_card"]

INTENDED_USE = (
    "Research on bilateral screening of colour fundus photographs. Not a medical device: "
    "no diagnosis or treatment may rest on its output."
)

_PATIENT_ROWS = (
    ("challenge_score", "challenge score (mean of kappa, per-label accuracy and AUC, at 0.5)"),
    ("exact_match", "exact match"),
    ("micro_precision", "micro precision"),
    ("micro_recall", "micro recall"),
    ("micro_f1", "micro F1"),
    ("kappa", "kappa, flattened"),
    ("auc", "AUC, flattened"),
    ("macro_auc", "AUC, macro"),
    ("ece", "calibration error"),
)


def model_card(
    name: str,
    checkpoint: Checkpoint,
    evaluations: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> str:
    """The card of a bundle.

    Args:
        name: the bundle's name.
        checkpoint: calibrated.
        evaluations: reports of `fundus-train evaluate`, best with the split in their `data`.
        notes: sentences about where the model comes from.
    """
    parts = [
        f"# Model card: {name}",
        "",
        f"**{INTENDED_USE}**",
        "",
        *_model(checkpoint),
        "",
        *_training(checkpoint, notes),
    ]
    for report in evaluations:
        parts += ["", *_evaluation(report, checkpoint.classes)]
    parts += ["", *_limits(checkpoint), ""]
    return "\n".join(parts)


def _model(checkpoint: Checkpoint) -> list[str]:
    config, spec = checkpoint.model_config, checkpoint.spec
    size_m = sum(tensor.numel() for tensor in checkpoint.state.values()) / 1e6
    return [
        "## Model",
        "",
        f"DMS-Net with a {config.trunk} trunk, {size_m:.1f} M numbers, {spec.size} px, classes "
        + ", ".join(f"{k} {v}" for k, v in _named(checkpoint.classes).items())
        + ". Convolution and linear weights are rounded to FP16; preprocessing "
        f"`{spec.sha256[:16]}`.",
    ]


def _training(checkpoint: Checkpoint, notes: Sequence[str]) -> list[str]:
    split = checkpoint.split
    positives = checkpoint.training.get("positives_in_train", {})
    rows = [
        f"| {letter} {name} | {positives[letter]} |"
        for letter, name in _named(checkpoint.classes).items()
        if letter in positives
    ]
    return [
        "## Training data",
        "",
        f"{_collection(checkpoint.training)} Patients were split before any augmentation: "
        f"{len(split.train)} to train, {len(split.val)} to validate, {len(split.test)} kept for a "
        "test.",
        *(line for note in notes for line in ("", note)),
        "",
        "| class | patients in training |",
        "|---|---|",
        *rows,
    ]


def _collection(training: Mapping[str, Any]) -> str:
    layout = training.get("data_layout", "unknown")
    if not _is_odir(training):
        return f"The user's own data set (layout {layout}); its terms apply to these weights."
    return (
        f"ODIR-5K, photographs of both eyes (layout {layout}). The collection states no licence "
        "and is offered for research, and so are these weights."
    )


def _is_odir(training: Mapping[str, Any]) -> bool:
    return "odir" in str(training.get("data_layout"))


def _evaluation(report: Mapping[str, Any], classes: ClassList) -> list[str]:
    if "patient" in report and "operating_points" in report:
        return _labelled(report, classes)
    return _graded(report)


def _labelled(report: Mapping[str, Any], classes: ClassList) -> list[str]:
    data, patient = report["data"], report["patient"]
    default = report["operating_points"]["default"]
    point = report["operating_points"]["points"][default]
    lines = [
        _heading(data),
        "",
        f"{_caution(data)} Probabilities are {report['probabilities']}; intervals "
        f"are 95 % bootstrap intervals over {report['bootstrap']['resamples']} resamples of "
        "patients.",
        "",
        "| figure | value | 95 % interval |",
        "|---|---|---|",
        *(
            f"| {words} | {_cells(patient[key])} |"
            for key, words in _PATIENT_ROWS
            if key in patient
        ),
        "",
        f"Decisions at the operating point `{default}`:",
        "",
        "| class | positives | AUC | threshold | sensitivity | specificity |",
        "|---|---|---|---|---|---|",
    ]
    for letter, name in _named(classes).items():
        entry = point["classes"][letter]
        area = patient["auc_per_class"][letter]
        lines.append(
            f"| {letter} {name} | {entry['positives']} | {_span(area)} | "
            f"{entry['threshold']:.3f} | {_span(entry['sensitivity'])} | "
            f"{_span(entry['specificity'])} |"
        )
    referral, outcomes = point["referral"], point["outcomes"]
    lines += [
        "",
        f"Refer or not: sensitivity {_span(referral['sensitivity'])}, specificity "
        f"{_span(referral['specificity'])}. Outcomes: "
        + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        + ".",
    ]
    return lines


def _heading(data: Mapping[str, Any]) -> str:
    if data.get("split") == "all":
        return f"## On all {data['patients']} patients of {data['name']}"
    part = "test" if data.get("split") == "test" else "validation"
    return f"## On {data['patients']} {part} patients"


def _caution(data: Mapping[str, Any]) -> str:
    """What choices or training these patients have seen."""
    trained_on = data.get("patients_trained_on", 0)
    if trained_on:
        return (
            f"{trained_on} of these patients were trained on: the figures say how well the model "
            "remembers, not how well it does."
        )
    if data.get("split") == "test":
        return "Nothing was chosen on these patients."
    if data.get("split") == "all":
        return "None of these patients was trained on."
    return (
        "These patients chose the epoch, the calibration and the thresholds, so that the figures "
        "lean to the good side."
    )


def _graded(report: Mapping[str, Any]) -> list[str]:
    data = report["data"]
    lines = [
        f"## On {data['patients']} patients of another camera, with DR grades",
        "",
        f"AUC of class {report['class']} for {report['positive']}; {data['ungradable_eyes']} of "
        f"{data['eyes']} eyes were ungradable.",
        "",
        "| unit | cases | positives | AUC |",
        "|---|---|---|---|",
    ]
    for unit in ("eye", "patient"):
        area = report.get(unit)
        if area is not None:
            auc = _span(area["auc"])
            lines.append(f"| {unit} | {area['cases']} | {area['positives']} | {auc} |")
    return lines


def _limits(checkpoint: Checkpoint) -> list[str]:
    of_odir = [
        "- The collection is mostly of one population and a few cameras, and its labels come from "
        "readers' diagnostic keywords, some of them only suspected.",
    ]
    return [
        "## Limits",
        "",
        f"- The model sees an eye at {checkpoint.spec.size} px: the smallest lesions, such as "
        "single microaneurysms, do not show at that size.",
        "- Other cameras, ages and populations than those above were not validated.",
        *(of_odir if _is_odir(checkpoint.training) else []),
        "- Rare classes have few positives, so that their intervals are wide; classes with fewer "
        "than 20 positives are judged at 0.5.",
        "- An eye that is missing or ungradable makes the exam ungradable: refer.",
        "- Not a medical device. Research use only.",
    ]


def _named(classes: ClassList) -> dict[str, str]:
    return dict(zip(classes.letters, classes.names, strict=True))


def _cells(figure: Mapping[str, float | None]) -> str:
    return f"{_number(figure['value'])} | {_interval(figure)}"


def _span(figure: Mapping[str, Any]) -> str:
    value = figure.get("value")
    return f"{_number(value)} ({_interval(figure)})" if value is not None else "undefined"


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure.get("low"), figure.get("high")
    return "" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
