"""The same round in a checkout of the official DeComFL code, driven through its own server, clients and estimator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.cases import BenchProblem, Case, P, forward, module


def round_of(checkout: Path, case: Case) -> Callable[[], None]:
    """A function that runs one round of the official HiSo (estimator class `AdamForwardGradientEstimatorBatch`, SGD) on the CPU.

    Every client has its own copy of model, estimator and optimiser, as its main program sets them up; catch-up, local
    update, reset, aggregation and the server's update are its own.

    Raises:
        ValueError: the folder is not such a checkout.
    """
    if not (checkout / "cezo_fl" / "server.py").is_file():
        raise ValueError(f"PEER {checkout} is not a checkout of the official DeComFL code: it has no cezo_fl/server.py")
    sys.path.insert(0, str(checkout))
    from cezo_fl.client import ResetClient  # type: ignore[import-not-found]
    from cezo_fl.gradient_estimators.adam_forward import AdamForwardGradientEstimatorBatch  # type: ignore[import-not-found]
    from cezo_fl.server import CeZO_Server  # type: ignore[import-not-found]

    problem, device = BenchProblem(case), torch.device("cpu")
    base = module(case)

    def inference(model: torch.nn.Module, inputs: Any) -> torch.Tensor:
        logits = forward(case, model, (inputs, None))
        return logits if case.model == "cnn" else logits[:, -1]

    def parts() -> tuple[Any, Any, Any]:
        model = deepcopy(base)
        estimator = AdamForwardGradientEstimatorBatch(model.parameters(), mu=1e-3, num_pert=P, hessian_smooth=0.95, device=device)
        return model, torch.optim.SGD(model.parameters(), lr=1e-6), estimator

    class Batches:
        def __init__(self, client: int) -> None:
            self.client = client

        def __iter__(self) -> Iterator[Any]:
            return (problem.batch(np.array(self.client), r, 0) for r in range(10**6))

    def hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits.argmax(-1) == labels).float().mean()

    clients = []
    for i in range(case.clients):
        model, optimizer, estimator = parts()
        clients.append(ResetClient(model, inference, Batches(i), estimator, optimizer, F.cross_entropy, hits, device))
    server = CeZO_Server(clients, device, num_sample_clients=case.sampled, local_update_steps=1)
    model, optimizer, estimator = parts()
    server.set_server_model_and_criterion(model, inference, F.cross_entropy, hits, optimizer, estimator)
    rounds = iter(range(10**6))

    def run() -> None:
        with torch.no_grad():
            server.train_one_step(next(rounds))

    return run
