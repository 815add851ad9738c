"""A light share of what `python -m tests.reliability.nightly.exact --full` checks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reliability.exact import batches, isolation, mistakes, programs, restore
from tests.reliability.exact.streams import FACES, digests

TINY = pytest.param("tiny", marks=pytest.mark.nightly)  # a network: seconds


@pytest.mark.parametrize("name", ["point", TINY])
def test_the_same_seed_is_the_same_life_through_every_face(name: str) -> None:
    """And another seed is another one, under the same actions."""
    lives = [
        digests(face, name, range(3), 12, observation="frame", micro_batch=2) for face in FACES
    ]
    assert lives[0] == lives[1] == lives[2]
    assert len(set(lives[0])) == 3


@pytest.mark.nightly
def test_and_in_a_process_of_its_own(root: Path) -> None:
    code = (
        "import json, torch; torch.set_num_threads(1); "
        "from tests.reliability.exact.streams import digests;"
        "print(json.dumps([digests(f, 'tiny', range(2), 8) for f in ('gym', 'vector')]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    here = [digests(face, "tiny", range(2), 8) for face in ("gym", "vector")]
    assert json.loads(done.stdout) == here


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["point", "tiny"])
def test_saved_at_any_moment_the_future_repeats(name: str, tmp_path: Path) -> None:
    wrong = [differ for differ in restore.run(12, name, tmp_path, 12) if differ]
    assert not wrong


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_a_row_does_not_know_its_neighbours(case: int) -> None:
    assert isolation.differ("point", case) == []


@pytest.mark.nightly
def test_nor_where_a_network_computes() -> None:
    assert [isolation.differ("tiny", case) for case in range(12)] == [[]] * 12


@pytest.mark.parametrize(
    ("name", "rows"),
    [pytest.param("tiny", 8, marks=pytest.mark.nightly), ("tiny", 3), ("point", 8)],
)
def test_micro_batches_do_not_know_the_batch(name: str, rows: int) -> None:
    assert batches.differing_bits(name, rows, 2, 16) == 0


def test_and_the_measure_of_it_sees_a_bit() -> None:
    a = torch.zeros(3)
    b = torch.tensor([0.0, -0.0, 0.0])
    assert batches.bits_that_differ(a, b) == 1 and batches.bits_that_differ(a, a) == 0


def test_batches_as_they_come_are_close() -> None:
    assert batches.drift("tiny", 4, 16)["latent_one_step"] <= 1e-5


@pytest.mark.parametrize(
    "share", [0, *(pytest.param(n, marks=pytest.mark.nightly) for n in range(1, 8))]
)
def test_programs_against_plain_python(share: int) -> None:
    for seed in range(share * 30, (share + 1) * 30):
        programs.run(seed)


def test_every_mistake_is_named_and_changes_nothing() -> None:
    cases = list(mistakes.cases())
    assert len(cases) >= 300
    assert [told for case in cases if (told := mistakes.wrong(case))] == []
