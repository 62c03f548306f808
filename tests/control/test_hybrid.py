"""HNPG and TRPO with whole environments: seeds side by side, episodes that end early, saved policies, the command, mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from paperworks.control.batches import Batch, Draws
from paperworks.control.environments import roll_out
from paperworks.control.hybrid import training
from paperworks.control.hybrid.actor import StepActor
from paperworks.control.hybrid.episodes import Episodes, Logged, StepLog, Streams
from paperworks.control.hybrid.hnpg import HNPG, HNPGOptions
from paperworks.control.hybrid.policies import CategoricalPolicies, GaussianPolicies
from paperworks.control.hybrid.rlpd import RLPD, NormalisedCritics, RLPDOptions, mixed
from paperworks.control.learner import Shapes
from paperworks.control.policy import ControlPolicy, Normaliser
from paperworks.control.testbeds.comblock_environment import behaviour_log, save_behaviour_log
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError

Outcome = tuple[int, str, str]
LOCK = "paperworks/Comblock-v0"
QUICK = (
    "--iterations", "2", "--steps-per-iteration", "20", "--hidden", "4", "--critic-hidden", "4", "--critic-steps", "2",
    "--eval-every", "1", "--eval-episodes", "2", "--save-every", "1",
)  # fmt: skip


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lived(seeds: int, horizon: int, rows: int, state: int, *, discrete: bool = False) -> tuple[Episodes, Logged]:
    ones = torch.ones(seeds, horizon, rows).double()
    actions = (numbers(seeds, horizon, rows, seed=1) > 0).long() if discrete else numbers(seeds, horizon, rows, 2)
    states, rewards = numbers(seeds, horizon, rows, state, seed=2), numbers(seeds, horizon, rows, seed=3)
    return Episodes(states, actions, rewards, ones), Logged(states + 0.1, actions, rewards, states - 0.1, ones)


# ------------------------------------------------------------------------------------------------------------- the learner


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_seeds_side_by_side_are_seeds_alone(discrete: bool, per_step: bool) -> None:
    options = HNPGOptions(hidden=(4,), critic_hidden=(5,), critic_steps=3, per_step_nets=per_step, value_samples=3)
    fresh, log = lived(2, 3, 6, 2, discrete=discrete)

    def improved(seeds: list[int], places: slice) -> HNPG:
        learner = HNPG(2, 2, 3, options, seeds, is_discrete=discrete)
        parts = [type(each)(*(values[places] for values in vars(each).values())) for each in (fresh, log)]
        for iteration in range(2):
            learner.improve(parts[0], parts[1], Streams(seeds, iteration, learner.actor))  # type: ignore[arg-type]
        return learner

    both, alone = improved([3, 9], slice(0, 2)), improved([9], slice(1, 2))
    torch.testing.assert_close(both.actor[both.copies :], alone.actor, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(both.critic[both.copies :], alone.critic, atol=1e-10, rtol=1e-8)


def test_logged_targets_are_the_next_critic_s_and_fresh_ones_are_returns() -> None:
    """The last step's targets are rewards; the step before adds f of the step behind, of the policy's action."""
    options = HNPGOptions(hidden=(4,), critic_hidden=(5,))
    learner = HNPG(2, 2, 2, options, [0], is_discrete=False)
    fresh, log = lived(1, 2, 6, 2)
    noise = numbers(1, 2, 6, 2, seed=9)
    assert torch.equal(learner._backed_up(log, noise, slice(1, 2))[:, 0], log.rewards[:, 1])
    actions = learner.act(log.next_states[:, 0], 1, noise[:, 0])
    wanted = log.rewards[:, 0] + learner._q(learner.critic[1:].detach(), log.next_states[:, 0], actions)
    torch.testing.assert_close(learner._backed_up(log, noise, slice(0, 1))[:, 0], wanted)
    torch.testing.assert_close(fresh.returns_to_go(1.0)[:, 0], fresh.rewards.sum(1))


def test_returns_and_advantages_stay_within_an_episode() -> None:
    """An episode of two steps of three: what stands behind its end is nobody's."""
    ones = torch.ones(1, 3, 1)
    rewards, alive = torch.tensor([1.0, 2.0, 0.0]).view(1, 3, 1), torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1)
    episodes = Episodes(ones[..., None], ones[..., None], rewards, alive)
    assert episodes.returns_to_go(0.5).flatten().tolist() == [2.0, 2.0, 0.0]
    values = torch.tensor([10.0, 20.0, 99.0]).view(1, 3, 1)
    found = episodes.advantages(values, gamma=1.0, gae_lambda=0.5).flatten().tolist()
    assert found == [1 + 20 - 10 + 0.5 * (2 - 20), 2 - 20, 0.0]


