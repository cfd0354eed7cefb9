from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundus_runtime.errors import ImageError
from fundus_runtime.photograph import decode_photograph, read_photograph

HEIGHT, WIDTH = 96, 144


def scene() -> np.ndarray:
    """RGB blocks, all four corners and both sides different, so that any turn shows."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[: HEIGHT // 2, : WIDTH // 2] = (200, 40, 30)
    rgb[: HEIGHT // 2, WIDTH // 2 :] = (30, 180, 60)
    rgb[HEIGHT // 2 :, : WIDTH // 2] = (20, 50, 220)
    rgb[HEIGHT // 2 :, WIDTH // 2 :] = (190, 190, 40)
    return rgb


def encoded(extension: str, picture: np.ndarray, *options: int) -> bytes:
    flag = picture
    if picture.ndim == 3 and picture.shape[2] == 3:
        flag = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(extension, flag, list(options))
    assert done
    return data.tobytes()


def jpeg(picture: np.ndarray | None = None, *options: int) -> bytes:
    return encoded(
        ".jpg", scene() if picture is None else picture, cv2.IMWRITE_JPEG_QUALITY, 98, *options
    )


def tiff_orientation(value: int, order: str = "<", kind: int = 3) -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, kind, 1, value, 0)
    return magic + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


def with_exif(data: bytes, tiff: bytes) -> bytes:
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


def png(
    width: int = WIDTH,
    height: int = HEIGHT,
    bits: int = 8,
    colour: int = 2,
    rows: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    if rows is None:
        rows = b"".join(b"\0" + row.tobytes() for row in scene())
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


PNG_ROWS = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in scene())))


def decode(data: bytes, **limits: float) -> np.ndarray:
    return decode_photograph(data, name="eye.jpg", **limits)


def opencv(data: bytes) -> np.ndarray:
    """What another decoder makes of a file, as stored."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[:, :, ::-1]


def assert_close(picture: np.ndarray, expected: np.ndarray) -> None:
    assert picture.shape == expected.shape
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    # JPEG at quality 98: a few levels inside blocks, more at their edges
    assert np.median(np.abs(picture.astype(int) - expected.astype(int))) <= 4


def test_jpeg_is_read_as_rgb() -> None:
    assert_close(decode(jpeg()), scene())


