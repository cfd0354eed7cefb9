"""What all tests share: the real photographs, a key that all of them trust and that signs their own
bundles, gates that let drawn eyes pass, and which tests this machine cannot run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings

import fundus_runtime
import fundus_runtime._native
from fundus_runtime.gate_choice import GATES_VARIABLE
from fundus_runtime.gates import GateThresholds
from fundus_runtime.signature import Signature, signed_message

# The same examples on every run and no deadline: a test must not fail because its machine is slow
# or its luck bad. HYPOTHESIS_PROFILE=explore looks for new counterexamples.
settings.register_profile(
    "fundus",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fundus"))


@pytest.fixture(scope="session")
def fundus_data() -> Path:
    """The folder with `odir/`, `eyepacs/` and `full_resolution/` that FUNDUS_DATA names."""
    name = os.environ.get("FUNDUS_DATA")
    if not name:
        pytest.skip("needs real photographs: FUNDUS_DATA names no folder")
    folder = Path(name).resolve()
    if not (folder / "odir").is_dir():
        pytest.fail(f"FUNDUS_DATA is {name!r}, which holds no folder odir/; correct or unset it")
    return folder


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key's file, its public half beside it."""
    key = Ed25519PrivateKey.generate()
    file = tmp_path_factory.mktemp("keys") / "tests"
    file.touch(0o600)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    file.with_name("tests.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return file


@pytest.fixture(scope="session", autouse=True)
def trusted_keys(signing_key: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The only folder of trusted keys, whatever this machine has; it holds the tests' key."""
    folder = tmp_path_factory.mktemp("trusted-keys")
    (folder / "tests.pub").write_bytes(signing_key.with_name("tests.pub").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUNDUS_TRUSTED_KEYS", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def lenient_gates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This machine's thresholds let drawn eyes pass, so that tests need no photographs."""
    file = tmp_path_factory.mktemp("gates") / "lenient.json"
    bounds = {field.name: -1e9 for field in fields(GateThresholds) if field.name != "min_same"}
    bounds |= {name: 1e9 for name in bounds if name.startswith("max_") or name == "min_side"}
    file.write_text(json.dumps(GateThresholds(**bounds).to_dict()), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GATES_VARIABLE, str(file))
        yield file


@pytest.fixture(scope="session")
def sign_bundle(signing_key: Path) -> Callable[..., Path]:
    """Signs a bundle's manifest as it is, with the tests' key or another one."""
    tests_key = serialization.load_pem_private_key(signing_key.read_bytes(), None)
    assert isinstance(tests_key, Ed25519PrivateKey)

    def sign(folder: Path, key: Ed25519PrivateKey = tests_key) -> Path:
        message = signed_message((folder / "manifest.json").read_bytes())
        signature = Signature(key.public_key().public_bytes_raw(), key.sign(message))
        (folder / "signature.json").write_bytes(signature.to_bytes())
        return folder

    return sign


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_gpu") and os.environ.get("FUNDUS_REQUIRE_GPU") != "1":
        pytest.skip("needs a GPU: FUNDUS_REQUIRE_GPU is not 1")


def pytest_configure() -> None:
    """Refuses the wrong install: FUNDUS_WHEEL_PREFIX names the environment that a wheel is in."""
    prefix = os.environ.get("FUNDUS_WHEEL_PREFIX")
    for module in (fundus_runtime, fundus_runtime._native) if prefix else ():
        origin = Path(str(module.__file__)).resolve()
        if not origin.is_relative_to(Path(str(prefix)).resolve()):
            raise pytest.UsageError(f"{module.__name__} comes from {origin}, not from {prefix}")
