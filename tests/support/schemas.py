"""The documented schemas of what `ddk COMMAND --json` prints."""

import json

from jsonschema import Draft202012Validator
from tiny import REPOSITORY

FOLDER = REPOSITORY / "docs/schemas"


def validator(name: str) -> Draft202012Validator:
    """Of the output of a command, or of `error`."""
    schema = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_output(command: str, printed: str) -> None:
    """Raise an error unless a line that a command printed with --json, if it printed one, is as documented."""
    if printed:
        told = json.loads(printed)
        validator("error" if list(told) == ["error"] else command).validate(told)
