"""C-MORL: a front of policies by extending its sparse parts (Liu et al. 2025, arXiv 2410.02236).

With several rewards there is no best policy but a front of trade-offs. A few policies are trained for fixed weights; then,
again and again, the policies of the sparsest parts of the front are each pushed along every objective while the others are
held above a share beta of their present return:

    max G_i(pi)  s.t.  G_j(pi) >= beta G_j(pi_r), j != i        control/multi_objective/c_morl.py, barrier.py, cpo.py

The user gets an archive of policies, and for a preference w the one of largest w.G. Three worlds whose fronts are known
(control/testbeds/vector_worlds.py): a bandit on a circle, deep-sea treasure, the fruit tree with six objectives.
"""

from __future__ import annotations

from dataclasses import replace

from paperworks.control.testbeds import front_figures
from paperworks.control.testbeds.front_trial import circle_cell, sea_cell, tree_cell
from paperworks.experiment.definition import Arm, Claim, Experiment, Metric, Part

TUNED = "the best of six settings by hypervolume in two other searches: two learning rates, and three of "
LEGS = TUNED + "the updates of an extension"

CMORL = Arm("c-morl", "C-MORL", options={"method": "c-morl"}, note=LEGS)
CPO = Arm(
    "cpo",
    "C-MORL, CPO",
    options={"method": "c-morl", "given": {"optimiser": "cpo"}},
    note=TUNED + "the trust region",
)
RANDOM = Arm(
    "random",
    "random selection",
    "baseline",
    {"method": "c-morl", "given": {"selection": "random"}},
    LEGS,
)
FREE = Arm(
    "unconstrained",
    "no constraints",
    "control",
    {"method": "c-morl", "given": {"t": 1e9}},
    f"extensions that hold nothing; {LEGS}",
)
OFFICIAL = Arm(
    "official",
    "released code's barrier",
    "control",
    {"method": "c-morl", "given": {"ipo_variant": "official"}},
    f"its form to the letter; {LEGS}",
)
ENDS = Arm("ends", "one-hot weights", "baseline", {"method": "weighted-sum"}, TUNED + "the entropy's weight")
SUMS = Arm("weighted-sum", "random weights", "baseline", {"method": "weighted-sum"}, TUNED + "the number of weights")
STAGE_1 = Arm("stage-1", "a grid of weights", "baseline", {"method": "weighted-sum"}, TUNED + "the grid's step")
FOUR = Arm("four", "four of seven", "control", note="the bar: more than four are at least five")

METRICS = (
    Metric("hypervolume", "hypervolume, share of the true front's"),
    Metric("utility", "expected utility, share of the true front's", format=".4f"),
    Metric("found", "points of the true front found", format=".1f"),
    Metric("sparsity", "sparsity", higher_is_better=False, format=".3g"),
    Metric("steps", "steps", higher_is_better=False, format=".0f"),
    Metric("learning_rate", "learning rate", higher_is_better=False, format=".0e"),
    Metric("chosen", "number of the settings", higher_is_better=False, format=".0f"),
)

PART_A = Part(
    name="A",
    title="A bandit on a circle",
    text="Nine arms pay (cos, sin) of equal parts of a right angle: two ends, seven between. 10,000 steps; C-MORL's first "
    "stage has one-hot weights and 2,000 of them. In all arms of this and the other parts every update's policies are "
    "evaluated, by an episode of their likeliest actions, and offered to the archive; evaluation counts as steps.",
    arms=(CMORL, CPO, RANDOM, FREE, OFFICIAL, ENDS, SUMS, FOUR),
    seeds={"smoke": 1, "small": 10, "full": 30},
    cell=circle_cell,
    batched=True,
    metrics=(Metric("interior", "arms between the ends found, of 7", format=".1f"), *METRICS),
    figures=front_figures.circle_figures,
)

PART_B = Part(
    name="B",
    title="Deep-sea treasure",
    text="mo-gymnasium's deep-sea-treasure-v0 and its concave map: ten treasures, the richer the farther; the front, returns "
    "discounted by 0.99, has ten points. 12,000 steps, two fifths of them C-MORL's first stage with one-hot weights. "
    "Reference point (0, -25). On the concave map a policy that mixes two treasures beats those between in expectation, so "
    "neither weighted sums nor constraints on returns look for them; snapshots may still meet them.",
    arms=(CMORL, *(replace(arm, settings=("convex",)) for arm in (CPO, RANDOM, FREE, ENDS)), SUMS),
    settings=("convex", "concave"),
    seeds={"smoke": 1, "small": 10, "full": 20},
    cell=sea_cell,
    batched=True,
    metrics=METRICS,
    figures=front_figures.sea_figures,
)

