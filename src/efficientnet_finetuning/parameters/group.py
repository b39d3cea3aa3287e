"""What every group of parameters has in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
ClassWeight = Literal["none", "balanced"]
Auto = Literal["auto"]
ImageSize = Annotated[int, Field(ge=32)]


class Group(BaseModel):
    """A group of parameters: no unknown names, no change after validation, defaults checked too."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
