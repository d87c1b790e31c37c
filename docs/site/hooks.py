"""Hooks of mkdocs: the pages of the reference, made from the code, and links that lead out of docs/."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.core import TyperArgument, TyperOption

import srbench
from srbench.catalog import load, plugins
from srbench.cli import about, helping
from srbench.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#\s]+)[^)\s]*\)")
"""A link from a page of docs/ to a file of the repository that is no page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference."""
    for name, made in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(made())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Files outside of docs/ are named where a page links to them: the site has no repository to link into."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return OUTSIDE.sub(lambda match: match[1] if match[1] in match[2] else f"{match[1]} (`{match[2]}`)", markdown)


# --- pages -----------------------------------------------------------------------------------------------------------------


def cli() -> Iterator[str]:
    """Every command and its options."""
    group: Any = typer.main.get_command(app)
    yield from ("# Commands", "")
    context = group.make_context("srbench", [], resilient_parsing=True)
    for title, names in helping.COMMANDS.items():
        yield from (f"## {title}", "")
        for name in names:
            command = group.get_command(context, name)
            inner = getattr(command, "commands", {})
            for part in [f"{name} {each}" for each in inner] or [name]:
                yield from _command(part, inner.get(part.rpartition(" ")[2], command))


def _command(name: str, command: Any) -> Iterator[str]:
    """A command's help as tables."""
    context = command.make_context(name, [], resilient_parsing=True)
    params = command.get_params(context)
    arguments = [param for param in params if isinstance(param, TyperArgument)]
    named = ((param.name or "").upper() for param in arguments)
    shown = [name if param.required else f"[{name}]" for param, name in zip(arguments, named, strict=True)]
    usage = " ".join([f"srbench {name}", *shown, "[OPTIONS]"])
    yield from (f"### {name}", "", inspect.cleandoc(command.help or ""), "", f"    {usage}", "")
    for param in arguments:
        yield f"- `{param.name}`: {param.help}"
    yield ""
    for panel in helping.PANELS:
        options = [param for param in params if isinstance(param, TyperOption) and param.rich_help_panel == panel.title]
        if options:
            yield from (f"| {panel.title.lower()} | value | meaning |", "|---|---|---|")
            yield from (_option(param) for param in options)
            yield ""


def _option(param: Any) -> str:
    default = param.show_default if isinstance(param.show_default, str) else param.default
    nothing = default is None or default is False or default in ("", ()) or callable(default)
    shown = "" if nothing else f" Default: `{default}`."
    help_text = (param.help or "").replace("|", "\\|")
    value = " or ".join(f"`{part}`" for part in (param.metavar or "").split("|") if part)
    return f"| `{', '.join(param.opts)}` | {value} | {help_text}{shown} |"


def python() -> Iterator[str]:
    """What `import srbench` gives."""
    yield from ("# Python", "", "With examples and outputs: [from Python](../python.md).", "")
    for name in srbench.__all__:
        thing = getattr(srbench, name)
        if not callable(thing):
            continue
        yield from (f"## srbench.{name}", "")
        if inspect.isfunction(thing):
            yield from ("```python", f"{name}{inspect.signature(thing)}", "```", "")
        yield from (inspect.cleandoc(thing.__doc__ or ""), "")
        if inspect.isclass(thing):
            yield from _members(thing)


def _members(cls: type) -> Iterator[str]:
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            yield from (f"### {name}", "", inspect.cleandoc(member.__doc__ or ""), "")


def methods() -> Iterator[str]:
    """Every method: its equation, what its file says of it, its presets and its options."""
    yield from ("# Methods", "", "Equation, presets, options and what each does; `srbench show method NAME` prints the same.", "")
    for name, plugin in sorted(plugins.plugins("methods").items()):
        cls = plugins.load("methods", name)
        yield from (f"## {name}", "", f"{plugin.meta['title']}.", "")
        if plugin.meta.get("paper"):
            yield from (f"Paper: [{plugin.meta['paper']}](https://arxiv.org/abs/{plugin.meta['paper']}).", "")
        if plugin.meta.get("equation"):
            yield from ("```text", *plugin.meta["equation"], "```", "")
        text = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
        yield from ("```text", text, "```", "")
        for preset, changes in plugin.meta["presets"].items():
            said = ", ".join(f"`{each}`" for each in about.settings(changes)) or "the defaults"
            yield f"- `{preset}`: {said}"
        yield ""
        options = list(about.options(cls.Options, {}))
        if options:
            yield from ("| option | meaning |", "|---|---|")
            yield from (f"| `{head}` | {text} |".replace("\n", " ") for head, text in options)
            yield ""


def suites() -> Iterator[str]:
    """Every suite with its editions."""
    yield from ("# Suites", "", "Where they come from and how they are read: [suites](../suites.md).", "")
    for name, suite in load.suites().items():
        yield from (f"## {name}", "", f"{suite.title}.", "", "| backbone family | concept | part | rows |", "|---|---|---|--:|")
        yield from (f"| {each.family} | {each.concept} | {each.part} | {each.rows} |" for each in suite.editions)
        yield ""


def protocols() -> Iterator[str]:
    """Every protocol with its source."""
    yield from ("# Protocols", "", "How raw scores become yes or no: [judging](../judging.md).", "")
    yield from ("| name | rule |", "|---|---|")
    for name, each in load.protocols().items():
        cannot = f" Cannot be applied: {each.cannot}" if each.cannot else ""
        yield f"| `{name}` | {each.title}{cannot} |"


PAGES = {"cli": cli, "python": python, "methods": methods, "suites": suites, "protocols": protocols}
"""Name below reference/ -> what makes its lines."""
