"""Planted bugs of the language track: templates, encoding, losses, metrics, models, replay, and the rule that chooses rates."""

from __future__ import annotations

import numpy as np
import torch

from tests.mutants.mutant import Mutant, patched

MUTANTS: list[Mutant] = []


def mutant(name, module, what, *tests):
    """Enter a function that installs a bug into the list."""
    return lambda install: MUTANTS.append(Mutant(name, module, what, install, tests))


@mutant("first-question-twice", "llm.tasks", "QQP shows its first question in both places")
def _():
    from llm.tasks import Task

    prompt = Task.prompt

    def twice(self, example):
        return prompt(self, {**example, "question2": example["question1"]} if "question2" in example else example)

    return patched(Task, "prompt", twice)


@mutant("third-class-is-the-first", "llm.tasks", "CB's third class is scored as its first")
def _():
    from llm.tasks import Task

    label = Task.label
    return patched(Task, "label", lambda self, example: label(self, example) % 2)


@mutant("verbalizers-swapped", "llm.encoding", "verbalizers stand for the classes in reverse order")
def _():
    from llm import encoding

    found = encoding.verbalizer_ids
    return patched(encoding, "verbalizer_ids", lambda task, tokenizer: found(task, tokenizer)[::-1])


@mutant("padding-attended", "llm.encoding", "the attention mask is 1 on padding too")
def _():
    from llm import encoding

    pad = encoding.pad

    def unmasked(rows, width=0):
        ids, mask = pad(rows, width)
        return ids, torch.ones_like(mask)

    return patched(encoding, "pad", unmasked)


@mutant("one-token-early", "llm.loss", "the loss reads the logits one position before the prompt's last")
def _():
    from llm import loss

    logits_at = loss.logits_at

    def early(net, batch):
        ids, mask, positions, targets = batch
        return logits_at(net, (ids, mask, (positions - 1).clamp(min=0), targets))

    return patched(loss, "logits_at", early)


@mutant("short-answers-diluted", "llm.loss", "an answer's mean runs over the batch's longest answer, padding as zeros")
def _():
    from llm import loss

    generation = loss.generation

    def diluted(net, batch):
        return generation(net, batch) * (batch[3] != loss.IGNORED).sum(1) / batch[3].shape[1]

    return patched(loss, "generation", diluted)


@mutant("sixteen-bits-forgotten", "llm.loss", "the forward pass runs on the float32 master whatever the dtype")
def _():
    from llm.loss import LanguageLoss

    return patched(LanguageLoss, "cast", lambda self, x: x)


@mutant("clients-padded-with-a-target", "llm.loss", "clients' batches are padded with target 0 in the place of the ignored one")
def _():
    from llm import loss

    padded = loss.padded
    return patched(loss, "padded", lambda batches, *fill: [(*b[:3], b[3].clamp(min=0)) for b in padded(batches, *fill)])


@mutant("f1-of-sets", "llm.metrics", "a word counts once however often it occurs")
def _():
    from llm import metrics

    bag_f1 = metrics._bag_f1
    return patched(metrics, "_bag_f1", lambda prediction, reference: bag_f1(sorted(set(prediction)), sorted(set(reference))))


@mutant("articles-count", "llm.metrics", "answers are compared with their articles")
def _():
    from llm import metrics

    return patched(metrics, "normalise", lambda text: " ".join(text.lower().translate(metrics._PUNCTUATION).split()))


@mutant("last-batch-dropped", "llm.evaluation", "examples that do not fill a batch are not scored")
def _():
    from llm import evaluation

    chunks = evaluation._chunks
    return patched(evaluation, "_chunks", lambda encoded, size: (c for c in chunks(encoded, size) if len(c) == size))


@mutant("answers-never-end", "llm.evaluation", "a generated answer goes on after its line break")
def _():
    from llm import evaluation

    def read(tokenizer, ids):
        return tokenizer.decode(ids, skip_special_tokens=True).strip(), ids[-1] == tokenizer.eos_token_id

    return patched(evaluation, "_read", read)


@mutant("hash-of-weights-alone", "llm.models", "models that use the same weights differently have one hash")
def _():
    from llm import models

    return patched(models, "_FUNCTION", ())


@mutant("any-base-will-do", "llm.checkpoint", "a ledger is replayed on whatever model is found")
def _():
    import inspect

    from llm import checkpoint

    def rebuild(described, model="", kind=checkpoint.BaseModel):
        options = [option for option in inspect.signature(kind).parameters if option not in ("model", "base_hash")]
        return kind(model or described["model"], **{option: described[option] for option in options})

    return patched(checkpoint, "rebuild", rebuild)


@mutant("adapters-start-somewhere", "llm.lora", "the adapters' B does not start at 0, so the model does not start as its base")
def _():
    from llm import models

    attach = models.attach

    def shifted(module, rank, alpha, key):
        adapted = attach(module, rank, alpha, key)
        for name, p in adapted.named_parameters():
            if ".lora_B." in name:
                p.data.fill_(1e-3)
        return adapted

    return patched(models, "attach", shifted)


@mutant("neighbour's-hidden-state", "llm.encoder_problem", "a text gets the hidden states of another of its group")
def _():
    from llm.encoder_problem import Inputs

    find = Inputs.__getitem__

    def neighbour(self, i):
        find(self, i)
        return self._known[int(self._group[i][::-1][list(self._group[i]).index(i)])]

    return patched(Inputs, "__getitem__", neighbour)


@mutant("later-rungs-for-nothing", "hiso_bench.halving", "the grid grows without a thought for what later rungs need")
def _():
    from hiso_bench.halving import Rungs

    return patched(Rungs, "ahead", lambda self, rung: 0)


@mutant("split-without-its-key", "llm.clients", "every run splits the examples in the same way", "contract/test_split_keys.py")
def _():
    from llm import clients

    dirichlet = clients.dirichlet
    return patched(clients, "dirichlet", lambda labels, m, alpha, rng: dirichlet(labels, m, alpha, np.random.default_rng(0)))
