"""Reads photographs: a JPEG or PNG file in, 8-bit RGB pixels the right way up out.

Arrays are uint8, height x width x 3, RGB, C-contiguous and owned by the caller. A file that is not
plainly such a photograph is refused before its pixels are decoded; nothing is converted silently
except a palette and a fully opaque alpha channel, which lose nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.errors import ImageError
from fundus_runtime.image_header import ImageHeader, read_header
from fundus_runtime.pixels import pixels_from_jpeg, pixels_from_png

__all__ = ["DEFAULT_MAX_MEGAPIXELS", "MIN_SIDE_PX", "decode_photograph", "read_photograph"]

DEFAULT_MAX_MEGAPIXELS = 64.0
MIN_SIDE_PX = 64
# Above any photograph within the pixel limit; keeps a wrong path from filling the memory.
_MAX_FILE_BYTES = 512 * 1024 * 1024
# Channels that agree everywhere over this range are a picture without colour, not a dark frame.
_COLOURLESS_RANGE = 32

_RGBFrame = NDArray[np.uint8]


def read_photograph(
    path: str | Path, *, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
) -> _RGBFrame:
    """Read a photograph from a file.

    Args:
        path: a JPEG or PNG file.
        max_megapixels: refuse pictures with more pixels than this, before decoding.

    Returns:
        uint8 RGB pixels, height x width x 3, turned as EXIF says.

    Raises:
        ImageError: the file is missing, unreadable, damaged, or not an 8-bit colour photograph of
            a usable size.
    """
    path = Path(path)
    return decode_photograph(_read_file(path), name=str(path), max_megapixels=max_megapixels)


def decode_photograph(
    data: bytes, *, name: str, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
) -> _RGBFrame:
    """Decode a photograph from a file's bytes; see `read_photograph`.

    Args:
        data: the bytes of a JPEG or PNG file.
        name: what to call the picture in errors.
        max_megapixels: refuse pictures with more pixels than this, before decoding.

    Raises:
        ImageError: the bytes are not an 8-bit colour photograph of a usable size.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); copy it again from the camera")
    header = read_header(data, name=name)
    _refuse_unusable(header, name, max_megapixels)
    rgb = _turned_upright(_decode(data, header, name), header.orientation)
    _refuse_colourless(rgb, name)
    return rgb


def _read_file(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder; give the path of a JPEG or PNG photograph")
        if not path.exists():
            raise ImageError(f"{path} does not exist; give the path of a JPEG or PNG photograph")
        if not path.is_file():
            raise ImageError(f"{path} is no ordinary file; give a JPEG or PNG photograph")
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise ImageError(
                f"{path} has {size / 2**20:.0f} MiB, but a photograph has at most "
                f"{_MAX_FILE_BYTES // 2**20} MiB; export it as JPEG"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{path} cannot be read: {error}; check the path and its rights"
        ) from error


def _refuse_unusable(header: ImageHeader, name: str, max_megapixels: float) -> None:
    size = f"{header.width}x{header.height}"
    if header.width * header.height > max_megapixels * 1e6:
        raise ImageError(
            f"{name} has {size} pixels ({header.width * header.height / 1e6:.1f} megapixels), "
            f"but the limit is {max_megapixels:g}; export it smaller or raise --max-megapixels"
        )
    if min(header.width, header.height) < MIN_SIDE_PX:
        raise ImageError(
            f"{name} has {size} pixels, but each side needs at least {MIN_SIDE_PX}; "
            "give the photograph itself, not a thumbnail"
        )
    if header.colour not in ("RGB", "palette", "RGBA"):
        raise ImageError(
            f"{name} is a {header.colour} {header.format}, but a colour photograph (RGB) was "
            "expected; export it in colour from the camera"
        )
    if header.bits > 8:
        raise ImageError(
            f"{name} has {header.bits} bits a channel, but 8 were expected; "
            "export it as an 8-bit JPEG or PNG"
        )


def _decode(data: bytes, header: ImageHeader, name: str) -> _RGBFrame:
    decode = pixels_from_jpeg if header.format == "JPEG" else pixels_from_png
    pixels = decode(data, name=name)
    if pixels.shape != (header.height, header.width, 3):
        raise ImageError(
            f"{name} states {header.width}x{header.height} pixels of three colours, but decodes to "
            f"an array of shape {pixels.shape}; it is damaged, copy it again from the camera"
        )
    return pixels


def _turned_upright(rgb: _RGBFrame, orientation: int) -> _RGBFrame:
    """Undo the stored rotation and mirroring that EXIF orientation 1 to 8 describes."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def _refuse_colourless(rgb: _RGBFrame, name: str) -> None:
    """Refuse a grayscale picture that was saved as RGB; a black or white frame is left to gates."""
    for part in (rgb[:: max(1, len(rgb) // 64)], rgb):
        red, green, blue = part[..., 0], part[..., 1], part[..., 2]
        if not (np.array_equal(red, green) and np.array_equal(green, blue)):
            return
    if int(rgb.max()) - int(rgb.min()) > _COLOURLESS_RANGE:
        raise ImageError(
            f"{name} holds no colour (its red, green and blue are equal everywhere), but a colour "
            "photograph was expected; export it in colour from the camera"
        )
