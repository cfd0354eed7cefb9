"""What the head is fed with: the encoder's features of pairs, some with an eye absent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fundus_export.errors import ExportError
from fundus_export.quantise.feeds import eye_feeds, feature_pair_count, feature_pairs
from fundus_export.quantise.images import CalibrationImages


@pytest.fixture(scope="module")
def encoder() -> bytes:
    """Features are the image's maximum over 4 x 4 pixels, plus one, so that no eye gives zeros."""
    return encoder_graph()


def encoder_graph(*, asks_side: bool = False) -> bytes:
    """The same; with `asks_side`, left eyes have one more added."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3, 8, 8])
    logits = helper.make_tensor_value_info("eye_logits", TensorProto.FLOAT, ["batch", 3, 1, 1])
    nodes = [
        helper.make_node("MaxPool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Abs", ["pooled"], ["positive"]),
        helper.make_node("Add", ["positive", "one"], ["features"]),
        helper.make_node("GlobalMaxPool", ["features"], ["eye_logits"]),
    ]
    inputs = [image]
    if asks_side:
        inputs.append(helper.make_tensor_value_info("is_left", TensorProto.FLOAT, ["batch"]))
        nodes[2].output[0] = "plain"
        nodes.insert(3, helper.make_node("Reshape", ["is_left", "column"], ["more"]))
        nodes.insert(4, helper.make_node("Add", ["plain", "more"], ["features"]))
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("column", TensorProto.INT64, [4], [-1, 1, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "encoder", inputs, [features, logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def expected_features(eye: np.ndarray) -> np.ndarray:
    return np.abs(eye.reshape(3, 8, 4, 8, 4).max(axis=(2, 4)))[None] + np.float32(1)


def test_the_encoder_gets_every_eye_alone(encoder: bytes, images: CalibrationImages) -> None:
    feeds = list(eye_feeds(encoder, images))
    assert len(feeds) == len(images.files)
    for feed, eye in zip(feeds, images.eyes(), strict=True):
        assert list(feed) == ["image"]
        assert feed["image"].shape == (1, 3, 32, 32)
        np.testing.assert_array_equal(feed["image"][0], eye)


def test_an_encoder_that_asks_is_told_the_eye_of_the_name_and_else_one_by_turns(
    images: CalibrationImages,
) -> None:
    nameless = [replace(file, eye=None, pair_id=None) for file in images.files[:3]]
    mixed = replace(images, files=(*images.files[3:], *nameless))

    sides = [float(feed["is_left"][0]) for feed in eye_feeds(encoder_graph(asks_side=True), mixed)]

    known = [file.eye == "left" for file in mixed.files if file.eye is not None]
    assert {True, False} == set(known)
    told = [side for side, file in zip(sides, mixed.files, strict=True) if file.eye is not None]
    assert told == known
    guessed = [side for side, file in zip(sides, mixed.files, strict=True) if file.eye is None]
    assert guessed == [1.0, 0.0] * (len(guessed) // 2) + [1.0] * (len(guessed) % 2)


def test_the_head_gets_features_of_eyes_that_the_encoder_was_told(
    images: CalibrationImages,
) -> None:
    feeds = feature_pairs(encoder_graph(asks_side=True), images)
    whole = [feed for feed in feeds if feed["left_present"] == feed["right_present"] == 1]
    for feed, (left, right) in zip(whole, images.pairs(), strict=True):
        np.testing.assert_array_equal(feed["features_left"], expected_features(left) + 1)
        np.testing.assert_array_equal(feed["features_right"], expected_features(right))


def test_the_head_gets_every_pair_with_both_eyes(encoder: bytes, images: CalibrationImages) -> None:
    whole = [
        feed
        for feed in feature_pairs(encoder, images)
        if feed["left_present"] == 1 and feed["right_present"] == 1
    ]
    assert len(whole) == 10
    for feed, (left, right) in zip(whole, images.pairs(), strict=True):
        assert list(feed) == ["features_left", "features_right", "left_present", "right_present"]
        assert {(value.dtype.name, len(value)) for value in feed.values()} == {("float32", 1)}
        np.testing.assert_array_equal(feed["features_left"], expected_features(left))
        np.testing.assert_array_equal(feed["features_right"], expected_features(right))


def test_a_small_share_comes_again_without_an_eye(
    encoder: bytes, images: CalibrationImages
) -> None:
    feeds = list(feature_pairs(encoder, images))
    assert len(feeds) == feature_pair_count(images) == 12
    for eye, other in (("left", "right"), ("right", "left")):
        (without,) = [feed for feed in feeds if feed[f"{eye}_present"] == 0]
        assert without[f"{other}_present"] == 1
        assert not without[f"features_{eye}"].any()
        assert without[f"features_{other}"].all()


def test_an_eighth_of_many_pairs_comes_again(images: CalibrationImages) -> None:
    many = replace(
        images,
        files=tuple(
            replace(file, pair_id=f"{turn}-{file.pair_id}")
            for turn in range(8)
            for file in images.files
            if file.pair_id is not None
        ),
    )
    assert len(many.pair_files) == 80
    assert feature_pair_count(many) == 80 + 10


def test_which_pairs_come_without_an_eye_depends_on_content_alone(
    encoder: bytes, images: CalibrationImages
) -> None:
    def fingerprints(some: CalibrationImages) -> list[bytes]:
        feeds = feature_pairs(encoder, some)
        return sorted(b"".join(value.tobytes() for value in feed.values()) for feed in feeds)

    turned = replace(images, files=tuple(reversed(images.files)))
    assert [left.name for left, _ in turned.pair_files] != [
        left.name for left, _ in images.pair_files
    ]
    assert fingerprints(turned) == fingerprints(images)


def test_an_encoder_that_cannot_be_run_is_refused(images: CalibrationImages) -> None:
    with pytest.raises(ExportError, match="cannot load the encoder"):
        next(feature_pairs(b"not ONNX", images))


def test_an_encoder_for_another_size_is_refused(encoder: bytes, images: CalibrationImages) -> None:
    other = replace(images, spec=replace(images.spec, size=64))
    with pytest.raises(ExportError, match="failed in the encoder"):
        next(feature_pairs(encoder, other))
