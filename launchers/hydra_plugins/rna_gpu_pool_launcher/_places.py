"""Which places of a pool still work, judged by the faults of their devices.

A fault is the place's or the trial's own, and one fault does not tell which. It is seen by trying both again: the place
with another trial, the trial at another place.
"""

from dataclasses import dataclass, field

SET_ASIDE = 2  # faults of a place without a trial done well between them
OWN = 3  # places that work at which a trial faults, before it is to blame itself
ASSERT = "device-side assert"  # what a kernel says of a bad index: the program's fault and hardly ever the device's


@dataclass
class Places:
    """The places of a run by the devices they have; several workers may share one."""

    names: tuple[str, ...]
    faults: dict[str, list[int]] = field(default_factory=dict)  # of a place, by trial, since it last did one well
    been: dict[int, list[str]] = field(default_factory=dict)  # of a trial: where it faulted

    @property
    def working(self) -> list[str]:
        return [name for name in dict.fromkeys(self.names) if len(self.faults.get(name, [])) < SET_ASIDE]

    def well(self, name: str, trial: int) -> None:
        """A trial has ended well there: what came before is forgiven."""
        self.faults.pop(name, None)
        self.been.pop(trial, None)

    def fault(self, name: str, trial: int, said: str) -> bool:
        """A trial ended there by an error of the device; return whether the trial is to blame for it.

        It is at the second failed assertion, and when it faults at three places that work, or at all of them if these
        are fewer. Then its faults are no longer held against any place.
        """
        been = self.been.setdefault(trial, [])
        been.append(name)
        if ASSERT in said:
            guilty = len(been) > 1
        else:
            self.faults.setdefault(name, []).append(trial)
            working = self.working
            where = {place for place in been if place in working}
            guilty = len(where) >= min(OWN, len(working)) > 0 and len(been) > 1
        if guilty:
            del self.been[trial]
            for place, trials in self.faults.items():
                self.faults[place] = [other for other in trials if other != trial]
        return guilty

    def barred(self, trial: int) -> set[int]:
        """The workers that a trial had better not get, by number."""
        been = self.been.get(trial, [])
        return {number for number, name in enumerate(self.names) if name in been}

    @property
    def closed(self) -> set[int]:
        """The workers whose places are set aside, by number."""
        working = self.working
        return {number for number, name in enumerate(self.names) if name not in working}
