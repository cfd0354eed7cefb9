"""What a TensorRT plan belongs to: one device, one bundle, one way of building.

A plan holds machine code that was chosen by measuring on one GPU with one TensorRT. Elsewhere it
is refused or, worse, runs slowly or wrong, so that every plan is kept and asked for under this key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fundus_runtime.canonical import canonical_json, sha256_hex

__all__ = ["Device", "PlanKey"]


@dataclass(frozen=True)
class Device:
    """A GPU with the software that builds and runs plans on it.

    Attributes:
        gpu: the GPU's name, as the driver reports it.
        compute_capability: major and minor, for example (8, 7) on Orin.
        tensorrt: TensorRT's version.
        cuda_driver: the newest CUDA that the driver speaks, for example `12.6`. A patch of the
            driver within it leaves plans valid, and is therefore not part of the key.
    """

    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    cuda_driver: str

    def in_words(self) -> str:
        """For messages: `Orin (sm_87), TensorRT 10.3.0, CUDA driver 12.6`."""
        major, minor = self.compute_capability
        return (
            f"{self.gpu} (sm_{major}{minor}), TensorRT {self.tensorrt}, "
            f"CUDA driver {self.cuda_driver}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "compute_capability": list(self.compute_capability)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Device:
        """The reverse of `to_dict`.

        Raises:
            ValueError: a key is missing, unknown or of another kind.
        """
        _require_keys(values, ("gpu", "compute_capability", "tensorrt", "cuda_driver"))
        major, minor = values["compute_capability"]
        return cls(
            gpu=_text(values["gpu"]),
            compute_capability=(_whole(major), _whole(minor)),
            tensorrt=_text(values["tensorrt"]),
            cuda_driver=_text(values["cuda_driver"]),
        )


@dataclass(frozen=True)
class PlanKey:
    """Which plans are meant.

    Attributes:
        device: where they are built and run.
        precision: what was asked for: fp32, tf32, fp16 or int8.
        dialect: the form of the bundle's graphs that they are built from.
        max_batch: the largest batch that they take.
        bundle_sha256: SHA-256 of the bundle's manifest.
    """

    device: Device
    precision: str
    dialect: str
    max_batch: int
    bundle_sha256: str

    @property
    def folder_name(self) -> str:
        """Name of the folder that holds the plans, for people; its end tells keys apart."""
        device = self.device
        major, minor = device.compute_capability
        parts = (
            device.gpu,
            f"sm{major}{minor}",
            f"trt{device.tensorrt}",
            f"cuda{device.cuda_driver}",
            self.precision,
            self.dialect,
            f"batch{self.max_batch}",
            sha256_hex(canonical_json(self.to_dict()))[:12],
        )
        return "_".join(_plain(part) for part in parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "device": self.device.to_dict(),
            "precision": self.precision,
            "dialect": self.dialect,
            "max_batch": self.max_batch,
            "bundle_sha256": self.bundle_sha256,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PlanKey:
        """The reverse of `to_dict`.

        Raises:
            ValueError: a key is missing, unknown or of another kind.
        """
        _require_keys(values, ("device", "precision", "dialect", "max_batch", "bundle_sha256"))
        return cls(
            device=Device.from_dict(values["device"]),
            precision=_text(values["precision"]),
            dialect=_text(values["dialect"]),
            max_batch=_whole(values["max_batch"]),
            bundle_sha256=_text(values["bundle_sha256"]),
        )


def _plain(text: str) -> str:
    """Text that may stand in a file name everywhere, `_` left for parting the pieces."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "unknown"


def _require_keys(values: Any, expected: tuple[str, ...]) -> None:
    if not isinstance(values, Mapping) or set(values) != set(expected):
        raise ValueError(f"expected an object with exactly {sorted(expected)}, got {values!r}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a text, got {value!r}")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a whole number, got {value!r}")
    return value
