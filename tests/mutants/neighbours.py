"""Planted bugs of the neighbouring methods and of the baselines that send vectors."""

from __future__ import annotations

import numpy as np
import torch

from tests.mutants.mutant import Mutant, patched

MUTANTS: list[Mutant] = []
TIERS = ("exact", "expectation")


def mutant(name, module, what):
    """Enter a function that installs a bug into the list."""
    vectors = module.startswith("hiso_bench.first_order")
    tests = ("contract/test_first_order.py",) if vectors else tuple(f"{t}/test_neighbour_methods.py" for t in TIERS)
    return lambda install: MUTANTS.append(Mutant(name, module, what, install, tests))


@mutant("lozo-without-its-rank", "hiso_bench.methods.low_rank", "LOZO's direction is not divided by the root of its rank")
def _():
    from hiso_bench.methods.low_rank import Lozo

    return patched(Lozo, "product", lambda self, fresh, kept, m, n: fresh[0] @ kept[1].mT)


@mutant("subzero-not-orthonormal", "hiso_bench.methods.low_rank", "SubZero's bases are Gaussian instead of orthonormal")
def _():
    from hiso_bench.methods.low_rank import SubZero

    def raw(self, fresh, kept, m, n):
        return kept[0] @ fresh[2] @ kept[1].mT / self.rank

    return patched(SubZero, "product", raw)


@mutant("lozo-keeps-nothing", "hiso_bench.methods.low_rank", "every factor is drawn afresh in every round")
def _():
    from hiso_bench.methods.low_rank import Lozo

    product = Lozo.product
    return patched(Lozo, "product", lambda self, fresh, kept, m, n: product(self, fresh, fresh, m, n))


@mutant("agzo-not-orthonormal", "hiso_bench.methods.agzo", "AGZO's basis is made of inputs instead of singular vectors")
def _():
    from hiso_bench.methods import agzo

    return patched(agzo, "leading", lambda rows, rank: rows.double().mT[..., :rank] / rows.shape[-1] ** 0.5)


@mutant("agzo-trailing", "hiso_bench.methods.agzo", "AGZO keeps the directions in which the inputs are smallest")
def _():
    from hiso_bench.methods import agzo

    leading = agzo.leading
    return patched(agzo, "leading", lambda rows, rank: leading(rows, rows.shape[-1])[..., -rank:])


@mutant("agzo-never-learns", "hiso_bench.methods.agzo", "AGZO's basis stays that of the first window")
def _():
    from hiso_bench.methods.agzo import Agzo

    return patched(Agzo, "learn", lambda self, state, steps, z, dx: None)


@mutant("agzo-private", "vision.mlp", "the basis is made of the clients' own images")
def _():
    from vision.mlp import DigitsPerceptron

    def own(self, x, examples, draw):
        images = self.everything.inputs[:examples].to(x[0])
        return images, None, self.loss.hidden(x, images), None

    return patched(DigitsPerceptron, "layer_inputs", own)


@mutant("pool-without-end", "hiso_bench.methods.fedkseed", "the pool has ten times as many seeds as it says")
def _():
    from hiso_bench.methods.fedkseed import Pooled

    init = Pooled.__init__
    return patched(Pooled, "__init__", lambda self, source, pool: init(self, source, 10 * pool))


@mutant("vote-by-size", "hiso_bench.methods.feedsign", "a client with larger scalars has more votes")
def _():
    from hiso_bench.methods import feedsign

    return patched(feedsign.FeedSign, "combine", lambda self, scalars: feedsign._sign(scalars.nansum(0, keepdim=True)))


@mutant("bits-reversed", "hiso_bench.messages", "a bit of one stands for -1 on the way back")
def _():
    from hiso_bench.messages import SIGN, Wire

    decode = Wire.decode_scalars
    return patched(Wire, "decode_scalars", lambda self, data, rows: decode(self, data, rows) * (-1 if self.dtype == SIGN else 1))


