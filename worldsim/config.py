"""Config is data: closed frozen dataclasses to JSON and back.

Closed means that every key must be known and none may be missing, also where a field has a default:
a default that changes later must not change a world that was saved before. Fields marked
`worldsim.fields.ABSENT` alone are left out where they have their default, which means "without": so
worlds from before there was such a part say the same as ever. Nothing in the JSON can name a class
or run code; bounds are held by the dataclasses' own `__post_init__`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from sys import float_info
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from worldsim.core import WorldError
from worldsim.files import plain_lines, read_bytes

T = TypeVar("T")
MOST_BYTES = 2**24  # of a file of JSON, unless who reads it says
MOST_TORN = 10_000  # lines of a log: each was cut short by a kill
MOST_VALUES = 2**19  # in one text: an empty object takes 24 times the memory of its two characters
SCALARS = (bool, int, float, str, NoneType)
FLOAT_MAX = float_info.max
KEYWORDS = dict[str, Any]  # a field of free keywords, of which JSON alone says what they can be


class ConfigError(WorldError):
    """A config does not fit its dataclass: names the field's path, what was expected and got."""


def to_json(config: Any, path: str = "config") -> Any:
    """The JSON value of a dataclass of numbers, strings, None, tuples, dicts and dataclasses.

    Raises ConfigError for any other value and for numbers that are not finite (JSON has none).
    """
    if is_dataclass(config) and not isinstance(config, type):
        types, absent = _field_types(type(config)), _may_be_absent(type(config))
        return {
            name: _plain(getattr(config, name), f"{path}.{name}", free=kind == KEYWORDS)
            for name, kind in types.items()
            if name not in absent or getattr(config, name) != absent[name]
        }
    return _plain(config, path, free=False)


def _plain(config: Any, path: str, *, free: bool) -> Any:
    """`to_json` of a value; lists and dicts are JSON's own, and `free` only in keywords."""
    if is_dataclass(config) and not isinstance(config, type):
        return to_json(config, path)
    if isinstance(config, tuple) or (free and isinstance(config, list)):
        return [_plain(item, f"{path}[{i}]", free=free) for i, item in enumerate(config)]
    if free and isinstance(config, dict) and all(isinstance(name, str) for name in config):
        return {name: _plain(item, f"{path}.{name}", free=free) for name, item in config.items()}
    if type(config) not in SCALARS or (isinstance(config, float) and not isfinite(config)):
        raise ConfigError(
            f"{path}: expected a finite number, str, None, tuple or dataclass, got {short(config)}"
        )
    return config


