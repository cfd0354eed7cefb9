"""Find the field of view: the bright disc that a fundus camera leaves on a dark surround.

Input is an RGB or BGR frame, H x W x 3, 8 bits; output is a `FieldOfView` in whole frame pixels.
The search sees only a thumbnail of plain strided samples (128 to 255 on the shorter side), and the
result depends on integer sums and on IEEE double arithmetic in a fixed order alone, so that every
implementation of this rule gives the same integers.

The rule: samples brighter than a threshold taken from the histogram; the largest 4-connected
component; its outermost samples along every row and column, without those on the frame's border or
on a straight cut; the circle through most of them (consensus over spread triples, then least
squares). Where no circle holds enough of them the frame may have been squashed, and the same search
is made along one stretched axis, giving an axis-aligned ellipse.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fundus_runtime.preprocess.eye import FieldOfView
from fundus_runtime.preprocess.opencv import cv2
from fundus_runtime.preprocess.refusals import no_field_of_view, no_fundus

__all__ = ["FieldOfView", "find_field_of_view", "thumbnail_stride"]

Points = npt.NDArray[np.float64]

_MIN_THUMBNAIL = 128
_THRESHOLD_FLOOR, _THRESHOLD_CEILING = 12, 32
_MIN_RIM_POINTS = 24
_STRAIGHT_PERCENT = 30
_MIN_CONSENSUS = 0.45
_CIRCLE_CONSENSUS = 0.80
_ELLIPSE_GAIN = 1.10
_STRETCHES = (0.60, 0.66, 0.75, 0.80, 0.86, 0.93, 1.07, 1.16, 1.25, 1.33, 1.50, 1.66)
_TRIPLE_STARTS = 24
_SECTORS = 24
_MIN_SECTORS = 6
_MIN_BRIGHT_PERCENT = 25


def thumbnail_stride(height: int, width: int) -> int:
    """Distance in frame pixels between the samples of the thumbnail.

    Frames of 1024 rows and columns or more are read at one row in eight or fewer.
    """
    return max(1, min(height, width) // _MIN_THUMBNAIL)


def find_field_of_view(frame: npt.NDArray[np.uint8]) -> FieldOfView:
    """The field of view of a photograph.

    Args:
        frame: H x W x 3, 8 bits, any channel order.

    Raises:
        UngradableError: no disc is there (``no_fundus``), or its rim cannot be seen
            (``no_field_of_view``).
    """
    height, width = frame.shape[:2]
    stride = thumbnail_stride(height, width)
    # a sample stands for the middle of its cell
    brightness = frame[stride // 2 :: stride, stride // 2 :: stride].max(axis=2)
    component = _largest_component(brightness > _threshold(brightness))
    rim = _rim_points(component)
    if len(rim) < _MIN_RIM_POINTS:
        raise no_field_of_view("the frame is filled to its borders")
    center_x, center_y, radius_x, radius_y, inliers = _fit_disc(rim)
    _require_plausible(rim, inliers, (center_x, center_y, radius_x, radius_y), component)
    # rim coordinates count half thumbnail cells from the thumbnail's corner
    to_px = stride / 2.0
    x_px, y_px = _round(center_x * to_px), _round(center_y * to_px)
    rx_px, ry_px = max(_round(radius_x * to_px), 1), max(_round(radius_y * to_px), 1)
    return FieldOfView(
        center_x_px=x_px,
        center_y_px=y_px,
        radius_x_px=rx_px,
        radius_y_px=ry_px,
        rim_permille=1000 * int(inliers.sum()) // len(rim),
        visible_permille=_visible_permille(x_px, y_px, rx_px, ry_px, height, width),
    )


def _threshold(brightness: npt.NDArray[np.uint8]) -> int:
    """A sixth of the 95th percentile, kept between sensor noise and a dim retina."""
    histogram = np.bincount(brightness.ravel(), minlength=256)
    rank = (brightness.size * 95 + 99) // 100
    percentile = int(np.searchsorted(np.cumsum(histogram), rank))
    return min(max(percentile // 6, _THRESHOLD_FLOOR), _THRESHOLD_CEILING)


def _largest_component(bright: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if len(areas) == 0 or int(areas.max()) * 50 < bright.size:
        raise no_fundus()
    component: npt.NDArray[np.bool_] = labels == 1 + int(areas.argmax())
    return component


def _rim_points(component: npt.NDArray[np.bool_]) -> Points:
    """N x 2 (x, y): outermost cell edges by row and by column, in half cells, borders left out."""
    across = _outer_edges(component)
    down = _outer_edges(component.T)[:, ::-1]
    return np.concatenate([across, down]).astype(np.float64)


def _outer_edges(component: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero(component.any(axis=1))
    last = component.shape[1] - 1
    first_x = component[rows].argmax(axis=1)
    last_x = last - component[rows, ::-1].argmax(axis=1)
    left = np.stack([2 * first_x, 2 * rows + 1], axis=1)[first_x > 0]
    right = np.stack([2 * last_x + 2, 2 * rows + 1], axis=1)[last_x < last]
    return np.concatenate([_without_straight_cut(left), _without_straight_cut(right)])


def _without_straight_cut(edge: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Drop the points of a straight side: a camera's black band cuts the disc like the border.

    A circle keeps to one column for at most a sixth of its height at this sampling.
    """
    if len(edge) == 0:
        return edge
    counts = np.bincount(edge[:, 0])
    column = int(counts.argmax())
    if int(counts[column]) * 100 < _STRAIGHT_PERCENT * len(edge):
        return edge
    return edge[np.abs(edge[:, 0] - column) > 2]


