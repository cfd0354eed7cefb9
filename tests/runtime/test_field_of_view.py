"""The field of view on drawn discs, whose place is known, and on real photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundus_runtime.errors import UngradableError
from fundus_runtime.preprocess import (
    FieldOfView,
    PreprocessSpec,
    crop_eye,
    find_field_of_view,
    thumbnail_stride,
)

REFUSALS = {"no_fundus", "no_field_of_view", "field_of_view_too_small"}
RETINA = (1.0, 0.5, 0.25)
# a frame costs some 20 ms to draw and search
FEW = settings(max_examples=max(20, settings.default.max_examples // 5))


def tolerance_px(height: int, width: int, radius_px: float) -> float:
    """How far a centre or a radius may be from the truth.

    One cell of the thumbnail: an edge is only known to lie between two samples. A hundredth of the
    radius: what the rule itself calls "on the circle".
    """
    return thumbnail_stride(height, width) + 0.01 * radius_px


@dataclass(frozen=True)
class Disc:
    """The truth, in frame pixels; a pixel's centre lies at its index and a half."""

    x: float
    y: float
    radius_x: float
    radius_y: float

    def moved(self, across: float, down: float) -> Disc:
        return Disc(self.x + across, self.y + down, self.radius_x, self.radius_y)

    def distance(self, width: int, height: int) -> np.ndarray:
        """Of every pixel from the centre, in radii."""
        y, x = np.ogrid[:height, :width]
        across, down = (x + 0.5 - self.x) / self.radius_x, (y + 0.5 - self.y) / self.radius_y
        return np.sqrt(across**2 + down**2)


def rendered(
    width: int,
    height: int,
    disc: Disc,
    *,
    peak: float = 200,
    vignette: float = 0.5,
    tilt: float = 0,
    border: int = 4,
    seed: int = 0,
) -> np.ndarray:
    """A disc that darkens to its rim (`vignette`) and to its left (`tilt`) on a noisy surround."""
    random = np.random.default_rng(seed)
    distance = disc.distance(width, height)
    coverage = np.clip((1 - distance) * min(disc.radius_x, disc.radius_y) + 0.5, 0, 1)
    slope = 1 + tilt * (np.arange(width) + 0.5 - disc.x) / disc.radius_x
    level = np.clip(peak * (1 - vignette * distance**2) * slope, 0, None) * coverage
    surround = random.integers(0, border + 1, (height, width, 1))
    frame = level[:, :, None] * np.array(RETINA) + surround
    frame += random.normal(0, 2, frame.shape)
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def disc_of(field: FieldOfView) -> Disc:
    return Disc(field.center_x_px, field.center_y_px, field.radius_x_px, field.radius_y_px)


def error_px(field: FieldOfView, disc: Disc) -> float:
    return max(
        abs(field.center_x_px - disc.x),
        abs(field.center_y_px - disc.y),
        abs(field.radius_x_px - disc.radius_x),
        abs(field.radius_y_px - disc.radius_y),
    )


def assert_found(frame: np.ndarray, disc: Disc) -> FieldOfView:
    field = find_field_of_view(frame)
    height, width = frame.shape[:2]
    allowed = tolerance_px(height, width, max(disc.radius_x, disc.radius_y))
    assert error_px(field, disc) <= allowed, f"{field} is not {disc} within {allowed:.1f} px"
    return field


def refusal_of(frame: np.ndarray) -> str:
    with pytest.raises(UngradableError) as caught:
        find_field_of_view(frame)
    assert caught.value.hint
    return caught.value.reason


def answer_to(frame: np.ndarray) -> FieldOfView | str:
    """The field of an eye that can be cropped, or the reason why there is none."""
    try:
        return crop_eye(frame, PreprocessSpec(size=32)).field_of_view
    except UngradableError as error:
        return error.reason


Scene = tuple[int, int, Disc]


