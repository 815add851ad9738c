"""Which type a machine is fast at, told from what it says of itself."""

import pytest
import torch

from worldsim.nn.dtype import fast_dtype, narrow

CPU = torch.device("cpu")
ZEN = {"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}
TILES = {"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}
HIDDEN = TILES | {"amx_bf16": False}


@pytest.mark.parametrize(
    ("said", "expected"),
    [(ZEN, "bfloat16"), (TILES, "bfloat16"), (HIDDEN, "float32"), ({}, "float32")],
)
def test_a_processor_is_narrow_where_it_is_fast(
    said: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: said)
    assert fast_dtype(CPU) == expected
    a = torch.ones(2, 2)
    with narrow(CPU):
        assert str((a @ a).dtype) == f"torch.{expected}"
    with narrow(CPU, on=False):
        assert (a @ a).dtype == torch.float32


def test_other_devices_are_told_by_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able: able)
        assert fast_dtype(torch.device("cuda")) == expected
    assert fast_dtype(torch.device("meta")) == "float32"
