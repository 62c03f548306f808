"""A user's reward function: how it is called, and what is said when it fails."""

from __future__ import annotations

import sys

import pytest

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.rewards import Reward, load_reward

PROMPTS, RESPONSES = ["p", "longer"], ["good", "bad one"]


@pytest.fixture
def load(tmp_path):
    def load_source(source: str, function: str = "fn") -> Reward:
        path = tmp_path / "mine.py"
        path.write_text(source)
        return load_reward(f"{path}:{function}")

    return load_source


@pytest.mark.parametrize(
    "source",
    [
        "def fn(prompts, responses): return [len(r) for r in responses]",
        "def fn(completions, prompts, **kwargs): return [len(r) for r in completions]",
        "def fn(prompt, response): return len(response)",
        "def fn(response, prompt): return len(response)",
        "def fn(a: list[str], b: list[str]): return [len(r) for r in b]",
        "import typing\ndef fn(a: typing.Sequence[str], b: 'List[str]'): return [len(r) for r in b]",
        "def fn(a: str, b: str): return len(b)",
        "def fn(a, b): return [len(r) for r in b]",
        "def fn(a, b): return float(len(b.lower()))",
        "def fn(a, b): return len(b)",
        "class C:\n  def __call__(self, prompt, response): return len(response)\nfn = C()",
        "import numpy\ndef fn(prompts, responses): return numpy.array([len(r) for r in responses])",
    ],
)
def test_either_signature(load, source):
    reward = load(source)
    assert isinstance(reward, Reward) and reward.name.endswith("mine.py:fn")
    assert reward(PROMPTS, RESPONSES) == [4.0, 7.0]
    assert reward(PROMPTS[:1], RESPONSES[:1]) == [4.0]
    assert reward([], []) == []


def test_numbers_may_be_booleans_or_tensors(load):
    assert load("def fn(prompt, response): return 'good' in response")(PROMPTS, RESPONSES) == [1.0, 0.0]
    tensors = load("import torch\ndef fn(prompts, responses): return torch.arange(len(responses))")
    assert tensors(PROMPTS, RESPONSES) == [0.0, 1.0]


def test_messages_come_as_plain_text(load):
    prompt = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"})
    reward = load("def fn(prompt, response): return prompt == 'user: hi\\n\\nassistant: yes?'")
    assert reward([prompt], ["r"]) == [1.0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "def fn(prompt, response):\n  return 1 / ('bad' not in response)",
            "raised ZeroDivisionError: division by zero (line 2) for response 2 ('bad one')",
        ),
        (
            "def fn(prompts, responses):\n  return [{'good': 1}[r] for r in responses]",
            "raised KeyError: 'bad one' (line 2) for response 2",
        ),
        (
            "def fn(prompts, responses):\n  assert len(responses) == 1\n  return [1]",
            "(line 2) for the 2 responses together",
        ),
        ("def fn(prompts, responses): return [1]", "expected 2 numbers, one a response; got 1"),
        ("def fn(prompts, responses): return 1", "expected a list of 2 numbers, one a response; got int"),
        ("def fn(prompts, responses): return 'ab'", "expected a list of 2 numbers, one a response; got str"),
        ("def fn(prompts, responses): return [1, float('nan')]", "expected a finite number; got nan for response 2"),
        ("def fn(prompt, response): return float('inf')", "expected a finite number; got inf for response 1 ('good')"),
        ("def fn(prompt, response): return None", "expected a number; got NoneType for response 1"),
        ("def fn(prompt, response): return '1'", "expected a number; got str for response 1"),
        ("def fn(prompt, response): return 10 ** 400", "expected a number; got int for response 1"),
    ],
)
def test_bad_results_are_named(load, source, expected):
    reward = load(source)
    with pytest.raises(RewardError) as caught:
        reward(PROMPTS, RESPONSES)
    assert expected in str(caught.value) and "mine.py:fn: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "def fn(a): return 1",
            r"expected a function of \(prompts, responses\) or \(prompt, response\); it takes \(a\)",
        ),
        ("def fn(a, b, c): return 1", r"it takes \(a, b, c\)"),
        ("def fm(a, b): return 1", r"no function 'fn' \(did you mean 'fm'\?\)"),
        ("fn = 3", "no function 'fn'"),
        ("import no_such_module_here", r"cannot be loaded: raised ModuleNotFoundError: .* \(line 1\)"),
        ("def fn(:", "cannot be loaded: SyntaxError"),
        ("raise SystemExit(1)", "cannot be loaded: raised SystemExit: 1"),
    ],
)
def test_bad_files_are_refused(load, source, expected):
    path = list(sys.path)
    with pytest.raises(RewardError, match=expected):
        load(source)
    assert sys.path == path


def test_unknown_rewards(tmp_path):
    with pytest.raises(OptionError, match="did you mean 'sentiment'"):
        load_reward("sentimental")
    with pytest.raises(RewardError, match="no such file"):
        load_reward(str(tmp_path / "none.py:fn"))
    with pytest.raises(RewardError, match="2 prompts and 1 responses"):
        load_reward("length")(["a", "b"], ["c"])
