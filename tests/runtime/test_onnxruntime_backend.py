from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest

from fundus_runtime.backends.onnxruntime import OnnxRuntimeBackend, default_threads
from fundus_runtime.backends.protocol import encoded_eyes
from fundus_runtime.backends.settings import EngineSettings
from fundus_runtime.errors import EngineError, EngineMissingError, UsageError
from fundus_runtime.labels import EYES

SIZE, CLASSES = 64, 8


@pytest.fixture(scope="module")
def backend(graphs):
    opened = OnnxRuntimeBackend(
        graphs["encoder"](), graphs["head"](), size=SIZE, class_count=CLASSES, threads=1
    )
    yield opened
    opened.close()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


def test_backend_states_what_really_runs(backend) -> None:
    assert backend.name == "onnxruntime"
    assert backend.provider == "CPUExecutionProvider"
    assert backend.threads == 1


def test_encoder_and_head_compute_what_the_graphs_say(backend) -> None:
    batch = images(2)
    features, eye_logits, _ = backend.encode(batch, EYES)
    assert features.shape == (2, 3, 8, 8)
    assert features == pytest.approx(batch.reshape(2, 3, 8, 8, 8, 8).mean((3, 5)), abs=1e-5)
    one = np.ones(1, np.float32)
    logits = backend.fuse(features[:1], features[1:], one, one)
    assert logits == pytest.approx(eye_logits.mean(0, keepdims=True), abs=1e-5)


def test_an_eye_does_not_depend_on_its_batch(backend) -> None:
    batch = images(3)
    together = backend.encode(batch, ["left"] * 3)
    for index in range(3):
        alone = backend.encode(batch[index : index + 1], ["left"])
        assert np.array_equal(alone.features[0], together.features[index])
        assert np.array_equal(alone.logits[0], together.logits[index])


