"""Augmentation of a pair of 8-bit crops, before illumination correction and normalisation.

Every draw comes from one generator that is seeded by (seed, epoch, index), so that a sample is the
same whatever worker makes it. A pair is mirrored only as a whole: both images are flipped and the
eyes change places with their labels, the one mirror after which a left eye still looks like a left
eye. Geometry is drawn for each eye, colour once for both, since one camera took both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from fundus_runtime.labels import EYES, Eye
from fundus_training.data.augment_config import AugmentConfig
from fundus_training.data.crops import Crop

__all__ = ["AugmentConfig", "Pair", "augment_pair", "cut_mix", "drop_eye", "generator_for"]

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Contrast turns about the level around which the disc lies in a well exposed fundus photograph.
_PIVOT = 0.4


@dataclass(frozen=True)
class Pair:
    """Two crops, either of which may be absent, and their labels (None: not known for that eye)."""

    left: Crop | None
    right: Crop | None
    labels: tuple[int, ...]
    left_labels: tuple[int, ...] | None = None
    right_labels: tuple[int, ...] | None = None

    def eye(self, eye: Eye) -> Crop | None:
        """The crop of one eye."""
        return self.left if eye == "left" else self.right

    def swapped(self) -> Pair:
        """The eyes in each other's place, with their labels."""
        return Pair(self.right, self.left, self.labels, self.right_labels, self.left_labels)


