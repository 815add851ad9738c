"""Command lines that torchrun passes on."""

import pytest
from torch.distributed.run import get_args_parser

from worldsim.cli.frame import VERBS, function_of


@pytest.mark.parametrize("verb", ["train", "export"])
def test_torchrun_leaves_our_flags_to_us(verb: str) -> None:
    """Its parser looks at all of a line for short forms of its own flags, ours included."""
    names = [
        name for name in function_of(VERBS[verb]).__annotations__ if name not in ("run", "return")
    ]
    flags = [f"--{name.replace('_', '-')}" for name in (*names, "run_folder")]
    given = get_args_parser().parse_args(["--nproc-per-node=2", "-m", "worldsim", verb, *flags])
    assert given.training_script_args == [verb, *flags]
