"""What a JPEG or PNG file says about itself, read without decoding a pixel.

The parser is deliberately strict where decoders are lenient: they fill the missing part of a
truncated file with grey, turn CMYK and grayscale into plausible colours, and allocate whatever
size a header claims. Everything that must be refused is known from here, before any of that.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from fundus_runtime.errors import ImageError

__all__ = ["PNG_SIGNATURE", "ImageHeader", "png_chunks", "read_header"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "grayscale", 2: "RGB", 3: "palette", 4: "grayscale with alpha", 6: "RGBA"}
_PROGRESSIVE = 0xC2
_JPEG_HUFFMAN_FRAMES = {0xC0, 0xC1, _PROGRESSIVE}
_JPEG_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_JPEG_COLOURS = {1: "grayscale", 3: "RGB", 4: "CMYK"}
_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_RESTARTS = range(0xD0, 0xD8)
# A camera writes one scan, or about ten when progressive; thousands are an attack on the decoder.
_MAX_JPEG_SCANS = 100
_JPEG_COEFFICIENTS = 64

_KNOWN_FORMATS = (
    (b"II*\x00", "a TIFF file"),
    (b"MM\x00*", "a TIFF file"),
    (b"GIF8", "a GIF file"),
    (b"BM", "a BMP file"),
    (b"%PDF", "a PDF file"),
    (b"RIFF", "a RIFF (WebP?) file"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 file"),
    (b"\xff\x0a", "a JPEG XL file"),
)


@dataclass(frozen=True)
class ImageHeader:
    """The stored picture, before any rotation.

    Attributes:
        format: `JPEG` or `PNG`.
        width: columns as stored.
        height: rows as stored.
        bits: bits a channel (a palette's are the index's).
        colour: `RGB`, `palette`, `RGBA`, `grayscale`, `grayscale with alpha` or `CMYK`.
        orientation: EXIF orientation, 1 to 8; 1 where the file states none.
    """

    format: str
    width: int
    height: int
    bits: int
    colour: str
    orientation: int


def read_header(data: bytes, *, name: str) -> ImageHeader:
    """Parse a whole file's structure.

    Args:
        data: the file's bytes.
        name: what to call the file in errors.

    Raises:
        ImageError: neither JPEG nor PNG, damaged or cut short.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(data, name)
    if data.startswith(PNG_SIGNATURE):
        return _png_header(data, name)
    raise ImageError(
        f"{name} is {_guess_format(data)}, not a JPEG or PNG photograph; "
        "export the photograph as JPEG or PNG"
    )


def _guess_format(data: bytes) -> str:
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[4:8] == b"ftyp":
        return "a HEIF or AVIF file"
    for magic, words in _KNOWN_FORMATS:
        if data.startswith(magic):
            return words
    return f"no known picture (it starts with {data[:8].hex(' ')})"


def _truncated(name: str, where: str) -> ImageError:
    return ImageError(
        f"{name} is cut short: it ends {where}, though a whole file was expected; "
        "copy it again from the camera"
    )


def _damaged(name: str, what: str) -> ImageError:
    return ImageError(f"{name} is damaged: {what}; copy it again from the camera")


def _jpeg_header(data: bytes, name: str) -> ImageHeader:
    """Walk the markers from SOI to the picture's own EOI.

    Segments are skipped by their length, so that the EOI of a thumbnail inside APP1 cannot stand
    for the picture's. Bytes after EOI (second pictures, padding) are allowed.
    """
    frame: tuple[int, int, int, int] | None = None
    unfinished: set[tuple[int, int]] = set()
    orientation, scans, position, progressive = 1, 0, 2, False
    while True:
        position, marker = _next_jpeg_marker(data, position, name)
        if marker == _EOI:
            break
        if marker == _TEM or marker in _RESTARTS:
            continue
        if marker == _SOI:
            raise _damaged(name, "a second picture begins inside the first")
        segment = _jpeg_segment(data, position, name)
        position += 2 + len(segment)
        if marker in _JPEG_HUFFMAN_FRAMES or marker in _JPEG_OTHER_FRAMES:
            if frame is not None:
                raise _damaged(name, "it declares its size twice")
            frame, progressive = _jpeg_frame(marker, segment, name), marker == _PROGRESSIVE
            components = segment[6 : 6 + 3 * frame[3] : 3]
            unfinished = {(one, k) for one in components for k in range(_JPEG_COEFFICIENTS)}
        elif marker == _APP1 and segment.startswith(b"Exif\x00\x00") and orientation == 1:
            orientation = _exif_orientation(segment[6:])
        elif marker == _SOS:
            if frame is None:
                raise _damaged(name, "picture data come before the size")
            scans += 1
            if scans > _MAX_JPEG_SCANS:
                raise ImageError(
                    f"{name} has more than {_MAX_JPEG_SCANS} scans, which no camera writes; "
                    "save it as a plain JPEG"
                )
            unfinished -= _finished_by_scan(segment, progressive=progressive)
            position = _end_of_scan(data, position, name)
    if frame is None or scans == 0:
        raise _damaged(name, "it holds no picture data")
    bits, height, width, channels = frame
    # other counts of channels are refused for what they are
    if unfinished and channels in (1, 3):
        raise _truncated(name, "before the last of its scans")
    colour = _JPEG_COLOURS.get(channels, f"{channels}-channel")
    return ImageHeader("JPEG", width, height, bits, colour, orientation)


