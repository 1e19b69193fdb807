"""How many cores this process may use: fewer than the machine has in a cluster's job or a container."""

import os
from pathlib import Path

CGROUPS, OURS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available() -> int:
    """The cores that the affinity of this process allows and its cgroup's quota pays for, at least one."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([cores, *map(int, _quotas())]))


def _quotas() -> list[float]:
    """The cores that each cgroup above this process may keep busy, where it is told; in a container's own view, too."""
    try:
        lines = OURS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version_2 = not controllers
        if not version_2 and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS if version_2 else CGROUPS / "cpu"
        inner = root / path.lstrip("/")
        folders = [inner, *inner.parents]
        for folder in folders[: folders.index(root) + 1]:
            quota = _version_2(folder) if version_2 else _version_1(folder)
            found += [quota] if quota is not None else []
    return found


def _version_2(folder: Path) -> float | None:
    quota, _, period = _told(folder / "cpu.max").partition(" ")  # `max 100000` where there is none
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _version_1(folder: Path) -> float | None:
    quota, period = _told(folder / "cpu.cfs_quota_us"), _told(folder / "cpu.cfs_period_us")  # -1 where there is none
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _told(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
