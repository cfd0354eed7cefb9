"""Looks at this machine: engines, GPU, CPU features, trusted keys, bundle, versions.

It reports and never fails: what is missing or broken is part of the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fundus_runtime.bundle import Bundle
from fundus_runtime.certificate import certificate_of
from fundus_runtime.errors import FundusError
from fundus_runtime.golden import check_golden
from fundus_runtime.plan_key import PlanKey
from fundus_runtime.plans import found_keys
from fundus_runtime.trusted_keys import TrustedKeys
from fundus_runtime.version import __version__

__all__ = ["examine", "format_findings"]

_TEGRA_RELEASE = Path("/etc/nv_tegra_release")
_NVIDIA_SMI_SECONDS = 10
# Two builds of the same module.
_ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def examine(bundle: str | Path | None = None) -> dict[str, Any]:
    """Everything the doctor finds, as plain JSON values.

    Args:
        bundle: folder of a bundle; None for the default one.
    """
    return {
        "format": "fundus-edge doctor",
        "schema_version": 1,
        "not_a_medical_device": True,
        "versions": _versions(),
        "machine": _machine(),
        "cpu_features": _cpu_features(),
        "engines": {
            "onnxruntime": _onnxruntime(),
            "tensorrt": _module("tensorrt"),
            "device_memory": _device_memory(),
        },
        "gpu": _gpu(),
        "trusted_keys": _trusted_keys(),
        "bundle": _bundle(bundle),
    }


def format_findings(findings: dict[str, Any]) -> str:
    """The findings as lines of text."""
    lines = []
    for part, value in findings.items():
        if part in ("format", "schema_version", "not_a_medical_device"):
            continue
        lines.append(part.replace("_", " "))
        lines += _lines_of(value)
    return "\n".join([*lines, "For research only. Not a medical device."])


def _lines_of(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [f"  {_words(value)}"]
    width = max((len(str(key)) for key in value), default=0)
    return [f"  {key:<{width}}  {_words(one)}" for key, one in value.items()]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        parts = (f"{key} {_words(one)}" for key, one in value.items() if one is not None)
        return ", ".join(parts) or "none"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _versions() -> dict[str, str | None]:
    return {
        "fundus-edge": __version__,
        "python": platform.python_version(),
        "numpy": _version_of("numpy"),
        "pillow": _version_of("PIL"),
        "simplejpeg": _version_of("simplejpeg"),
        "cryptography": _version_of("cryptography"),
    }


def _version_of(module: str) -> str | None:
    found = _module(module)
    version: str | None = found["version"]
    return version


def _machine() -> dict[str, Any]:
    from fundus_runtime.backends.settings import default_threads

    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "threads": default_threads(),
        "jetson": _first_line(_TEGRA_RELEASE),
    }


def _cpu_features() -> dict[str, Any]:
    try:
        native = importlib.import_module("fundus_runtime._native")
        return {"native_core": native.version(), **native.cpu_features()}
    except Exception as error:  # a broken build must not keep the doctor from the rest
        return {"native_core": None, "problem": f"the native core cannot be loaded: {error}"}


def _module(name: str) -> dict[str, Any]:
    """Whether a module imports, and its version or what went wrong."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return {"installed": False, "version": None, "problem": None}
    except Exception as error:  # for example a missing shared library
        return {"installed": True, "version": None, "problem": f"it cannot be loaded: {error}"}
    version = getattr(module, "__version__", None)
    return {
        "installed": True,
        "version": None if version is None else str(version),
        "problem": None,
    }


def _onnxruntime() -> dict[str, Any]:
    found = _module("onnxruntime")
    providers: list[str] = []
    if found["installed"] and found["problem"] is None:
        providers = list(sys.modules["onnxruntime"].get_available_providers())
    if not found["installed"]:
        found["problem"] = 'not installed; pip install "fundus-edge[cpu]"'
    elif all(map(_has_distribution, _ONNX_RUNTIMES)):
        found["problem"] = (
            f"{' and '.join(_ONNX_RUNTIMES)} are both installed and overwrite each other; "
            f"pip uninstall {' '.join(_ONNX_RUNTIMES)}, then install one of them again"
        )
    return {**found, "providers": providers}


