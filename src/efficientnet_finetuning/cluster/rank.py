"""A rank: one process, on one device, of a training that several processes share.

It computes with JAX. One epoch of Lite0 at 64 px with TensorFlow and with JAX, from the same start on one CPU (21
images, no dropout, because its random numbers differ): the root mean square difference of the weights is 4e-7, the
largest is 7e-5 with SGD at 1e-3 and 2e-4 with AdamW at 1e-4. The losses were 1.1992 and 1.1999, and 1.2082 twice.
"""

import hashlib
import logging
import os
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from efficientnet_finetuning.cluster.packing import unpack
from efficientnet_finetuning.training.ranks import Ranks

_PACKAGE = Path(__file__).parents[1]
_COMPUTING = ("keras", "jax", "numpy", "tensorflow")
# Values that a training attaches to its log records.
_EXTRAS = ("metrics", "step")
_PROXIES = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy")
# Seconds without a heartbeat of a rank until JAX ends the others. Ray usually notices earlier.
_HEARTBEAT = 30


class About(NamedTuple):
    """Machine and process id of a worker, a hash of its code and libraries, and the paths that it does not see."""

    host: str
    process: int
    code: str
    missing: list[str]


def about(paths: list[str]) -> About:
    """Information about this process and those of ``paths`` that it does not see."""
    missing = [path for path in paths if not Path(path).exists()]
    return About(socket.gethostname(), os.getpid(), code_hash(), missing)


def code_hash() -> str:
    """A hash of this package's modules and of the versions of the libraries that compute."""
    found = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        found.update(file.relative_to(_PACKAGE).as_posix().encode() + file.read_bytes())
    for name in _COMPUTING:
        try:
            found.update(f"{name} {version(name)}".encode())
        except PackageNotFoundError:  # JAX trains without TensorFlow
            found.update(name.encode())
    return found.hexdigest()


class JaxRanks(Ranks):
    """The ranks of one training, connected by ``jax.distributed``."""

    def __init__(self, rank: int, count: int) -> None:
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self.rank, self.count = rank, count
        mesh = Mesh(jax.devices(), ("ranks",))
        self._one_each = NamedSharding(mesh, PartitionSpec("ranks"))
        # Compiled once, unlike jax.experimental.multihost_utils.broadcast_one_to_all.
        self._first = jax.jit(lambda numbers: numbers[0], out_shardings=NamedSharding(mesh, PartitionSpec()))

    def agree(self, number: float) -> float:
        """See :meth:`~efficientnet_finetuning.training.ranks.Ranks.agree`."""
        import jax

        own = np.array([number], np.float32)
        return float(self._first(jax.make_array_from_process_local_data(self._one_each, own)))


class _Asked(Exception):  # noqa: N818
    """The run was interrupted, and its checkpoint is written."""


class _Request:
    """Whether the run was interrupted; see :class:`~efficientnet_finetuning.training.checkpoint.Signals`."""

    pending = False

    def let_through(self) -> None:
        raise _Asked


class Rank:
    """A Ray actor that trains in one thread and answers calls in others."""

    def __init__(self) -> None:
        self._news: SimpleQueue[tuple[str, int, str, dict[str, Any]]] = SimpleQueue()
        self._request = _Request()

    def about(self, paths: list[str]) -> About:
        """See :func:`about`."""
        return about(paths)

    def address(self) -> str:
        """An address for the connection of the ranks, if this is the first one."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket(socket.AF_INET) as free:
            free.bind((host, 0))
            return f"{host}:{free.getsockname()[1]}"

    def train(self, packed: list[Any], address: str, rank: int, count: int) -> Any:
        """Train together with the other ranks; ``None`` if the run was interrupted.

        ``packed`` has the reference of a packed function and its arguments, ``address`` is that of the first rank.
        """
        # JAX would try to reach the other ranks through a proxy and wait for minutes.
        for name in _PROXIES:
            os.environ.pop(name, None)
            os.environ.pop(name.upper(), None)
        import jax
        import ray

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            address,
            count,
            rank,
            coordinator_bind_address=address if rank == 0 else None,
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
        import keras

        # JAX needs equal initial values on all ranks, although they are replaced immediately.
        keras.utils.set_random_seed(0)
        # Keras stores the distribution per thread, so it is set in the training thread.
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
        if rank == 0:
            logger = logging.getLogger("efficientnet_finetuning")
            logger.setLevel(logging.INFO)
            logger.addHandler(_Reporter(self._news))
        function, arguments = unpack(ray.get(packed[0]))
        try:
            course = function(*arguments, signals=self._request, ranks=JaxRanks(rank, count))
        except _Asked:
            return None
        return course if rank == 0 else True

    def news(self) -> list[tuple[str, int, str, dict[str, Any]]]:
        """The log records since the last call: logger, level, message and attached values."""
        return [self._news.get() for _ in range(self._news.qsize())]  # this is the only reader

    def ask_to_stop(self) -> None:
        """Let the training write a checkpoint and end."""
        self._request.pending = True


class _Reporter(logging.Handler):
    def __init__(self, news: SimpleQueue) -> None:
        super().__init__()
        self._news = news

    def emit(self, record: logging.LogRecord) -> None:
        extras = {name: getattr(record, name) for name in _EXTRAS if hasattr(record, name)}
        self._news.put((record.name, record.levelno, record.getMessage(), extras))