def _fit_disc(rim: Points) -> tuple[float, float, float, float, npt.NDArray[np.bool_]]:
    """(centre x, centre y, radius x, radius y, which points lie on it), in half cells."""
    x, y, radius, inliers = _fit_circle(rim)
    best = (x, y, radius, radius, inliers)
    if inliers.sum() >= _CIRCLE_CONSENSUS * len(rim):
        return best
    needed = _ELLIPSE_GAIN * float(inliers.sum())
    for stretch in _STRETCHES:
        stretched = rim * np.array([stretch, 1.0])
        x, y, radius, inliers = _fit_circle(stretched)
        if inliers.sum() > needed:
            needed = float(inliers.sum())
            best = (x / stretch, y, radius / stretch, radius, inliers)
    return best


def _fit_circle(points: Points) -> tuple[float, float, float, npt.NDArray[np.bool_]]:
    """Consensus over triples spread along the rim, then least squares on those that agree."""
    order = np.argsort(_turn(points - points.mean(axis=0)), kind="stable")
    x, y, radius, inliers = 0.0, 0.0, 0.0, np.zeros(len(points), dtype=bool)
    for triple in _triples(len(points)):
        candidate = _circumcircle(points[order[triple]])
        agree = _on_circle(points, *candidate)
        if agree.sum() > inliers.sum():
            (x, y, radius), inliers = candidate, agree
    for _ in range(4):
        if inliers.sum() < 3:
            break
        x, y, radius = _least_squares_circle(points[inliers])
        inliers = _on_circle(points, x, y, radius)
    return x, y, radius, inliers


def _turn(offsets: Points) -> npt.NDArray[np.float64]:
    """A number that grows with the angle, 0 to 4: exact where arctan2 is not."""
    x, y = offsets[:, 0], offsets[:, 1]
    span = np.maximum(np.abs(x) + np.abs(y), 1e-12)
    quarter = y / span
    turn: npt.NDArray[np.float64] = np.where(
        x < 0, 2.0 - quarter, np.where(y < 0, 4.0 + quarter, quarter)
    )
    return turn


