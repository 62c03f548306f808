"""Small, honest worlds with a ground truth, shared by the papers' experiments.

`exact`, `log_linear`, `coverage_bandit`, `unigram`, `forget_logistic`, `rejection_bandit`, `lock` and `token_tree` need no
language model: values and KL are computed in closed form. `reviews` (with scores in `scored_reviews`), `reports` and
`facts` make text for small language models, and load real text of the same shape. Nothing here knows a paper.
"""
