"""What a build made, for people and as JSON; it is stored with the plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fundus_export.tensorrt.options import EngineOptions
from fundus_export.tensorrt.strategy import Strategy
from fundus_export.tensorrt.verdict import PrecisionVerdict
from fundus_runtime.golden import GoldenReport
from fundus_runtime.plan_key import PlanKey

__all__ = ["GOLDEN_ONLY", "EngineReport", "PlanReport"]

GOLDEN_ONLY = "golden pairs only"

_SHOWN = 12


@dataclass(frozen=True)
class PlanReport:
    """One plan.

    Attributes:
        onnx_sha256: of the graph that it was built from.
        plan_sha256: of the plan.
        plan_bytes: its size.
        build_seconds: how long TensorRT took.
        device_memory_bytes: what running it takes beside weights and inputs.
        verdict: what the inspector says of its precision.
    """

    onnx_sha256: str
    plan_sha256: str
    plan_bytes: int
    build_seconds: float
    device_memory_bytes: int
    verdict: PrecisionVerdict

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "onnx_sha256": self.onnx_sha256,
            "plan_sha256": self.plan_sha256,
            "plan_bytes": self.plan_bytes,
            "build_seconds": round(self.build_seconds, 1),
            "device_memory_bytes": self.device_memory_bytes,
            "precision": self.verdict.to_dict(),
        }


@dataclass(frozen=True)
class EngineReport:
    """A pair of plans.

    Attributes:
        bundle: name, version and trust of the bundle.
        key: what the plans are for.
        tools: what built them, beside TensorRT and the driver, which are in the key.
        strategy: how they were built.
        options: what was chosen.
        plans: by `encoder` and `head`.
        golden: how they answered the golden pairs.
        certificate: JSON form of the certificate; None where only golden pairs were run.
        folder: where the plans lie; None before they are written.
    """

    bundle: Mapping[str, str]
    key: PlanKey
    tools: Mapping[str, str]
    strategy: Strategy
    options: EngineOptions
    plans: Mapping[str, PlanReport]
    golden: GoldenReport
    certificate: Mapping[str, Any] | None = None
    folder: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        golden = self.golden
        return {
            "tools": dict(self.tools),
            "bundle": dict(self.bundle),
            "key": self.key.to_dict(),
            "strategy": self.strategy.to_dict(),
            "options": self.options.to_dict(),
            "plans": {graph: plan.to_dict() for graph, plan in self.plans.items()},
            "golden": {
                "pairs": golden.pairs,
                "passed": golden.passed,
                "largest_difference": golden.largest_difference,
                "tolerance": golden.tolerance,
            },
            "checked_by": GOLDEN_ONLY if self.certificate is None else "certificate",
            "certificate": None if self.certificate is None else dict(self.certificate),
        }

    def in_words(self) -> str:
        """For people: what was made, where, how large, and the figures that matter."""
        key = self.key
        lines = [
            f"{self.bundle['name']} {self.bundle['version']} ({self.bundle['trust']}) as "
            f"{key.precision} from dialect {key.dialect}, batches up to {key.max_batch}",
            f"  for     {key.device.in_words()}",
            f"  by      {self.strategy.in_words()}",
        ]
        for graph, plan in self.plans.items():
            lines += _plan_lines(graph, plan)
        lines.append(
            f"  golden  {self.golden.pairs} pairs answered as recorded, probabilities within "
            f"{self.golden.largest_difference:.1e} (allowed {self.golden.tolerance:.1e})"
        )
        if self.certificate is None:
            lines.append(f"  checked by {GOLDEN_ONLY}: for the certificate give --data")
        else:
            lines.append("  certificate within its limits")
        if self.folder is not None:
            lines.append(f"  plans in {self.folder}")
        return "\n".join(lines)


def _plan_lines(graph: str, plan: PlanReport) -> list[str]:
    verdict = plan.verdict
    layers = ", ".join(f"{count} {kind}" for kind, count in verdict.layers_by_precision.items())
    lines = [
        f"  {graph:<8}{plan.plan_bytes / 1e6:.1f} MB in {plan.build_seconds:.0f} s, runs in "
        f"{plan.device_memory_bytes / 1e6:.1f} MB; layers: {layers}",
        f"          {verdict.proven} of {verdict.products} convolutions and matrix products proven "
        "to run in the graph's precision",
    ]
    if verdict.untold:
        lines.append(f"          TensorRT does not tell of: {_some(verdict.untold)}")
    if verdict.wider_layers:
        lines.append(f"          wider, beside them: {_some(verdict.wider_layers)}")
    return lines


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
