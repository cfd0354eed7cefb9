from __future__ import annotations

import re
from pathlib import Path

import onnxruntime

import fundus_export
from fundus_export.library_versions import onnxruntime_version


def test_onnxruntimes_version_is_the_modules() -> None:
    assert onnxruntime_version() == onnxruntime.__version__


def test_no_package_is_asked_for_it() -> None:
    """It is called onnxruntime-gpu where it has GPUs, and then has no other name."""
    asked = re.compile(r"version\(\s*[\"']onnxruntime")
    for path in Path(fundus_export.__file__).parent.rglob("*.py"):
        assert not asked.search(path.read_text("utf-8")), path
