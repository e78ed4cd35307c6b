"""Planted bugs of the estimator, written without reading the tests. Each patches one attribute."""

from __future__ import annotations

import hashlib
import json
import math

import torch

from hiso_bench import (
    differences,
    directions,
    keys,
    losses,
    preconditioners,
)
from hiso_bench.directions import SHARED, Warped
from hiso_bench.methods import base, hiso
from hiso_bench.points import add_scaled, flat
from hiso_bench.preconditioners import Ema, controlled
from tests.mutants.mutant import Mutant, patched


def _derive_without_axis_names(root, name, **axes):
    text = json.dumps([int(root), name, sorted(int(value) for value in axes.values())])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: keys.KEY_BITS // 8], "little")


def _to_sphere_leaf_by_leaf(self, u):
    # E u u^T is still I: second moments cannot tell, fourth ones can.
    for i, leaf in enumerate(u):
        squares = flat(leaf.double().square(), len(self.layout.replicate_shape)).sum(-1)
        leaf.mul_(self.layout.over_leaf(math.sqrt(math.prod(self.layout.leaf_shapes[i])) / squares.sqrt(), i))


def _warped_cache_without_client(self, key):
    slot = key._replace(client=SHARED)
    if slot in self._cache:
        return self._cache[slot]
    size = self.directions.layout.numel * self.directions.dtype.itemsize
    if (len(self._cache) + 1) * size <= self._budget:
        z = self._cache[slot] = self._buffer()
    else:
        z = self._scratch = self._scratch or self._buffer()
    return self.warp(self.directions.draw(key, out=z))


def _measure_from_the_mean_base(loss, layout, x, z, directions, batches, mu, difference, buffer):
    if difference == "central":
        return differences.measure(loss, layout, x, z, directions, batches, mu, difference, buffer)

    def at(key):
        return loss.each(add_scaled(layout, x, z(key), mu, out=buffer), batches).double()

    # The mean over clients of the scalars is untouched; each client's own is not.
    base_loss = loss.each(x, batches).double()
    scalars = torch.stack([(at(key) - base_loss.mean(0)) / mu for key in directions], dim=1)
    return differences.Measurement(scalars, base_loss)


def _evaluations_without_shared_base(difference, perturbations, curvatures=0):
    return 2 * perturbations


def _each_cut_across_clients(self, x, batches):
    if self.mode != "clients" or self.replicate_axes or len(batches) == 1:
        return _EACH(self, x, batches)
    with torch.inference_mode():
        joined = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
        return self._examples(x, joined).reshape(-1, len(batches)).mean(0)


_EACH = losses.ModuleLoss.each


def _examples_in_model_precision(self, x, batch):
    return self.per_example(lambda *args, **kwargs: self.outputs(x, *args, **kwargs), batch)


def _ema_clips_the_sample(self, layout, h, directions):
    total, *others = directions
    for i, leaf in enumerate(h):
        square = total[i].square_()
        for other in others:
            square.addcmul_(other[i], other[i])
        if others:
            square.div_(len(directions))
        square.add_(layout.over_leaf(self.eps, i))
        # An average of clipped samples keeps to the bounds too, and is another average.
        if self.clip_low > 0 or self.clip_high < float("inf"):
            square.clamp_(self.clip_low, self.clip_high)
        weight = layout.over_leaf(self.ema_new, i)
        leaf.lerp_(square, weight.to(leaf) if isinstance(weight, torch.Tensor) else weight)


def _mean_of_leaf_means(leaves, axes):
    return torch.stack([flat(leaf.double(), axes).mean(-1) for leaf in leaves]).mean(0)


def _move_with_decay_outside_momentum(self, state, dx, step):
    eta = self.lr / (1 + self.lr_decay * state.round)
    if self.weight_decay:
        add_scaled(state.layout, state.x, state.x, -eta * self.weight_decay, state.x)
    target = dx
    if self.momentum:
        target = state.buffers["momentum"]
        for m, d in zip(target, dx, strict=True):
            m.mul_(self.momentum).add_(d)
    add_scaled(state.layout, state.x, target, -eta, state.x)


def _combine_over_all_slots(self, scalars):
    return scalars.nansum(0, keepdim=True) / len(scalars)


