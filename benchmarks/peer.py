"""The same round in a checkout of the official DeComFL code, driven through its own server, clients and estimator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases import P

Inference = Callable[[nn.Module, Any], Tensor]
"""(model, inputs) -> logits (examples, classes or tokens), as the official `model_inference`."""


def round_of(
    checkout: Path,
    base: nn.Module,
    inference: Inference,
    batch: Callable[[int, int], tuple[Any, Tensor]],
    clients: int,
    sampled: int,
    local_steps: int = 1,
    device: torch.device | str = "cpu",
) -> Callable[[], None]:
    """A function that runs one round of the official HiSo (estimator class `AdamForwardGradientEstimatorBatch`, SGD).

    Every client has its own copy of model, estimator and optimiser, as its main program sets them up; catch-up, local
    update, reset, aggregation and the server's update are its own.

    Args:
        checkout: of the official code.
        base: the model, on `device`; copied.
        inference: how it is called.
        batch: (client, how many batches it has had) -> (inputs, labels).
        clients: how many there are.
        sampled: how many of them take part in a round.
        local_steps: tau.
        device: where everything lives.

    Raises:
        ValueError: the folder is not such a checkout.
    """
    if not (checkout / "cezo_fl" / "server.py").is_file():
        raise ValueError(f"PEER {checkout} is not a checkout of the official DeComFL code: it has no cezo_fl/server.py")
    sys.path.insert(0, str(checkout))
    from cezo_fl.client import ResetClient  # type: ignore[import-not-found]
    from cezo_fl.gradient_estimators.adam_forward import AdamForwardGradientEstimatorBatch  # type: ignore[import-not-found]
    from cezo_fl.server import CeZO_Server  # type: ignore[import-not-found]

    device = torch.device(device)
    dtype = next(base.parameters()).dtype

    def parts() -> tuple[Any, Any, Any]:
        model = deepcopy(base)
        estimator = AdamForwardGradientEstimatorBatch(
            model.parameters(), mu=1e-3, num_pert=P, hessian_smooth=0.95, device=device, torch_dtype=dtype
        )
        return model, torch.optim.SGD(model.parameters(), lr=1e-6), estimator

    class Batches:
        def __init__(self, client: int) -> None:
            self.client = client

        def __iter__(self) -> Iterator[Any]:
            return (batch(self.client, r) for r in range(10**6))

    def hits(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.argmax(-1) == labels).float().mean()

    members = []
    for i in range(clients):
        model, optimizer, estimator = parts()
        members.append(ResetClient(model, inference, Batches(i), estimator, optimizer, F.cross_entropy, hits, device))
    server = CeZO_Server(members, device, num_sample_clients=sampled, local_update_steps=local_steps)
    model, optimizer, estimator = parts()
    server.set_server_model_and_criterion(model, inference, F.cross_entropy, hits, optimizer, estimator)
    rounds = iter(range(10**6))

    def run() -> None:
        with torch.no_grad():
            server.train_one_step(next(rounds))

    return run
