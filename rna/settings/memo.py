"""Hydra's compositions, faster: each set of group choices is composed once, and values are put into copies of it.

A sweep's cells differ in values far more often than in groups. What comes out is what Hydra makes of the same words.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Memo:
    """What `whole` has made of group choices; `loader` is Hydra's own, which knows groups and puts values in."""

    loader: Any
    whole: Callable[[list[str]], "DictConfig"]
    made: dict[tuple[str, ...], bytes] = field(default_factory=dict[tuple[str, ...], bytes])

    def compose(self, overrides: list[str]) -> "DictConfig":
        """The task's config, without the `hydra` node.

        Raises:
            HydraException: Hydra's own, for what it cannot compose.
        """
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parsed = OverridesParser.create().parse_overrides(overrides)
        values = [item for item in parsed if self._is_value(item)]
        chosen = tuple(item.input_line or "" for item in parsed if item not in values)
        if chosen not in self.made:
            self.made[chosen] = pickle.dumps(self._task([*chosen]))
        config: DictConfig = pickle.loads(self.made[chosen])
        try:
            self.loader._apply_overrides_to_config(values, config)
        except Exception:  # whatever is wrong with it, Hydra says of the whole
            return self._task(overrides)
        return config

    def _is_value(self, item: "Override") -> bool:
        """Whether an override sets a value and chooses no group, as one with a dot never does."""
        key = item.key_or_group
        if item.package is not None or "/" in key or item.is_hydra_override() or item.is_sweep_override():
            return False
        added = item.is_add() or item.is_force_add()
        return "." in key or not (added or self.loader.repository.group_exists(key))

    def _task(self, overrides: list[str]) -> "DictConfig":
        from omegaconf import open_dict, read_write

        config = self.whole(overrides)
        with read_write(config), open_dict(config):
            config.pop("hydra", None)
        return config
