"""The rules that no single module can keep: who may import whom, and what lies where."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "fundus_runtime": ROOT / "runtime" / "fundus_runtime",
    "fundus_training": ROOT / "training" / "fundus_training",
    "fundus_export": ROOT / "export" / "fundus_export",
}
MAY_IMPORT = {
    "fundus_runtime": {"fundus_runtime"},
    "fundus_training": {"fundus_runtime", "fundus_training"},
    "fundus_export": {"fundus_runtime", "fundus_training", "fundus_export"},
}
# The base install's dependencies, by the names they are imported under.
BASE = {"PIL", "cryptography", "numpy", "simplejpeg", "tqdm"}
# The reference preprocessing asks for OpenCV here, and says what to install where it is not.
OPENCV = "runtime/fundus_runtime/preprocess/opencv.py"
NEVER_IN_THE_RUNTIME = {"torch", "onnx", "onnxscript", "onnx_ir"}
COMPONENTS = ("runtime", "training", "export")


def modules_of(package: str) -> list[Path]:
    found = sorted(PACKAGES[package].rglob("*.py"))
    assert found, f"{PACKAGES[package]} holds no modules"
    return found


def imported_roots(node: ast.AST) -> set[str]:
    """Top-level names that an import statement brings in; relative imports stay at home."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {str(node.module).partition(".")[0]}
    return set()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below `node` that importing the module executes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if is_type_checking(child):
            continue
        yield child
        yield from run_at_import(child)


def imports(module: Path, *, at_import_only: bool = False) -> set[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"), str(module))
    nodes = run_at_import(tree) if at_import_only else ast.walk(tree)
    return {root for node in nodes for root in imported_roots(node)}


def offenders(package: str, forbidden: set[str]) -> dict[str, list[str]]:
    """Modules of a package that import, anywhere in them, one of the forbidden names."""
    found = {
        str(module.relative_to(ROOT)): sorted(imports(module) & forbidden)
        for module in modules_of(package)
    }
    return {module: names for module, names in found.items() if names}


@pytest.mark.parametrize("package", PACKAGES)
def test_dependencies_point_from_export_to_training_to_runtime(package: str) -> None:
    assert offenders(package, set(PACKAGES) - MAY_IMPORT[package]) == {}


def test_the_runtime_imports_neither_torch_nor_onnx_anywhere() -> None:
    assert offenders("fundus_runtime", NEVER_IN_THE_RUNTIME) == {}


def test_importing_the_runtime_needs_the_base_install_alone() -> None:
    allowed = BASE | {"fundus_runtime"} | sys.stdlib_module_names
    extra = {
        str(module.relative_to(ROOT)): sorted(imports(module, at_import_only=True) - allowed)
        for module in modules_of("fundus_runtime")
    }
    assert {module: names for module, names in extra.items() if names} == {OPENCV: ["cv2"]}


def test_the_runtime_imports_opencv_in_one_place_alone() -> None:
    assert offenders("fundus_runtime", {"cv2"}) == {OPENCV: ["cv2"]}


IMPORT_ALL = """
import importlib, json, pkgutil, sys
import fundus_runtime

for module in pkgutil.walk_packages(fundus_runtime.__path__, "fundus_runtime."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""


def test_importing_every_runtime_module_brings_in_no_framework_and_no_engine() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(json.loads(answer.stdout))
    assert {"fundus_runtime", "fundus_runtime._native", "fundus_runtime.errors"} <= loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "tensorrt", "pycuda", "cuda"}


SCREEN = """
import sys
sys.modules["cv2"] = None  # as where it is not installed

from importlib import resources
import fundus_runtime.commands.screen, fundus_runtime.doctor, fundus_runtime.report
from fundus_runtime.photograph import decode_photograph
from fundus_runtime.screener import Screener

photograph = resources.files("fundus_runtime").joinpath("data/retina.jpg").read_bytes()
frame = decode_photograph(photograph, name="retina.jpg")
with Screener.open(threads=1) as screener:
    result = screener.screen(frame, frame[:, ::-1], color="rgb")
assert result.left.picture.visible().any()
"""


def test_a_photograph_is_decoded_and_screened_without_opencv() -> None:
    subprocess.run([sys.executable, "-c", SCREEN], check=True, timeout=120)


AT_START = """
import sys
import fundus_runtime.screener
print(*sorted({"PIL", "cv2", "jinja2", "simplejpeg", "tqdm"} & set(sys.modules)))
"""


def test_the_screener_starts_without_decoders_and_pages() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", AT_START], capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.split() == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_folder_is_no_package_and_holds_only_thin_scripts(component: str) -> None:
    lines = {
        script.name: len(script.read_text(encoding="utf-8").splitlines())
        for script in (ROOT / component).glob("*.py")
    }
    assert "__init__.py" not in lines
    assert {name: count for name, count in lines.items() if count > 10} == {}


def test_test_folders_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_its_types(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").is_file()


def test_the_stub_names_what_the_native_module_has() -> None:
    from fundus_runtime import _native

    stub = ast.parse((PACKAGES["fundus_runtime"] / "_native.pyi").read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    declared = {node.name for node in stub.body if isinstance(node, kinds)}
    if not hasattr(_native, "CudaPreprocessor"):  # a core built without CUDA has none of these
        declared -= {"CudaError", "CudaPreprocessor", "FrameMemoryError", "TensorMemoryError"}
    assert declared == {name for name in dir(_native) if not name.startswith("_")}