@st.composite
def whole_discs(draw: st.DrawFn, smallest: float = 0.27, largest: float = 0.48) -> Scene:
    """Width, height and a round disc that lies whole in the frame; radii in parts of the height."""
    height = draw(st.integers(140, 560))
    width = draw(st.integers(height, 8 * height // 5))
    radius = draw(st.floats(smallest, largest)) * height
    x = draw(st.floats(radius + 2, width - radius - 2))
    y = draw(st.floats(radius + 2, height - radius - 2))
    return width, height, Disc(x, y, radius, radius)


# --- whole discs, well and badly lit


@FEW
@given(whole_discs())
def test_disc_is_found_wherever_it_lies(scene: Scene) -> None:
    width, height, disc = scene
    field = assert_found(rendered(width, height, disc), disc)
    assert field.radius_x_px == field.radius_y_px
    assert field.rim_permille >= 900


@FEW
@given(whole_discs(), st.floats(25, 40))
def test_dim_disc_is_found_on_a_noisy_surround(scene: Scene, peak: float) -> None:
    width, height, disc = scene
    assert_found(rendered(width, height, disc, peak=peak, vignette=0.2), disc)


@FEW
@given(whole_discs(), st.floats(0.5, 0.95), st.booleans())
def test_disc_that_is_dark_on_one_side_is_found(scene: Scene, tilt: float, mirror: bool) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc, peak=160, vignette=0.3, tilt=tilt)
    if mirror:
        frame, disc = frame[:, ::-1], Disc(width - disc.x, disc.y, disc.radius_x, disc.radius_y)
    assert_found(frame, disc)


@FEW
@given(whole_discs(), st.integers(20, 90))
def test_jpeg_noise_around_the_disc_does_not_matter(scene: Scene, quality: int) -> None:
    width, height, disc = scene
    done, data = cv2.imencode(
        ".jpg", rendered(width, height, disc), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    assert_found(cv2.imdecode(data, cv2.IMREAD_COLOR), disc)


@FEW
@given(whole_discs(0.33, 0.46), st.floats(0, 6.28), st.floats(0.6, 1.5))
def test_over_exposed_rim_with_a_halo_does_not_move_it(
    scene: Scene, towards: float, half_arc: float
) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc).astype(float)
    distance = disc.distance(width, height)
    y, x = np.ogrid[:height, :width]
    angle = np.arctan2(y + 0.5 - disc.y, x + 0.5 - disc.x)
    arc = np.cos(angle - towards) > np.cos(half_arc)
    frame[arc & (distance > 0.85) & (distance < 1)] = 255
    glow = 60 * np.exp(-(distance - 1) / 0.02) * (arc & (distance >= 1))
    assert_found(np.clip(frame + glow[:, :, None], 0, 255).astype(np.uint8), disc)


# --- marks on the rim, dust


@FEW
@given(whole_discs(0.33, 0.42), st.floats(0, 6.28), st.floats(0.03, 0.09))
def test_notch_tab_on_the_rim_does_not_move_it(scene: Scene, angle: float, size: float) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc)
    x, y = disc.x + disc.radius_x * np.cos(angle), disc.y + disc.radius_y * np.sin(angle)
    cv2.circle(frame, (int(x), int(y)), int(size * disc.radius_x) + 1, (180, 90, 45), -1)
    assert_found(frame, disc)


@FEW
@given(whole_discs(0.33, 0.46), st.integers(0, 2**32 - 1))
def test_dust_inside_and_outside_does_not_move_it(scene: Scene, seed: int) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc)
    inside = disc.distance(width, height) < 1
    random = np.random.default_rng(seed)
    for x, y, size in random.uniform((0, 0, 1), (width, height, 4), (30, 3)).astype(int):
        colour = (2, 2, 2) if inside[y, x] else (90, 90, 90)
        cv2.circle(frame, (int(x), int(y)), int(size), colour, -1)
    assert_found(frame, disc)


# --- cut discs


@FEW
@given(
    whole_discs(0.36, 0.45),
    st.floats(0.1, 0.3),
    st.floats(0, 0.3),
    st.booleans(),
)
def test_black_bands_inside_the_frame_do_not_move_it(
    scene: Scene, top: float, bottom: float, sideways: bool
) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc)
    first = int(disc.y - disc.radius_y * (1 - top))
    last = int(disc.y + disc.radius_y * (1 - bottom))
    frame[:first] //= 64
    frame[last:] //= 64
    if sideways:
        frame, disc = frame.transpose(1, 0, 2), Disc(disc.y, disc.x, disc.radius_y, disc.radius_x)
    assert_found(frame, disc)


@FEW
@given(whole_discs(0.35, 0.46), st.floats(0.05, 0.4), st.integers(0, 3))
def test_disc_cut_by_one_side_of_the_frame_is_completed(
    scene: Scene, part: float, turns: int
) -> None:
    width, height, disc = scene
    removed = int(disc.y - disc.radius_y * (1 - part))
    frame = rendered(width, height, disc)[removed:]
    disc = disc.moved(0, -removed)
    height -= removed
    for _ in range(turns):
        frame = np.rot90(frame)
        disc = Disc(disc.y, width - disc.x, disc.radius_y, disc.radius_x)
        width, height = height, width
    field = assert_found(frame, disc)
    assert field.visible_permille < 1000


@FEW
@given(
    st.integers(140, 560),
    st.floats(0.52, 0.6),
    st.floats(-0.02, 0.02),
    st.booleans(),
)
def test_disc_cut_by_two_opposite_sides_is_completed(
    height: int, radius: float, shift: float, sideways: bool
) -> None:
    width = 3 * height // 2
    disc = Disc((0.5 + shift) * width, (0.5 + shift) * height, radius * height, radius * height)
    frame = rendered(width, height, disc)
    if sideways:
        frame, disc = frame.transpose(1, 0, 2), Disc(disc.y, disc.x, disc.radius_y, disc.radius_x)
    field = assert_found(frame, disc)
    assert field.visible_permille == pytest.approx(500 / radius, abs=30)


@FEW
@given(st.integers(140, 560), st.floats(0.52, 0.62), st.floats(-0.03, 0.03), st.floats(-0.03, 0.03))
def test_disc_cut_by_all_four_sides_is_completed_from_its_corners(
    side: int, radius: float, across: float, down: float
) -> None:
    disc = Disc((0.5 + across) * side, (0.5 + down) * side, radius * side, radius * side)
    assert_found(rendered(side, side, disc), disc)


# --- squashed discs


@FEW
@given(
    whole_discs(0.36, 0.48),
    st.sampled_from([4 / 3, 3 / 2, 5 / 4, 3 / 4, 2 / 3, 4 / 5]),
    st.booleans(),
)
def test_squashed_disc_gets_both_its_radii(scene: Scene, ratio: float, sideways: bool) -> None:
    width, height, disc = scene
    squashed = Disc(disc.x * ratio, disc.y, disc.radius_x * ratio, disc.radius_y)
    frame = rendered(round(width * ratio), height, squashed)
    if sideways:
        frame = frame.transpose(1, 0, 2)
        squashed = Disc(squashed.y, squashed.x, squashed.radius_y, squashed.radius_x)
    assert_found(frame, squashed)


@FEW
@given(st.integers(140, 560), st.sampled_from([4 / 3, 5 / 4, 3 / 4, 4 / 5]), st.floats(0.5, 0.56))
def test_squashed_disc_cut_by_two_sides_gets_both_its_radii(
    height: int, ratio: float, radius: float
) -> None:
    width = round(1.3 * height * ratio)
    disc = Disc(width / 2, height / 2, radius * height * ratio, radius * height)
    assert_found(rendered(width, height, disc), disc)


