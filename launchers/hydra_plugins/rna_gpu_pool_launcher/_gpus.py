"""Who gets which GPU. torch is not asked, nor imported: what it once sees it sees for ever."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping

ANSWERS = 20.0  # seconds that nvidia-smi has; with a card that is lost it may never answer
NAME_THEM = "name the GPUs to use by CUDA_VISIBLE_DEVICES=0,1,… (or by their UUIDs), or give hydra.launcher.gpus=0"


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; of one that is cut up, its MIG slices.

    Raises:
        ValueError: if nvidia-smi does not answer.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        devices = [device.strip() for device in named.split(",")]
        return devices[: next((i for i, device in enumerate(devices) if device in ("", "-1")), len(devices))]
    try:
        asked = subprocess.Popen(
            ["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except OSError:  # no driver, and no GPU
        return []
    try:
        listed, complaint = asked.communicate(timeout=ANSWERS)
    except subprocess.TimeoutExpired:
        os.killpg(asked.pid, signal.SIGKILL)  # and not waited for: within a driver that hangs it cannot be killed
        raise ValueError(
            f"hydra/launcher=gpu_pool: nvidia-smi -L has not answered in {ANSWERS:g} s, so a GPU or its driver hangs; "
            f"nothing was started; {NAME_THEM}"
        ) from None
    found = listed_gpus(listed, whole=asked.returncode == 0)
    if asked.returncode:
        lines = [line.strip() for line in (complaint + listed).splitlines()]
        said = next((line for line in lines if line and not line.startswith(("GPU ", "MIG "))), "without a word")
        there = f"{len(found)} GPUs that it lists are used" if found else "no GPU is used"
        advice = f"if that is wrong, {NAME_THEM}"
        print(f"gpu_pool: nvidia-smi -L failed ({said.rstrip('.')}): {there}; {advice}", file=sys.stderr)
    return found


def listed_gpus(listed: str, *, whole: bool) -> list[str]:
    """The devices of `nvidia-smi -L`: indices where there are whole GPUs alone, and all of them are listed, else UUIDs.

    A GPU with slices is not itself listed: CUDA gives a process one of the slices or, without a name, the first.
    """
    found: list[tuple[str, str]] = []  # index, UUID
    for line in listed.splitlines():
        gpu = re.match(r"GPU (\d+): .*?(?:\(UUID: (GPU-[^)]+)\))?\s*$", line)
        piece = re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line)
        if gpu is not None:
            found.append((gpu[1], gpu[2] or gpu[1]))
        elif piece is not None:
            if found and not found[-1][1].startswith("MIG-"):
                found.pop()
            found.append(("", piece[1]))
    by_index = whole and all(index for index, _ in found)
    return [index if by_index else uuid for index, uuid in found]


def assignment(
    visible: list[str], gpus: int | None, trials_per_gpu: int, gpus_per_trial: int, processes: int | None, cores: int
) -> list[dict[str, str]]:
    """The environment of each worker: its GPU or GPUs, round the GPUs first; on a machine without any, nothing.

    Raises:
        ValueError: for more GPUs than there are, numbers below 1, or options that exclude each other.
    """
    _check(visible, gpus, trials_per_gpu, gpus_per_trial, processes)
    used = visible if gpus is None else visible[:gpus]
    if not used:
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if visible or gpus == 0 else {}
        return [dict(hidden) for _ in range(processes or cores)]
    groups = [used[first : first + gpus_per_trial] for first in range(0, len(used), gpus_per_trial)]
    if len(groups[-1]) < gpus_per_trial:
        idle = groups.pop()
        print(
            f"gpu_pool: {len(used)} GPUs, {gpus_per_trial} for each trial: {', '.join(idle)} left idle", file=sys.stderr
        )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for _ in range(trials_per_gpu) for group in groups]


def _check(
    visible: list[str], gpus: int | None, trials_per_gpu: int, gpus_per_trial: int, processes: int | None
) -> None:
    numbers = {
        "gpus": gpus,
        "trials_per_gpu": trials_per_gpu,
        "gpus_per_trial": gpus_per_trial,
        "processes": processes,
    }
    for key, value in numbers.items():
        least = 0 if key == "gpus" else 1
        if value is not None and value < least:
            raise ValueError(f"hydra.launcher.{key}={value}: must be a whole number ≥ {least}")
    there = f"{', '.join(visible)} visible" if visible else "none visible"
    if gpus is not None and gpus > len(visible):
        raise ValueError(f"hydra.launcher.gpus={gpus}: more than there are ({there}); allowed: 0 to {len(visible)}")
    used = visible if gpus is None else visible[:gpus]
    if gpus_per_trial > 1:
        said = f"hydra.launcher.gpus_per_trial={gpus_per_trial}"
        if trials_per_gpu > 1:
            raise ValueError(f"{said}: not with hydra.launcher.trials_per_gpu={trials_per_gpu}; allowed: one of them")
        if gpus_per_trial > len(used):
            which = f"hydra.launcher.gpus={gpus}" if gpus is not None else there
            raise ValueError(f"{said}: more than there are ({which}); allowed: 1{_up_to(len(used))}")
        if pieces := [device for device in used if device.startswith("MIG-")]:
            raise ValueError(f"{said}: a process can use one MIG slice ({pieces[0]}) and no more; allowed: 1")
    if used and processes is not None:
        raise ValueError(
            f"hydra.launcher.processes={processes}: for a machine without a GPU; here "
            "hydra.launcher.trials_per_gpu, or hydra.launcher.gpus=0 to use none"
        )


def _up_to(most: int) -> str:
    return f" to {most}" if most > 1 else ""
