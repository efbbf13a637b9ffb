"""How large a perturbation has to be to fool two classifiers of handwritten digits."""

import numpy as np
import pytest
from attacks import hop_skip_jump, pgd
from matplotlib.figure import Figure
from sklearn.metrics import accuracy_score, confusion_matrix

from pytest_armory import Engine, Evaluation, correct, l2, linf, samples

pytestmark = pytest.mark.evaluation(name="digits-robustness", tags={"dataset": "digits"})

FLOORS = {0.05: 0.8, 0.1: 0.6, 0.2: 0.1}


@pytest.mark.evaluation(description="White box: projected gradient descent within an L∞ budget")
@pytest.mark.parametrize("eps", FLOORS)
def test_pgd(digits, classifier, eps, evaluation_run):
    attack = pgd(classifier, eps)
    evaluation = Evaluation(
        name="pgd",
        dataset=(digits.x_test, digits.y_test),
        dataset_name="digits",
        model=classifier.model,  # scikit-learn's own, which predicts labels
        perturbations={"pgd": attack},
        sample_metrics={"accuracy": correct},
        metrics={"confusion": confusion_matrix},
        perturbation_metrics={"l2": l2, "linf": linf},
        batch_size=150,
    )
    results = Engine(evaluation).run()

    log_fooled(evaluation_run, attack, digits)

    assert results.metrics["linf_max"] <= eps + 1e-6
    assert results.metrics["accuracy"] >= FLOORS[eps]


@pytest.mark.evaluation(description="Black box: HopSkipJump within a budget of queries")
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_hop_skip_jump(digits, classifier, iterations):
    evaluation = Evaluation(
        name="hop-skip-jump",
        dataset=(digits.x_test[:30], digits.y_test[:30]),
        model=classifier.model,
        perturbations={"hop_skip_jump": hop_skip_jump(classifier, iterations)},
        sample_metrics={"accuracy": correct},
        metrics={"confusion": confusion_matrix},
        perturbation_metrics={"l2": l2, "linf": linf},
    )
    results = Engine(evaluation).run()

    # It fools every model; a more robust one requires a larger perturbation.
    assert results.metrics["l2"] > 0.7


def log_fooled(run, attack, digits):
    """Store a picture of the first image that fooled the model, clean and attacked."""
    rows = samples(run)
    fooled = rows[rows["accuracy"] == 0]["sample"]
    if fooled.empty:
        return
    first = int(fooled.iloc[0])
    clean = digits.x_test[first : first + 1]
    attacked = attack.generate(x=clean, y=digits.y_test[first : first + 1])
    picture = np.hstack([image.reshape(8, 8) for image in (clean, attacked)])
    run.log_image(np.kron(picture.clip(0, 1), np.ones((16, 16))), f"fooled/sample_{first}.png")


@pytest.mark.evaluation(description="Accuracy over the budget of the white-box attack")
def test_robustness_curve(digits, classifier, evaluation_run):
    budgets, accuracies = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3], []
    for step, eps in enumerate(budgets):
        images = digits.x_test
        if eps:
            images = pgd(classifier, eps).generate(x=images, y=digits.y_test)
        accuracies.append(accuracy_score(digits.y_test, classifier.model.predict(images)))
        evaluation_run.log_metrics({"eps": eps, "accuracy": accuracies[-1]}, step=step)
    evaluation_run.log_metrics({"mean_accuracy": sum(accuracies) / len(accuracies)})

    figure = Figure()  # pyplot's would stay in memory, and may ask for a display
    axes = figure.subplots()
    axes.plot(budgets, accuracies, marker="o")
    axes.set(xlabel="L∞ budget", ylabel="accuracy", ylim=(0, 1))
    evaluation_run.log_figure(figure, "robustness.png")

    assert accuracies == sorted(accuracies, reverse=True)
