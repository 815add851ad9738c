"""The page's server over real sockets: its protocol, its bounds, whom it refuses."""
# pyright: reportArgumentType=false, reportIndexIssue=false

import io
import json
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn")
websockets = pytest.importorskip("websockets.sync.client")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from worldsim.core import WorldError  # noqa: E402
from worldsim.data.native import NativeDataset  # noqa: E402
from worldsim.play import server as module  # noqa: E402
from worldsim.play.handover import Company  # noqa: E402
from worldsim.play.server import MOST_SESSIONS, Server, serve  # noqa: E402
from worldsim.world.point import PointWorld  # noqa: E402


class Tab:
    """What a page does: a socket, questions, answers."""

    def __init__(self, address: str, session: str = "", **changes: Any) -> None:
        base, _, token = address.partition("/#")
        host = base.removeprefix("http://")
        options: dict[str, Any] = {"origin": base, "max_size": 2**22} | changes
        url = f"ws://{host}/play?token={options.pop('token', token)}&session={session}"
        self.socket = ExitStack().enter_context(websockets.connect(url, **options))
        self.world = json.loads(self.socket.recv(timeout=10))
        self.first = self.frame(self.socket.recv(timeout=10))

    @staticmethod
    def frame(data: Any) -> tuple[dict[str, Any], np.ndarray]:
        (size,) = struct.unpack_from("<I", data)
        picture = Image.open(io.BytesIO(data[4 + size :]))
        return json.loads(data[4 : 4 + size]), np.asarray(picture)

    def ask(self, kind: str, **fields: Any) -> Any:
        self.socket.send(json.dumps({"v": 1, "type": kind, "time": 17.5, **fields}))
        answer = self.socket.recv(timeout=10)
        return json.loads(answer) if isinstance(answer, str) else self.frame(answer)

    def step(self, *keys: str) -> tuple[dict[str, Any], np.ndarray]:
        return self.ask("step", keys=keys, action=None, driver="keys")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plays")


@pytest.fixture(scope="module")
def address(folder: Path) -> str:
    found: list[str] = []
    world = PointWorld(noise=0.01, time_limit=2000)
    threading.Thread(
        target=serve, args=(world, folder), kwargs={"ready": found.append}, daemon=True
    ).start()
    for _ in range(200):
        if found:
            break
        time.sleep(0.02)
    return found[0]


@pytest.fixture
def tab(address: str) -> Iterator[Tab]:
    tab = Tab(address)
    yield tab
    tab.socket.close()


def get(address: str, path: str, **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(address.partition("/#")[0] + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_the_page_and_its_headers(address: str) -> None:
    status, body, headers = get(address, "/")
    assert status == 200 and b'src="/page.js"' in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert get(address, "/page.js")[0] == get(address, "/page.css")[0] == 200
    for path in ("/nothing", "/../session.py", "/page.js/..", "/docs", "/openapi.json"):
        assert get(address, path)[0] == 404, path


def test_first_frame_and_a_key_changes_the_picture(tab: Tab) -> None:
    header, picture = tab.first
    assert tab.world["name"] == "point-world" and header["step"] == 0
    assert {key["key"] for key in tab.world["keys"]} == set("wasd")
    assert picture.shape == (2 * 40, 40, 3)
    for number in range(1, 4):
        header, after = tab.step("d")
        assert header["step"] == number and header["time"] == 17.5 and header["trust"] == 1
    assert not np.array_equal(picture, after)


def test_rewind_and_branch_give_equal_bytes(tab: Tab) -> None:
    path = [tab.step("a") for _ in range(5)]
    header, picture = tab.ask("rewind", step=2)
    assert header["step"] == 2 and header["last"] == 5 and np.array_equal(picture, path[1][1])
    for before in path[2:]:
        assert np.array_equal(tab.step("a")[1], before[1])
    tab.ask("rewind", step=2)
    header, branch = tab.step("d")
    assert header["last"] == 3 and not np.array_equal(branch, path[2][1])
    header, _ = tab.ask("reset", seed=5, pixels="", real=False)
    assert header["seed"] == 5 and header["last"] == 0


def test_two_tabs_do_not_mix_and_a_dropped_one_goes_on(address: str) -> None:
    one, other = Tab(address), Tab(address)
    for t in (one, other):
        t.ask("reset", seed=1, pixels="", real=False)
    left, right = one.step("a"), other.step("d")
    assert left[0]["step"] == right[0]["step"] == 1 and not np.array_equal(left[1], right[1])
    one.step("a")
    one.socket.close()
    again = Tab(address, session=one.world["session"])
    assert again.first[0]["step"] == 2 and again.world["session"] == one.world["session"]
    other.socket.close(), again.socket.close()


def test_a_session_opened_elsewhere_closes_the_older_socket(address: str) -> None:
    one = Tab(address)
    two = Tab(address, session=one.world["session"])
    with pytest.raises(ConnectionClosed) as closed:
        one.socket.recv(timeout=5)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == module.ELSEWHERE
    assert two.step()[0]["step"] == 1
    two.socket.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": None},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"additional_headers": {"Origin": "http://evil.example"}},
        {"token": "wrong"},
        {"token": ""},
    ],
)
def test_strangers_get_no_socket(address: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidStatus, match="HTTP 40[03]"):
        Tab(address, **changes)


