"""Records what TensorRT's own Python bindings offer: classes, attributes, signatures, enums.

    record_api.py stubs FOLDER MAJOR           libraries that let bindings be imported
    record_api.py record MODULE WHEEL          JSON of the module, which comes from the wheel

The registry has NVIDIA's bindings for every version, but the libraries behind them for 8.5.3.1
alone. The bindings call nine functions of those libraries; with stubs of these they can be imported
and looked at, though nothing can be made with them. So every name in `api/*.json` is the bindings'
own. Nothing here imports fundus-edge or pytest.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CLASSES = (
    "Builder",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Runtime",
)
ENUMS = (
    "BuilderFlag",
    "DataType",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "ProfilingVerbosity",
    "TacticSource",
    "TensorIOMode",
)
STUBBED = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    # of 8.6, for two forms of models that are gone since
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")


def record(module: Any, wheel: Path) -> dict[str, Any]:
    """What the module offers, as JSON values, and the file of the registry that it comes from."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return {
        "source": {"registry": "PyPI", "wheel": wheel.name, "sha256": digest},
        "version": module.__version__,
        "module": sorted(name for name in dir(module) if not name.startswith("_")),
        "classes": {
            name: attributes(getattr(module, name)) for name in CLASSES if hasattr(module, name)
        },
        "enums": {name: members(getattr(module, name)) for name in ENUMS if hasattr(module, name)},
    }


def attributes(kind: type) -> dict[str, str]:
    """Signature, or `property`, of each public attribute and of the constructor."""
    names = [name for name in dir(kind) if not name.startswith("_") or name == "__init__"]
    return {name: signature(getattr(kind, name)) for name in names}


def signature(attribute: Any) -> str:
    if isinstance(attribute, property):
        return "property" if attribute.fset is not None else "property, read only"
    lines = (getattr(attribute, "__doc__", None) or "").strip().splitlines()
    overloads = [line for line in lines if re.match(r"\d+\. ", line)]
    said = " | ".join(overloads) or (lines[0] if lines else type(attribute).__name__)
    return re.sub(r"\b(tensorrt|tensorrt_bindings)\.tensorrt\.", "", said)


def members(enum: Any) -> dict[str, int]:
    return {name: int(member) for name, member in sorted(enum.__members__.items())}


def write_stubs(folder: Path, major: str) -> None:
    """Libraries with the functions that bindings of a major version call; all answer null."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in STUBBED))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = ["cc", "-shared", "-fPIC", "-o", str(folder / name), str(source)]
        subprocess.run([*command, f"-Wl,-soname,{name}"], check=True)


def text_of(recorded: dict[str, Any]) -> str:
    """JSON with one line an attribute, so that versions can be compared by eye."""
    return json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "stubs":
        write_stubs(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.stdout.write(text_of(record(importlib.import_module(sys.argv[2]), Path(sys.argv[3]))))
