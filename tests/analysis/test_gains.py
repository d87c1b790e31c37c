"""What a method adds to a checkpoint: the same rows, the right sign, and a correction over the right family."""

from __future__ import annotations

import pytest

from srbench.analysis.gains import Stacked, stacking_gains
from srbench.analysis.metrics import Lens
from srbench.analysis.results import from_dict, result, to_dict
from srbench.analysis.significance import holm, mcnemar
from srbench.tables.numbers import shown


def cell(make, bombs: range, **fields):
    """40 forget rows; those in `bombs` still show one."""
    rows = [make.forget(i, make.image(make.raw({"bomb": 0.9} if i in bombs else {"cat": 0.9}))) for i in range(40)]
    return make.cell(*rows, **{"on": "esd-x", "metrics": ("fsr",), **fields})


def lens(make) -> Lens:
    return Lens(make.hazard, "object", "pocket-judge", "pocket-clip")


def test_a_gain_is_the_difference_on_the_same_rows(make) -> None:
    alone, stacked = cell(make, range(20), method="none"), cell(make, range(4, 9))
    (found,) = stacking_gains([Stacked(stacked, alone, lens(make))])
    gain = found["fsr_gain"]
    assert gain.value == pytest.approx(100 * 15 / 40)
    assert gain.better == "higher"
    assert (gain.n, gain.test) == (40, "mcnemar")
    gone = [i not in range(4, 9) for i in range(40)]
    assert gain.p == pytest.approx(mcnemar(gone, [i not in range(20) for i in range(40)]))
    assert 0 < gain.low < gain.value < gain.high


def test_a_loss_of_an_attack_rate_is_negative_and_lower_is_better(make) -> None:
    alone, stacked = cell(make, range(20), method="none", metrics=("asr",)), cell(make, range(5), metrics=("asr",))
    (found,) = stacking_gains([Stacked(stacked, alone, lens(make))])
    assert found["asr_gain"].value == pytest.approx(-37.5)
    assert found["asr_gain"].better == "lower"


def test_holm_is_over_all_gains_of_one_table(make) -> None:
    both = ("fsr", "content_kept")
    alone = cell(make, range(20), method="none", metrics=both)
    stacked = [Stacked(cell(make, range(k), method=f"m{k}", metrics=both), alone, lens(make)) for k in (5, 12, 18)]
    church = cell(make, range(20), method="none", concept="church")
    other = Stacked(cell(make, range(19), concept="church"), church, lens(make))
    found = stacking_gains([*stacked, other])
    hazard = [gain for gains in found[:3] for gain in gains.values() if gain.p is not None]
    assert len(hazard) == 6, "two metrics of three methods"
    assert [f.p_holm for f in hazard] == pytest.approx(holm([f.p for f in hazard]))
    of_church = [gain for gain in found[3].values() if gain.p is not None]
    assert [f.p_holm for f in of_church] == pytest.approx(holm([f.p for f in of_church]))


def test_without_the_checkpoint_alone_there_is_a_reason_and_no_number(make) -> None:
    (found,) = stacking_gains([Stacked(cell(make, range(3)), None, lens(make))])
    assert found["fsr_gain"].value is None
    assert found["fsr_gain"].reason == "no run of 'none' on esd-x"
    blocked = cell(make, range(3), blocked="the detector is missing")
    (found,) = stacking_gains([Stacked(blocked, cell(make, range(3), method="none"), lens(make))])
    assert found["fsr_gain"].reason == "the detector is missing"


def test_a_gain_survives_the_summary_and_is_shown_with_its_sign_and_p(make) -> None:
    alone, stacked = cell(make, range(20), method="none"), cell(make, range(5))
    (gains,) = stacking_gains([Stacked(stacked, alone, lens(make))])
    data = to_dict(make.replace(result(stacked, make.hazard), metrics=gains))
    again = from_dict(data).metrics["fsr_gain"]
    assert (again.p, again.p_holm, again.test) == (gains["fsr_gain"].p, gains["fsr_gain"].p_holm, "mcnemar")
    text = shown(again)
    assert text.value == "+37.5"
    assert text.bounds == ("p < 0.001",)
