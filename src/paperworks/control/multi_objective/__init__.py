"""Policies for environments with several rewards: a front of trade-offs, and a policy for a preference."""