PART_C = Part(
    name="C",
    title="The fruit tree, six objectives",
    text="mo-gymnasium's fruit-tree-v0: six left-or-right decisions lead to one of 64 leaves, all on the front. 60,000 steps, "
    "a quarter of them C-MORL's first stage with one-hot weights. Reference point -1 in each objective; hypervolume by "
    "50,000 fixed points, expected utility over the 126 preferences that are multiples of 1/4.",
    arms=(CMORL, CPO, RANDOM, FREE, OFFICIAL, STAGE_1, SUMS),
    seeds={"smoke": 1, "small": 10, "full": 20},
    cell=tree_cell,
    batched=True,
    metrics=METRICS,
    figures=front_figures.tree_figures,
)

CLAIMS = (
    Claim("interior", "c-morl", "ends", text="from the two ends, the constrained stage fills the front between them"),
    Claim("interior", "cpo", "ends", text="so it does with constrained steps in a trust region (CPO)"),
    Claim("interior", "c-morl", "four", text="at least five of the seven arms between the ends are found"),
    Claim("found", "c-morl", "ends", "convex", "B", text="more of the front than one-hot weights at equal steps"),
    *(
        Claim(metric, "c-morl", than, "convex", "B")
        for metric, than in (
            ("hypervolume", "ends"),
            ("hypervolume", "weighted-sum"),
            ("utility", "weighted-sum"),
            ("hypervolume", "random"),
        )
    ),
    Claim(
        "found",
        "c-morl",
        "weighted-sum",
        "concave",
        "B",
        text="C-MORL finds more of a concave front than weighted sums (not promised: constraints on returns do not reach it)",
        expected="not shown",
    ),
    *(
        Claim(metric, better, than, part="C")
        for metric, better, than in (
            ("hypervolume", "c-morl", "weighted-sum"),
            ("utility", "c-morl", "weighted-sum"),
            ("hypervolume", "c-morl", "stage-1"),
            ("utility", "c-morl", "stage-1"),
            ("utility", "c-morl", "random"),
            ("found", "c-morl", "random"),
            ("hypervolume", "c-morl", "unconstrained"),
            ("hypervolume", "c-morl", "official"),
            ("hypervolume", "cpo", "weighted-sum"),
            ("utility", "cpo", "weighted-sum"),
        )
    ),
)

EXPERIMENT = Experiment(
    slug="c-morl",
    title="C-MORL: Multi-Objective Reinforcement Learning through Efficient Discovery of Pareto Front",
    parts=(PART_A, PART_B, PART_C),
    claims=CLAIMS,
    differences="The paper trains 64-64 nets for 0.5 to 2.5 million steps on MuJoCo tasks, minecart, lunar-lander, the fruit "
    "tree and building control, and compares with Envelope, CAPQL, Q-Pensieve, PG-MORL and GPI-LS. Here worlds are small and "
    "their fronts known, nets are 16 or 32-32, baselines are weighted sums, random selection and C-MORL without parts of "
    "itself, and every update's policy is offered to the archive in every arm, where the paper's first stage offers every "
    "tenth: without this, weighted sums would have been given fewer chances.",
    notes="Sizes and step budgets were set on the tuning seeds (1,000,000 and up), so that arms differ and none is at its "
    "ceiling everywhere; deep-sea treasure with 50,000 steps was solved by most. Learning rates and the grids' ranges were "
    "moved there too where the best was at an edge. What is held is measured with exploring actions and PPO's discount, "
    "what is archived with likeliest actions and the evaluation's. An update of all policies is finished where the steps run "
    "out within it, so that arms use 0 to 6% more than the budget; C-MORL's arms, which train the most policies, use the most "
    "in B. All claims were set before the reported seeds were run. What they show beyond the claims: the barrier (IPO) is no "
    "better than extensions that hold nothing, while constrained steps (CPO) have the highest means in C; random selection "
    "does as well as crowding; on the circle random weights find every arm. On the concave map C-MORL's lead is no sign that "
    "constraints reach hollows: the archive keeps what policies are on their way to the richest treasure, and weighted sums "
    "that share the steps among more policies often do not get there. No published figure could be verified, so none is "
    "shown.",
)
