"""A regression and a classification on tables of patients.

The marker names no experiment here: these runs are in the session's own.
"""

from functools import partial

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.metrics import (
    classification_report,
    confusion_matrix,
    mean_absolute_error,
    r2_score,
    recall_score,
)

from pytest_armory import Engine, Evaluation, absolute_error, correct, samples


@pytest.fixture(scope="module")
def regressor(track_call, diabetes):
    return track_call(Ridge, alpha=0.1).fit(diabetes.x_train, diabetes.y_train)


@pytest.fixture(scope="module")
def forest(track_call, breast_cancer):
    model = track_call(RandomForestClassifier, n_estimators=100, random_state=0)
    return model.fit(breast_cancer.x_train, breast_cancer.y_train)


@pytest.mark.evaluation(description="Progress of diabetes, from measurements with a growing error")
@pytest.mark.parametrize("error", [0.0, 0.5])
def test_diabetes(diabetes, regressor, error):
    spread = error * diabetes.x_train.std(axis=0)

    def mismeasure(inputs, _targets):
        return np.random.normal(inputs, spread)

    evaluation = Evaluation(
        name="diabetes",
        dataset=(diabetes.x_test, diabetes.y_test),
        model=regressor,
        perturbations={"mismeasure": mismeasure},
        sample_metrics={"mae": absolute_error},
        metrics={"r2": r2_score},
        batch_size=50,
    )
    results = Engine(evaluation).run()

    guess = np.full_like(diabetes.y_test, diabetes.y_train.mean())
    assert results.metrics["mae"] < 0.9 * mean_absolute_error(diabetes.y_test, guess)


def deviations(data, index):
    """A figure of one patient's measurements: how far each is from the mean of all."""
    spread = data.x_train.std(axis=0)
    figure = Figure()  # pyplot's would stay in memory, and may ask for a display
    axes = figure.subplots()
    axes.bar(range(len(spread)), (data.x_test[index] - data.x_train.mean(axis=0)) / spread)
    axes.set(xlabel="measurement", ylabel="standard deviations", title=f"sample {index}")
    return figure


@pytest.mark.evaluation(description="Breast cancer found in measurements of cells, class by class")
def test_breast_cancer(breast_cancer, forest, evaluation_run):
    classes = ["malignant", "benign"]
    evaluation = Evaluation(
        name="breast-cancer",
        dataset=(breast_cancer.x_test, breast_cancer.y_test),
        model=forest,
        sample_metrics={"accuracy": correct},
        metrics={
            "malignant_found": partial(recall_score, pos_label=0),
            "report": partial(classification_report, target_names=classes, output_dict=True),
            "confusion": confusion_matrix,
        },
    )
    results = Engine(evaluation).run()

    rows = samples(evaluation_run)
    missed = int(rows.sort_values("accuracy")["sample"].iloc[0])
    evaluation_run.log_figure(deviations(breast_cancer, missed), f"missed/sample_{missed}.png")

    assert results.metrics["malignant_found"] > 0.9
    assert results.metrics["report/benign/precision"] > 0.9
