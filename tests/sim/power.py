"""A power cut: the file is again as the last completed sync promised, and everything after it never happened.

Of the states a disk may hold after a power cut this is the oldest one allowed: what was committed before the sync was
asked for is there, nothing else is. What producers were told since is forgotten here as well, save durable answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from shoestring.core.bucket import Bucket
from tests.sim.stage import SimJob
from tests.sim.world import World

_PARTS = ("", "-wal", "-shm")


@dataclass(slots=True)
class Image:
    """What the disk holds for sure."""

    files: dict[str, bytes] = field(default_factory=dict)  # by suffix
    committed_seq: int = 0
    buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, world: World) -> Image:
        found = {part: file for part in _PARTS if (file := path.with_name(path.name + part)).exists()}
        files = {part: file.read_bytes() for part, file in found.items() if part != "-shm"}
        return cls(files, world.committed_seq, dict(world.committed_buckets))

    def restore(self, path: Path) -> None:
        """Put the files back. Connections of the dead process keep what they had open."""
        for part in _PARTS:
            path.with_name(path.name + part).unlink(missing_ok=True)
        for part, content in self.files.items():
            path.with_name(path.name + part).write_bytes(content)


def forget_since(image: Image, world: World, jobs: dict[int, SimJob]) -> None:
    """Let the world know what the disk forgot."""
    kept = image.committed_seq
    world.committed_seq = kept
    world.committed_buckets = dict(image.buckets)
    world.chunks.clear()
    world.cancelled_tasks = {task_id: it for task_id, it in world.cancelled_tasks.items() if it.told <= kept}
    world.cancelled_jobs = {job_id: told for job_id, told in world.cancelled_jobs.items() if told <= kept}
    for subject in world.subjects.values():
        if subject.accepted and not subject.durable and subject.told > kept:
            subject.accepted = None
    for job in jobs.values():
        if job.job_id is not None and job.opened > kept:
            job.job_id, job.lost = None, True
        job.taken = {seq: told for seq, told in job.taken.items() if told <= kept and not job.lost}
