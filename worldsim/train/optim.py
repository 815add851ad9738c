"""Which optimiser moves which weights: Muon the matrices inside blocks, AdamW all others.

Muon (Jordan et al. 2024) makes each update of a hidden matrix orthogonal; scaled to AdamW's RMS it
takes AdamW's learning rate (Moonlight, 2502.16982). Embeddings, heads, convolutions, gains and
biases stay with AdamW, as its authors advise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from worldsim.nn.dtype import fast_dtype

QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of the Newton-Schulz iteration, as its authors and torch have them."""


def orthogonal(update: Tensor) -> Tensor:
    """About the nearest orthogonal matrix, (A, B) -> (A, B) of the same type."""
    a, b, c = QUINTIC
    x = update.T if update.shape[0] > update.shape[1] else update
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if update.shape[0] > update.shape[1] else x


class Float32Muon(torch.optim.Muon):
    """torch's Muon, which orthogonalises in bfloat16, in float32: for devices that are slow at the
    former. Updates always have the RMS of AdamW's (`adjust_lr_fn="match_rms_adamw"`)."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; no closure is called."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad)
                mean = state["momentum_buffer"]
                mean.lerp_(p.grad, 1 - momentum)
                update = orthogonal(p.grad.lerp(mean, momentum))
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-lr * 0.2 * max(p.shape) ** 0.5)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Weights of linear layers inside repeated blocks (anything in an nn.ModuleList)."""
    blocks = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    layers = [m for block in blocks for m in block.modules() if isinstance(m, nn.Linear)]
    return list({id(layer.weight): layer.weight for layer in layers}.values())


class Optimizer:
    """AdamW, and Muon beside it where asked for, as one.

    lr, betas, weight_decay: as AdamW's; decay is for matrices only.
    """

    def __init__(
        self, model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float,
        *, muon: bool,
    ) -> None:  # fmt: skip
        hidden = hidden_matrices(model) if muon else []
        theirs = {id(p) for p in hidden}
        others = [p for p in model.parameters() if id(p) not in theirs]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=betas)]
        if hidden:
            narrow = fast_dtype(hidden[0].device) == "bfloat16"
            kind = torch.optim.Muon if narrow else Float32Muon
            self.parts.append(
                kind(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )

    def step(self, lr: float) -> None:
        """One update at this learning rate; gradients are gone afterwards."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All state, by names `part.parameter.key`."""
        for n, part in enumerate(self.parts):
            for i, state in part.state_dict()["state"].items():
                yield from ((f"{n}.{i}.{key}", value) for key, value in state.items())

    def blank(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Zeros by the names of state that has no `fault`, sharded as the parameters are."""
        found = {}
        for name in shapes:
            n, i, key = name.split(".")
            params = [p for group in self.parts[int(n)].param_groups for p in group["params"]]
            like = params[int(i)].detach()
            found[name] = torch.zeros(()) if key == "step" else torch.zeros_like(like)
        return found

    def fault(self, shapes: dict[str, tuple[int, ...]], step: int) -> str | None:
        """Why tensors of these shapes cannot be the state after `step` updates, or None."""
        if not shapes:
            return f"expected the optimiser's state after {step} steps, got none" if step else None
        keys: dict[tuple[int, int], set[str]] = {}
        for name, shape in shapes.items():
            n, i, key = [*name.split("."), "", ""][:3]
            if not n.isdecimal() or not i.isdecimal() or int(n) >= len(self.parts):
                return f"expected state of {len(self.parts)} optimisers, got {name[:80]!r}"
            params = [p for group in self.parts[int(n)].param_groups for p in group["params"]]
            if int(i) >= len(params) or shape not in (tuple(params[int(i)].shape), (), (1,)):
                return f"expected state of this model, got {name[:80]!r} {shape}"
            keys.setdefault((int(n), int(i)), set()).add(key)
        whole = ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"})
        missing = [part for part in keys if keys[part] != whole[part[0]]]
        missing += [(n,) for n in range(len(self.parts)) if all(part[0] != n for part in keys)]
        return (
            f"expected whole state of the optimisers, got none of {missing[:5]}"
            if missing
            else None
        )

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up the state that `tensors` gave; see `fault`."""
        states: list[dict[int, dict[str, Any]]] = [{} for _ in self.parts]
        for name, value in tensors.items():
            n, i, key = name.split(".")
            states[int(n)].setdefault(int(i), {})[key] = value
        for part, state in zip(self.parts, states, strict=True):
            groups = part.state_dict()["param_groups"]
            part.load_state_dict({"state": state, "param_groups": groups})
