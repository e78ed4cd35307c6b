"""An encoder's loss depends on its texts alone: not on padding, batches, or on which layers ran before; and its scalars are
derivatives."""

import numpy as np
import pytest
import torch
from torch.func import jvp

pytest.importorskip("transformers", reason="the extra llm is not installed")

from hiso_bench import methods
from hiso_bench.differences import measure
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import Federation, FederationOptions
from hiso_bench.losses import layout_of
from llm import encoder, encoder_problem
from llm.encoder_problem import EncoderLoss, EncoderProblem, Inputs
from llm.evaluation import classify
from tests import llm_encoders

# torch.func.jvp imports what torch itself makes with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

EVERY_DEPTH = pytest.mark.parametrize("layers", range(llm_encoders.LAYERS + 1))
TOKENS = torch.tensor([[2, 9, 17, 30, 8, 3, 0, 0], [2, 40, 41, 12, 75, 76, 50, 3]])
MASK = (TOKENS > 0).long()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    llm_encoders.save(folder / "bert")
    llm_encoders.write_data(folder / "data")
    return folder


@pytest.fixture
def build(place, monkeypatch):
    monkeypatch.setenv("HISO_BENCH_DATA", str(place / "data"))
    return lambda **options: EncoderProblem(**{"model": str(place / "bert"), "batch_size": 4, "layers": 2} | options)


def module(place, layers, classes=2):
    made = encoder.load(str(place / "bert"), classes, layers).module
    made.head.weight.data.mul_(50)  # far from equal classes
    return made


def by_the_library(made, ids):
    """Logits of one text by transformers' own forward pass and the definition of the mean."""
    with torch.inference_mode():
        return made.head(made.bert(input_ids=ids[None], attention_mask=torch.ones_like(ids[None])).last_hidden_state.mean(1))[0]


@EVERY_DEPTH
def test_frozen_layers_then_trained_ones_are_the_whole_encoder_whatever_is_padded(place, layers):
    made = module(place, layers)
    with torch.inference_mode():
        inputs = made.frozen(TOKENS, MASK) if made.first else TOKENS
        logits = made(inputs, MASK)
        spoiled = inputs.masked_fill(MASK.reshape(*MASK.shape, *[1] * (inputs.ndim - 2)) == 0, 7)
        assert torch.equal(made(spoiled, MASK), logits)
    for ids, row in zip((TOKENS[0, :6], TOKENS[1]), logits, strict=True):
        torch.testing.assert_close(row, by_the_library(made, ids), rtol=1e-5, atol=1e-6)
    assert (logits[0] - logits[1]).abs().max() > 1e-2


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_what_is_trained_is_the_last_layers_and_the_head(place, layers):
    named = [name for name, p in module(place, layers).named_parameters() if p.requires_grad]
    trained = {name.split(".")[3] for name in named if ".layer." in name}
    assert trained == {str(i) for i in range(3 - layers, 3)}
    assert {"head.weight", "head.bias"} <= set(named)
    assert any("embeddings" in name for name in named) == (layers == 3)


def test_hidden_states_have_the_same_bits_whatever_was_asked_for_before(build):
    problem = build()
    texts, device = problem.train, problem.device
    forward, backward = (Inputs(problem.module, texts, device) for _ in range(2))
    straight = [forward[i] for i in range(len(texts))]
    with torch.inference_mode():  # as in an evaluation
        mixed = [backward[i] for i in reversed(range(len(texts)))][::-1]
    assert all(map(torch.equal, straight, mixed))
    assert not any(row.is_inference() for row in mixed)
    for i in (0, 5, 17):
        ids = torch.tensor(texts.prompts[i])
        torch.testing.assert_close(straight[i], problem.module.frozen(ids[None])[0], rtol=1e-5, atol=1e-6)


