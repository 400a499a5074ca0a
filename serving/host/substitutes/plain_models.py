"""A data model without pydantic, for environments that lack it: takes the place of `serving.data_model`.

It has the part of pydantic that the values between the server and its hosts use, with the same JSON. Values are checked
as pydantic checks them, because documents of a publisher are parsed in hosts, too.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from json import JSONDecodeError
from typing import Any, ClassVar, TypeVar, Union

from serving.host.substitutes import plain_json
from serving.host.substitutes.instants import write_instant
from serving.host.substitutes.type_checks import Check, JsonValue, Limits, Mismatch, Problem, make_check

__all__ = ["BaseModel", "ConfigDict", "Field", "JsonValue", "ValidationError"]

Self = TypeVar("Self", bound="BaseModel")
ConfigDict = dict


class _Missing(Enum):
    """The default of a field that must be given."""

    MISSING = "missing"


class FieldInfo:
    """One field: its default, its limits, and from the class that has it its annotation and its check."""

    def __init__(self, default: Any = _Missing.MISSING, **limits: Any) -> None:
        self.default = default
        self.limits = Limits(**limits)
        self.annotation: Any = None
        self.check: Check = lambda value: value

    def is_required(self) -> bool:
        """Whether the field has no default."""
        return self.default is _Missing.MISSING

    def get_default(self) -> Any:
        """Return the default; a new one each time where it could be changed."""
        return copy.deepcopy(self.default) if isinstance(self.default, (dict, list)) else self.default


def Field(default: Any = _Missing.MISSING, **limits: Any) -> Any:  # noqa: N802  (pydantic's name)
    """Describe a field, as its default or inside of Annotated; `limits` are those of `Limits`."""
    return FieldInfo(default, **limits)


class ValidationError(ValueError):
    """A document or values that a model does not allow."""

    def __init__(self, title: str, problems: list[Problem]) -> None:
        lines = [f"{'.'.join(map(str, place))}\n  {message}" for place, message in problems]
        super().__init__("\n".join([f"{len(problems)} validation errors for {title}", *lines]))
        self._problems = problems

    def errors(self, **_: bool) -> list[dict[str, Any]]:
        """Return a dict for each problem: `loc`, where it is, and `msg`, a sentence about it."""
        return [{"loc": place, "msg": message} for place, message in self._problems]


class BaseModel:
    """Base of classes whose annotations are fields, checked when an object is made. Equal by their fields."""

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[dict[str, FieldInfo]] = {}

    def __init_subclass__(cls) -> None:
        """Make the fields of a new class from its annotations."""
        finite = cls.model_config.get("allow_inf_nan") is False
        cls.model_fields = dict(cls.model_fields)
        for name, written in getattr(cls, "__annotations__", {}).items():
            if name in ("model_config", "model_fields"):
                continue
            default = cls.__dict__.get(name, _Missing.MISSING)
            field = default if isinstance(default, FieldInfo) else FieldInfo(default)
            field.annotation = resolve_annotation(written, vars(sys.modules[cls.__module__]))
            inner = make_check(field.annotation, finite=finite)
            field.check = _limit(inner, field.limits) if isinstance(default, FieldInfo) else inner
            cls.model_fields[name] = field

    def __init__(self, **values: Any) -> None:
        """Check the fields and keep them; raises ValidationError."""
        try:
            self.__dict__.update(self._check_fields(values))
        except Mismatch as error:
            raise ValidationError(type(self).__name__, error.problems) from None

    @classmethod
    def check_value(cls: type[Self], value: Any) -> Self:
        """Return `value` as an object of this class: itself, or made from its fields. Raises Mismatch."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise Mismatch("Input should be an object")
        made = cls.__new__(cls)
        made.__dict__.update(cls._check_fields(value))
        return made

    @classmethod
    def model_validate(cls: type[Self], value: Any) -> Self:
        """Return an object made from a dict; raises ValidationError."""
        try:
            return cls.check_value(value)
        except Mismatch as error:
            raise ValidationError(cls.__name__, error.problems) from None

    @classmethod
    def model_validate_json(cls: type[Self], raw: str | bytes | bytearray) -> Self:
        """Return an object made from a JSON document; raises ValidationError."""
        try:
            value = plain_json.read_json(raw)
        except JSONDecodeError as error:
            raise ValidationError(cls.__name__, [((), f"Invalid JSON: {error}")]) from None
        return cls.model_validate(value)

    def model_dump(self, mode: str = "python") -> dict[str, Any]:
        """Return the fields as a dict, of models inside as well; with `mode` ``json`` only values that JSON has."""
        return {name: _dump(self.__dict__[name], is_json=mode == "json") for name in self.model_fields}

    def model_dump_json(self) -> str:
        """Return the fields as a JSON document; numbers that are not finite become null."""
        return plain_json.dumps(self.model_dump(mode="json")).decode()

    def model_copy(self: Self, update: Mapping[str, Any] | None = None) -> Self:
        """Return a copy with some fields replaced. As with pydantic, they are not checked."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__, **(update or {}))
        return made

    @classmethod
    def _check_fields(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, field in cls.model_fields.items():
            try:
                if name in values:
                    found[name] = field.check(values[name])
                elif field.is_required():
                    raise Mismatch("Field required")
                else:
                    found[name] = field.get_default()
            except Mismatch as error:
                problems += error.at(name).problems
        if cls.model_config.get("extra") == "forbid":
            extra = values.keys() - cls.model_fields.keys()
            problems += [((name,), "Extra inputs are not permitted") for name in values if name in extra]
        if problems:
            raise Mismatch("wrong fields", problems)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change a frozen object."""
        if self.model_config.get("frozen"):
            raise ValidationError(type(self).__name__, [((name,), "Instance is frozen")])
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        """Whether the other object is of the same class, with equal fields."""
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        """Hash the fields; raises TypeError where one cannot be hashed."""
        return hash((type(self), *(self.__dict__[name] for name in self.model_fields)))

    def __repr__(self) -> str:
        """Show the class and its fields."""
        fields = (f"{name}={self.__dict__[name]!r}" for name in self.model_fields)
        return f"{type(self).__name__}({', '.join(fields)})"


