"""Validation of all parameters at once, with readable error messages."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from efficientnet_finetuning.errors import InputError, near_matches
from efficientnet_finetuning.parameters import Parameters

_TYPE_TAG = re.compile(r"constrained-|literal\[|float$")


def validate(raw: Mapping[str, Any]) -> Parameters:
    """Validate all parameters at once.

    Args:
        raw: the merged configuration, groups by name. Names that start with ``_`` are YAML helpers.

    Raises:
        InputError: lists all errors with full names and similar known names.
    """
    given = {name: value for name, value in raw.items() if not str(name).startswith("_")}
    try:
        return Parameters.model_validate(given)
    except ValidationError as error:
        faults = [_describe(fault, Parameters) for fault in _merged(error.errors())]
        raise InputError("The parameters are wrong:\n" + "\n".join(f"  - {fault}" for fault in faults)) from None


def flatten(parameters: BaseModel, prefix: str = "") -> dict[str, Any]:
    """All parameters by dotted name (``finetune.training.epochs``)."""
    return dict(_leaves(parameters, prefix))


def _leaves(parameters: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(parameters).model_fields:
        value = getattr(parameters, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _merged(faults: Iterable[ErrorDetails]) -> Iterable[ErrorDetails]:
    """One fault per parameter. pydantic finds one for each type of a union."""
    merged: dict[tuple[int | str, ...], ErrorDetails] = {}
    for fault in faults:
        if (first := merged.setdefault(_location(fault), fault)) is not fault:
            number = first["msg"].partition(", unable")[0].partition(", got")[0]
            first["msg"] = f"{number}, or {fault['msg'].removeprefix('Input should be ')}"
    return merged.values()


def _location(fault: ErrorDetails) -> tuple[int | str, ...]:
    # For a union, pydantic adds the type to the location, such as "literal['auto']".
    return tuple(part for part in fault["loc"] if not _TYPE_TAG.match(str(part)))


def _describe(fault: ErrorDetails, root: type[BaseModel]) -> str:
    location = _location(fault)
    name = ".".join(str(part) for part in location)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = _group_at(root, fault["loc"][:-1]).model_fields
        unknown = str(fault["loc"][-1])
        group = ".".join(str(part) for part in location[:-1])
        elsewhere = [full for full in _names(root) if full.startswith(group) and full.endswith(f".{unknown}")]
        elsewhere.sort(key=lambda full: not full.startswith("finetune"))  # what most people want to change
        meant = f" Did you mean {' or '.join(elsewhere[:2])}?" if elsewhere else near_matches(unknown, known)
        return f"{name}: unknown parameter.{meant} Known here: {', '.join(known)}."
    if fault["type"] == "missing":
        return f"{name}: missing. Add it to a parameters*.yml of your environment."
    if not name:
        return message
    received = "" if fault["type"] == "value_error" else f" Received: {fault['input']!r}."
    end = "" if message.endswith((".", "?")) else "."
    return f"{name}: {message}{end}{received}"


def _names(group: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all parameters."""
    for name in group.model_fields:
        if isinstance(inner := _type_of(group, name), type) and issubclass(inner, BaseModel):
            yield from _names(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def _type_of(group: type[BaseModel], name: str) -> Any:
    """The annotation of a parameter, or the group in it where it is one."""
    annotation = group.model_fields[name].annotation
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), annotation)


def _group_at(group: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for name in location:
        group = _type_of(group, str(name))
    return group
