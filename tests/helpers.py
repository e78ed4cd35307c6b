"""What the tests share: two small problems, methods by name, and the exact bits of a state."""

import dataclasses
import math

import numpy as np
import torch
from torch import nn

from hiso_bench import keys, methods
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.layer_inputs import linear_inputs
from hiso_bench.losses import ModuleLoss, cross_entropy, layout_of
from hiso_bench.testing import some_inputs
from synthetic.quadratic import Quadratic


def quadratic(replicates=(), **more):
    """Twelve dimensions, six different clients, noisy gradients; float64."""
    return Quadratic(
        **{"dimension": 12, "parameter": 1.0, "clients": 6, "heterogeneity": 0.3, "noise": 0.05, "replicates": replicates} | more
    )


class TinyNet:
    """Six clients, each with examples of its own, and a network of four leaves (75 parameters, float32)."""

    name, metric, higher_is_better, clients = "tiny", "loss", False, 6

    def __init__(self, replicates=(), mode="loop"):
        net = (
            nn.Sequential(nn.Linear(4, 9, device="meta"), nn.Tanh(), nn.Linear(9, 3, device="meta")).to_empty(device="cpu").eval()
        )
        draw = keys.rng(keys.derive(0, "init"))
        for p in net.parameters():
            p.data.copy_(torch.from_numpy(0.5 * draw.standard_normal(p.shape)))
        self.loss = ModuleLoss(net, cross_entropy, mode, replicate_axes=len(replicates))
        self.layout = layout_of(self.loss, replicates)
        self.features = torch.from_numpy(draw.standard_normal((6, 5, 4)).astype(np.float32))
        self.labels = torch.from_numpy(draw.integers(0, 3, (6, 5)))

    def initial(self):
        return tuple(leaf.expand(self.layout.shape(i)).clone() for i, leaf in enumerate(self.loss.base_point()))

    def batch(self, client, round_, step):
        return self.features[torch.as_tensor(client)], self.labels[torch.as_tensor(client)]

    def evaluate(self, x):
        return {"loss": float(self.loss.each(x, [self.batch(np.array(c), 0, 0) for c in range(6)]).mean())}

    def layer_inputs(self, x, examples, draw):
        shared = torch.from_numpy(keys.rng(keys.derive(1, "shared", draw=draw)).standard_normal((examples, 4)).astype(np.float32))
        return linear_inputs(self.loss, x, (shared, torch.zeros(examples, dtype=torch.int64)))

    def describe(self):
        return {"mode": self.loss.mode}


PROBLEMS = {"quadratic": quadratic, "module": TinyNet}


def build(name, problem, **options):
    """A method by name with options under which all of it shows within a few rounds; an oracle is given some H."""
    given = {"lr": 0.05, "perturbations": 3} | options
    if "h" in {field.name for field in dataclasses.fields(methods.PRESETS[name][0])}:
        shapes = problem.layout.leaf_shapes
        given |= {"h": tuple(torch.linspace(0.2, 2, math.prod(shape), dtype=torch.float64).reshape(shape) for shape in shapes)}
    if name == "agzo":
        inputs = getattr(problem, "layer_inputs", some_inputs)
        given = {"rank": 2, "window": 2, "basis_examples": 5, "inputs": inputs} | given
    if name in ("safe-step", "curvature", "curvature-block"):
        given = {"burn_in": 2} | given
    if name == "hiso-frozen":
        given |= {"freeze_after": 3}
    return methods.build(name, given)


def federation(problem, name="hiso", method=None, **options):
    return Federation(problem, build(name, problem, **method or {}), FederationOptions(**{"sampled": 3} | options))


def run(federation, rounds):
    """Take some rounds and return the federation."""
    for _ in range(rounds):
        federation.round()
    return federation


def update(federation, round_):
    """What a round agreed on."""
    return federation.wire.decode_update(federation.ledger.rounds[round_].update)


def bits(state):
    """The exact bits of x and every buffer, and the round: equal if and only if nothing differs."""
    return {"round": state.round} | {
        name: [leaf.numpy().tobytes() for leaf in point] for name, point in {"x": state.x, **state.buffers}.items()
    }
