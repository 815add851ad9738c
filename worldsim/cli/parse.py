"""Flags to a call; what the parser says of flags that do not fit becomes one sentence."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from typing import Any

import tyro

from worldsim.errors import WorldError
from worldsim.flags import refuse_repeated

RULE = re.compile(r"^[\s\-─━╭╮╰╯┌┐└┘│|]*$")


def parsed(
    function: Callable[..., Any], words: Sequence[str], prog: str, several: Iterable[str] = ()
) -> Callable[[], Any]:
    """The call that the words ask for; `several` names flags that may be given more than once.

    Raises WorldError where they do not fit, SystemExit with code 0 after `--help`.
    """
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            given = refuse_repeated(words, several=several)
            config = (tyro.conf.PositionalMetavarFromFieldName,)
            call = tyro.cli(_deferred(function), args=given, prog=prog, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise WorldError(f"{sentence(told.getvalue())}; see {prog} --help") from None
    sys.stderr.write(told.getvalue())
    return call


def sentence(told: str) -> str:
    """What stands in tyro's box, without the box, its title and what it would say at length."""
    parts, part = [], []
    lines = told.strip("\n").splitlines()
    for line in [*lines[len(lines) > 1 :], ""]:  # the box's first line is its title
        if RULE.match(line):
            parts, part = parts + [" ".join(part)] * bool(part), []
        else:
            part.append(" ".join(line.strip(" │|").split()))
    body = [p for p in parts if not p.startswith("For full helptext")]
    text = re.sub(r"\s*\((?:required|default: [^)]*)\)", "", "; ".join(body)).rstrip(". ")
    close = re.search(r"(?:Perhaps you meant|Arguments similar to [^:]*):.*?(--[\w.-]+)", text)
    if close:
        text = f"{text[: close.start()].rstrip('; ')}; did you mean {close[1]}?"
    return text[:1].lower() + text[1:]


def _deferred(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same flags; a call of it is the call to be made later."""

    @wraps(function)
    def later(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return partial(function, *args, **kwargs)

    return later