@FEW
@given(whole_discs(0.4, 0.48), st.floats(2 / 3, 3 / 2))
def test_odd_squash_is_found_to_the_nearest_stretch(scene: Scene, ratio: float) -> None:
    width, height, disc = scene
    squashed = Disc(disc.x * ratio, disc.y, disc.radius_x * ratio, disc.radius_y)
    frame = rendered(round(width * ratio), height, squashed)
    # the stretches that the rule tries are up to 13 % apart: half of that on either radius
    allowed = tolerance_px(*frame.shape[:2], 0) + 0.07 * max(squashed.radius_x, squashed.radius_y)
    assert error_px(find_field_of_view(frame), squashed) <= allowed


# --- sizes


@FEW
@given(whole_discs(0.02, 0.2))
def test_tiny_disc_is_refused_or_found_right(scene: Scene) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc)
    answer = answer_to(frame)
    if isinstance(answer, str):
        # below 64 px, or below a fiftieth of the frame's area
        smallest = max(32.0, (width * height / 50 / np.pi) ** 0.5)
        assert answer in {"no_fundus", "field_of_view_too_small"}
        assert disc.radius_x < smallest + tolerance_px(height, width, smallest)
    else:
        assert answer == assert_found(frame, disc)
        assert 2 * answer.radius_x_px >= 64


@pytest.mark.parametrize(
    ("radius", "reason"), [(8, "no_fundus"), (26, "field_of_view_too_small"), (40, None)]
)
def test_disc_is_refused_below_64_pixels(radius: int, reason: str | None) -> None:
    frame = rendered(200, 160, Disc(90, 70, radius, radius))
    if reason is None:
        assert crop_eye(frame, PreprocessSpec(size=32)).box.width_px in range(78, 83)
        return
    with pytest.raises(UngradableError) as caught:
        crop_eye(frame, PreprocessSpec(size=32))
    assert caught.value.reason == reason


@pytest.mark.parametrize("radius", [0.48, 0.58])
def test_disc_of_a_large_camera_is_found(radius: float) -> None:
    height, width = 2000, 2600
    disc = Disc(1290.0, 1010.0, radius * height, radius * height)
    assert_found(rendered(width, height, disc), disc)


def test_disc_that_fills_the_frame_is_refused() -> None:
    frame = rendered(300, 300, Disc(150, 150, 400, 400))
    assert refusal_of(frame) == "no_field_of_view"


# --- no disc


def blank() -> np.ndarray:
    return np.zeros((240, 320, 3), np.uint8)


def filled(*corners: tuple[int, int]) -> np.ndarray:
    return cv2.fillPoly(blank(), [np.array(corners, np.int32)], (200, 100, 50))


