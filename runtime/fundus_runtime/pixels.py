"""Pixels of a JPEG or PNG file whose header has been read and found fit.

Arrays are uint8, height x width x 3, RGB, C-contiguous, writable and owned by the caller, as the
file stores them: EXIF orientation is not applied. libjpeg-turbo decodes JPEG straight into the
array and stops at whatever is wrong with the data; Pillow decodes PNG.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fundus_runtime.errors import ImageError
from fundus_runtime.image_header import PNG_SIGNATURE, png_chunks

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

__all__ = ["pixels_from_jpeg", "pixels_from_png"]

_RGBFrame = NDArray[np.uint8]

# What libjpeg-turbo remarks on although the whole picture is there: header bytes that some cameras
# leave at zero, version numbers, a few bytes of padding before the end marker, and sampling factors
# that its TurboJPEG interface has no name for. Pillow, on the same libjpeg-turbo, reads these.
_HARMLESS = re.compile(
    r"Invalid SOS parameters for sequential JPEG"
    r"|unknown JFIF revision number"
    r"|Unknown Adobe color transform code"
    r"|\b\d{1,2} extraneous bytes before marker 0xd9"
    r"|Could not determine subsampling"
)
# Out of data, libjpeg paints the rest of the picture in this grey and calls it a success.
_JPEG_FILLER = 128
_FILLED_CORNER_PX = 4
# What Pillow raises on data that it cannot use.
_PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, MemoryError),
    *(struct.error, zlib.error),
)
# The chunks that pixels are made of. Texts, profiles and times may unpack to any size and name
# nothing that is used here.
_PNG_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_PNG_CHANNELS = {2: 3, 3: 1, 6: 4}
# First column and row, and distance between columns and rows, of each pass of an interlaced PNG.
_PNG_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_INFLATE_AT_ONCE = 1 << 20


def pixels_from_jpeg(data: bytes, *, name: str) -> _RGBFrame:
    """Decode an 8-bit JPEG of three components.

    Args:
        data: the file's bytes.
        name: what to call the picture in errors.

    Raises:
        ImageError: its data are cut short or damaged.
    """
    import simplejpeg

    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=True), dtype=np.uint8)
    except (ValueError, MemoryError) as error:
        if not _HARMLESS.search(str(error)):
            raise _damaged_jpeg(name, str(error)) from error
    return _pixels_of_odd_jpeg(data, name)


def pixels_from_png(data: bytes, *, name: str) -> _RGBFrame:
    """Decode a PNG of 8-bit RGB, 8-bit RGBA or a palette.

    Args:
        data: the file's bytes.
        name: what to call the picture in errors.

    Raises:
        ImageError: its data cannot be decoded, or a pixel is not opaque.
    """
    # Not by `Image.open`, whose limit on the size is a global of the process: the caller has one of
    # its own, and has looked at it. No other format's decoder gets to see the file either.
    from PIL.PngImagePlugin import PngImageFile

    chunks = [one for one in png_chunks(data, name=name) if one[0] in _PNG_PICTURE]
    try:
        _require_every_row(chunks)
        picture = b"".join([PNG_SIGNATURE, *(chunk for _, chunk in chunks)])
        return _opaque_pixels(PngImageFile(io.BytesIO(picture)), name)
    except _PILLOW_ERRORS as error:
        raise ImageError(
            f"{name} looks like a PNG but its picture data cannot be decoded ({error}); "
            "copy it again from the camera"
        ) from error


def _damaged_jpeg(name: str, what: str) -> ImageError:
    if re.search("premature end", what, re.IGNORECASE):
        what = "its data end before its picture does"
    return ImageError(f"{name} is cut short or damaged: {what}; copy it again from the camera")


def _pixels_of_odd_jpeg(data: bytes, name: str) -> _RGBFrame:
    """Decode what strictness stumbled over; libjpeg remarks on the first oddity alone."""
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        pixels = np.array(JpegImageFile(io.BytesIO(data)), dtype=np.uint8)
    except _PILLOW_ERRORS as error:
        raise _damaged_jpeg(name, str(error)) from error
    corner = pixels[-_FILLED_CORNER_PX:, -_FILLED_CORNER_PX:]
    if bool((corner == _JPEG_FILLER).all()):
        raise _damaged_jpeg(name, "premature end")
    return pixels


def _require_every_row(chunks: Iterable[tuple[bytes, bytes]]) -> None:
    """Count what the data unpack to: Pillow leaves rows black that a whole stream does not hold."""
    missing, inflate = 0, zlib.decompressobj()
    for kind, chunk in chunks:
        packed = chunk[8:-4]
        if kind == b"IHDR":
            missing = _unpacked_bytes(packed)
        while kind == b"IDAT" and missing > 0 and not inflate.eof:
            unpacked = inflate.decompress(packed, _INFLATE_AT_ONCE)
            missing, packed = missing - len(unpacked), inflate.unconsumed_tail
            if len(unpacked) < _INFLATE_AT_ONCE and not packed:
                break
    if missing > 0:
        raise ValueError("its data end before its picture does")


def _unpacked_bytes(header: bytes) -> int:
    """Bytes of all rows, each with the byte that names its filter."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    total = 0
    for left, top, across, down in _PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0:
            total += rows * (1 + -(-columns * bits * _PNG_CHANNELS[colour] // 8))
    return total


def _opaque_pixels(image: ImageFile, name: str) -> _RGBFrame:
    if image.mode == "RGBA" or "transparency" in image.info:
        (least, _) = image.convert("RGBA").getchannel("A").getextrema()
        if least != 255:
            raise ImageError(
                f"{name} has transparent pixels, but an opaque photograph was expected; "
                "export it without transparency"
            )
        image.info.pop("transparency", None)
    return np.array(image.convert("RGB"), dtype=np.uint8)
