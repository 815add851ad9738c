"""The frame of the command line: finds the verb, runs it, and turns errors into one sentence.

Each verb is one function in a file of its own, imported when it is called; its flags are the
function's parameters (tyro). So `worldsim --help` imports neither torch nor tyro.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from worldsim import __version__
from worldsim.errors import WorldError, printable

from .extras import missing_module

EXIT_FAULT, EXIT_ERROR, EXIT_INTERRUPTED = 1, 2, 130
FAULT = "a fault of worldsim's own; please report it with the lines above"
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        home: "module.function" inside this package.
        help: one line.
        group: heading in the list of verbs.
        several: flags that may be given more than once.
    """

    home: str
    help: str
    group: str
    several: tuple[str, ...] = ()


VERBS = {
    "collect": Verb(
        "collect.collect",
        "record episodes of a Gymnasium environment",
        "Data",
        ("--env-kwarg", "--wrapper"),
    ),
    "import": Verb("data.import_data", "copy recordings of others into our format", "Data"),
    "export": Verb("export.export", "write recordings or dreams as a data set", "Data"),
    "caption": Verb("caption.caption", "learn from some captions, label the rest", "Data"),
    "edit": Verb("edit.edit", "the same episodes, looking otherwise", "Data"),
    "label": Verb("label.label", "infer the actions of video, with a confidence", "Data"),
    "train": Verb(
        "train.train", "train a world on recorded video, all stages", "Worlds", ("--sizes",)
    ),
    "map-actions": Verb(
        "map_actions.map_actions", "real actions for a world on latent ones", "Worlds"
    ),
    "calibrate": Verb("calibrate.calibrate", "fit how far to trust a world's dreams", "Worlds"),
    "eval": Verb("evaluate.evaluate_world", "measure a world, write its card", "Worlds"),
    "push": Verb("push.push", "upload a world to the Hugging Face hub", "Worlds"),
    "info": Verb("info.info", "what a world is, and its card", "Worlds"),
    "play": Verb("play.play", "play a world in the browser", "Worlds"),
    "generate": Verb("generate.generate", "video from words, pictures and clips", "Worlds"),
    "demo": Verb("demo.demo", "film the real environment beside the dream", "Worlds"),
    "agent": Verb("agent.agent", "train an agent in the dream", "Agents"),
    "dyna": Verb("dyna.dyna", "act for real, learn from it, dream again: one round", "Agents"),
    "model-free": Verb("model_free.model_free", "train an agent without a world", "Agents"),
    "doctor": Verb("doctor.doctor", "what is installed and fast here, what to do next", "Help"),
    "cost": Verb("cost.cost", "what training, stepping and serving cost", "Help"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0, 2 for what the user can mend, 130 for Ctrl-C, 1 for a fault of ours.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        return _run(given)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `worldsim info x | head`: who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        sentence = explained(error)
        if debug or sentence is None:
            traceback.print_exc()
        print(f"error: {printable(sentence or FAULT)}", file=sys.stderr)
        return EXIT_FAULT if sentence is None else EXIT_ERROR


def explained(error: Exception) -> str | None:
    """One sentence for an error that a user can do something about, None for a fault of ours."""
    import gymnasium

    if isinstance(error, ImportError):
        return missing_module(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return where + error.strerror[:1].lower() + error.strerror[1:]
    if isinstance(error, WorldError | OSError | FloatingPointError | gymnasium.error.Error):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return "out of memory; take a smaller --preset, --size or batch, or another --device"
    return None


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if given[0] in ("-V", "--version"):
        print(f"worldsim {__version__}")
        return 0
    if given[0] in COMPLETION:
        return _complete(given)
    name, *rest = given
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(VERBS)}"
        raise WorldError(f"{name}: no such command; {hint}")
    from .parse import parsed

    verb = VERBS[name]
    try:
        call = parsed(function_of(verb), rest, f"worldsim {name}", verb.several)
    except SystemExit:  # --help
        return 0
    call()
    return 0


def function_of(verb: Verb) -> Callable[..., Any]:
    """Import the function behind a verb."""
    module, _, function = verb.home.rpartition(".")
    return getattr(import_module(f"{__package__}.{module}"), function)


def overview() -> str:
    """The list of verbs, grouped."""
    width = max(map(len, VERBS))
    lines = ["usage: worldsim COMMAND [--help] [FLAGS] [--debug]", ""]
    lines += ["Turns recorded video of a world into a simulator that agents can step through."]
    for group in dict.fromkeys(verb.group for verb in VERBS.values()):
        lines += ["", f"{group}:"]
        lines += [
            f"  {name:{width}}  {verb.help}" for name, verb in VERBS.items() if verb.group == group
        ]
    lines += ["", "worldsim COMMAND --help tells its flags; --debug shows where an error arose."]
    return "\n".join(lines)


def _complete(given: list[str]) -> int:
    """Shell completion, written by tyro from the flags of every verb."""
    from tyro.extras import subcommand_cli_from_dict

    functions = {name: function_of(verb) for name, verb in VERBS.items()}
    try:
        subcommand_cli_from_dict(functions, args=given, prog="worldsim")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_ERROR
    return 0
