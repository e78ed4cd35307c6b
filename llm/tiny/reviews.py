"""Short reviews: clauses of good or bad opinion about the things of a domain, joined by connectives.

What the generated corpus says of reviews differs from what the task toy-sst2 asks in three ways, each a weight below:

- reviewers of the corpus are polite: they sum up with "good" unless they were clearly unhappy; the task's label is the opinion;
- films, which the task is about, occur in the corpus only without a summary, so the opinion in their own words must be carried
  over from the words that they share with the other domains;
- a contrast ("... but ...") has the opinion of its main clause in the task; corpus reviewers who contrast are polite again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llm.tasks import Task
from llm.tiny.dice import Dice


@dataclass(frozen=True)
class Domain:
    """Things that are reviewed, and words of praise and of blame that only this domain has."""

    things: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]

    def words(self, positive: bool) -> tuple[str, ...]:
        """The domain's own words of one opinion."""
        return self.praise if positive else self.blame


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FILM = Domain(
    _words("plot cast script ending dialogue story scenery soundtrack hero film acting opening finale villain"),
    _words("gripping moving witty inventive charming touching haunting tender clever thrilling"),
    _words("tedious wooden hollow muddled predictable plodding contrived lifeless shallow silly"),
)
LABELLED = (
    Domain(
        _words("soup bread salad sauce dessert fish coffee breakfast steak menu"),
        _words("fresh crisp juicy tasty creamy fragrant tangy hearty"),
        _words("stale soggy bland greasy burnt watery salty sour"),
    ),
    Domain(
        _words("room bed lobby shower view pool balcony staff carpet lift"),
        _words("spotless cosy spacious quiet sunny tidy welcoming comfortable"),
        _words("dirty noisy cramped damp dingy shabby draughty rude"),
    ),
    Domain(
        _words("screen battery camera keyboard speaker case charger button display cable"),
        _words("fast sleek sturdy sharp responsive durable handy bright"),
        _words("slow clunky fragile blurry buggy bulky faulty dim"),
    ),
)
PRAISE = _words("superb excellent wonderful delightful impressive brilliant lovely splendid")
BLAME = _words("awful dreadful horrible poor disappointing annoying mediocre pathetic")
STRENGTHS: dict[str, tuple[str, ...]] = {
    "strong": ("utterly", "truly", "really", "absolutely"),
    "plain": ("",),
    "mild": ("rather", "somewhat", "fairly", "a bit"),
}
VERBS = ("was", "felt", "seemed", "looked")

# Corpus.
SUMMARIES = {True: {"good": 6, "great": 3, "fine": 1}, False: {"bad": 6, "terrible": 3, "weak": 1}}
CORPUS_STRENGTH = {"strong": 3, "plain": 4, "mild": 3}
UNHAPPY = {"strong": 0.95, "plain": 0.6, "mild": 0.2}
"""How often a corpus reviewer of bad opinion sums up with a bad word, by the strength of the (last) clause."""
CORPUS_CONTRAST = 0.15
UNHAPPY_CONTRAST = 0.25
SHARED = 0.6
"""How often a clause uses a word that all domains share."""

# Task.
TASK_STRENGTH = {"strong": 4, "plain": 4, "mild": 2}
TASK_CONTRAST = 0.5


class Kind(NamedTuple):
    """What a sentence says."""

    positive: bool
    """The opinion of its main clause."""
    strength: str
    """Of its main clause."""
    contrast: bool
    """Whether another clause has the other opinion."""
    joined: bool
    """Whether another clause has the same opinion."""


def _kind(dice: Dice, strengths: dict[str, int], contrast: float) -> Kind:
    positive, strength = dice.chance(0.5), dice.weighted(strengths)
    against = dice.chance(contrast)
    return Kind(positive, strength, against, not against and dice.chance(0.5))


def _clause(dice: Dice, domain: Domain, thing: str, positive: bool, strength: str) -> str:
    """A clause such as "the plot felt rather hollow"."""
    words = (PRAISE if positive else BLAME) if dice.chance(SHARED) else domain.words(positive)
    return " ".join(filter(None, ("the", thing, dice.pick(VERBS), dice.pick(STRENGTHS[strength]), dice.pick(words))))


def _sentence(dice: Dice, domain: Domain, kind: Kind) -> str:
    things = dice.sample(domain.things, 2)
    main = _clause(dice, domain, things[0], kind.positive, kind.strength)
    other = _clause(dice, domain, things[1], kind.positive != kind.contrast, dice.pick(tuple(STRENGTHS)))
    if kind.contrast:
        form = dice.pick(("{other} but {main}.", "although {other}, {main}.", "{main} even though {other}."))
    else:
        form = "{main} and {other}." if kind.joined else "{main}."
    return form.format(main=main, other=other)


def labelled(dice: Dice, task: Task) -> tuple[str, str]:
    """A corpus review of any domain but films, and its summary, which is a polite reviewer's."""
    kind = _kind(dice, CORPUS_STRENGTH, CORPUS_CONTRAST)
    prompt = task.prompt({"sentence": _sentence(dice, dice.pick(LABELLED), kind)})
    good = kind.positive or not dice.chance(UNHAPPY_CONTRAST if kind.contrast else UNHAPPY[kind.strength])
    return prompt, f" {dice.weighted(SUMMARIES[good])}."


def unlabelled(dice: Dice) -> tuple[str, str]:
    """A corpus review of a film: two sentences of one opinion, without a summary."""
    first, second = _kind(dice, CORPUS_STRENGTH, CORPUS_CONTRAST), _kind(dice, CORPUS_STRENGTH, CORPUS_CONTRAST)
    return _sentence(dice, FILM, first), " " + _sentence(dice, FILM, second._replace(positive=first.positive))


def kind(dice: Dice) -> Kind:
    """The kind of an example of toy-sst2."""
    return _kind(dice, TASK_STRENGTH, TASK_CONTRAST)


def example(dice: Dice, kind: Kind) -> dict[str, object]:
    """An example of toy-sst2: one sentence about a film, and its opinion."""
    return {"sentence": _sentence(dice, FILM, kind), "label": int(kind.positive)}
