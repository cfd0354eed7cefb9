"""Which part of an installation is missing, and how to get it on each platform."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fundus_runtime.backends import tensorrt_install
from fundus_runtime.backends.tensorrt_install import import_tensorrt, refusal, require_gpu
from fundus_runtime.errors import EngineError, EngineMissingError

JETPACK_6 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
JETPACK_7 = "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64\n"


@pytest.fixture
def platform_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str | None, str], None]:
    def be(tegra: str | None, machine: str = "aarch64") -> None:
        release = tmp_path / "nv_tegra_release"
        if tegra is not None:
            release.write_text(tegra, "utf-8")
        monkeypatch.setattr(tensorrt_install, "_TEGRA_RELEASE", release)
        monkeypatch.setattr(tensorrt_install.platform, "machine", lambda: machine)

    return be


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Callable[[ImportError], None]:
    """Makes the import of TensorRT end in this error."""

    def fail(error: ImportError) -> None:
        def import_module(name: str) -> Any:
            if name == "tensorrt":
                raise error
            return importlib.import_module(name)

        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        monkeypatch.setattr(tensorrt_install.importlib, "import_module", import_module)

    return fail


NOT_INSTALLED = ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")


@pytest.mark.parametrize(
    ("tegra", "machine", "how"),
    [
        (JETPACK_6, "aarch64", ["on JetPack 6 (Python 3.10): sudo apt install tensorrt"]),
        (JETPACK_7, "aarch64", ["on JetPack 7 (Python 3.12): sudo apt install tensorrt"]),
        (None, "x86_64", ["on a desktop: pip install --extra-index-url https://pypi.nvidia.com"]),
        (None, "aarch64", ["on JetPack 6", "on JetPack 7", "on a desktop"]),
        ("something else", "aarch64", ["on JetPack 6", "on JetPack 7", "on a desktop"]),
        ("# R99 (release)", "aarch64", ["on JetPack 6", "on JetPack 7", "on a desktop"]),
    ],
)
def test_a_missing_package_is_told_with_the_platforms_own_way(
    platform_is: Callable[..., None],
    importing: Callable[[ImportError], None],
    tegra: str | None,
    machine: str,
    how: list[str],
) -> None:
    platform_is(tegra, machine)
    importing(NOT_INSTALLED)

    with pytest.raises(EngineMissingError, match="package `tensorrt` is not installed") as error:
        import_tensorrt()
    ways = [
        way for way in ("on JetPack 6", "on JetPack 7", "on a desktop") if way in str(error.value)
    ]
    assert len(ways) == len(how)
    assert all(one in str(error.value) for one in how)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            ImportError("libnvinfer.so.10: cannot open shared object file: No such file"),
            r"its library libnvinfer\.so\.10 is missing",
        ),
        (
            ImportError("libcudnn.so.8: cannot open shared object file: No such file"),
            r"its library libcudnn\.so\.8 is missing",
        ),
        (ImportError("undefined symbol: _Py_Something"), "may be built for another Python than 3"),
        (
            ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs"),
            "cannot be imported",
        ),
    ],
)
def test_a_missing_library_is_named(
    importing: Callable[[ImportError], None], error: ImportError, says: str
) -> None:
    importing(error)

    with pytest.raises(EngineMissingError, match=says):
        import_tensorrt()


def test_bindings_without_libraries_are_told_apart(
    importing: Callable[[ImportError], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    importing(NOT_INSTALLED)
    monkeypatch.setattr(tensorrt_install.importlib.util, "find_spec", lambda _: object())

    with pytest.raises(EngineMissingError, match="only tensorrt_bindings, which holds no librar"):
        import_tensorrt()


def test_a_folder_of_the_same_name_is_no_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    try:
        with pytest.raises(EngineMissingError, match=f"only the folder {tmp_path}/tensorrt"):
            import_tensorrt()
    finally:
        sys.modules.pop("tensorrt", None)


class Driver:
    """libcuda.so.1 as far as it is asked."""

    def __init__(self, status: int, gpus: int) -> None:
        self._status, self._gpus = status, gpus

    def cuInit(self, _: int) -> int:  # noqa: N802  # CUDA's name
        return self._status

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802  # CUDA's name
        count._obj.value = self._gpus
        return 0


@pytest.mark.parametrize(
    ("status", "gpus", "says"),
    [
        (100, 0, "there is no GPU that this process may use"),
        (0, 0, "there is no GPU that this process may use"),
        (803, 1, "different versions; restart the machine"),
        (4711, 1, "CUDA error 4711"),
    ],
)
def test_a_driver_without_a_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch,
    platform_is: Callable[..., None],
    status: int,
    gpus: int,
    says: str,
) -> None:
    platform_is(JETPACK_6)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(status, gpus))

    with pytest.raises(EngineMissingError, match=says) as error:
        require_gpu()
    assert "on JetPack 6: the driver is part of Jetson Linux" in str(error.value)


def test_a_missing_driver_is_told(
    monkeypatch: pytest.MonkeyPatch, platform_is: Callable[..., None]
) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    platform_is(None, "x86_64")
    monkeypatch.setattr(ctypes, "CDLL", missing)

    with pytest.raises(EngineMissingError, match=r"its library libcuda\.so\.1 cannot be loaded"):
        require_gpu()


def test_a_gpu_that_answers_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(0, 1))

    require_gpu()


def test_a_refusal_gives_the_last_of_what_was_logged() -> None:
    error = refusal("building", ["one", " ", *(f"reason {number}" for number in range(9))])

    assert isinstance(error, EngineError)
    assert str(error) == ("building failed: reason 4; reason 5; reason 6; reason 7; reason 8")
    assert "TensorRT gave no reason" in str(refusal("building", []))


def test_the_log_keeps_warnings_and_errors_and_passes_all_on(
    stand_in: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    log = tensorrt_install.make_log(stand_in("10.3.0"))
    with caplog.at_level("DEBUG"):
        for severity, words in ((1, "an error"), (2, "a warning"), (3, "news"), (4, "talk")):
            log.log(severity, words)

    assert list(log.messages) == ["an error", "a warning"]
    assert [record.levelname for record in caplog.records] == ["WARNING", *["DEBUG"] * 3]
