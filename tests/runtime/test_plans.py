"""The cache of TensorRT plans: what is refused; no interruption costs the previous plans."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fundus_runtime import plan_writer
from fundus_runtime.bundle import Bundle
from fundus_runtime.errors import PlanError
from fundus_runtime.plan_key import Device, PlanKey
from fundus_runtime.plan_writer import write_plans
from fundus_runtime.plans import PLANS_VARIABLE, plans_folder, read_plans

ORIN = Device("Orin", (8, 7), "10.3.0", "12.6")
OLD = {"encoder": b"old encoder", "head": b"old head"}
NEW = {"encoder": b"a new encoder", "head": b"a new head"}


@pytest.fixture(autouse=True)
def beside_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLANS_VARIABLE, raising=False)


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    """A bundle that somebody vouches for."""
    return replace(Bundle.open(bundle_copy, require_trust=False), trust="signed")


def key_of(bundle: Bundle, **changes: Any) -> PlanKey:
    return replace(PlanKey(ORIN, "fp32", "fp32", 2, bundle.sha256), **changes)


def answers(bundle: Bundle, device: Device = ORIN) -> dict[str, bytes]:
    found = read_plans(bundle, device, precision="fp32")
    return {"encoder": found.encoder, "head": found.head}


def test_what_was_written_is_read(bundle: Bundle) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {"by": "hand"})
    found = read_plans(bundle, ORIN, precision="fp32", max_batch=2)

    assert {"encoder": found.encoder, "head": found.head} == OLD
    assert (found.folder, found.key, found.built) == (folder, key_of(bundle), {"by": "hand"})
    assert plans_folder(bundle) == bundle.path.with_name(f"{bundle.path.name}.plans")


def test_plans_can_lie_elsewhere(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLANS_VARIABLE, str(tmp_path / "cache"))
    folder = write_plans(bundle, key_of(bundle), OLD, {})

    assert folder.is_relative_to(tmp_path / "cache")
    assert answers(bundle) == OLD


def test_building_again_leaves_the_new_plans_alone(bundle: Bundle) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    write_plans(bundle, key_of(bundle), NEW, {})

    assert answers(bundle) == NEW
    assert len(list(folder.iterdir())) == 3


def test_the_plans_that_were_built_last_are_taken(bundle: Bundle) -> None:
    for batch, plans, seconds in ((2, OLD, 1_000), (8, NEW, 2_000)):
        folder = write_plans(bundle, key_of(bundle, max_batch=batch), plans, {})
        os.utime(folder / "report.json", (seconds, seconds))

    assert read_plans(bundle, ORIN, precision="fp32").key.max_batch == 8
    assert read_plans(bundle, ORIN, precision="fp32", max_batch=2).encoder == OLD["encoder"]


def test_no_plans_name_the_command_that_builds_them(bundle: Bundle) -> None:
    with pytest.raises(PlanError, match=r"there are no plans .* fundus-export engine --bundle"):
        read_plans(bundle, ORIN, precision="int8")


def test_an_unsigned_bundle_lends_no_trust_to_plans(bundle: Bundle) -> None:
    write_plans(bundle, key_of(bundle), OLD, {})

    with pytest.raises(PlanError, match=r"is unsigned.*fundus-export sign"):
        read_plans(replace(bundle, trust="unsigned"), ORIN, precision="fp32")


@pytest.mark.parametrize(
    "device",
    [
        replace(ORIN, gpu="Orin Nano"),
        replace(ORIN, compute_capability=(8, 6)),
        replace(ORIN, tensorrt="10.16.1"),
        replace(ORIN, cuda_driver="13.2"),
    ],
    ids=lambda device: device.in_words(),
)
def test_plans_of_another_device_are_refused_with_both_named(
    bundle: Bundle, device: Device
) -> None:
    write_plans(bundle, key_of(bundle), OLD, {})

    with pytest.raises(PlanError, match="fundus-export engine --bundle") as refused:
        answers(bundle, device)
    assert ORIN.in_words() in str(refused.value)
    assert device.in_words() in str(refused.value)


def test_a_folder_renamed_for_another_device_is_refused(bundle: Bundle) -> None:
    elsewhere = replace(ORIN, gpu="Thor", compute_capability=(11, 0))
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    folder.rename(folder.with_name(key_of(bundle, device=elsewhere).folder_name))

    with pytest.raises(PlanError, match=r"built for Orin .* this device is Thor"):
        answers(bundle, elsewhere)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precision": "fp16"}, "precision fp16, but fp32 is wanted"),
        ({"bundle_sha256": "0" * 64}, "another state of the bundle, manifest 000000000000"),
    ],
)
def test_plans_of_something_else_are_refused(
    bundle: Bundle, changes: dict[str, Any], says: str
) -> None:
    write_plans(bundle, key_of(bundle, **changes), OLD, {})

    with pytest.raises(PlanError, match=says):
        answers(bundle)


def test_another_batch_is_refused(bundle: Bundle) -> None:
    write_plans(bundle, key_of(bundle), OLD, {})

    with pytest.raises(PlanError, match="batches up to 2, but 4 is wanted"):
        read_plans(bundle, ORIN, precision="fp32", max_batch=4)


@pytest.mark.parametrize("graph", ["encoder", "head"])
@pytest.mark.parametrize("change", ["a bit", "shorter", "longer", "gone", "link"])
def test_a_plan_that_was_changed_is_never_handed_out(
    bundle: Bundle, graph: str, change: str
) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    (plan,) = folder.glob(f"{graph}-*.plan")
    data = plan.read_bytes()
    if change in ("gone", "link"):
        plan.unlink()
    if change == "link":
        other = folder.parent / "elsewhere.plan"
        other.write_bytes(data)
        plan.symlink_to(other)
    changed = {
        "a bit": bytes([data[0] ^ 1]) + data[1:],
        "shorter": data[:-1],
        "longer": data + b"!",
    }
    if change in changed:
        plan.write_bytes(changed[change])

    with pytest.raises(PlanError, match=r"build (the plans )?again: fundus-export engine"):
        answers(bundle)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    report = json.loads((folder / "report.json").read_text("utf-8"))
    change(report)
    (folder / "report.json").write_text(json.dumps(report), "utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report.update(format="something else"),
        lambda report: report.update(schema_version=2),
        lambda report: report.pop("plans"),
        lambda report: report["key"].pop("device"),
        lambda report: report["key"].update(unknown=1),
        lambda report: report["key"].update(max_batch=True),
        lambda report: report["key"]["device"].update(gpu=7),
        lambda report: report["plans"]["head"].update(file="../head-0123456789abcdef.plan"),
        lambda report: report["plans"]["head"].update(sha256="0" * 64),
        lambda report: report["plans"]["head"].update(bytes="many"),
        lambda report: report["graphs"].update(encoder="0" * 64),
        lambda report: report["key"].update(dialect="fp16"),
    ],
)
def test_a_report_that_was_changed_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    edit(folder, change)

    with pytest.raises(PlanError):
        answers(bundle)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\udc80"])
def test_a_report_that_is_none_is_refused(bundle: Bundle, text: str) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    (folder / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(PlanError):
        answers(bundle)


def test_a_broken_folder_hides_no_other(bundle: Bundle) -> None:
    write_plans(bundle, key_of(bundle), OLD, {})
    broken = plans_folder(bundle) / "broken"
    broken.mkdir()
    (broken / "report.json").write_text("{", "utf-8")

    assert answers(bundle) == OLD


class Interruptions:
    """Makes the n-th call of what writes to a disk fail; counts the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self._error = error
        self._at: int | None = None
        self.calls = 0
        for owner, name in (
            (os, "fsync"),
            (os, "open"),
            (Path, "mkdir"),
            (Path, "open"),
            (Path, "replace"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))
        monkeypatch.setattr(plan_writer.json, "dump", self._counted(json.dump))

    @contextmanager
    def at(self, call: int | None) -> Iterator[None]:
        self._at, self.calls = call, 0
        try:
            yield
        finally:
            self._at = None

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if self._at is not None:
                self.calls += 1
                if self.calls == self._at:
                    raise self._error
            return function(*arguments, **named)

        return counted


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [DISK_FULL, KeyboardInterrupt()], ids=["disk full", "Ctrl-C"])
@pytest.mark.parametrize("before", [True, False], ids=["with plans", "without"])
def test_whatever_interrupts_the_writing_the_previous_plans_work(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, error: BaseException, before: bool
) -> None:
    interruptions = Interruptions(monkeypatch, error)
    with interruptions.at(-1):
        write_plans(bundle, key_of(bundle), NEW, {})
        steps = interruptions.calls
    assert steps >= 8  # two plans and a report are opened, flushed and renamed

    for step in range(1, steps + 1):
        shutil.rmtree(plans_folder(bundle))
        if before:
            write_plans(bundle, key_of(bundle), OLD, {})
        # a few of the steps may fail without harm, such as flushing the folder
        with suppress(PlanError, KeyboardInterrupt), interruptions.at(step):
            write_plans(bundle, key_of(bundle), NEW, {})
        if before or any(plans_folder(bundle).rglob("report.json")):
            assert answers(bundle) in (OLD, NEW)
        plans_folder(bundle).mkdir(exist_ok=True)


