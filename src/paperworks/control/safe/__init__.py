"""Policies that must not break a constraint, learned from logs that say when it was broken."""
