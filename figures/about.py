"""What every figure is: the paper's figure or table that it regenerates, and what it shows. `figures.page` makes the gallery."""

from __future__ import annotations

from typing import NamedTuple

OURS = "ours"


class About(NamedTuple):
    """One figure in words."""

    of: str
    """The paper's figure or table, as "HiSo, Figure 4"; `OURS` if it regenerates none."""
    shows: str
    """What it shows, in one or two sentences that hold whatever the numbers of the day are."""


ABOUT: dict[str, About] = {
    "fig1": About(
        "HiSo, Figure 1",
        "A path of zeroth-order steps is its start, and a key and a length for each step. A drawing of our own, of a real run.",
    ),
    "fig2": About(
        "HiSo, Figure 2",
        "One round of two clients: local steps along shared directions, then the averaged scalars replayed by "
        "everybody. A drawing of our own, of a real round.",
    ),
    "fig3": About(
        "HiSo, Figure 3",
        "Who does what in a round, and what goes over the wire. A drawing of our own, with real scalars.",
    ),
    "whitening": About(
        "HiSo, Figure 4",
        "The random spectrum of the figure under both readings of N(0, 3 I), with the printed L d, L kappa and zeta: "
        "which reading they fit, and that zeta is half the dimension in the mean, whatever the spread of the log-normal.",
    ),
    "fig5_mnist": About(
        "HiSo, Figure 5 (left)",
        "Test accuracy on MNIST against rounds, every arm at its own best learning rate, beside the two accuracies "
        "read off the printed figure. Fewer rounds than the paper's, as the figure says.",
    ),
    "fig5_digits": About(
        "HiSo, Figure 5 (left), scaled down",
        "The same comparison on scikit-learn's 8x8 digits, a stand-in that is computed in minutes without data.",
    ),
    "learned_h_mnist": About(
        "HiSo, Figure 5 (right)",
        "The entries of the learned H on MNIST, beside their null: the same scalars replayed along directions that "
        "never saw the loss.",
    ),
    "learned_h_digits": About(
        "HiSo, Figure 5 (right), scaled down",
        "The same histograms on scikit-learn's 8x8 digits.",
    ),
    "hiso_table1": About(
        "HiSo, Table 1",
        "The four entries (L d, L kappa, 2 d, zeta) beside the exact forms on five spectra, and the evidence of the "
        "claims that decide which of them are bounds, and of what.",
    ),
    "hiso_table2": About(
        "HiSo, Table 2",
        "Bytes per printed round beside the bytes of real messages; rounds to DeComFL's best score, printed and on "
        "our small models; and HiSo's speed-up by whose best score is the target.",
    ),
    "hiso_table3": About(
        "HiSo, Table 3",
        "Printed scores with their errors; beside them our models, and the same methods on tiny-opt (first-order ones after "
        "128 MiB both ways, those of scalars after 168 rounds); its KB as rounds, HiSo's bytes over DeComFL's in both "
        'tables, and the ratios behind "90 million times".',
    ),
    "decomfl_table2": About(
        "DeComFL, Table 2",
        "Printed accuracies, ours beside them; its MB as rounds, FedZO's TB over the same sum (which unit was meant),"
        " and the bytes of real messages with 8 clients.",
    ),
    "decomfl_lora": About(
        "DeComFL, LoRA table",
        "The same audit of the table with adapters. Nothing of ours stands beside its accuracies.",
    ),
    "decomfl_mnist": About(
        "DeComFL, MNIST and Fashion-MNIST figures",
        "Accuracy against rounds with 1, 4 and 10 local steps, and over P = 10, 20 and 40, at the published settings: the "
        "authors' published curves under ours, for FedAvg and for DeComFL with the batch sizes that were tried. What is partial "
        "or was not run says so.",
    ),
    "decomfl_scale": About(
        "DeComFL, model-scale figure",
        "Accuracy on SST-2 against rounds: the official repository's four curves, the end points that two tables "
        "print, and our small models beside them.",
    ),
    "rates": About(
        OURS,
        "The exponents of HiSo's Corollaries 1 to 3 against everything that they name, and P, which they leave out: "
        "exact curves, predicted slopes, simulated points, and the floor under every method that sends scalars only.",
    ),
    "stability": About(
        OURS,
        "Which steps are stable on which spectrum: the exact mean-square limit, its bounds, real runs, and the step "
        "of Theorem 1.",
    ),
    "theorem1": About(
        OURS,
        "HiSo's Theorem 1: both sides, in both norms, under both readings of its condition on the step.",
    ),
    "expected": About(
        OURS,
        "The exact expected loss of every round beside the simulated mean, on six families of Hessians.",
    ),
    "oracle": About(
        OURS,
        "What a known H buys: zeta and speed against eps, three kinds of gradient noise, and what a rotation takes away.",
    ),
    "hover": About(
        OURS,
        "Without a floor the learned H drives the step to the edge of stability, and the run hovers there.",
    ),
    "low_rank": About(
        OURS,
        "An axis-aligned quadratic of low effective rank: loss against rounds, with exact expectations, and rounds to targets.",
    ),
    "second_order": About(
        OURS,
        "What one second difference a round buys at equal scalars and equal forward passes, and where it does not.",
    ),
    "stage": About(
        OURS,
        "What a learned H can tell apart, how far from diagonal curvature is, and what a perfect diagonal would gain "
        "on quadratics.",
    ),
    "stage_networks": About(
        OURS,
        "The same on networks: how much a perfect diagonal gains there over DeComFL, HiSo and its controls.",
    ),
    "along": About(
        OURS,
        "The learned H's correlation with the curvature along training, beside its null, and what that H is worth.",
    ),
    "ablation_quadratics": About(
        OURS,
        "What the learned H contributes: every arm's speed-up over DeComFL, equally tuned, on quadratics.",
    ),
    "ablation_networks": About(
        OURS,
        "The ablation on small networks: controls without curvature beside HiSo, and known diagonals.",
    ),
    "ablation_mnist": About(
        OURS,
        "The ablation on real images, the CNN of HiSo's Figure 5: every arm's accuracy and loss less DeComFL's, key by key.",
    ),
    "fair_speed": About(
        OURS,
        "How much faster, counted fairly: Table 2's rule against both ways and against a null of equal arms, other federations, "
        "and the spread of every recorded comparison.",
    ),
    "equal_bytes": About(
        OURS,
        "Loss at equal bytes, every arm tuned for every budget: DeComFL and HiSo beside methods that send vectors, dense (FedAvg,"
        " FedAdam, FedYogi, FedAdagrad, FedZO), compressed (signs, 4 bits, top 1 % with error feedback and without) or adapters, "
        "on a digits perceptron and fine-tuning a small language model.",
    ),
    "agzo": About(
        OURS,
        "AGZO with a basis of public images: which share of the clients' gradient its span holds, and of the curvature that the "
        "noise of a step meets, beside random subspaces of the same rank; and its loss beside DeComFL's and that of a random "
        "basis, tuned alike. The figure says whether it helps.",
    ),
    "dynamics": About(
        OURS,
        "How H moves: its fixed point, its memory, quiet rounds, and problems that change in the middle of a run.",
    ),
    "learning_rates": About(
        OURS,
        "The basin of learning rates of every arm, how wide it is, what moves its best rate, and whether a rate transfers.",
    ),
    "byte_audit": About(
        OURS,
        "What every registered method sends, from real ledgers: bytes per client and round by direction, how much of it is the "
        "catch-up of absent clients, what the papers' tables charge beside it, and what an absent client and a newcomer must "
        "download.",
    ),
    "llm_toy": About(
        OURS,
        "tiny-opt fine-tuned on generated tasks, every arm at its own best rate: scores and losses on test examples "
        "against rounds, for the tasks that are recorded; the figure names those that are not.",
    ),
    "llm_real": About(
        OURS,
        "Real SST-2: an OPT pre-trained here and a pretrained sentence encoder, every arm at its own best rate.",
    ),
}


def about(name: str) -> About:
    """A figure in words.

    Raises:
        ValueError: it has no entry.
    """
    if name not in ABOUT:
        raise ValueError(f"figure {name!r} has no entry in figures/about.py, which says what it shows; it has {', '.join(ABOUT)}")
    return ABOUT[name]
