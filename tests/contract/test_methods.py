"""What every registered method owes the federation, and a new one of a few lines with it."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from hiso_bench import method_protocol, methods
from hiso_bench.directions import DirectionKey, Warped
from hiso_bench.federation import FederationOptions
from hiso_bench.messages import Update
from hiso_bench.method_protocol import Subject
from hiso_bench.methods import Method
from hiso_bench.replay import replay
from hiso_bench.training import Run, Schedule, header
from tests.helpers import PROBLEMS, bits, build, federation, quadratic, run


class SignVote(Method):
    """Clients vote on the sign of every scalar; the server sends the sign of the vote."""

    linear_in_scalars = False

    def combine(self, scalars):
        return scalars.sign().nansum(0, keepdim=True).sign()


NAMES = [*methods.PRESETS, "sign-vote"]


@pytest.fixture(autouse=True, scope="module")
def registered():
    methods.register("sign-vote", SignVote, perturbations=3)
    yield
    del methods.PRESETS["sign-vote"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=PROBLEMS)
def f(request, name):
    """A federation after three rounds of two local steps."""
    return run(federation(PROBLEMS[request.param](), name, {"momentum": 0.5}, local_steps=2), 3)


def warped(f):
    return Warped(f.directions, f.method.warp(f.state))


def rows(f, count=3):
    """Made-up scalars of some clients: (count, tau, P + nc)."""
    size = (count, *f.wire.row_shape)
    return torch.arange(float(math.prod(size)), dtype=torch.float64).square().cos().reshape(size)


def steps(f, scalars):
    return f.wire.steps(f.state.round, Update((), f.method.combine(scalars)))


def test_init_copies_x_and_puts_the_replicate_axes_in_front_of_every_buffer(name):
    for problem in (quadratic(), quadratic((2,)), PROBLEMS["module"]()):
        x = problem.initial()
        before = [leaf.clone() for leaf in x]
        first, second = (build(name, problem, momentum=0.5).init(x, problem.layout) for _ in range(2))
        assert bits(first) == bits(second)
        assert first.round == 0
        assert [(leaf.shape, leaf.dtype) for leaf in first.x] == [(leaf.shape, leaf.dtype) for leaf in x]
        axes = len(problem.layout.replicate_shape)
        for leaf in (leaf for point in (first.x, *first.buffers.values()) for leaf in point):
            assert leaf.shape[:axes] == problem.layout.replicate_shape
            leaf.add_(1)  # neither shared with x nor between states
        assert all(torch.equal(a, b) for a, b in zip(x, before, strict=True))
        assert bits(first) != bits(second)


def test_warp_writes_z_over_u_and_leaves_the_state(f):
    before, warp = bits(f.state), f.method.warp(f.state)
    u, again = f.directions.draw(DirectionKey(9, 0, 0)), f.directions.draw(DirectionKey(9, 0, 0))
    drawn = [leaf.clone() for leaf in u]
    z = warp(u)
    assert [leaf.data_ptr() for leaf in z] == [leaf.data_ptr() for leaf in u]
    assert all(torch.equal(a, b) for a, b in zip(z, warp(again), strict=True))
    if "basis" in f.state.buffers:  # an orthogonal projection
        assert all(torch.allclose((a * b).sum(), (a * a).sum(), rtol=1e-5) for a, b in zip(z, drawn, strict=True))
    else:
        assert all(torch.equal(a.sign(), b.sign()) for a, b in zip(z, drawn, strict=True))  # H is diagonal and positive
    assert bits(f.state) == before


def test_measure_gives_float64_scalars_twice_the_same_and_leaves_the_state(f):
    before = bits(f.state)
    batches = [f.problem.batch(np.array(c), 3, 0) for c in (0, 2)]
    keys = [DirectionKey(3, 0, p) for p in range(3)]
    buffer = tuple(torch.empty_like(leaf) for leaf in f.state.x)
    found = [f.method.measure(f.problem.loss, f.state.layout, f.state.x, warped(f), keys, batches, buffer) for _ in range(2)]
    assert (found[0].scalars.shape, found[0].loss.shape) == ((2, 3 + f.method.curvatures), (2,))
    assert found[0].scalars.dtype == found[0].loss.dtype == torch.float64
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    slopes = found[0].scalars[:, :3]  # equal Hessians have equal second differences
    assert slopes[0].ne(slopes[1]).all()
    assert bits(f.state) == before


def test_combine_sends_one_row_or_all_and_passes_over_who_did_not_answer(f):
    scalars = rows(f)
    before = scalars.clone()
    sent = f.method.combine(scalars)
    assert sent.shape in (scalars[:1].shape, scalars.shape)
    assert torch.equal(sent, f.method.combine(scalars))
    assert torch.equal(scalars, before)
    if len(sent) == 1:
        silent = torch.cat([scalars[:1], torch.full_like(scalars[:1], torch.nan), scalars[1:]])
        assert torch.equal(f.method.combine(silent), sent)


def test_move_changes_x_and_momentum_in_place_and_learn_everything_but_x(f):
    z, dx = warped(f), tuple(torch.empty_like(leaf) for leaf in f.state.x)
    places, before = [leaf.data_ptr() for leaf in f.state.x], bits(f.state)
    agreed = steps(f, rows(f))
    for step in agreed:
        f.method.move(f.state, f.method.direction(step, f.state.layout, z, out=dx), step)
    moved = bits(f.state)
    assert {part for part in moved if moved[part] != before[part]} == {"x", "momentum"}
    f.method.learn(f.state, agreed, z, dx)
    learned = bits(f.state)
    assert {part for part in learned if learned[part] != moved[part]} <= set(f.state.buffers) - {"momentum"}
    assert [leaf.data_ptr() for leaf in f.state.x] == places


def test_replay_is_in_place_and_depends_on_nothing_but_the_state_and_the_update(f):
    agreed, twin = steps(f, rows(f)), f.state.copy()
    places = {part: [leaf.data_ptr() for leaf in point] for part, point in {"x": f.state.x, **f.state.buffers}.items()}
    replay(f.method, f.state, agreed, f.directions)
    assert {part: [leaf.data_ptr() for leaf in point] for part, point in {"x": f.state.x, **f.state.buffers}.items()} == places
    other = build_again(f)
    replay(other, twin, agreed, f.directions, z=None)
    assert bits(twin) == bits(f.state)


def build_again(f):
    """The same method as a new object: what a replay needs must not hide in the old one."""
    return type(f.method)(**{field.name: getattr(f.method, field.name) for field in dataclasses.fields(f.method)})


def holds(rows):
    return [row for row in rows if row.verdict != method_protocol.HOLDS] == []


def subject(name, problem):
    return Subject(name, lambda **options: build(name, problem, **options))


@pytest.mark.parametrize("check", [method_protocol.hidden_state, method_protocol.measuring, method_protocol.from_messages])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_protocol_s_checks_hold_on_every_problem(name, kind, check):
    problem = PROBLEMS[kind]()
    assert holds(check(subject(name, problem), problem))


def test_a_method_is_frozen(f):
    with pytest.raises(dataclasses.FrozenInstanceError):
        f.method.lr = 1.0


def test_the_flag_says_whether_averaging_scalars_averages_end_points(name):
    problem = quadratic()
    assert holds(method_protocol.linearity(subject(name, problem), problem))


def test_a_header_is_json_and_a_ledger_is_resumed_by_it(name, tmp_path):
    problem = quadratic()
    method, options, schedule = build(name, problem), FederationOptions(sampled=2), Schedule(rounds=3, evaluate_every=2)
    described = header(problem, name, method, options, schedule)
    assert json.loads(json.dumps(described, allow_nan=False))["run"]["method"]["name"] == name
    given = {field.name for field in dataclasses.fields(method)}
    assert set(described["run"]["method"]) == given | {"name"}
    first = Run(problem, name, method, options, schedule, tmp_path).go()
    first.ledger.close()
    again = Run(problem, name, build(name, problem), options, schedule, tmp_path).go()
    again.ledger.close()
    assert again.resumed
    assert bits(again.federation.state) == bits(first.federation.state)


def test_unknown_options_are_refused_and_the_known_ones_listed(name):
    with pytest.raises(ValueError, match=rf"method {name} has no option 'learning_rate'; allowed: .*\blr\b"):
        build(name, quadratic(), learning_rate=0.1)
    assert "perturbations" in methods.options(name)


@pytest.mark.parametrize("tau", [1, 3])
def test_h_is_positive_and_finite_after_fifty_rounds(name, tau):
    f = run(federation(quadratic(), name, {"momentum": 0.5}, local_steps=tau), 50)
    for part, point in f.state.buffers.items():
        assert all(leaf.isfinite().all() for leaf in point)
        assert part not in ("h", "sigma") or all((leaf > 0).all() for leaf in point)
    assert f.state.x[0].isfinite().all()


def test_unknown_methods_and_taken_names_are_refused():
    with pytest.raises(ValueError, match="method 'hisso' is unknown; did you mean hiso\\? allowed: decomfl, hiso, "):
        methods.build("hisso", lr=0.1)
    with pytest.raises(ValueError, match="method 'hiso' is already registered"):
        methods.register("hiso", SignVote)
    with pytest.raises(ValueError, match="SignVote has no option threshold"):
        methods.register("other", SignVote, threshold=1)
    assert "other" not in methods.PRESETS