def generator_for(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch, independent of who draws it."""
    return np.random.default_rng([seed, epoch, index])


def augment_pair(pair: Pair, config: AugmentConfig, rng: np.random.Generator) -> Pair:
    """Flip and swap, geometry, colour and sensor faults; CutMix and dropping are steps apart.

    Args:
        pair: crops of one size; they are not written to.
        config: how strongly.
        rng: draws everything.
    """
    mirrored = bool(rng.random() < config.flip_and_swap)
    recolour = _Recolour.draw(config, rng)
    crops: dict[Eye, Crop | None] = {}
    for eye in EYES:
        # Drawn for an absent eye too: what one eye gets must not depend on the other's presence.
        warp = _Warp.draw(config, rng, mirrored)
        faults = _Faults.draw(config, rng)
        crop = pair.eye(eye)
        crops[eye] = None if crop is None else _vary(crop, warp, recolour, faults)
    varied = replace(pair, left=crops["left"], right=crops["right"])
    return varied.swapped() if mirrored else varied


def cut_mix(pair: Pair, partner: Pair, rng: np.random.Generator) -> Pair:
    """Paste one box of the partner into both eyes; the other eye's box is its mirror image.

    The mirror keeps the box on the same part of the anatomy: what is nasal on the left of a left
    eye is on the right of a right eye. Labels stay: the paper mixes "homogeneous" samples, read
    here as pairs with the same label set, in each eye where that is known.

    Args:
        pair: crops of one size.
        partner: a pair with the same labels and the same eyes present.
        rng: draws the box; its area is uniform between 0 and the whole image.
    """
    size = next(crop.image.shape[0] for crop in (pair.left, pair.right) if crop is not None)
    top, bottom, begin, end = _box(size, rng)
    box, mirror = slice(begin, end), slice(size - end, size - begin)
    columns: dict[Eye, slice] = {"left": box, "right": mirror}
    mixed: dict[Eye, Crop | None] = {}
    for eye in EYES:
        crop, other = pair.eye(eye), partner.eye(eye)
        if crop is None or other is None:
            mixed[eye] = crop
            continue
        image, mask = crop.image.copy(), crop.mask.copy()
        image[top:bottom, columns[eye]] = other.image[top:bottom, columns[eye]]
        mask[top:bottom, columns[eye]] = other.mask[top:bottom, columns[eye]]
        mixed[eye] = Crop(image, mask)
    return replace(pair, left=mixed["left"], right=mixed["right"])


def drop_eye(pair: Pair, config: AugmentConfig, rng: np.random.Generator) -> Pair:
    """Leave one eye of two out, so that the model learns to answer from the other.

    What the patient has then is what the remaining eye shows, where that is known: asked for a
    finding in an eye that it cannot see, the model would learn to guess. Where it is not known the
    patient's labels stay, since a finding in both eyes is more common than in one.
    """
    dropped = bool(rng.random() < config.drop_eye)
    keeps_left = bool(rng.random() < 0.5)
    if not dropped or pair.left is None or pair.right is None:
        return pair
    if keeps_left:
        labels = pair.labels if pair.left_labels is None else pair.left_labels
        return replace(pair, right=None, right_labels=None, labels=labels)
    labels = pair.labels if pair.right_labels is None else pair.right_labels
    return replace(pair, left=None, left_labels=None, labels=labels)


@dataclass(frozen=True)
class _Warp:
    """The geometry of one eye: an affine map, or none, or a mirror alone."""

    mirrored: bool
    degrees: float
    scale: float
    aspect: float
    shift_x: float
    shift_y: float

    @classmethod
    def draw(cls, config: AugmentConfig, rng: np.random.Generator, mirrored: bool) -> _Warp:
        turn, scale, aspect, shift_x, shift_y = rng.uniform(-1.0, 1.0, 5).tolist()
        return cls(
            mirrored,
            turn * config.rotation_degrees,
            1.0 + scale * config.scale,
            1.0 + aspect * config.aspect,
            shift_x * config.translation,
            shift_y * config.translation,
        )

    def apply(self, crop: Crop) -> Crop:
        if (self.degrees, self.scale, self.aspect, self.shift_x, self.shift_y) == (0, 1, 1, 0, 0):
            return _mirror(crop) if self.mirrored else crop
        size = crop.image.shape[0]
        matrix = self._matrix(size)
        image = cv2.warpAffine(crop.image, matrix, (size, size), flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(
            crop.mask.view(np.uint8), matrix, (size, size), flags=cv2.INTER_NEAREST
        )
        return Crop(image.astype(np.uint8, copy=False), mask.view(np.bool_))

    def _matrix(self, size: int) -> npt.NDArray[np.float64]:
        """Mirror, stretch and turn about the centre, then shift; source to destination."""
        angle = math.radians(self.degrees)
        stretch_x = self.scale * math.sqrt(self.aspect) * (-1.0 if self.mirrored else 1.0)
        stretch_y = self.scale / math.sqrt(self.aspect)
        linear = np.array(
            [
                [math.cos(angle) * stretch_x, math.sin(angle) * stretch_y],
                [-math.sin(angle) * stretch_x, math.cos(angle) * stretch_y],
            ]
        )
        centre = np.full(2, (size - 1) / 2)
        shift = np.array([self.shift_x, self.shift_y]) * size
        return np.column_stack([linear, centre - linear @ centre + shift])


@dataclass(frozen=True)
class _Recolour:
    """Colour of both eyes: a mix towards grey, then a curve a channel."""

    saturation: float
    curves: Image | None

    @classmethod
    def draw(cls, config: AugmentConfig, rng: np.random.Generator) -> _Recolour:
        brightness, contrast, saturation, gamma, *gains = rng.uniform(-1.0, 1.0, 7).tolist()
        widths = (config.brightness, config.contrast, config.gamma, config.channel_gain)
        curves = None
        if any(widths):
            levels = (np.arange(256) / 255.0) ** math.exp(gamma * config.gamma)
            levels = (levels - _PIVOT) * (1.0 + contrast * config.contrast) + _PIVOT
            levels *= 1.0 + brightness * config.brightness
            cast = 1.0 + np.asarray(gains) * config.channel_gain
            curves = np.clip(np.rint(255.0 * levels[:, None] * cast), 0, 255).astype(np.uint8)
        return cls(1.0 + saturation * config.saturation, curves)

    def apply(self, image: Image) -> Image:
        if self.saturation != 1.0:
            mix = self.saturation * np.eye(3, dtype=np.float32) + (1.0 - self.saturation) * _LUMA
            image = cv2.transform(image, mix).astype(np.uint8, copy=False)
        if self.curves is not None:
            image = cv2.LUT(image, self.curves[None]).astype(np.uint8, copy=False)
        return image


@dataclass(frozen=True)
class _Faults:
    """What a poor camera or a store does to one eye; None or 0 where it does nothing."""

    blur_px: float
    noise: tuple[int, float] | None
    jpeg_quality: int

    @classmethod
    def draw(cls, config: AugmentConfig, rng: np.random.Generator) -> _Faults:
        chance = rng.random(3)
        strength = rng.random(3)
        seed = int(rng.integers(2**63))
        return cls(
            blur_px=0.4 + 0.8 * float(strength[0]) if chance[0] < config.blur else 0.0,
            noise=(seed, 2.0 + 4.0 * float(strength[1])) if chance[1] < config.noise else None,
            jpeg_quality=40 + int(51 * strength[2]) if chance[2] < config.jpeg else 0,
        )

    def apply(self, image: Image) -> Image:
        if self.blur_px:
            image = cv2.GaussianBlur(image, (0, 0), self.blur_px).astype(np.uint8, copy=False)
        if self.noise is not None:
            seed, levels = self.noise
            grain = np.random.default_rng(seed).integers(0, 256, image.shape, dtype=np.uint8)
            image = cv2.addWeighted(image, 1.0, grain, levels / 127.5, -levels).astype(
                np.uint8, copy=False
            )
        if self.jpeg_quality:
            options = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality]
            data = cv2.imencode(".jpg", image[:, :, ::-1], options)[1]
            stored = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)
            image = np.ascontiguousarray(stored[:, :, ::-1])
        return image


def _vary(crop: Crop, warp: _Warp, recolour: _Recolour, faults: _Faults) -> Crop:
    warped = warp.apply(crop)
    return Crop(faults.apply(recolour.apply(warped.image)), warped.mask)


def _mirror(crop: Crop) -> Crop:
    image = np.ascontiguousarray(crop.image[:, ::-1])
    return Crop(image, np.ascontiguousarray(crop.mask[:, ::-1]))


def _box(size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, begin, end) of a square, cut where it leaves the image."""
    half = math.sqrt(rng.random()) * size / 2
    row, column = rng.random(2).tolist()
    edges = [row * size - half, row * size + half, column * size - half, column * size + half]
    top, bottom, begin, end = (min(max(round(edge), 0), size) for edge in edges)
    return top, bottom, begin, end