def test_the_frozen_layers_see_every_text_once_in_all_runs_of_a_process(build, monkeypatch):
    monkeypatch.setattr(encoder_problem, "_shared", type(encoder_problem._shared)())
    seen = []
    frozen = encoder.Classifier.frozen
    monkeypatch.setattr(encoder.Classifier, "frozen", lambda made, ids, mask=None: (seen.append(len(ids)), frozen(made, ids))[1])
    for key in range(3):
        problem = build(key=key, split="iid")
        for _ in range(2):
            problem.evaluate(problem.initial())
            problem.pooled(np.arange(len(problem.train)))
    assert sum(seen) == len(problem.train) + len(problem.held_out)
    other = build(layers=1)
    other.pooled(np.arange(4))
    assert sum(seen) > len(problem.train) + len(problem.held_out)


def test_modes_agree_and_scores_are_equal_under_every_batch_size(build):
    loop, clients = build(), build(mode="clients")
    x = loop.initial()
    batches = [loop.batch(np.array(c), 0, 0) for c in range(3)]
    assert len({batch[0].shape[1] for batch in batches}) > 1
    torch.testing.assert_close(clients.loss.each(x, batches), loop.loss.each(x, batches), rtol=1e-6, atol=0)

    def logits(chunk):
        inputs, mask = loop._held_out.batch(chunk)
        return loop.loss.outputs(x, inputs=inputs, attention_mask=mask)

    one, *more = (classify(logits, loop.held_out, size) for size in (1, 3, 50))
    for scores in more:
        assert scores.predictions == one.predictions
        np.testing.assert_allclose(scores.each["loss"], one.each["loss"], rtol=1e-5)
    assert loop.scores(x).predictions == one.predictions and len(set(one.predictions)) == 2
    i = 7
    alone = by_the_library(filled(loop, x), torch.tensor(loop.held_out.prompts[i])).double()
    assert one.each["loss"][i] == pytest.approx(float(-alone.log_softmax(0)[loop.held_out.labels[i]]), rel=1e-5)


def filled(problem, x):
    """A module of its own with the leaves of x."""
    made = encoder.load(problem.model, 2, problem._options["layers"]).module
    for name, leaf in zip(problem.names, x, strict=True):
        made.get_parameter(name).data = leaf
    return made


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_scalars_are_directional_derivatives_up_to_the_error_of_the_difference(place, layers):
    """The central difference errs by c mu^2 + O(mu^4), the forward one by c' mu + O(mu^2): halving mu shows both."""
    made = module(place, layers).double()
    loss = EncoderLoss(made)
    x, layout = loss.base_point(), layout_of(loss)
    inputs = made.frozen(TOKENS, MASK).detach() if made.first else TOKENS
    batch = (inputs, MASK, torch.tensor([[0], [1]]))
    draw, key, mu = Directions(layout, 7, dtype=torch.float64).draw, DirectionKey(0, 0, 0), 1e-3
    found = {
        (kind, size): measure(loss, layout, x, draw, [key], [batch], size, kind, layout.empty(torch.float64)).scalars.item()
        for kind in ("central", "forward")
        for size in (mu, mu / 2)
    }
    made.bert.set_attn_implementation("eager")  # forward mode does not pass the fused one

    def f(*leaves):
        return loss.per_example(lambda **given: loss.outputs(leaves, **given), batch).mean()

    _, exact = jvp(f, x, draw(key))
    error = {case: value - exact.item() for case, value in found.items()}
    assert abs(exact.item()) > 1e-2
    assert error["central", mu] == pytest.approx(4 * error["central", mu / 2], rel=1e-2)
    assert error["forward", mu] == pytest.approx(2 * error["forward", mu / 2], rel=5e-2)
    assert 1e-9 < abs(error["central", mu]) < abs(error["forward", mu])


def test_rounds_depend_on_the_key_alone(build):
    points = []
    for key in (1, 1, 2):
        problem = build(key=key)
        live = Federation(problem, methods.build("hiso", lr=1e-2, perturbations=2), FederationOptions(sampled=2))
        for _ in range(2):
            live.round()
        points.append(live.state.x)
    assert all(map(torch.equal, points[0], points[1]))
    assert not any(map(torch.equal, points[0], points[2]))
