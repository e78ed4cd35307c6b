"""Planted bugs of protocol, sweeps and theory, written without reading the tests. Each patches one attribute."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from hiso_bench import (
    audit,
    federation,
    ledger,
    messages,
    partition,
    state,
    sweeps,
)
from hiso_bench.directions import SHARED, DirectionKey, Warped
from hiso_bench.ledger import Round
from hiso_bench.messages import MessageError
from hiso_bench.methods.base import Step
from hiso_bench.theory import diagonal, moments, spectra, stability, whitened
from tests.mutants.mutant import Mutant, patched
from vision import problems as vision_problems


def _steps_owned_by_position(self, round_, update):
    rows = len(update.scalars)
    # Right as long as every client takes part: then a row's position is its client.
    owners = range(rows) if self.independent else (SHARED,) * rows
    weights = update.scalars[:, :, : self.perturbations] / self.perturbations
    curvatures = update.scalars[:, :, self.perturbations :]
    return [
        Step(
            tuple(tuple(DirectionKey(round_, k, p, owner) for p in range(self.perturbations)) for owner in owners),
            weights[:, k],
            curvatures[:, k],
        )
        for k in range(self.local_steps if rows else 0)
    ]


def _link_to_nothing(self, kind, body):
    return hashlib.sha256(bytes([kind]) + body).digest()[: ledger._CHAIN]


def _replay_learning_step_by_step(method, state, steps, directions, z=None, buffer=None):
    if steps:
        active = torch.stack([step.active for step in steps]).all(0)
        before = None if bool(active.all()) else state.copy()
        warped = Warped(directions, method.warp(state)) if z is None else z
        dx = state.layout.empty(directions.dtype, directions.device) if buffer is None else buffer
        for step in steps:
            method.move(state, method.direction(step, state.layout, warped, out=dx), step)
            # Harmless where H learns from each step; "first" and "last" have nothing left to choose from.
            method.learn(state, [step], warped, dx)
        if z is None:
            warped.close()
        if before is not None:
            state.keep_where(active, before)
    state.round += 1


def _local_with_one_batch_per_round(self, r, client, owner, z):
    tau = self.options.local_steps
    local = self.state if tau == 1 else federation.local_copy(self.state)
    batch = self.problem.batch(client, r, 0)
    scalars, found = [], []
    for k in range(tau):
        result = self._estimate(local, r, k, owner, [batch], z)
        scalars.append(result.scalars[0])
        found.append(result.loss[0])
        if k < tau - 1:
            slopes, curvatures = result.scalars.tensor_split([self.method.perturbations], dim=1)
            step = Step((self._keys(r, k, owner),), slopes / self.method.perturbations, curvatures)
            self.method.move(local, self.method.direction(step, local.layout, z, out=self._buffers[1]), step)
    return torch.stack(scalars), torch.stack(found).mean(0)


def _local_copy_sharing_momentum(shared):
    return state.State(shared.layout, tuple(leaf.clone() for leaf in shared.x), dict(shared.buffers), shared.round)


def _receive_from_where_it_stands(self, message):
    round_, first, updates = self._inner.wire.decode_downlink(message)
    stands = self.state.round
    if not first <= stands <= round_:
        raise MessageError(f"a downlink of rounds {first} to {round_} cannot advance a client that stands at round {stands}")
    # The first update in the message is round `first`'s, which this client may have replayed already.
    for number in range(stands, round_):
        self._inner.replay(Round(number, (), 0, 0, 0, updates[number - stands]))


def _cell_named_by_its_arm(cell):
    return {"arm": cell.arm.name, "lr": cell.lr, "key": cell.key, "rounds": cell.rounds}


_CHOOSE_RATES = sweeps.choose_rates


def _choose_rates_forgiving_divergence(evaluate, arms, keys, *args, **kwargs):
    def forgiving(cells):
        scores = np.array(evaluate(cells), dtype=float).reshape(-1, len(keys))
        for row in scores:  # np.mean over the finite scores, the habit from curves with gaps
            if np.isfinite(row).any():
                row[~np.isfinite(row)] = row[np.isfinite(row)].mean()
        return scores.ravel()

    return _CHOOSE_RATES(forgiving, arms, keys, *args, **kwargs)


def _sample_batch_with_replacement(indices, size, rng):
    return rng.choice(indices, size=size)


def _owners_rounded_down(labels, clients, alpha, rng):
    owner = np.empty(len(labels), dtype=np.int64)
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class])) + 1
    for members in np.split(by_class, starts):
        n = len(members)
        cumulative = np.cumsum(rng.dirichlet(np.full(clients, float(alpha))))[:-1]
        # A floor at every cut takes half an example from the first client and gives it to the last, class after class.
        cuts = np.minimum(np.floor(n * cumulative), n).astype(np.int64)
        owner[rng.permutation(members)] = np.repeat(np.arange(clients), np.diff(cuts, prepend=0, append=n))
    return owner


def _fingerprint_restarting_per_leaf(points):
    total = 0
    for point in points:
        for leaf in point:
            raw = leaf.detach().cpu().contiguous().reshape(-1).numpy()
            bits = raw.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[raw.dtype.itemsize]).astype(np.uint64)
            weight = (np.arange(bits.size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
            total += int((bits * weight).sum(dtype=np.uint64))
    return total % 2**64


_CONSTANTS = moments.constants


def _constants_with_squared_fourth_moment(law, d):
    found = _CONSTANTS(law, d)
    # (E|w|^4)^2 where E|w|^6 is due: off by a factor 1 + 2/(d+2), which is small in every large dimension.
    return found._replace(c6=found.k2**2) if law == "sphere" else found


def _curvature_cut_at_the_end(S, C, mu, P, law, difference):
    if difference == "central" or mu == 0:
        return np.zeros_like(C)
    t1, full = np.sum(C * S), C @ S @ C @ S @ C
    if law == "rademacher":
        # The signs' diagonal is gone before the square, not after it; equal for a diagonal S.
        S, full = moments._off(S), moments._off(full)
    once = C @ S @ C
    c6 = moments.constants(law, len(C)).c6
    return mu**2 / (4 * P) * c6 * ((t1**2 + 2 * np.sum(once * S)) * C + 4 * t1 * once + 8 * full)


def _sampling_variance_with_replacement_divisor(m, M):
    return (M - m) / (m * M)


_ROUND = whitened.Whitened.round


def _round_with_the_first_rate(self, eta):
    if not np.isnan(self._eta):
        self._eta = eta  # what was prepared for the first round is taken to be ready for this one
    _ROUND(self, eta)


def _haar_without_signs(d, rng):
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


_SPECTRUM = stability._spectrum


def _spectrum_without_flat_modes(s, h):
    # They never enter the loss, but the radius of the sphere counts them.
    lam = _SPECTRUM(s, h)
    return lam[lam > 0]


MUTANTS = (
    Mutant(
        "rows-owned-by-position",
        "hiso_bench.messages",
        "gives row i of an update the directions of client i instead of those of its own client",
        lambda: patched(messages.Wire, "steps", _steps_owned_by_position),
    ),
    Mutant(
        "chain-without-predecessor",
        "hiso_bench.ledger",
        "hashes each record alone, so one can be dropped or moved unseen",
        lambda: patched(ledger.Ledger, "_link", _link_to_nothing),
    ),
    Mutant(
        "learning-inside-the-step-loop",
        "hiso_bench.replay",
        "lets H learn after every local step by itself, so 'first' and 'last' learn from all of them",
        lambda: patched(federation, "replay", _replay_learning_step_by_step),
    ),
    Mutant(
        "one-batch-per-round",
        "hiso_bench.federation",
        "draws a client's batch once, before its local steps",
        lambda: patched(federation.Federation, "_local", _local_with_one_batch_per_round),
    ),
    Mutant(
        "local-steps-share-momentum",
        "hiso_bench.federation",
        "copies x for the local steps but not the momentum, which they then leave changed",
        lambda: patched(federation, "local_copy", _local_copy_sharing_momentum),
    ),
    Mutant(
        "catch-up-offset-by-known-rounds",
        "hiso_bench.audit",
        "replays a downlink from its first update although the client has some of its rounds already",
        lambda: patched(audit.Client, "receive", _receive_from_where_it_stands),
    ),
    Mutant(
        "cell-named-without-options",
        "hiso_bench.sweeps",
        "names a finished cell by its arm's name alone, and takes it for done after the arm's options changed",
        lambda: patched(sweeps, "asdict", _cell_named_by_its_arm),
    ),
    Mutant(
        "diverged-keys-left-out",
        "hiso_bench.sweeps",
        "a rate's score is the mean over the tuning keys that did not diverge",
        lambda: patched(sweeps, "choose_rates", _choose_rates_forgiving_divergence),
    ),
    Mutant(
        "batches-with-replacement",
        "hiso_bench.partition",
        "leaves NumPy's default replace=True in the draw of a batch",
        lambda: patched(vision_problems, "sample_batch", _sample_batch_with_replacement),
    ),
    Mutant(
        "dirichlet-cuts-rounded-down",
        "hiso_bench.partition",
        "cuts the classes without the random offset: the last client gains what the first one loses",
        lambda: patched(partition, "_owners", _owners_rounded_down),
    ),
    Mutant(
        "fingerprint-restarts-per-leaf",
        "hiso_bench.points",
        "counts positions from zero in every leaf, so leaves that trade places go unseen",
        lambda: patched(state, "fingerprint", _fingerprint_restarting_per_leaf),
    ),
    Mutant(
        "sixth-moment-from-the-fourth",
        "hiso_bench.theory.moments",
        "takes the square of the sphere's fourth-moment ratio for its sixth-moment ratio",
        lambda: patched(moments, "constants", _constants_with_squared_fourth_moment),
    ),
    Mutant(
        "rademacher-diagonal-dropped-late",
        "hiso_bench.theory.moments",
        "squares S and then drops the diagonal, instead of dropping it first",
        lambda: patched(moments, "curvature_part", _curvature_cut_at_the_end),
    ),
    Mutant(
        "finite-population-divisor",
        "hiso_bench.theory.diagonal",
        "divides by M where sampling m of M without replacement has M - 1",
        lambda: patched(diagonal, "sampling_variance", _sampling_variance_with_replacement_divisor),
    ),
    Mutant(
        "decay-of-the-first-rate",
        "hiso_bench.theory.whitened",
        "keeps what was prepared for the first learning rate although the schedule has moved on",
        lambda: patched(whitened.Whitened, "round", _round_with_the_first_rate),
    ),
    Mutant(
        "haar-without-signs",
        "hiso_bench.theory.spectra",
        "takes Q of the QR factorisation as it comes, which is orthogonal but not Haar",
        lambda: patched(spectra, "haar", _haar_without_signs),
    ),
    Mutant(
        "flat-modes-dropped-from-the-dimension",
        "hiso_bench.theory.stability",
        "drops the modes with s = 0 before counting d for the sphere's constants",
        lambda: patched(stability, "_spectrum", _spectrum_without_flat_modes),
    ),
)
