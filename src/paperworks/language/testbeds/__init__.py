"""Small, honest worlds with a ground truth, shared by the papers' experiments.

`exact`, `log_linear`, `coverage_bandit` and `unigram` need no language model: values and KL are computed in closed
form. `reviews` makes text for small language models, and loads real text of the same shape. Nothing here knows a
paper.
"""
