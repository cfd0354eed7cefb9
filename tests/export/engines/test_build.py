"""The whole way from a bundle to plans, on the recording stand-in of each TensorRT."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from fundus_export.bundle_files import RECIPE_NAME
from fundus_export.commands import export
from fundus_export.commands.calibration_options import require_options_used
from fundus_export.errors import ExportError
from fundus_export.tensorrt.builder import build_engine
from fundus_export.tensorrt.dry_run import dry_run
from fundus_export.tensorrt.machine import Machine, alone_on
from fundus_export.tensorrt.options import EngineOptions, Precision
from fundus_export.tensorrt.report import EngineReport
from fundus_export.tensorrt.strategy import dialect_of, typed_strategy
from fundus_runtime.backends.tensorrt import TensorRTBackend
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import EngineError, EngineMissingError, PlanError
from fundus_runtime.plan_key import Device
from fundus_runtime.plans import plans_folder, read_plans

FLAGS = ("8.5.3.1", "8.6.1")
TYPED = ("10.3.0", "10.16.1.11", "11.0.0.114", "11.4.0.106")
EVERY = FLAGS + TYPED
DIALECT = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "int8": "int8-trt"}

MakeMachine = Callable[..., Machine]


def build(
    bundle: Bundle, machine: Machine, precision: str = "int8", **options: Any
) -> EngineReport:
    return build_engine(bundle, EngineOptions(precision, **options), machine)  # type: ignore[arg-type]


def config_of(machine: Machine) -> Any:
    """The configuration that the encoder was built with."""
    return machine.trt._world.configs[0]


def device_of(version: str) -> Device:
    return Device("Orin", (8, 7), version, "12.6")


@pytest.mark.parametrize("precision", DIALECT)
@pytest.mark.parametrize("version", EVERY)
def test_every_precision_is_built_checked_and_stored(
    bundle: Bundle, machine: MakeMachine, version: str, precision: str
) -> None:
    report = build(bundle, machine(version), precision)

    dialect = "int8-trt8" if precision == "int8" and version in FLAGS else DIALECT[precision]
    assert report.key.dialect == dialect
    # with the flags of 8's INT8, TensorRT chooses what the small last products run in
    judged = 1 if dialect == "int8-trt8" else 2
    assert [plan.verdict.proven for plan in report.plans.values()] == [judged, judged]
    assert report.golden.pairs == 32
    found = read_plans(bundle, device_of(version), precision=precision)
    assert found.folder == report.folder
    assert found.built == json.loads(json.dumps(report.to_dict()))
    assert found.built["checked_by"] == "golden pairs only"
    assert found.sha256["encoder"] == report.plans["encoder"].plan_sha256


@pytest.mark.parametrize("version", EVERY)
def test_the_order_of_the_steps(bundle: Bundle, machine: MakeMachine, version: str) -> None:
    made = machine(version)
    build(bundle, made)

    steps = (
        *("Builder", "Builder.create_network", "OnnxParser.parse", "Builder.create_builder_config"),
        *("IBuilderConfig.set_timing_cache", "Builder.build_serialized_network"),
        *("Runtime.deserialize_cuda_engine", "EngineInspector.get_engine_information"),
    )
    both = [one for one in made.trt._world.log if one in steps]
    # once more, to be asked the golden pairs; on 8 the encoder's two batch sizes share no engine
    loaded = ["Runtime.deserialize_cuda_engine"] * (3 if version.startswith("8") else 2)
    assert both == [*steps, *steps, *loaded]


@pytest.mark.parametrize(
    ("version", "bits"),
    [
        ("8.5.3.1", 0b01),
        ("8.6.1", 0b01),
        ("10.3.0", 0b11),
        ("10.16.1.11", 0b11),
        ("11.0.0.114", 0b01),  # EXPLICIT_BATCH is gone, and STRONGLY_TYPED has its number
        ("11.4.0.106", 0b01),
    ],
)
def test_networks_are_created_with_the_versions_own_bits(
    bundle: Bundle,
    machine: MakeMachine,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    bits: int,
) -> None:
    made = machine(version)
    behaviours = dict(made.trt._behaviours)
    came = []
    create = behaviours["Builder.create_network"]
    behaviours["Builder.create_network"] = lambda self, flags: (
        came.append(flags) or create(self, flags)
    )
    monkeypatch.setattr(made.trt, "_behaviours", behaviours)
    build(bundle, made)

    assert came == [bits, bits]


@pytest.mark.parametrize("version", FLAGS)
@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", set()),
        ("tf32", {"TF32"}),
        ("fp16", {"FP16", "OBEY_PRECISION_CONSTRAINTS"}),
        ("int8", {"INT8", "FP16"}),
    ],
)
def test_8_is_told_precisions_by_flags(
    bundle: Bundle, machine: MakeMachine, version: str, precision: str, flags: set[str]
) -> None:
    made = machine(version)
    build(bundle, made, precision)

    assert config_of(made)._set_flags == flags
    assert config_of(made)._cleared == (set() if precision == "tf32" else {"TF32"})


@pytest.mark.parametrize("version", TYPED)
@pytest.mark.parametrize("precision", DIALECT)
def test_typed_networks_are_told_nothing_but_tf32(
    bundle: Bundle, machine: MakeMachine, version: str, precision: str
) -> None:
    made = machine(version)
    build(bundle, made, precision)

    assert config_of(made)._set_flags == ({"TF32"} if precision == "tf32" else set())
    assert config_of(made)._cleared == (set() if precision == "tf32" else {"TF32"})
    assert not any(entry.startswith("ILayer.precision") for entry in made.trt._world.log)


@pytest.mark.parametrize("version", FLAGS)
def test_8_is_told_the_fp16_graphs_types_layer_by_layer(
    bundle: Bundle, machine: MakeMachine, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    made = machine(version)
    networks = []
    behaviours = dict(made.trt._behaviours)
    create = behaviours["Builder.create_network"]
    behaviours["Builder.create_network"] = lambda self, flags: (
        networks.append(create(self, flags)) or networks[-1]
    )
    monkeypatch.setattr(made.trt, "_behaviours", behaviours)
    build(bundle, made, "fp16")

    told = {
        layer.name: layer.precision.name
        for layer in networks[1]._layers
        if layer.precision is not None
    }
    half = dict.fromkeys(["/fuse", "/fuse_relu", "/logits_mean", "/logits", "/logits_add"], "HALF")
    island = dict.fromkeys(["/left/weighted", "/right/weighted", "/both"], "FLOAT")
    assert told == half | island


@pytest.mark.parametrize(("version", "opset"), [("8.5.3.1", 17), ("8.6.1", 17), ("10.3.0", 18)])
def test_8_is_given_no_opset_that_it_misreads(
    bundle: Bundle,
    machine: MakeMachine,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    opset: int,
) -> None:
    """8.5 overlooks the axes of a mean where they are an input, and takes the mean of all."""
    made = machine(version)
    parsed = []
    behaviours = dict(made.trt._behaviours)
    parse = behaviours["OnnxParser.parse"]
    behaviours["OnnxParser.parse"] = lambda self, model: (
        parsed.append(onnx.load_from_string(model)) or parse(self, model)
    )
    monkeypatch.setattr(made.trt, "_behaviours", behaviours)
    build(bundle, made, "fp16")

    assert [model.opset_import[0].version for model in parsed] == [opset, opset]
    means = [node for node in parsed[0].graph.node if node.op_type == "ReduceMean"]
    assert [len(node.input) for node in means] == [1 if opset == 17 else 2]


@pytest.mark.parametrize("version", EVERY)
@pytest.mark.parametrize(("batch", "best"), [(1, 1), (2, 2), (8, 2)])
def test_profiles_span_one_to_the_largest_batch(
    bundle: Bundle, machine: MakeMachine, version: str, batch: int, best: int
) -> None:
    made = machine(version)
    build(bundle, made, max_batch=batch)

    encoder, head = (config._profiles[0]._shapes for config in made.trt._world.configs)
    image = (3, 64, 64)
    assert encoder == {"image": ((1, *image), (best, *image), (batch, *image))}
    assert head["left_present"] == ((1,), (1,), (batch,))
    assert head["features_right"][2] == (batch, 32, 16, 16)


@pytest.mark.parametrize("version", EVERY)
def test_workspace_and_verbosity(bundle: Bundle, machine: MakeMachine, version: str) -> None:
    made = machine(version)
    build(bundle, made, workspace_mb=256)

    assert config_of(made)._pools == {"WORKSPACE": 256_000_000}
    assert config_of(made)._profiling_verbosity.name == "DETAILED"


@pytest.mark.parametrize("version", EVERY[1:])
def test_an_optimisation_level_is_passed_on(
    bundle: Bundle, machine: MakeMachine, version: str
) -> None:
    made = machine(version)
    build(bundle, made, optimization_level=4)

    assert config_of(made)._builder_optimization_level == 4


def test_8_5_has_no_optimisation_level(bundle: Bundle, machine: MakeMachine) -> None:
    with pytest.raises(ExportError, match=r"has no optimisation levels.*leave --opt-level out"):
        build(bundle, machine("8.5.3.1"), optimization_level=4)


@pytest.mark.parametrize(
    ("version", "bits"), [("8.5.3.1", 0b11000), ("10.16.1.11", 0b11000), ("11.4.0.106", 0b11)]
)
def test_tactic_sources_have_the_versions_own_numbers(
    bundle: Bundle, machine: MakeMachine, version: str, bits: int
) -> None:
    made = machine(version)
    build(bundle, made, tactic_sources=("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"))

    assert config_of(made)._sources == bits


def test_tactic_sources_that_went_are_refused(bundle: Bundle, machine: MakeMachine) -> None:
    with pytest.raises(ExportError, match="has no tactic sources CUDNN; it has EDGE_MASK"):
        build(bundle, machine("11.4.0.106"), tactic_sources=("CUDNN",))


@pytest.mark.parametrize("version", EVERY)
def test_the_parsers_complaints_name_the_nodes(
    bundle: Bundle, machine: MakeMachine, version: str
) -> None:
    complaints = [(0, "/in/image", "Cast", "no such type"), (99, "", "", "out of memory")]
    with pytest.raises(ExportError, match=r"cannot parse the encoder in dialect fp16") as refused:
        build(bundle, machine(version, complaints=complaints), "fp16")

    assert "node /in/image (Cast): no such type" in str(refused.value)
    assert "node 99 (unknown): out of memory" in str(refused.value)


@pytest.mark.parametrize("version", EVERY)
def test_a_product_that_runs_wider_fails_the_build(
    bundle: Bundle, machine: MakeMachine, version: str
) -> None:
    with pytest.raises(ExportError, match=r"/fuse is int8 in the graph but runs in fp32 \(layer"):
        build(bundle, machine(version, overrides={"/fuse": "fp32"}))
    assert not plans_folder(bundle).exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_product_that_runs_narrower_fails_the_build(
    bundle: Bundle, machine: MakeMachine, precision: str
) -> None:
    with pytest.raises(ExportError, match=r"/conv is .* but runs in int8"):
        build(bundle, machine("10.3.0", overrides={"/conv": "int8"}), precision)


def test_tf32_that_nobody_asked_for_fails_the_build(bundle: Bundle, machine: MakeMachine) -> None:
    with pytest.raises(ExportError, match="/conv is fp32 in the graph but runs in tf32"):
        build(bundle, machine("8.6.1", overrides={"/conv": "tf32"}), "fp32")


def test_what_the_inspector_does_not_tell_is_no_proof(bundle: Bundle, machine: MakeMachine) -> None:
    report = build(bundle, machine("10.3.0", hides={"/eye"}))

    assert report.plans["encoder"].verdict.untold == ("/eye",)
    assert report.plans["encoder"].verdict.proven == 1
    assert "1 of 2 convolutions and matrix products proven" in report.in_words()
    assert "TensorRT does not tell of: /eye" in report.in_words()


def test_an_inspector_without_details_fails_the_build(bundle: Bundle, machine: MakeMachine) -> None:
    with pytest.raises(ExportError, match="told no details of the layers"):
        build(bundle, machine("10.3.0", details=False))


@pytest.mark.parametrize("version", ["8.5.3.1", "11.4.0.106"])
def test_a_build_without_a_plan_gives_tensorrts_reason(
    bundle: Bundle, machine: MakeMachine, version: str
) -> None:
    with pytest.raises(EngineError, match=r"building the encoder failed: Error Code 10"):
        build(bundle, machine(version, builds=False))


@pytest.mark.parametrize("version", EVERY)
def test_no_driver_is_an_error_of_its_own(
    bundle: Bundle, machine: MakeMachine, version: str
) -> None:
    with pytest.raises(EngineMissingError, match="CUDA error 35, NVIDIA's driver is missing"):
        build(bundle, machine(version, gpu=False))


@pytest.mark.parametrize("version", EVERY)
def test_a_timing_cache_is_read_and_written(
    bundle: Bundle, machine: MakeMachine, tmp_path: Path, version: str
) -> None:
    cache = tmp_path / "kernels.cache"
    cache.write_bytes(b"old;")
    build(bundle, machine(version), timing_cache=cache)

    assert cache.read_bytes() == b"old;measured;measured;"
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


def test_a_foreign_timing_cache_is_refused_by_name_and_kept(
    bundle: Bundle, machine: MakeMachine, tmp_path: Path
) -> None:
    cache = tmp_path / "kernels.cache"
    cache.write_bytes(b"of another GPU")

    with pytest.raises(ExportError, match=r"refuses the timing cache .*kernels\.cache"):
        build(bundle, machine("10.3.0", takes_cache=False), timing_cache=cache)
    assert cache.read_bytes() == b"of another GPU"


def test_a_missing_folder_of_the_timing_cache_is_told_before_the_build(
    bundle: Bundle, machine: MakeMachine, tmp_path: Path
) -> None:
    made = machine("10.3.0")
    with pytest.raises(ExportError, match=r"the folder .* of the timing cache does not exist"):
        build(bundle, made, timing_cache=tmp_path / "nowhere" / "kernels.cache")
    assert "Builder.build_serialized_network" not in made.trt._world.log


def test_a_full_disk_costs_neither_the_timing_cache_nor_the_plans(
    bundle: Bundle, machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    build(bundle, machine("10.3.0"))
    before = read_plans(bundle, device_of("10.3.0"), precision="int8")
    cache = tmp_path / "kernels.cache"
    cache.write_bytes(b"old;")
    monkeypatch.setattr("os.fsync", full)
    for options, says in (
        (EngineOptions("int8", timing_cache=cache), r"timing cache .* cannot be written.*No space"),
        (EngineOptions("int8"), r"the plans cannot be written.*No space left"),
    ):
        with pytest.raises((ExportError, PlanError), match=says):
            build_engine(bundle, options, machine("10.3.0"), force=True)

    assert cache.read_bytes() == b"old;"
    assert read_plans(bundle, device_of("10.3.0"), precision="int8") == before
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_there_is_built_again_only_by_force(bundle: Bundle, machine: MakeMachine) -> None:
    first = build(bundle, machine("10.3.0"))
    with pytest.raises(ExportError, match=r"there are plans for this device already, in .*--force"):
        build(bundle, machine("10.3.0"))

    again = build_engine(bundle, EngineOptions("int8"), machine("10.3.0"), force=True)
    assert again.folder == first.folder


@pytest.mark.parametrize(
    "world", [{"overrides": {"/fuse": "fp32"}}, {"builds": False}, {"details": False}]
)
def test_a_build_that_fails_leaves_the_previous_plans(
    bundle: Bundle, machine: MakeMachine, world: dict[str, Any]
) -> None:
    build(bundle, machine("10.3.0"))
    before = read_plans(bundle, device_of("10.3.0"), precision="int8")
    made = machine("10.3.0", **world)
    with pytest.raises((ExportError, EngineError)):
        build_engine(bundle, EngineOptions("int8"), made, force=True)

    assert read_plans(bundle, device_of("10.3.0"), precision="int8") == before
    assert made.gpu.closed


def test_a_bundle_without_the_dialect_names_what_it_has_and_how_to_make_it(
    make_tiny: Callable[..., Bundle], machine: MakeMachine
) -> None:
    bundle = make_tiny("fp32", "int8-trt")

    with pytest.raises(ExportError, match="is built from the dialect int8-trt8") as refused:
        build(bundle, machine("8.6.1"))
    assert f"bundle {bundle.path} has fp32, int8-trt" in str(refused.value)
    words = str(refused.value).partition("where torch is installed: ")[2].split()
    args = export.build_parser().parse_args(words[1:])
    assert (args.checkpoint, args.dialect) == (
        bundle.path / "checkpoint.safetensors",
        ["int8-trt8"],
    )
    assert args.calibration == Path("FOLDER_OF_PHOTOGRAPHS")


def test_a_bundle_with_a_recipe_needs_no_photographs(
    make_tiny: Callable[..., Bundle], machine: MakeMachine
) -> None:
    recipe = {"ranges": {"encoder": {}, "head": {}}, "raised": {}}
    bundle = make_tiny(
        "fp32", change=lambda files: files.update({RECIPE_NAME: json.dumps(recipe).encode()})
    )
    with pytest.raises(ExportError, match="is built from the dialect int8-trt,") as refused:
        build(bundle, machine("10.3.0"))

    words = str(refused.value).partition("where torch is installed: ")[2].split()
    args = export.build_parser().parse_args(words[1:])
    assert (args.recipe, args.calibration) == (bundle.path / RECIPE_NAME, None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("with_recipe", [True, False])
def test_the_command_that_makes_a_missing_dialect_has_no_option_without_effect(
    make_tiny: Callable[..., Bundle], precision: Precision, with_recipe: bool
) -> None:
    def change(files: dict[str, bytes]) -> None:
        if with_recipe:
            files[RECIPE_NAME] = b"{}"

    with pytest.raises(ExportError) as refused:
        dialect_of(make_tiny("int8-trt8", change=change), typed_strategy(precision))
    words = str(refused.value).partition("where torch is installed: ")[2].split()
    require_options_used(export.build_parser().parse_args(words[1:]))


def test_a_recipe_that_is_none_is_an_error(
    make_tiny: Callable[..., Bundle], machine: MakeMachine
) -> None:
    bundle = make_tiny("fp32", change=lambda files: files.update({RECIPE_NAME: b"{}"}))

    with pytest.raises(ExportError, match=r"recipe\.json is no recipe: KeyError"):
        build(bundle, machine("10.3.0"), "fp32")


def test_a_bundle_without_a_checkpoint_offers_no_command(
    make_tiny: Callable[..., Bundle], machine: MakeMachine
) -> None:
    with pytest.raises(ExportError, match="it carries no checkpoint"):
        build(make_tiny("fp32", checkpoint=False), machine("10.3.0"))


def test_graphs_that_break_their_dialect_are_not_built(
    make_tiny: Callable[..., Bundle], machine: MakeMachine
) -> None:
    def exchange(files: dict[str, bytes]) -> None:
        files["graphs/head_int8-trt.onnx"] = files["graphs/head_int8-trt8.onnx"]

    made = machine("10.3.0")
    with pytest.raises(ExportError, match=r"break their dialect's rules: head_int8-trt.onnx: "):
        build(make_tiny(change=exchange), made)
    assert "Builder" not in made.trt._world.log


def test_an_engine_that_answers_otherwise_is_not_kept(
    make_tiny: Callable[..., Bundle], machine: MakeMachine
) -> None:
    def falsify(golden: dict[str, Any]) -> None:
        golden["answers"]["int8-trt"]["logits"][6][1] += 0.5

    bundle = make_tiny(golden=falsify)
    with pytest.raises(ExportError, match=r"answers 1 of 32 golden pairs otherwise .*01_left"):
        build(bundle, machine("10.3.0"))
    assert not plans_folder(bundle).exists()


def _without_the_last(golden: dict[str, Any]) -> None:
    golden["pairs"].pop()
    for answers in golden["answers"].values():
        for kind in ("logits", "left_logits", "right_logits"):
            answers[kind].pop()


def _the_first_twice(golden: dict[str, Any]) -> None:
    golden["pairs"][-1] = golden["pairs"][0]


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (_without_the_last, r"carries 31 different golden pairs, expected at least 32: .*export"),
        (_the_first_twice, r"carries 31 different golden pairs, expected at least 32: .*export"),
        (lambda golden: golden.clear(), r"carries 0 different golden pairs, expected .*export"),
        (lambda golden: golden.pop("pairs"), r"malformed \(KeyError\('pairs'\)\); export the bun"),
        (lambda golden: golden["pairs"].pop(), r"malformed .*31 pairs, but 32 answers.*export the"),
        (
            lambda golden: golden["answers"].pop("int8-trt"),
            r"has golden answers of fp32, none of int8-trt, which is to be built; export it again",
        ),
    ],
    ids=["too few", "the same twice", "none", "no list", "uneven", "of another form"],
)
def test_golden_pairs_that_cannot_show_enough_stop_the_build_before_it_begins(
    make_tiny: Callable[..., Bundle], machine: MakeMachine, alter: Callable[..., Any], says: str
) -> None:
    bundle = make_tiny("fp32", "int8-trt", golden=alter)
    made = machine("10.3.0")

    with pytest.raises(ExportError, match=says):
        build(bundle, made)
    assert "Builder.build_serialized_network" not in made.trt._world.log
    assert not plans_folder(bundle).exists()
    with pytest.raises(ExportError, match=says):
        dry_run(bundle, EngineOptions("int8"), None)


def test_the_certificate_goes_into_the_report(bundle: Bundle, machine: MakeMachine) -> None:
    asked = []

    def certify(backend: Any) -> dict[str, Any]:
        asked.append(backend.provider)
        return {"within_limits": True}

    report = build_engine(bundle, EngineOptions("fp16"), machine("10.3.0"), certify=certify)

    assert asked == ["TensorRT 10.3.0 on Orin (sm_87)"]
    assert report.to_dict()["checked_by"] == "certificate"
    assert report.to_dict()["certificate"] == {"within_limits": True}


def test_a_certificate_that_misses_leaves_nothing(bundle: Bundle, machine: MakeMachine) -> None:
    def certify(backend: Any) -> dict[str, Any]:
        raise ExportError("the engine misses the limits")

    with pytest.raises(ExportError, match="misses the limits"):
        build_engine(bundle, EngineOptions("fp16"), machine("10.3.0"), certify=certify)
    assert not plans_folder(bundle).exists()


def test_two_builds_do_not_run_at_once(bundle: Bundle, machine: MakeMachine) -> None:
    with (
        alone_on(plans_folder(bundle)),
        pytest.raises(ExportError, match=r"another build .* is at work"),
    ):
        build(bundle, machine("10.3.0"))


def test_a_folder_that_cannot_be_written_is_told_before_the_build(
    bundle: Bundle, machine: MakeMachine, tmp_path: Path
) -> None:
    plans_folder(bundle).parent.write_text("a file in the folder's place", "utf-8")
    made = machine("10.3.0")

    with pytest.raises(ExportError, match=r"cannot be made .* \$FUNDUS_PLANS"):
        build(bundle, made)
    assert "Builder" not in made.trt._world.log


def test_the_stored_plans_answer_through_the_runtimes_backend(
    bundle: Bundle, machine: MakeMachine
) -> None:
    build(bundle, machine("10.3.0"), "fp32", max_batch=2)
    found = read_plans(bundle, device_of("10.3.0"), precision="fp32")
    made = machine("10.3.0")
    backend = TensorRTBackend(
        found.encoder, found.head, size=64, class_count=8, max_batch=2, device=made.gpu
    )

    assert backend.name == "tensorrt"
    backend.close()
    assert made.gpu.closed


def test_plans_of_another_tensorrt_are_refused(bundle: Bundle, machine: MakeMachine) -> None:
    build(bundle, machine("10.3.0"))

    with pytest.raises(PlanError, match=r"TensorRT 10\.3\.0.* but this device is .*10\.16\.1\.11"):
        read_plans(bundle, device_of("10.16.1.11"), precision="int8")


def test_plans_of_an_unsigned_bundle_are_built_but_never_loaded(
    bundle: Bundle, machine: MakeMachine
) -> None:
    unsigned = replace(bundle, trust="unsigned")
    build(unsigned, machine("10.3.0"))

    with pytest.raises(PlanError, match="unsigned"):
        read_plans(unsigned, device_of("10.3.0"), precision="int8")
