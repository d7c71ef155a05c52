"""Tables as DataFrames of pandas, which is an extra: where it is not installed these tests are skipped."""

from __future__ import annotations

import pytest
from quick_protocol import QUICK, SMALL_SUITE

import benchmark as kb

pandas = pytest.importorskip("pandas")


def test_a_measurement_is_a_frame_by_feature(tiny_folder):
    probes = kb.blind_probe_set("smoke", programs=12, protocol=kb.TRIAL)
    hidden = kb.hidden_states(kb.load_model(tiny_folder), probes)
    result = kb.measure(probes, hidden, {"other": hidden[:, ::-1]}, features=["facing", "obstacle"])
    frame = result.to_frame()
    assert list(frame.index) == ["facing", "obstacle"]
    assert frame.index.name == "feature"
    assert frame.loc["facing", "delta"] == result.delta.value
    assert frame.dtypes["delta"].kind == "f"
    assert frame.reset_index().to_dict("records") == result.rows()


@pytest.mark.usefixtures("quick")
def test_samples_of_a_run_are_a_frame(tiny_folder):
    report = kb.evaluate(tiny_folder, suite=SMALL_SUITE, protocol=QUICK, accuracy_only=True)
    frame = report.samples
    assert len(frame) == len(report.sample_rows())
    test = frame[frame["stage"] == "test"]
    assert 100 * test["shown"].mean() == pytest.approx(float(report.row["shown %"].split()[0]), abs=0.05)
    assert frame["text"].map(type).eq(str).all()


def test_a_measurement_of_use_is_a_frame():
    result = kb.measure_use("baseline:search", settings=kb.TRIAL_PAIRS)
    assert isinstance(result.to_frame(), pandas.DataFrame)
    assert result.to_frame().empty
