import pytest

from worldsim.core import WorldError
from worldsim.costs.devices import (
    DEVICES,
    Device,
    crossover,
    device_named,
    devices_needed,
    devices_to_hold,
)

PLAIN = Device(peak=100.0, bandwidth=10.0, memory=50.0)


def test_the_slower_half_decides():
    assert PLAIN.seconds(200) == 2
    assert PLAIN.seconds(200, 10) == 2
    assert PLAIN.seconds(200, 40) == 4
    assert PLAIN.seconds(200, 40, utilisation=0.25) == 8


def test_datasheets_hold_together():
    assert DEVICES["h200"].peak == DEVICES["h100"].peak  # the same silicon, more memory
    assert DEVICES["h200"].memory / DEVICES["h100"].memory == pytest.approx(1.76, abs=0.01)
    assert DEVICES["b200"].peak == 72e15 / 8 / 2 / 2  # eighth of a machine, dense, bf16 for fp8
    assert DEVICES["zen5-core"].peak == 1040e9 / 2
    assert device_named("h200") is DEVICES["h200"]


def test_a_crowd():
    assert crossover(1000, 10) == 100
    assert devices_needed(1000, 0.01) == 10
    assert devices_needed(1000, 0.01, peak_factor=2.5) == 25
    assert devices_to_hold(10, 10, 20, PLAIN) == 4  # three fit beside what is shared
    assert devices_to_hold(9, 10, 20, PLAIN) == 3


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: PLAIN.seconds(1, utilisation=0), "utilisation: expected a share .* got 0"),
        (lambda: PLAIN.seconds(1, utilisation=40), "utilisation: expected a share .* got 40"),
        (lambda: device_named("h300"), "device: expected one of a100, h100, .* got 'h300'"),
        (lambda: crossover(1, 0), "use: expected more than 0 FLOPs, got 0"),
        (lambda: devices_needed(-1, 1), "rate: expected a finite number from 0 up, got -1"),
        (lambda: devices_needed(1, float("inf")), "seconds: expected a finite number"),
        (lambda: devices_needed(1, 1, peak_factor=0.5), "peak_factor: expected 1 .* got 0.5"),
        (lambda: devices_to_hold(1, 31, 20, PLAIN), "memory: expected at least .* larger device"),
    ],
)
def test_what_does_not_fit_is_refused(call, complaint: str):
    with pytest.raises(WorldError, match=complaint):
        call()
