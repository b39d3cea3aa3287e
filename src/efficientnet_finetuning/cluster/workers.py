"""Ray workers: blocks of rows run as tasks, the ranks of a training as actors."""

import logging
import os
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from efficientnet_finetuning.cluster.packing import pack, unpack
from efficientnet_finetuning.cluster.rank import About, Rank, about, code_hash
from efficientnet_finetuning.device import prepare_process, without_native_output
from efficientnet_finetuning.errors import InputError
from efficientnet_finetuning.parameters import ClusterParameters, DeviceParameters
from efficientnet_finetuning.workers import Block, Result, Workers, num_cores

logger = logging.getLogger(__name__)

_RETRIES = 3
# Bytes for objects that processes exchange, such as features and weights.
_STORE = 1 << 29
_SECONDS_TO_START, _SECONDS_TO_NOTICE = 120, 5
# Keeps other users of this machine out of the local cluster. Ray reads it once per process.
_KEY = secrets.token_hex(32)


class RayWorkers(Workers):
    """Workers of a Ray cluster, or of a local one that runs until :meth:`close`."""

    _ray: Any = None

    def __init__(
        self, device: DeviceParameters, cluster: ClusterParameters, data: Path, paths: Sequence[Path] = ()
    ) -> None:
        """Connect to a cluster, or start one on this machine.

        Every worker must see the folder ``data`` and all ``paths`` at the same path.

        Raises:
            InputError: Ray is missing, the cluster does not answer or has too few devices, or a machine lacks files or
                has other code.
        """
        self._environment = _Environment(cluster.address is None)
        self._max_restarts = cluster.max_restarts
        self._local: Path | None = None
        try:
            self._ray = _import_ray(device.workers)
            self._connect(cluster.address)
            self._take_stock(device, cluster.address)
            self._check_machines(data, paths)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect from the cluster, and stop a local one."""
        if self._ray is not None:
            self._ray.shutdown()
        if self._local is not None:
            shutil.rmtree(self._local, ignore_errors=True)
        self._environment.restore()

    def map_blocks(self, function: Callable[[Block], Result], blocks: Iterable[Block]) -> Iterator[Result]:
        """See :meth:`~efficientnet_finetuning.workers.Workers.map_blocks`."""
        if self._is_alone:
            yield from super().map_blocks(function, blocks)
            return
        packed = [self._ray.put(pack(function))]
        # Ray sets only OMP_NUM_THREADS, which TensorFlow ignores.
        environment = _environment() | {"TF_NUM_INTRAOP_THREADS": str(self._cores)}
        options = self._share | {"runtime_env": {"env_vars": environment}}
        task = self._ray.remote(**options, max_retries=0, scheduling_strategy="SPREAD")(_run)
        pending: deque[tuple[Any, Block]] = deque()
        for block in blocks:
            pending.append((task.remote(packed, block), block))
            if len(pending) > 2 * self.count:
                yield self._result(task, packed, *pending.popleft())
        while pending:
            yield self._result(task, packed, *pending.popleft())

    def train(self, function: Callable[..., Result], *arguments: Any, signals: Any) -> Result:
        """See :meth:`~efficientnet_finetuning.workers.Workers.train`."""
        if self._is_alone:
            return super().train(function, *arguments, signals=signals)
        packed = [self._ray.put(pack((function, arguments)))]
        for restart in range(self._max_restarts + 1):
            if restart:
                logger.info(
                    "All ranks restart from the last checkpoint (restart %d of %d)", restart, self._max_restarts
                )
            try:
                return self._train_once(packed, signals)
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.NodeDiedError) as error:
                logger.warning("A rank died: %s", _last_line(error))
        raise InputError(
            f"Ranks of the training died {self._max_restarts + 1} times; cluster.max_restarts is {self._max_restarts}. "
            "The last checkpoint is kept, and the same command resumes from it. The usual reason is too little memory: "
            "lower training.batch_size, or set device.workers=1."
        )

    def _connect(self, address: str | None) -> None:
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "configure_logging": False}
        if address is None:
            self._local = Path(tempfile.mkdtemp(prefix="workers-"))
            options |= {
                "num_cpus": num_cores(),
                "include_dashboard": False,
                "object_store_memory": _STORE,
                "_temp_dir": str(self._local),
            }
        try:
            self._ray.init(**options)
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            if address is None:
                raise InputError(f"Ray cannot start its processes on this machine: {_last_line(error)}") from error
            raise InputError(
                f"cluster.address: no Ray cluster answers at {address}: {_last_line(error)} Give auto on a machine of "
                "the cluster, ray://<host>:10001 elsewhere, or null for the devices of this machine."
            ) from error

    def _take_stock(self, device: DeviceParameters, address: str | None) -> None:
        """Count the devices, and decide what each worker gets."""
        found, count = self._ray.cluster_resources(), device.workers
        cores = int(found.get("CPU", 0))
        gpus = 0 if device.accelerator == "cpu" else int(found.get("GPU", 0))
        there, kind = (gpus, "GPUs") if gpus else (cores, "cores")
        self.count = there if count == "all" else int(count)
        if self.count > there:
            where = f"The cluster at {address}" if address else "This machine"
            raise InputError(
                f"device.workers is {count}, but each worker needs one of the {kind}, and there are {there}. "
                f"{where} has {cores} cores and {gpus} GPUs. Give a number up to {there}, or all."
            )
        self._is_alone = self.count == 1 and address is None
        self._on_gpus = gpus > 0
        self._cores = max(cores // self.count, 1)
        self._share = {"num_cpus": self._cores, "num_gpus": int(self._on_gpus)}

    def _check_machines(self, data: Path, paths: Sequence[Path]) -> None:
        """Check before the run that every machine sees the files and has the same code."""
        token = data / f".seen-by-workers-{secrets.token_hex(8)}"
        token.touch()
        try:
            machines = self._ask_machines([str(token), *map(str, paths)])
        finally:
            token.unlink()
        for machine in machines:
            if str(token) in machine.missing:
                raise InputError(
                    f"The worker on {machine.host} does not see this project's data in {data}. Workers read and write "
                    "there: mount the project on a shared file system, at the same path on all machines."
                )
            if machine.missing:
                raise InputError(
                    f"The worker on {machine.host} does not see {', '.join(machine.missing)}. Put it on a file system "
                    "that all machines share at the same path. Object stores are not supported."
                )
        _check_code(machines)
        hosts = ", ".join(sorted({machine.host for machine in machines}))
        device = "a GPU" if self._on_gpus else "1 core" if self._cores == 1 else f"{self._cores} cores"
        self.device = f"{self.count} workers with {device} each"
        logger.info("Workers: %d on %s, each with %s", self.count, hosts, device)
        if not self._on_gpus:
            logger.warning(
                "There is no GPU. Training on several workers uses JAX, which is about ten times slower on CPUs than "
                "TensorFlow with device.workers=1. The other steps do not become slower."
            )

    def _ask_machines(self, paths: list[str]) -> list[About]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self._ray.remote(num_cpus=0)(about)
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        asked = [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(paths)
            for node in nodes
        ]
        try:
            return list(self._ray.get(asked, timeout=_SECONDS_TO_START))
        except self._ray.exceptions.RayError as error:
            raise InputError(
                f"A machine of the cluster cannot run this project: {_last_line(error)} Install the project there with "
                "its extra cluster, in the same versions."
            ) from error

    def _result(self, task: Any, packed: list[Any], future: Any, block: Block) -> Any:
        faults = self._ray.exceptions
        died = (faults.WorkerCrashedError, faults.NodeDiedError, faults.ObjectLostError, faults.OutOfMemoryError)
        for retries_left in range(_RETRIES, -1, -1):
            try:
                return self._ray.get(future)
            except faults.RayTaskError as error:
                raise error.cause from None
            except died as error:
                if not retries_left:
                    raise InputError(
                        f"Workers died {_RETRIES + 1} times at the same block of rows. Finished work is kept, and the "
                        "same command continues from there. The usual reason is too little memory: lower "
                        "device.workers."
                    ) from error
                logger.warning("A worker died. Its block is computed again: %s", _last_line(error))
                future = task.remote(packed, block)
        raise AssertionError("the last try returns or raises")

    def _train_once(self, packed: list[Any], signals: Any) -> Any:
        from ray.util import placement_group, remove_placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = {"CPU": self._cores} | ({"GPU": 1} if self._on_gpus else {})
        group = placement_group([bundle] * self.count)
        platform = "cuda" if self._on_gpus else "cpu"
        actor = self._ray.remote(
            **self._share,
            max_concurrency=2,
            runtime_env={"env_vars": _environment() | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": platform}},
        )(Rank)
        ranks: list[Any] = []
        try:
            self._wait_for_room(group)
            for index in range(self.count):
                strategy = PlacementGroupSchedulingStrategy(group, index)
                ranks.append(actor.options(scheduling_strategy=strategy).remote())
            machines = self._ray.get([rank.about.remote([]) for rank in ranks])
            _check_code(machines)
            placed = ", ".join(f"{machine.host} ({machine.process})" for machine in machines)
            logger.info("Training with JAX on %d ranks: %s", self.count, placed)
            address = self._ray.get(ranks[0].address.remote())
            futures = [rank.train.remote(packed, address, index, self.count) for index, rank in enumerate(ranks)]
            return self._follow(ranks, futures, signals)
        finally:
            for rank in ranks:
                self._ray.kill(rank)
            remove_placement_group(group)

    def _wait_for_room(self, group: Any) -> None:
        try:
            self._ray.get(group.ready(), timeout=_SECONDS_TO_START)
        except self._ray.exceptions.GetTimeoutError as error:
            raise InputError(
                f"The cluster had no free devices for {self.count} ranks within {_SECONDS_TO_START} seconds. Try again "
                "later, or lower device.workers."
            ) from error

    def _follow(self, ranks: list[Any], futures: list[Any], signals: Any) -> Any:
        """Wait for all ranks, log the messages of the first one, and return its result."""
        pending, was_asked = futures, False
        while pending:
            done, pending = self._ray.wait(pending, timeout=0.2)
            self._tell(ranks[0])
            for future in done:
                try:
                    self._ray.get(future)
                except self._ray.exceptions.RayTaskError as error:
                    if not isinstance(error.cause, InputError):
                        self._raise_if_another_died(pending)
                    raise error.cause from None
            if signals.pending and not was_asked:
                was_asked = True
                for rank in ranks:
                    rank.ask_to_stop.remote()
        self._tell(ranks[0])
        course = self._ray.get(futures[0])
        if course is None:
            signals.let_through()
        return course

    def _raise_if_another_died(self, pending: list[Any]) -> None:
        """The other ranks fail when one dies, sometimes before Ray reports the reason."""
        for future in pending:
            if self._ray.wait([future], timeout=_SECONDS_TO_NOTICE)[0]:
                with suppress(self._ray.exceptions.RayTaskError):
                    self._ray.get(future)

    def _tell(self, rank: Any) -> None:
        for name, level, message, extras in self._ray.get(rank.news.remote()):
            logging.getLogger(name).log(level, "%s", message, extra=extras)


class _Environment:
    """Environment variables for Ray, which reads most of them when it is imported."""

    def __init__(self, is_local: bool) -> None:
        settings = {
            "RAY_USAGE_STATS_ENABLED": "0",  # no reports to Ray's makers
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # this process must not take the GPUs from the workers
        }
        if is_local:
            # With this switch, Ray binds only to the loopback address, as it does on macOS.
            settings |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
            settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _KEY}
        self._before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)

    def restore(self) -> None:
        for name, value in self._before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _import_ray(count: int | str) -> Any:
    if missing := [name for name in ("jax", "ray") if find_spec(name) is None]:
        raise InputError(
            f"device.workers is {count}, which needs {' and '.join(missing)}: pip install -e '.[cluster]'. With "
            "device.workers=1 this process computes alone."
        )
    import ray

    return ray


def _environment() -> dict[str, str]:
    """Environment variables that workers inherit from this process."""
    return {name: os.environ[name] for name in ("KERAS_BACKEND", "TF_DETERMINISTIC_OPS") if name in os.environ}


@cache
def _unpacked(reference: Any) -> Any:
    """Unpack a function once per process."""
    import ray

    prepare_process(DeviceParameters())
    with without_native_output():
        return unpack(ray.get(reference))


def _run(packed: list[Any], block: Block) -> Any:
    return _unpacked(packed[0])(block)


def _check_code(machines: Sequence[About]) -> None:
    here = code_hash()
    if other := sorted({machine.host for machine in machines if machine.code != here}):
        raise InputError(
            f"The workers on {', '.join(other)} have another version of this project, Keras, JAX, NumPy or TensorFlow "
            "than this machine. Install the same versions everywhere (requirements.lock), and run again."
        )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