def striped(period: int, slant: int) -> np.ndarray:
    y, x = np.ogrid[:240, :320]
    return (((y + slant * x) // period) % 2)[:, :, None].astype(np.uint8) * np.uint8([[[180] * 3]])


def noisy(levels: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, levels, (240, 320, 3)).astype(np.uint8)


NOT_A_FUNDUS: dict[str, Callable[[], np.ndarray]] = {
    "black": blank,
    "white": lambda: blank() + 255,
    "dark grey": lambda: blank() + 9,
    "grey": lambda: blank() + 128,
    "one bright pixel": lambda: filled((5, 5), (5, 5)),
    "dark noise": lambda: noisy(14),
    "faint noise": lambda: noisy(30),
    "noise": lambda: noisy(256),
    "left half bright": lambda: filled((0, 0), (150, 0), (150, 240), (0, 240)),
    "middle band": lambda: filled((0, 60), (320, 60), (320, 170), (0, 170)),
    "rectangle": lambda: filled((50, 40), (270, 40), (270, 200), (50, 200)),
    "square": lambda: filled((70, 30), (250, 30), (250, 210), (70, 210)),
    "tilted square": lambda: filled((160, 10), (270, 120), (160, 230), (50, 120)),
    "triangle": lambda: filled((160, 10), (300, 230), (20, 230)),
    "flat triangle": lambda: filled((10, 100), (310, 120), (30, 200)),
    "stripes": lambda: striped(40, 0),
    "thin stripes": lambda: striped(3, 0),
    "slanted stripes": lambda: striped(60, 1),
    "gradient": lambda: blank() + np.linspace(0, 200, 320)[None, :, None].astype(np.uint8),
    "ring": lambda: cv2.circle(blank(), (160, 120), 100, (200, 100, 50), 8),
    "crescent": lambda: cv2.circle(
        cv2.circle(blank(), (160, 120), 100, (200, 100, 50), -1), (172, 120), 100, (0, 0, 0), -1
    ),
    "text": lambda: cv2.putText(blank(), "NO EYE", (5, 160), 0, 2.5, (255, 255, 255), 14),
}


@pytest.mark.parametrize("name", NOT_A_FUNDUS)
def test_what_is_no_disc_is_refused(name: str) -> None:
    frame = NOT_A_FUNDUS[name]()
    assert refusal_of(frame) in REFUSALS
    assert refusal_of(np.ascontiguousarray(frame.transpose(1, 0, 2))) in REFUSALS


def test_darkness_and_a_missing_rim_have_different_reasons() -> None:
    assert refusal_of(NOT_A_FUNDUS["black"]()) == "no_fundus"
    assert refusal_of(NOT_A_FUNDUS["white"]()) == "no_field_of_view"


@FEW
@given(st.integers(64, 200), st.integers(64, 200), st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_any_picture_is_answered_with_a_disc_or_a_reason(
    height: int, width: int, seed: int, blur: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    blots = cv2.GaussianBlur(noise, (0, 0), 2.0**blur) if blur else noise
    frame = np.where(blots > np.median(blots), blots, 0).astype(np.uint8)
    answer = answer_to(frame)
    if isinstance(answer, str):
        assert answer in REFUSALS
    else:
        assert 0 <= answer.center_x_px <= width
        assert 0 <= answer.center_y_px <= height
        assert min(answer.radius_x_px, answer.radius_y_px) >= 32


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 500), (64, 5000)])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_frame_of_any_shape_without_a_disc_is_refused(shape: tuple[int, int], level: int) -> None:
    assert refusal_of(np.full((*shape, 3), level, np.uint8)) in REFUSALS


@FEW
@given(st.integers(150, 400), st.floats(0.4, 0.48), st.floats(0.5, 0.8), st.booleans())
def test_larger_of_two_discs_wins(height: int, radius: float, smaller: float, mirror: bool) -> None:
    width = 2 * height
    disc = Disc(radius * height + 2, height / 2, radius * height, radius * height)
    other = smaller * disc.radius_x
    second = Disc(width - other - 2, height / 2, other, other)
    frame = np.maximum(rendered(width, height, disc), rendered(width, height, second, seed=1))
    if mirror:
        frame, disc = frame[:, ::-1], Disc(width - disc.x, disc.y, disc.radius_x, disc.radius_y)
    assert_found(frame, disc)


# --- what the answer may and may not depend on


@FEW
@given(whole_discs(), st.integers(0, 5))
def test_memory_layout_and_channel_order_do_not_matter(scene: Scene, pad: int) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc)
    expected = find_field_of_view(frame)
    wider = np.full((height + pad, width + 3, 3), 255, np.uint8)
    wider[pad:, 2:-1] = frame
    read_only = frame.copy()
    read_only.flags.writeable = False
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    for same in (wider[pad:, 2:-1], np.asfortranarray(frame), planes, read_only):
        assert find_field_of_view(same) == expected
    for order in ([2, 1, 0], [1, 2, 0]):
        assert find_field_of_view(np.ascontiguousarray(frame[:, :, order])) == expected
    assert find_field_of_view(frame[:, :, ::-1]) == expected


