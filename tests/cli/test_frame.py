"""The command line's frame: fast help, one sentence an error, exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worldsim.cli import frame
from worldsim.cli.extras import EXTRAS, missing_module
from worldsim.cli.frame import VERBS, Verb, explained, function_of, main
from worldsim.core import WorldError


def raising(error: BaseException) -> Verb:
    """A verb whose function raises, put where the frame looks for functions."""

    def verb() -> None:
        """Fail."""
        raise error

    frame.failing = verb  # type: ignore[attr-defined]
    return Verb("frame.failing", "fails", "Help")


def test_help_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys; from worldsim.cli import main; assert main(['--help']) == 0; "
        "assert not {'torch', 'tyro', 'fastapi'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_tells_its_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: worldsim {name}") and function_of(VERBS[name]).__doc__


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (WorldError("size: expected 8, got 7"), 2, "error: size: expected 8, got 7\n"),
        (FileNotFoundError(2, "No such file or directory", "data/x"), 2, "error: data/x: no such"),
        (ModuleNotFoundError("no", name="uvicorn"), 2, "error: uvicorn is not installed: pip ins"),
        (FloatingPointError("loss is not finite"), 2, "error: loss is not finite\n"),
        (PermissionError(13, "Permission denied", "a\x1b[2J"), 2, "error: a\\x1b[2J: permission"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_is_one_sentence(
    error: BaseException,
    code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(VERBS, "fail", raising(error))
    assert main(["fail"]) == code
    told = capsys.readouterr().err
    assert told.startswith(sentence) and told.count("\n") == 1


def test_a_traceback_with_debug_and_for_faults_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(VERBS, "fail", raising(WorldError("chunk: expected 2")))
    assert main(["fail", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setitem(VERBS, "fail", raising(ZeroDivisionError()))
    assert main(["fail"]) == 1 and "Traceback" in capsys.readouterr().err


def test_unknown_verbs_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["colect"]) == 2
    assert "did you mean collect?" in capsys.readouterr().err
    assert main(["info", "car-racing", "--no-such-flag"]) == 2
    assert main(["--version"]) == 0


def test_extras_exist(root: Path) -> None:
    import tomllib

    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= set(extras["optional-dependencies"])
    assert missing_module(ModuleNotFoundError("no", name="Box2D.b2")) is not None
    assert missing_module(ModuleNotFoundError("no", name="worldsim.nothing")) is None
    assert explained(ZeroDivisionError()) is None


def heed_interrupts() -> None:
    """A shell's background commands ignore Ctrl-C, and so does what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("words", "sign"),
    [
        ("play pendulum --no-browser", "Ctrl-C ends it"),
        ("collect tests.collect.fakes:make --episodes 90 --workers 2 --size 8 16 --folder", "0%"),
    ],
)
def test_ctrl_c_is_one_line_and_its_own_code(
    words: str, sign: str, tmp_path: Path, root: Path
) -> None:
    """A terminal sends it to every process of the command, those that have just begun too."""
    folder = [str(tmp_path / "data")] * words.endswith("--folder")
    command = [sys.executable, "-m", "worldsim", *words.split(), *folder]
    told = tmp_path / "told"
    with told.open("w") as file:
        process = subprocess.Popen(command, cwd=root, stdout=file, stderr=file, process_group=0,
                                   preexec_fn=heed_interrupts)  # fmt: skip
    try:
        while sign not in told.read_text() and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    lines = told.read_text().replace("\r", "\n").splitlines()
    assert "interrupted" in lines and "Traceback" not in told.read_text()
