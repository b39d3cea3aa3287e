"""The common base of all parameter groups."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from efficientnet_finetuning.errors import printable

Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
ClassWeight = Literal["none", "balanced"]
Auto = Literal["auto"]
ImageSize = Annotated[int, Field(ge=32)]


class Group(BaseModel):
    """A group of parameters: unknown names are errors, values are immutable, defaults are validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.isascii() and printable(value) != value:
            raise ValueError(f"{value!a} is not valid UTF-8, so it cannot be recorded. Rename the file or folder.")
        return value
