"""RSO: statistical rejection sampling for preference optimisation (Liu et al. 2023, arXiv 2309.06657).

DPO fits the optimal policy by maximum likelihood if its pairs are drawn from that policy. RSO makes samples of the
supervised policy into such draws, accepting a candidate with probability exp((r - r_max) / beta), labels pairs of them with a
ranking model, and trains on those with a logistic or a hinge loss:

    sources/rejection.py, rejection_sample; sources/ranking.py, rank_pairs; objectives/rso.py, RSO

Part A compares what the sampler accepts with what it promises, where both laws are known. Part B trains small decoders on
pairs of three sources with three losses, labelled by a learned ranking model and judged by a gold reward.
"""

from __future__ import annotations

from paperworks.experiment.definition import Arm, Claim, Experiment, Metric, Part, Published
from paperworks.experiment.results import Results
from paperworks.language.testbeds import rejection_training_trial
from paperworks.language.testbeds.rejection_trial import discrete_cell

CANDIDATES = (16, 64, 256, 1024)
SETTINGS = tuple(f"N={count}" for count in CANDIDATES)
ONE = tuple(f"n=1, N={count}" for count in CANDIDATES[:3])

ARMS_A = (
    Arm("paper", "rejection sampling", options={"sampler": "paper"}, note="the paper's sweeps, in random order"),
    Arm("exact", "rejection, exact draws", "control", {"sampler": "exact"}, "our second sampler"),
    Arm("sft", "SFT samples", "baseline", {"beta": 1e9}, "the first n candidates"),
    Arm("top", "best n of N", "baseline", {"beta": 0.0}),
    Arm(
        "paper-sorted",
        "rejection, likeliest first",
        "control",
        {"sampler": "paper", "sorted": True},
        "list order, as the algorithm is printed, of candidates sorted by likelihood",
    ),
    Arm(
        "exact-dedup",
        "exact draws, doubles removed",
        "control",
        {"sampler": "exact", "dedup": True},
        "with 50 items removing doubles removes the supervised policy's probabilities; among texts doubles are rare",
        SETTINGS[1:],
    ),
    Arm("chance", "draws from the target", "control", note="as many: what sampling error alone leaves"),
)


def variation_figure(results: Results) -> list[tuple[str, str]]:
    """Total variation against the number of candidates."""
    from paperworks.core import plots

    curves = {}
    for arm in ARMS_A:
        points = [
            (count, results.interval("A", arm.name, "total_variation", f"N={count}"))
            for count in CANDIDATES
            if results.cells_of("A", arm.name, f"N={count}")
        ]
        if points:
            x, found = [float(count) for count, _ in points], [interval for _, interval in points]
            curves[arm.label] = plots.Curve(
                x, [each.mean for each in found], [each.low for each in found], [each.high for each in found]
            )
    svg = plots.lines(
        curves, "candidates a prompt", "total variation to the target", log_x=True, log_y=True, x_ticks=CANDIDATES
    )
    return [(svg, "total variation between what is accepted and pi_r: mean over seeds, 95% intervals")]


PART_A = Part(
    name="A",
    title="Fifty items, known laws",
    text="A policy over 50 items with standard normal logits and rewards; 8 of N candidates (or 1) accepted a prompt, beta "
    "0.5, 24,000 accepted a seed, all samplers on the same candidates. Total variation is that of all accepted items together "
    "to pi_r, proportional to pi exp(r / beta).",
    arms=ARMS_A,
    settings=(*SETTINGS, *ONE),
    seeds={"smoke": 1, "small": 10, "full": 50},
    cell=discrete_cell,
    batched=True,
    metrics=(
        Metric("total_variation", "total variation to the target", higher_is_better=False, format=".4f"),
        Metric("reward", "mean reward"),
        Metric("reward_error", "mean reward, distance to the target's", higher_is_better=False, format=".4f"),
        Metric("acceptance", "expected acceptance of the first sweep"),
    ),
    figures=variation_figure,
)

