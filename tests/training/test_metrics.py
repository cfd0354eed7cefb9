"""The figures of an evaluation against scikit-learn, hand-made cases and their bootstrap."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sk

from fundus_training import bootstrap, metrics
from fundus_training.errors import ConfigError, DataError

Arrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]

# Two patients, three classes: one patient all right, the other with a miss and a false alarm.
HAND_LABELS = np.array([[1, 0, 0], [0, 1, 0]])
HAND_CALLS = np.array([[1, 0, 0], [0, 0, 1]])


def _sample(patients: int = 300, classes: int = 8, seed: int = 0) -> Arrays:
    """Labels of about ODIR's density, and probabilities that know something about them."""
    random = np.random.default_rng(seed)
    labels = (random.random((patients, classes)) < 0.15).astype(np.int64)
    logits = 2.0 * labels - 2.0 + random.normal(size=labels.shape)
    # Rounding makes ties, which rank-based areas have to count as a half.
    return labels, np.round(1.0 / (1.0 + np.exp(-logits)), 2)


def test_hand_made_calls_give_the_figures_counted_by_hand() -> None:
    figures = metrics.classification_figures(HAND_LABELS, HAND_CALLS)
    assert figures["exact_match"] == 0.5
    assert figures["micro_precision"] == 0.5  # one of two calls is right
    assert figures["micro_recall"] == 0.5  # one of two labels is found
    assert figures["micro_f1"] == 0.5
    assert figures["macro_f1"] == pytest.approx(1 / 3)  # one class perfect, two at zero
    # Agreement 4/6; by chance (2·2 + 4·4)/36 = 20/36.
    assert figures["kappa"] == pytest.approx((4 / 6 - 20 / 36) / (1 - 20 / 36))


def test_figures_equal_scikit_learn() -> None:
    labels, probabilities = _sample()
    calls = (probabilities >= 0.5).astype(int)
    figures = metrics.classification_figures(labels, calls)
    assert figures["exact_match"] == pytest.approx(sk.accuracy_score(labels, calls))
    assert figures["micro_f1"] == pytest.approx(sk.f1_score(labels, calls, average="micro"))
    assert figures["macro_recall"] == pytest.approx(sk.recall_score(labels, calls, average="macro"))
    assert figures["kappa"] == pytest.approx(sk.cohen_kappa_score(labels.ravel(), calls.ravel()))
    assert metrics.flattened_auc(labels, probabilities) == pytest.approx(
        sk.roc_auc_score(labels, probabilities, average="micro")
    )
    assert metrics.macro_auc(labels, probabilities)[0] == pytest.approx(
        sk.roc_auc_score(labels, probabilities, average="macro")
    )
    assert metrics.brier_score(labels, probabilities) == pytest.approx(
        sk.brier_score_loss(labels.ravel(), probabilities.ravel())
    )


def test_one_class_alone_counts_only_its_positive_calls() -> None:
    labels, calls = np.array([[1], [0], [0], [0]]), np.array([[1], [1], [0], [0]])
    figures = metrics.classification_figures(labels, calls)
    assert figures["micro_precision"] == 0.5
    assert figures["micro_recall"] == 1.0
    assert figures["macro_precision"] == 0.5


def test_calling_nobody_ill_scores_0_85_in_the_challenge_f1() -> None:
    labels = np.zeros((1000, 8), dtype=int)
    labels.ravel()[: int(0.147 * labels.size)] = 1  # ODIR's density
    nobody = np.full(labels.shape, 0.01)
    nobody.ravel()[::2] = 0.02
    score = metrics.challenge_score(labels, nobody)
    assert score["f1"] == pytest.approx(0.853, abs=1e-3)
    assert score["kappa"] == 0.0
    assert metrics.classification_figures(labels, nobody >= 0.5)["micro_f1"] == 0.0


def test_challenge_score_is_the_mean_of_flattened_kappa_f1_and_auc_at_a_half() -> None:
    labels, probabilities = _sample()
    score = metrics.challenge_score(labels, probabilities)
    truth, calls = labels.ravel(), (probabilities.ravel() >= 0.5).astype(int)
    expected = (
        sk.cohen_kappa_score(truth, calls),
        sk.f1_score(truth, calls, average="micro"),
        sk.roc_auc_score(truth, probabilities.ravel()),
    )
    assert (score["kappa"], score["f1"], score["auc"]) == pytest.approx(expected)
    assert score["final"] == pytest.approx(np.mean(expected))


def test_undefined_figures_are_none_and_macro_names_its_classes() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.1, 0.5], [0.8, 0.3, 0.5]])
    assert metrics.per_class_auc(labels, scores) == [1.0, None, None]
    assert metrics.macro_auc(labels, scores) == (1.0, (0,))
    nothing = np.zeros((3, 2), dtype=int)
    assert metrics.macro_auc(nothing, scores[:, :2]) == (None, ())
    assert metrics.classification_figures(nothing, nothing)["kappa"] is None
    assert metrics.challenge_score(nothing, scores[:, :2] * 0.1)["final"] is None
    assert metrics.sensitivity_specificity(nothing[:, 0], nothing[:, 0]) == (None, 1.0)


def test_sensitivity_and_specificity_by_hand() -> None:
    labels, calls = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    assert metrics.sensitivity_specificity(labels, calls) == (pytest.approx(2 / 3), 0.5)


def test_a_class_is_called_at_its_threshold_and_not_below() -> None:
    calls = metrics.called_at(np.array([[0.3, 0.3], [0.31, 0.29]]), (0.3, 0.31))
    assert calls.tolist() == [[True, False], [True, False]]


