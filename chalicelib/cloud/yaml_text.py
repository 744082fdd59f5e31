"""YAML in which every value is the text that the file has: `007` is no number, `no` is no boolean.

JSON is YAML too, and is read without a library.
"""

import importlib
import json
from collections.abc import Callable
from typing import Any, cast

INSTALL = "To read YAML, install PyYAML: pip install \"pyyaml~=6.0\""


class NoYaml(ValueError):
    """It cannot be read. The text says in which line, never what it holds."""


def parse(text: str) -> object:
    """Dictionaries, lists, texts. A key that stands twice is refused.

    Raises NoYaml; ModuleNotFoundError if it is no JSON and PyYAML is not installed.
    """
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        return _parse_json(text)
    try:
        loader = yaml.SafeLoader(text)
        # of all unquoted words, only `<<` means more than its text
        loader.yaml_implicit_resolvers = {"<": [
            resolver for resolver in yaml.SafeLoader.yaml_implicit_resolvers["<"] if resolver[0].endswith(":merge")]}
        node = loader.get_single_node()
        _refuse_twins(node, set())
        return None if node is None else cast(object, loader.construct_document(node))
    except yaml.YAMLError as problem:
        line = getattr(getattr(problem, "problem_mark", None), "line", None)
        raise NoYaml("" if line is None else f" (line {line + 1})") from None
    except (RecursionError, ValueError) as problem:
        raise NoYaml(str(problem) if isinstance(problem, NoYaml) else "") from None


def unique_keys(refuse: Callable[[str], Exception]) -> Callable[[list[tuple[str, object]]], dict[str, object]]:
    """An `object_pairs_hook` that raises what `refuse` makes of a key that stands twice, of which parsers keep the last
    one without a word."""
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict[str, object]()
        for key, value in pairs:
            if key in made:
                raise refuse(key)
            made[key] = value
        return made

    return unique


def _parse_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=unique_keys(lambda _: NoYaml(": a key stands there twice")),
                          parse_int=str, parse_float=str)
    except NoYaml:
        raise
    except (ValueError, RecursionError):
        raise ModuleNotFoundError(INSTALL) from None


def _refuse_twins(node: Any, known: set[int]) -> None:
    """Of two equal keys PyYAML keeps the last one without a word."""
    if node is None or id(node) in known or node.id == "scalar":
        return
    known.add(id(node))                     # an anchor's node stands in several places
    pairs: list[Any] = node.value if node.id == "mapping" else [(None, value) for value in node.value]
    keys = set[str]()
    for key, value in pairs:
        if key is not None and key.id == "scalar" and key.value != "<<":
            if key.value in keys:
                raise NoYaml(f" (line {key.start_mark.line + 1}: the key stands there twice)")
            keys.add(key.value)
        _refuse_twins(value, known)
