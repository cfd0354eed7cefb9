"""The checkpoint that ships is the model in the graphs beside it, and is stored in FP16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fundus_export.certificate import Certificate, open_on_cpu
from fundus_export.golden import PROBABILITY_TOLERANCES, golden_pairs
from fundus_export.parity import answers_of_graphs, answers_of_model
from fundus_runtime.bundle import Bundle
from fundus_runtime.preprocess import preprocess
from fundus_runtime.shipped import shipped_places
from fundus_runtime.trusted_keys import TrustedKeys, public_key_from_pem
from fundus_training.checkpoint import Checkpoint, build_model, load_checkpoint
from fundus_training.presets import preset


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.open(shipped_places()[1])


@pytest.fixture(scope="module")
def checkpoint(shipped: Bundle) -> Checkpoint:
    return load_checkpoint(shipped.file("checkpoint.safetensors"))


def test_it_is_the_preset_that_its_card_names(shipped: Bundle, checkpoint: Checkpoint) -> None:
    # but for the per-eye output, which was fitted anew so that its heat maps show where
    assert checkpoint.model_config == replace(preset("edge").model, auxiliary_input="trunk")
    assert checkpoint.spec == preset("edge").preprocess == shipped.manifest.spec
    assert checkpoint.calibration is not None
    assert checkpoint.calibration.points == shipped.manifest.operating_points


def test_graphs_and_checkpoint_are_the_same_model(shipped: Bundle, checkpoint: Checkpoint) -> None:
    """By the FP16 form, which differs from FP32 by rounding alone."""
    left, right = (
        np.stack([preprocess(pair.frame(eye), checkpoint.spec).tensor for pair in golden_pairs(4)])
        for eye in ("left", "right")
    )
    fitted = checkpoint.calibration
    assert fitted is not None
    backend, _ = open_on_cpu(
        *shipped.graph_bytes(shipped.manifest.graphs["fp16"]),
        size=checkpoint.spec.size,
        class_count=len(checkpoint.classes),
    )
    expected = answers_of_model(build_model(checkpoint), left, right)
    came = answers_of_graphs(backend, left, right)
    difference = fitted.patient.apply(expected.both) - fitted.patient.apply(came.both)
    assert np.abs(difference).max() <= PROBABILITY_TOLERANCES["fp16"]


def test_every_form_but_fp32_is_certified_within_the_limits(shipped: Bundle) -> None:
    manifest = shipped.manifest
    assert set(manifest.graphs) == {"int8-cpu", "int8-trt", "fp16"}
    for name, graphs in manifest.graphs.items():
        certificate = Certificate.from_dict(manifest.reported["certificates"][name])
        assert certificate.within_limits, name
        assert certificate.patients.complete >= 400
        files = manifest.files[graphs.encoder].sha256, manifest.files[graphs.head].sha256
        assert (certificate.subject.encoder_sha256, certificate.subject.head_sha256) == files


def test_the_bundle_is_signed_and_small(shipped: Bundle) -> None:
    public = public_key_from_pem(shipped.path.with_name("edge.pub").read_bytes())
    keys = TrustedKeys.of(public, "edge.pub")
    signer = Bundle.open(shipped.path, trusted_keys=keys).signer
    assert signer is not None
    assert signer in keys
    assert sum(file.bytes for file in shipped.manifest.files.values()) <= 32e6


def test_every_matrix_is_a_number_that_fp16_has(checkpoint: Checkpoint) -> None:
    matrices = {k: t for k, t in checkpoint.state.items() if t.is_floating_point() and t.ndim >= 2}
    assert len(matrices) > 50
    assert [k for k, t in matrices.items() if not torch.equal(t, t.half().float())] == []


def test_no_patient_is_in_two_parts(checkpoint: Checkpoint) -> None:
    split = checkpoint.split
    assert len(set(split.ids("all"))) == len(split.ids("all"))
    assert len(split.val) >= 400


def test_its_file_is_half_of_fp32(shipped: Bundle, checkpoint: Checkpoint) -> None:
    numbers = sum(tensor.numel() for tensor in checkpoint.state.values())
    size: int = Path(shipped.file("checkpoint.safetensors")).stat().st_size
    assert size < 2.3 * numbers
