"""The language loss is what it says, example by example, in every mode and dtype; padding enters nothing."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

from hiso_bench import keys
from hiso_bench.differences import measure
from hiso_bench.directions import DirectionKey, Directions
from hiso_bench.federation import NonFiniteScalarError
from hiso_bench.losses import check_deterministic, layout_of
from llm.loss import IGNORED, LanguageLoss, padded
from tests.helpers import federation

EPS, MU = torch.finfo(torch.float32).eps, 1e-3
VERBALIZERS = torch.tensor([7, 3, 11])


def opt(scale=0.2):
    config = OPTConfig(
        vocab_size=40, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, dropout=0.0, use_cache=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        module = OPTForCausalLM(config).eval()
    draw = keys.rng(keys.derive(0, "model"))
    for p in module.parameters():
        p.data.copy_(torch.from_numpy(scale * draw.standard_normal(p.shape)))
    return module


def batch(lengths, answers=None, key=0):
    """Right-padded prompts of the given lengths; one label each, or answers of the given lengths at their ends."""
    draw = keys.rng(keys.derive(key, "batch"))
    width, most = max(lengths), max(answers or [1])
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    positions, targets = torch.zeros(len(lengths), most, dtype=torch.long), torch.full((len(lengths), most), IGNORED)
    for i, length in enumerate(lengths):
        ids[i, :length], mask[i, :length] = torch.from_numpy(draw.integers(4, 40, length)), 1
        if answers is None:
            positions[i, 0], targets[i, 0] = length - 1, int(draw.integers(0, 3))
        else:
            where = torch.arange(length - answers[i], length)
            positions[i, : answers[i]], targets[i, : answers[i]] = where - 1, ids[i, where]
    return ids, mask, positions, targets


CASES = {
    "classification": (VERBALIZERS, [batch([5, 9, 3], key=1), batch([14, 2, 6], key=2), batch([4, 4, 4], key=3)]),
    "generation": (None, [batch([6, 9, 5], [2, 1, 4], 1), batch([14, 8, 6], [6, 3, 2], 2), batch([4, 4, 4], [1, 1, 1], 3)]),
}


def alone(kind, module, part, i):
    """One example's loss from its own tokens alone, by hand."""
    ids, mask, positions, targets = (t[i] for t in part)
    with torch.inference_mode():
        logits = module(input_ids=ids[mask.bool()][None]).logits[0].double()
    if kind == "classification":
        return float(logits[positions[0], VERBALIZERS].log_softmax(-1)[targets[0]].neg())
    wanted = targets != IGNORED
    return float(logits[positions[wanted]].log_softmax(-1).gather(1, targets[wanted, None]).neg().mean())


@pytest.mark.parametrize("mode", ["loop", "clients"])
@pytest.mark.parametrize("kind", CASES)
def test_a_loss_is_the_mean_over_examples_of_each_one_by_itself(kind, mode):
    (verbalizers, batches), module = CASES[kind], opt()
    values = LanguageLoss(module, verbalizers, mode=mode).each(point(module), batches)
    by_hand = [np.mean([alone(kind, module, part, i) for i in range(3)]) for part in batches]
    np.testing.assert_allclose(values.numpy(), by_hand, rtol=16 * EPS)
    assert values.dtype == torch.float64 and len(set(values.tolist())) == 3


def point(module):
    return LanguageLoss(module, VERBALIZERS).base_point()


@pytest.mark.parametrize("kind", CASES)
def test_what_stands_under_the_padding_changes_no_bit(kind):
    verbalizers, (part, *_) = CASES[kind]
    loss = LanguageLoss(opt(), verbalizers)
    ids, mask, positions, targets = part
    other = torch.where(mask.bool(), ids, 39)
    assert not torch.equal(ids, other)
    assert torch.equal(loss(loss.base_point(), part), loss(loss.base_point(), (other, mask, positions, targets)))


@pytest.mark.parametrize("kind", CASES)
def test_more_padding_changes_only_the_rounding(kind):
    verbalizers, batches = CASES[kind]
    loss = LanguageLoss(opt(), verbalizers)
    x, wide = loss.base_point(), padded(batches)
    assert {tuple(part.shape for part in b) for b in wide} == {tuple(part.shape for part in wide[0])}
    for narrow, more in zip(batches, wide, strict=True):
        np.testing.assert_allclose(loss(x, more), loss(x, narrow), rtol=8 * EPS)


