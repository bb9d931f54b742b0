"""sktime's own conformance suite, in full."""

from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from moirai_moe_forecaster import MoiraiMoEForecaster


@parametrize_with_checks([MoiraiMoEForecaster])
def test_sktime_conformance(obj: type, test_name: str) -> None:
    results = check_estimator(obj, tests_to_run=test_name, raise_exceptions=True, verbose=False)
    assert all(result == "PASSED" for result in results.values())
