"""A tree of answers with one best: how many queries find it, with a reward on each token or one on the whole answer.

Every answer has H tokens out of A. The tokens of the best answer cost nothing. A wrong token shows its cost, 1, only
`delay` tokens later, or at the end of the answer: until then the wrong way looks as good as the right one. The sum over an
answer is the same however late the cost shows, so that the reward of whole answers does not depend on `delay`.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

from paperworks.core.seeding import derive_seed


@dataclass(frozen=True)
class TokenTree:
    """Answers of `horizon` tokens out of `actions`; `best` is the best answer, whose reward 0 is the largest there is."""

    actions: int
    horizon: int
    best: tuple[int, ...]

    @classmethod
    def draw(cls, seed: int, *, actions: int = 3, horizon: int) -> TokenTree:
        """A tree with a best answer at random."""
        chance = random.Random(derive_seed("token tree", seed, actions, horizon))
        return cls(actions, horizon, tuple(chance.randrange(actions) for _ in range(horizon)))

    def reward(self, prefix: Sequence[int], delay: int) -> float:
        """The sum of token rewards along a prefix: 0, or -1 once a wrong token has shown."""
        wrong = next((at for at, (ours, best) in enumerate(zip(prefix, self.best)) if ours != best), None)
        shows = wrong is not None and (len(prefix) - wrong > delay or len(prefix) == self.horizon)
        return -1.0 if shows else 0.0


def queries_by_token_rewards(tree: TokenTree, seed: int, *, delay: int) -> int:
    """Prefixes whose reward is asked until the best answer is found: best first, equal ones in random order.

    The learner does not know the delay. As no reward is positive, an answer of reward 0 is known to be best.
    """
    chance = random.Random(derive_seed("token queries", seed, delay, tree.horizon))
    frontier: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
    queries = 0
    while frontier:
        _, _, prefix = heapq.heappop(frontier)
        order = list(range(tree.actions))
        chance.shuffle(order)
        for token in order:
            longer = (*prefix, token)
            reward = tree.reward(longer, delay)
            queries += 1
            if len(longer) < tree.horizon:
                heapq.heappush(frontier, (-reward, chance.random(), longer))
            elif reward == 0:
                return queries
    raise AssertionError("the best answer is in the tree")


def queries_by_answer_rewards(tree: TokenTree, seed: int) -> int:
    """Answers whose reward is asked, in random order without repetition, until the best is found."""
    chance = random.Random(derive_seed("answer queries", seed, tree.horizon))
    return chance.randrange(tree.actions**tree.horizon) + 1
