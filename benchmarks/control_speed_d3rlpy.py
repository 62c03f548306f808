"""d3rlpy's side of `control_speed.py`: run by a Python that has d3rlpy 2.8, it takes orders from standard input.

An order is a line of JSON, and so is its answer: {"make": "td3-bc", "log": "log.npz", "runs": 1} answers {"made": seconds};
{"steps": 50} takes them in each run, one run after another, and answers {"seconds": of all}. A step is what `fit` does:
sample a batch, update. It imports nothing of paperworks.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import structlog
import torch

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

import d3rlpy  # noqa: E402
from d3rlpy.dataset import MDPDataset  # noqa: E402

CONFIGS: dict[str, Callable[[], Any]] = {
    "td3-bc": d3rlpy.algos.TD3PlusBCConfig,
    "iql": d3rlpy.algos.IQLConfig,
    "cql": lambda: d3rlpy.algos.CQLConfig(alpha_learning_rate=0.0, actor_learning_rate=3e-4, temp_learning_rate=3e-4),
    "prdc": d3rlpy.algos.PRDCConfig,
}


class Runs:
    """As many runs of an algorithm, with nets of d3rlpy's default (256-256), batches of 256."""

    def __init__(self, name: str, log: str, runs: int) -> None:
        with np.load(log) as file:
            arrays = {each: file[each] for each in file.files}
        self.data = MDPDataset(
            arrays["observations"], arrays["actions"], arrays["rewards"],
            terminals=arrays["terminations"].astype(np.float32), timeouts=arrays["truncations"].astype(np.float32),
        )  # fmt: skip
        self.runs = [CONFIGS[name]().create(device="cpu:0") for _ in range(runs)]
        for run in self.runs:
            run.create_impl((arrays["observations"].shape[1],), arrays["actions"].shape[1])
            if name == "prdc":  # as its `fit` does
                keys = [arrays["observations"] * run.config.beta, arrays["actions"]]
                run._nbsr.set_params(n_jobs=torch.get_num_threads()).fit(np.concatenate(keys, 1))

    def steps(self, count: int) -> float:
        began = time.perf_counter()
        for run in self.runs:
            for _ in range(count):
                run.update(self.data.sample_transition_batch(run.config.batch_size))
        return time.perf_counter() - began


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    runs: Runs | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if "make" in order:
            runs, began = None, time.perf_counter()  # the one before leaves memory first
            runs = Runs(order["make"], order["log"], order["runs"])
            answer = {"made": time.perf_counter() - began, "version": d3rlpy.__version__}
        else:
            assert runs is not None
            answer = {"seconds": runs.steps(order["steps"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
