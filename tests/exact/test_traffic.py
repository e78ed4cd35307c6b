"""The byte audit: parts sum to ledger totals, scalars do not depend on d, planted errors are seen, and the figure is drawn."""

import pandas as pd
import pytest

from figures import byte_audit as picture
from figures import style
from hiso_bench import methods, quoted
from hiso_bench.audit import Client
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.ledger import LedgerError
from paper import byte_audit
from synthetic import traffic
from synthetic.quadratic import Quadratic

KEY = 3


def run(name, d=12, clients=4, sampled=2, rounds=8, **options):
    return traffic.run(name, d, clients, sampled, rounds, KEY, **options)


@pytest.mark.parametrize("name", byte_audit.names())
def test_the_parts_are_the_ledgers_totals_and_scalars_do_not_depend_on_the_dimension(name):
    small, large = (run(name, d) for d in (12, 48))
    found = traffic.counted(small)
    total = {way: sum(getattr(record, f"bytes_{way}") for record in small.ledger.rounds) for way in ("up", "down")}
    assert (found.up * 4 * 8, found.down * 4 * 8) == pytest.approx((total["up"], total["down"]))
    assert found.messages > found.numbers > 0 and found.catch_up < found.down
    same = found == traffic.counted(large)
    scalars = name in methods.PRESETS
    assert same == scalars and (found.seeds > 0) == (found.catch_up > 0) == scalars
    assert ("base model" in byte_audit.needs(name)) == scalars
    assert (traffic.newcomer(small).base, traffic.absent(small, 3) == traffic.absent(large, 3)) == (48 * scalars, scalars)


def test_with_every_client_in_every_round_nothing_is_caught_up_and_hiso_costs_what_its_tables_charge():
    found = traffic.counted(run("hiso", sampled=4), 1)
    assert found == (8 + 20, 8 + 2 + 20, 0, 40, 20)
    row = 4 * 20  # the printed rule of section 4.2 needs the scalars of every client
    assert traffic.counted(run("hiso-a", sampled=4), 1) == (8 + 20, 8 + 2 + row, 0, 20 + row, 20)


def test_own_directions_need_a_seed_for_every_client_that_drew_them():
    found = []
    for independent in (False, True):
        options = FederationOptions(sampled=2, key=KEY, independent=independent)
        of = methods.build("decomfl", lr=1e-3).federate(Quadratic(12, clients=4), options)
        for _ in range(8):
            of.round()
        found.append(traffic.counted(of))
    assert found[1].seeds == 2 * found[0].seeds > 0 and found[1].up == found[0].up


@pytest.mark.parametrize("name", ["hiso", "feedsign", "curvature", "hiso-a"])
def test_absence_costs_what_the_next_rounds_downlink_costs(name):
    of, seen = run(name, clients=2, sampled=1, rounds=1), {}
    seen[of.ledger.rounds[0].answered[0]] = 0
    lengths = set()
    for r in range(1, 30):
        told = [traffic.absent(of, k) for k in range(r)]
        record = of.round().record
        (client,) = record.answered
        if client in seen:
            k = r - seen[client] - 1
            assert told[k] == record.bytes_down
            lengths.add(k)
        seen[client] = r
    assert len(lengths) > 2


def test_what_a_newcomer_needs_brings_it_to_the_servers_state():
    of = run("hiso")
    entry = traffic.newcomer(of)
    client = Client(of.problem, of.method, of.options)
    message = of.wire.encode_downlink(8, 0, of.ledger.updates(0, 8))
    client.receive(message)
    assert client.state.fingerprint() == of.state.fingerprint()
    assert entry == (4 * 12, len(message), 2 * 4 * 12)


def test_a_record_that_holds_another_total_is_found():
    for name in ("decomfl", "fedavg"):
        of = run(name)
        of.ledger.rounds[5] = of.ledger.rounds[5]._replace(bytes_down=1)
        with pytest.raises(LedgerError, match="round 5 has .* 1 down in the ledger, and its"):
            traffic.counted(of)
    of = run("fedavg")
    of.ledger.rounds[2] = of.ledger.rounds[2]._replace(bytes_up=95)
    with pytest.raises(LedgerError, match="round 2 has 95 bytes up"):
        traffic.counted(of)


def test_a_server_that_leaves_out_the_catch_up_is_found(monkeypatch):
    monkeypatch.setattr(
        Federation,
        "_catch_up_message",
        lambda self, r, client: self.wire.encode_downlink(r, max(r - 1, 0), self.ledger.updates(max(r - 1, 0), r)),
    )
    with pytest.raises(LedgerError, match="in the ledger, and its messages"):
        traffic.counted(run("decomfl"))


def test_what_cannot_be_counted_is_refused():
    of = run("decomfl", rounds=3)
    with pytest.raises(ValueError, match="first 3 of 3 rounds"):
        traffic.counted(of, 3)
    with pytest.raises(ValueError, match="< 3, the rounds so far; got 3"):
        traffic.absent(of, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The tables of four methods and few rounds."""
    monkeypatch.setattr(byte_audit, "names", lambda: ["decomfl", "hiso-oracle", "hiso-a", "fedavg", "fedzo"])
    for name, value in {"DIMENSIONS": (8, 32), "ROUNDS": 12, "FEW": 3, "ABSENT": (2, 10)}.items():
        monkeypatch.setattr(byte_audit, name, value)
    byte_audit.BYTE_AUDIT.compare(tmp_path, tmp_path, tmp_path, 1)
    return tmp_path


def test_the_tables_hold_both_federations_and_the_figure_shows_methods_of_equal_bytes_together(folder):
    table, about, charges = (pd.read_csv(folder / f"byte_audit{part}.csv") for part in ("", "_methods", "_charges"))
    everyone = table[(table["sampled"] == 6) & (table["method"] == "decomfl")].set_index("quantity")["value"]
    assert everyone["numbers"] == charges.loc[charges["method"] == "hiso", "charged"].item() == 40
    assert charges["charged"].tolist() == pytest.approx([40, 60, 0.2 * 4 * 8, 0.2 * 4 * 32])
    rows = picture.grouped(table, about)
    assert [row.methods for row in rows] == [("decomfl", "hiso-oracle"), ("hiso-a",), ("fedavg", "fedzo")]
    assert rows[0].names == "decomfl, hiso-oracle*" and rows[0].title == "5 scalars"
    assert rows[2].values["entry"].tolist() == [4 + 4 * 8, 4 + 4 * 32]
    figure = picture.draw(folder, "computed in a test")
    figure.canvas.draw()
    assert any("computed in a test" in text.get_text() for text in figure.findobj(style.plt.Text))
    style.plt.close(figure)


def test_the_printed_charge_is_that_of_the_reported_table(folder):
    charges = pd.read_csv(folder / "byte_audit_charges.csv").set_index("method")
    table = quoted.table("hiso_table2").pivot_table(index=["model", "task", "method"], columns="quantity", values="value")
    each = table["communication"] * 1024 / table["rounds"]
    assert charges.loc["hiso", ["low", "high"]].tolist() == pytest.approx([each.min(), each.max()])