def from_json(cls: type[T], data: Any, path: str = "config") -> T:
    """The `cls` that `to_json` wrote as `data`; `path` names it in errors.

    Raises ConfigError for unknown or missing keys, wrong types (a bool is no int; an int is a fine
    float), numbers that are not finite, and whatever the dataclass itself refuses.
    """
    types = _field_types(cls)
    _check_keys(data, list(types), path, _may_be_absent(cls))
    values = {
        name: value_from_json(kind, data[name], f"{path}.{name}")
        for name, kind in types.items()
        if name in data
    }
    try:
        return cls(**values)
    except (ArithmeticError, AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


@cache
def _field_types(cls: type) -> dict[str, Any]:
    """A dataclass' fields and their annotations; looked up once, as lists hold many of a kind."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


@cache
def _may_be_absent(cls: type) -> dict[str, Any]:
    """Defaults of the fields that JSON leaves out where they have them."""
    return {f.name: f.default for f in fields(cls) if f.metadata.get("absent")}


def parse_json(text: str | bytes, path: str) -> Any:
    """Strict JSON: no repeated keys, no NaN or Infinity, UTF-8; raises ConfigError.

    Texts of more than `MOST_VALUES` values are refused before any of them is made.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        if sum(map(text.count, "[{,")) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: expected JSON, got {short(text, 40)}: {error}") from error


def read_json(path: Path | str, most: int = MOST_BYTES) -> Any:
    """The JSON in a plain file of at most `most` bytes; raises ConfigError that names the file."""
    try:
        data = read_bytes(Path(path), most)
    except OSError as error:
        raise ConfigError(f"{path}: expected JSON, got {error.strerror or error}") from error
    return parse_json(data, str(path))


def read_json_lines(path: Path | str, most: int = MOST_BYTES) -> Iterator[dict[str, Any]]:
    """The objects of a log, one a line; lines that are torn or are none are left out.

    No file is an empty log. Raises ConfigError for what is no plain file, or is larger than `most`
    bytes, or has more or longer lines than a log has.
    """
    try:
        if not Path(path).exists():
            return
        torn = 0
        for line in filter(bytes.strip, plain_lines(Path(path), most)):
            try:
                value = json.loads(line)
            except (RecursionError, ValueError):
                value, torn = None, torn + 1
            if torn > MOST_TORN:
                raise ConfigError(f"{path}: expected a log, got {torn} lines that are none")
            if isinstance(value, dict):
                yield value
    except OSError as error:
        raise ConfigError(f"{path}: expected a log, got {error.strerror or error}") from error


def logged_number(line: dict[str, Any], name: str) -> float | None:
    """A number of a log's line as a float; None where it has none, or not a finite one."""
    value = line.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < FLOAT_MAX else None  # NaN is not below


def short(value: object, limit: int = 120) -> str:
    """`repr(value)`, cut to `limit` characters: what came from outside may be long or deep."""
    try:
        text = repr(value[:limit] if isinstance(value, str | bytes) else value)
    except RecursionError:
        text = f"a {type(value).__name__} within many others"
    return text if len(text) <= limit else f"{text[:limit]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"repeated key {short(name)}")
        result[name] = value
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{short(text)} is beyond all floats")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _check_keys(data: Any, known: list[str], path: str, absent: Collection[str] = ()) -> None:
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected an object with keys {known}, got {short(data)}")
    for key in data:
        if key not in known:
            close = difflib.get_close_matches(str(key)[:100], known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{path}: unknown key {short(key)}, expected {known}{hint}")
    missing = [name for name in known if name not in data and name not in absent]
    if missing:
        got = short(list(data))
        raise ConfigError(f"{path}: missing keys {missing}, expected {known}, got {got}")


def value_from_json(kind: Any, data: Any, path: str) -> Any:
    """`data` as a value of the annotation `kind`; raises ConfigError."""
    origin, args = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return from_json(kind, data, path)  # type: ignore[arg-type]
    if origin in (Union, UnionType):  # only "... or None": more would make the JSON ambiguous
        (other,) = (arg for arg in args if arg is not NoneType)
        return None if data is None else value_from_json(other, data, path)
    if origin is tuple:
        return _tuple(args, data, path)
    if kind is float:
        return _float(data, path)
    if kind == KEYWORDS:
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected an object, got {short(data)}")
        try:
            return _plain(data, path, free=True)
        except RecursionError as error:
            raise ConfigError(f"{path}: expected few lists within lists, got many") from error
    if origin is Literal:
        fits = any(type(data) is type(arg) and data == arg for arg in args)
    elif kind in SCALARS:
        fits = type(data) is kind
    else:
        raise TypeError(f"{path}: a config cannot hold {kind}")
    if not fits:
        expected = f"one of {list(args)}" if origin is Literal else kind.__name__
        raise ConfigError(f"{path}: expected {expected}, got {short(data)}")
    return data


def _float(data: Any, path: str) -> float:
    try:
        fits = type(data) in (int, float) and isfinite(data)
    except OverflowError:  # an int beyond all floats
        fits = False
    if not fits:
        raise ConfigError(f"{path}: expected a finite float, got {short(data)}")
    return float(data)


def _tuple(args: tuple[Any, ...], data: Any, path: str) -> tuple[Any, ...]:
    count = None if args[-1:] == (Ellipsis,) else len(args)
    if not isinstance(data, list) or count not in (None, len(data)):
        expected = "a list" if count is None else f"a list of {count}"
        raise ConfigError(f"{path}: expected {expected}, got {short(data)}")
    kinds = [args[0]] * len(data) if count is None else list(args)
    return tuple(
        value_from_json(kind, item, f"{path}[{i}]")
        for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )
