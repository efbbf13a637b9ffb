"""A regression and a classification on tables of patients.

The marker names no experiment here: these runs are in the session's own.
"""

from functools import partial

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.metrics import (
    classification_report,
    confusion_matrix,
    mean_absolute_error,
    r2_score,
    recall_score,
)

from pytest_armory import Engine, Evaluation


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
        metrics={"mae": mean_absolute_error, "r2": r2_score},
        batch_size=50,
    )
    results = Engine(evaluation).run()

    guess = np.full_like(diabetes.y_test, diabetes.y_train.mean())
    assert results.metrics["mae"] < 0.9 * mean_absolute_error(diabetes.y_test, guess)


@pytest.mark.evaluation(description="Breast cancer found in measurements of cells, class by class")
def test_breast_cancer(breast_cancer, forest):
    classes = ["malignant", "benign"]
    evaluation = Evaluation(
        name="breast-cancer",
        dataset=(breast_cancer.x_test, breast_cancer.y_test),
        model=forest,
        metrics={
            "malignant_found": partial(recall_score, pos_label=0),
            "report": partial(classification_report, target_names=classes, output_dict=True),
            "confusion": confusion_matrix,
        },
    )
    results = Engine(evaluation).run()

    assert results.metrics["malignant_found"] > 0.9
    assert results.metrics["report/benign/precision"] > 0.9
