"""`srbench list` reads literal metadata; it must say what the imported plug-in says."""

from __future__ import annotations

import pytest

from srbench.catalog import plugins
from srbench.errors import UsageError


@pytest.mark.parametrize("kind", ["methods", "scorers", "attacks"])
def test_literal_metadata_equals_the_imported_objects(kind: str) -> None:
    found = plugins.plugins(kind)
    assert found
    for name, plugin in found.items():
        assert plugins.load(kind, name).meta == plugin.meta


def test_presets_parse_with_their_defaults() -> None:
    for preset, (name, values) in plugins.presets().items():
        options = plugins.load("methods", name).Options(**values)
        assert all(getattr(options, k) == v for k, v in values.items()), preset


def test_unknown_method_gets_the_closest_name() -> None:
    with pytest.raises(UsageError) as caught:
        plugins.preset("safredir")
    assert "Did you mean 'saferedir'?" in caught.value.hint


def test_two_plugins_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = plugins._own_files("methods")
    twin = {"somewhere.else": own["srbench.methods.none"]}
    monkeypatch.setattr(plugins, "_foreign_files", lambda kind: twin)
    plugins.plugins.cache_clear()
    with pytest.raises(UsageError, match="'none' is declared by"):
        plugins.plugins("methods")
    plugins.plugins.cache_clear()
