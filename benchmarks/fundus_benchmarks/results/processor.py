"""Which processor a machine really has: hosts often call many of them by one name.

`AMD EPYC` says nothing of the generation, and an Arm board gives no name at all. Times of two
processors are times of two machines, whatever these call themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

__all__ = ["PROCESSOR", "is_same_processor", "may_be_same_processor", "processor_identity"]

# The key in a part's `machine`; parts that were measured without it do not have it.
PROCESSOR = "processor_identity"

_CPUINFO = Path("/proc/cpuinfo")
# What Linux on x86 and on Arm lists for each CPU, and how it is said.
_X86 = (
    ("vendor_id", "{}"),
    ("cpu family", "family {}"),
    ("model", "model {}"),
    ("stepping", "stepping {}"),
)
_ARM = (
    ("CPU implementer", "implementer {}"),
    ("CPU part", "part {}"),
    ("CPU variant", "variant {}"),
    ("CPU revision", "revision {}"),
)


def processor_identity(cpuinfo: Path = _CPUINFO) -> str | None:
    """The kinds of cores, for example `AuthenticAMD family 25 model 17 stepping 1`.

    Args:
        cpuinfo: as Linux writes it.

    Returns:
        None where the host does not tell; several kinds, such as a board's large and small cores,
        with commas between them.
    """
    try:
        text = cpuinfo.read_text("utf-8", "replace")
    except OSError:
        return None
    kinds = (_kind(core) for core in _cores(text.splitlines()))
    return ", ".join(sorted({kind for kind in kinds if kind is not None})) or None


def is_same_processor(one: str | None, other: str | None) -> bool:
    """Whether two identities are known, and of the same processor."""
    return one is not None and one == other


def may_be_same_processor(one: str | None, other: str | None) -> bool:
    """Whether two identities are of the same processor, as far as both are known."""
    return one is None or other is None or one == other


def _cores(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    core: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "processor" and core:
            yield core
            core = {}
        core.setdefault(name.strip(), value.strip())
    yield core


def _kind(core: Mapping[str, str]) -> str | None:
    """Vendor and numbers; None where the first two are not told."""
    for names in (_X86, _ARM):
        if all(core.get(name) for name, _ in names[:2]):
            return " ".join(form.format(core[name]) for name, form in names if core.get(name))
    return None
