"""Algorithms that act online and have a log as well: HAC, HNPG and TRPO, its case without a log, and RLPD."""
