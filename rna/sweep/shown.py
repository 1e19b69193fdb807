"""A leaderboard for a person: at 80 columns, with no number, word or path broken."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rna import intervals, printing
from rna.intervals import SEEDS, Estimate
from rna.settings import ALIKE, roles

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

RANKED = {role.name: "" if role.name in roles.CONTROLS else role.arrow for role in roles.ROLES if role.ranked}
WIDE = 120  # from which a value and its interval stand on one line
MOST = 50  # rows of a table
NAMED = 8  # rows that a sentence names

Made = dict[str, Any] | None  # an Estimate's fields


def columns(metric: str, names: Sequence[str]) -> list[str]:
    """What is shown: the metric that sorts, and the roles' accuracies; with perplexities the log-losses."""
    ranked = [f"eval/{role}/acc" for role in RANKED]
    losses = [name for name in names if name.startswith("eval/") and name.endswith("/nll") and name.count("/") == 2]
    return list(dict.fromkeys([metric, *(name for name in ranked if name in names), *losses]))


def show(found: dict[str, Any]) -> None:
    """Print a leaderboard: a table by its metric, one of the other metrics, and what they say."""
    console = printing.console(width=WIDE)
    if not found["rows"]:
        console.print(f"{found['name']}: no trial is done yet", soft_wrap=True)
        return
    width = max(console.width, printing.NARROWEST)
    titles = [row["title"] for row in found["rows"]]
    made = tables(found, titles, width)
    long = any(_least(console, table) > width for table in made)
    if long:
        made = tables(found, [f"({place})" for place in range(1, len(titles) + 1)], width)
    for table in made:
        _draw(console, table, width)
    for place, title in enumerate(titles if long else (), 1):
        console.print(printing.wrapped(f"({place}) {title}", width), soft_wrap=True)
    for line in words(found):
        console.print(printing.wrapped(line, width), soft_wrap=True)
    if found["more_rows"]:
        console.print(f"{found['more_rows']} more rows: `--json` has them.", soft_wrap=True)
    if found["tied"] and found["more_seeds"]:
        console.print(printing.command(found["more_seeds"], width), soft_wrap=True)


def _draw(console: "Console", table: "Table", width: int) -> None:
    console.width = max(width, _least(console, table))
    console.print(table, crop=False)


def _least(console: "Console", table: "Table") -> int:
    """The width below which a table would break a number or a word."""
    return console.measure(table, options=console.options.update(width=10**4)).minimum


def tables(found: dict[str, Any], titles: Sequence[str], width: int) -> list["Table"]:
    """By the metric, with plain twins and differences; then of the other metrics two a table: at most six columns."""
    rows, metric, gap = found["rows"], found["metric"], " " if width >= WIDE else "\n"
    twins = any(row["plain"] for row in rows)
    headings = ["", "seeds", _heading(metric, found["direction"])]
    headings += ["plain", "RNA − plain"] if twins else []
    headings += ["− best" + (" (select)" if _halved(found) else "")] if sum(row["compared"] for row in rows) > 1 else []
    lines = [
        [
            str(row["seeds"]),
            _cell(metric, row["metrics"].get(metric), gap),
            *([_cell(metric, _of_plain(row, "metrics", metric), None)] if twins else []),
            *([_cell(metric, _of_plain(row, "rna_less_plain", metric), gap, "+")] if twins else []),
            _behind(row, found, gap),
        ]
        for row in rows
    ]
    made = [_table(head(found), headings, rows, titles, lines)]
    if any("target" in row for row in rows):
        made.append(_targets(rows, titles, gap))
    others = [name for name in found["columns"] if name != metric]
    for start in range(0, len(others), 2):
        names = others[start : start + 2]
        headings = ["", *(part for name in names for part in (_heading(name), *(["RNA − plain"] if twins else [])))]
        lines = [
            [
                part
                for name in names
                for part in (
                    _cell(name, row["metrics"].get(name), gap),
                    *([_cell(name, _of_plain(row, "rna_less_plain", name), gap, "+")] if twins else []),
                )
            ]
            for row in rows
        ]
        made.append(_table("", headings, rows, titles, lines))
    return made


