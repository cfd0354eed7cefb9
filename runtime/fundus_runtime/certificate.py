"""What a bundle's parity certificate says of the graphs that run, in a form to show.

A certificate counts how often a dialect decides otherwise than the validated model. It is evidence
for one pair of graph files, at the operating points that it names, on the engine that it was
counted on; for anything else the bundle is not certified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fundus_runtime.errors import BundleError
from fundus_runtime.manifest import GraphPair, Manifest

__all__ = ["CertificateSummary", "certificate_of"]

_PERCENT = 100.0


@dataclass(frozen=True)
class CertificateSummary:
    """A certificate in short, for one dialect at one operating point.

    Attributes:
        certified: there is one for these graphs, and every limit holds at this point.
        statement: the whole in one sentence.
        patients: validation patients that it was counted on; None where it was not counted, as all
            below.
        counted_on: the provider that executed the graphs then.
        class_decisions: share of class decisions that differ from the validated model's.
        class_decisions_high: upper 95 % bound of it.
        referrals: share of patients whose "refer or not" differs.
        referrals_high: upper 95 % bound of it.
    """

    certified: bool
    statement: str
    patients: int | None = None
    counted_on: str | None = None
    class_decisions: float | None = None
    class_decisions_high: float | None = None
    referrals: float | None = None
    referrals_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def certificate_of(
    manifest: Manifest, graphs: GraphPair, operating_point: str, *, provider: str | None = None
) -> CertificateSummary:
    """What the manifest's certificate says of these graphs at this operating point.

    Args:
        manifest: of the bundle.
        graphs: the form of the model that runs.
        operating_point: name of the operating point in use.
        provider: what executes the graphs here, if it is known; named where it is another one.

    Raises:
        BundleError: the certificate is malformed.
    """
    certificates = manifest.reported.get("certificates", {})
    if graphs.name not in certificates:
        return _not_certified("its decisions were not counted against the validated model's")
    try:
        return _summary(certificates[graphs.name], manifest, graphs, operating_point, provider)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"the manifest's certificate of {graphs.name} is malformed ({error!r}); certify the "
            "bundle again"
        ) from error


def _summary(
    values: Mapping[str, Any],
    manifest: Manifest,
    graphs: GraphPair,
    name: str,
    provider: str | None,
) -> CertificateSummary:
    subject, points = values["subject"], values["points"]
    certified_files = subject["encoder_sha256"], subject["head_sha256"]
    if certified_files != _files_of(manifest, graphs):
        return _not_certified("the bundle's certificate is of other graphs")
    if name not in points:
        return _not_certified(f"the bundle's certificate has no operating point {name!r}")
    shares = {
        key: (float(points[name][key]["share"]), float(points[name][key]["high"]))
        for key in ("class_decisions", "referrals")
    }
    limits = values["limits"]
    within = values["within_limits"] is True and all(
        high <= float(limits[key]) for key, (_, high) in shares.items()
    )
    patients, counted_on = int(values["patients"]["judged"]), str(subject["provider"])
    elsewhere = f", counted on {counted_on}" if provider not in (None, counted_on) else ""
    decisions, referrals = (_differ(*shares[key]) for key in ("class_decisions", "referrals"))
    return CertificateSummary(
        certified=within,
        statement=(
            f"{'certified' if within else 'NOT WITHIN LIMITS'}: class decisions: {decisions}, "
            f"refer or not: {referrals} from the validated model on {patients} patients{elsewhere}"
        ),
        patients=patients,
        counted_on=counted_on,
        class_decisions=shares["class_decisions"][0],
        class_decisions_high=shares["class_decisions"][1],
        referrals=shares["referrals"][0],
        referrals_high=shares["referrals"][1],
    )


def _files_of(manifest: Manifest, graphs: GraphPair) -> tuple[str, str]:
    return manifest.files[graphs.encoder].sha256, manifest.files[graphs.head].sha256


def _differ(share: float, high: float) -> str:
    return f"{share * _PERCENT:.1f} % differ (upper bound {high * _PERCENT:.1f} %)"


def _not_certified(why: str) -> CertificateSummary:
    return CertificateSummary(certified=False, statement=f"not certified: {why}")
