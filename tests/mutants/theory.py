"""Planted bugs of the exact theory."""

from __future__ import annotations

import numpy as np

from tests.mutants.mutant import Mutant, patched

MUTANTS: list[Mutant] = []


def mutant(name, module, what):
    """Enter a function that installs a bug into the list."""
    return lambda install: MUTANTS.append(Mutant(name, module, what, install))


@mutant("noise-per-direction", "hiso_bench.theory.diagonal", "gradient noise is averaged over the P directions that share it")
def _():
    from hiso_bench.theory import recursion

    step = recursion.clients_step

    def averaged(lam, mu, P, law, difference, noise, *rest):
        return step(lam, mu, P, law, difference, noise / P, *rest)

    return patched(recursion, "clients_step", averaged)


@mutant("curvature-in-central-differences", "hiso_bench.theory.diagonal", "the central difference keeps the mu term")
def _():
    from hiso_bench.theory import diagonal

    step = diagonal.step
    return patched(diagonal, "step", lambda lam, mu, P, law="gaussian", difference="forward": step(lam, mu, P, law))


@mutant("floor-of-all-modes-but-f", "hiso_bench.theory.recursion", "the noise floor forgets that the modes feed one another")
def _():
    from hiso_bench.theory import recursion

    return patched(recursion, "growth", lambda *args: 0.0)


@mutant("euclidean-is-whitened", "hiso_bench.theory.matrices", "the Euclidean norm of the gradient is reported in H^-1")
def _():
    from hiso_bench.theory.matrices import MatrixRecursion

    measure = MatrixRecursion.measure
    return patched(MatrixRecursion, "measure", lambda self, now: (m := measure(self, now))._replace(euclidean=m.gradient))


@mutant("clients-with-replacement", "hiso_bench.theory.matrices", "sampled clients are taken to be independent draws")
def _():
    from hiso_bench.theory import matrices

    return patched(matrices, "sampling_variance", lambda m, M: (M > 1) / m)


@mutant("carried-from-the-last-round", "hiso_bench.theory.whitened", "a pass of many rounds couples them all by its first")
def _():
    from hiso_bench.theory.whitened import Whitened

    run = Whitened._pass
    return patched(Whitened, "_pass", lambda self, carried, ahead: run(self, [carried[0]] * len(carried), ahead))


@mutant("kick-left-out-of-blocks", "hiso_bench.theory.whitened", "noise that differs between modes is taken for a uniform one")
def _():
    from hiso_bench.theory.whitened import Whitened

    run = Whitened._pass

    def uniform(self, carried, ahead):
        self._uniform = True
        run(self, carried, ahead)

    return patched(Whitened, "_pass", uniform)


@mutant("momentum-forgotten-in-a", "hiso_bench.theory.stability", "momentum rescales the step and leaves the constant A")
def _():
    from hiso_bench.theory import stability

    constants = stability._constants
    return patched(stability, "_constants", lambda d, P, law, momentum=0.0: constants(d, P, law))


@mutant("frozen-adam-before-the-estimate", "hiso_bench.theory.operators", "H after the estimate is treated as H inside it")
def _():
    from hiso_bench.theory import operators

    mode = operators.mode_operator
    return patched(operators, "mode_operator", lambda s, h, eta, P, law="gaussian", momentum=0.0, after=False:
                   mode(s, h, eta, P, law, momentum))  # fmt: skip


@mutant("flat-mode-counted-twice", "hiso_bench.theory.operators", "the sphere's constants are those of one dimension more")
def _():
    from hiso_bench.theory import operators

    constants = operators.constants
    return patched(operators, "constants", lambda law, d: constants(law, d + 1))


@mutant("lost-transverse-modes", "hiso_bench.theory.lyapunov", "the growth rate of k modes is that of one")
def _():
    from hiso_bench.theory import lyapunov

    inner = lyapunov._inner
    return patched(lyapunov, "_inner", lambda gap, scale, k: inner(gap, scale, 1))


@mutant("chi-square-without-its-jacobian", "hiso_bench.theory.lyapunov", "the density of chi^2 is used for that of its logarithm")
def _():
    from hiso_bench.theory import lyapunov

    density = lyapunov._log_chi_square
    return patched(lyapunov, "_log_chi_square", lambda v, n: density(v, n) - v)


@mutant("effective-rank-of-the-mean", "hiso_bench.theory.spectra", "kappa is tr S over the mean of the positive eigenvalues")
def _():
    from hiso_bench.theory import spectra

    return patched(spectra, "effective_rank", lambda s: spectra.total(s) / float(np.mean(np.asarray(s)[np.asarray(s) > 0])))


