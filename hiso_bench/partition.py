"""Who holds which example: IID and Dirichlet splits over clients, and batches drawn from a client.

Every function is deterministic in its arguments and the NumPy generator handed in; none touches
global random state. A split is a list with one int64 index array per client: ascending, disjoint,
together covering every example exactly once.
"""

from __future__ import annotations

import heapq
import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]

# Beyond this the gamma draws behind a Dirichlet vector overflow; long before it the split is uniform.
MAX_ALPHA = 1e9


def iid(n_examples: int, clients: int, rng: np.random.Generator) -> list[Indices]:
    """Uniformly random split into parts whose sizes differ by at most one.

    Args:
        n_examples: Number of examples N.
        clients: Number of clients M, 1 <= M <= N.
        rng: Generator to draw from.

    Returns:
        M ascending int64 arrays that partition ``range(N)``, the larger ones first.

    Raises:
        ValueError: ``clients`` is outside 1..N.
    """
    n_examples, clients = _count("n_examples", n_examples), _count("clients", clients)
    if clients > n_examples:
        raise ValueError(f"clients is {clients}; allowed: 1 to the number of examples, {n_examples}")
    return [np.sort(part) for part in np.array_split(rng.permutation(n_examples), clients)]


def dirichlet(labels: ArrayLike, clients: int, alpha: float, rng: np.random.Generator, minimum: int = 4) -> list[Indices]:
    r"""Label-skewed split: every class is shared out by its own Dirichlet draw over the clients.

    For each class c of n_c examples (Yurochkin et al. 2019, arXiv:1905.12022; Hsu et al. 2019,
    arXiv:1909.06335, draw a Dirichlet over the classes for each client instead): draw
    :math:`p \sim \mathrm{Dir}(\alpha 1_M)`, shuffle the class and cut it at
    :math:`\lfloor n_c (p_1 + \dots + p_j) + u \rfloor`, with one :math:`u \sim U[0, 1)` per class, so that
    client j gets :math:`n_c p_j` examples in expectation. As alpha grows this approaches equal shares
    of every class; as alpha goes to 0, each class goes to one client.

    Clients left with fewer than ``minimum`` examples are then filled one after the other, an example
    at a time, by the client that holds the most at that moment; it gives a random one of its own.
    Turns and ties follow one random order of the clients, so no client is favoured by its number.
    This takes at most M * minimum steps for every alpha, where redrawing until all clients hold
    enough need not end, and takes no client below ``minimum``. Small alpha with many clients thus
    moves many examples, and the split is less skewed than the plain rule.

    Args:
        labels: Integer class of each example, shape (N,); any integers will do.
        clients: Number of clients M >= 1.
        alpha: Concentration, 0 < alpha <= 1e9.
        rng: Generator to draw from; how much is drawn does not depend on ``minimum``.
        minimum: Least number of examples of a client, >= 1, with M * minimum <= N.

    Returns:
        M ascending int64 arrays that partition ``range(N)``, each of at least ``minimum`` entries.

    Raises:
        ValueError: An argument is outside the range above; the message names it.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels is {labels.dtype} of shape {labels.shape}; allowed: integers of shape (N,)")
    clients, minimum = _count("clients", clients), _count("minimum", minimum)
    if not 0 < alpha <= MAX_ALPHA:
        raise ValueError(f"alpha is {alpha}; allowed: 0 < alpha <= {MAX_ALPHA:g} (for equal shares use iid)")
    if clients * minimum > len(labels):
        raise ValueError(
            f"clients is {clients} with minimum {minimum}; allowed: clients * minimum <= the number of examples, {len(labels)}"
        )
    owner = _owners(labels, clients, alpha, rng)
    # A stable sort of a shuffled list: each client's examples in random order.
    order = rng.permutation(len(labels))
    order = order[np.argsort(owner[order], kind="stable")]
    sizes = np.bincount(owner, minlength=clients)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [np.sort(part) for part in _filled(parts, minimum, turns=rng.permutation(clients))]


def sample_batch(indices: Indices, size: int, rng: np.random.Generator) -> Indices:
    """A uniformly random batch of one client's examples.

    Args:
        indices: The client's examples, shape (n,), n >= 1.
        size: Length B >= 1 of the batch.
        rng: Generator to draw from.

    Returns:
        Entries of ``indices``, shape (B,), in random order: without replacement if n >= B, else with
        replacement, so that a batch has the length asked for whoever draws it.

    Raises:
        ValueError: ``size`` < 1 or ``indices`` is empty.
    """
    size = _count("size", size)
    if len(indices) == 0:
        raise ValueError("indices is empty; allowed: at least one example")
    return rng.choice(indices, size=size, replace=len(indices) < size)


def _owners(labels: NDArray, clients: int, alpha: float, rng: np.random.Generator) -> Indices:
    """Client of each example by the class-wise rule, before the minimum; shape (N,)."""
    owner = np.empty(len(labels), dtype=np.int64)
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class])) + 1
    for members in np.split(by_class, starts):
        n = len(members)
        cumulative = np.cumsum(rng.dirichlet(np.full(clients, float(alpha))))[:-1]
        # The shared offset makes expected shares exact, and classes round in favour of different clients.
        cuts = np.minimum(np.floor(n * cumulative + rng.random()), n).astype(np.int64)
        shares = np.diff(cuts, prepend=0, append=n)
        owner[rng.permutation(members)] = np.repeat(np.arange(clients), shares)
    return owner


def _filled(parts: list[Indices], minimum: int, turns: Indices) -> list[Indices]:
    """The same examples with every part at least ``minimum`` long; donors give from their end."""
    kept = [len(part) for part in parts]
    gifts: list[list[np.int64]] = [[] for _ in parts]
    largest = [(-kept[client], turn, client) for turn, client in enumerate(turns)]
    heapq.heapify(largest)
    for client in turns:
        for _ in range(minimum - kept[client]):
            negative, turn, donor = largest[0]
            kept[donor] -= 1
            gifts[client].append(parts[donor][kept[donor]])
            heapq.heapreplace(largest, (negative + 1, turn, donor))
    return [
        np.concatenate([part[:size], np.array(gift, dtype=np.int64)]) for part, size, gift in zip(parts, kept, gifts, strict=True)
    ]


def _count(name: str, value: int) -> int:
    """``value`` as a Python int >= 1."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} is {value}; allowed: an integer >= 1")
    return number
