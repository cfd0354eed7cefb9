"""A result as plain text for a terminal."""

from __future__ import annotations

from fundus_runtime.labels import EYES
from fundus_runtime.result import ExamResult

__all__ = ["ADVICE", "STAGE_NAMES", "format_result"]

# What each outcome means for the patient, in words; only `normal` is ever shown as normal.
ADVICE = {
    "ungradable": "refer: an eye is missing or cannot be graded",
    "findings": "refer",
    "normal": "do not refer",
    "uncertain": "refer: no class reaches its operating point",
}
STAGE_NAMES = {
    "decode": "decode both",
    "preprocess_left": "preprocess left",
    "preprocess_right": "preprocess right",
    "gates_left": "gates left",
    "gates_right": "gates right",
    "encode": "encoder",
    "encode_left": "encoder left",
    "encode_right": "encoder right",
    "head": "head",
    "second_eye_wait": "wait after the last photograph",
    "total": "total",
}


def format_result(result: ExamResult) -> str:
    """The result as lines of text; a star marks a class at or above its operating point."""
    parts = [_outcome_lines(result), _eye_lines(result)]
    if result.decisions:
        parts.append(_class_lines(result))
    parts.append(_latency_lines(result))
    parts.append(_provenance_lines(result))
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _outcome_lines(result: ExamResult) -> list[str]:
    lines = [f"{result.outcome.upper()}  ->  {ADVICE[result.outcome]}"]
    if result.findings:
        names = ", ".join(f"{one} {result.classes.name_of(one)}" for one in result.findings)
        lines.append(f"findings: {names}")
    return lines


def _eye_lines(result: ExamResult) -> list[str]:
    lines = []
    for eye in EYES:
        part = result.eye(eye)
        reason = f"{part.reason}: " if part.status == "ungradable" else ""
        why = f"  {reason}{part.hint}" if part.status != "ok" else ""
        lines.append(f"{eye + ' eye':<10} {part.status}{why}")
    return lines + [f"warning    {warning}" for warning in result.warnings]


def _class_lines(result: ExamResult) -> list[str]:
    width = max(len(name) for name in result.classes.names)
    mark = max(len(letter) for letter in result.classes.letters)
    both = result.outcome != "ungradable"
    whose = "patient" if both else "one eye"
    head = f"{'':<{mark}}  {'class':<{width}}  {whose}  threshold    left   right"
    lines = [head, "-" * len(head)]
    for letter, one in result.decisions.items():
        eyes = "  ".join(_cell(result.eye(eye).probabilities.get(letter)) for eye in EYES)
        star = "*" if one.present else " "
        name = result.classes.name_of(letter)
        lines.append(
            f"{letter:<{mark}}  {name:<{width}}  {one.probability:6.3f}{star}"
            f"  {one.threshold:9.3f}  {eyes}"
        )
    lines.append(f"* at or above the threshold of operating point {result.operating_point!r}")
    if not both:
        lines.append("  one eye alone was screened, which cannot make the exam normal")
    return lines


def _cell(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.3f}"


def _latency_lines(result: ExamResult) -> list[str]:
    stages = [
        f"{STAGE_NAMES.get(stage, stage)} {ms:.1f}"
        for stage, ms in result.time_ms.items()
        if ms is not None and stage not in ("total", "second_eye_wait")
    ]
    total = result.time_ms.get("total") or 0.0
    return [f"latency    {total:.1f} ms ({', '.join(stages)})"]


def _provenance_lines(result: ExamResult) -> list[str]:
    bundle, engine = result.bundle, result.engine
    threads = f"{engine.threads} thread{'' if engine.threads == 1 else 's'}"
    signer = "" if bundle.signer is None else f", signer {bundle.signer[:16]}"
    return [
        f"bundle     {bundle.name} {bundle.version} ({bundle.trust}{signer}), "
        f"sha256 {bundle.sha256[:16]}",
        f"engine     {engine.backend} {engine.provider}, {engine.dialect}, {threads}; "
        f"fundus-edge {result.package_version}",
        f"parity     {result.certificate.statement}",
        "For research only. Not a medical device.",
    ]
