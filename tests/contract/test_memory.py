"""Memory holds a few copies of x, and nothing that grows with the number of clients, of participants or of directions."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SCRIPT = """
import json, sys
import numpy as np, torch
from torch import nn
from hiso_bench import keys, methods
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import ModuleLoss, layout_of

class Problem:
    def __init__(self, clients):
        sizes = [(784, 800), (800, 400), (400, 10)]
        layers = [part for a, b in sizes for part in (nn.Linear(a, b, device="meta"), nn.ReLU())]
        net = nn.Sequential(*layers).to_empty(device="cpu").eval()
        for p in net.parameters():
            p.data.fill_(0.01)
        self.clients = clients
        self.loss = ModuleLoss(net, lambda call, batch: call(batch[0]).square().mean(1))
        self.layout = layout_of(self.loss)
    def initial(self):
        return self.loss.base_point()
    def batch(self, client, round_, step):
        rng = keys.rng(keys.derive(0, "batch", client=int(client), round=round_, step=step))
        return (torch.from_numpy(rng.random((4, 784), dtype=np.float32)),)

torch.set_num_threads(1)
clients, sampled, directions = json.loads(sys.argv[1])
method = methods.build("hiso", lr=1e-9, perturbations=directions)
f = Federation(Problem(clients), method, FederationOptions(sampled=sampled, local_steps=2, cache_bytes=0))
for _ in range(2):
    f.round()
# Not ru_maxrss: a child process inherits that of its parent, which would hide what it needs itself.
(peak,) = [line for line in open("/proc/self/status").read().splitlines() if line.startswith("VmHWM")]
print(json.dumps([f.problem.layout.dimension, 1024 * int(peak.split()[1])]))
"""


def peaks(*settings):
    """(d, peak bytes) of runs with (clients, sampled, directions), each in a process of its own, at the same time."""

    def run(setting):
        command = [sys.executable, "-c", SCRIPT, json.dumps(setting)]
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with ThreadPoolExecutor(len(settings)) as pool:
        return list(pool.map(run, settings))


def test_memory_grows_neither_with_clients_nor_with_participants_nor_with_directions():
    (d, few), (_, many), (_, busy) = peaks((8, 4, 2), (1000, 4, 2), (12, 12, 6))
    assert 0.9e6 < d < 1.1e6
    assert abs(many / few - 1) < 0.05
    assert abs(busy / few - 1) < 0.05
