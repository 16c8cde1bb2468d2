"""Several studies become one page: what holds on every data set, and on their mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from proxyds.artifact.card.plots import as_percent
from proxyds.artifact.ranking_table import RANDOM
from tests.studies.page import ABOUT_INTERVALS, ABOUT_PARAMETERS
from tests.studies.report import (
    NAMES,
    WITH_PARAMETERS_TAU,
    list_controls,
    show_differences,
    show_points,
    show_statistic,
)
from tests.studies.weighing import Found

RATIO = 0.05
"""The size at which every study looks at more than one method."""


def tabulate_taus(found: Sequence[Found], of_each: Mapping[str, Sequence[Found]]) -> str:
    """Tau on every data set, their mean, and what it is above those of the controls, in Markdown; the best mean first, ceiling and free rankings below.

    Args:
        found: Of `weigh`, of the mean.
        of_each: Of `weigh`, by the study's name.
    """
    controls = list_controls(found)
    lines = [
        f"| trained on | {' | '.join(of_each)} | mean tau | with parameters | {' | '.join(f'minus {NAMES.get(each, each)}' for each in controls)} |",
        f"|---|{'---|' * (len(of_each) + 2 + len(controls))}",
    ]
    for each, same in _beside(found, of_each):
        cells = [*(one.statistics["tau"].shown() for one in (*same, each))]
        cells += [show_statistic(each, WITH_PARAMETERS_TAU), *show_differences(each, controls)]
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tabulate_regrets(found: Sequence[Found], of_each: Mapping[str, Sequence[Found]]) -> str:
    """The same with regrets in accuracy points, and what the mean is above that of random samples."""
    lines = [
        f"| trained on | {' | '.join(of_each)} | mean, points | more than {RANDOM} |",
        f"|---|{'---|' * (len(of_each) + 2)}",
    ]
    for each, same in _beside(found, of_each):
        cells = [show_points(one.statistics["regret"]) for one in (*same, each)]
        cells.append(show_points(each.regret_less[RANDOM]) if RANDOM in each.regret_less else "")
        lines.append(f"| {NAMES.get(each.method, each.method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _beside(found: Sequence[Found], of_each: Mapping[str, Sequence[Found]]) -> Iterator[tuple[Found, list[Found]]]:
    """What is in the mean, the best tau first, and beside it the same of each study."""
    keyed = [{(one.method, one.ratio): one for one in study} for study in of_each.values()]
    for each in sorted(found, key=lambda each: (each.ratio is None, -each.tau)):
        yield each, [study[each.method, each.ratio] for study in keyed]


def render_page(found: Sequence[Found], of_each: Mapping[str, Sequence[Found]], about: str) -> str:
    """The page in Markdown: what is weighed, the tables, the picture.

    Args:
        found: Of `weigh`, of the mean.
        of_each: Of `weigh`, by the study's name.
        about: What must be known of these studies.
    """
    size, named = as_percent(RATIO), " and ".join(f"[{name}]({name}/README.md)" for name in of_each)
    lacking = sorted({each.method for study in of_each.values() for each in study} - {each.method for each in found})
    text = [
        f"# Which selection keeps the ranking, on {len(of_each)} data sets",
        "",
        f"`make study` wrote this from the rows of {named}, whose pages say what was held equal and what the names mean. Each data set counts the same in the mean. "
        f"{ABOUT_INTERVALS.format(docs='../../docs')} The mean's variance comes from the variances of both. It tells how well the mean is known on these data sets, not what another would show.",
        "",
        ABOUT_PARAMETERS,
        "",
        about,
        "",
        f"## Kendall tau at {size}",
        "",
        "*Minus* something: how far the mean tau is above the mean tau of that, on the same architectures.",
        "",
        tabulate_taus(found, of_each).rstrip(),
        "",
        f"![Mean Kendall tau at {size}](taus-{100 * RATIO:g}pct.png)",
        "",
        f"## Regret at {size}",
        "",
        f"The full-data accuracy that is lost by taking the architecture called best. *More than {RANDOM}*: above zero is worse. There are no intervals: a regret depends on few architectures.",
        "",
        tabulate_regrets(found, of_each).rstrip(),
    ]
    if lacking:
        text += [
            "",
            f"Run on one of them only, or not whole yet: {', '.join(NAMES.get(name, name) for name in lacking)}.",
        ]
    return "\n".join(text) + "\n"
