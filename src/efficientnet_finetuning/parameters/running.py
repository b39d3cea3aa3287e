"""Where a run computes, and where MLflow records it."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from efficientnet_finetuning.parameters.group import Count, Group


class DeviceParameters(Group):
    """Where the heavy nodes run.

    Attributes:
        accelerator: ``auto`` (a GPU if there is one), ``gpu`` (an error if there is none) or ``cpu``.
        mixed_precision: compute type of the backbone; ``none`` is float32. Weights and logits stay in float32. Only
            GPUs benefit.
        deterministic: whether equal runs give exactly equal weights; TensorFlow is slower then.
        workers: number of processes that share the work, or ``all``: one per GPU or, without GPUs, one per core. More
            than one needs the extra ``cluster`` and trains with JAX.
        verbose: whether to print all log messages, including those of the libraries.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    mixed_precision: Literal["none", "bfloat16", "float16"] = "none"
    deterministic: bool = False
    workers: Count | Literal["all"] = Field(default=1, exclude=True)
    verbose: bool = Field(default=False, exclude=True)

    @property
    def dtype_policy(self) -> str:
        """The name of the precision in Keras."""
        return "float32" if self.mixed_precision == "none" else f"mixed_{self.mixed_precision}"


class ClusterParameters(Group):
    """Where several workers run.

    Attributes:
        address: of a Ray cluster: ``auto`` on one of its machines, else ``ray://<host>:10001``; ``null``: the run
            starts and stops Ray on this machine.
        max_restarts: how often a training restarts from its last checkpoint after a worker died.
    """

    address: str | None = None
    max_restarts: Annotated[int, Field(ge=0)] = 3

    @field_validator("address")
    @classmethod
    def _known_kind(cls, address: str | None) -> str | None:
        if address not in (None, "auto") and not address.startswith("ray://"):
            raise ValueError(
                f"{address!r} is not a valid address. Give auto, ray://<host>:10001, or null for this machine."
            )
        return address


class TrackingParameters(Group):
    """Where MLflow records the runs.

    Attributes:
        uri: MLflow's tracking URI; ``null``: ``MLFLOW_TRACKING_URI`` or, if that is not set, a SQLite file in the
            project.
        experiment: name of the MLflow experiment.
    """

    uri: str | None = None
    experiment: str
