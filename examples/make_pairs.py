"""Writes a small file of preference pairs to try the commands on: generated film reviews, the kinder one chosen.

python examples/make_pairs.py pairs.jsonl
"""

import json
import sys
from pathlib import Path

from paperworks.language.rewards import load_reward
from paperworks.language.testbeds.reviews import generate_reviews, label_pairs


def main(path: str, pairs: int = 400) -> None:
    """Write `pairs` pairs, a JSON object a line."""
    one, other = generate_reviews(pairs, seed=1), generate_reviews(pairs, seed=2)
    responses = [review.response for review in one], [review.response for review in other]
    rows = label_pairs([review.prompt for review in one], *responses, load_reward("sentiment"))
    lines = [json.dumps({"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}) for row in rows]
    Path(path).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pairs.jsonl")