def _next_jpeg_marker(data: bytes, position: int, name: str) -> tuple[int, int]:
    if position >= len(data):
        raise _truncated(name, "without the JPEG end marker")
    if data[position] != 0xFF:
        raise _damaged(name, f"a JPEG marker was expected at byte {position}")
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position >= len(data):
        raise _truncated(name, "inside a JPEG marker")
    return position + 1, data[position]


def _jpeg_segment(data: bytes, position: int, name: str) -> bytes:
    if position + 2 > len(data):
        raise _truncated(name, "inside a JPEG segment")
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2:
        raise _damaged(name, f"a JPEG segment at byte {position} has length {length}")
    if position + length > len(data):
        raise _truncated(name, "inside a JPEG segment")
    return data[position + 2 : position + length]


def _jpeg_frame(marker: int, segment: bytes, name: str) -> tuple[int, int, int, int]:
    if marker in _JPEG_OTHER_FRAMES:
        raise ImageError(
            f"{name} is a JPEG of a rare kind (lossless, hierarchical or arithmetic, "
            f"SOF{marker - 0xC0}); save it as a baseline or progressive JPEG"
        )
    if len(segment) < 6:
        raise _damaged(name, "the JPEG frame header is too short")
    bits, height, width, components = struct.unpack(">BHHB", segment[:6])
    if width == 0 or height == 0:
        raise _damaged(name, f"the header states a size of {width}x{height} pixels")
    return bits, height, width, components


def _finished_by_scan(segment: bytes, *, progressive: bool) -> set[tuple[int, int]]:
    """Components and coefficients that a scan brings to their last bit.

    A picture comes in one scan or in several, a progressive one from coarse to fine; without its
    last scans it decodes to a blurred or discoloured one. The range of a scan that is not
    progressive is always whole; some cameras leave its bytes at zero.
    """
    count = segment[0] if segment else 0
    components, rest = segment[1 : 1 + 2 * count : 2], segment[1 + 2 * count :]
    if not progressive:
        rest = bytes([0, _JPEG_COEFFICIENTS - 1, 0])
    if len(rest) < 3 or rest[2] & 0x0F:
        return set()
    return {(one, k) for one in components for k in range(rest[0], rest[1] + 1)}


def _end_of_scan(data: bytes, position: int, name: str) -> int:
    """The first marker after a scan's entropy-coded bytes (stuffed FF 00 and restarts skipped)."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise _truncated(name, "inside the picture data, without the JPEG end marker")
        following = data[position + 1]
        if following == 0xFF:
            position += 1
        elif following == 0x00 or following in _RESTARTS:
            position += 2
        else:
            return position


def _exif_orientation(tiff: bytes) -> int:
    """Orientation of an EXIF block; 1 where it is absent, damaged or out of range."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for index in range(entries):
            tag, kind, _, value = struct.unpack_from(
                order + "HHIH", tiff, directory + 2 + 12 * index
            )
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def png_chunks(data: bytes, *, name: str) -> Iterator[tuple[bytes, bytes]]:
    """Kind and whole bytes (length, kind, body, checksum) of each chunk up to IEND.

    Args:
        data: the bytes of a PNG file.
        name: what to call the file in errors.

    Raises:
        ImageError: a chunk is cut short, or its checksum does not fit.
    """
    kind, position = b"", len(PNG_SIGNATURE)
    while kind != b"IEND":
        kind, chunk = _png_chunk(data, position, name)
        position += len(chunk)
        yield kind, chunk


def _png_header(data: bytes, name: str) -> ImageHeader:
    header: tuple[int, int, int, int] | None = None
    orientation, kinds = 1, set()
    for kind, chunk in png_chunks(data, name=name):
        body = chunk[8:-4]
        if (header is None) != (kind == b"IHDR"):
            raise _damaged(name, "the PNG does not begin with one header")
        if kind == b"IHDR":
            header = _png_frame(body, name)
        elif kind == b"acTL":
            raise ImageError(f"{name} is an animated PNG; export one still photograph")
        elif kind == b"eXIf":
            orientation = _exif_orientation(body.removeprefix(b"Exif\x00\x00"))
        kinds.add(kind)
    if header is None or b"IDAT" not in kinds:
        raise _damaged(name, "it holds no picture data")
    width, height, bits, colour = header
    if _PNG_COLOURS[colour] == "palette" and b"PLTE" not in kinds:
        raise _damaged(name, "it holds no palette, though its pixels refer to one")
    return ImageHeader("PNG", width, height, bits, _PNG_COLOURS[colour], orientation)


def _png_chunk(data: bytes, position: int, name: str) -> tuple[bytes, bytes]:
    if position + 12 > len(data):
        raise _truncated(name, "without the PNG end chunk")
    end = position + 12 + int.from_bytes(data[position : position + 4], "big")
    if end > len(data):
        raise _truncated(name, "inside a PNG chunk")
    chunk = data[position:end]
    kind = chunk[4:8]
    if zlib.crc32(memoryview(chunk)[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise _damaged(name, f"the checksum of its PNG chunk {kind!r} does not fit")
    return kind, chunk


def _png_frame(body: bytes, name: str) -> tuple[int, int, int, int]:
    if len(body) != 13:
        raise _damaged(name, "the PNG header has a wrong length")
    width, height, bits, colour = struct.unpack(">IIBB", body[:10])
    if width == 0 or height == 0:
        raise _damaged(name, f"the header states a size of {width}x{height} pixels")
    if colour not in _PNG_COLOURS:
        raise _damaged(name, f"the PNG header names an unknown colour type {colour}")
    return width, height, bits, colour
