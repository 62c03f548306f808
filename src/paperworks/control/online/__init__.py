"""Learning while acting in an environment."""
