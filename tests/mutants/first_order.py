"""Planted bugs of the baselines that send vectors: server optimisers, codecs, rounds and their bytes."""

from __future__ import annotations

from tests.mutants.mutant import planted

_TESTS, _BYTES = ("contract/test_first_order.py",), ("contract/test_equal_bytes.py",)
_ADAPTIVE = "hiso_bench.first_order.adaptive:FedAdaptive"

MUTANTS = [
    planted(
        "adagrad-forgets",
        f"{_ADAPTIVE}.serve",
        "FedAdagrad decays its squares",
        ("v.add_(square)\n    ", "v.mul_(self.beta2).add_(square)\n    "),
        tests=_TESTS,
    ),
    planted(
        "adam-of-the-raw-change",
        f"{_ADAPTIVE}.serve",
        "the adaptive server steps along the change and not along its moving average",
        ("x.addcdiv_(m, scale", "x.addcdiv_(d, scale"),
        tests=_TESTS,
    ),
    planted(
        "tau-always-inside",
        f"{_ADAPTIVE}.serve",
        "tau stands inside the root in Algorithm 2 as well",
        ("v.sqrt().add_(self.tau)", "(v + self.tau).sqrt_()"),
        tests=_TESTS,
    ),
    planted(
        "squares-start-at-zero",
        f"{_ADAPTIVE}.init",
        "v starts at 0, less than Algorithm 2 admits",
        ("self.tau**2 if self.v0 < 0", "0.0 if self.v0 < 0"),
        tests=_TESTS,
    ),
    planted(
        "code-has-two-rates",
        f"{_ADAPTIVE}.local_rate",
        "one_rate is read, and the clients go on stepping by their own",
        ("self.lr if self.one_rate else self.client_lr", "self.client_lr or 1.0"),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "sum-of-changes",
        "hiso_bench.first_order.base:FirstOrder.aggregate",
        "the server adds up the changes of its clients",
        ("np.mean(changes, axis=0)", "np.sum(changes, axis=0)"),
        tests=_TESTS,
    ),
    planted(
        "votes-with-magnitude",
        "hiso_bench.first_order.fedavg:SignVote.aggregate",
        "the majority's sign is the mean of the signs",
        ("np.sign(np.sum(changes, axis=0))", "np.mean(changes, axis=0)"),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "votes-through-a-dense-wire",
        "hiso_bench.first_order.fedavg:FedCom.codec",
        "FedCOM has the levels of one bit less",
        ("Quantised(self.bits)", "Quantised(self.bits - 1)"),
        tests=_TESTS,
    ),
    planted(
        "indices-are-free",
        "hiso_bench.first_order.federation:VectorFederation._take",
        "an uplink's header is not counted",
        ("up += len(sent)", "up += len(sent) - 8"),
    ),
    planted(
        "downlink-of-those-who-answer",
        "hiso_bench.first_order.federation:VectorFederation._take",
        "a client that dropped out has received nothing",
        ("len(ids) * len(message)", "len(present) * len(message)"),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "dice-shared-by-clients",
        "hiso_bench.first_order.federation:VectorFederation._take",
        "all clients round with the same random numbers, so their errors do not average out",
        ('"codec", round=r, client=client', '"codec", round=r'),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "feedback-never-added",
        "hiso_bench.first_order.federation:VectorFederation._take",
        "a client keeps the rest of its change, and forgets to add it to the next",
        ("change = change + joined(", "joined("),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "one-memory-for-all-clients",
        "hiso_bench.first_order.federation:VectorFederation._take",
        "what one client did not send, the next one adds",
        ('f"unsent of client {client}"', '"unsent of client 0"'),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "batch-of-the-first-step",
        "hiso_bench.first_order.federation:VectorFederation._client",
        "every local step sees the first one's batch",
        ("np.array(client), r, k)", "np.array(client), r, 0)"),
    ),
    planted(
        "directions-of-client-0",
        "hiso_bench.first_order.federation:VectorFederation._client",
        "FedZO's clients draw the same directions",
        ("DirectionKey(r, k, 0, client)", "DirectionKey(r, k, 0, 0)"),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "change-from-the-exact-model",
        "hiso_bench.first_order.federation:VectorFederation._client",
        "a client's last local step is left out of its change",
        ("for k in range(self.options.local_steps)", "for k in range(max(1, self.options.local_steps - 1))"),
    ),
    planted(
        "mu-in-whitened-units",
        "hiso_bench.first_order.fedzo:FedZO.estimate",
        "FedZO evaluates the loss at mu sqrt(d) from x",
        ("self.mu / math.sqrt(layout.dimension)", "self.mu"),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "zero-has-no-sign",
        "hiso_bench.first_order.codecs:Sign.encode",
        "an entry of zero is sent as -1",
        ("vector >= 0", "vector > 0"),
    ),
    planted(
        "top-k-of-the-signed",
        "hiso_bench.first_order.codecs:TopK.encode",
        "keeps the largest entries, not those of largest magnitude",
        ("-np.abs(vector)", "-vector"),
    ),
    planted(
        "scale-rounded-to-nearest",
        "hiso_bench.first_order.codecs:Quantised.encode",
        "the scale is rounded to float32 downwards too, so the largest entry is cut or overflows",
        ("float(scale) < largest", "float(scale) < 0"),
        tests=("contract/test_first_order_rounds.py",),
    ),
    planted(
        "levels-of-one-sign",
        "hiso_bench.first_order.codecs:Quantised.levels",
        "the levels are one too many: the largest entry's code wraps round",
        ("- 1) - 1", "- 1)"),
    ),
    # Loss at equal bytes.
    planted(
        "base-model-for-free",
        "hiso_bench.equal_bytes:curve",
        "the count with the base model leaves it out",
        ("base if arm.needs_base else 0", "0"),
        tests=_BYTES,
    ),
    planted(
        "total-is-uplink",
        "hiso_bench.equal_bytes:curve",
        "the count of all bytes leaves out the downlink",
        ('told["bytes_up"] + told["bytes_down"]', 'told["bytes_up"]'),
        tests=_BYTES,
    ),
    planted(
        "one-evaluation-over-budget",
        "hiso_bench.equal_bytes:curve",
        "takes the first evaluation beyond the budget",
        ('np.searchsorted(spent, budget, "right")) - 1', 'np.searchsorted(spent, budget, "right"))'),
        tests=_BYTES,
    ),
    planted(
        "diverged-by-the-last-loss",
        "hiso_bench.equal_bytes:curve",
        "a run that diverged within the budget keeps its last loss",
        ("over = diverged and", "over = False and"),
        tests=_BYTES,
    ),
    planted(
        "pairs-chosen-by-one-rate",
        "hiso_bench.equal_bytes:choose",
        "every pair of rates wins that has the winner's rate of the server",
        ("(own[RATES] == best).all(axis=1)", '(own["lr"] == best["lr"])'),
        tests=_BYTES,
    ),
    planted(
        "mean-over-what-is-left",
        "hiso_bench.equal_bytes:choose",
        "a rate's tuning keys that diverged are left out of its mean",
        ('found["loss"].fillna(np.inf)', 'found["loss"]'),
        tests=_BYTES,
    ),
]