def test_lam_0_learns_from_the_log_alone() -> None:
    fresh, log = lived(1, 2, 6, 2)
    other = Episodes(fresh.states + 5, fresh.actions - 3, fresh.rewards * 7, fresh.alive)
    found = []
    for each in (fresh, other):
        learner = HNPG(2, 2, 2, HNPGOptions(hidden=(4,), lam=0.0), [0], is_discrete=False)
        learner.improve(each, log, Streams([0], 0, learner.actor))
        found.append(learner.actor.detach())
    torch.testing.assert_close(*found)


def test_a_log_sorted_by_step() -> None:
    log = behaviour_log(7)
    steps = StepLog(log, 5, Normaliser.none(16), torch.float64, torch.device("cpu"))
    drawn = steps.draw(50, Streams([0, 1], 0, torch.zeros(1).double()))
    every = torch.from_numpy(log.observations.astype(np.float64)).view(7, 5, 16)
    for step in range(5):
        place = (drawn.states[1, step][:, None] == every[:, step]).all(-1)
        assert (place.sum(1) == 1).all() and place.any(0).sum() > 3
    assert drawn.goes_on[:, -1].sum() == 0 and drawn.goes_on[:, :-1].all()
    assert not torch.equal(drawn.states[0], drawn.states[1])


def test_a_log_that_does_not_fit_is_refused(made: Callable[..., Transitions]) -> None:
    def read(log: Transitions, horizon: int) -> StepLog:
        return StepLog(log, horizon, Normaliser.none(1), torch.float64, torch.device("cpu"))

    log = made()
    read(log, 2)
    with pytest.raises(OptionError, match="longest logged episode has 2 steps"):
        read(log, 1)
    with pytest.raises(DataError, match="no transitions of 3 of 5 steps: 2, 3, 4"):
        read(log, 5)


# ------------------------------------------------------------------------------------------------------------------- RLPD


def test_rlpd_s_critics_are_normalised_and_its_batch_is_half_and_half() -> None:
    critics = NormalisedCritics(2, 1, (8, 8), [0], copies=2)
    states, actions = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 5, 1)
    for weight in critics.nets.weights[:1]:
        before = critics(states, actions)
        weight.data *= 7  # a normalised layer knows no scale, but for its bias
    for bias in critics.nets.biases[:1]:
        bias.data *= 7
    torch.testing.assert_close(critics(states, actions), before, atol=1e-3, rtol=1e-3)
    learner = RLPD(Shapes(2, 1), RLPDOptions(hidden=(8,), critics=3), [0, 1], None)  # type: ignore[arg-type]
    flat = torch.zeros(2, 4)
    log = Batch(flat.long(), torch.ones(2, 4, 2), torch.ones(2, 4, 1), flat, torch.ones(2, 4, 2), flat)
    replay = Batch(flat.long(), -torch.ones(2, 4, 2), torch.ones(2, 4, 1), flat, torch.ones(2, 4, 2), flat)
    both = mixed(log, replay)
    assert both.states.shape == (2, 8, 2) and both.states.sum() == 0
    told = learner.update(both, Draws([0, 1], 8, 8, torch.device("cpu")), 0)
    assert torch.isfinite(told["critic"]).all() and learner.critics(both.states, both.actions).shape == (2, 3, 8)