def test_other_hosts_and_origins_get_no_page(address: str) -> None:
    port = address.partition("/#")[0].rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.:{port}"):
        assert get(address, "/", Host=host)[0] == 403, host
    assert get(address, "/", Origin="http://evil.example")[0] == 403
    assert get(address, "/", Host=f"localhost:{port}")[0] == 200
    request = urllib.request.Request(address.partition("/#")[0], data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=5)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "{", '{"v": 2}', '{"v": 1, "type": "step"}', '{"v": 1, "v": 1}',
        '{"v": 1, "type": ["step"], "time": 1}', '{"v": 1, "type": "launch", "time": 1}',
        '{"v": 1, "type": "step", "time": NaN, "keys": [], "action": null, "driver": "keys"}',
        '{"v": 1, "type": "step", "time": 1, "keys": "ab", "action": null, "driver": "keys"}',
        '{"v": 1, "type": "step", "time": 1, "keys": ["ab"], "action": null, "driver": "keys"}',
        '{"v": 1, "type": "step", "time": 1, "keys": [], "action": [9, 9], "driver": "keys"}',
        '{"v": 1, "type": "step", "time": 1, "keys": [], "action": [0, 0, 0], "driver": "keys"}',
        '{"v": 1, "type": "step", "time": 1, "keys": [], "action": null, "driver": "", "to": "x"}',
        '{"v": 1, "type": "rewind", "time": 1, "step": 1e300}',
        '{"v": 1, "type": "reset", "time": 1, "seed": -1, "pixels": "", "real": false}',
        '{"v": 1, "type": "reset", "time": 1, "seed": 1, "pixels": "AAAA", "real": false}',
        '{"v": 1, "type": "save", "time": 1, "what": "../../etc/passwd"}',
        '{"v": 1, "type": "sample", "time": 1, "num_steps": 100000}',
        '{"v": 1, "type": "say", "time": 1, "text": "in a world that takes none"}',
        '{"v": 1, "type": "choose", "time": 1, "policy": "../../agent"}',
        "[" * 3000,
    ],
)  # fmt: skip
def test_malformed_messages_are_answered_by_a_sentence(tab: Tab, text: str) -> None:
    tab.socket.send(text)
    answer = json.loads(tab.socket.recv(timeout=5))
    assert answer["type"] == "error" and 5 < len(answer["text"]) < 500
    assert tab.step()[0]["step"] == 1


def test_an_oversized_message_ends_its_connection_only(address: str) -> None:
    tab = Tab(address)
    tab.socket.send("x" * 100_000)
    with pytest.raises(ConnectionClosed):
        tab.socket.recv(timeout=5)
    after = Tab(address)
    assert after.step()[0]["step"] == 1
    after.socket.close()


def test_seats_are_bounded_and_connections_come_and_go(address: str) -> None:
    tabs = [Tab(address) for _ in range(MOST_SESSIONS)]
    with pytest.raises(ConnectionClosed) as full:
        Tab(address)
    assert full.value.rcvd is not None and full.value.rcvd.code == module.BUSY
    for tab in tabs:
        tab.socket.close()
    for _ in range(50):
        Tab(address).socket.close()
    assert Tab(address).step()[0]["step"] == 1


def test_saving_writes_only_into_the_folder(tab: Tab, folder: Path) -> None:
    assert "play a step first" in tab.ask("save", what="film")["text"]
    for _ in range(4):
        tab.step("d")
    saved = Path(tab.ask("save", what="film")["path"])
    assert saved.parent == folder and saved.suffix == ".mp4" and saved.stat().st_size > 500


def test_a_recording_is_a_dataset_of_ours(tab: Tab, folder: Path) -> None:
    shown = [tab.first[1]] + [tab.step(key)[1] for key in "addw"]
    saved = NativeDataset(tab.ask("save", what="data")["path"])
    episode = saved.episode(len(saved) - 1)
    assert np.array_equal(episode.frames[:].reshape(len(shown), -1), np.reshape(shown, (5, -1)))
    assert episode.known is not None and episode.known.tolist() == [False] + 4 * [True]
    assert episode.actions is not None and episode.actions[1:3].tolist() == [[-1, 0], [1, 0]]
    assert saved.spec.action == PointWorld().spec.action and episode.truncated


def test_an_address_must_be_exact() -> None:
    with pytest.raises(WorldError, match="host: expected one address"):
        serve(PointWorld(), Path("plays"), host="0.0.0.0")
    assert Server(PointWorld(), Path("plays"), Company()).message_limit < 60_000
