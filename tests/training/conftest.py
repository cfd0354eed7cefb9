"""Rendered photographs and data sets in the public layouts, for the tests of training."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ODIR_HEADER = [
    *("ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus"),
    *("Left-Diagnostic Keywords", "Right-Diagnostic Keywords"),
    *"NDGCAHMO",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads over tiny tensors wait for each other and do little else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_fundus(path: Path, *, seed: int = 0, side: int = 160, disc: bool = True) -> Path:
    """A rendered fundus: a textured orange disc on black, the optic disc on the nasal side."""
    rng = np.random.default_rng(seed)
    frame = np.zeros((side, side, 3), np.uint8)
    if disc:
        texture = cv2.resize(rng.integers(-25, 25, (8, 8, 3)).astype(np.float32), (side, side))
        inside = np.zeros((side, side), np.uint8)
        cv2.circle(inside, (side // 2, side // 2), side * 46 // 100, 1, -1)
        frame = np.clip(np.array([150, 80, 40]) + texture, 0, 255).astype(np.uint8)
        nasal = side // 4 if "left" in path.name else side - side // 4
        cv2.circle(frame, (nasal, side // 2), side // 14, (250, 220, 150), -1)
        frame *= inside[:, :, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), frame[:, :, ::-1])
    return path


def odir_row(
    patient: int, left: str = "normal fundus", right: str = "normal fundus", letters: str = "N"
) -> list[object]:
    files = [f"{patient}_left.jpg", f"{patient}_right.jpg"]
    return [patient, 60, "Female", *files, left, right, *(int(c in letters) for c in "NDGCAHMO")]


def write_table(path: Path, rows: Sequence[Sequence[object]], *, encoding: str = "utf-8") -> Path:
    """A CSV, or an XLSX with numbers as a spreadsheet stores them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(list(row))
        book.save(path)
        return path
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def make_fundus() -> Callable[..., Path]:
    return draw_fundus


@pytest.fixture
def make_table() -> Callable[..., Path]:
    return write_table


def write_odir(table: Path, images: Path, rows: Sequence[Sequence[object]], **options: str) -> Path:
    """One annotation file and the photographs that its rows name."""
    for row in rows:
        for name in (str(row[3]), str(row[4])):
            draw_fundus(images / name, seed=int(str(row[0])))
    return write_table(table, [ODIR_HEADER, *rows], **options)


@pytest.fixture(scope="session")
def make_odir() -> Callable[..., Path]:
    return write_odir


@pytest.fixture(scope="session")
def row_of() -> Callable[..., list[object]]:
    return odir_row