@pytest.mark.parametrize("step", ["plan", "report"])
def test_a_full_disk_is_told_and_leaves_nothing_new(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    files = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise DISK_FULL

    monkeypatch.setattr(plan_writer, "_place" if step == "plan" else "atomic_text", full)
    with pytest.raises(PlanError, match=r"No space left.*the previous ones are as they were"):
        write_plans(bundle, key_of(bundle), NEW, {})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the size of files that this process writes, as a disk does that fills."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 5, len(NEW["head"]), len(NEW["encoder"]), 400])
def test_a_disk_that_fills_within_a_file_costs_nothing(bundle: Bundle, size: int) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    files = sorted(file.name for file in folder.iterdir())

    with pytest.raises(PlanError, match="cannot be written"), largest_file(size):
        write_plans(bundle, key_of(bundle), NEW, {})
    assert sorted(file.name for file in folder.iterdir()) == files
    assert answers(bundle) == OLD


def test_leftovers_of_a_killed_writer_are_removed(bundle: Bundle) -> None:
    folder = write_plans(bundle, key_of(bundle), OLD, {})
    (folder / ".encoder-0123456789abcdef.plan.partial").write_bytes(b"half")
    (folder / "encoder-0123456789abcdef.plan").write_bytes(b"whole, but never reported")
    assert answers(bundle) == OLD

    write_plans(bundle, key_of(bundle), NEW, {})
    assert len(list(folder.iterdir())) == 3


def test_a_key_survives_json_and_keys_have_folders_of_their_own(bundle: Bundle) -> None:
    keys = [
        key_of(bundle),
        key_of(bundle, device=replace(ORIN, gpu="Orin (Nano)")),
        key_of(bundle, device=replace(ORIN, gpu="Orin -Nano-")),
        key_of(bundle, bundle_sha256="f" * 64),
        key_of(bundle, max_batch=3),
        key_of(bundle, dialect="fp16"),
    ]
    assert [PlanKey.from_dict(json.loads(json.dumps(key.to_dict()))) for key in keys] == keys
    assert len({key.folder_name for key in keys}) == len(keys)
    assert all(re.fullmatch(r"[\w.-]+", key.folder_name, re.ASCII) for key in keys)