@mutant("rho-without-two-norms", "hiso_bench.theory.bounds", "rho is the trace plus one norm")
def _():
    from hiso_bench.theory import bounds

    rho = bounds.rho

    def short(s, h):
        return rho(s, h) - float(np.max(np.asarray(s, dtype=np.float64) / h))

    return patched(bounds, "rho", short)


@mutant("drift-linear-in-tau", "hiso_bench.theory.bounds", "the drift term has (tau - 1) for its square")
def _():
    from hiso_bench.theory import bounds

    bound = bounds.theorem1
    return patched(bounds, "theorem1", lambda c, eta: (b := bound(c, eta))._replace(drift=b.drift / max(c.tau - 1, 1)))


@mutant("average-from-round-one", "hiso_bench.theory.closed_form", "the average over rounds leaves the start out")
def _():
    from hiso_bench.theory.closed_form import Descent

    average = Descent.average

    def late(self, eta, rounds, measure="whitened"):
        return average(self, eta, rounds, measure) + (self.value(eta, rounds, measure) - self.value(eta, 0, measure)) / rounds

    return patched(Descent, "average", late)


@mutant("noise-of-one-client", "hiso_bench.theory.closed_form", "the closed form does not divide the noise by m")
def _():
    from hiso_bench.theory.closed_form import Descent

    init = Descent.__init__

    def alone(self, s, h, x0, P, noise=0.0, m=1, law="gaussian"):
        init(self, s, h, x0, P, noise, 1, law)

    return patched(Descent, "__init__", alone)


@mutant("budget-of-p", "hiso_bench.theory.learned", "the drive of H's fixed point has 1/P for 1 + 1/P")
def _():
    from hiso_bench.theory import learned

    point = learned.fixed_point
    return patched(learned, "fixed_point", lambda energy, P: point(np.asarray(energy) / (1 + P), P))


@mutant("width-without-the-scalars", "hiso_bench.theory.learned", "the scatter of H ignores that the scalars are random too")
def _():
    from hiso_bench.theory import learned

    return patched(learned, "width", lambda P, ema_new: float(np.sqrt(ema_new / (2 * (1 - ema_new)))))


@mutant("drift-from-own-models", "hiso_bench.theory.local_steps", "clients are compared with their first, not with their mean")
def _():
    from hiso_bench.theory.local_steps import Clients

    def deviation(self, weights):
        own = np.einsum("iij->ij", self.square) - 2 * self.square[:, 0] + self.square[0, 0]
        return float(np.sum(np.broadcast_to(weights, own.shape) * own) / len(own))

    return patched(Clients, "deviation", deviation)


@mutant("clients-with-own-directions", "hiso_bench.theory.local_steps", "the shared directions' cross moments are dropped")
def _():
    from hiso_bench.theory import local_steps

    owner = next(v for v in vars(local_steps).values() if isinstance(v, type) and "round" in vars(v))
    step = owner.step

    def alone(self, at):
        found = step(self, at)
        other = ~np.eye(len(self.s), dtype=bool)
        found.square[other] = (found.mean[:, None] * found.mean[None])[other]
        return found

    return patched(owner, "step", alone)


@mutant("labels-without-noise", "hiso_bench.theory.minibatch", "the noise of the labels is left out of the batch noise")
def _():
    from hiso_bench.theory import minibatch

    losses = minibatch._losses
    return patched(minibatch, "_losses", lambda s, h, x0, eta, P, batch, label: losses(s, h, x0, eta, P, batch, 0.0))


@mutant("fresh-examples-as-one", "hiso_bench.theory.minibatch", "a batch of B gives the noise of a single example")
def _():
    from hiso_bench.theory import minibatch

    losses = minibatch._losses
    return patched(minibatch, "_losses", lambda s, h, x0, eta, P, batch, label: losses(s, h, x0, eta, P, 1, label))


@mutant("projection-without-its-fourth-moment", "hiso_bench.theory.projection", "E z^4/q^2 is taken for E z^2 z'^2/q^2")
def _():
    from hiso_bench.theory import projection

    moments = projection.projection_moments

    def flat(h):
        m, K = moments(h)
        return m, K - np.diag(np.diag(K)) * 2 / 3

    return patched(projection, "projection_moments", flat)


@mutant("spread-of-half-the-factor", "hiso_bench.theory.projection", "the factor's variance is sum h^-2, not twice that")
def _():
    from hiso_bench.theory import projection

    spread = projection.factor_spread
    return patched(projection, "factor_spread", lambda h: spread(h) / np.sqrt(2))
