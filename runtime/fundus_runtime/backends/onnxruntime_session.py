"""Sessions of ONNX Runtime that run where they were told to, or are refused.

ONNX Runtime goes on with the CPU when a GPU's libraries do not load, when single operators have no
kernel there, and when a run fails, and says so at most in its log. Here every one of these ends in
an error: other providers than the wanted one are never offered, operators may not go to the CPU, a
failed run is not repeated elsewhere, and the session is asked what it runs on.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from typing import Any

from fundus_runtime.backends.settings import EngineSettings, Provider
from fundus_runtime.errors import EngineError, EngineMissingError

__all__ = ["PROVIDER_NAMES", "open_session"]

PROVIDER_NAMES: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_EXTRA: Mapping[str, str] = {"cpu": "cpu", "cuda": "gpu", "tensorrt": "gpu"}

_SHOW_ERRORS_ONLY = 3
# It rounds weights and biases that the graph keeps in floating point to integers, unasked, and FP16
# ones to wrong values: what runs would not be what was certified.
_CHANGES_THE_MODEL = ["WeightBiasQuantization"]


def open_session(graph: str, data: bytes, provider: Provider, settings: EngineSettings) -> Any:
    """A session of this graph on this provider alone.

    Args:
        graph: `encoder` or `head`, for messages.
        data: the graph's bytes.
        provider: where it must run.
        settings: of the engine.

    Raises:
        EngineMissingError: ONNX Runtime, or its build with this provider, is not installed.
        EngineError: the graph cannot be loaded, or not all of it runs on the provider.
    """
    runtime = _import_runtime(provider)
    name = PROVIDER_NAMES[provider]
    _require_built_with(runtime, provider)
    missing = "" if provider == "cpu" else _preload(runtime)
    options = _options(runtime, provider, settings)
    try:
        session = runtime.InferenceSession(
            data,
            options,
            providers=[(name, _provider_options(provider, settings))],
            disabled_optimizers=_CHANGES_THE_MODEL,
            # without these it would load the graph again with all optimisers, or on the CPU, and
            # take settings out of the environment
            enable_fallback=0,
            read_config_from_model=0,
        )
    except Exception as error:  # the engine's exceptions share no public base
        raise _refusal(runtime, graph, provider, error, missing) from error
    _require_provider(graph, session.get_providers(), provider)
    if hasattr(session, "_model_bytes"):
        # kept for loading again elsewhere, which never happens here, and as large as the model
        session._model_bytes = None
    return session


def _import_runtime(provider: Provider) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineMissingError(
            "ONNX Runtime is not installed, and no other engine was asked for; install it: "
            f'pip install "fundus-edge[{_EXTRA[provider]}]"'
        ) from error
    return onnxruntime


def _require_built_with(runtime: Any, provider: Provider) -> None:
    """What the library was compiled with; whether that works here, only a session shows."""
    name, built_with = PROVIDER_NAMES[provider], runtime.get_available_providers()
    if name not in built_with:
        raise EngineMissingError(
            f"this ONNX Runtime {runtime.__version__} was built with {', '.join(built_with)}, but "
            f"{name} was asked for; the builds exclude each other: pip uninstall onnxruntime, then "
            f'pip install "fundus-edge[{_EXTRA[provider]}]" (x86; on Jetson use the backend '
            "tensorrt, or NVIDIA's own build of onnxruntime-gpu)"
        )


def _preload(runtime: Any) -> str:
    """Load CUDA's libraries that came as packages, which are on no library path; what is missing.

    From 1.21 on; it prints where this program's results go.
    """
    said = io.StringIO()
    if hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(said):
            runtime.preload_dlls()
    return " ".join(dict.fromkeys(re.findall(r"lib[\w.+-]+\.so[\w.]*", said.getvalue())))


def _options(runtime: Any, provider: Provider, settings: EngineSettings) -> Any:
    options = runtime.SessionOptions()
    threads = settings.thread_count if provider == "cpu" else 1
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SHOW_ERRORS_ONLY
    options.enable_cpu_mem_arena = settings.arena
    for key, value in _entries(provider, settings, threads).items():
        options.add_session_config_entry(key, value)
    if provider == "tensorrt":
        # TensorRT optimises for itself, and must see the graph that was certified
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


_SPIN_US = "200"


def _entries(provider: Provider, settings: EngineSettings, threads: int) -> dict[str, str]:
    entries = {}
    if settings.spinning == "never":
        entries["session.intra_op.allow_spinning"] = "0"
    else:
        # Threads spin between the operators of one run, since waking them costs more than a small
        # operator; when it returns they sleep, so that the next photograph has the cores.
        entries["session.force_spinning_stop"] = "1"
        # Longer than the head's gaps between operators that take two threads, also where waking a
        # core that slept is slow (the head of ResNet-152: 7 ms, with 50 us 10); short enough that
        # on busy cores a thread gives way to the one that it waits for, and that loading a graph
        # spins next to nothing. Older versions overlook the bound.
        entries["session.intra_op.spin_duration_us"] = _SPIN_US
    if settings.affinity and threads > 1:
        # for all threads but the calling one; it counts CPUs from 1, the system from 0
        others = settings.affinity[1:]
        entries["session.intra_op_thread_affinities"] = ";".join(str(cpu + 1) for cpu in others)
    if provider != "cpu":
        entries["session.disable_cpu_ep_fallback"] = "1"
    return entries


def _provider_options(provider: Provider, settings: EngineSettings) -> dict[str, str]:
    if provider == "cpu":
        return {}
    if provider == "cuda":
        return {
            "device_id": str(settings.device),
            # on unless it is cleared: FP32 graphs would be multiplied with 10 bits
            "use_tf32": "1" if settings.precision == "tf32" else "0",
            # what a robot's memory is shared with, it does not give back by powers of two
            "arena_extend_strategy": "kSameAsRequested",
        }
    # No precision is enabled: the graph's own types then bind TensorRT (from 9.2 on). Engines are
    # not cached, since they are executable and the provider checks nobody's hash before loading.
    return {"device_id": str(settings.device), "trt_engine_cache_enable": "False"}


def _refusal(
    runtime: Any, graph: str, provider: Provider, error: Exception, missing: str
) -> EngineError:
    came = f"ONNX Runtime {runtime.__version__} cannot load the {graph} graph"
    if provider == "cpu":
        return EngineError(f"{came}: {error}")
    cuda = getattr(runtime, "cuda_version", None) or "the version that it was built with"
    found = f"; missing: {missing}" if missing else ""
    kind = EngineMissingError if missing else EngineError
    return kind(
        f"{came} on {PROVIDER_NAMES[provider]} alone: {str(error).strip()}{found}; nothing runs on "
        "the CPU in its place. See whether nvidia-smi lists the GPU, and install its libraries: "
        f'CUDA {cuda} and cuDNN, pip install "onnxruntime-gpu[cuda,cudnn]"'
        f"{', and TensorRT 10' if provider == 'tensorrt' else ''}"
    )


def _require_provider(graph: str, came: list[str], provider: Provider) -> None:
    """The CPU's provider is always listed last; that nothing runs there, an option sees to."""
    name = PROVIDER_NAMES[provider]
    allowed = [name] if provider == "cpu" else [name, PROVIDER_NAMES["cpu"]]
    if came[:1] != [name] or not set(came) <= set(allowed):
        raise EngineError(
            f"the {graph} runs on {came}, but {name} alone was asked for; reinstall the engine: "
            f'pip install "fundus-edge[{_EXTRA[provider]}]"'
        )
