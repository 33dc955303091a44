"""The same lines on a Ray cluster: Ray Data actors, each with one network.

Only texts travel through Ray: rows there, rows back. Sounds, meshes, takes and journals go through a file system that
all machines share, as does this package. So an actor that dies costs nothing but the takes it had not finished: Ray
starts another, which finds in the journals what the first one made (see journal.py).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import LSFError
from .rows import Job, Row
from .run import Workers

_ROOT = Path(__file__).resolve().parents[2]
_CORES = 2  # of each network on the CPU
_KNOCK_SECONDS = 10.0
_PARCELS_PER_NETWORK = 8  # so that quick machines may do more of them than slow ones,
_PARCEL_SECONDS = (60.0, 3600.0)  # but not so small that a network waits between them, nor so large that none is left


def on_ray(address: str, cores: int | None = None) -> Workers:
    """Workers on the cluster at `address`: auto, HOST:PORT, or local. cores: of each network.

    Raises LSFError with the cure where Ray is not installed.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise LSFError(f"--ray needs Ray with Ray Data, which '{sys.executable}' lacks ({error}). Install it there on "
                       "every machine, 'python -m pip install ray[data]' (requirements.txt names the version that is "
                       "tested), or leave --ray out.") from error

    def workers(job: Job, planned: list[list[Row]], seconds: list[float]) -> Iterator[Row]:
        begun_here = _connect(address)
        try:
            yield from _run(job, planned, seconds, cores)
        finally:
            if begun_here:
                import ray

                ray.shutdown()

    return workers


def _connect(address: str) -> bool:
    """Join the cluster, unless this process has done so; whether it was done now. Raises LSFError if none answers."""
    import ray

    if ray.is_initialized():
        return False
    # It warns of actors that die and are started again, which is what it is here for; what matters is raised.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False,
                 runtime_env={"env_vars": {"PYTHONPATH": path}})
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise LSFError(f"No Ray cluster answers at '{address}' ({error}). Start one: 'ray start --head' on one "
                       "machine, 'ray start --address HOST:PORT' on the others; run this on one of them.") from error
    return True


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself would wait for it for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


def _run(job: Job, planned: list[list[Row]], seconds: list[float], cores: int | None) -> Iterator[Row]:
    import ray
    from ray.exceptions import RayError

    machines = [(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
                for node in ray.nodes() if node["Alive"]]
    networks, cores, device = share(machines, job.settings.device, cores)
    job = replace(job, settings=replace(job.settings, device=device))
    parcels = _parcels(planned, seconds, networks)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # there is one for the lines
    todo = ray.data.from_items(parcels, override_num_blocks=len(parcels))
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    done = todo.map_batches(
        Actor, fn_constructor_args=(job, cores), batch_size=1, num_cpus=cores, num_gpus=1 if device == "cuda" else None,
        # Another parcel waits at each actor, so that none idles. One actor is enough to go on with.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=networks, initial_size=networks,
                                           max_tasks_in_flight_per_actor=2),
    )  # fmt: skip
    seen = set()
    try:
        for made in done.iter_rows():
            row = Row.from_json(made["row"])
            if row.line not in seen:
                seen.add(row.line)
                yield row
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, LSFError):
            raise cause from error
        raise LSFError(f"The cluster gave up ({type(cause).__name__}: {cause}). What is made is kept: run the same "
                       "command again.") from error


def share(machines: Sequence[tuple[int, int]], device: str, cores: int | None) -> tuple[int, int, str]:
    """How many networks the machines, each with (cores, graphics cards), have room for; the cores of each; the device.

    Raises LSFError where they have room for none, as Ray would wait for another machine for ever.
    """
    with_cards = [(cpus, cards) for cpus, cards in machines if cards]
    if device.startswith("cuda") and not with_cards:
        raise LSFError(f"No machine of the cluster has a graphics card, as '--device {device}' asks for. Leave it out.")
    if with_cards and (device == "auto" or device.startswith("cuda")):
        cores = cores or max(1, min(cpus // cards for cpus, cards in with_cards))
        networks, device = sum(min(cards, cpus // cores) for cpus, cards in with_cards), "cuda"
    else:
        cores = cores or max(1, min(_CORES, max((cpus for cpus, _ in machines), default=0)))
        networks, device = sum(cpus // cores for cpus, _ in machines), "cpu"
    if not networks:
        raise LSFError(f"No machine of the cluster has {cores} cores for a network; they have "
                       f"{', '.join(str(cpus) for cpus, _ in machines)}. Give fewer --cores.")
    return networks, cores, device


def _parcels(planned: Sequence[Sequence[Row]], seconds: Sequence[float], networks: int) -> list[dict[str, Any]]:
    """Groups joined to parcels, each the work of one call of an actor: name, and groups of rows as texts."""
    least, most = _PARCEL_SECONDS
    size = min(max(sum(seconds) / (networks * _PARCELS_PER_NETWORK), least), most)
    run = uuid.uuid4().hex[:8]  # an actor of an earlier run may be about to die, and must not be taken for one of ours
    parcels: list[dict[str, Any]] = []
    filled = size
    for group, length in zip(planned, seconds, strict=True):
        if filled >= size:
            parcels.append({"name": f"{run}-{len(parcels)}", "groups": []})
            filled = 0.0
        parcels[-1]["groups"].append([row.to_json() for row in group])
        filled += length
    return parcels


class Actor:
    """One network on one machine of the cluster."""

    def __init__(self, job: Job, cores: int) -> None:
        import torch

        from .maker import Maker

        torch.set_num_threads(cores)
        self._maker = Maker(job, cores)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """The lines of parcels; returns their rows."""
        rows = []
        for name, groups in zip(batch["name"], batch["groups"], strict=True):
            rows += [row.to_json() for row in
                     self._maker.make([[Row.from_json(text) for text in group] for group in groups], str(name))]
        return {"row": rows}
