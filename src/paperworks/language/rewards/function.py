"""Rewards by name: the built-in ones, a user's own Python function as `FILE.py:function`, a reward model by its folder.

Verifiers and judges, written `kind:what`, are in specs.

The user's file is run as any import runs it: give only files you trust.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from paperworks.core.errors import OptionError, RewardError, did_you_mean
from paperworks.language.data.schemas import PromptRow
from paperworks.language.rewards.lexicon import length, lexicon
from paperworks.language.rewards.reward import CheckedReward, Reward, which
from paperworks.language.rewards.sentiment import sentiment
from paperworks.language.rewards.specs import DESCRIBED, FORMS, is_spec, reward_of_spec
from paperworks.language.rewards.verifier import RowFunction, RowReward

BUILT_IN: dict[str, Callable[[list[str], list[str]], list[float]]] = {
    "sentiment": sentiment,
    "lexicon": lexicon,
    "length": length,
}

_MANY = {"prompts", "responses", "completions", "answers", "questions", "texts"}
_ONE = {"prompt", "response", "completion", "answer", "question", "text"}
_RESPONSES = {"response", "responses", "completion", "completions", "answer", "answers"}
_PROMPTS = {"prompt", "prompts", "question", "questions"}


def load_reward(
    name: str, *, device: str = "auto", rows: Sequence[PromptRow] | None = None, allow_unsandboxed: bool = False
) -> Reward:
    """The reward of a built-in name (`sentiment`, `lexicon`, `length`), of `FILE.py:function`, or of a reward model.

    A reward model is a folder (also a run folder) or a Hub id `owner/name`, loaded on `device`. Verifiers and judges are
    written `number:FIELD`, `exact:FIELD`, `regex:PATTERN`, `tests:FIELD`, `judge:MODEL@URL` (see specs): `rows` are the
    prompts' rows, for those that compare answers with a field of them; `allow_unsandboxed` lets tests run where there
    is no sandbox.

    The function takes two arguments, in either of two ways:
      `def fn(prompts, responses)` gets two lists of str and returns one number a response;
      `def fn(prompt, response)` gets two strings and returns a number.
    With a third parameter `rows`, `def fn(prompts, responses, rows)` also gets the fields of each prompt's row.
    The parameters' names tell which (plural or singular, also completion(s) for response(s), in either order), else
    their annotations (list or str), else a first call with lists of two: where that gives two numbers, it takes lists.
    Numbers may be Python's, numpy's or tensors; True counts as 1.

    Raises OptionError for an unknown name; ModelError for a model that does not load or gives no single number;
    RewardError where the file or function is missing or fails to load, and at a call where the function raises (naming
    file, line, function and response) or returns something else.
    """
    if name in BUILT_IN:
        return CheckedReward(name, BUILT_IN[name])
    if is_spec(name):
        return reward_of_spec(name, rows, allow_unsandboxed=allow_unsandboxed)
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        if _names_a_model(name):
            from paperworks.language.rewards.model_reward import load_model_reward

            return load_model_reward(name, device=device)
        raise OptionError(
            f"unknown reward {name!r}{did_you_mean(name, (*BUILT_IN, *FORMS))}; your own is given as FILE.py:function, a "
            f"reward model as its folder or Hub id, others as {DESCRIBED}"
        )
    path = Path(file)
    if not path.is_file():
        raise RewardError(f"{file}: no such file; expected FILE.py:function")
    module = load_module(path)
    found = getattr(module, function, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        hint = did_you_mean(function, known) if known else ""
        raise RewardError(f"{file}: no function {function!r}{hint}")
    if _takes_rows(found):
        return RowReward(RowFunction(name, _guarded(name, path, found)), _given(name, rows))
    return CheckedReward(name, _UserFunction(name, path, found))


def check_name(name: str, *, allow_unsandboxed: bool = False) -> None:
    """Raises what `load_reward` would of the name alone (runs a user's file); loads and asks no model, reads no rows."""
    file, colon, _ = name.rpartition(":")
    is_own = bool(colon) and file.endswith(".py")
    is_model = name.startswith("judge:") if is_spec(name) else _names_a_model(name) and not is_own
    if name in BUILT_IN or not is_model:
        load_reward(name, rows=(), allow_unsandboxed=allow_unsandboxed)


def _takes_rows(function: Callable[..., Any]) -> bool:
    """Whether a function's third parameter is `rows`."""
    try:
        return list(inspect.signature(function).parameters)[2:3] == ["rows"]
    except (TypeError, ValueError):  # some built-in callables have no signature
        return False


def _given(name: str, rows: Sequence[PromptRow] | None) -> Sequence[PromptRow]:
    if rows is None:
        raise OptionError(
            f"reward {name}: takes the prompts' rows, and there are none here; it goes with --prompts FILE"
        )
    return rows


def _guarded(name: str, path: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its errors told as a user's."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # whatever a user's function raises
            raise RewardError(f"{name}: {described(error, path)}") from error

    return call


def _names_a_model(name: str) -> bool:
    """An existing folder, or what looks like a Hub id."""
    return Path(name).expanduser().is_dir() or (
        re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and ".py" not in name
    )


class _UserFunction:
    """A user's function as one over lists; what it raises becomes a RewardError."""

    def __init__(self, name: str, path: Path, function: Callable[..., Any]) -> None:
        self.name, self.path, self.function = name, path, function
        self.shape = _shape(name, function)

    def __call__(self, prompts: list[str], responses: list[str]) -> Any:
        if self.shape.takes_lists is None:
            self.shape = _Shape(self._probe(), self.shape.is_swapped)
        if self.shape.takes_lists:
            try:
                return self._call(list(prompts), list(responses))
            except Exception as error:  # whatever a user's function raises
                raise RewardError(self._raised(error, self._culprit(prompts, responses))) from error
        results = []
        for at, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            try:
                results.append(self._call(prompt, response))
            except Exception as error:  # as above
                raise RewardError(self._raised(error, which(at, response))) from error
        return results

    def _call(self, prompt: Any, response: Any) -> Any:
        return self.function(response, prompt) if self.shape.is_swapped else self.function(prompt, response)

    def _probe(self) -> bool:
        """Does it take lists? Tried once, with two answers: a function of strings fails or gives another count."""
        try:
            result = self._call(["a prompt", "a prompt"], ["one answer", "another answer"])
            return not isinstance(result, str | bytes | dict) and len([float(value) for value in result]) == 2
        except Exception:  # a function of strings may raise anything when given lists
            return False

    def _culprit(self, prompts: list[str], responses: list[str]) -> str:
        """The first response at which the function raises alone, or the batch where it does at none."""
        for at, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            try:
                self._call([prompt], [response])
            except Exception:  # the same error, or another: either way this is the response to look at
                return which(at, response)
        return f"the {len(responses)} responses together"

    def _raised(self, error: Exception, where: str) -> str:
        return f"{self.name}: {described(error, self.path)} for {where}"


@dataclass(frozen=True)
class _Shape:
    takes_lists: bool | None  # None: not told by names or annotations
    is_swapped: bool


def _shape(name: str, function: Callable[..., Any]) -> _Shape:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in callables have none
        return _Shape(None, False)
    parameters = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    try:
        signature.bind("prompt", "response")
    except TypeError as error:
        raise RewardError(
            f"{name}: expected a function of (prompts, responses) or (prompt, response); it takes {signature} ({error})"
        ) from None
    names = [parameter.name for parameter in parameters[:2]]
    is_swapped = len(names) == 2 and names[0] in _RESPONSES and names[1] in _PROMPTS
    if names and all(each in _MANY for each in names):
        return _Shape(True, is_swapped)
    if names and all(each in _ONE for each in names):
        return _Shape(False, is_swapped)
    annotations = [_type_name(parameter.annotation) for parameter in parameters[:2]]
    if annotations and all(annotation == "str" for annotation in annotations):
        return _Shape(False, is_swapped)
    if annotations and all(annotation in ("list", "Sequence") for annotation in annotations):
        return _Shape(True, is_swapped)
    return _Shape(None, is_swapped)


def _type_name(annotation: Any) -> str:
    """`list` of `list[str]`, `typing.List[str]` or `"list[str]"`; the outermost type's bare name."""
    text = annotation if isinstance(annotation, str) else str(annotation)
    text = annotation.__name__ if isinstance(annotation, type) and "[" not in text else text
    outer = text.partition("[")[0].rpartition(".")[2]
    return "list" if outer == "List" else outer


def load_module(path: Path) -> ModuleType:
    """Run a user's Python file. Raises RewardError."""
    name = f"paperworks_reward_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None  # a .py file always has both
    module = importlib.util.module_from_spec(specification)
    folder = str(path.resolve().parent)
    sys.modules[name] = module  # dataclasses and pickle look modules up by name
    sys.path.insert(0, folder)  # modules beside the file, as when it is run
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's file raises when it is run
        del sys.modules[name]
        raise RewardError(f"{path}: cannot be loaded: {described(error, path)}") from error
    finally:
        sys.path.remove(folder)
    return module


def described(error: BaseException, path: Path) -> str:
    """`ValueError: bad (line 12)`, on one line; the line is the deepest one in the user's file."""
    text = " ".join(str(error).split())[:200]
    described = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return described
    own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    own = own or [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == path.name
    ]
    return f"raised {described} (line {own[-1]})" if own else f"raised {described}"