def _learn_reusing_a_spent_dx(self, state, steps, z, dx):
    if 0 <= self.freeze_after <= state.round:
        return
    ema = Ema(self.ema_new, self.eps, self.clip_low, self.clip_high)
    chosen = {"first": steps[:1], "last": steps[-1:], "each": steps}[self.h_step]
    for step in chosen:
        for group in step.perturbations() if self.h_perturbations == "sequential" else [step]:
            parts = group.rows() if self.h_clients == "mean_of_squares" else [group]
            # dx did hold the last step's direction, but the steps before it were squared in that very buffer.
            if parts[0] is step and step is steps[-1] and not self.h_moving:
                ema.update(state.layout, state.buffers["h"], [dx])
                continue
            used = Warped(z.directions, self.warp(state), cache_bytes=0) if self.h_moving else z
            outs = [dx, *(tuple(torch.empty_like(leaf) for leaf in dx) for _ in parts[1:])]
            roots = [self.direction(part, state.layout, used, out) for part, out in zip(parts, outs, strict=True)]
            ema.update(state.layout, state.buffers["h"], roots)
            if self.h_moving:
                used.close()


def _warp_with_one_permutation(self, state):
    key = keys.derive(self.control_key, "shuffle")
    root = tuple(leaf.rsqrt() for leaf in controlled(state.buffers["h"], state.layout, self.control, key))
    return lambda u: tuple(leaf.mul_(w) for leaf, w in zip(u, root, strict=True))


MUTANTS = (
    Mutant(
        "key-forgets-axis-names",
        "hiso_bench.keys",
        "hashes the sorted values of the axes without their names, so step 1, p 0 is step 0, p 1",
        lambda: patched(keys, "derive", _derive_without_axis_names),
    ),
    Mutant(
        "sphere-per-leaf",
        "hiso_bench.directions",
        "puts each leaf on a sphere of its own instead of the whole point on one",
        lambda: patched(directions.Directions, "_to_sphere", _to_sphere_leaf_by_leaf),
    ),
    Mutant(
        "cache-forgets-client",
        "hiso_bench.directions",
        "keeps z under round, step and p, so clients with independent directions get one another's",
        lambda: patched(directions.Warped, "__call__", _warped_cache_without_client),
    ),
    Mutant(
        "base-loss-averaged-over-clients",
        "hiso_bench.differences",
        "subtracts the clients' mean base loss in the forward difference: 'shared' read as shared by clients too",
        lambda: patched(base, "measure", _measure_from_the_mean_base),
    ),
    Mutant(
        "forward-counted-as-central",
        "hiso_bench.differences",
        "counts two evaluations per direction for the forward difference, whose base loss is measured once",
        lambda: patched(base, "evaluations", _evaluations_without_shared_base),
    ),
    Mutant(
        "joined-batches-cut-across-clients",
        "hiso_bench.losses",
        "mode 'clients' folds the joined examples with the axes the wrong way round: right mean, wrong clients",
        lambda: patched(losses.ModuleLoss, "each", _each_cut_across_clients),
    ),
    Mutant(
        "batch-mean-in-float32",
        "hiso_bench.losses",
        "averages the examples in the model's precision, and mu divides the rounding error",
        lambda: patched(losses.ModuleLoss, "_examples", _examples_in_model_precision),
    ),
    Mutant(
        "ema-clips-the-sample",
        "hiso_bench.preconditioners",
        "clips the new square before it is averaged instead of H afterwards",
        lambda: patched(preconditioners.Ema, "update", _ema_clips_the_sample),
    ),
    Mutant(
        "mean-of-leaf-means",
        "hiso_bench.preconditioners",
        "the scalar control averages the leaves' means without their sizes",
        lambda: patched(preconditioners, "_mean", _mean_of_leaf_means),
    ),
    Mutant(
        "decay-outside-momentum",
        "hiso_bench.methods.base",
        "leaves weight decay out of the momentum buffer, as the decoupled optimisers do",
        lambda: patched(base.Method, "move", _move_with_decay_outside_momentum),
    ),
    Mutant(
        "absent-clients-count-as-zero",
        "hiso_bench.methods.base",
        "divides the sum of the answers by the clients asked, not by those that answered",
        lambda: patched(base.Method, "combine", _combine_over_all_slots),
    ),
    Mutant(
        "h-learns-from-a-spent-buffer",
        "hiso_bench.methods.hiso",
        "spares the last step's direction because dx holds it, after earlier steps have overwritten dx",
        lambda: patched(hiso.HiSo, "learn", _learn_reusing_a_spent_dx),
    ),
    Mutant(
        "control-permutation-never-redrawn",
        "hiso_bench.methods.hiso",
        "derives the shuffle's key without the round, so the control is one fixed mismatch",
        lambda: patched(hiso.HiSo, "warp", _warp_with_one_permutation),
    ),
)
