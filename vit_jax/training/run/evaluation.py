"""Evaluations during a run."""

from __future__ import annotations

from collections.abc import Iterator

import jax

from vit_jax.preprocessing import normalise
from vit_jax.pure import Params
from vit_jax.training.data import evaluation_batches
from vit_jax.training.data.sources.holdout import are_several
from vit_jax.training.devices.engine import place_rows
from vit_jax.training.devices.sharding import shardings
from vit_jax.training.evaluation.scores import AnyScores, judge, new_scores
from vit_jax.training.run.setup import Setup
from vit_jax.training.run.stopping import StoppedError, StopRequests
from vit_jax.training.step.update import Batch
from vit_spec import VitportError


class Evaluation:
    """Evaluates parameters, or their moving average, on the validation images, unless it is stopped."""

    def __init__(self, setup: Setup, stop: StopRequests) -> None:
        self._setup, self._stop = setup, stop
        places = shardings(setup.shapes.params, setup.model, setup.mesh)
        inference = setup.inference()

        def judged(params: Params, batch: Batch) -> dict[str, jax.Array]:
            logits = inference(params, normalise(batch["image"], setup.preprocessing))
            return judge(logits, batch["label"], batch["weight"])

        everywhere = jax.sharding.NamedSharding(setup.mesh, jax.sharding.PartitionSpec())
        self._places = places
        self._judge = jax.jit(judged, out_shardings=everywhere)

    def __call__(self, params: Params) -> tuple[AnyScores, dict[str, str]]:
        """Scores, and the images that this process could not read, with the reasons.

        Raises:
            StoppedError: when a stop is requested.
        """
        setup = self._setup
        if setup.validation is None:
            raise VitportError(f"{setup.train.name} has no validation split: give data.validation.")
        params = jax.device_put(params, self._places)
        scores = new_scores(setup.model.num_classes, several=are_several(setup.train))
        data = setup.options.data
        batches = evaluation_batches(
            setup.validation,
            setup.preprocessing,
            batch=setup.options.batch,
            rows=setup.rows,
            workers=data.workers,
            corrupt=data.corrupt,
        )
        with batches:
            for batch in stoppable(batches, self._stop):
                with jax.set_mesh(setup.mesh):  # read by vit_jax.layers.xla.packed
                    scores.add(self._judge(params, place_rows(batch, setup.mesh)))
        return scores, dict(batches.corrupt)


def stoppable(batches: Iterator[Batch], stop: StopRequests) -> Iterator[Batch]:
    """The same batches.

    Raises:
        StoppedError: when a stop is requested.
    """
    while True:
        if stop():
            raise StoppedError
        with stop.interruptible():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