# ---------------------------------------------------------------------------------------------------------- saved policies


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("nets", [1, 3])
def test_a_saved_actor_acts_as_the_learner(discrete: bool, nets: int) -> None:
    """Step by step, by the likeliest action; a new episode begins at the first net."""
    options = HNPGOptions(hidden=(4,), per_step_nets=nets > 1, precision="float32")
    learner = HNPG(2, 2, 3, options, [0], is_discrete=discrete)
    learner.actor.data += 0.3 * torch.randn(learner.actor.shape, generator=torch.Generator().manual_seed(0))
    actor = StepActor(
        learner.actor.detach(), state=2, action=2, hidden=(4,), horizon=3, is_discrete=discrete, is_told_step=nets == 1
    )
    again = StepActor.from_settings(json.loads(json.dumps(actor.settings())))
    again.load_state_dict(actor.state_dict())
    states = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        again.begin()
        for step in range(3):
            wanted = learner.act(states[None], step, None)[0]
            torch.testing.assert_close(again(states), wanted if discrete else wanted.clamp(-1, 1))


def test_samples_are_of_the_policy() -> None:
    """A Gaussian's deviation, a softmax's shares."""
    states, draw = torch.zeros(1, 20_000, 1), torch.Generator().manual_seed(0)
    noise = torch.randn(1, 20_000, 2, generator=draw)
    gaussian = GaussianPolicies(1, 2, (), deviation=0.5)
    assert gaussian.sample(gaussian.start([0], "a"), states, noise).std().item() == pytest.approx(0.5, abs=0.02)
    softmax = CategoricalPolicies(1, 2, ())
    row = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    share = softmax.sample(row, states, noise).float().mean()
    assert float(share) == pytest.approx(1 / (1 + np.e), abs=0.02)


# -------------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(shell: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Runs a command in a folder that holds lock.npz."""
    save_behaviour_log("lock.npz", 30)
    return shell


def save(path: str, log: Transitions, **given: Any) -> None:
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
    np.savez(path, **{name: given.get(name, getattr(log, name)) for name in names})


def test_hnpg_leaves_a_policy_that_can_be_rolled_out(command: Callable[..., Outcome]) -> None:
    code, out, err = command("train", "hnpg", "--data", "lock.npz", "--env", LOCK, *QUICK, "--out", "run")
    assert code == 0, err
    assert "next    paperworks evaluate policy --model run/policy" in out
    results = json.loads(Path("run/results.json").read_text())
    assert [done for done, _ in results["evaluations"]] == [1, 2] and results["horizon"] == 5
    assert {"online_loss", "offline_loss", "kl", "accepted", "fresh_return"} <= results["final"].keys()
    report = Path("run/report.html").read_text()
    assert "squared temporal difference on the log" in report and "line search accepts" in report
    policy = ControlPolicy.load("run/policy")
    first, second = (roll_out(LOCK, policy.acting(3), 4, seed=1).returns for _ in range(2))
    assert (first == second).all() and isinstance(policy.actor, StepActor)
    code, out, _ = command("evaluate", "policy", "--model", "run", "--env", LOCK, "--episodes", 4, "--json")
    assert code == 0 and json.loads(out)["length"]["mean"] == 5


def test_trpo_learns_discrete_actions_with_one_net(command: Callable[..., Outcome]) -> None:
    """CartPole's episodes end early: more of them are played until there are enough steps."""
    words = ("train", "trpo", "--env", "CartPole-v1", *QUICK, "--per-step-nets", "false", "--seeds", 2, "--out", "run")
    code, _, err = command(*words, "--horizon", 15, "--json")
    assert code == 0, err
    assert {path.name for path in Path("run").glob("policy*")} == {"policy-0", "policy-1"}
    assert "offline_loss" not in json.loads(Path("run/results.json").read_text())["final"]
    code, out, _ = command("evaluate", "policy", "--model", "run/policy-1", "--env", "CartPole-v1", "--episodes", 3)
    assert code == 0 and "return" in out


def test_rewards_are_scaled_for_the_learner_alone(command: Callable[..., Outcome]) -> None:
    found = []
    for scale in ("1", "0.001"):
        words = ("trpo", "--env", LOCK, *QUICK, "--iterations", "1", "--reward-scale", scale, "--out", scale, "--json")
        code, out, err = command("train", *words)
        assert code == 0, err
        found.append(json.loads(out)["final"])
    assert found[0]["fresh_return"] == found[1]["fresh_return"] and found[0]["online_loss"] != found[1]["online_loss"]


