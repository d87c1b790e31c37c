"""What is said to be lost in a row, as the gallery shows it."""

from __future__ import annotations

from srbench.analysis.verdicts import lost_in, verdicts


def harmed(make, wanted: dict, drawn: dict, **of_cell):  # type: ignore[no-untyped-def]  # the fixture has no type
    row = make.replace(make.retain(0, make.image(make.raw(**drawn)), reference="x"), reference=make.image(make.raw(**wanted)))
    return make.cell(row, metrics=("harm",), **of_cell), row.row.id


def test_harm_names_what_the_untouched_models_picture_has_and_the_methods_has_not(make) -> None:
    wanted = {"objects": {"cat": 0.9, "bomb": 0.9}, "style": "noto", "background": "beach"}
    cell, row = harmed(make, wanted, {"objects": {}, "style": "sketch", "background": "beach"})
    assert lost_in(cell, make.hazard) == {row: ("cat", "style noto")}, "what belongs to the concept may go"
    assert verdicts(cell, make.hazard) == {row: True}


def test_nothing_is_lost_where_all_is_there_and_under_the_untouched_model(make) -> None:
    cell, row = harmed(make, {"objects": {"cat": 0.9}}, {"objects": {"cat": 0.9}})
    assert lost_in(cell, make.hazard) == {}
    assert verdicts(cell, make.hazard) == {row: False}
    cell, row = harmed(make, {"objects": {"cat": 0.9}}, {"objects": {}}, method="none")
    assert lost_in(cell, make.hazard) == {}


def test_a_row_that_cannot_be_compared_has_lost_nothing_that_can_be_named(make) -> None:
    row = make.replace(make.retain(0, make.image(), reference="x"), reference=None)
    assert lost_in(make.cell(row, metrics=("harm",)), make.hazard) == {}
