"""A Hydra app of a few lines to sweep over; with `store=tests.launchers.toy` it keeps records as `rna` does.

`computed.log` in its folder gets a line when a trial begins and one when it is recorded.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rna.settings import config


def note(folder: Path, *words: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "computed.log").open("a") as stream:
        stream.write(" ".join(map(str, words)) + "\n")


class DiskFull(RuntimeError):
    """As `rna.trial` says it of a trial."""

    reason = "disk full"


def loss(cfg: DictConfig) -> float:
    return (float(cfg.get("x", 0)) - 0.3) ** 2 + float(cfg.get("y", 0))


@hydra.main(**config.version_base(), config_path=None, config_name=None)
def main(cfg: DictConfig) -> Any:
    from rna.sweep import ledger

    folder, name = Path(cfg.get("folder", ".")), address(cfg)["key"]
    note(folder, "begin", name, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "-"))
    print("working on", name)
    ledger.beat("training", 0, 1)
    if cfg.get("once") and not (folder / "failed-once").exists():  # a trial that is well the next time
        (folder / "failed-once").touch()
        os._exit(9)
    if cfg.get("hog") == cfg.get("x", -1):  # more memory than a job is given
        bytearray(b"x" * 2**30)
    if cfg.get("short") == cfg.get("x", -1):
        raise MemoryError("no room for 3 GiB")
    if cfg.get("hang") == cfg.get("x", -1) and not (folder / "hung").exists():
        (folder / "hung").touch()
        time.sleep(600)
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    broken = str(cfg.get("broken")) in (device, "all") and not (folder / "mended").exists()
    if broken or cfg.get("faulty") == cfg.get("x", -1):
        raise RuntimeError(cfg.get("fault", "CUDA error: unspecified launch failure"))
    time.sleep(float(cfg.get("sleep", 0)))
    for step in range(1, int(cfg.get("steps", 0)) + 1):
        time.sleep(float(cfg.get("pace", 0.02)))
        ledger.report(name, step, dict.fromkeys(("loss", "value"), loss(cfg) + 1 / step))
        note(folder, "step", name, step)
    if cfg.get("full") == cfg.get("x", -1) and not (folder / "room").exists():
        raise DiskFull("[Errno 28] No space left on device: its checkpoint")
    if cfg.get("leave") == cfg.get("x", -1):
        sys.exit(3)
    if cfg.get("fail") in (cfg.get("x", -1), "all"):
        raise RuntimeError("a bad cell")
    if cfg.get("store", False):
        ledger.check_owner()
        temporary = folder / "record" / f"{name}.tmp{os.getpid()}"
        curve = [loss(cfg) + 1 / step for step in range(1, int(cfg.get("steps", 0)) + 1)]
        temporary.write_text(json.dumps({"loss": loss(cfg), "x": float(cfg.get("x", 0)), "curve": curve}))
        os.link(temporary, folder / "record" / f"{name}.json")
        note(folder, "recorded", name)
    return None if cfg.get("none") == cfg.get("x", -1) else loss(cfg)


# The record store


def address(cfg: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(cfg)
    if plain.get("x") == "refused":
        raise ValueError("x=refused: must be a number")
    key = "_".join(f"{key}{plain[key]}" for key in ("x", "y", "version") if key in plain)
    (Path(plain.get("folder", ".")) / "record").mkdir(parents=True, exist_ok=True)
    return {"key": key, "file": str(Path(plain.get("folder", ".")) / "record" / f"{key}.json")}


def metrics(where: dict[str, Any]) -> dict[str, Any] | None:
    from rna.sweep import ledger

    found = ledger.read_json(Path(where["file"]))
    if found is None:
        Path(where["file"]).unlink(missing_ok=True)
    return found


def names(_where: dict[str, Any]) -> list[str]:
    return ["loss", "x"]


def absent(_where: dict[str, Any], _metric: str) -> str:
    return "no record has this metric"


def curves(_where: dict[str, Any]) -> list[str]:
    return ["loss"]


def curve(where: dict[str, Any], _metric: str) -> list[tuple[int, float]]:
    return list(enumerate((metrics(where) or {}).get("curve", []), 1))


def objectives(_where: dict[str, Any]) -> dict[str, str]:
    return {"loss": "minimize"}


def fingerprint(common: dict[str, Any]) -> str:
    return json.dumps(common)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