@mutant("spread-over-p", "hiso_bench.methods.fzoo", "FZOO's spread is over P instead of P - 1")
def _():
    from hiso_bench.methods.fzoo import Fzoo

    direction = Fzoo.direction

    def biased(self, step, layout, z, out):
        P = step.weights.shape[1]
        dx = direction(self, step, layout, z, out)
        return tuple(leaf.mul_((P / (P - 1)) ** 0.5) for leaf in dx)

    return patched(Fzoo, "direction", biased)


@mutant("stein-without-its-mean", "hiso_bench.methods.hizoo", "Stein's form forgets to subtract H")
def _():
    from hiso_bench.methods.hizoo import HiZoo

    learn = HiZoo.learn

    def wrong(self, state, steps, z, dx):
        object.__setattr__(self, "estimate", "published")
        return learn(self, state, steps, z, dx)

    return patched(HiZoo, "learn", wrong)


@mutant("quantised-down", "hiso_bench.first_order.codecs", "the quantiser rounds down instead of at random")
def _():
    from hiso_bench.first_order.codecs import Quantised

    class Never:
        def random(self, n):
            return np.ones(n)

    encode = Quantised.encode
    return patched(Quantised, "encode", lambda self, vector, rng: encode(self, vector, Never()))


@mutant("smallest-k", "hiso_bench.first_order.codecs", "top-k keeps the first entries instead of the largest")
def _():
    from hiso_bench.first_order.codecs import TopK

    encode = TopK.encode

    def first(self, vector, rng):
        order = np.arange(len(vector), 0, -1.0)
        ids = encode(self, order, rng)[: 4 * self._count(len(vector))]
        kept = np.frombuffer(ids, "<u4")
        return ids + vector[kept].astype(np.dtype(self.dtype).newbyteorder("<")).tobytes()

    return patched(TopK, "encode", first)


@mutant("yogi-is-adam", "hiso_bench.first_order.adaptive", "FedYogi averages squares as FedAdam does")
def _():
    from hiso_bench.first_order.adaptive import FedAdaptive

    serve = FedAdaptive.serve

    def adam(self, state, change):
        rule = self.rule
        object.__setattr__(self, "rule", "adam" if rule == "yogi" else rule)
        serve(self, state, change)
        object.__setattr__(self, "rule", rule)

    return patched(FedAdaptive, "serve", adam)


@mutant("hashes-not-compared", "hiso_bench.first_order.federation", "a resumed run trusts whatever it recomputes")
def _():
    from hiso_bench.first_order.federation import VectorFederation

    def trusting(self, state=None):
        self.state = state or self.state
        while self.state.round < len(self.ledger.rounds):
            self._take()

    return patched(VectorFederation, "catch_up", trusting)


@mutant(
    "clients-start-at-the-exact-model", "hiso_bench.first_order.federation", "clients start at x, not at what the wire made of it"
)
def _():
    from hiso_bench.first_order.federation import VectorFederation

    client = VectorFederation._client
    return patched(VectorFederation, "_client", lambda self, r, c, start: client(self, r, c, self.state.x))


@mutant("dropped-are-not-charged", "hiso_bench.first_order.federation", "the downlink of half the clients is not counted")
def _():
    from hiso_bench.first_order.federation import VectorFederation

    take = VectorFederation._take

    def cheap(self):
        report = take(self)
        return report._replace(record=report.record._replace(bytes_down=report.record.bytes_down // 2))

    return patched(VectorFederation, "_take", cheap)


@mutant("fedzo-of-another-radius", "hiso_bench.first_order.fedzo", "FedZO's directions are not as long as the root of d")
def _():
    from hiso_bench.first_order.fedzo import FedZO

    estimate = FedZO.estimate

    def short(self, *args):
        loss, g = estimate(self, *args)
        return loss, tuple(torch.mul(leaf, 0.5) for leaf in g)

    return patched(FedZO, "estimate", short)