def test_absent_eye_is_left_out(backend) -> None:
    features, eye_logits, _ = backend.encode(images(2), EYES)
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    logits = backend.fuse(np.zeros_like(features[:1]), features[1:], none, one)
    assert logits == pytest.approx(eye_logits[1:], abs=1e-5)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, SIZE, SIZE), np.float64),
        np.zeros((3, SIZE, SIZE), np.float32),
        np.zeros((1, 3, SIZE, SIZE + 1), np.float32),
    ],
)
def test_images_of_another_kind_are_refused(backend, batch) -> None:
    with pytest.raises(EngineError, match=r"expected float32 \(N, 3, 64, 64\)"):
        backend.encode(batch, ["left"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error(backend, value) -> None:
    batch = images(1)
    batch[0, 0, 0, 0] = value
    with pytest.raises(EngineError, match="NaN or infinity in 'features'"):
        backend.encode(batch, ["left"])


@pytest.mark.parametrize("eyes", [[], ["left"], ["left", "right", "left"], ["left", "top"]])
def test_an_eye_must_be_named_for_every_image(backend, eyes) -> None:
    with pytest.raises(EngineError, match="got 2 images of the eyes"):
        backend.encode(images(2), eyes)


def test_an_encoder_that_asks_is_told_which_eye_each_row_shows(graphs, backend) -> None:
    encoder = graphs["encoder"](turns_right_eyes=True)
    sided = OnnxRuntimeBackend(encoder, graphs["head"](), size=SIZE, class_count=CLASSES, threads=1)
    plain = backend.encode(images(3), ["left"] * 3).features
    turned = sided.encode(images(3), ["left", "right", "left"]).features
    assert np.array_equal(turned[[0, 2]], plain[[0, 2]])
    assert np.array_equal(turned[1], plain[1, [1, 0, 2]])
    sided.close()


def test_an_encoder_may_say_nothing_of_an_eye_alone(graphs, backend) -> None:
    encoder = graphs["encoder"](eye_logits=False)
    silent = OnnxRuntimeBackend(
        encoder, graphs["head"](), size=SIZE, class_count=CLASSES, threads=1
    )
    encoded = silent.encode(images(2), EYES)
    assert encoded.logits is None
    assert np.array_equal(encoded.features, backend.encode(images(2), EYES).features)
    silent.close()


def test_maps_of_an_eye_are_handed_on_where_the_graph_has_them(graphs, backend) -> None:
    encoder = graphs["encoder"](eye_maps=True)
    told = OnnxRuntimeBackend(encoder, graphs["head"](), size=SIZE, class_count=CLASSES, threads=1)
    encoded = told.encode(images(2), EYES)
    assert encoded.maps.shape == (2, CLASSES, 8, 8)
    assert encoded.maps.mean((2, 3)) == pytest.approx(encoded.logits, abs=1e-5)
    assert backend.encode(images(2), EYES).maps is None
    told.close()


@pytest.mark.parametrize("shape", [(2, CLASSES, 8, 7), (2, CLASSES - 1, 8, 8), (1, CLASSES, 8, 8)])
def test_maps_of_another_shape_are_refused(shape) -> None:
    answers = {
        "features": np.zeros((2, 3, 8, 8), np.float32),
        "eye_logits": np.zeros((2, CLASSES), np.float32),
        "eye_maps": np.zeros(shape, np.float32),
    }
    with pytest.raises(EngineError, match=r"maps of shape .*, expected \(2, 8, 8, 8\)"):
        encoded_eyes(answers, 2, CLASSES)


def test_features_of_another_count_are_refused() -> None:
    with pytest.raises(EngineError, match=r"expected \(2, C, h, w\)"):
        encoded_eyes({"features": np.zeros((1, 3, 8, 8), np.float32)}, 2, CLASSES)


def test_failure_inside_the_engine_is_typed(backend) -> None:
    features = np.zeros((1, 3, 4, 8), np.float32)
    one = np.ones(1, np.float32)
    with pytest.raises(EngineError, match="failed in the head graph"):
        backend.fuse(features, features, one, one)


def test_unreadable_graph_is_refused_by_name(graphs) -> None:
    with pytest.raises(EngineError, match="cannot load the encoder graph"):
        OnnxRuntimeBackend(b"no onnx", graphs["head"](), size=SIZE, class_count=CLASSES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": {"input_name": "picture"}}, r"inputs \['picture'\], expected \['image'\]"),
        ({"encoder": {"batch": 1}}, "dynamic first axis"),
        ({"encoder": {"size": 128}}, r"'image' has the shape \['N', 3, 128, 128\]"),
        ({"encoder": {"letters": ("D", "N")}}, "'eye_logits' has the shape"),
        ({"head": {"letters": ("D", "N")}}, "'logits' has the shape"),
        ({"head": {"output_name": "answer"}}, r"outputs \['answer'\], expected \['logits'\]"),
    ],
)
def test_graphs_that_break_the_protocol_are_refused(graphs, changes, words) -> None:
    built = {part: graphs[part](**changes.get(part, {})) for part in ("encoder", "head")}
    with pytest.raises(EngineError, match=words):
        OnnxRuntimeBackend(built["encoder"], built["head"], size=SIZE, class_count=CLASSES)


def test_missing_engine_names_the_extra_to_install(graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_engine(name, *rest, **more):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real_import(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_engine)
    with pytest.raises(EngineMissingError, match=r'pip install "fundus-edge\[cpu\]"'):
        OnnxRuntimeBackend(graphs["encoder"](), graphs["head"](), size=SIZE, class_count=CLASSES)


def test_default_threads_stay_within_the_machine() -> None:
    assert 1 <= default_threads() <= 4


def test_a_graphs_bytes_are_not_kept(graphs) -> None:
    encoder = graphs["encoder"]()
    before = sys.getrefcount(encoder)
    backend = OnnxRuntimeBackend(encoder, graphs["head"](), size=SIZE, class_count=CLASSES)
    assert sys.getrefcount(encoder) == before
    assert backend.encode(images(1), ["left"]).features.shape == (1, 3, 8, 8)
    backend.close()


def test_threads_are_said_in_one_place(graphs) -> None:
    with pytest.raises(UsageError, match="beside settings"):
        OnnxRuntimeBackend(
            graphs["encoder"](),
            graphs["head"](),
            size=SIZE,
            class_count=CLASSES,
            threads=1,
            settings=EngineSettings(threads=2),
        )


def test_no_threads_at_all_are_refused(graphs) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        OnnxRuntimeBackend(
            graphs["encoder"](), graphs["head"](), size=SIZE, class_count=CLASSES, threads=0
        )
