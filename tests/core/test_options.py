"""Options: coercion that never truncates, errors that name the nearest match, one dataclass for CLI and YAML."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from paperworks.core.errors import OptionError
from paperworks.core.options import (
    Parser,
    add_dataclass_arguments,
    build,
    check_ranges,
    field_comments,
    from_namespace,
    load_yaml,
    option,
    to_mapping,
    to_yaml,
)


@dataclass(frozen=True)
class Robust:
    beta: float = 0.1  # inverse temperature of the implicit reward
    flip_rate: float | Literal["auto"] = option(0.1, "assumed P(label flipped)", low=0, below=0.5)
    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    steps: int = 100
    use_ridge: bool = False
    seeds: tuple[int, ...] = (0, 1)
    out: Path | None = None
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self, what="Robust")


def parse(*words: str) -> Robust:
    parser = Parser(prog="paperworks train")
    add_dataclass_arguments(parser, Robust, group="rdpo")
    return from_namespace(Robust, parser.parse_args(list(words)))


def test_unknown_option_names_the_nearest():
    with pytest.raises(OptionError, match=r"objective rdpo: unknown option 'flip_rat' \(did you mean 'flip_rate'\?\)"):
        build(Robust, {"flip_rat": 0.2}, what="objective rdpo")


def test_unknown_choice_names_the_nearest():
    with pytest.raises(OptionError, match=r"'sigmod' is not one of the choices \(did you mean 'sigmoid'\?\)"):
        build(Robust, {"loss": "sigmod"})


@pytest.mark.parametrize("rate", [-0.01, 0.5, 2])
def test_range_is_enforced_and_said(rate):
    with pytest.raises(OptionError, match=r"flip_rate=\S+ is out of range: it must be ≥ 0 and < 0.5"):
        build(Robust, {"flip-rate": rate})


def test_missing_required_option_is_named():
    @dataclass
    class Needs:
        data: str

    with pytest.raises(OptionError, match="train: missing option data"):
        build(Needs, {}, what="train")


def test_command_line_gives_the_dataclass():
    numbers = ["--beta", "1e-2", "--flip-rate", "auto", "--loss", "ipo", "--use-ridge", "--seeds", "3,4"]
    words = [*numbers, "--out", "runs/x", "--names", "a=b"]
    expected = Robust(0.01, "auto", "ipo", 100, True, (3, 4), Path("runs/x"), {"a": "b"})
    assert parse(*words) == expected
    assert parse() == Robust()
    assert parse("--no-use-ridge", "--out", "none") == Robust()


def test_command_line_stands_over_yaml_and_yaml_over_defaults(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("beta: 0.3\nflip-rate: 0.2\n")
    parser = Parser()
    add_dataclass_arguments(parser, Robust)
    made = from_namespace(Robust, parser.parse_args(["--beta", "0.5"]), below=load_yaml(file))
    assert (made.beta, made.flip_rate, made.steps) == (0.5, 0.2, 100)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--betta", "1"], r"paperworks train: unknown option --betta \(did you mean '--beta'\?\)"),
        (["--zzzzzz=1"], r"unknown option --zzzzzz; see `paperworks train --help`"),
        (["--loss", "hing"], r"--loss: 'hing' is not one of the choices \(did you mean 'hinge'\?\)"),
        (["--steps", "1.5"], r"--steps: expected a whole number, got '1.5'"),
        (["--beta"], r"--beta: expected one argument"),
        (["stray"], r"unexpected argument 'stray'"),
        (["--flip", "0.1"], r"unknown option --flip \(did you mean '--flip-rate'\?\)"),
    ],
)
def test_command_line_mistakes_are_one_line_option_errors(words, message):
    with pytest.raises(OptionError, match=message) as caught:
        parse(*words)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_verbs_unknown_option_is_matched_with_that_verbs_options():
    parser = Parser(prog="paperworks")
    verbs = parser.add_subparsers(dest="verb")
    add_dataclass_arguments(verbs.add_parser("train"), Robust)
    with pytest.raises(OptionError, match=r"paperworks train: unknown option --betta \(did you mean '--beta'\?\)"):
        parser.parse_args(["train", "--betta", "1"])
    with pytest.raises(OptionError, match=r"'trian' is not one of the choices \(did you mean 'train'\?\)"):
        parser.parse_args(["trian"])


def test_help_is_the_fields_comment_or_text_with_range_and_default():
    parser = Parser()
    add_dataclass_arguments(parser, Robust)
    text = " ".join(parser.format_help().split())
    assert "inverse temperature of the implicit reward (default: 0.1)" in text
    assert "assumed P(label flipped) [≥ 0 and < 0.5] (default: 0.1)" in text
    assert "--loss {sigmoid,hinge,ipo}" in text


def test_inherited_fields_keep_their_comments():
    @dataclass(frozen=True)
    class Child(Robust):
        extra: int = 1  # one more

    assert field_comments(Child) == {"beta": "inverse temperature of the implicit reward", "extra": "one more"}


def test_a_written_file_reads_back_as_the_same_options(tmp_path):
    made = Robust(beta=1e-5, seeds=(7,), out=Path("a/b"), names={"prompt": "frage ü"})
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(to_mapping(made)), encoding="utf-8")
    assert build(Robust, load_yaml(file)) == made


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"beta: 1\nloss: [a\n", r"run.yaml:3: not valid YAML"),
        (b"beta: 1\nbeta: 2\n", r"run.yaml:2: 'beta' is given twice"),
        (b"- 1\n", r"run.yaml:1: expected 'option: value' lines"),
        (b"\xff\xfe\xfa", r"run.yaml: cannot be read as UTF-8"),
        (b"x: !!python/object/apply:os.system [ls]\n", r"run.yaml:1: not valid YAML"),
    ],
)
def test_bad_yaml_names_file_and_line(tmp_path, content, message):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(OptionError, match=message):
        load_yaml(file)


def test_missing_yaml_file_is_said(tmp_path):
    with pytest.raises(OptionError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")


def test_aliases_of_aliases_are_read_in_no_time(tmp_path):
    lines = ["a0: &a0 [1, 1]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    file = tmp_path / "run.yaml"
    file.write_text("\n".join(lines))
    assert next(iter(load_yaml(file))) == "a0"
