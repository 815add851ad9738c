"""The faults of `python -m tests.reliability.mutants` can still be planted."""

import ast
from pathlib import Path

import pytest

from tests.reliability.mutants.faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_exactly_one_place(fault: Fault, root: Path) -> None:
    source = (root / fault.file).read_text()
    assert source.count(fault.old) == 1, f"{fault.file}: {fault.old!r}"
    planted = source.replace(fault.old, fault.new)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(source))
    assert (root / fault.tests.partition("::")[0]).is_file()


def test_they_are_many_and_everywhere() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    rooms = {fault.file.rpartition("/")[0] for fault in FAULTS}
    assert rooms >= {"worldsim", "worldsim/diffusion", "worldsim/models", "envs"}