def _limit(inner: Check, limits: Limits) -> Check:
    return lambda value: limits.require(inner(value))


def _dump(value: Any, *, is_json: bool) -> Any:
    if isinstance(value, BaseModel):
        return {name: _dump(each, is_json=is_json) for name, each in value.__dict__.items()}
    if isinstance(value, dict):
        return {_dump_key(key) if is_json else key: _dump(each, is_json=is_json) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        found = [_dump(each, is_json=is_json) for each in value]
        return found if is_json or isinstance(value, list) else tuple(found)
    if is_json and isinstance(value, datetime):
        return write_instant(value)
    return value.value if is_json and isinstance(value, Enum) else value


def _dump_key(key: Any) -> str:
    if isinstance(key, Enum):
        return str(key.value)
    return str(key)


def resolve_annotation(written: Any, names: Mapping[str, Any]) -> Any:
    """Return what an annotation means: text is evaluated with `names`, unions as Python before 3.10 knows them."""
    if not isinstance(written, str):
        return written
    tree = ast.fix_missing_locations(_UnionWriter().visit(ast.parse(written, mode="eval")))
    return eval(compile(tree, "<annotation>", "eval"), {**names, _UnionWriter.NAME: Union})  # noqa: S307  (our own code)


class _UnionWriter(ast.NodeTransformer):
    """Writes ``A | B`` as ``Union[A, B]``."""

    NAME = "__union__"

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.BitOr):
            return node
        pair = ast.Tuple(elts=[node.left, node.right], ctx=ast.Load())
        return ast.Subscript(value=ast.Name(id=self.NAME, ctx=ast.Load()), slice=pair, ctx=ast.Load())
