"""``vitport evaluate``: the accuracy of weights on labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vit_cli.reading import Json, SizedOptions
from vit_cli.terminal import print_table, say, say_error, skipped, spinner, three_digits, write_json
from vit_jax.training.recipe.data import Data
from vit_jax.training.recipe.execution import Precision
from vit_spec import VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax.training.data import Source, Table
    from vit_jax.training.data.record import Split


def evaluate(
    weights: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WEIGHTS")],
    *,
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None,
    split: Literal["train", "validation"] = "validation",
    labels: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
    image_column: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
    label_column: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
    label_separator: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None,
    holdout: float = 0.0,
    holdout_seed: int = 0,
    range: tuple[float, float] | None = None,
    batch: int = 64,
    precision: Precision = "float32",
    workers: int = 0,
    per_class: bool = False,
    real: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
    predictions: Annotated[str | None, tyro.conf.arg(metavar="FILE.csv")] = None,
    knn: Annotated[int | None, tyro.conf.arg(metavar="K")] = None,
    linear_probe: bool = False,
    on: Annotated[str | None, tyro.conf.arg(metavar="TOPOLOGY")] = None,
    as_json: Json = False,
    reading: SizedOptions,
) -> None:
    """Measure accuracy, calibration or frozen features in JAX.

    Args:
        weights: File, folder or work directory of weights.
        data: Images, as `vitport train` reads them.
        split: Which split to evaluate.
        labels: A table (CSV) with the image and the label of each row, for images in one folder.
        image_column: The table's column of images, if it is not found by its values.
        label_column: The table's column of labels, if it is not found by its name.
        label_separator: What separates several labels of an image in that column, as in data.label_separator.
        holdout: Share of each class's images that a run held out with data.holdout, where there is no validation split.
        holdout_seed: Which images these are, as in data.holdout_seed.
        range: Values that are black and white in images of more than 8 bits a channel, as in data.range.
        batch: Images at a time.
        precision: Precision of the computation; parameters stay in float32.
        workers: Processes that decode; 0: threads.
        per_class: Print the accuracy of every class too.
        real: The file real.json of ImageNet's reassessed labels, for the validation set.
        predictions: Write a table (CSV) with each image, its label, the predicted class and its probability; or the
            probability of every class, where an image may have several labels.
        knn: Instead of the head, vote of the K nearest training images by their frozen features.
        linear_probe: Instead of the head, logistic regression on frozen features.
        on: Without data: compile for chips that are not here, such as v5e:4x4 or h100:2x8, and print memory and the
            time that follows.
        as_json: Print JSON instead of tables.
    """
    from vit_jax.inference import offer_cores
    from vit_jax.training.data import Table
    from vit_jax.training.data.sources.holdout import are_several

    if batch < 1:
        raise VitportError(f"--batch must be 1 image or more; got {batch}.")
    if workers < 0:
        raise VitportError(f"--workers must be 0 processes or more; got {workers}.")
    if (knn is not None or linear_probe) and (per_class or real is not None or predictions is not None):
        raise VitportError(
            "--per-class, --real and --predictions are of the head, which --knn and --linear-probe replace: leave one "
            "out."
        )
    if on is not None:
        if data is not None:
            raise VitportError(
                f"--on compiles for chips that are not here, and reads no images: leave out --data {data}."
            )
        from vit_cli.ahead import compile_evaluation

        compile_evaluation(reading.load(weights), on, batch, precision, as_json)
        return
    if data is None:
        raise VitportError("--data is missing: give the images, as `vitport train` reads them.")
    if predictions is not None:
        from conversion.destination import check_writable

        check_writable(predictions, [each for each in (weights, data, labels, real) if each is not None], ".csv")
    how = {"batch": batch, "workers": workers, "precision": precision}
    offer_cores()
    checkpoint = reading.load(weights)
    if labels is None and (image_column or label_column or label_separator):
        raise VitportError("--image-column, --label-column and --label-separator are a table's: give it with --labels.")
    several = checkpoint.several_labels
    table = None if labels is None else Table(labels, image_column, label_column, None, label_separator, several)
    held = Data(data, holdout=holdout, holdout_seed=holdout_seed, range=range)
    source, train = _opened(held, split, table, knn is not None or linear_probe)
    if source is None:
        raise VitportError(f"{data} has no {split} images: choose the other --split.")
    if (knn is not None or linear_probe or real is not None) and are_several(source):
        raise VitportError(
            f"--knn, --linear-probe and --real are for one label an image, and {source.name} has several: leave them "
            "out."
        )
    if knn is not None or linear_probe:
        if train is None or split == "train":
            raise VitportError(
                "--knn and --linear-probe learn from the training images: evaluate the validation split."
            )
        if train.classes != source.classes:
            raise VitportError(f"{source.name} does not have the classes of the training images: give both the same.")
        if knn is not None and not 1 <= knn <= len(train):
            raise VitportError(f"--knn must be from 1 to {len(train)}, the number of training images; got {knn}.")
        with spinner("Reading features"):
            found = _of_features(checkpoint, train, source, how, knn, linear_probe)
    else:
        with spinner("Evaluating"):
            found = _of_head(checkpoint, source, how, real, per_class, predictions)
    for name, reason in found.pop("skipped", {}).items():
        say(skipped(name, reason))
    if as_json:
        write_json({"weights": weights, "data": data, "split": split, **found})
        return
    speed = found.pop("images_per_second", None)
    if note := found.pop("note", ""):
        say(f"note: {note}")
    classes = found.pop("per_class", {})
    print_table(("measure", "value"), [(name, f"{value:.4f}" if isinstance(value, float) else str(value))
                                       for name, value in found.items()])  # fmt: skip
    if speed is not None:
        say_error(f"{three_digits(speed)} images/s, from files to scores, after the first batch")
    if classes:
        measure = "average precision" if "f1" in found else "accuracy"
        print_table(("class", measure), [(name, f"{value:.4f}") for name, value in classes.items()])


def _opened(options: Data, split: Split, table: Table | None, learns: bool) -> tuple[Source | None, Source | None]:
    """The images to evaluate, and those of training if something is learned from them."""
    from vit_jax.training.data import open_source
    from vit_jax.training.data.sources.holdout import held_out

    source = open_source(options.path, split, table=table, span=options.range)
    train = open_source(options.path, "train", table=table, span=options.range) if learns or options.holdout else None
    if not options.holdout:
        return source, train
    if split == "validation" and source is not None:
        raise VitportError(f"--holdout is for data without a validation split, and {source.name} is one: leave it out.")
    if train is None:
        raise VitportError(f"{options.path} has no training images: give another path.")
    kept, taken = held_out(train, options.holdout, options.holdout_seed)
    return (taken if split == "validation" else kept), kept


def _of_head(
    checkpoint: Checkpoint,
    source: Source,
    how: dict[str, Any],
    real: str | None,
    per_class: bool,
    predictions: str | None,
) -> dict[str, Any]:
    from conversion.store.put import made_here
    from vit_jax.training.evaluation import evaluate as measure
    from vit_jax.training.evaluation.label_scores import LabelScores

    labels = None if real is None else measure.read_real_labels(real, source)
    result = measure.evaluate(checkpoint, source, **how)
    if predictions is not None:
        with made_here(predictions, overwrite=True) as path:
            measure.write_predictions(path, result, checkpoint, source)
    scores = result.scores
    found: dict[str, Any] = {"images": scores.images, **scores.metrics(), "skipped": result.skipped}
    if result.images_per_second is not None:
        found["images_per_second"] = result.images_per_second
    if result.note:
        found["note"] = result.note
    if labels is not None:
        found["accuracy_real"] = measure.real_accuracy(result, labels)
    if per_class:
        each = scores.per_class() if isinstance(scores, LabelScores) else scores.per_class()[result.places]
        found["per_class"] = dict(zip(source.classes, map(float, each), strict=True))
    return found


def _of_features(
    checkpoint: Checkpoint, train: Source, test: Source, how: dict[str, Any], knn: int | None, probe: bool
) -> dict[str, Any]:
    from vit_jax.training.evaluation.features import linear_probe, nearest_neighbours, read_features

    known, asked = (read_features(checkpoint, source, **how) for source in (train, test))
    classes = len(test.classes)
    found: dict[str, Any] = {
        "training_images": len(known.labels),
        "images": len(asked.labels),
        "skipped": {**known.skipped, **asked.skipped},
    }
    if knn is not None:
        found[f"accuracy_of_{knn}_neighbours"] = nearest_neighbours(known, asked, classes, knn)
    if probe:
        found["accuracy_of_linear_probe"] = linear_probe(known, asked, classes)
    return found