def test_progressive_jpeg_is_read() -> None:
    data = jpeg(None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert data.count(b"\xff\xda") > 1
    assert_close(decode(data), scene())


def test_jpeg_with_restart_markers_is_read() -> None:
    data = jpeg(None, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    assert b"\xff\xd1" in data
    assert_close(decode(data), scene())


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_jpeg_is_decoded_to_the_bit_as_opencv_does_and_straight_into_its_array(
    sampling: str,
) -> None:
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    noisy = np.random.default_rng(5).integers(0, 256, (HEIGHT + 5, WIDTH + 3, 3), np.uint8)
    data = jpeg(noisy, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
    picture = decode(data)
    assert np.array_equal(picture, opencv(data))
    assert picture.flags.owndata
    assert picture.flags.writeable


def with_scan_parameters_at_zero(data: bytes) -> bytes:
    scan = data.index(b"\xff\xda")
    end = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    return patched(data, end - 3, b"\0\0\0")


def with_adobe_transform(data: bytes, transform: int) -> bytes:
    """The file with Adobe's marker in JFIF's place."""
    start = data.index(b"\xff\xe0")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    adobe = struct.pack(">HH5sHHHB", 0xFFEE, 14, b"Adobe", 100, 0, 0, transform)
    return data[:start] + adobe + data[end:]


def with_sampling_factors(*factors: tuple[int, int]) -> bytes:
    """A JPEG of three components with any sampling factors, a scan for each component."""
    across, down = max(h for h, _ in factors), max(v for _, v in factors)
    planes = np.moveaxis(cv2.cvtColor(scene(), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]], 2, 0)
    greys = [
        jpeg(np.ascontiguousarray(plane[:: down // v, :: across // h]))
        for plane, (h, v) in zip(planes, factors, strict=True)
    ]
    scans = [grey[grey.index(b"\xff\xda") :] for grey in greys]
    components = b"".join(bytes([n, h << 4 | v, 0]) for n, (h, v) in enumerate(factors, 1))
    frame = struct.pack(">HHBHHB", 0xFFC0, 17, 8, HEIGHT, WIDTH, 3) + components
    first = greys[0]
    start, scan = sof_of(first), first.index(b"\xff\xda")
    length = 2 + int.from_bytes(first[start + 2 : start + 4], "big")
    named = [patched(one, 5, bytes([n]))[:-2] for n, one in enumerate(scans, 1)]
    tables = first[:start] + frame + first[start + length : scan]
    return tables + b"".join(named) + b"\xff\xd9"


ODD_BUT_WHOLE: dict[str, Callable[[], bytes]] = {
    "scan parameters left at zero": lambda: with_scan_parameters_at_zero(jpeg()),
    "a later JFIF": lambda: jpeg().replace(b"JFIF\0\1", b"JFIF\0\3"),
    "an unknown Adobe transform": lambda: with_adobe_transform(jpeg(), 7),
    "RGB without a transform": lambda: with_adobe_transform(jpeg(), 0),
    "padding before the end": lambda: jpeg()[:-2] + bytes(40) + b"\xff\xd9",
    "factors of 4:1:0": lambda: with_sampling_factors((4, 2), (1, 1), (1, 1)),
    "unlike factors": lambda: with_sampling_factors((2, 2), (2, 1), (1, 1)),
    "4:4:4 with factors of two": lambda: with_sampling_factors((2, 2), (2, 2), (2, 2)),
}


@pytest.mark.parametrize("oddity", ODD_BUT_WHOLE)
def test_odd_but_whole_jpeg_is_read_as_opencv_reads_it(oddity: str) -> None:
    data = ODD_BUT_WHOLE[oddity]()
    assert np.array_equal(decode(data), opencv(data))


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_odd_jpeg_cut_short_is_refused_though_it_has_an_end_marker(share: float) -> None:
    data = with_scan_parameters_at_zero(jpeg())
    with pytest.raises(ImageError, match="its data end before its picture does"):
        decode(data[: int(len(data) * share)] + b"\xff\xd9")


def test_jpeg_whose_data_go_on_after_its_picture_is_refused() -> None:
    with pytest.raises(ImageError, match=r"damaged: .*extraneous bytes"):
        decode(jpeg()[:-2] + b"\x12" * 2000 + b"\xff\xd9")


def test_grey_corner_of_a_whole_jpeg_is_no_damage() -> None:
    picture = scene()
    picture[-32:, -32:] = 128
    assert_close(decode(jpeg(picture)), picture)


def test_bytes_after_the_end_of_a_jpeg_are_allowed() -> None:
    assert_close(decode(jpeg() + b"\0" * 64 + jpeg()[:100]), scene())


def test_png_is_read_exactly() -> None:
    assert np.array_equal(decode(png()), scene())
    assert np.array_equal(decode(png() + b"trailing"), scene())


# first column and row, and steps, of Adam7's passes
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
ADAM7 += [(0, 1, 1, 2)]


def interlaced(picture: np.ndarray, *, leave_out: int = 0) -> bytes:
    height, width = picture.shape[:2]
    rows = b"".join(
        b"\0" + row.tobytes()
        for left, top, across, down in ADAM7
        for row in picture[top::down, left::across]
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    body = zlib.compress(rows[: len(rows) - leave_out])
    parts = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", [(96, 144), (65, 71)])
def test_interlaced_png_is_read_exactly_and_refused_without_its_last_byte(
    size: tuple[int, int],
) -> None:
    picture = scene()[: size[0], : size[1]]
    assert np.array_equal(decode(interlaced(picture)), picture)
    with pytest.raises(ImageError, match="its data end before its picture does"):
        decode(interlaced(picture, leave_out=1))


def test_png_in_many_pieces_is_read_exactly() -> None:
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in scene()))
    pieces = b"".join(png_chunk(b"IDAT", body[k : k + 7]) for k in range(0, len(body), 7))
    assert np.array_equal(decode(png().replace(PNG_ROWS, pieces)), scene())


def test_texts_and_profiles_of_a_png_are_never_unpacked() -> None:
    bomb = zlib.compress(bytes(8 << 20))
    text, profile = b"Comment\0\0" + bomb, b"colours\0\0" + bomb
    extra = png_chunk(b"zTXt", text) + png_chunk(b"iCCP", profile)
    assert np.array_equal(decode(png(extra=extra)), scene())


def test_the_limit_is_the_callers_and_not_the_png_decoders(monkeypatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 100)
    assert np.array_equal(decode(png()), scene())


def test_files_are_read_from_disk_by_text_or_path(tmp_path: Path) -> None:
    file = tmp_path / "eye of 木.JPG"
    file.write_bytes(jpeg())
    assert np.array_equal(read_photograph(file), read_photograph(str(file)))


def test_grey_looking_thumbnail_inside_exif_does_not_stand_for_the_picture() -> None:
    thumbnail = jpeg(np.zeros((64, 64), np.uint8))
    whole = with_exif(jpeg(), tiff_orientation(1) + thumbnail)
    assert_close(decode(whole), scene())
    cut = whole[: whole.index(thumbnail) + len(thumbnail) + 400]
    assert cut.count(b"\xff\xd9") >= 1
    with pytest.raises(ImageError, match="cut short"):
        decode(cut)


# what the camera stored, for each EXIF orientation, when the scene was upright
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", sorted(STORED))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_of_a_jpeg_is_undone(orientation: int, order: str) -> None:
    stored = np.ascontiguousarray(STORED[orientation](scene()))
    data = with_exif(jpeg(stored), tiff_orientation(orientation, order))
    assert_close(decode(data), scene())


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_exif_orientation_agrees_with_opencv_on_jpeg(orientation: int) -> None:
    data = with_exif(jpeg(), tiff_orientation(orientation))
    turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decode(data), cv2.cvtColor(turned, cv2.COLOR_BGR2RGB))


@pytest.mark.parametrize("orientation", sorted(STORED))
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_exif_orientation_of_a_png_is_undone(orientation: int, prefix: bytes) -> None:
    stored = np.ascontiguousarray(STORED[orientation](scene()))
    rows = b"".join(b"\0" + row.tobytes() for row in stored)
    exif = png_chunk(b"eXIf", prefix + tiff_orientation(orientation))
    data = png(stored.shape[1], stored.shape[0], rows=rows, extra=exif)
    assert np.array_equal(decode(data), scene())


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        tiff_orientation(0),
        tiff_orientation(9),
        tiff_orientation(6, kind=7),
        tiff_orientation(6)[:15],
    ],
)
def test_meaningless_exif_leaves_the_picture_as_stored(tiff: bytes) -> None:
    assert_close(decode(with_exif(jpeg(), tiff)), scene())


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@given(share=st.floats(0.001, 0.999))
def test_truncated_files_are_refused_wherever_the_cut_is(extension: str, share: float) -> None:
    data = jpeg() if extension == ".jpg" else encoded(".png", scene())
    with pytest.raises(ImageError, match=r"cut short|empty|no known picture"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
def test_jpeg_cut_short_is_refused_though_it_has_an_end_marker(share: float) -> None:
    data = jpeg()
    with pytest.raises(ImageError, match="its data end before its picture does"):
        decode(data[: int(len(data) * share)] + b"\xff\xd9")


def test_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    data = jpeg(None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 3
    for at in scans[1:]:
        with pytest.raises(ImageError, match="before the last of its scans"):
            decode(data[:at] + b"\xff\xd9")
    decode(data)


def test_jpeg_without_only_its_last_byte_is_refused() -> None:
    with pytest.raises(ImageError, match="cut short"):
        decode(jpeg()[:-1])


def test_empty_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.jpg"
    file.write_bytes(b"")
    with pytest.raises(ImageError, match=r"empty\.jpg is empty .*copy it again"):
        read_photograph(file)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_photograph(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_photograph(tmp_path)
    with pytest.raises(ImageError, match=r"cannot be read|does not exist"):
        read_photograph("a" * 5000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello, this is a text", "no known picture"),
        (b"GIF89a" + b"\0" * 40, "GIF"),
        (b"II*\0" + b"\0" * 40, "TIFF"),
        (b"BM" + b"\0" * 40, "BMP"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIF"),
        (b"\0" * 128 + b"DICM" + b"\0" * 40, "DICOM"),
        (b"%PDF-1.4" + b"\0" * 40, "PDF"),
        (b"RIFF\0\0\0\0WEBP" + b"\0" * 40, "RIFF"),
        (b"\0\0\0\x0cjP  " + b"\0" * 40, "JPEG 2000"),
        (b"\xff\x0a" + b"\0" * 40, "JPEG XL"),
    ],
)
def test_other_kinds_of_files_are_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=rf"eye\.jpg is .*{words}.*export"):
        decode(data)


def test_grayscale_files_are_refused() -> None:
    grey = scene()[..., 1]
    for data in (jpeg(grey), encoded(".png", grey)):
        with pytest.raises(ImageError, match=r"grayscale.*colour photograph \(RGB\) was expected"):
            decode(data)


def test_grayscale_saved_as_rgb_is_refused_but_a_dark_frame_is_not() -> None:
    grey = np.repeat(scene()[..., 1:2], 3, axis=2)
    for data in (jpeg(grey), encoded(".png", grey)):
        with pytest.raises(ImageError, match="holds no colour"):
            decode(data)
    black = np.zeros((80, 80, 3), np.uint8)
    assert decode(jpeg(black)).max() <= 2


def sof_of(data: bytes) -> int:
    return data.index(b"\xff\xc0")


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


def test_cmyk_jpeg_is_refused() -> None:
    data = jpeg()
    start = sof_of(data)
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    frame = struct.pack(">BHHB", 8, HEIGHT, WIDTH, 4) + b"".join(
        bytes([i, 0x11, 0]) for i in range(1, 5)
    )
    segment = b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame
    with pytest.raises(ImageError, match="CMYK JPEG"):
        decode(data[:start] + segment + data[start + 2 + length :])


def test_real_cmyk_and_ycck_files_are_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow writes the CMYK file")
    file = tmp_path / "cmyk.jpg"
    image.fromarray(scene()).convert("CMYK").save(file)
    with pytest.raises(ImageError, match="CMYK JPEG"):
        read_photograph(file)


def test_more_than_eight_bits_are_refused() -> None:
    with pytest.raises(ImageError, match="16 bits a channel, but 8"):
        decode(encoded(".png", scene().astype(np.uint16) * 257))
    data = jpeg()
    with pytest.raises(ImageError, match="12 bits a channel, but 8"):
        decode(patched(data, sof_of(data) + 4, b"\x0c"))


def test_rgba_is_read_when_opaque_and_refused_when_not() -> None:
    bgra = cv2.cvtColor(scene(), cv2.COLOR_RGB2BGRA)
    assert np.array_equal(decode(encoded(".png", bgra)), scene())
    bgra[3, 4, 3] = 254
    with pytest.raises(ImageError, match="transparent pixels"):
        decode(encoded(".png", bgra))


def test_transparent_colour_key_is_refused() -> None:
    key = png_chunk(b"tRNS", struct.pack(">HHH", 200, 40, 30))
    with pytest.raises(ImageError, match="transparent pixels"):
        decode(png(extra=key))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_is_read_through_its_palette(bits: int) -> None:
    per_byte = 8 // bits
    row = bytes([0b01010101 if bits == 1 else 1 if bits == 8 else 0x11]) * (128 // per_byte)
    palette = png_chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    picture = decode(png(128, 80, bits, 3, b"".join(b"\0" + row for _ in range(80)), palette))
    assert picture.shape == (80, 128, 3)
    assert tuple(picture[0, 127]) == (200, 100, 50)


def test_palette_png_without_a_palette_is_refused() -> None:
    rows = b"".join(b"\0" + b"\1" * 128 for _ in range(80))
    with pytest.raises(ImageError, match="holds no palette"):
        decode(png(128, 80, 8, 3, rows))


def test_palette_with_transparency_is_refused() -> None:
    extra = png_chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 50])) + png_chunk(b"tRNS", b"\xff\x00")
    rows = b"".join(b"\0" + b"\1" * 128 for _ in range(80))
    with pytest.raises(ImageError, match="transparent pixels"):
        decode(png(128, 80, 8, 3, rows, extra))


def test_one_pixel_and_tiny_pictures_are_refused() -> None:
    for side in (1, 63):
        tiny = np.full((side, side, 3), (200, 40, 30), np.uint8)
        for data in (jpeg(tiny), encoded(".png", tiny)):
            with pytest.raises(ImageError, match=rf"{side}x{side} pixels.*at least 64"):
                decode(data)
    assert decode(jpeg(np.full((64, 64, 3), (200, 40, 30), np.uint8))).shape == (64, 64, 3)


def test_bombs_are_refused_before_decoding() -> None:
    data = jpeg()
    claims_140_megapixels = patched(data, sof_of(data) + 5, struct.pack(">HH", 10000, 14000))
    with pytest.raises(ImageError, match=r"14000x10000.*140\.0 megapixels.*limit is 64"):
        decode(claims_140_megapixels)
    with pytest.raises(ImageError, match=r"limit is 64"):
        decode(png(2**31 - 1, 2**31 - 1))


def test_real_140_megapixel_png_is_refused() -> None:
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 3 * 14000)) for _ in range(10000)) + packer.flush()
    data = png(14000, 10000).replace(PNG_ROWS, png_chunk(b"IDAT", rows))
    with pytest.raises(ImageError, match=r"140\.0 megapixels"):
        decode(data)