def _targets(rows: Sequence[dict[str, Any]], titles: Sequence[str], gap: str) -> "Table":
    """Which trainings got to the target of `train.until`, and which pairs with plain are matched there."""
    lines: list[list[str]] = []
    for row in rows:
        told = row.get("target")
        reached, pairs = ("", "") if told is None else (f"{told['reached']} of {told['of']}", "–")
        if told is not None and told["pairs"]:
            pairs = f"{told['matched']} of {told['pairs']}"
        forget = None if told is None else told["forget"]
        apart = "–" if forget is None else _cell(forget["metric"], forget["rna_less_plain"], gap, "+")
        lines.append([reached, pairs, apart])
    halved = any(row["target"]["forget"]["metric"].count("/") == 3 for row in rows if "target" in row)
    headings = ["", "reached", "matched", "forget, RNA − plain" + (" (report)" if halved else "")]
    return _table("train.until", headings, rows, titles, lines)


def _table(
    title: str,
    headings: Sequence[str],
    rows: Sequence[dict[str, Any]],
    titles: Sequence[str],
    lines: Sequence[list[str]],
) -> "Table":
    from rich import box
    from rich.table import Table

    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("")
    for place, heading in enumerate(headings[1:]):
        parts = [part for line in lines for part in line[place].split("\n")]
        made.add_column(heading.replace(" (", "\n("), justify="right", no_wrap=True, min_width=max(map(len, parts)))
    for row, named, cells in zip(rows, titles, lines, strict=True):
        mark = " ●" if row["front"] else "" if row["compared"] else " ✗" if not row["feasible"] else ""
        made.add_row(named + mark, *cells[: len(headings) - 1])
    return made


def _heading(metric: str, direction: str = "") -> str:
    role = metric.split("/")[1] if metric.endswith("/acc") and metric.count("/") == 2 else metric
    if role in RANKED:
        return f"{role} {RANKED[role]}".strip()
    return metric + {"maximize": " ↑", "minimize": " ↓"}.get(direction, "")


def _of_plain(row: dict[str, Any], what: str, metric: str) -> Made:
    return (row["plain"] or {}).get(what, {}).get(metric)


def _behind(row: dict[str, Any], found: dict[str, Any], gap: str) -> str:
    if row["title"] == found["leader"] and row["less_leader"] is None:
        return "best"
    return _cell(found["metric"], row["less_leader"], gap, "+") if row["compared"] else ""


def _halved(found: dict[str, Any]) -> bool:
    return found["chosen_on"] != found["shown_on"]


def _cell(metric: str, made: Made, gap: str | None, sign: str = "") -> str:
    """A value, and behind the gap its interval; accuracies in percent."""
    if made is None:
        return "–"
    scale, digits = (100.0, ".1f") if metric.endswith("/acc") else (1.0, ".4g")
    value, *ends = (None if end is None else f"{scale * end:{sign}{digits}}" for end in _ends(made))
    said = f"{value}" if gap is None or None in ends else f"{value}{gap}[{ends[0]}, {ends[1]}]"
    return said.replace("-", "−")


def _ends(made: dict[str, Any]) -> tuple[float, float | None, float | None]:
    return made["value"], made["low"], made["high"]


def head(found: dict[str, Any]) -> str:
    """The sweep, what sorts, the unit, and what the intervals of the first table are over."""
    metric, rows = found["metric"], found["rows"]
    told = [made for row in rows for made in (row["metrics"].get(metric), row["less_leader"])]
    told += [_of_plain(row, "rna_less_plain", metric) for row in rows]
    made = [Estimate(**one) for one in told if one is not None and one["low"] is not None]
    over = list(dict.fromkeys(_over(one) for one in sorted(made, key=lambda one: (one.over != SEEDS, one.n))))
    said = f"{found['name']} · by {metric}{', accuracy in %' if metric.endswith('/acc') else ''}\n"
    if not over:
        return said + "no intervals: one seed, and no record of single questions"
    return said + f"[95 %] {'; '.join(over)}; differences {'' if all(one.paired for one in made) else 'partly '}paired"


def _over(made: Estimate) -> str:
    if made.over == SEEDS:
        return f"over {made.n} seeds"
    return f"over {made.over} " + ("of one seed" if made.n == 1 else "where seeds agree")