@FEW
@given(st.integers(-8, 8), st.integers(-8, 8), st.floats(0.3, 0.4), st.floats(0, 6.28))
def test_content_moved_by_whole_strides_moves_the_disc_by_exactly_that(
    across: int, down: int, radius: float, notch: float
) -> None:
    height, width = 400, 520
    stride = thumbnail_stride(height, width)
    disc = Disc(width / 2 + 0.3, height / 2 - 0.2, radius * height, radius * height)
    frame = rendered(width, height, disc, border=0)
    # a notch, so that no coordinate lies exactly between two pixels by symmetry
    x, y = disc.x + disc.radius_x * np.cos(notch), disc.y + disc.radius_y * np.sin(notch)
    cv2.circle(frame, (int(x), int(y)), 7, (180, 90, 45), -1)
    # nothing but black may leave the frame, or enter it on the other side
    frame[disc.distance(width, height) > 1.2] = 0
    before = find_field_of_view(frame)
    after = find_field_of_view(np.roll(frame, (down * stride, across * stride), (0, 1)))
    assert after.center_x_px - before.center_x_px == across * stride
    assert after.center_y_px - before.center_y_px == down * stride
    assert (after.radius_x_px, after.radius_y_px) == (before.radius_x_px, before.radius_y_px)
    assert after.rim_permille == before.rim_permille


