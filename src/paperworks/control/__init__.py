"""Policies that act in gymnasium's environments, learned from logged data first."""