def words(found: dict[str, Any]) -> list[str]:
    """What the table says, and how far it may be trusted."""
    lines = [f"● no other row is better in all of: {', '.join(found['front_of'])}"]
    if any(not row["feasible"] for row in found["rows"]):
        lines.append(f"✗ does not meet {' and '.join(found['constraints'])}, and is in no comparison.")
    if any(row["plain"] for row in found["rows"]):
        none = ", or none is matched" if any("target" in row for row in found["rows"]) else ""
        lines.append(f"– beside a row: it is plain itself, or its plain twin has no record{none}.")
    lines += _of_targets(found) + _verdict(found)
    left_out = [f"{found[kind]} {kind}" for kind in ("failed", "cancelled", "pruned") if found[kind]]
    left_out += [f"{found['unfinished']} not done"] if found["unfinished"] > 0 else []
    if left_out:
        told = f"python -m rna.sweep status {found['name']}"
        lines.append(f"In no row: {', '.join(left_out)} (`{told}`).")
    if found["pruned"] or found["failed"]:
        lines.append("A row's seeds may be its better ones.")
    return lines


def _of_targets(found: dict[str, Any]) -> list[str]:
    """What the columns of trainings with `train.until` are, and what is not matched and why."""
    told = [row["target"] for row in found["rows"] if "target" in row]
    if not any(one["pairs"] for one in told):
        return ["Reached: seeds whose training got to the target of train.until."] if told else []
    left_out: Counter[str] = sum((Counter(one["left_out"]) for one in told), Counter())
    why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    near = f", with a forget accuracy at most {ALIKE:g} points apart in the mean over seeds"
    accuracies = any(one["forget"]["metric"].endswith("/acc") for one in told)
    return [
        "Reached: seeds whose training got to the target of train.until. Matched: those whose plain twin did too"
        f"{near if accuracies else ''}; RNA − plain is of these alone" + (f" (left out: {why})." if why else ".")
    ]


def _verdict(found: dict[str, Any]) -> list[str]:
    rows = [row for row in found["rows"] if row["compared"]]
    if not rows:
        return ["No row meets the constraints." if found["constraints"] else f"No row has {found['metric']}."]
    if len(rows) == 1:
        return [f"No winner: nothing to compare {rows[0]['title']} with."]
    seeds = sorted({row["seeds"] for row in rows})
    counted = f"{seeds[0]}" + (f" to {seeds[-1]}" if len(seeds) > 1 else "")
    counted += " seed each" if counted == "1" else " seeds each"
    winner, chosen_on, shown_on = found["winner"], found["chosen_on"], found["shown_on"]
    if winner is None:
        those = [found["leader"], *found["tied"]]
        more = f" and {len(those) - NAMED} more" if len(those) > NAMED else ""
        lines = [
            f"No winner: cannot be told apart on {chosen_on}, {counted}: {', '.join(those[:NAMED])}{more} (the paired "
            "difference from the best has zero in its interval, or has none)."
        ]
        return lines + (["More seeds:"] if found["more_seeds"] else [])
    lines = [f"Winner, {counted}: {winner['title']}, {said(chosen_on, winner['chosen'])} on {chosen_on}."]
    if _halved(found):
        lines.append(f"On {shown_on}: {said(shown_on, winner['shown'])};")
    else:
        lines.append("It was chosen and is shown on the same questions, which flatters it;")
    lines[-1] += f" less the second, {winner['second']}: {said(shown_on, winner['less_second'], change=True)}"
    if winner["less_plain"] is not None:
        lines[-1] += f"; RNA − plain: {said(shown_on, winner['less_plain'], change=True)}"
    lines[-1] += "."
    return lines


def said(metric: str, made: Made, *, change: bool = False) -> str:
    """An estimate in words, as everywhere."""
    if made is None:
        return "no seed in common" if change else "–"
    one = Estimate(**made)
    if not metric.endswith("/acc"):
        return intervals.said(one, 4, signed=change)
    low, high = (None if end is None else 100 * end for end in (one.low, one.high))
    one = replace(one, value=100 * one.value, low=low, high=high)
    return intervals.said(one, 1, "points" if change else "%", signed=change)
