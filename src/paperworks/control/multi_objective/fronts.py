"""A front as users have it: a folder with a table of policies and their returns, and a policy for a preference."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.actors import PerceptronActor
from paperworks.control.multi_objective.environments import VectorSpaces
from paperworks.control.multi_objective.pareto import best_for, front
from paperworks.control.multi_objective.policies import Policies
from paperworks.control.policy import ControlPolicy, Normaliser
from paperworks.core.errors import ModelError
from paperworks.core.files import atomic_folder, read_json, write_json_atomic

TABLE, DESCRIPTION, FOLDER = "archive.csv", "archive.json", "archive"


@dataclass(frozen=True)
class Member:
    """A policy of a front."""

    name: str  # of its folder
    returns: tuple[float, ...]
    origin: str
    steps: int  # that the search had used when it was found


@dataclass(frozen=True)
class Front:
    """Policies, none of which beats another in every objective; `policy_for` chooses."""

    folder: Path
    environment: str
    names: tuple[str, ...]  # of the objectives
    reference: tuple[float, ...]
    gamma: float  # discount of the returns
    members: tuple[Member, ...]

    @property
    def points(self) -> Float[ndarray, "members objectives"]:
        return np.asarray([each.returns for each in self.members], dtype=np.float64).reshape(-1, len(self.names))

    def member_for(self, weights: Sequence[float]) -> Member:
        """The member of the largest weighted return. Raises OptionError for weights that do not fit."""
        return self.members[best_for(self.points, weights)]

    def policy_for(self, weights: Sequence[float]) -> ControlPolicy:
        """Its policy; a positive factor of the weights changes nothing."""
        return ControlPolicy.load(self.folder / self.member_for(weights).name)

    @classmethod
    def load(cls, folder: str | Path) -> Front:
        """The front in a folder, or in a run's. Raises ModelError where it is missing or damaged."""
        place = Path(folder)
        place = place / FOLDER if (place / FOLDER / DESCRIPTION).is_file() else place
        if not (place / DESCRIPTION).is_file():
            raise ModelError(f"{folder}: no archive of policies there ({DESCRIPTION} is missing)")
        described = read_json(place / DESCRIPTION)
        try:
            names = tuple(str(name) for name in described["objectives"])
            with (place / TABLE).open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            members = tuple(
                Member(row["policy"], tuple(float(row[name]) for name in names), row["origin"], int(row["steps"]))
                for row in rows
            )
            return cls(
                place, str(described["environment"]), names, tuple(described["reference"]), float(described["gamma"]),
                members,
            )  # fmt: skip
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{folder}: the archive there is damaged ({error}); train it again") from None


def save_front(
    folder: str | Path,
    spaces: VectorSpaces,
    reference: Sequence[float],
    gamma: float,
    policies: Policies,
    returns: Float[ndarray, "n objectives"],
    origins: Sequence[tuple[str, int]],
    method: str,
) -> Front:
    """Write a folder, whole or not at all: archive.csv, archive.json, a folder a policy. Returns what is in it.

    Policies that another dominates by these returns are left out; `origins` are (where from, steps).
    """
    kept = sorted(front(returns).tolist(), key=lambda place: tuple(-returns[place]))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["policy", *spaces.names, "origin", "steps"])
    with atomic_folder(folder) as partial:
        for number, place in enumerate(kept):
            name = f"policy-{number:03d}"
            control_policy(policies, place, spaces, method).save(partial / name)
            writer.writerow([name, *(repr(float(value)) for value in returns[place]), *origins[place]])
        (partial / TABLE).write_text(table.getvalue(), encoding="utf-8")
        described = {
            "environment": spaces.environment, "method": method, "objectives": list(spaces.names),
            "reference": [float(value) for value in reference], "gamma": gamma,
        }  # fmt: skip
        write_json_atomic(partial / DESCRIPTION, described)
    return Front.load(folder)


def control_policy(policies: Policies, place: int, spaces: VectorSpaces, method: str) -> ControlPolicy:
    """One of the policies as it acts: its likeliest action."""
    layers = [(weight[place].clone(), bias[place].clone()) for weight, bias in policies.nets().layers("actor")]
    actor = PerceptronActor(layers, "greedy" if spaces.is_discrete else "linear", "tanh")
    normaliser = Normaliser(policies.rows["state_mean"][place].numpy(), policies.deviation[place].numpy())
    return ControlPolicy(actor, normaliser, spaces.bounds, method)
