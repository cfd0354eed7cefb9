from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fundus_runtime.bundle import Bundle
from fundus_runtime.certificate import certificate_of
from fundus_runtime.doctor import _certificates
from fundus_runtime.errors import BundleError
from fundus_runtime.report import render_report
from fundus_runtime.screener import Screener
from fundus_runtime.table import format_result


def share(count: int, of: int, high: float) -> dict[str, Any]:
    return {"count": count, "of": of, "share": count / of, "low": 0.0, "high": high}


def certificate_for(bundle: Bundle, *, high: float = 0.012) -> dict[str, Any]:
    """The keys of a certificate that the runtime reads."""
    graphs = bundle.manifest.graphs["fp32"]
    points = {
        "even": {"class_decisions": share(27, 3328, high), "referrals": share(10, 416, 0.043)},
        "keen": {"class_decisions": share(60, 3328, 0.023), "referrals": share(2, 416, 0.017)},
    }
    return {
        "subject": {
            "encoder_sha256": bundle.manifest.files[graphs.encoder].sha256,
            "head_sha256": bundle.manifest.files[graphs.head].sha256,
            "provider": "CPUExecutionProvider",
        },
        "patients": {"judged": 416},
        "limits": {"class_decisions": 0.02, "referrals": 0.05},
        "points": points,
        "within_limits": True,
    }


Certified = Callable[[Callable[[dict[str, Any]], None] | None], Bundle]


@pytest.fixture
def certified(shared_bundle) -> Certified:
    """The tiny bundle with a certificate, as it stands or changed."""
    plain = Bundle.open(shared_bundle)

    def with_certificate(change: Callable[[dict[str, Any]], None] | None = None) -> Bundle:
        values = copy.deepcopy(certificate_for(plain))
        if change is not None:
            change(values)
        reported = {**plain.manifest.reported, "certificates": {"fp32": values}}
        return replace(plain, manifest=replace(plain.manifest, reported=reported))

    return with_certificate


def summary_of(bundle: Bundle, point: str = "even", provider: str | None = None):
    graphs = bundle.manifest.graphs["fp32"]
    return certificate_of(bundle.manifest, graphs, point, provider=provider)


def test_bundle_without_a_certificate_is_not_certified(shared_bundle) -> None:
    summary = summary_of(Bundle.open(shared_bundle))

    assert not summary.certified
    assert summary.statement.startswith("not certified")
    assert summary.patients is None


def test_certificate_is_one_sentence_with_its_bounds(certified: Certified) -> None:
    summary = summary_of(certified())

    assert summary.certified
    assert summary.statement == (
        "certified: class decisions: 0.8 % differ (upper bound 1.2 %), refer or not: 2.4 % differ "
        "(upper bound 4.3 %) from the validated model on 416 patients"
    )
    assert (summary.class_decisions, summary.referrals_high) == (27 / 3328, 0.043)


def test_another_operating_point_is_judged_by_its_own_counts(certified: Certified) -> None:
    summary = summary_of(certified(), "keen")

    assert not summary.certified
    assert summary.statement.startswith("NOT WITHIN LIMITS: class decisions: 1.8 % differ")


def test_bound_at_the_limit_is_within_it(certified: Certified) -> None:
    def at(high: float) -> Callable[[dict[str, Any]], None]:
        return lambda values: values["points"]["even"]["class_decisions"].update(high=high)

    assert summary_of(certified(at(0.02))).certified
    assert not summary_of(certified(at(0.0200001))).certified


def test_missed_limit_of_the_whole_certificate_shows(certified: Certified) -> None:
    summary = summary_of(certified(lambda values: values.update(within_limits=False)))

    assert not summary.certified


def test_certificate_of_other_graphs_is_none(certified: Certified) -> None:
    summary = summary_of(certified(lambda v: v["subject"].update(head_sha256="0" * 64)))

    assert not summary.certified
    assert "other graphs" in summary.statement


def test_unknown_operating_point_is_not_certified(certified: Certified) -> None:
    summary = summary_of(certified(lambda values: values["points"].pop("keen")), "keen")

    assert not summary.certified
    assert "'keen'" in summary.statement


def test_other_engine_than_the_certified_one_is_named(certified: Certified) -> None:
    assert (
        "counted on CPUExecutionProvider" in summary_of(certified(), provider="TensorRT").statement
    )
    assert "counted on" not in summary_of(certified(), provider="CPUExecutionProvider").statement


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("limits"),
        lambda values: values["points"]["even"].update(class_decisions="few"),
        lambda values: values.update(patients=416),
    ],
)
def test_malformed_certificate_is_refused(certified: Certified, change) -> None:
    with pytest.raises(BundleError, match="certify the bundle again"):
        summary_of(certified(change))


def test_result_table_and_report_carry_the_statement(certified: Certified, draw) -> None:
    left, right = draw("D", seed=1), draw("D", seed=2)
    with Screener.open(certified()) as screener:
        result = screener.screen(left, right, color="rgb")

    stated = json.loads(json.dumps(result.to_dict()))["certificate"]
    assert stated["certified"] is True
    assert stated["class_decisions_high"] == 0.012
    assert stated["statement"] in format_result(result)
    assert stated["statement"] in render_report(result, left, right)


def test_doctor_tells_of_every_form_and_never_fails(certified: Certified, shared_bundle) -> None:
    assert _certificates(certified())["fp32"].startswith("certified")
    assert _certificates(Bundle.open(shared_bundle))["fp32"].startswith("not certified")
    broken = certified(lambda values: values.pop("limits"))
    assert "malformed" in _certificates(broken)["fp32"]
