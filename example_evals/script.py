"""The tracking API without pytest: `python example_evals/script.py`."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from pytest_armory import Engine, Evaluation, l2
from pytest_armory.track import track_call, track_evaluation, track_init_params, track_params


@track_params
def load_images(*, test_size, seed):
    images, labels = load_digits(return_X_y=True)
    return train_test_split(images / 16, labels, test_size=test_size, random_state=seed)


@track_init_params
class Noise:
    def __init__(self, *, sigma, seed):
        self.sigma = sigma
        self.random = np.random.default_rng(seed)

    def __call__(self, images, _labels):
        return np.clip(self.random.normal(images, self.sigma), 0, 1)


def main():
    with track_evaluation("digits-noise", description="Nearest neighbours on noisy digits") as run:
        x_train, x_test, y_train, y_test = load_images(test_size=0.25, seed=0)
        model = track_call(KNeighborsClassifier, n_neighbors=3).fit(x_train, y_train)
        evaluation = Evaluation(
            name="noise",
            dataset=(x_test, y_test),
            model=model,
            perturbations={"noise": Noise(sigma=0.25, seed=0)},
            metrics={"accuracy": accuracy_score},
            perturbation_metrics={"l2": l2},
        )
        results = Engine(evaluation).run()

    server = "http://127.0.0.1:5000"  # where armory-mlflow-server serves a database
    local = f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    page = run.url or f"{local}?workflowType=machine_learning"
    how = "" if run.url else "with `armory-mlflow-server` "
    accuracy = results.metrics["accuracy"]
    print(f"accuracy {accuracy:.3f} in run {run.run_id}\nsee it {how}at {page}")


if __name__ == "__main__":
    main()
