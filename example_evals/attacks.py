"""The attacks on images of digits that more than one evaluation uses."""

import numpy as np
from art.attacks.evasion import HopSkipJump, ProjectedGradientDescent


def pgd(classifier, eps):
    """White box: projected gradient descent, with no pixel changed by more than `eps`."""
    return ProjectedGradientDescent(
        classifier, eps=eps, eps_step=eps / 4, max_iter=10, verbose=False
    )


def hop_skip_jump(classifier, iterations):
    """Black box: the smallest perturbation found in so many iterations, from labels alone."""
    attack = HopSkipJump(classifier, max_iter=iterations, max_eval=100, verbose=False)

    def perturb(images, labels):
        # Starts from an image of another digit, because ART's own random start cannot be seeded.
        starts = np.stack([images[labels != label][0] for label in labels])
        return attack.generate(x=images, x_adv_init=starts)

    return perturb
