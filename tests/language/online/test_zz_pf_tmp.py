from typing import cast
from paperworks.language.objectives.pf_ppo import PFPPO
from paperworks.language.online import methods
from paperworks.language.online.batches import Batch, groups
from paperworks.language.online.methods import METHODS, Method, _own

def filtered(rollouts, context):
    objective = cast(PFPPO, context.objective)
    credit = objective.credit(rollouts, context.penalty)
    kept = objective.selected(rollouts, context.seed)
    batch = groups(rollouts.select(kept), {name: rollouts.of(values, kept) for name, values in credit.items()})
    return Batch(batch.items, batch.reference, {"filtered": len(rollouts) - len(set(kept))})

import pytest
@pytest.mark.parametrize("budget", ["kept_only", "same_steps"])
def test_it(learn, small_policy, budget, monkeypatch):
    monkeypatch.setitem(METHODS, "pf-ppo", Method("pf-ppo", PFPPO, filtered, _own, {"samples": 5, "updates": 3}, penalises=True, least_samples=2))
    try:
        found = learn(small_policy, "pf-ppo", objective=PFPPO(filter="bw", budget=budget))
    except TypeError:
        import inspect; print(inspect.signature(learn)); raise
    print(found.left_out, found.final)
    assert found.iterations == 2
