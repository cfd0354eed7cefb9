"""What `fundus-export bundle` makes its forms of: calibration photographs, recipe and evidence."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from fundus_export.certificate import CertificateLimits, Evidence, gather_evidence
from fundus_export.commands.calibration_options import (
    calibration_limit,
    dialects_asked_for,
    is_calibrated,
    range_method,
)
from fundus_export.errors import ExportError
from fundus_export.forms import FormPlan
from fundus_export.graphs import export_graphs
from fundus_export.quantise.images import CalibrationImages, open_calibration_images
from fundus_export.quantise.measure import make_recipe
from fundus_export.quantise.recipe import Recipe
from fundus_export.sensitivity import Probe
from fundus_runtime.labels import EYES
from fundus_training.checkpoint import Checkpoint, build_model
from fundus_training.commands.inputs import load_matching_records
from fundus_training.data.crops import default_cache_dir
from fundus_training.data.splits import select_part

__all__ = ["form_plan"]

_LOG = logging.getLogger(__name__)

# Pairs of calibration photographs that products are ranked on: enough to tell gains apart, few
# enough that a hundred products take minutes.
_PROBE_PAIRS = 8


def form_plan(args: argparse.Namespace, checkpoint: Checkpoint) -> FormPlan:
    """The forms that the command line asks for.

    Raises:
        FundusError: photographs, recipe or data cannot be used.
    """
    dialects = dialects_asked_for(args)
    limits = (
        CertificateLimits() if args.limits is None else CertificateLimits.from_file(args.limits)
    )
    recipe, probe = None, None
    if is_calibrated(args):
        recipe, probe = _recipe(args, checkpoint)
    evidence = None
    if args.data is not None and set(dialects) != {"fp32"}:
        evidence = _evidence(args, checkpoint, recipe)
    return FormPlan(dialects, recipe, evidence, probe, limits)


def _recipe(args: argparse.Namespace, checkpoint: Checkpoint) -> tuple[Recipe, Probe | None]:
    """Ranges from a recipe or measured now; a repeated recipe is not searched again."""
    if args.recipe is not None:
        return _repeated(args.recipe, checkpoint), None
    method = range_method(args)
    with _photographs(args, checkpoint) as folder:
        images = open_calibration_images(
            folder, checkpoint.spec, minimum=method.minimum, limit=calibration_limit(args)
        )
        source = export_graphs(build_model(checkpoint))
        cache = (args.cache_dir or default_cache_dir()) / "ranges"
        recipe = make_recipe(source, images, method, cache_dir=cache)
        return recipe, _probe(images, checkpoint)


def _repeated(path: Path, checkpoint: Checkpoint) -> Recipe:
    try:
        recipe = Recipe.from_bytes(path.read_bytes(), where=str(path))
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    if recipe.preprocess_sha256 != checkpoint.spec.sha256:
        raise ExportError(
            f"the recipe {path} was measured through preprocessing "
            f"{recipe.preprocess_sha256[:12]}, but the checkpoint's is "
            f"{checkpoint.spec.sha256[:12]}; calibrate again with --calibration DIR"
        )
    return recipe


@contextmanager
def _photographs(args: argparse.Namespace, checkpoint: Checkpoint) -> Iterator[Path]:
    """The folder that was named, or one of links to the training patients' photographs."""
    if args.calibration is not None:
        yield args.calibration
        return
    if args.data is None:
        raise ExportError(
            "INT8 needs photographs to calibrate on; give a folder of them with --calibration, or "
            "with --data the data set whose training patients the checkpoint names"
        )
    records = select_part(
        load_matching_records(args.data, checkpoint).records, checkpoint.split, "train"
    )
    with tempfile.TemporaryDirectory(prefix="fundus-calibration-") as name:
        for index, record in enumerate(records):
            for eye in EYES:
                photograph = record.photograph(eye)
                if photograph is not None:
                    link = Path(name) / f"{index:06d}_{eye}{photograph.suffix}"
                    link.symlink_to(photograph.resolve())
        _LOG.info("calibrating on photographs of %d training patients at most", len(records))
        yield Path(name)


def _probe(images: CalibrationImages, checkpoint: Checkpoint) -> Probe:
    pairs = tuple(islice(images.pairs(), _PROBE_PAIRS))
    return Probe(pairs, checkpoint.spec.size, len(checkpoint.classes))


def _evidence(args: argparse.Namespace, checkpoint: Checkpoint, recipe: Recipe | None) -> Evidence:
    seen = () if recipe is None else [file["sha256"] for file in recipe.images["files"]]
    return gather_evidence(
        checkpoint, args.data, calibrated_on=frozenset(seen), cache_dir=args.cache_dir
    )
