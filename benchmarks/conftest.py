"""`pytest benchmarks`: latency by stage, of the runtime and of its peers, with pytest-benchmark.

    pytest benchmarks                       # the edge bundle and ResNet-152 at 224 px
    pytest benchmarks --full                # ResNet-50, 448 px, FP32 exams of all models, too
    pytest benchmarks -k "pair and edge" --parts build/benchmarks/run

What was timed becomes the part `latency` of a run, which `report.py` reads. What every contender
answers is compared before it is timed; what cannot be had here is skipped, and named in that part.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fundus_benchmarks.results.run_file import ROOT, default_folder, new_part, write_part

# torch.compile's, so that compiling is paid once
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(ROOT / "build" / "benchmarks" / "torchinductor")
)

_ROWS = pytest.StashKey[list[dict[str, Any]]]()
_MISSING = pytest.StashKey[list[dict[str, str]]]()
_DEFAULT_MODELS = ("edge", "paper")
_FULL_MODELS = (*_DEFAULT_MODELS, "resnet50", "paper-448")
# Each finds a machine at rest, as a robot's exam does.
_PAUSE_S = 0.1
_FEWEST, _MOST = 10, 60


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is measured, and for how long."""
    group = parser.getgroup("fundus-edge")
    group.addoption(
        "--full", action="store_true", help="also ResNet-50, 448 px, and FP32 exams of large models"
    )
    group.addoption("--threads", type=int, default=2, help="of every engine, default 2")
    group.addoption(
        "--seconds", type=float, default=3.0, help="for each contender, rests included; default 3"
    )
    group.addoption(
        "--parts", type=Path, default=default_folder(), help="folder of the run's parts"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is measured yet."""
    config.stash[_ROWS], config.stash[_MISSING] = [], []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each model in turn."""
    if "timed_model" in metafunc.fixturenames:
        names = _FULL_MODELS if metafunc.config.getoption("full") else _DEFAULT_MODELS
        metafunc.parametrize("timed_model", names, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """FP32 exams of large models would make a run a minute longer."""
    if config.getoption("full"):
        return
    long = [item for item in items if _is_long(item)]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


def _is_long(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    dialect = getattr(params.get("screener"), "dialect", None)
    return dialect == "fp32" and params.get("timed_model") != "edge"


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> int:
    """Threads of every engine."""
    return int(request.config.getoption("threads"))


@pytest.fixture(scope="session")
def frames() -> Any:
    """Ten different frames of 2592 x 1944 pixels."""
    from fundus_runtime.latency.frames import camera_frames

    return camera_frames()


@pytest.fixture(scope="session")
def timed_model(request: pytest.FixtureRequest, frames: Any, threads: int) -> Any:
    """One of the models, exported beforehand or now."""
    from fundus_benchmarks.contenders.models import model_named
    from fundus_benchmarks.contenders.timed_model import TimedModel

    return TimedModel(model_named(request.param), frames, threads)


@pytest.fixture(scope="session")
def missing(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Skip what cannot be had here, and say so in the part."""

    def skip(what: str, why: object) -> None:
        one = {"what": what, "why": str(why)}
        if one not in request.config.stash[_MISSING]:
            request.config.stash[_MISSING].append(one)
        pytest.skip(f"{what}: {why}")

    return skip


@pytest.fixture
def timed(benchmark: Any, request: pytest.FixtureRequest, threads: int) -> Callable[..., None]:
    """Time a call, once a round after a rest, and keep it as a row of the part `latency`.

    `begin` is called before each round and not timed; what it returns is given to the call.
    """
    seconds = float(request.config.getoption("seconds"))

    def measure(
        call: Callable[..., Any], begin: Callable[[], tuple[Any, ...]] = tuple, **row: Any
    ) -> None:
        def rested() -> tuple[tuple[Any, ...], dict[str, Any]]:
            given = begin()
            time.sleep(_PAUSE_S)
            return given, {}

        given = begin()
        call(*given)
        start = time.perf_counter()
        given = begin()
        call(*given)
        once_s = time.perf_counter() - start
        rounds = min(max(int(seconds / (once_s + _PAUSE_S)), _FEWEST), _MOST)
        benchmark.extra_info.update(row)
        benchmark.pedantic(call, setup=rested, rounds=rounds)
        if benchmark.stats is not None:  # --benchmark-disable runs each once, untimed
            times_ms = [1e3 * value for value in benchmark.stats.stats.data]
            _keep(request.config, times_ms, {"threads": threads, **row})

    return measure


@pytest.fixture
def timed_elsewhere(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep times in ms that another program took by itself as a row of the part `latency`."""

    def keep(times_ms: list[float], **row: Any) -> None:
        if not request.config.getoption("benchmark_disable"):
            _keep(request.config, times_ms, row)

    return keep


_PLAIN = {"model": None, "contender": "runtime", "backend": None, "provider": None, "dialect": None}


def _keep(config: pytest.Config, times_ms: list[float], row: dict[str, Any]) -> None:
    from fundus_runtime.latency.timing import Timing

    config.stash[_ROWS].append({**_PLAIN, **row, **Timing.of(times_ms).to_dict()})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was timed as a part of a run."""
    config = session.config
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    settings = {name: config.getoption(name) for name in ("threads", "seconds", "full")}
    part = new_part(
        "latency",
        rows,
        command=shlex.join(["pytest", *config.invocation_params.args]),
        settings=settings,
        missing=config.stash[_MISSING],
    )
    path = write_part(part, config.getoption("parts"))
    print(f"\n{len(rows)} rows of latency: {path}", file=sys.stderr)
