"""What the packages of methods, scorers and attacks have in common: names, and the file that pip reads."""

from __future__ import annotations

import importlib.util
import keyword
import sys
from string import Template

from srbench.catalog import plugins
from srbench.errors import UsageError
from srbench.scaffold.write import check_name

PYPROJECT = Template("""\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "0.1.0"
description = "For srbench: $what"
requires-python = ">=3.11"
dependencies = ["srbench"]

[project.optional-dependencies]
test = ["pytest>=8.4"]

[project.entry-points."srbench.$kind"]
$name = "$module"

[tool.hatch.build]
dev-mode-dirs = ["."] # an editable install finds the module here

[tool.hatch.build.targets.wheel]
only-include = ["$module.py"]

[tool.pytest.ini_options]
addopts = ["--import-mode=importlib"]
filterwarnings = ["ignore::DeprecationWarning", "ignore::FutureWarning"] # of the libraries below srbench
""")


def module_of(name: str) -> str:
    """The Python module of a plug-in: `quiet_text` for `quiet-text`."""
    return name.replace("-", "_")


def class_of(name: str) -> str:
    """The class of a plug-in: `QuietText` for `quiet-text`."""
    return "".join(part.capitalize() for part in module_of(name).split("_"))


def check(kind: str, name: str) -> None:
    """Raises `UsageError` for what is no name of a plug-in, or taken by one, by a preset, or by a module of Python's.

    kind: `methods`, `scorers` or `attacks`.
    """
    taken = {*plugins.plugins(kind), *(each for left in plugins.read(kind).left_out for each in left.names)}
    if kind == "methods":
        taken |= plugins.presets().keys()
    check_name(kind.removesuffix("s"), name, taken)
    module = module_of(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or _is_there(module):
        raise UsageError(f"'{name}' cannot be the name of a package: Python has a module '{module}'", "Choose another name.")


def _is_there(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # None: a mere folder of that name


def package(kind: str, name: str, module_text: str, test_text: str) -> dict[str, str]:
    """Path below the package's folder -> text. The texts may use `$name`, `$module` and `$cls`.

    kind: `methods`, `scorers` or `attacks`.
    """
    words = {"name": name, "module": module_of(name), "cls": class_of(name), "kind": kind, "what": kind.removesuffix("s")}
    return {
        "pyproject.toml": PYPROJECT.substitute(words),
        f"{words['module']}.py": Template(module_text).substitute(words),
        f"test_{words['module']}.py": Template(test_text).substitute(words),
    }
