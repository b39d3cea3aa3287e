"""Where a run computes, and where it is recorded."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from efficientnet_finetuning.parameters.group import Count, Group


class DeviceParameters(Group):
    """Where the heavy nodes run.

    Attributes:
        accelerator: ``auto`` (a GPU where there is one), ``gpu`` (an error where there is none) or ``cpu``.
        mixed_precision: the compute type of backbones that are built: ``none`` is float32. Weights and logits
            stay in float32. Worth it on a GPU only.
        deterministic: the same run gives the same weights to the bit; slower where TensorFlow has faster ways.
        workers: how many processes share the work: each has a GPU or, where there is none, a part of the cores; ``all``
            is one for each GPU, or each core. More than one needs the extra ``cluster``, and trains with JAX.
        verbose: let the libraries below Keras say what they do, too.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    mixed_precision: Literal["none", "bfloat16", "float16"] = "none"
    deterministic: bool = False
    workers: Count | Literal["all"] = Field(default=1, exclude=True)
    verbose: bool = Field(default=False, exclude=True)

    @property
    def dtype_policy(self) -> str:
        """Keras' name for the precision."""
        return "float32" if self.mixed_precision == "none" else f"mixed_{self.mixed_precision}"


class ClusterParameters(Group):
    """Where the workers are, if there are several.

    Attributes:
        address: of a Ray cluster: ``auto`` on one of its machines, else ``ray://<host>:10001``; ``null``: a cluster of
            this machine alone, which the run starts and stops.
        max_restarts: how often the ranks of a training start again from the last checkpoint after one of them died.
    """

    address: str | None = None
    max_restarts: Annotated[int, Field(ge=0)] = 3

    @field_validator("address")
    @classmethod
    def _known_kind(cls, address: str | None) -> str | None:
        if address not in (None, "auto") and not address.startswith("ray://"):
            raise ValueError(f"{address!r} is no address. Give auto, ray://<host>:10001, or null for this machine.")
        return address


class TrackingParameters(Group):
    """Where MLflow records the runs.

    Attributes:
        uri: MLflow's tracking URI; ``MLFLOW_TRACKING_URI``, else a SQLite file in the project, where ``null``.
        experiment: MLflow's experiment.
    """

    uri: str | None = None
    experiment: str