CLAIMS_A = (
    *(Claim("total_variation", "paper", baseline, where) for where in SETTINGS[1:3] for baseline in ("sft", "top")),
    *(
        Claim(
            "total_variation",
            "exact",
            "paper",
            where,
            text=f"{where}: exact draws from a short list are nearer to the target than sweeps over it (our expectation, not "
            "the paper's: a sweep is biased against what the list itself gives)",
        )
        for where in (*SETTINGS[:2], ONE[0])
    ),
    *(
        Claim(
            "total_variation",
            "paper",
            "paper-sorted",
            where,
            text=f"{where}: sweeping in random order is nearer to the target than sweeping a sorted list (not the paper's "
            "claim: its printed algorithm takes list order)",
        )
        for where in SETTINGS[:2]
    ),
)

SOURCES = {
    "direct": ("direct", "direct"),
    "sft": ("sft-sample-rank", "candidates"),
    "rso": ("rso-sample-rank", "rejection"),
}
LOSSES = ("sigmoid-norm", "hinge", "hinge-norm")
ARMS_B = (
    *(
        Arm(
            f"{name}-{loss}",
            f"{label}, {loss}",
            "method" if name == "rso" else "baseline",
            {"source": source, "loss": loss},
            "gamma and beta chosen of 3 x 3" if name == "rso" else "gamma and learning rate chosen of 3 x 3",
        )
        for name, (label, source) in SOURCES.items()
        for loss in LOSSES
    ),
    Arm("raft", "RAFT", "baseline", {"source": "best"}, "imitates the best of 64; learning rate of 9"),
    Arm(
        "rest",
        "ReST",
        "baseline",
        {"source": "above", "threshold": 0.7},
        "imitates what scores above 0.7 of the range; learning rate of 9",
    ),
)

PART_B = Part(
    name="B",
    title="Small decoders, three sources of pairs, three losses",
    text="A prompt is four of 20 symbols, an answer up to twelve. Gold reward: the prompt's symbols taken up, less half a "
    "point a repeat and a fifth a token, in units of its deviation over the supervised policy's samples. That policy, a "
    "transformer of 2 layers and width 32, imitated a writer who takes up half of the prompt and stutters. Human pairs: 3000 "
    "of an earlier checkpoint and of the policy at temperature 1.3, labelled with the probability sigmoid(gold difference); "
    "the ranking model, the policy's net fitted further to a Bradley-Terry score, has seen no other labels. 64 candidates to "
    "each of 256 prompts, 8 accepted, 4 pairs; 1024 pairs from every source, 96 steps of 32 pairs (imitation: 64 answers). "
    "Every arm chooses of nine settings by the ranking model's win rate in two other worlds. Win rates are against a sample "
    "of the supervised policy on 512 held-out prompts.",
    arms=ARMS_B,
    seeds={"smoke": 1, "small": 5, "full": 10},
    prepare=rejection_training_trial.prepare,
    cell=rejection_training_trial.training_cell,
    batched=True,
    metrics=(
        Metric("gold_win", "gold win rate"),
        Metric("proxy_win", "proxy win rate"),
        Metric("gap", "proxy less gold win rate", higher_is_better=False),
        Metric("gold", "gold reward gained", "nats", format=".2f"),
        Metric("proxy", "proxy reward gained", "nats", format=".2f"),
        Metric("kl", "KL to the supervised policy", "nats", False, ".2f"),
        Metric("covered", "prompt symbols taken up", format=".2f"),
        Metric("repeats", "repeats", higher_is_better=False, format=".2f"),
        Metric("tokens", "tokens", higher_is_better=False, format=".2f"),
        Metric("accuracy", "ranking model's accuracy", format=".2f"),
        Metric("gamma", "gamma", higher_is_better=False, format="g"),
        Metric("beta", "beta", higher_is_better=False, format="g"),
        Metric("rate", "learning rate", higher_is_better=False, format=".0e"),
    ),
    figures=lambda results: rejection_training_trial.figures(results, "B", ARMS_B),
)

