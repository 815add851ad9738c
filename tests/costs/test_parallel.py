"""A step on many GPUs: bytes against formulas worked out by hand, memory, time."""

import pytest
from torch import nn

from tests.worlds import CAR
from worldsim.core import WorldError
from worldsim.costs.cluster import Cluster, Links, cluster_named
from worldsim.costs.cluster_report import Load, cluster_table
from worldsim.costs.devices import Device
from worldsim.costs.flops import Networks, Stage
from worldsim.costs.parallel import (
    Sent,
    activations,
    ddp_sent,
    fsdp2_sent,
    groups_of,
    memory,
    step_time,
)
from worldsim.models.dit import Block, DiTConfig
from worldsim.presets import SIZES
from worldsim.train.recipe import Recipe

PLAIN = Device(peak=100.0, bandwidth=1e9, memory=1e9)
LINKS = Links(node=4, inside=10.0, outside=2.0, hop_inside=0.5, hop_outside=3.0)
TINY = Networks(SIZES["tiny"](), (32, 32), CAR)


def test_what_a_rank_sends():
    block = Block(DiTConfig(dim=8, depth=1, heads=2, kv_heads=1, time_every=1), time=False)
    network = nn.ModuleDict({"block": block, "out": nn.Linear(8, 5)})  # 5 rows for 2 ranks: 6
    groups = groups_of(network)
    inside = sum(p.numel() for p in block.parameters())
    assert [g.size for g in groups] == [inside, 45] and groups[-1].root
    assert ddp_sent(groups, 2).bytes == 4 * (inside + 45)
    padded = inside + 8, 6 * 8 + 6  # the block's table has 9 rows of 8
    weights = 2 * (2 * padded[0] + padded[1]) / 2
    gradients = 4 * sum(padded) / 2
    assert fsdp2_sent(groups, 2, averaged=False).bytes == weights + gradients
    averaged = 2 * sum(padded) / 2
    assert fsdp2_sent(groups, 2, averaged=True).bytes == weights + gradients + averaged
    gloo = fsdp2_sent(groups, 2, width=4, averaged=False, gloo=True).bytes
    assert gloo == 2 * weights + 2 * gradients


def test_messages_wait_for_the_slowest_link_and_for_every_hop():
    assert Cluster(PLAIN, 1, LINKS).seconds(100.0, 3) == 0
    assert Cluster(PLAIN, 4, LINKS).seconds(100.0, 1) == 10 + 4 * 0.5
    assert Cluster(PLAIN, 8, LINKS).seconds(100.0, 2) == 50 + 2 * (6 * 0.5 + 2 * 3)


def test_messages_hide_behind_arithmetic():
    stage, cluster = Stage("forced", 1, 1, 50.0), Cluster(PLAIN, 4, LINKS)  # 0.5 s a clip
    sent = Sent(100.0, 0)  # 10 s
    fsdp2 = step_time(stage, 16, sent, cluster, 0.1, fsdp2=True)  # 20 s of arithmetic
    ddp = step_time(stage, 16, sent, cluster, 0.1, fsdp2=False)
    assert (fsdp2.compute, fsdp2.messages, fsdp2.step, ddp.step) == (20, 10, 20, 20)
    longer = step_time(stage, 16, Sent(180.0, 0), cluster, 0.1, fsdp2=False)
    assert longer.step == pytest.approx(20 + 18 - 2 / 3 * 20)


def test_shards_hold_a_share_and_checkpoints_keep_less():
    groups = groups_of(TINY.world.dynamics)
    one, many = (memory(groups, Cluster(PLAIN, n, LINKS), 0, fsdp2=True, averaged=False)
                 for n in (1, 8))  # fmt: skip
    assert many.state == pytest.approx(one.state / 8, rel=0.01)
    kept = activations(TINY, "forced", 5)
    assert len(kept.inside) == 4 and 0 < kept.checkpointed < kept.whole / 2


def test_activations_grow_with_the_clip():
    kept = activations(TINY, "vae", 3)
    assert kept.whole > sum(kept.inside) > 0
    assert activations(TINY, "vae", 6).whole == pytest.approx(2 * kept.whole, rel=0.1)


def test_the_table_names_every_stage_and_strategy():
    text = cluster_table(TINY, Recipe(), cluster_named("h100", 16), Load(clips=2))
    lines = text.splitlines()
    assert len(lines) == 1 + 8 + 2 + 4
    assert all(
        any(line.startswith(f"{stage} {kind}") for line in lines)
        for stage in ("vae", "forced", "teacher", "student")
        for kind in ("ddp", "fsdp2")
    )
    assert "vae ddp*" in text and "fsdp2*" not in text  # small networks stay whole
    with pytest.raises(WorldError, match="gpus: expected a device of .* 'zen5-core'"):
        cluster_named("zen5-core", 4)