def test_pixel_limit_is_the_callers() -> None:
    megapixels = HEIGHT * WIDTH / 1e6
    assert decode(jpeg(), max_megapixels=megapixels).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageError, match="raise --max-megapixels"):
        decode(jpeg(), max_megapixels=megapixels * 0.99)


def test_flipped_bit_in_a_png_is_refused() -> None:
    data = bytearray(png())
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError, match="checksum"):
        decode(bytes(data))


def test_png_with_too_few_rows_is_refused() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in scene()[: HEIGHT // 2])
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(png(rows=rows))


def test_malformed_structures_are_refused() -> None:
    data = jpeg()
    start = sof_of(data)
    length = 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    frame = data[start : start + length]
    scan = data.index(b"\xff\xda")
    cases = {
        "size twice": data[:start] + frame + data[start:],
        "before the size": data[:start] + data[start + length :],
        "no picture data": data[:2] + b"\xff\xd9",
        "rare kind": patched(data, start, b"\xff\xc9"),
        "0 pixels": patched(data, start + 5, b"\0\0"),
        "second picture": data[:start] + data,
        "has length 1": data[:2] + b"\xff\xe0\x00\x01" + data[2:],
        "marker was expected": data[:start] + b"\x12\x34" + data[start:],
        "more than 100 scans": data[:-2] + data[scan:-2] * 101 + b"\xff\xd9",
        "2-channel": patched(data, start + 9, b"\x02"),
    }
    for words, broken in cases.items():
        with pytest.raises(ImageError, match=words):
            decode(broken)


def test_malformed_png_structures_are_refused() -> None:
    data = png()
    header = data[8:33]
    cases = {
        "begin with one header": data[:8] + data[33:],
        "with one header": data[:8] + header + data[8:],
        "unknown colour type": png(colour=5),
        "0x96": png(width=0),
        "animated": png(extra=png_chunk(b"acTL", bytes(8))),
        "no picture data": data[:33] + png_chunk(b"IEND", b""),
        "wrong length": data[:8] + png_chunk(b"IHDR", bytes(12)) + data[33:],
    }
    for words, broken in cases.items():
        with pytest.raises(ImageError, match=words):
            decode(broken)


@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]),
)
def test_arbitrary_bytes_never_raise_anything_else(data: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        decode(start + data)


@given(position=st.floats(0, 1), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_picture_or_a_refusal(position: float, value: int) -> None:
    data = bytearray(jpeg())
    data[int(position * (len(data) - 1))] = value
    try:
        picture = decode(bytes(data))
    except ImageError:
        return
    assert picture.ndim == 3
    assert picture.shape[2] == 3


@given(position=st.floats(0, 1), value=st.integers(0, 255), colour=st.sampled_from([2, 3]))
def test_a_changed_byte_under_a_true_checksum_gives_a_picture_or_a_refusal(
    position: float, value: int, colour: int
) -> None:
    rows = bytearray(b"".join(b"\0" + row.tobytes()[:WIDTH] for row in scene()))
    palette = png_chunk(b"PLTE", bytes(range(60)))
    packed = bytearray(zlib.compress(rows if colour == 3 else rows * 3))
    packed[int(position * (len(packed) - 1))] = value
    data = png(WIDTH, HEIGHT, 8, colour, extra=palette if colour == 3 else b"")
    try:
        picture = decode(data.replace(PNG_ROWS, png_chunk(b"IDAT", bytes(packed))))
    except ImageError:
        return
    assert picture.shape == (HEIGHT, WIDTH, 3)


def test_every_photograph_at_hand_is_read_to_the_bit_as_opencv_does(fundus_data: Path) -> None:
    files = sorted(fundus_data.rglob("*.jpg"))[::40]
    assert files
    for file in files:
        data = file.read_bytes()
        turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(read_photograph(file), turned[:, :, ::-1])
