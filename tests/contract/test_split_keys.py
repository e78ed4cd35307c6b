"""Which client holds what follows from the problem's key: another key splits otherwise, the same one in the same way."""

import numpy as np
import pytest

from llm.clients import TaskProblem
from llm.problem import LanguageProblem
from tests import llm_helpers
from vision.problems import ImageProblem


@pytest.fixture(scope="module")
def model():
    return str(llm_helpers.folder("opt"))


@pytest.mark.parametrize("split", ["dirichlet", "iid"])
def test_examples_of_a_task_are_split_by_the_key(model, split):
    def owned(key):
        problem = LanguageProblem(
            model, "toy-sst2", clients=3, split=split, train_limit=30, evaluate_limit=2, key=key, truncate=True
        )
        assert isinstance(problem, TaskProblem)
        return [problem.owned(client).tolist() for client in range(3)]

    assert owned(1) == owned(1) != owned(2)
    assert owned(1) != owned(1 + 2**32)


@pytest.mark.parametrize("split", ["dirichlet", "iid"])
def test_images_are_split_by_the_key(split):
    def images(key):
        problem = ImageProblem("digits", clients=3, split=split, batch_size=64, key=key)
        return {row.tobytes() for r in range(12) for row in problem.batch(np.array(0), r, 0)[0].flatten(1).numpy()}

    # Twelve batches show nearly all that a client holds: two keys have about a third in common.
    one, same, other = images(1), images(1), images(2)
    assert one == same and len(one & other) < 0.8 * len(one)
