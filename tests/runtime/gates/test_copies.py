"""The same photograph: copies are, retakes of the same eye are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fundus_runtime.gates import likeness, same_photograph
from fundus_runtime.gates.fingerprint import Fingerprint


def jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def scaled(frame: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def moved(frame: np.ndarray, field, share: float, degrees: float) -> np.ndarray:
    """The retina moved under the camera's disc."""
    center = (field.center_x_px, field.center_y_px)
    matrix = cv2.getRotationMatrix2D(center, degrees, 1.0)
    matrix[0, 2] += 2 * share * field.radius_x_px
    size = (frame.shape[1], frame.shape[0])
    turned = cv2.warpAffine(frame, matrix, size, borderMode=cv2.BORDER_REFLECT)
    disc = np.zeros(frame.shape[:2], np.uint8)
    cv2.ellipse(disc, center, (field.radius_x_px - 1, field.radius_y_px - 1), 0, 0, 360, 1, -1)
    return turned * disc[:, :, None]


@pytest.mark.parametrize("quality", [95, 75, 50])
@pytest.mark.parametrize("factor", [1.0, 0.75, 0.5])
def test_a_copy_is_the_same_photograph(eye, verdict_on, quality, factor) -> None:
    copy = verdict_on(jpeg(scaled(eye, factor), quality))
    assert same_photograph(verdict_on(eye).fingerprint, copy.fingerprint)


@pytest.mark.parametrize(("share", "degrees"), [(0.04, 0), (0.03, 2), (-0.06, -3)])
def test_a_retake_is_another_photograph(eye, field_of, verdict_on, share, degrees) -> None:
    retake = verdict_on(moved(eye, field_of(eye), share, degrees))
    assert not same_photograph(verdict_on(eye).fingerprint, retake.fingerprint)


def test_a_disc_that_is_not_moved_stays_the_same(eye, field_of, verdict_on) -> None:
    still = verdict_on(moved(eye, field_of(eye), 0.0, 0.0))
    assert same_photograph(verdict_on(eye).fingerprint, still.fingerprint)


def test_pictures_without_structure_are_never_the_same(verdict_on) -> None:
    flat = np.zeros((400, 400, 3), np.uint8)
    cv2.circle(flat, (200, 200), 180, (200, 120, 60), -1)
    one = verdict_on(flat).fingerprint
    assert likeness(one, one) == 0


def test_only_cells_that_both_photographs_show_are_compared(eye, verdict_on) -> None:
    whole = verdict_on(eye).fingerprint
    green, inside = whole.green.copy(), whole.inside.copy()
    inside[:, :30] = False
    green[:, :30] = 0
    cut = Fingerprint(green, inside)
    both = whole.cells & cut.cells
    x, y = whole.structure_of(both), cut.structure_of(both)
    expected = (x @ y) / np.sqrt((x @ x) * (y @ y))
    assert likeness(whole, cut) == likeness(cut, whole) == pytest.approx(expected, rel=1e-12)
    assert 0.9 < expected < 1
    # what was computed for one comparison does not show in the next
    assert likeness(whole, whole) == pytest.approx(1)
    assert likeness(whole, cut) == pytest.approx(expected, rel=1e-12)