def test_calibration_error_by_hand() -> None:
    # Four decisions at 0.9 of which two are right, four at 0.1 with none: (4·0.4 + 4·0.1)/8.
    labels = np.array([1, 1, 0, 0, 0, 0, 0, 0])
    probabilities = np.array([0.9] * 4 + [0.1] * 4)
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx(0.25)
    assert metrics.bin_of_probability(np.array([0.0, 1 / 15, 0.999, 1.0])).tolist() == [
        0,
        1,
        14,
        14,
    ]


@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        (np.zeros(3), np.zeros(3), "N×K"),
        (np.zeros((0, 8)), np.zeros((0, 8)), "non-empty"),
        (np.full((2, 2), 2), np.zeros((2, 2)), "zeros and ones"),
        (np.zeros((2, 2)), np.zeros((2, 3)), r"\(2, 3\)"),
        (np.zeros((2, 2)), np.full((2, 2), np.nan), "NaN"),
        (np.zeros((2, 2)), np.full((2, 2), 1.5), r"\[0, 1\]"),
    ],
)
def test_unusable_arrays_are_refused(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        metrics.probability_matrix(probabilities, metrics.binary_matrix(labels))


def test_weighted_figures_at_weights_of_one_equal_the_plain_figures() -> None:
    labels, probabilities = _sample()
    calls = probabilities >= 0.5
    once = np.ones((1, len(labels)))
    owner = np.repeat(np.arange(len(labels)), labels.shape[1])
    flat = bootstrap.weighted_auc(once, labels.ravel(), probabilities.ravel(), owner=owner)
    assert flat[0] == pytest.approx(metrics.flattened_auc(labels, probabilities), abs=1e-12)
    column = bootstrap.weighted_auc(once, labels[:, 2], probabilities[:, 2])
    assert column[0] == pytest.approx(metrics.per_class_auc(labels, probabilities)[2], abs=1e-12)
    assert bootstrap.weighted_kappa(once, labels, calls)[0] == pytest.approx(
        metrics.classification_figures(labels, calls)["kappa"]
    )
    assert bootstrap.weighted_calibration_error(once, labels, probabilities)[0] == pytest.approx(
        metrics.expected_calibration_error(labels, probabilities)
    )


def test_weighted_figures_equal_the_plain_figures_of_the_repeated_patients() -> None:
    labels, probabilities = _sample(patients=60)
    weights = next(bootstrap.resample_weights(60, 3, seed=5))
    drawn = np.repeat(np.arange(60), weights[1].astype(int))
    owner = np.repeat(np.arange(60), labels.shape[1])
    flat = bootstrap.weighted_auc(weights, labels.ravel(), probabilities.ravel(), owner=owner)
    assert flat[1] == pytest.approx(
        sk.roc_auc_score(labels[drawn].ravel(), probabilities[drawn].ravel())
    )
    kappa = bootstrap.weighted_kappa(weights, labels, probabilities >= 0.5)
    assert kappa[1] == pytest.approx(
        sk.cohen_kappa_score(labels[drawn].ravel(), probabilities[drawn].ravel() >= 0.5)
    )
    error = bootstrap.weighted_calibration_error(weights, labels, probabilities)
    assert error[1] == pytest.approx(
        metrics.expected_calibration_error(labels[drawn], probabilities[drawn])
    )


def test_an_area_is_undefined_in_resamples_without_positives() -> None:
    labels, scores = np.array([1, 0, 0]), np.array([0.9, 0.1, 0.2])
    weights = np.array([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    areas = bootstrap.weighted_auc(weights, labels, scores)
    assert np.isnan(areas[0])
    assert areas[1] == 1.0
    interval = bootstrap.percentile_interval(areas)
    assert interval is not None
    assert interval.resamples == 1
    assert bootstrap.percentile_interval(areas[:1]) is None


def test_intervals_repeat_with_their_seed_and_differ_with_another() -> None:
    labels, probabilities = _sample(patients=80)

    def interval(seed: int) -> bootstrap.Interval | None:
        return bootstrap.bootstrap_intervals(
            lambda weights: {
                "auc": bootstrap.weighted_auc(weights, labels[:, 0], probabilities[:, 0])
            },
            patients=80,
            resamples=150,
            seed=seed,
        )["auc"]

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # The share of heads in 100 tosses of a fair coin, bootstrapped 200 times.
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        heads = random.integers(0, 2, size=100)
        interval = bootstrap.bootstrap_intervals(
            lambda weights, heads=heads: {  # type: ignore[misc]
                "share": bootstrap.weighted_share(weights, heads, np.ones(100))
            },
            patients=100,
            resamples=300,
            seed=seed,
        )["share"]
        assert interval is not None
        covered += interval.low <= 0.5 <= interval.high
    # 95 % of 200 is 190; four standard deviations (3.1 each) and the percentile method's small
    # shortfall below, chance alone above.
    assert 176 <= covered <= 199


def test_a_bootstrap_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 resamples"):
        next(bootstrap.resample_weights(10, 0, seed=0))


def test_a_thousand_resamples_of_420_patients_are_quick() -> None:
    labels, probabilities = _sample(patients=420)
    owner = np.repeat(np.arange(420), 8)
    start = time.perf_counter()
    bootstrap.bootstrap_intervals(
        lambda weights: {
            "auc": bootstrap.weighted_auc(
                weights, labels.ravel(), probabilities.ravel(), owner=owner
            )
        },
        patients=420,
    )
    assert time.perf_counter() - start < 10.0  # about 0.2 s when the machine is idle
