"""Policies that learn from what they write themselves: rollouts, their rewards, credit for each token, and the loop."""