def _triples(count: int) -> list[list[int]]:
    """Index triples, each spread over a third, a quarter or a sixth of the turn apart."""
    spreads = (count // 3, count // 4, count // 6)
    starts = [count * k // _TRIPLE_STARTS for k in range(_TRIPLE_STARTS)]
    return [[(s + step * d) % count for step in range(3)] for s in starts for d in spreads]


def _circumcircle(three: Points) -> tuple[float, float, float]:
    (ax, ay), (bx, by), (cx, cy) = ((float(x), float(y)) for x, y in three)
    bx, by, cx, cy = bx - ax, by - ay, cx - ax, cy - ay
    twice_area = 2.0 * (bx * cy - by * cx)
    if abs(twice_area) < 1e-9:
        return 0.0, 0.0, 0.0
    b2, c2 = bx * bx + by * by, cx * cx + cy * cy
    x = (cy * b2 - by * c2) / twice_area
    y = (bx * c2 - cx * b2) / twice_area
    return ax + x, ay + y, float(np.sqrt(x * x + y * y))


def _on_circle(points: Points, x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    """Within one cell and a hundredth of the radius of the circle."""
    tolerance = 2.0 + 0.01 * radius
    dx, dy = points[:, 0] - x, points[:, 1] - y
    distance = np.sqrt(dx * dx + dy * dy)
    agree: npt.NDArray[np.bool_] = np.abs(distance - radius) <= tolerance
    return agree


def _least_squares_circle(points: Points) -> tuple[float, float, float]:
    """Kasa's algebraic fit, about the points' mean."""
    count = len(points)
    mean_x, mean_y = _sum(points[:, 0]) / count, _sum(points[:, 1]) / count
    u, v = points[:, 0] - mean_x, points[:, 1] - mean_y
    uu, vv, uv = _sum(u * u), _sum(v * v), _sum(u * v)
    square = u * u + v * v
    su, sv = _sum(u * square) / 2.0, _sum(v * square) / 2.0
    determinant = uu * vv - uv * uv
    if determinant < 1e-9:
        return 0.0, 0.0, 0.0
    x = (su * vv - sv * uv) / determinant
    y = (sv * uu - su * uv) / determinant
    return mean_x + x, mean_y + y, float(np.sqrt(x * x + y * y + (uu + vv) / count))


def _sum(values: npt.NDArray[np.float64]) -> float:
    """Left to right, which another implementation can repeat; NumPy's own sum is pairwise."""
    return float(np.cumsum(values)[-1])


def _require_plausible(
    rim: Points,
    inliers: npt.NDArray[np.bool_],
    disc: tuple[float, float, float, float],
    component: npt.NDArray[np.bool_],
) -> None:
    x, y, radius_x, radius_y = disc
    height, width = 2.0 * component.shape[0], 2.0 * component.shape[1]
    on_rim = rim[inliers]
    if len(on_rim) < max(_MIN_RIM_POINTS, _MIN_CONSENSUS * len(rim)):
        raise no_field_of_view("its outline is not round")
    if not (0.0 < x < width and 0.0 < y < height):
        raise no_field_of_view("its outline curves around a point outside the frame")
    if 2.0 * min(radius_x, radius_y) > 1.6 * max(height, width):
        raise no_field_of_view("its outline is nearly straight")
    unit = (on_rim - np.array([x, y])) / np.array([radius_x, radius_y])
    sectors = np.unique(np.floor(_turn(unit) * (_SECTORS / 4)).astype(int) % _SECTORS)
    if len(sectors) < _MIN_SECTORS:
        raise no_field_of_view("too little of its edge is visible")
    rows, columns = np.ogrid[: component.shape[0], : component.shape[1]]
    dx, dy = (2 * columns + 1 - x) / radius_x, (2 * rows + 1 - y) / radius_y
    disc_area = dx * dx + dy * dy <= 1.1
    inside = int((component & disc_area).sum())
    if inside * 10 < 9 * int(component.sum()):
        raise no_field_of_view("much of what is bright lies outside it")
    # a reflection's ring or crescent; of 5,700 real fields the darkest shows nearly half
    if inside * 100 < _MIN_BRIGHT_PERCENT * int(disc_area.sum()):
        raise no_field_of_view("most of it is dark")


def _round(value: float) -> int:
    """Half up, which C++ can repeat as floor(value + 0.5)."""
    return int(np.floor(value + 0.5))


def _visible_permille(x: int, y: int, rx: int, ry: int, height: int, width: int) -> int:
    across = min(x + rx, width) - max(x - rx, 0)
    down = min(y + ry, height) - max(y - ry, 0)
    return 1000 * max(across, 0) * max(down, 0) // (4 * rx * ry)