def _has_distribution(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _device_memory() -> dict[str, Any]:
    """What the backend `tensorrt` takes device memory through."""
    for name in ("cuda.bindings.driver", "cuda.cuda", "pycuda.driver"):
        found = _module(name)
        if found["installed"]:
            return {**found, "module": name}
    return {"installed": False, "version": None, "problem": None, "module": None}


def _gpu() -> dict[str, Any]:
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    names = _nvidia_smi()
    return {
        "present": bool(devices or names or _TEGRA_RELEASE.exists()),
        "devices": devices,
        "names": names,
    }


def _nvidia_smi() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _trusted_keys() -> dict[str, Any]:
    """Who may vouch for a bundle here, by key id, and where that was looked up."""
    try:
        found = TrustedKeys.find()
    except FundusError as error:
        return {"folders": [], "absent": [], "keys": {}, "problem": str(error)}
    return {
        "folders": [str(folder) for folder in found.folders],
        "absent": [str(folder) for folder in found.absent],
        "keys": dict(found.sources),
        "problem": None,
    }


def _bundle(path: str | Path | None) -> dict[str, Any]:
    try:
        bundle = Bundle.open(path)
    except FundusError as error:
        return {"usable": False, "problem": str(error)}
    manifest = bundle.manifest
    return {
        "usable": True,
        "problem": None,
        "path": str(bundle.path),
        "name": manifest.name,
        "version": manifest.version,
        "trust": bundle.trust,
        "signer": bundle.signer,
        "sha256": bundle.sha256,
        "classes": list(manifest.classes.letters),
        "graphs": sorted(manifest.graphs),
        "default_graphs": dict(manifest.default_graphs),
        "operating_points": list(manifest.operating_points.names),
        "default_operating_point": manifest.operating_points.default,
        "input_size": manifest.spec.size,
        "preprocess_sha256": manifest.spec.sha256,
        "certificates": _certificates(bundle),
        "golden": _golden(bundle),
        "plans": [_in_words(key, bundle) for key in found_keys(bundle)],
    }


def _in_words(key: PlanKey, bundle: Bundle) -> str:
    void = "" if key.bundle_sha256 == bundle.sha256 else "VOID, of another state of the bundle: "
    return (
        f"{void}{key.precision} from {key.dialect}, batches up to {key.max_batch}, for "
        f"{key.device.in_words()}"
    )


def _certificates(bundle: Bundle) -> dict[str, str]:
    """What each form's certificate says at the default operating point, in words."""
    manifest = bundle.manifest
    found = {}
    for name, graphs in manifest.graphs.items():
        try:
            point = manifest.operating_points.default
            found[name] = certificate_of(manifest, graphs, point).statement
        except FundusError as error:
            found[name] = str(error)
    return found


def _golden(bundle: Bundle) -> dict[str, Any]:
    """Whether this machine answers the bundle's golden pairs as the validated model did."""
    try:
        report = check_golden(bundle)
    except FundusError as error:
        return {"passed": False, "problem": str(error)}
    if report is None:
        return {"passed": None, "problem": "the bundle carries no golden pairs"}
    problem = None
    if not report.passed:
        problem = (
            f"{', '.join(report.wrong)} answered otherwise than recorded; do not use this machine "
            "before it is known why: reinstall the engine, then check the memory"
        )
    return {
        "passed": report.passed,
        "pairs": report.pairs,
        "largest_difference": report.largest_difference,
        "tolerance": report.tolerance,
        "problem": problem,
    }


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").splitlines()[0]
    except (OSError, IndexError):
        return None
