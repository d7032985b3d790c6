"""Reading JSON files that are ours, but may be damaged or edited by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from ddkeras.exceptions import ConfigError

_Parsed = TypeVar("_Parsed")


def read_json(path: Path, parse: Callable[[Any], _Parsed], *, remedy: str) -> _Parsed:
    """Read a JSON file.

    Args:
        path: the file.
        parse: converts its content. `of_type` and `texts` check the types of fields, which JSON does not.
        remedy: the end of the error message.

    Raises:
        ConfigError: it is not JSON, or `parse` rejects it.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; {remedy}") from error
    except KeyError as error:
        raise ConfigError(f"{path} has no field {error.args[0]}; {remedy}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged; {remedy}") from error


def of_type(value: Any, kind: type[_Parsed]) -> _Parsed:
    """The value itself, checked; a whole number is a float, too, but True and False are no numbers.

    Raises:
        TypeError: it is of another type.
    """
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return cast(_Parsed, value)


def texts(value: Any) -> list[str]:
    """The value itself, checked to be a list of strings.

    Raises:
        TypeError: it is something else.
    """
    return [of_type(text, str) for text in of_type(value, list)]
