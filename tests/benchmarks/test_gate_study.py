"""The quality gate on graded eyes that neither its weights nor its bound were fitted on."""

from __future__ import annotations

from pathlib import Path

from fundus_benchmarks.studies.gate_study import cross_validated_quality, graded_eyes


def test_quality_holds_on_eyes_that_it_was_not_fitted_on(fundus_data: Path) -> None:
    eyes = graded_eyes(fundus_data)
    assert len(eyes) == 382
    study = cross_validated_quality(eyes, seeds=2)
    assert study.auc >= 0.95
    assert study.refused["good"] <= 0.03
    assert study.refused["reject"] >= 0.85
