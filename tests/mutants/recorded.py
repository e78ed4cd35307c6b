"""Planted bugs of records: which tables are current, how two of them compare, what is published, what a text takes."""

from __future__ import annotations

from tests.mutants.mutant import planted

MUTANTS = [
    # Records, and tables beside recorded ones.
    planted(
        "old-version-is-current",
        "hiso_bench.records:current",
        "a table of another version of its experiment counts as current",
        (' and about["version"] == version', ""),
        tests=("contract/test_records.py",),
    ),
    planted(
        "any-configuration-is-current",
        "hiso_bench.records:current",
        "a table of another configuration counts as current",
        ('about["config_hash"] == config_hash(config) and ', ""),
        tests=("contract/test_records.py",),
    ),
    planted(
        "edited-table-is-intact",
        "hiso_bench.records:read",
        "does not compare the table with the hash in its sidecar",
        ('!= about["sha256"]', '== ""'),
        tests=("contract/test_records.py",),
    ),
    planted(
        "written-in-place",
        "hiso_bench.records:write_bytes",
        "writes to the file itself: who stops it leaves half a file",
        ('path.with_name(f".{path.name}.{os.getpid()}.new")', "path"),
        tests=("contract/test_records.py",),
    ),
    planted(
        "hash-of-the-order",
        "hiso_bench.records:config_hash",
        "a configuration's name depends on the order of its entries",
        ("json.dumps(config, sort_keys=True)", "json.dumps(config)"),
        tests=("contract/test_records.py",),
    ),
    planted(
        "one-nan-equals-a-number",
        "hiso_bench.reruns:_by_column",
        "a number that has become NaN counts as equal",
        ("np.isnan(x) & np.isnan(y)", "np.isnan(x) | np.isnan(y)"),
    ),
    planted(
        "absolute-difference",
        "hiso_bench.reruns:_by_column",
        "differences are not relative: small numbers are always close",
        ("np.abs(x - y) / np.maximum(np.abs(x), np.abs(y))", "np.abs(x - y)"),
    ),
    planted(
        "names-are-not-compared",
        "hiso_bench.reruns:_by_column",
        "a text that differs counts as equal",
        ("np.where(same.to_numpy(), 0.0, np.inf)", "np.where(same.to_numpy(), 0.0, 0.0)"),
    ),
    planted(
        "seeds-without-keys",
        "hiso_bench.reproduction:reach",
        "the interval takes the mean of our keys for exact",
        ("math.sqrt(1 / n + 1 / k)", "math.sqrt(1 / n)"),
    ),
    planted(
        "reach-one-sided",
        "hiso_bench.reproduction:reach",
        "the interval has the 95 % point in place of the 97.5 % point",
        ("(1 + CHANCE) / 2", "CHANCE"),
    ),
    planted(
        "one-seed-with-normal-law",
        "hiso_bench.reproduction:reach",
        "beside a single seed the deviation of our keys is taken for the known one of many",
        ("n - 1)) * sd", "n + 99)) * sd"),
    ),
    planted(
        "reproduced-though-ended",
        "hiso_bench.reproduction:verdicts",
        "a curve of which a run ended early may count as reproduced",
        ("bool(whole and within.mean() >= ENOUGH)", "bool(within.mean() >= ENOUGH)"),
    ),
    planted(
        "early-rounds-count",
        "hiso_bench.reproduction:verdicts",
        "counts the rounds before the first one that should",
        ("rounds >= first", "rounds >= 0"),
    ),
    planted(
        "published-one-round-early",
        "vision.published:thinned",
        "step s is taken for round s, though it is the accuracy after s + 1 rounds",
        ('f["step"] + 1', 'f["step"]'),
    ),
    planted(
        "compressed-runs-kept",
        "vision.published:_setting",
        "published runs that quantise stand among those that do not",
        ('if "topk" in run or "quan" in run:', 'if "topk" in run:'),
    ),
    planted(
        "error-of-the-mean-for-sd",
        "vision.published:thinned",
        "the spread of seeds is divided by the root of their number",
        ('sd="std"', 'sd="sem"'),
    ),
    planted(
        "seeds-for-keys",
        "vision.decomfl:against",
        "counts as many of our keys as there are published seeds",
        ("row.sd, n, values.tolist()", "row.sd, n, [ours] * n"),
    ),
    # A stale table in a text.
    planted(
        "version-is-not-stale",
        "paper.stale:check",
        "a table of another version of its experiment is not stale",
        ('about["version"] != now[1]', 'about["version"] > now[1] + 99'),
    ),
    planted(
        "changed-list-is-not-stale",
        "paper.stale:_changes",
        "an entry that was added to a list makes no table stale",
        ("any(item not in recorded for item in present)", "any(item not in recorded for item in present[: len(recorded)])"),
    ),
    planted(
        "claim-against-its-pin",
        "paper.sources:Sources.claim",
        "a text takes numbers of a claim whose verdict is not the pinned one",
        ('not claim["agrees"]', 'claim["agrees"] is None'),
    ),
    planted(
        "a-digit-less",
        "paper.sources:number",
        "numbers of a text have one significant digit less",
        ("round(value, digits - 1 - size)", "round(value, digits - 2 - size)"),
    ),
    planted(
        "everything-is-fresh",
        "figures.page:_origin",
        "the gallery calls a recorded figure fresh",
        ('profiles[name] != "quick"', 'profiles[name] == "paper"'),
    ),
    planted(
        "others-are-not-told",
        "figures.page:_origin",
        "the gallery's command recomputes the first of several experiments only",
        ("(entry.experiment, *entry.also)", "(entry.experiment,)"),
    ),
    # Bytes, taken apart; printed numbers.
    planted(
        "latest-update-is-catch-up",
        "synthetic.traffic:_scalars",
        "counts the update that everybody gets as catch-up",
        ("sum(sizes[:-1])", "sum(sizes)"),
    ),
    planted(
        "one-seed-a-direction-of-all",
        "synthetic.traffic:_scalars",
        "own directions of several clients need the seeds of one",
        ("len(decoded[i].clients) if wire.independent else 1", "1"),
    ),
    planted(
        "away-a-round-less",
        "synthetic.traffic:absent",
        "a client that was away for k rounds is sent the updates of k",
        ("r - 1 - k, of.ledger.updates(r - 1 - k, r)", "r - k, of.ledger.updates(r - k, r)"),
    ),
    planted(
        "first-of-several-rows",
        "hiso_bench.quoted:number",
        "a printed number of which there are several is the first",
        ("len(found) != 1", "len(found) < 1"),
    ),
    planted(
        "printed-digits-are-exact",
        "hiso_bench.quoted:number",
        "what the printed digits leave open is nothing",
        ("0.0 if pd.isna(error) else error", "0.0"),
    ),
    planted(
        "round-without-an-update-counts",
        "paper.byte_audit:measure",
        "the first round, before which there is no update, is in the mean",
        ("traffic.counted(of, 1)", "traffic.counted(of)"),
    ),
]
