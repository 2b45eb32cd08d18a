"""Ratios, goals and tables of the benchmark's figures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

__all__ = ['COLUMNS', 'Figures', 'csv_row', 'section']

COLUMNS = ('mode', 'setting', 'contender', 'seconds', 'low', 'high', 'kept', 'peak', 'turns')
NAMES = {'seconds': 'time', 'kept': 'kept memory', 'peak': 'peak memory'}

Goals = Mapping[str, Mapping[str, float]]


@dataclass
class Figures:
    """What was measured of one contender in one setting: seconds of each turn, and MiB ``kept`` and at the ``peak``."""

    setting: str
    contender: str
    seconds: list[float] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """Our figure divided by another contender's."""

    setting: str
    versus: str
    quantity: str
    value: float
    quartiles: tuple[float, float] | None
    goal: float | None

    @property
    def met(self) -> bool:
        """Whether there is no goal, or the ratio meets it."""
        return self.goal is None or self.value <= self.goal

    def __str__(self) -> str:
        text = f'{self.value:.2f}'
        if self.quartiles:
            text += ' ({:.2f} to {:.2f})'.format(*self.quartiles)
        return text if self.goal is None else f'{text}, goal {self.goal:.2f} {"met" if self.met else "**missed**"}'


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile of one or more values."""
    low, _, high = quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
    return low, high


def ratios(ours: Figures, theirs: Figures, goals: Mapping[str, float]) -> list[Ratio]:
    """Ratios of everything that was measured of both; of times, the median of the ratios in each turn."""
    turns = [one / other for one, other in zip(ours.seconds, theirs.seconds, strict=True)]
    result = [Ratio(ours.setting, theirs.contender, 'seconds', median(turns), quartiles(turns), goals.get('seconds'))]
    for quantity in sorted(ours.memory.keys() & theirs.memory.keys()):
        value = ours.memory[quantity] / theirs.memory[quantity]
        result.append(Ratio(ours.setting, theirs.contender, quantity, value, None, goals.get(quantity)))
    return result


def section(mode: str, about: str, groups: Iterable[Sequence[Figures]], goals: Goals) -> str:
    """A mode's part of the page, as Markdown, from the figures of each setting, of which ours are the first."""
    table = ['| setting | contender | time (quartiles) | kept memory | peak memory | our time / its time (quartiles) '
             '| our memory / its memory |', '|---' * 7 + '|']
    found = []
    for ours, *others in groups:
        table.append(table_line(ours, []))
        for theirs in others:
            of_pair = ratios(ours, theirs, goals.get(theirs.contender, {}))
            found += of_pair
            table.append(table_line(theirs, of_pair))
    with_goal = [ratio for ratio in found if ratio.goal is not None]
    summary = f'{sum(ratio.met for ratio in with_goal)} of {len(with_goal)} goals met.'
    missed = [f'- missed: {ratio.setting}, {NAMES[ratio.quantity]} against {ratio.versus}: {ratio}'
              for ratio in with_goal if not ratio.met]
    return '\n\n'.join(filter(None, [f'#### `{mode}`', f'{about} {summary}', '\n'.join(missed), '\n'.join(table)]))


def table_line(figures: Figures, found: Sequence[Ratio]) -> str:
    """A row of the table: a contender's figures, and the ratios of ours to them."""
    time, low, high = (f'{1000 * value:,.1f}' for value in (median(figures.seconds), *quartiles(figures.seconds)))
    memory = [f'{figures.memory[name]:,.0f} MiB' if name in figures.memory else '-' for name in ('kept', 'peak')]
    over_time = ', '.join(str(ratio) for ratio in found if ratio.quantity == 'seconds')
    over_memory = ', '.join(f'{ratio.quantity} {ratio}' for ratio in found if ratio.quantity != 'seconds')
    cells = [figures.setting, figures.contender, f'{time} ms ({low} to {high})', *memory, over_time, over_memory]
    return f'| {" | ".join(cells)} |'


def csv_row(mode: str, figures: Figures) -> dict[str, str | float | None]:
    """A row of the CSV file."""
    low, high = quartiles(figures.seconds)
    return dict(mode=mode, setting=figures.setting, contender=figures.contender, seconds=median(figures.seconds),
                low=low, high=high, kept=figures.memory.get('kept'), peak=figures.memory.get('peak'),
                turns=len(figures.seconds))
