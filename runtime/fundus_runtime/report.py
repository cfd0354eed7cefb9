"""A result as one self-contained HTML page, for a person to read or print.

No script and no reference to anything outside the page: pictures are embedded, fonts are the
reader's own, heat maps are switched by the page's style sheet. Everything that comes from a bundle
or a file is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.atomic import atomic_text
from fundus_runtime.errors import ResultError
from fundus_runtime.figure_view import FigureView, meanings_of
from fundus_runtime.heat_picture import heat_picture
from fundus_runtime.picture_uri import jpeg_uri, png_uri
from fundus_runtime.result import ExamResult, EyeResult
from fundus_runtime.table import STAGE_NAMES

__all__ = ["load_template_engine", "render_report", "write_report"]

_PHOTOGRAPH_SIDE_PX = 720
_HEAT_SIDE_PX = 96

_OUTCOME_WORDS = {
    "ungradable": (
        "Ungradable",
        "Refer the patient. An eye is missing or could not be graded, so this exam cannot be "
        "normal.",
    ),
    "findings": ("Findings", "Refer the patient."),
    "normal": ("Normal", "No referral. No class but normal reaches its operating point."),
    "uncertain": (
        "Uncertain",
        "Refer the patient. No class reaches its operating point, normal included.",
    ),
}


@dataclass(frozen=True)
class _EyeView:
    """One eye as the template shows it."""

    result: EyeResult
    title: str
    photograph: str | None
    processed: str | None
    width_px: int
    height_px: int
    heat: Mapping[str, str]
    figures: tuple[FigureView, ...]


def write_report(
    result: ExamResult,
    left_frame: NDArray[np.uint8] | None,
    right_frame: NDArray[np.uint8] | None,
    path: str | Path,
    *,
    force: bool = False,
) -> Path:
    """Write the page of a result.

    Args:
        result: the exam.
        left_frame: the left eye as photographed, uint8 RGB, or None where it is absent.
        right_frame: the right eye, likewise.
        path: the HTML file.
        force: replace an existing file.

    Raises:
        ResultError: jinja2 is not installed, or the file cannot be written.
    """
    page = render_report(result, left_frame, right_frame)
    with atomic_text(path, force=force) as stream:
        stream.write(page)
    return Path(path)


def load_template_engine() -> ModuleType:
    """Import jinja2; called before an exam that ends in a report.

    Raises:
        ResultError: it is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ResultError(
            'the HTML report needs jinja2; install it: pip install "fundus-edge[demo]"'
        ) from error
    return jinja2


def render_report(
    result: ExamResult,
    left_frame: NDArray[np.uint8] | None,
    right_frame: NDArray[np.uint8] | None,
) -> str:
    """The page as text; see `write_report`."""
    jinja2 = load_template_engine()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("fundus_runtime").joinpath("templates/report.html.jinja")
    template = environment.from_string(source.read_text("utf-8"))
    headline, advice = _OUTCOME_WORDS[result.outcome]
    letters = _heat_letters(result)
    # as clinicians lay out both eyes: the patient's right eye on the reader's left
    eyes = [
        _eye_view(result.right, "Right eye (OD)", right_frame, letters),
        _eye_view(result.left, "Left eye (OS)", left_frame, letters),
    ]
    pair = () if result.likeness is None else (FigureView.of(result.likeness),)
    page: str = template.render(
        result=result,
        headline=headline,
        advice=advice,
        eyes=eyes,
        pair_figures=pair,
        meanings=meanings_of([*(one for eye in eyes for one in eye.figures), *pair]),
        stages=[
            (STAGE_NAMES.get(stage, stage), f"{value:.1f}")
            for stage, value in result.time_ms.items()
            if value is not None
        ],
        provenance=_provenance(result),
        heat_letters=letters,
        heat_first=next(iter(result.findings), None),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return page


def _eye_view(
    eye: EyeResult, title: str, frame: NDArray[np.uint8] | None, letters: tuple[str, ...]
) -> _EyeView:
    return _EyeView(
        result=eye,
        title=title,
        photograph=None if frame is None else jpeg_uri(frame, side_px=_PHOTOGRAPH_SIDE_PX),
        processed=None if eye.picture is None else png_uri(eye.picture.visible()),
        width_px=0 if frame is None else frame.shape[1],
        height_px=0 if frame is None else frame.shape[0],
        heat={} if frame is None else _heat_uris(eye, letters),
        figures=_figures(eye),
    )


def _figures(eye: EyeResult) -> tuple[FigureView, ...]:
    return () if eye.quality is None else tuple(map(FigureView.of, eye.quality.figures))


def _heat_uris(eye: EyeResult, letters: tuple[str, ...]) -> dict[str, str]:
    """Heat maps of these classes as pictures of the crop's box, by letter."""
    maps = eye.heat_maps
    if maps is None:
        return {}
    return {
        letter: png_uri(heat_picture(maps.over_crop(letter, side=_HEAT_SIDE_PX)))
        for letter in letters
        if letter in maps.letters
    }


def _heat_letters(result: ExamResult) -> tuple[str, ...]:
    """The classes that have a heat map in either eye, in order; not the normal one.

    Its evidence lies on healthy retina, and there the colours of findings would mislead.
    """
    found = {
        letter
        for eye in (result.left, result.right)
        if eye.heat_maps is not None
        for letter in eye.heat_maps.letters
    }
    found.discard(result.classes.normal)
    return tuple(letter for letter in result.classes.letters if letter in found)


def _provenance(result: ExamResult) -> list[tuple[str, Any]]:
    bundle, engine = result.bundle, result.engine
    trust = {
        "shipped": "shipped with this package",
        "signed": "signed with a key that this machine trusts",
        "unsigned": "unsigned: files are whole, origin not vouched for",
    }
    return [
        ("Software", f"fundus-edge {result.package_version}"),
        ("Bundle", f"{bundle.name} {bundle.version}"),
        ("Bundle trust", trust.get(bundle.trust, bundle.trust)),
        ("Bundle signer", bundle.signer or "none"),
        ("Bundle SHA-256", bundle.sha256),
        ("Encoder SHA-256", bundle.encoder_sha256),
        ("Head SHA-256", bundle.head_sha256),
        ("Preprocessing SHA-256", bundle.preprocess_sha256),
        *((f"Plan SHA-256, {graph}", sha) for graph, sha in (engine.plan_sha256 or {}).items()),
        ("Engine", f"{engine.backend}, {engine.provider}, {engine.threads} thread(s)"),
        ("Model form", f"{engine.dialect}, computed in {engine.precision}"),
        ("Certificate", result.certificate.statement),
        ("Degraded", engine.degraded_reason or "yes" if engine.degraded else "no"),
        ("Operating point", result.operating_point),
        ("Intended use", result.intended_use),
    ]
