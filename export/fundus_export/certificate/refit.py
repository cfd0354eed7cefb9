"""Refits a dialect's calibration so that its decisions come as near the validated ones as they can.

Lower precision shifts and stretches a class's logits by a little, the same for everybody, and adds
noise that differs from patient to patient. The first can be undone, and is undone here; the second
is what the certificate counts.

**What is fitted.** A temperature and a bias for each class, so that the dialect's calibrated
probability reproduces the *reference's calibrated probability* of the same patient: cross-entropy
against these soft targets, with a weak pull towards the reference's own calibration that matters
only where nearly nobody has a class. The thresholds on the probabilities stay as they were
validated; since a class is called when its logit is at or above `T * (log(t / (1 - t)) - b)`, new T
and b move each operating point to its place on the dialect's logits.

**Why not to the labels.** The decisions to keep are the reference's, right or wrong. Labels are 0
or 1: a fit to half of some hundred patients moves T and b by its own sampling noise, the same for a
dialect that is the reference itself, and a threshold of best F1 rests on a handful of positives.
That noise would be counted as a change of decision that the precision never caused. Soft targets
carry no label noise: a dialect that is the reference gets the reference's calibration back exactly.

**Measured** on the 416 validation patients of the edge model, four INT8 forms of its graphs (ONNX
Runtime's plain quantiser: unsigned and symmetric activations, min-max and percentile), the range of
their means and the typical spread over 30 ways to halve the patients, at the point of best F1;
every patient is judged by what was fitted on the other half:

| refit | class decisions changed, % | refer or not changed, % |
|---|---|---|
| none | 2.2 to 2.6 | 7.7 to 9.1 |
| T and b to the labels | 1.9 to 2.1 ± 0.2 | 6.9 to 7.6 ± 0.6 |
| the same, thresholds of best F1 chosen again | 3.4 to 3.5 ± 0.6 | 8.7 to 9.5 ± 1.4 |
| **T and b to the reference's probabilities** | **1.6 to 1.9 ± 0.06** | **6.2 to 6.9 ± 0.3** |
| the same, then thresholds moved to best agreement | 1.9 to 2.2 ± 0.14 | 7.0 to 8.1 ± 0.6 |
| thresholds moved to best agreement, T and b kept | 2.0 to 2.3 ± 0.15 | 7.2 to 8.4 ± 0.6 |

At the points of stated sensitivity it is the best or within 0.1 of the best in class decisions (1.6
to 2.3 %, where refitting the thresholds to the labels changes 3.9 to 6.4 %), and everywhere it
depends least on the halving. A threshold moved to the best agreement of two hundred patients
follows the few of them that lie beside it; weighting the fit towards one point's threshold costs
the other points.

Where the dialect's probabilities are the reference's to within `KEPT_WITHIN` everywhere, as in
`fp32`, there is nothing to undo and the calibration is kept to the last digit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from fundus_runtime.calibration import Calibration, ClassCalibration

__all__ = ["KEPT_WITHIN", "needs_refit", "refit_to_reference"]

Floats = npt.NDArray[np.float64]

KEPT_WITHIN = 1e-3

# As in the calibration to labels, but around the reference's own: a slope off by a factor of 2.7
# or odds off by a factor of 150 cost as much as half a decision.
_LOG_SLOPE_SD = 1.0
_BIAS_SD = 5.0
_LOG_SLOPE_LIMIT = 3.0  # a class that lost its signal ends at a twentieth of its slope


def needs_refit(reference: npt.ArrayLike, dialect: npt.ArrayLike, calibration: Calibration) -> bool:
    """Whether any calibrated probability of M×K logits differs by more than `KEPT_WITHIN`."""
    difference = np.abs(calibration.apply(reference) - calibration.apply(dialect))
    return bool(difference.size) and not bool(difference.max() <= KEPT_WITHIN)


def refit_to_reference(
    dialect: npt.ArrayLike, reference: npt.ArrayLike, calibration: Calibration
) -> Calibration:
    """The calibration with which the dialect says what the reference says with its own.

    Args:
        dialect: M×K logits, finite.
        reference: M×K logits of the same patients or eyes.
        calibration: the reference's.
    """
    came = np.asarray(dialect, dtype=np.float64)
    wanted = np.asarray(reference, dtype=np.float64)
    return Calibration(
        calibration.letters,
        tuple(
            _refit_class(came[:, k], wanted[:, k], one) for k, one in enumerate(calibration.classes)
        ),
    )


def _refit_class(came: Floats, wanted: Floats, reference: ClassCalibration) -> ClassCalibration:
    """One class: logits M of the dialect, logits M of the reference."""
    scaled = came / reference.temperature
    target = _sigmoid(wanted / reference.temperature + reference.bias)

    def loss(moved: Floats) -> tuple[float, Floats]:
        slope = np.exp(moved[0])
        score = slope * scaled + reference.bias + moved[1]
        residual = _sigmoid(score) - target
        pull = np.array([moved[0] / _LOG_SLOPE_SD**2, moved[1] / _BIAS_SD**2])
        value = np.sum(np.logaddexp(0.0, score) - target * score) + 0.5 * float(pull @ moved)
        return float(value), np.array([residual @ (slope * scaled), residual.sum()]) + pull

    limits = [(-_LOG_SLOPE_LIMIT, _LOG_SLOPE_LIMIT), (None, None)]
    found = minimize(
        loss,
        np.zeros(2),
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500},
    ).x
    return ClassCalibration(
        temperature=reference.temperature / float(np.exp(found[0])),
        bias=reference.bias + float(found[1]),
    )


def _sigmoid(x: Floats) -> Floats:
    decay = np.exp(-np.abs(x))
    values: Floats = np.where(x >= 0, 1.0, decay) / (1.0 + decay)
    return values
