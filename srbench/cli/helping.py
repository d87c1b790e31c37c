"""How options look in `--help`: in groups, each with what its value is, and with names that a shell completes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typer import Option
from typer.core import TyperCommand, TyperGroup, TyperOption

COMMANDS = {
    "Measure": ("run", "score", "attack"),
    "Read what was measured": ("compare", "report", "show", "tables", "export"),
    "Make": ("train", "erase", "new"),
    "Find out, fetch, check and join": ("list", "doctor", "fetch", "verify", "merge"),
}
"""Group -> its commands, in the order of the help."""


@dataclass(frozen=True)
class Panel:
    """A group of options. `default` says what a default of None means."""

    title: str

    def flag(self, *names: str, help: str) -> Any:
        """An option without a value."""
        return Option(*names, help=help, rich_help_panel=self.title)

    def value(
        self, metavar: str, *names: str, help: str, default: str | bool = True,
        completed: Callable[[str], list[str]] | None = None,
    ) -> Any:
        """An option with a value. metavar: what that is, in capitals, or the choices. completed: what a shell offers."""
        return Option(
            *names, metavar=metavar, help=help, show_default=default, rich_help_panel=self.title, autocompletion=completed
        )

    def one(self, kind: str, *names: str, help: str, default: str | bool = True) -> Any:
        """An option whose value is a name of a kind of `srbench list`, which a shell completes, or a path."""
        return self.value("NAME", *names, help=help, default=default, completed=_completing(kind))

    def several(self, kind: str, *names: str, help: str, default: str | bool = True) -> Any:
        """As `one`, with commas between names."""
        return self.value("NAMES", *names, help=help, default=default, completed=_completing(kind))


WHAT, HOW, OUTPUT = PANELS = (Panel("What"), Panel("How"), Panel("Output"))


def _completing(kind: str) -> Callable[[str], list[str]]:
    """What a shell offers for the last of the names that were typed."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.split(",")
        return [f"{before}{comma}{name}" for name in _names(kind) if name.startswith(last) and name not in taken]

    return complete


def _names(kind: str) -> list[str]:
    from srbench.catalog import load, plugins

    if kind == "methods":
        return sorted(plugins.presets())
    if kind == "checkpoints":
        metas = {name: plugins.plugins("methods")[method].meta for name, (method, _) in plugins.presets().items()}
        return ["none", *sorted(name for name, meta in metas.items() if meta["kind"] == "weight"), *load.baselines()]
    return list(plugins.plugins(kind) if kind == "scorers" else getattr(load, kind)())


class Command(TyperCommand):
    """A command in its group of the help, its options in theirs."""

    def __init__(self, name: str | None, **more: Any) -> None:
        super().__init__(name, **more)
        self.rich_help_panel = _group_of(name)

    def get_params(self, ctx: Any) -> list[Any]:
        """Arguments, then options by group; `--help` among the last."""
        params = _without_type(super().get_params(ctx))
        for param in params:
            if isinstance(param, TyperOption) and param.rich_help_panel is None:
                param.rich_help_panel = OUTPUT.title
        order = {panel.title: place for place, panel in enumerate(PANELS)}
        return sorted(params, key=lambda param: order.get(getattr(param, "rich_help_panel", ""), -1))


class Group(TyperGroup):
    """The commands, in the order of their groups."""

    def __init__(self, *, name: str | None = None, **more: Any) -> None:
        super().__init__(name=name, **more)
        self.rich_help_panel = _group_of(name)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options of the program itself."""
        return _without_type(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command's name."""
        order = [name for names in COMMANDS.values() for name in names]
        return sorted(super().list_commands(ctx), key=lambda name: order.index(name) if name in order else len(order))


def _group_of(command: str | None) -> str | None:
    return next((group for group, names in COMMANDS.items() if command in names), None)


def _without_type(params: list[Any]) -> list[Any]:
    """The same; a flag takes no value, and nothing stands where other options have what theirs is."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params