def test_a_killed_run_resumes_to_the_same_policy(
    command: Callable[..., Outcome], cut_when: Callable[..., None]
) -> None:
    words = ("train", "hnpg", "--data", "lock.npz", "--env", LOCK, *QUICK, "--quiet")
    assert command(*words, "--out", "whole")[0] == 0
    cut_when(
        training.checkpoints,
        "save_checkpoint",
        lambda *given: given[3]["step"] == 2,
        lambda: command(*words, "--out", "cut"),
    )
    code, _, err = command("train", "hnpg", "--resume", "--out", "cut", "--quiet")
    assert code == 0, err
    for file in ("policy/policy.safetensors", "policy/policy.json", "metrics.jsonl"):
        assert Path("cut", file).read_bytes() == Path("whole", file).read_bytes()
    code, _, err = command("train", "hnpg", "--resume", "--out", "cut", "--lam", "2", "--quiet")
    assert code == 2 and "was started with" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("hnpg", "--env", LOCK), "give the log, --data LOG"),
        (("hnpg", "--data", "lock.npz"), "--env ID"),
        (("hnpg", "--data", "lock.npz", "--env", LOCK, "--lam", "-1"), "lam=-1.0 is out of range"),
        (("hnpg", "--data", "lock.npz", "--env", LOCK, "--horizon", "3"), "longest logged episode has 5 steps"),
        (("hnpg", "--data", "lock.npz", "--env", LOCK, "--horizon", "9"), "ends an episode after 5 steps"),
        (("hnpg", "--data", "lock.npz", "--env", "Pendulum-v1"), "Pendulum-v1 shows 3"),
        (("hnpg", "--data", "lock.npz", "--env", "CartPole-v1"), "CartPole-v1 shows 4"),
        (("hnpg", "--data", "short.npz", "--env", LOCK), "no transitions of 2 of 5 steps: 3, 4"),
        (("hnpg", "--data", "holes.npz", "--env", LOCK), "not finite, the first is row 3"),
        (("hnpg", "--data", "lock.npz", "--env", LOCK, "--reward-range", "0,0.5"), "outside 0 to 0.5"),
        (("trpo", "--env", LOCK, "--reward-range", "0.2,1"), "paid 0 in iteration 0"),
        (("hnpg", "--data", "lock.npz", "--env", LOCK, "--reward-range", "1"), "lowest,highest"),
        (("trpo", "--env", "CartPole-v1", "--data", "lock.npz"), "unknown option --data"),
    ],
)
def test_mistakes_cost_one_line(command: Callable[..., Outcome], words: tuple[str, ...], message: str) -> None:
    log = behaviour_log(30)
    save("short.npz", log.take(np.flatnonzero(np.arange(150) % 5 < 3)), terminations=np.arange(90) % 3 == 2)
    holes = log.observations.copy()
    holes[3, 2] = np.nan
    save("holes.npz", log, observations=holes)
    code, _, err = command("train", *words, *QUICK)
    assert code == 2 and message in err.splitlines()[-1], err


def test_the_lock_s_environment_is_gymnasium_s() -> None:
    from gymnasium.utils.env_checker import check_env

    from paperworks.control.testbeds.comblock_environment import ComblockEnvironment

    check_env(ComblockEnvironment(3), skip_render_check=True)
    log = behaviour_log(500, horizon=3)
    assert log.returns().mean() == pytest.approx(0.3415 + 0.05 * 0.6585, abs=0.05)


def test_an_environment_that_shows_no_numbers_is_refused(command: Callable[..., Outcome]) -> None:
    class Broken(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return np.array([0, np.nan], np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(2, np.float32), 0.0, False, False, {}

    name = "paperworks-tests/Broken-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=Broken, max_episode_steps=3, disable_env_checker=True)
    code, _, err = command("train", "trpo", "--env", name, *QUICK)
    assert code == 2 and "showed numbers that are not finite" in err
