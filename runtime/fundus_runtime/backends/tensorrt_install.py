"""TensorRT's module, or an error that says which part of its installation is missing.

Four things have to be there: the Python package, the libraries behind it, NVIDIA's driver, and a
GPU. Each is looked for in this order, and each has its own way to get it on JetPack and elsewhere.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import platform
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fundus_runtime.errors import EngineError, EngineMissingError

__all__ = ["import_tensorrt", "make_log", "refusal", "require_gpu"]

_LOG = logging.getLogger(__name__)

_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_JETPACK_OF_RELEASE = {35: 5, 36: 6, 38: 7, 39: 7}
_KEPT_MESSAGES = 40

_FROM_JETPACK = (
    "sudo apt install tensorrt python3-libnvinfer, then a virtual environment that sees it "
    "(python3 -m venv --system-site-packages .venv) with cuda-python in it"
)
_HOW = {
    "JetPack 6": f"on JetPack 6 (Python 3.10): {_FROM_JETPACK}",
    "JetPack 7": f"on JetPack 7 (Python 3.12): {_FROM_JETPACK}",
    "a desktop": (
        "on a desktop: pip install --extra-index-url https://pypi.nvidia.com "
        '"fundus-edge[tensorrt]"'
    ),
}
_DRIVER_HOW = {
    "JetPack 6": "on JetPack 6: the driver is part of Jetson Linux; in a container, start it with "
    "--runtime nvidia",
    "JetPack 7": "on JetPack 7: the driver is part of Jetson Linux; in a container, start it with "
    "--gpus all",
    "a desktop": "on a desktop: install NVIDIA's driver (nvidia-smi must list the GPU); in a "
    "container, start it with --gpus all",
}

# What cuInit and TensorRT's own start answer, see CUresult and cudaError_t in CUDA's headers.
_CUDA_MEANING = {
    2: "the GPU has no memory left",
    3: "the driver is shutting down",
    34: "the driver is only a stub of the toolkit's",
    35: "NVIDIA's driver is missing, or older than this TensorRT needs",
    100: "there is no GPU that this process may use",
    101: "the GPU's number is not valid",
    803: "driver and its library are of different versions; restart the machine",
    804: "the driver does not support this GPU's forward compatibility",
    999: "the driver failed for an unknown reason; restart the machine",
}


def import_tensorrt() -> Any:
    """The module `tensorrt`.

    Raises:
        EngineMissingError: the package or a library behind it is missing; says which.
    """
    try:
        module = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise _broken(error) from error
        found = "its package `tensorrt` is not installed"
        if importlib.util.find_spec("tensorrt_bindings") is not None:
            found += " (there is only tensorrt_bindings, which holds no libraries)"
        raise EngineMissingError(f"TensorRT is missing: {found}; get it {_how(_HOW)}") from error
    except ImportError as error:
        raise _broken(error) from error
    if getattr(module, "__file__", None) is None and not hasattr(module, "Runtime"):
        raise EngineMissingError(  # any folder on the path passes for a package of its name
            f"TensorRT is missing: what Python finds under its name is only the folder "
            f"{', '.join(getattr(module, '__path__', []))}; get it {_how(_HOW)}"
        )
    return module


def require_gpu() -> None:
    """Ask the driver itself whether there is a GPU; needs no Python package.

    Raises:
        EngineMissingError: the driver's library is missing, or finds no GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineMissingError(
            f"NVIDIA's driver is missing: its library libcuda.so.1 cannot be loaded ({error}); "
            f"get it {_how(_DRIVER_HOW)}"
        ) from error
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        raise EngineMissingError(
            f"no GPU can be used: {_meaning(status or 100)}; get one {_how(_DRIVER_HOW)}"
        )


def refusal(what: str, messages: Iterable[str]) -> EngineError:
    """The error for an object that TensorRT would not make, with the reason from its log.

    Args:
        what: for example "TensorRT's builder".
        messages: what TensorRT logged.
    """
    said = [message for message in messages if message.strip()]
    for message in said:
        if found := re.search(r"CUDA initialization failure with error: (\d+)", message):
            code = int(found.group(1))
            return EngineMissingError(
                f"{what} cannot start: CUDA error {code}, {_meaning(code)}; get a working driver "
                f"{_how(_DRIVER_HOW)}"
            )
    return EngineError(f"{what} failed: {'; '.join(said[-5:]) or 'TensorRT gave no reason'}")


def make_log(trt: Any) -> Any:
    """A logger for TensorRT that passes messages on and keeps warnings and errors.

    Its `messages` are the last ones, for the errors that TensorRT itself does not put into words.
    """

    class Log(trt.ILogger):  # type: ignore[misc]  # TensorRT ships no types
        """Warnings and errors are kept, everything goes to Python's logging."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            level = int(severity)  # 0 internal error, 1 error, 2 warning, 3 info, 4 verbose
            if level <= 2:
                self.messages.append(message)
            _LOG.log(logging.WARNING if level <= 1 else logging.DEBUG, "TensorRT: %s", message)

    return Log()


def _broken(error: ImportError) -> EngineMissingError:
    library = re.search(r"(lib[\w.+-]+\.so[\w.]*)", str(error))
    if library is None:
        return EngineMissingError(
            f"TensorRT's package is there but cannot be imported ({error}); it may be built for "
            f"another Python than {platform.python_version()}; get it {_how(_HOW)}"
        )
    return EngineMissingError(
        f"TensorRT's package is there but its library {library.group(1)} is missing ({error}); "
        f"get it {_how(_HOW)}"
    )


def _meaning(code: int) -> str:
    return _CUDA_MEANING.get(code, f"CUDA error {code}")


def _how(ways: dict[str, str]) -> str:
    """The way on this platform; all of them where the platform is none of the known ones."""
    here = _platform()
    if here in ways:
        return ways[here]
    return "; ".join(ways.values())


def _platform() -> str:
    try:
        release = re.match(r"# R(\d+)", _TEGRA_RELEASE.read_text("utf-8", "replace"))
    except OSError:
        return "a desktop" if platform.machine() == "x86_64" else "unknown"
    if release is None:
        return "unknown"
    return f"JetPack {_JETPACK_OF_RELEASE.get(int(release.group(1)), 'unknown')}"