def measured(mode, kind, difference):
    verbalizers, batches = CASES[kind]
    loss = LanguageLoss(opt(), verbalizers, mode=mode)
    x, layout = loss.base_point(), layout_of(loss)
    directions = Directions(layout, 3)
    where = [DirectionKey(0, 0, p) for p in range(3)]
    return measure(loss, layout, x, directions.draw, where, batches, MU, difference, layout.empty(torch.float32))


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("kind", CASES)
def test_scalars_of_the_two_modes_agree_within_8_eps_f_over_mu(kind, difference):
    loop, clients = measured("loop", kind, difference), measured("clients", kind, difference)
    bound = 8 * EPS * loop.loss[:, None].abs() / MU
    assert ((loop.scalars - clients.scalars).abs() <= bound).all()
    assert (loop.scalars.std(0) > 100 * bound.max()).all()  # clients are told apart


def test_the_mean_over_examples_is_taken_in_float64():
    verbalizers, (part, *_) = CASES["classification"]
    loss = LanguageLoss(opt(), verbalizers)
    with torch.inference_mode():
        examples = loss.per_example(lambda **k: loss.outputs(loss.base_point(), **k), part)
    assert examples.dtype == torch.float32
    assert torch.equal(loss(loss.base_point(), part), examples.double().mean())


def test_an_answer_counts_once_however_long_it_is():
    loss = LanguageLoss(opt())
    x, part = loss.base_point(), CASES["generation"][1][1]
    with torch.inference_mode():
        examples = loss.per_example(lambda **k: loss.outputs(x, **k), part)
        logits = loss.outputs(x, input_ids=part[0], attention_mask=part[1], logits_to_keep=part[2]).logits
        pooled = F.cross_entropy(logits.flatten(0, 1), part[3].flatten(), ignore_index=IGNORED)
    assert float(loss(x, part)) == float(examples.mean()) and abs(float(pooled) - float(examples.mean())) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["loop", "clients"])
def test_half_precision_works_on_a_copy_of_the_float32_master(dtype, mode):
    verbalizers, batches = CASES["classification"]
    module = opt()
    loss = LanguageLoss(module, verbalizers, dtype, mode)
    x = loss.base_point()
    before = [leaf.clone() for leaf in x]
    values = loss.each(x, batches)
    assert {leaf.dtype for leaf in x} == {torch.float32} and all(map(torch.equal, x, before))
    halved = LanguageLoss(opt().to(dtype), verbalizers, dtype, mode)
    assert torch.equal(values, halved.each(halved.base_point(), batches))
    with torch.inference_mode():
        examples = loss.per_example(lambda **given: loss.outputs(x, **given), batches[0])
    assert examples.dtype == torch.float32  # the softmax is not taken in half precision
    exact = LanguageLoss(module, verbalizers).each(x, batches)
    assert 0 < float((values - exact).abs().max()) < 16 * torch.finfo(dtype).eps * float(exact.max())


def test_tied_weights_are_one_leaf_and_move_together():
    loss = LanguageLoss(opt(), VERBALIZERS)
    assert [name for name in loss.names if "lm_head" in name or "embed_tokens" in name] == ["model.decoder.embed_tokens.weight"]
    (leaf,) = [i for i, name in enumerate(loss.names) if "embed_tokens" in name]
    x = loss.base_point()
    x[leaf].zero_()  # the head is zero too: every verbalizer is as likely as the others
    assert float(loss(x, CASES["classification"][1][0])) == pytest.approx(math.log(3), rel=4 * EPS)


def test_vmap_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="mode vmap is out of range; allowed: loop, clients"):
        LanguageLoss(opt(), VERBALIZERS, mode="vmap")


class Language:
    name, metric, higher_is_better, clients = "language", "loss", False, 3

    def __init__(self, scale, dtype):
        self.loss = LanguageLoss(opt(scale), VERBALIZERS, dtype)
        self.layout = layout_of(self.loss)

    def initial(self):
        return self.loss.base_point()

    def batch(self, client, round_, step):
        return CASES["classification"][1][int(client)]


def test_the_loss_is_deterministic():
    problem = Language(0.2, torch.bfloat16)
    check_deterministic(problem.loss, problem.initial(), problem.batch(np.array(0), 0, 0))


def test_a_loss_that_is_nan_in_half_precision_names_round_client_key_and_dtype():
    live = federation(Language(60.0, torch.float16), sampled=2)  # beyond float16's 65504 within one layer
    assert torch.isfinite(LanguageLoss(opt(60.0), VERBALIZERS)(live.state.x, live.problem.batch(0, 0, 0)))
    with pytest.raises(NonFiniteScalarError) as error:
        live.round()
    for word in ("round 0", "client ", "DirectionKey(round=0", "nan", "float16", "compute in float32"):
        assert word in str(error.value)
    assert not live.ledger.rounds and live.state.round == 0
