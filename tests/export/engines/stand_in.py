"""A recording stand-in for TensorRT. It is no TensorRT: it builds nothing and measures nothing.

Its classes are made from `api/<version>.json`, so that they have exactly the attributes, argument
names and enum members of that version's bindings; anything else is an AttributeError, as with the
bindings. Every use is logged. What the classes do is in `stand_in_play.py`. What it cannot show:
what TensorRT chooses, and whether a real engine answers as it should.
"""

from __future__ import annotations

import enum
import json
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

API = Path(__file__).with_name("api")

Behaviours = Mapping[str, Callable[..., Any]]
VERSIONS = tuple(
    sorted((file.stem for file in API.glob("*.json")), key=lambda v: [*map(int, v.split("."))])
)


def record_of(version: str) -> dict[str, Any]:
    """What the bindings of a version offer."""
    return dict(json.loads((API / f"{version}.json").read_text("utf-8")))


@dataclass
class World:
    """What happens to the one who uses the stand-in.

    Attributes:
        gpu: whether there is a driver and a GPU.
        complaints: what the parser says: node's index, name, operator, words.
        takes_cache: whether a timing cache is of this device.
        builds: whether a build ends in a plan.
        overrides: precisions that products run in against the graph's, by node.
        hides: products that the inspector says nothing of.
        details: whether the inspector tells more than names.
        during_build: called at each step of a build.
        recorded: what is put on a stream that captures; None while none does.
    """

    gpu: bool = True
    complaints: list[tuple[int, str, str, str]] = field(default_factory=list)
    takes_cache: bool = True
    builds: bool = True
    overrides: dict[str, str] = field(default_factory=dict)
    hides: set[str] = field(default_factory=set)
    details: bool = True
    during_build: Callable[[], None] = lambda: None
    recorded: list[Callable[[], Any]] | None = None
    log: list[str] = field(default_factory=list)
    configs: list[Any] = field(default_factory=list)


class Thing:
    """Base of every class of the stand-in; `_kind` is its name, `_trt` the module."""

    _kind = ""
    _trt: StandIn

    def __setattr__(self, name: str, value: Any) -> None:
        own = "_kind" in vars(type(self))  # Python's subclasses of the bindings' take any name
        if own and not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{self._kind} of {self._trt.__version__} has no {name}")
        object.__setattr__(self, name, value)


class StandIn(types.ModuleType):
    """The module `tensorrt` of one version."""

    def __init__(self, version: str, world: World, behaviours: Behaviours) -> None:
        super().__init__("tensorrt")
        self._behaviours = behaviours
        recorded = record_of(version)
        self.__version__ = version
        self._world = world
        self._names = frozenset(recorded["module"])
        for name, members in recorded["enums"].items():
            setattr(self, name, _enum(name, members))
        for name, attributes in recorded["classes"].items():
            setattr(self, name, _class(self, name, attributes))

    def __getattr__(self, name: str) -> Any:
        """Names that the bindings have and the stand-in does not play are told apart."""
        if name in self.__dict__.get("_names", ()):
            raise NotImplementedError(f"the stand-in does not play tensorrt.{name}")
        raise AttributeError(f"module 'tensorrt' has no attribute {name!r}")

    def make(self, kind: str, **state: Any) -> Any:
        """An object of a class that the user does not construct."""
        made = object.__new__(getattr(self, kind))
        for name, value in state.items():
            object.__setattr__(made, f"_{name}", value)
        return made


def _enum(name: str, members: Mapping[str, int]) -> type[enum.Enum]:
    # as with the bindings, a member is no number until it is asked for one
    return enum.Enum(name, dict(members), type=Member)


class Member:
    value: int

    def __int__(self) -> int:
        return int(self.value)


def _class(trt: StandIn, kind: str, attributes: Mapping[str, str]) -> type:
    namespace: dict[str, Any] = {"_kind": kind, "_trt": trt}
    for name, signature in attributes.items():
        if name == "__init__":
            continue
        if signature.startswith("property"):
            namespace[name] = _property(trt, kind, name, writable="read only" not in signature)
        else:
            namespace[name] = _method(trt, kind, name, signature)
    namespace["__init__"] = _constructor(trt, kind, attributes.get("__init__", ""))
    if kind == "IHostMemory":
        namespace["__bytes__"] = lambda self: self._data
    return type(kind, (Thing,), namespace)


def _constructor(trt: StandIn, kind: str, signature: str) -> Callable[..., None]:
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        trt._world.log.append(kind)
        _check_call(kind, signature, arguments, named)
        if (behaviour := trt._behaviours.get(f"{kind}.__init__")) is not None:
            behaviour(self, *arguments, **named)

    return init


def _method(trt: StandIn, kind: str, name: str, signature: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        trt._world.log.append(f"{kind}.{name}")
        _check_call(f"{kind}.{name}", signature, arguments, named)
        try:
            behaviour = trt._behaviours[f"{kind}.{name}"]
        except KeyError:
            raise NotImplementedError(f"the stand-in does not play {kind}.{name}") from None
        return behaviour(self, *arguments, **named)

    return method


def _property(trt: StandIn, kind: str, name: str, *, writable: bool) -> property:
    def get(self: Any) -> Any:
        trt._world.log.append(f"{kind}.{name}")
        if (behaviour := trt._behaviours.get(f"{kind}.{name}")) is not None:
            return behaviour(self)
        return self.__dict__.get(f"_{name}")

    def put(self: Any, value: Any) -> None:
        trt._world.log.append(f"{kind}.{name} =")
        object.__setattr__(self, f"_{name}", value)

    return property(get, put if writable else None)


def _check_call(
    what: str, signature: str, arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    """The arguments must fit the signature that was recorded, where one was."""
    forms = [
        [part.split(":")[0].strip() for part in found.group(1).split(", ")][1:]
        for form in signature.split(" | ")
        if (found := re.search(r"\((self.*)\) ->", form))
    ]
    if forms and not any(_fits(form, arguments, named) for form in forms):
        raise TypeError(f"{what}: {arguments} {dict(named)} do not fit {signature}")


def _fits(form: list[str], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    return len(arguments) + len(named) <= len(form) and set(named) <= set(form[len(arguments) :])
