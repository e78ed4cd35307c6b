"""Planted bugs of the estimator: keys, directions, differences, losses, methods and H."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch

from tests.mutants.mutant import Mutant, patched

MUTANTS: list[Mutant] = []


def mutant(name, module, what):
    """Enter a function that installs a bug into the list."""
    return lambda install: MUTANTS.append(Mutant(name, module, what, install))


@mutant("key-without-its-name", "hiso_bench.keys", "a direction and a batch of the same axes share one key")
def _():
    from hiso_bench import keys

    def derive(root, name, **axes):
        text = json.dumps([int(root), sorted((axis, int(value)) for axis, value in axes.items())])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    return patched(keys, "derive", derive)


@mutant("generator-of-32-bits", "hiso_bench.keys", "keys that differ in their high bits give one stream")
def _():
    from hiso_bench import keys

    rng = keys.rng
    return patched(keys, "rng", lambda key: rng(key & 0xFFFFFFFF))


@mutant("direction-of-32-bits", "hiso_bench.directions", "the generator of a direction keeps the low half of its key")
def _():
    from hiso_bench import directions

    made = directions._generator
    return patched(directions, "_generator", lambda key, leaf, device: made(key & 0xFFFFFFFF, leaf, device))


@mutant("reused-key", "hiso_bench.directions", "the P directions of a step are one direction")
def _():
    from hiso_bench.directions import Directions

    draw = Directions.draw
    return patched(Directions, "draw", lambda self, key, out=None: draw(self, key._replace(p=0), out))


@mutant("sphere-of-radius-one", "hiso_bench.directions", "directions on the unit sphere, without the factor sqrt(d)")
def _():
    from hiso_bench.directions import Directions

    to_sphere = Directions._to_sphere

    def unit(self, u):
        to_sphere(self, u)
        for leaf in u:
            leaf.div_(self.layout.dimension**0.5)

    return patched(Directions, "_to_sphere", unit)


@mutant("one-rate-for-all-replicates", "hiso_bench.points", "a rate per replicate is read as the first replicate's")
def _():
    from hiso_bench.points import Layout

    def over_leaf(self, value, leaf):
        return float(value.reshape(-1)[0]) if isinstance(value, torch.Tensor) else value

    return patched(Layout, "over_leaf", over_leaf)


@mutant("step-uphill", "hiso_bench.points", "the move adds the direction instead of subtracting it")
def _():
    from hiso_bench.methods import base

    add = base.add_scaled

    def uphill(layout, x, z, scale, out):
        return add(layout, x, z, -scale if x is out and not isinstance(scale, torch.Tensor) and scale < 0 else scale, out)

    return patched(base, "add_scaled", uphill)


@mutant("central-over-mu", "hiso_bench.differences", "the central difference is divided by mu, not 2 mu")
def _():
    from hiso_bench.methods import base

    measure = base.measure

    def doubled(loss, layout, x, z, directions, batches, mu, difference, buffer):
        found = measure(loss, layout, x, z, directions, batches, mu, difference, buffer)
        return found._replace(scalars=found.scalars * 2) if difference == "central" else found

    return patched(base, "measure", doubled)


@mutant("base-loss-of-another-batch", "hiso_bench.differences", "every client's base loss is taken on the first client's batch")
def _():
    from hiso_bench.methods import base

    measure = base.measure

    def wrong(loss, layout, x, z, directions, batches, mu, difference, buffer):
        found = measure(loss, layout, x, z, directions, batches, mu, difference, buffer)
        if difference == "central":
            return found
        own = found.loss
        return found._replace(scalars=found.scalars + ((own - own[:1]) / mu)[:, None])

    return patched(base, "measure", wrong)


@mutant("examples-mixed-over-clients", "hiso_bench.losses", "one forward for all clients is averaged over the wrong axis")
def _():
    from hiso_bench.losses import Loss, ModuleLoss

    each = ModuleLoss.each

    def mixed(self, x, batches):
        if self.mode != "clients" or self.replicate_axes or len(batches) == 1:
            return each(self, x, batches)
        values = torch.stack([Loss.each(self, x, [batch])[0] for batch in batches])
        return values.roll(1, 0)

    return patched(ModuleLoss, "each", mixed)


@mutant("determinism-unchecked", "hiso_bench.losses", "the check that a loss is deterministic accepts everything")
def _():
    from hiso_bench import losses

    return patched(losses, "check_deterministic", lambda loss, x, batch: None)


@mutant("ema-the-other-way-round", "hiso_bench.preconditioners", "the weight of the new sample is given to the old H")
def _():
    from hiso_bench.preconditioners import Ema

    update = Ema.update

    def flipped(self, layout, h, directions):
        update(replace(self, ema_new=1 - self.ema_new if not isinstance(self.ema_new, torch.Tensor) else 1 - self.ema_new),
               layout, h, directions)  # fmt: skip

    return patched(Ema, "update", flipped)


@mutant("lost-clipping", "hiso_bench.preconditioners", "H is not clipped from above")
def _():
    from hiso_bench.preconditioners import Ema

    update = Ema.update
    return patched(Ema, "update", lambda self, layout, h, dx: update(replace(self, clip_high=float("inf")), layout, h, dx))


@mutant("lost-mean-over-independent-clients", "hiso_bench.methods.base", "steps along clients' own directions add up")
def _():
    from hiso_bench.methods import Method

    direction = Method.direction

    def summed(self, step, layout, z, out):
        own = any(row != step.keys[0] for row in step.keys)
        return direction(self, step._replace(weights=step.weights * (len(step.keys) if own else 1)), layout, z, out)

    return patched(Method, "direction", summed)


@mutant("decay-one-round-early", "hiso_bench.methods.base", "the decaying step uses r + 1")
def _():
    from hiso_bench.methods import Method

    move = Method.move

    def early(self, state, dx, step):
        state.round += 1
        move(self, state, dx, step)
        state.round -= 1

    return patched(Method, "move", early)


@mutant("h-for-its-inverse-root", "hiso_bench.methods.hiso", "z = H^{1/2} u: steep coordinates are probed further")
def _():
    from hiso_bench.methods import hiso

    controlled = hiso.controlled

    def inverted(h, layout, control, key):
        return tuple(leaf.reciprocal() for leaf in controlled(h, layout, control, key))

    return patched(hiso, "controlled", inverted)


@mutant("h-inverse-for-its-root", "hiso_bench.methods.hiso", "an oracle's z = H^{-1} u")
def _():
    from hiso_bench.methods.hiso import OracleH

    def warp(self, state):
        roots = tuple(leaf.reciprocal() for leaf in state.buffers["h"])
        return lambda u: tuple(leaf.mul_(w) for leaf, w in zip(u, roots, strict=True))

    return patched(OracleH, "warp", warp)


@mutant("freeze-one-round-late", "hiso_bench.methods.hiso", "H learns for one round more than it was told")
def _():
    from hiso_bench.methods.hiso import HiSo

    learn = HiSo.learn

    def late(self, state, steps, z, dx):
        learn(replace(self, freeze_after=self.freeze_after + 1) if self.freeze_after >= 0 else self, state, steps, z, dx)

    return patched(HiSo, "learn", late)
