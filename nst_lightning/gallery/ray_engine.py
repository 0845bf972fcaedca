"""Pictures made on the machines of a Ray cluster, each device by a session of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nst_lightning.errors import UserError, check_at_least
from nst_lightning.gallery.engine import Engine, Made, Tell
from nst_lightning.gallery.judging import Task
from nst_lightning.gallery.parcels import digest_of_weights, looks_for_faces, weights_named
from nst_lightning.gallery.ray_cluster import Cluster
from nst_lightning.gallery.ray_crew import RayCrew, Wanted
from nst_lightning.gallery.shift import Shift


class RayEngine(Engine):
    """Makes pictures on a Ray cluster, as many at once as there are devices; files travel through Ray.

    Each GPU of the cluster makes one picture at a time, or, where there are none, each machine's processor. Machines
    that join later get work, too. What a lost machine was making is made elsewhere, from its beginning.

    Args:
        address: Of the cluster that this machine is part of: auto, or HOST:PORT; by default that of ``RAY_ADDRESS``,
            else this machine alone. A program that has begun Ray itself goes on with that.
        cores: For each picture, and so its number of threads; by default a machine's, shared by its GPUs if it has any.
            Several pictures at once, each with few cores, take less time in all.

    Raises:
        UserError: If Ray is not installed, or there is no cluster at the address within 20 seconds.

    Example:
        >>> from nst_lightning.gallery import Gallery, RayEngine
        >>> engine = RayEngine(cores=1)  # doctest: +SKIP
        >>> Gallery("walls", ["photos"], ["paintings"]).make(engine=engine)  # doctest: +SKIP
        >>> engine.close()  # doctest: +SKIP
    """

    def __init__(self, address: str | None = None, cores: int | None = None) -> None:
        if cores is not None:
            check_at_least("--cores", cores, 1, "leave it out for all of a machine")
        self._cores = cores
        self._cluster = Cluster(address)

    def close(self) -> None:
        """Leave the cluster; end it if it was begun for this."""
        self._cluster.leave()

    def make(self, task: Task, tell: Tell) -> Made:
        """See Engine."""
        ((_, made),) = self.make_all([task], tell)
        if isinstance(made, Exception):
            raise made
        return made

    def make_all(self, tasks: Sequence[Task], tell: Tell) -> Iterator[tuple[Task, Made | Exception]]:
        """See Engine."""
        if not tasks:
            return
        for task in tasks:
            _check_devices(task)
        weights = {name for task in tasks for name in weights_named(task.configuration.get("model"))}
        accelerators = {str((task.configuration.get("trainer") or {}).get("accelerator")) for task in tasks}
        digests = {name: digest_of_weights(name) for name in weights}
        faces = any(looks_for_faces(task) for task in tasks)
        wanted = Wanted(self._cores, accelerators != {"cpu"}, digests, faces)
        crew = RayCrew(self._cluster, wanted)
        yield from Shift(crew, tasks, tell, lost="it is made anew").make()


def _check_devices(task: Task) -> None:
    devices = (task.configuration.get("trainer") or {}).get("devices", 1)
    if str(devices) not in {"1", "auto"}:
        where = f"{task.row.place}: " if task.row.place else ""
        raise UserError(
            f"{where}trainer.devices: must be left out with --engine ray, which gives each picture one device, "
            f"got {devices}; leave it out"
        )
