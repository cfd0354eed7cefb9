"""A whole run with values as they could be, for tests of what is made of runs; nothing measured."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fundus_benchmarks.results.run_file import new_part

Part = dict[str, Any]

MACHINE = {
    "device": None,
    "processor": "Drawn Processor 9000",
    "usable_processors": 2,
    "memory_mb": 8190.0,
    "kernel": "6.1",
    "system": "Linux-6.1-x86_64",
    "python": "3.11.7",
    "clock_mhz": 2596.1,
    "clock_governor": None,
    "power_mode": None,
    "temperatures_c": None,
    "not_available": ["device", "clock_governor", "power_mode", "temperatures_c"],
}
MACHINE_NAME = "drawn-processor-9000-2-cpus"
VERSIONS = {"numpy": "2.4.6", "onnxruntime": "1.31.1", "openvino": "2026.4.1", "torch": "2.13.0"}
LETTERS = "NDGCAHMO"
# model: preprocessing needs none
_STAGES_MS = {"preprocessing": 1.9, "gates": 1.0, "decode_jpeg": 21.0, "decode_png": 88.0}
_OWN_MS = {
    "edge": {"encoder_1": 3.1, "encoder_2": 5.6, "head": 1.3, "pair": 13.0, "second_eye": 8.4}
    | {"retake": 8.9, "first_result": 430.0},
    "paper": {"encoder_1": 36.0, "encoder_2": 62.0, "head": 5.4, "pair": 79.0, "second_eye": 52.0}
    | {"retake": 55.0, "first_result": 1240.0},
}
_PEERS_MS = {
    "PyTorch FP32": {"edge": 74.0, "paper": 395.0},
    "PyTorch BF16": {"edge": 61.0, "paper": 214.0},
    "PyTorch compiled": {"edge": 48.0, "paper": 351.0},
    "ONNX Runtime FP32": {"edge": 37.0, "paper": 262.0},
    "OpenVINO FP32": {"edge": 36.0, "paper": 251.0},
    "OpenVINO BF16": {"edge": 33.0, "paper": 143.0},
    "OpenVINO INT8": {"edge": 31.0, "paper": 104.0},
}
_ENGINES = {"PyTorch": "pytorch", "ONNX": "onnxruntime", "OpenVINO": "openvino"}
_FORMS = {"int8-cpu": (18, 9, 0.0010), "int8-trt": (25, 12, 0.0008), "fp16": (4, 0, -0.0004)}
_AUC = dict(zip(LETTERS, (0.808, 0.812, 0.918, 0.987, 0.984, 0.899, 0.999, 0.752), strict=True))


def drawn_parts(**times: float) -> dict[str, Part]:
    """All parts but the Jetson's, by name.

    Args:
        times: by how much latencies are longer: of `host`, of all; of a stage, the product's own.
    """
    made = [_latency(times), _limits(), _ratios(), _faithfulness(), _growth()]
    return {part["part"]: part for part in made}


def drawn_part(name: str, rows: list[Part], **more: Any) -> Part:
    """A part of the drawn machine, measured on a day of 2026."""
    part = new_part(
        name,
        rows,
        command=f"python benchmarks/{name}.py",
        settings={"threads": 2, "seconds": 3.0},
        **more,
    )
    about = {"machine": deepcopy(MACHINE), "versions": dict(VERSIONS)}
    return {**part, **about, "commit": "0123456789ab", "measured_at": "2026-11-20T10:00:00Z"}


def on(part: Part, day: str, commit: str = "0123456789ab") -> Part:
    """The same part, measured on another day."""
    return {**part, "measured_at": f"{day}T10:00:00Z", "commit": commit}


def times_of(p50: float, count: int = 40) -> dict[str, float]:
    """Percentiles with a tail."""
    return {
        "count": count,
        "p50_ms": round(p50, 3),
        "p90_ms": round(1.08 * p50, 3),
        "p99_ms": round(1.4 * p50, 3),
        "max_ms": round(1.7 * p50, 3),
    }


def _latency(times: dict[str, float]) -> Part:
    rows = [_own(None, stage, ms, times) for stage, ms in _STAGES_MS.items()]
    for model, stages in _OWN_MS.items():
        rows += [_own(model, stage, ms, times) for stage, ms in stages.items()]
    host = times.get("host", 1.0)
    opencv = {"model": None, "stage": "preprocessing", "contender": "OpenCV", "threads": 2}
    rows.append({**opencv, "verified": "the same picture", **times_of(host * 11.0)})
    for contender, models in _PEERS_MS.items():
        for model, ms in models.items():
            row = {
                "model": model,
                "stage": "pair",
                "contender": contender,
                "backend": _ENGINES[contender.split()[0]],
                "provider": "cpu",
                "dialect": None if "PyTorch" in contender else "fp32",
                "threads": 2,
                "verified": "mean probability within 0.0004 of PyTorch FP32 over 5 pairs",
            }
            rows.append({**row, **times_of(host * ms)})
            if "PyTorch" not in contender:
                rows.append({**row, "stage": "encoder_2", **times_of(host * (ms - 25))})
                rows.append({**row, "stage": "head", **times_of(host * 3)})
    missing = [{"what": "preprocessing by CUDA", "why": "no CUDA device <here>"}]
    return drawn_part("latency", rows, missing=missing)


def _own(model: str | None, stage: str, ms: float, times: dict[str, float]) -> Part:
    takes = ms * times.get("host", 1.0) * times.get(stage, 1.0)
    engine = {"backend": "onnxruntime", "provider": "cpu", "dialect": "int8-cpu", "threads": 2}
    free = {"backend": None, "provider": None, "dialect": None, "threads": 1}
    return {
        "model": model,
        "stage": stage,
        "contender": "runtime",
        **(free if model is None else engine),
        "verified": "as the reference",
        **times_of(takes),
    }


def _limits() -> Part:
    rows = [_limit(None, None, "preprocessing", None, 0.82)]
    for model, (one, head) in {"edge": (1.1, 0.4), "paper": (19.0, 2.1)}.items():
        rows += [
            _limit(model, "int8-cpu", "encoder_1", 0.6 * one, one),
            _limit(model, "int8-cpu", "encoder_2", 1.7 * one, 1.1 * one),
            _limit(model, "int8-cpu", "head", 0.5 * head, head),
        ]
    peaks = {"fp32_gflops_1": 131.0, "fp32_gflops_all": 255.0, "int8_gops_1": 540.0}
    peaks |= {"int8_gops_all": 1040.0, "copy_gb_s_1": 14.0, "copy_gb_s_all": 21.0, "threads_all": 2}
    return drawn_part("limits", rows, peaks=peaks)


def _limit(
    model: str | None, dialect: str | None, stage: str, operations: float | None, moved: float
) -> Part:
    return {
        "model": model,
        "dialect": dialect,
        "stage": stage,
        "provider": "cpu",
        "operations": None if operations is None else int(1e9 * operations),
        "weight_bytes": int(4e6 * moved),
        "activation_bytes": int(8e6 * moved),
        "least_ms_operations": operations,
        "least_ms_bytes": moved,
        "limit_ms": max(operations or 0.0, moved),
    }


def _ratios() -> Part:
    figures = {
        "preprocessing_in_frame_copies": 1.3,
        "opencv_resize_over_preprocessing": 7.0,
        "gates_ms": 1.6,
        "pytorch_pair_over_pair": 5.2,
        "openvino_pair_over_pair": 1.32,
        "second_eye_over_pair": 0.66,
        "pytorch_pair_over_second_eye": 8.1,
        "second_eye_beyond_its_parts_ms": 0.9,
        "retake_beyond_its_parts_ms": 1.5,
        "edge_first_result_s": 0.43,
        "edge_peak_mb": 136.0,
        "cpu_install_mb": 219.0,
    }
    timings = {"paper: pair": times_of(79.3), "paper: OpenVINO pair": times_of(104.4)}
    return drawn_part("ratios", [], figures=figures, timings_ms=timings)


def _faithfulness() -> Part:
    rows = []
    for dialect, (flips, refer, moved) in _FORMS.items():
        measured = dialect == "int8-cpu"
        rows.append(
            {
                "model": "edge",
                "dialect": dialect,
                "precision": dialect.split("-")[0],
                "backend": "onnxruntime",
                "provider": "cpu",
                "patients": 416,
                "flips": flips,
                "decisions": 3328,
                "flip_share": flips / 3328,
                "flip_upper": (flips + 11) / 3328,
                "refer_flips": refer,
                "refer_share": refer / 416,
                "refer_upper": (refer + 8) / 416,
                "score": 0.7852 + moved,
                "score_reference": 0.7852,
                "score_difference": moved,
                "score_difference_lower": moved - 0.003,
                "score_difference_upper": moved + 0.003,
                "auc": {k: v + moved * (1 - 2 * (k in "DGM")) for k, v in _AUC.items()},
                "auc_reference": _AUC,
                "calibration_error": 0.0134 + moved / 2,
                "calibration_error_reference": 0.0134,
                "reliability": _bins(0.03) if measured else None,
                "reliability_reference": _bins(0.02) if measured else None,
                "passed": True,
                "misses": [],
                "limits": {"class_decisions": 0.02, "referrals": 0.05},
                "source": "measured" if measured else "bundle",
            }
        )
    return drawn_part("faithfulness", rows)


def _bins(off: float) -> list[Part]:
    said = [0.02, 0.11, 0.23, 0.37, 0.52, 0.66, 0.81, 0.95]
    return [
        {"probability": p, "share": p + off * (-1) ** k, "count": 50} for k, p in enumerate(said)
    ]


def _growth() -> Part:
    frame, batch = ("frame", "megapixels"), ("batch", "eyes")
    rows = [
        _curve("pair at once, against the size of the frame", "edge", frame, 0.35, 9.1, (1, 5, 20)),
        _curve("encoder against the batch", "edge", batch, 2.5, 0.6, (1, 2, 4, 8)),
        _curve("encoder against the batch", "paper", batch, 31.0, 4.0, (1, 2, 4, 8)),
        _curve(
            *("encoder at batch 2 and head, against the operations of the trunk", None),
            *(("operations of a pair", "GOP"), 1.3, 5.0, (1.3, 46.0)),
            labels=("MobileNetV2", "ResNet-152"),
        ),
        _curve(
            *("peak memory of fundus-screen --pairs against the number of pairs", "edge"),
            *(("pairs", "pairs"), 0.02, 131.0, (8, 32, 128)),
            y=("peak memory", "MB"),
        ),
    ]
    return drawn_part("growth", rows)


def _curve(
    what: str,
    model: str | None,
    x: tuple[str, str],
    slope: float,
    intercept: float,
    xs: tuple[float, ...],
    y: tuple[str, str] = ("p50", "ms"),
    labels: tuple[str, ...] = (),
) -> Part:
    ys = [intercept + slope * one * (1 + 0.02 * (-1) ** k) for k, one in enumerate(xs)]
    points = [{"x": one, "y": at, "p90": 1.06 * at} for one, at in zip(xs, ys, strict=True)]
    for point, label in zip(points, labels, strict=False):
        point["label"] = label
    about = {"curve": what.split()[0], "what": what, "model": model, "dialect": "int8-cpu"}
    axes = {"x": x[0], "x_unit": x[1], "y": y[0], "y_unit": y[1], "threads": 2}
    line = {"slope": slope, "intercept": intercept, "r2": 0.998}
    return {**about, **axes, "points": points, **line}
