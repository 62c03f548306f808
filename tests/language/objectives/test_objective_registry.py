"""Objectives by name, and from a user's own file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives import (
    DPO,
    LNDPO,
    PairLogps,
    Registry,
    ResponseLogps,
    make,
    objective_class,
    objective_names,
)

OWN = '''
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from torch import Tensor
from paperworks.language.objectives import PairLogps, PairObjective

@dataclass(frozen=True)
class Exponential(PairObjective):
    """exp(-beta * gap)."""

    name: ClassVar[str] = "exponential"
    beta: float = 0.1  # steepness

    def loss(self, batch: PairLogps) -> Tensor:
        return (-self.beta * self.margin(batch)).exp()
'''


OWN_CLASS = OWN[OWN.index("@dataclass") :]


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def refusal(path: Path, text: str) -> str:
    """The one line that loading a file of this text is refused with."""
    path.write_text(text)
    with pytest.raises(OptionError) as caught:
        Registry().load_file(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_names_cover_what_users_can_train() -> None:
    pairs = "dpo cdpo rdpo ipo slic hinge-norm rso cpo simpo orpo rpo ln-dpo reward-model"
    single = "kto sft wbc r-gold filtered-nll r-lol a-lol a-lol-ref-free a-lol-seq a-lol-kl reward-regression"
    ascent = "ga grad-diff ga-kl ga-forget-kl npo npo-rt npo-kl"
    alternatives = "idk dpo-idk dpo-idk-rt dpo-idk-kl kto-idk kto-idk-rt kto-idk-kl"
    online = "online-ipo ipo-md online-dpo online-slic dno xpo hypo copg"
    assert set(objective_names()) == set(f"{pairs} {single} {ascent} {alternatives} {online}".split())


@pytest.mark.parametrize("spelling", ["ln-dpo", "ln_dpo", "LN-DPO", " ln_dpo "])
def test_spellings(spelling: str) -> None:
    assert objective_class(spelling) is LNDPO


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    with pytest.raises(OptionError, match=r"unknown objective 'rdop' \(did you mean 'rdpo'\?\)"):
        make("rdop")


def test_a_misspelt_option_gets_the_nearest_one() -> None:
    with pytest.raises(OptionError, match=r"objective dpo: unknown option 'betta' \(did you mean 'beta'\?\)"):
        make("dpo", {"betta": 0.1})


def test_options_may_be_text_as_on_the_command_line() -> None:
    assert make("ln_dpo", {"beta": "3", "length_exponent": "5e-1"}) == LNDPO(3.0, 0.5)
    assert make("rdpo", {"flip-rate": "auto"}).flip_rate == "auto"  # type: ignore[attr-defined]


def test_own_objective_is_found_by_its_name(own_file: Path) -> None:
    registry = Registry()
    (cls,) = registry.load_file(own_file)
    assert registry.names()[-1] == "exponential"
    objective = registry.make("exponential", {"beta": "0.5"})
    assert type(objective) is cls
    one = torch.ones(1)
    batch = PairLogps(ResponseLogps(-1 * one, one, -3 * one), ResponseLogps(-4 * one, one, -2 * one), one)
    assert objective.loss(batch).item() == pytest.approx(torch.tensor(-0.5 * 4).exp().item())


def test_own_objective_stays_in_the_registry_that_loaded_it(own_file: Path) -> None:
    Registry().load_file(own_file)
    assert "exponential" not in objective_names()


def test_own_file_can_be_edited_and_loaded_again(own_file: Path) -> None:
    registry = Registry()
    registry.load_file(own_file)
    own_file.write_text(OWN.replace("= 0.1", "= 0.7"))
    registry.load_file(own_file)
    assert registry.make("exponential").beta == 0.7  # type: ignore[attr-defined]


def test_a_variant_of_a_known_objective_needs_only_its_difference(tmp_path: Path) -> None:
    path = tmp_path / "variant.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from paperworks.language.objectives import DPO\n"
        "@dataclass(frozen=True)\n"
        "class Cold(DPO):\n"
        "    name = 'cold-dpo'\n"
        "    beta: float = 0.01\n"
    )
    registry = Registry()
    registry.load_file(path)
    made = registry.make("cold_dpo")
    assert isinstance(made, DPO) and made.beta == 0.01


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nowhere\.py: no such file"):
        Registry().load_file(tmp_path / "nowhere.py")
    with pytest.raises(OptionError, match="no such file"):
        Registry().load_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ndef broken(:\n", ":2: not valid Python"),
        ("x = 1\nx.y.z\n", ":2: importing this objective file raised AttributeError"),
        ("import nothing_of_this_name\n", ":1: importing this objective file raised ModuleNotFoundError"),
        ("raise SystemExit(3)\n", ":1: importing this objective file raised SystemExit"),
        ("x = 1\n", "no objective in this file"),
        ("from paperworks.language.objectives import DPO\n", "no objective in this file"),
        (OWN.replace("@dataclass(frozen=True)\n", ""), ":8: objective Exponential is not a frozen dataclass"),
        (OWN.replace("(frozen=True)", ""), ":8: objective Exponential is not a frozen dataclass"),
        (OWN.replace('    name: ClassVar[str] = "exponential"\n', ""), "objective Exponential has no name"),
        (OWN.replace('"exponential"', '"RDPO"'), "has the name 'RDPO', which RobustDPO in paperworks has too"),
        (OWN.replace("def loss", "def los"), "objective Exponential has no loss"),
        (
            OWN + OWN_CLASS.replace("Exponential", "Other"),
            "objective Other has the name 'exponential', which Exponential",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path / "mine.py", text)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = '\xff\xfe'\n\x00")
    with pytest.raises(OptionError, match=r"mine\.py"):
        Registry().load_file(path)


def test_a_refused_file_registers_nothing(tmp_path: Path) -> None:
    registry, path = Registry(), tmp_path / "mine.py"
    path.write_text(OWN + OWN_CLASS.replace("Exponential", "Second").replace('"exponential"', '"dpo"'))
    with pytest.raises(OptionError, match="'dpo'"):
        registry.load_file(path)
    assert registry.names() == objective_names()
