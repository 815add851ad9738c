"""Packages that are called as functions: `worldsim.collect(...)`, though `worldsim.collect` is one.

Importing any module of a package binds the package's name in `worldsim`, over whatever was there;
so the package itself must be what is called.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(package: str, home: str) -> None:
    """Let the package, an imported one, be called: it calls the function of its own last name in
    its module `home` (".home" for one beside the package), which is imported then."""

    class Called(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            module = import_module(f".{home}", package)
            return getattr(module, package.rpartition(".")[2])(*args, **kwargs)

    sys.modules[package].__class__ = Called
