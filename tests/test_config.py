"""Config is data: what goes out comes back, and everything else is refused by name."""

import json
import time
from dataclasses import dataclass
from math import inf, nan
from typing import Any, Literal

import pytest

from worldsim.config import ConfigError, from_json, parse_json, to_json
from worldsim.core import WorldError


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if 100 // self.width < 0:
            raise ValueError(f"width: expected 1 or more, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    on: bool
    kind: Literal["a", "b"]
    inner: Inner
    sides: tuple[int, int] = (1, 2)
    low: tuple[float, ...] = ()
    parts: tuple[Inner, ...] = ()
    note: str | None = None
    other: Inner | None = None


FULL = Outer(
    name="x",
    on=True,
    kind="b",
    inner=Inner(width=3, scale=1e-3),
    sides=(8, 9),
    low=(-1.0, 0.1),
    parts=(Inner(width=1), Inner(width=2)),
    other=Inner(width=7),
)


def data(**changes: Any) -> dict[str, Any]:
    return {**to_json(FULL), **changes}


@pytest.mark.parametrize("config", [FULL, Outer(name="", on=False, kind="a", inner=Inner(width=1))])
def test_what_goes_out_comes_back(config: Outer) -> None:
    text = json.dumps(to_json(config))
    assert from_json(Outer, parse_json(text, "config")) == config


def test_an_int_is_a_fine_float() -> None:
    scale = from_json(Inner, {"width": 1, "scale": 2}).scale
    assert scale == 2.0 and type(scale) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"naem": 1}, r"config: unknown key 'naem', expected \['name', .*did you mean 'name'\?"),
        ({"zzz": 1}, r"config: unknown key 'zzz', expected \['name', .*\]$"),
        ({"name": 1}, r"config\.name: expected str, got 1"),
        ({"on": 1}, r"config\.on: expected bool, got 1"),
        ({"kind": "c"}, r"config\.kind: expected one of \['a', 'b'\], got 'c'"),
        ({"kind": []}, r"config\.kind: expected one of"),
        ({"note": 3}, r"config\.note: expected str, got 3"),
        ({"inner": 3}, r"config\.inner: expected an object with keys \['width', 'scale'\], got 3"),
        ({"inner": {"width": 3}}, r"config\.inner: missing keys \['scale'\]"),
        ({"inner": {"width": True, "scale": 1.0}}, r"config\.inner\.width: expected int, got True"),
        ({"inner": {"width": 1.0, "scale": 1.0}}, r"config\.inner\.width: expected int, got 1\.0"),
        ({"inner": {"width": -1, "scale": 1.0}}, r"config\.inner: width: expected 1 or more"),
        ({"inner": {"width": 0, "scale": 1.0}}, r"config\.inner: .*by zero"),
        ({"inner": {"width": 1, "scale": True}}, r"config\.inner\.scale: expected a finite float"),
        ({"inner": {"width": 1, "scale": inf}}, r"config\.inner\.scale: expected a finite float"),
        ({"inner": {"width": 1, "scale": 10**400}}, r"inner\.scale: expected a finite float"),
        ({"inner": {"width": 1, "scale": None}}, r"inner\.scale: expected a finite float"),
        ({"sides": [1]}, r"config\.sides: expected a list of 2, got \[1\]"),
        ({"sides": "ab"}, r"config\.sides: expected a list of 2, got 'ab'"),
        ({"low": [0.0, "x"]}, r"config\.low\[1\]: expected a finite float, got 'x'"),
        ({"low": {}}, r"config\.low: expected a list, got {}"),
        ({"parts": [{"width": 1, "scale": 1.0, "x": 0}]}, r"config\.parts\[0\]: unknown key 'x'"),
        ({"other": []}, r"config\.other: expected an object"),
        ({"note": None, "name": None}, r"config\.name: expected str, got None"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(Outer, data(**changes))


def test_a_missing_key_is_named_even_where_it_has_a_default() -> None:
    short = data()
    del short["sides"], short["name"]
    with pytest.raises(WorldError, match=r"^vae: missing keys \['name', 'sides'\]"):
        from_json(Outer, short, "vae")


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', "[NaN]", "[Infinity]", "{", "", b"\xff{}",
     "[" * 100_000, "[" + "9" * 5000 + "]"],
)  # fmt: skip
def test_only_strict_json_is_parsed(text: str | bytes) -> None:
    with pytest.raises(ConfigError, match="^card: expected JSON, got ") as caught:
        parse_json(text, "card")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [nan, inf, [1], {"a": 1}, {1}, Inner, b"x"])
def test_only_what_comes_back_goes_out(value: Any) -> None:
    config = Outer(name="x", on=True, kind="a", inner=Inner(width=1), note=value)
    with pytest.raises(ConfigError, match=r"^config\.note: expected a finite number"):
        to_json(config)


def test_refusing_costs_no_more_than_reading() -> None:
    """One repeated key among many, and a long list of small objects: linear, not quadratic."""
    keys = ", ".join(f'"k{i}": 1' for i in range(60_000))
    start = time.process_time()
    with pytest.raises(ConfigError, match="repeated key 'k59999'"):
        parse_json(f'{{{keys}, "k59999": 2}}', "config")
    many = [{"width": 1, "scale": 1.0}] * 60_000 + [{"width": 1, "scale": "x"}]
    with pytest.raises(ConfigError, match=r"parts\[60000\]\.scale"):
        from_json(Outer, data(parts=many))
    assert time.process_time() - start < 2


def test_keywords_are_any_json_object() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Free:
        kwargs: dict[str, Any]

    free = Free(kwargs={"a": [1, {"b": None}], "c": 0.5})
    assert from_json(Free, parse_json(json.dumps(to_json(free)), "free")) == free
    with pytest.raises(ConfigError, match=r"config\.kwargs: expected an object, got \[\]"):
        from_json(Free, {"kwargs": []})
    with pytest.raises(ConfigError, match="beyond all floats"):
        parse_json('{"kwargs": {"a": 1e999}}', "config")
