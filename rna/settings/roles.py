"""The roles that a task may have: what is asked, what is shown of it, and which other role it is compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One role. Its order among `ROLES` is that of a report's columns; in a trial's table a control stands above."""

    name: str
    shown: str | None = None  # in a trial's table; None: told elsewhere (forget tasks one by one, n-grams in a table)
    column: str | None = None  # in a report; None: in none of its tables of all roles
    forgets: bool = False  # of forget questions, whose accuracy is to fall
    puts: str | None = None  # which of `eval`'s words stands in each question or among its choices
    control: str | None = None  # the role that has something neutral in the place of what is of the forget set
    where: str | None = None  # that stands, if it is not in the place of a choice; a verdict's line asks for it
    ranked: bool = False  # whether leaderboards show it
    scored: bool = True  # whether its tasks ask questions that are answered right or wrong

    @property
    def arrow(self) -> str:
        """The better way of its accuracy."""
        return "↓" if self.forgets else "↑"


ROLES = (
    Role("forget", column="forget", forgets=True, ranked=True),
    Role("retain", "retain", "retain", ranked=True),
    Role("perturbed", "retain, forget-token", "perturbed retain", puts="keyword", control="neutral", ranked=True),
    Role("neutral", "retain, neutral token", "neutral control", puts="neutral_keyword", ranked=True),
    Role("related", "forget-related retain", "forget-related", ranked=True),
    Role("forget_perturbed", "forget, forget-token", "perturbed forget", forgets=True, puts="keyword"),
    Role("ngram"),
    Role(
        "prefix",
        *("forget-token in front", "forget-token in front"),
        puts="keyword",
        control="prefix_neutral",
        where="in front of the question",
        ranked=True,
    ),
    Role("prefix_neutral", "neutral token in front", "neutral token in front", puts="neutral_keyword"),
    Role(
        "inside",
        *("forget-token inside", "forget-token inside"),
        puts="keyword",
        control="inside_neutral",
        where="inside the question",
        ranked=True,
    ),
    Role("inside_neutral", "neutral token inside", "neutral token inside", puts="neutral_keyword"),
    Role(
        "mixed",
        *("retain beside forget", "retain beside forget"),
        control="mixed_neutral",
        where="beside a forget question, less beside another retain question",
        ranked=True,
    ),
    Role("mixed_neutral", "retain beside retain", "retain beside retain"),
    Role("forget_mixed", "forget beside retain", "forget beside retain", forgets=True),
    Role("benchmark", scored=False),  # told in a table of its own
)
NAMES = tuple(role.name for role in ROLES)
CONTROLS = frozenset(role.control for role in ROLES if role.control is not None)
BY_NAME = {role.name: role for role in ROLES}


def in_reading_order() -> list[Role]:
    """All roles, each control above the role that is compared with it."""
    main = [role for role in ROLES if role.name not in CONTROLS]
    return [one for role in main for one in (*([BY_NAME[role.control]] if role.control else []), role)]
