"""The recorded signatures are those of NVIDIA's own bindings, taken from the registry again.

The bindings' libraries are stubs here, so that nothing can be made with them but looked at. Run by
`make test-tensorrt`; elsewhere skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECORDS = sorted(
    file for file in (HERE / "api").glob("*.json") if not file.name.startswith("8.5.3.1")
)

pytestmark = pytest.mark.needs_tensorrt


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.stem)
def test_the_record_is_what_the_bindings_offer(file: Path, tmp_path: Path) -> None:
    folder = os.environ.get("FUNDUS_TENSORRT_WHEELS")
    if not folder:
        pytest.skip("needs the bindings' wheels: make test-tensorrt")
    recorded = json.loads(file.read_text("utf-8"))
    wheel = Path(folder) / recorded["source"]["wheel"]
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == recorded["source"]["sha256"]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    libraries = tmp_path / "libraries"
    record = [sys.executable, str(HERE / "record_api.py")]
    subprocess.run([*record, "stubs", str(libraries), file.stem.split(".")[0]], check=True)

    found = subprocess.run(
        [*record, "record", "tensorrt_bindings", str(wheel)],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries),
            "PYTHONPATH": str(tmp_path / "site"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == recorded
