"""What the evaluations load: datasets included in scikit-learn, and models trained on them.

Each fixture is executed once a session. The arguments that it records are parameters of every run
whose test uses it, directly or through another fixture.
"""

from typing import NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from pytest_armory import track_params


class Split(NamedTuple):
    x_train: np.ndarray
    x_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


def load_images(*, test_size, seed):
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    return Split(*train_test_split(images, labels, test_size=test_size, random_state=seed))


def load_table(*, loader, test_size, seed):
    inputs, targets = loader(return_X_y=True)
    return Split(*train_test_split(inputs, targets, test_size=test_size, random_state=seed))


def train_classifier(digits, *, kind, defence=None, **settings):
    # Not at module level, where every process would import ART: that takes seconds.
    from art.estimators.classification import SklearnClassifier

    model = kind(max_iter=1000, random_state=0, **settings)
    classifier = SklearnClassifier(model, clip_values=(0, 1), preprocessing_defences=defence)
    classifier.fit(digits.x_train, np.eye(10)[digits.y_train])
    return classifier


@pytest.fixture(scope="session")
def digits(track_call):
    return track_call(load_images, test_size=0.25, seed=0)


@pytest.fixture(scope="session", params=[LogisticRegression, LinearSVC], ids=["logistic", "svm"])
def classifier(request, track_call, digits):
    return track_call(train_classifier, digits, kind=request.param, C=0.1)


# The prefixes keep their parameters distinct in a test that uses both.
@pytest.fixture(scope="session")
def undefended(digits):
    train = track_params(train_classifier, prefix="undefended")
    return train(digits, kind=LogisticRegression, C=1.0)


@pytest.fixture(scope="session")
def defended(track_call, digits):
    from art.defences.preprocessor import FeatureSqueezing

    squeezing = track_call(FeatureSqueezing, bit_depth=1, clip_values=(0, 1))
    train = track_params(train_classifier, prefix="defended")
    return train(digits, kind=LogisticRegression, C=1.0, defence=squeezing)


@pytest.fixture(scope="session")
def diabetes(track_call):
    return track_call(load_table, loader=load_diabetes, test_size=0.25, seed=0)


@pytest.fixture(scope="session")
def breast_cancer(track_call):
    return track_call(load_table, loader=load_breast_cancer, test_size=0.25, seed=0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Threads do not speed up arrays this small, and xdist's workers would compete for the cores.
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def _seed():
    np.random.seed(0)  # ART's attacks draw from NumPy's global generator
