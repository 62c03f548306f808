"""Where training batches come from beside files: answers chosen, paired, cut or weighted after they were drawn.

Numbers and token ids in, indices or numbers out: no model runs here, but for the one function that scores a text's tokens.
Statistical rejection sampling (`rejection`) and what pairs are made of (`ranking`), filters by the rank of the reward
(`filters`, `filter_choice`), the rewards of single tokens (`token_rewards`), prefixes to go on from (`resets`).
"""
