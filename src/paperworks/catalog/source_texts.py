"""What the package's own source says of objectives and papers: docstrings, options, defaults. Read, never imported.

The paper pages need these texts, and the catalogue knows nothing of the wings: their files are parsed as text instead.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OptionText:
    """One option of an objective as its source has it; `default` is Python source, "" where there is none."""

    name: str
    default: str
    help: str


@dataclass(frozen=True)
class ObjectiveText:
    """One objective: the name users type, its class, its file, its docstring, its options with the inherited ones."""

    name: str
    class_name: str
    file: Path
    docstring: str
    options: tuple[OptionText, ...]


def objectives_in(folder: Path) -> tuple[ObjectiveText, ...]:
    """The objectives that the Python files of a folder define, by file and place in it: classes with a `name` set."""
    classes: dict[str, tuple[Path, ast.ClassDef]] = {}
    for file in sorted(folder.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] = file, node
    definitions = {name: node for name, (_, node) in classes.items()}
    found = []
    for class_name, (file, node) in classes.items():
        typed = _own_name(node)
        if typed:
            docstring = ast.get_docstring(node) or ""
            options = tuple(_options(class_name, definitions).values())
            found.append(ObjectiveText(typed, class_name, file, docstring, options))
    return tuple(found)


def module_docstring(file: Path) -> str:
    """The docstring of a Python file, "" where it has none."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def _own_name(node: ast.ClassDef) -> str:
    for target, _, value in _fields(node):
        if target == "name" and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return ""


def _options(class_name: str, definitions: Mapping[str, ast.ClassDef]) -> dict[str, OptionText]:
    """Options by name, those of the bases first, as dataclasses order them."""
    node = definitions.get(class_name)
    if node is None:  # a base from another folder has no options of its own
        return {}
    options: dict[str, OptionText] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name):
            options |= _options(base.id, definitions)
    for name, annotation, value in _fields(node):
        if not ast.unparse(annotation).startswith("ClassVar"):
            options[name] = _option(name, value)
    return options


def _option(name: str, value: ast.expr | None) -> OptionText:
    if isinstance(value, ast.Call):  # option(default, "help", ...)
        help_text = value.args[1].value if len(value.args) > 1 and isinstance(value.args[1], ast.Constant) else ""
        return OptionText(name, ast.unparse(value.args[0]) if value.args else "", str(help_text))
    return OptionText(name, ast.unparse(value) if value else "", "")


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement.annotation, statement.value