@FEW
@given(whole_discs(), st.floats(0, 0.8))
def test_mirror_image_has_the_mirrored_disc(scene: Scene, tilt: float) -> None:
    width, height, disc = scene
    frame = rendered(width, height, disc, tilt=tilt)
    field, mirrored = find_field_of_view(frame), find_field_of_view(frame[:, ::-1])
    # other pixels are sampled, less than a stride away
    allowed = 1 + thumbnail_stride(height, width)
    assert abs(mirrored.center_x_px - (width - field.center_x_px)) <= allowed
    assert abs(mirrored.center_y_px - field.center_y_px) <= allowed
    assert abs(mirrored.radius_x_px - field.radius_x_px) <= allowed


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_thumbnail_has_128_to_255_samples_on_the_shorter_side(height: int, width: int) -> None:
    stride, shorter = thumbnail_stride(height, width), min(height, width)
    samples = len(range(stride // 2, shorter, stride))
    assert samples == shorter if shorter < 256 else 128 <= samples <= 256
    assert stride == thumbnail_stride(width, height)


@given(st.integers(1024, 20_000), st.integers(1024, 20_000))
def test_large_frames_are_read_at_one_row_in_eight_or_fewer(height: int, width: int) -> None:
    assert thumbnail_stride(height, width) >= 8


@pytest.mark.parametrize("height", [1024, 1151, 1280])
def test_rows_and_columns_between_the_samples_are_never_looked_at(height: int) -> None:
    width = height + 100
    disc = Disc(width * 0.49, height * 0.52, 0.45 * height, 0.45 * height)
    frame = rendered(width, height, disc)
    stride = thumbnail_stride(height, width)
    unread = np.ones((height, width), bool)
    unread[stride // 2 :: stride, stride // 2 :: stride] = False
    scrambled = frame.copy()
    scrambled[unread] = np.random.default_rng(3).integers(0, 256, (int(unread.sum()), 3))
    assert find_field_of_view(scrambled) == find_field_of_view(frame)


@FEW
@given(st.integers(140, 300), st.floats(0.3, 0.58), st.floats(0.35, 0.65), st.floats(0.4, 0.6))
def test_visible_part_is_what_of_the_bounding_box_lies_in_the_frame(
    side: int, radius: float, x: float, y: float
) -> None:
    frame = rendered(side, side, Disc(x * side, y * side, radius * side, radius * side))
    field = find_field_of_view(frame)
    columns = np.arange(
        field.center_x_px - field.radius_x_px, field.center_x_px + field.radius_x_px
    )
    rows = np.arange(field.center_y_px - field.radius_y_px, field.center_y_px + field.radius_y_px)
    inside = np.multiply.outer((rows >= 0) & (rows < side), (columns >= 0) & (columns < side))
    assert field.visible_permille == 1000 * int(inside.sum()) // inside.size
    assert set(field.to_dict()) == set(FieldOfView.__dataclass_fields__)
    assert all(type(value) is int for value in field.to_dict().values())


# --- real photographs


def read(path: Path) -> np.ndarray:
    frame = cv2.imread(str(path))
    assert frame is not None, path
    return frame


def test_both_fields_are_found_in_nearly_all_real_pairs(fundus_data: Path) -> None:
    lefts = sorted((fundus_data / "odir" / "images").glob("*_left.jpg"))[::11]
    assert len(lefts) >= 150

    def found(path: Path) -> bool:
        return isinstance(answer_to(read(path)), FieldOfView)

    pairs = [found(p) and found(p.with_name(p.name.replace("left", "right"))) for p in lefts]
    assert sum(pairs) >= 0.97 * len(pairs)


def test_fields_of_photographs_at_full_resolution_are_plausible(fundus_data: Path) -> None:
    paths = sorted((fundus_data / "full_resolution").glob("*.jpg"))[::3]
    assert paths
    for path in paths:
        frame = read(path)
        height, width = frame.shape[:2]
        field = find_field_of_view(frame)
        # these cameras cut a round disc above and below and leave its sides whole
        assert field.radius_x_px == field.radius_y_px, path.name
        assert 0.55 * height <= field.radius_y_px <= 0.65 * height, path.name
        assert abs(field.center_x_px - width / 2) <= 0.05 * width, path.name
        assert abs(field.center_y_px - height / 2) <= 0.05 * height, path.name
        assert 780 <= field.visible_permille <= 860, path.name
        assert field.rim_permille >= 950, path.name


def pasted(frame: np.ndarray) -> tuple[np.ndarray, Callable[[Disc], Disc]]:
    """Far from the middle of a larger, noisy frame: where it was cut lies inside now."""
    height, width = frame.shape[:2]
    canvas = np.random.default_rng(5).integers(0, 4, (height + 131, width + 217, 3))
    canvas[120:-11, 16:-201] = frame
    return canvas.astype(np.uint8), lambda disc: disc.moved(16, 120)


def cropped(frame: np.ndarray) -> tuple[np.ndarray, Callable[[Disc], Disc]]:
    top, left = frame.shape[0] // 12, frame.shape[1] // 15
    return frame[top:, left:], lambda disc: disc.moved(-left, -top)


def squashed(frame: np.ndarray) -> tuple[np.ndarray, Callable[[Disc], Disc]]:
    height, width = frame.shape[:2]
    narrow = 3 * width // 4
    ratio = narrow / width
    small = cv2.resize(frame, (narrow, height), interpolation=cv2.INTER_AREA)
    return small, lambda d: Disc(d.x * ratio, d.y, d.radius_x * ratio, d.radius_y)


@pytest.mark.parametrize("change", [pasted, cropped, squashed])
def test_change_of_a_real_photograph_changes_its_field_alike(
    fundus_data: Path, change: Callable[..., tuple[np.ndarray, Callable[[Disc], Disc]]]
) -> None:
    paths = sorted((fundus_data / "eyepacs").glob("*_left.jpg"))[::8]
    paths.append(fundus_data / "full_resolution" / "codras_0500.jpg")
    checked, wrong = 0, []
    for path in paths:
        frame = read(path)
        before = answer_to(frame)
        # of the others only four corners are round, and a change may leave too little of those
        if isinstance(before, str) or before.visible_permille < 750:
            continue
        changed, moved = change(frame)
        after, expected = find_field_of_view(changed), moved(disc_of(before))
        # both are measurements
        radius = max(expected.radius_x, expected.radius_y)
        allowed = sum(tolerance_px(*picture.shape[:2], radius) for picture in (frame, changed))
        if error_px(after, expected) > allowed:
            wrong.append((path.name, before, after))
        checked += 1
    assert not wrong
    assert checked >= 25
