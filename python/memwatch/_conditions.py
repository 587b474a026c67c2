"""`when` for names: the conditions that the core judges for memory, of the number that a name holds."""

from __future__ import annotations

import math
import operator

from memwatch._typing import Any, Callable, Optional

Judge = Callable[[Any], object]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip
_N_NUMBERS = {"changed": 0, "any_nan": 0, "outside": 2, "inside": 2, "delta_gt": 1, **dict.fromkeys(_COMPARE, 1)}


def judge(when: Any, value: object) -> Optional[Judge]:
    """A function of the new value, for a name that holds `value` now. TypeError: that is no condition."""
    if when is None or callable(when):
        return when  # type: ignore[no-any-return]
    name, *numbers = when if isinstance(when, tuple) and when else (when,)
    known = isinstance(name, str) and _N_NUMBERS.get(name) == len(numbers)
    if not known or not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError(
            f'when must be callable, or a condition on a number, not {when!r}: "changed", "any_nan", ("gt", x) and so '
            'ge, lt, le, eq, ne, delta_gt, or ("outside", low, high) and so inside'
        )
    if name == "changed":
        return lambda value: True
    if name == "any_nan":
        return lambda value: type(value) is float and math.isnan(value)
    if name == "delta_gt":
        return _Delta(value, numbers[0])
    return _of_numbers(name, numbers)


def _is_number(value: object) -> bool:
    return type(value) in (int, float, bool)


def _of_numbers(name: str, numbers: list[Any]) -> Judge:
    if name in _COMPARE:
        compare, limit = _COMPARE[name], numbers[0]
        return lambda value: _is_number(value) and compare(value, limit)
    low, high = numbers
    inside = name == "inside"
    return lambda value: _is_number(value) and (low <= value <= high) is inside


class _Delta:
    """Whether the value is further from the one before than that."""

    def __init__(self, value: object, limit: float) -> None:
        self._last, self._limit = value, limit

    def __call__(self, value: Any) -> bool:
        last: Any
        last, self._last = self._last, value
        return _is_number(last) and _is_number(value) and abs(value - last) > self._limit
