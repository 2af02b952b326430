"""The settings that a search space varies, and which others each depends on."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from gemma_nli.base.errors import Problems
from gemma_nli.config import check_key
from gemma_nli.spec.domain import Domain, checked_value, identity, parse_domain, shown

Conditions = tuple[tuple[str, tuple[Any, ...]], ...]
_EVALUATION = ("data.data_dir", "data.num_folds", "data.fold_seed", "data.negatives", "data.eval_negative_ratio")
_SEALED = "data.test"
_NO_EFFECT = ("data.log_text", "device.device", "features.", "mlflow.", "output.")


@dataclass(frozen=True)
class Varied:
    key: str
    domain: Domain
    when: Conditions = ()

    def active(self, settings: Mapping[str, Any]) -> bool:
        """Whether it varies, given the settings that vary before it."""
        return all(key in settings and identity(settings[key]) in values for key, values in self._allowed)

    @functools.cached_property
    def _allowed(self) -> tuple[tuple[str, frozenset[Hashable]], ...]:
        return tuple((key, frozenset(map(identity, values))) for key, values in self.when)


def parse_varied(tree: Any, problems: Problems, prefix: str = "") -> tuple[Varied, ...]:
    """What a search space varies, parents first; problems are added under `prefix`, and then the result is empty."""
    if not isinstance(tree, Mapping):
        problems.add(prefix.rstrip("."), f"expected settings to vary (setting: {{grid: [...]}}), got {shown(tree)}.")
        return ()
    before = len(problems.lines)
    domains: dict[str, Domain] = {}
    for key, body in tree.items():
        where = f"{prefix}{key}"
        if _may_vary(str(key), problems, where):
            found = parse_domain(str(key), body, problems, where)
            if found is not None:
                domains[str(key)] = found
    whens = {key: _conditions(tree, key, domains, problems, f"{prefix}{key}.when") for key in domains}
    if len(problems.lines) > before:
        return ()
    order = _ordered(whens, problems, prefix)
    return tuple(Varied(key, domains[key], whens[key]) for key in order)


def _may_vary(key: str, problems: Problems, where: str) -> bool:
    before = len(problems.lines)
    if not check_key(key, problems, where):
        return False
    if key in _EVALUATION or f"{key}.".startswith(f"{_SEALED}."):
        what = "decides which pairs a trial is measured on, so its trials could not be compared; "
        problems.add(where, what + "set it in base, and run one sweep per value.")
    elif any(key == name or (name.endswith(".") and key.startswith(name)) for name in _NO_EFFECT):
        problems.add(where, "does not change a trial's numbers; set it in base.")
    return len(problems.lines) == before


def _conditions(
    tree: Mapping[str, Any], key: str, domains: Mapping[str, Domain], problems: Problems, where: str
) -> Conditions:
    body = tree[key].get("when", {})
    if not isinstance(body, Mapping) or ("when" in tree[key] and not body):
        problems.add(where, f"must name a setting and its values, as in {{model.head: mlp}}, got {shown(body)}.")
        return ()
    found = []
    for parent, given in body.items():
        at = f"{where}.{parent}"
        if not check_key(str(parent), problems, at):
            continue
        if parent not in tree:
            problems.add(at, "the space does not vary this setting; add it to the space, or drop the condition.")
        elif parent in domains:
            values = given if isinstance(given, list) else [given]
            if not values:
                problems.add(at, "must be a value, or a list of at least one.")
            found.append((str(parent), tuple(_parent_value(parent, v, domains[parent], problems, at) for v in values)))
    for section in (other for other in domains if key.startswith(f"{other}.")):
        values_given = dict(found).get(section, ())
        if not values_given or None in values_given:
            what = f"the space also varies {section}, whose null this setting would undo; "
            problems.add(where, what + f"add when: {{{section}: ...}} with the values that are not null.")
    return tuple(found)


def _parent_value(parent: str, value: Any, domain: Domain, problems: Problems, where: str) -> Any:
    before = len(problems.lines)
    checked = checked_value(parent, value, problems, where)
    if len(problems.lines) == before and not domain.contains(checked):
        problems.add(where, f"never {shown(value)}: the space varies it over {domain}.")
    return checked


def _ordered(whens: Mapping[str, Conditions], problems: Problems, prefix: str) -> list[str]:
    """Settings, each after those it depends on, otherwise in the file's order."""
    order: list[str] = []
    waiting = list(whens)
    while waiting:
        ready = next((key for key in waiting if all(parent in order for parent, _ in whens[key])), None)
        if ready is None:
            problems.add(f"{prefix}{waiting[0]}.when", f"conditions form a circle: {', '.join(waiting)}.")
            return []
        order.append(ready)
        waiting.remove(ready)
    return order