CLAIMS_B = (
    *(
        Claim("gold_win", f"{better}-{loss}", f"{than}-{loss}", part="B")
        for loss in LOSSES
        for better, than in (("rso", "sft"), ("sft", "direct"), ("rso", "direct"))
    ),
    Claim("proxy_win", "rso-sigmoid-norm", "sft-sigmoid-norm", part="B"),
    *(Claim("gold_win", "rso-sigmoid-norm", baseline, part="B") for baseline in ("raft", "rest")),
    *(
        Claim(
            "gap",
            "rso-hinge",
            f"rso-{loss}",
            part="B",
            higher_is_better=True,
            text=f"the hinge without a reference flatters its ranking model more than {loss} (pairs of rejection sampling)",
        )
        for loss in ("sigmoid-norm", "hinge-norm")
    ),
)

EXPERIMENT = Experiment(
    slug="rso",
    title="Statistical Rejection Sampling Improves Preference Optimization",
    parts=(PART_A, PART_B),
    claims=CLAIMS_A + CLAIMS_B,
    published=tuple(
        Published(arm, "win rate against the SFT target: proxy / gold / AutoSxS, %", value, setting, "Table 1")
        for setting, rows in (
            (
                "Reddit TL;DR, T5-large",
                (
                    ("RAFT", "74.84 / 68.51 / 53.77"),
                    ("ReST", "49.03 / 46.17 / 34.36"),
                    ("DPO (direct)", "84.35 / 76.09 / 67.72"),
                    ("sigmoid-norm, SFT samples", "88.63 / 78.14 / 69.02"),
                    ("sigmoid-norm, RSO", "92.37 / 82.22 / 71.86"),
                    ("hinge, RSO", "93.36 / 84.40 / 69.26"),
                    ("hinge-norm, RSO", "92.80 / 83.45 / 70.84"),
                ),
            ),
            (
                "AnthropicHH, T5-large",
                (
                    ("DPO (direct)", "51.63 / 36.13 / 24.01"),
                    ("sigmoid-norm, SFT samples", "85.09 / 58.65 / 39.56"),
                    ("sigmoid-norm, RSO", "86.94 / 59.15 / 40.98"),
                ),
            ),
        )
        for arm, value in rows
    ),
    differences="The paper trains T5 models and compares win rates; part A looks at its sampler alone, where the law it "
    "approximates is known. Part B trains small decoders, samples at temperature 1 (the paper: 0.7, top-k 40), ranks with a "
    "Bradley-Terry score instead of a text-to-text model, and reads the last checkpoint, not the best by proxy.",
    notes="The theorem is about infinitely many candidates. `exact` is exact for the list at hand, softmax(r / beta) over its "
    "candidates without replacement: as a sample of pi_r that is resampling with normalised weights, biased towards pi in a "
    "short list. A sweep accepts each candidate by its own reward and the list's maximum alone: once the list holds a nearly "
    "best item, that is true rejection sampling, as long as one sweep fills all places. Candidates here are independent draws, "
    "for which list order is random already; a sorted list is what makes order matter. Part B was sized by trials in its "
    "tuning worlds: what the gold reward takes for a token (a quarter and a tenth were tried too), how the ranking model "
    "begins and scores, and the grids, for rejection sampling and SFT samples with the logistic loss. The ranking model is "
    "right on 68% of pairs (the paper's: 73%); answers grow short under it, and whatever follows it harder than the human "
    "pairs do gains its applause and less gold. The hinge without a reference fails on human pairs at all nine settings: its "
    "margin is open where the chosen answer is the less likely one (39% of them), which are those with a longer chosen "
    "answer, and learning from these lengthens everything.",
)
